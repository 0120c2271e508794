"""A ModelProfile's figures as the estimate takes them."""

from typing import Any

import pytest

from tests.unit.known_models import LLAMA_8B, LLAMA_8B_WEIGHTS
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.errors import InvalidInputError
from vrampack.planning.facts import architecture_and_weights

SPEC: dict[str, Any] = {
    "source": "hf://meta-llama/Llama-3.1-8B-Instruct",
    "revision": "0e9e39f249a16976918f6564b8830bc894c89659",
    "architecture": {
        "modelType": "llama",
        "layers": 32,
        "hiddenSize": 4096,
        "intermediateSize": 14336,
        "vocabSize": 128256,
        "attentionHeads": 32,
        "kvHeads": 8,
        "headDim": 128,
        "dtype": "bfloat16",
        "maxContext": 131072,
        "rotaryPositions": 131072,
        "rotaryDim": 128,
    },
    "parameters": 8030261248,
    "weightFiles": {"bytes": "16060522496", "embeddingBytes": "2101346304", "replicatedBytes": "532480"},
    "precision": "bf16",
}


def test_a_profile_written_by_hand_is_the_model() -> None:
    architecture, weights = architecture_and_weights(ModelProfileSpec.model_validate(SPEC))
    assert architecture == LLAMA_8B
    assert weights == LLAMA_8B_WEIGHTS


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"weightFiles": {"bytes": "1Gi", "embeddingBytes": "1Gi", "replicatedBytes": "1"}}, "spec.weightFiles.bytes"),
        ({"precision": "Auto"}, "spec.precision"),
        ({"architecture": SPEC["architecture"] | {"kvHeads": 5}}, "spec.architecture.kvHeads"),
    ],
)
def test_figures_that_contradict_each_other_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        architecture_and_weights(ModelProfileSpec.model_validate(SPEC | changes))
    assert refusal.value.field == field
