"""The ModelProfile of a model: its facts in the form of the API."""

from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from vrampack.api.common import Quantity
from vrampack.api.modeldeployment import WeightsPrecision
from vrampack.api.modelprofile import ArchitectureSpec, ModelProfileSpec, WeightFiles, WeightsKnownBy
from vrampack.api.names import API_VERSION
from vrampack.api.source import profile_name
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture, WeightsMethod
from vrampack.models.facts import ModelFacts
from vrampack.models.fields import shown
from vrampack.models.profilelayers import layer_specs
from vrampack.models.profileweights import weight_layout


def architecture_spec(architecture: Architecture) -> ArchitectureSpec:
    """An architecture in the form of the API; planning reads the same one back."""
    kinds, order = layer_specs(architecture.runs)
    plain = {each.name: getattr(architecture, each.name) for each in fields(architecture) if each.name != "runs"}
    return ArchitectureSpec(**plain, layer_kinds=kinds, layer_order=order)


def profile_manifest(facts: ModelFacts, *, file: str = "") -> dict[str, Any]:
    """The object to create. Facts of a commit never change, so neither does it.

    ``file``: the pattern by which a GGUF file was asked for; the object says which one it is.

    Raises UnsupportedModelError for a precision that a ModelDeployment can't ask for, InvalidInputError for sizes that
    no model has: what a stranger's file claims may be more than the API takes.
    """
    try:
        spec = _spec(facts)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInputError(
            field=".".join(("ModelProfile.spec", *map(str, first["loc"]))),
            value=shown(first["input"]),
            allowed=first["msg"],
        ) from error
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelProfile",
        "metadata": {"name": profile_name(facts.source, facts.commit, file)},
        "spec": spec.wire(),
    }


def _spec(facts: ModelFacts) -> ModelProfileSpec:
    return ModelProfileSpec(
        source=facts.source,
        revision=facts.commit,
        file=_file(facts),
        architecture=architecture_spec(facts.architecture),
        parameters=facts.weights.parameters,
        weight_files=WeightFiles(
            bytes=Quantity.of(facts.weights.total),
            by_dtype={dtype: Quantity.of(size) for dtype, size in facts.by_dtype.items()},
            embedding_bytes=Quantity.of(facts.weights.embedding),
            replicated_bytes=Quantity.of(facts.weights.replicated),
            tower_bytes=Quantity.of(facts.weights.tower) if facts.weights.tower else None,
            predict_bytes=Quantity.of(facts.weights.predict) if facts.weights.predict else None,
            converted_bytes=Quantity.of(facts.weights.converted) if facts.weights.converted else None,
            known_by=None
            if facts.weights.method is WeightsMethod.TENSORS
            else WeightsKnownBy(facts.weights.method.value),
            layout=weight_layout(facts.weights),
        ),
        precision=_precision(facts.weights.precision),
        weights_digest=facts.weights_digest,
    )


def _file(facts: ModelFacts) -> str:
    """The GGUF file, the first part where there are several; of other checkpoints all files are loaded."""
    name = facts.files[0].name if facts.files else ""
    return name if name.endswith(".gguf") else ""


def _precision(found: str) -> WeightsPrecision:
    try:
        return WeightsPrecision(found)
    except ValueError as error:
        known = ", ".join(each.value for each in WeightsPrecision if each is not WeightsPrecision.AUTO)
        raise UnsupportedModelError(
            unknown=f"precision {found}", detail=f"spec.precision.weights has no word for it; it has {known}"
        ) from error
