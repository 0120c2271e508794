"""A ModelProfile's figures as the estimate takes them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.llama_profile import LLAMA_PROFILE
from tests.unit.known_models import LLAMA_8B, LLAMA_8B_WEIGHTS
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.errors import InvalidInputError, VrampackError
from vrampack.estimator import read_model
from vrampack.memory.architecture import Split, WeightPart, WeightsMethod
from vrampack.memory.layers import Span
from vrampack.models.config import architecture_of
from vrampack.models.facts import ModelFacts
from vrampack.models.profile import architecture_spec, profile_manifest
from vrampack.planning.facts import architecture_and_weights

SPEC: dict[str, Any] = dict(LLAMA_PROFILE)


def test_a_profile_written_by_hand_is_the_model() -> None:
    architecture, weights = architecture_and_weights(ModelProfileSpec.model_validate(SPEC))
    assert architecture == LLAMA_8B
    assert weights == LLAMA_8B_WEIGHTS


def test_towers_prediction_layers_and_where_the_figures_come_from_are_kept() -> None:
    weights = replace(LLAMA_8B_WEIGHTS, tower=2**30, predict=2**20, method=WeightsMethod.SHAPES)
    facts = ModelFacts(
        source=SPEC["source"],
        commit=SPEC["revision"],
        architecture=LLAMA_8B,
        weights=weights,
        weights_digest="",
        by_dtype={},
        files=(),
    )
    spec = ModelProfileSpec.model_validate(profile_manifest(facts)["spec"])
    assert architecture_and_weights(spec) == (LLAMA_8B, weights)


def test_the_tensors_of_published_models_are_kept_one_by_one(shared_data: Path) -> None:
    kept = 0
    for path in sorted((shared_data / "model-configs").glob("*.json")):
        try:
            found = read_model(path)
            spec = ModelProfileSpec.model_validate(
                profile_manifest(replace(found, source=SPEC["source"], commit=SPEC["revision"]))["spec"]
            )
        except VrampackError:
            continue
        assert architecture_and_weights(spec) == (found.architecture, found.weights), path.name
        kept += spec.weight_files.layout is not None
    assert kept > 150


LAYOUT: dict[str, Any] = {
    "kinds": {"k0": ["33554432 tensor + 8388608 heads/8", "~ 8192 whole", "1024 expert/64/768/128"]},
    "order": [{"kind": "k0", "count": 32}],
    "before": ["1050673152 vocabulary/128256"],
}


def test_a_layout_in_words() -> None:
    files = SPEC["weightFiles"] | {"layout": LAYOUT}
    _, weights = architecture_and_weights(ModelProfileSpec.model_validate(SPEC | {"weightFiles": files}))
    (run,) = weights.layers
    assert run.count == 32
    fused, small, experts = run.tensors
    assert fused.parts == (
        WeightPart(bytes=33554432, split=Split.TENSOR),
        WeightPart(bytes=8388608, split=Split.HEADS, units=8),
    )
    assert small.small
    assert experts.parts == (WeightPart(bytes=1024, split=Split.EXPERT, units=64, width=768, align=128),)
    assert weights.before[0].parts[0].units == 128256


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"order": [{"kind": "k1", "count": 32}]}, "spec.weightFiles.layout.order"),
        ({"order": [{"kind": "k0", "count": 31}]}, "spec.weightFiles.layout.order"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(changes: dict[str, Any], field: str) -> None:
    files = SPEC["weightFiles"] | {"layout": LAYOUT | changes}
    with pytest.raises(InvalidInputError) as refusal:
        architecture_and_weights(ModelProfileSpec.model_validate(SPEC | {"weightFiles": files}))
    assert refusal.value.field == field


@pytest.mark.parametrize(
    "text", ["", "8 whole + ", "x whole", "8 halves", "8 heads/", "-1 whole", "8 whole/1/2/3/4", "8"]
)
def test_a_tensor_that_is_none_is_refused_by_the_api(text: str) -> None:
    files = SPEC["weightFiles"] | {"layout": LAYOUT | {"before": [text]}}
    with pytest.raises(ValidationError):
        ModelProfileSpec.model_validate(SPEC | {"weightFiles": files})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"weightFiles": {"bytes": "1Gi", "embeddingBytes": "1Gi", "replicatedBytes": "1"}}, "spec.weightFiles.bytes"),
        (
            {"weightFiles": {"bytes": "1Gi", "embeddingBytes": "1", "replicatedBytes": "1", "towerBytes": "1Gi"}},
            "spec.weightFiles.bytes",
        ),
        ({"precision": "Auto"}, "spec.precision"),
        ({"architecture": SPEC["architecture"] | {"kvHeads": 5}}, "spec.architecture.kvHeads"),
    ],
)
def test_figures_that_contradict_each_other_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        architecture_and_weights(ModelProfileSpec.model_validate(SPEC | changes))
    assert refusal.value.field == field


MIXED = SPEC["architecture"] | {
    "layers": 4,
    "layerKinds": [
        {
            "name": "sliding",
            "mixers": [
                {
                    "attention": {
                        "heads": 32,
                        "kvHeads": 8,
                        "keyDim": 128,
                        "valueDim": 128,
                        "span": "Sliding",
                        "window": 1024,
                    }
                }
            ],
            "feedForward": {"width": 14336},
        },
        {
            "name": "full",
            "mixers": [{"attention": {"heads": 32, "kvHeads": 8, "keyDim": 128, "valueDim": 128}}],
            "feedForward": {"width": 14336},
        },
    ],
    "layerOrder": [{"kind": "sliding", "count": 3}, {"kind": "full"}],
}


def test_layers_that_differ_are_written_as_kinds_and_their_order() -> None:
    architecture, _ = architecture_and_weights(ModelProfileSpec.model_validate(SPEC | {"architecture": MIXED}))
    assert [(run.count, run.mixers[0].span) for run in architecture.runs] == [(3, Span.SLIDING), (1, Span.FULL)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"layers": 5}, "spec.architecture.layerOrder"),
        ({"layerOrder": [{"kind": "slidng", "count": 4}]}, "spec.architecture.layerOrder.kind"),
        (
            {"layerKinds": [{"name": "sliding", "mixers": [{}]}, MIXED["layerKinds"][1]]},
            "spec.architecture.layerKinds.mixers",
        ),
    ],
)
def test_layers_that_do_not_add_up_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        architecture_and_weights(ModelProfileSpec.model_validate(SPEC | {"architecture": MIXED | changes}))
    assert refusal.value.field == field


def test_every_published_configuration_comes_back_from_its_profile(shared_data: Path) -> None:
    checked = 0
    for file in [*shared_data.glob("model-configs/*.json"), *shared_data.glob("allocator/configs/*.json")]:
        try:
            architecture = architecture_of(json.loads(file.read_text()))
        except VrampackError:
            continue
        spec = SPEC | {"architecture": json.loads(json.dumps(architecture_spec(architecture).wire()))}
        assert architecture_and_weights(ModelProfileSpec.model_validate(spec))[0] == architecture, file.name
        checked += 1
    assert checked > 300
