"""The ModelProfile of a model: its facts in the form of the API."""

from typing import Any

from vrampack.api.common import Quantity
from vrampack.api.modeldeployment import WeightsPrecision
from vrampack.api.modelprofile import ArchitectureSpec, ModelProfileSpec, WeightFiles
from vrampack.api.names import API_VERSION
from vrampack.api.source import profile_name
from vrampack.models.facts import ModelFacts


def profile_manifest(facts: ModelFacts) -> dict[str, Any]:
    """The object to create. Facts of a commit never change, so neither does it."""
    architecture = {name: getattr(facts.architecture, name) for name in ArchitectureSpec.model_fields}
    spec = ModelProfileSpec(
        source=facts.source,
        revision=facts.commit,
        architecture=ArchitectureSpec(**architecture),
        parameters=facts.weights.parameters,
        weight_files=WeightFiles(
            bytes=Quantity.of(facts.weights.total),
            by_dtype={dtype: Quantity.of(size) for dtype, size in facts.by_dtype.items()},
            embedding_bytes=Quantity.of(facts.weights.embedding),
            replicated_bytes=Quantity.of(facts.weights.replicated),
        ),
        precision=WeightsPrecision(facts.weights.precision),
        weights_digest=facts.weights_digest,
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelProfile",
        "metadata": {"name": profile_name(facts.source, facts.commit)},
        "spec": spec.wire(),
    }
