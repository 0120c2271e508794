"""Why a GPU is ruled out, in whole words."""

import pytest

from vrampack.packing.problem import Reason
from vrampack.planning.reasons import WORDS, Obstacle, ruled_out


def test_every_reason_has_words_of_its_own() -> None:
    reasons = {*Reason, *Obstacle}
    assert set(WORDS) == reasons
    assert len(reasons) == len(Reason) + len(Obstacle)
    assert len(set(WORDS.values())) == len(WORDS)


@pytest.mark.parametrize(
    ("rejected", "words"),
    [
        ({}, ""),
        ({"InsufficientGPUMemory": 2}, "2 GPUs with too little memory free (InsufficientGPUMemory)"),
        ({"ProductMismatch": 6}, "6 GPUs of a product that was not asked for (ProductMismatch)"),
        (
            {"NodeUnschedulable": 1, "GPUInMIGMode": 2},
            "2 GPUs in MIG mode (GPUInMIGMode), 1 GPU on a cordoned node (NodeUnschedulable)",
        ),
    ],
)
def test_gpus_are_counted_by_reason(rejected: dict[str, int], words: str) -> None:
    assert ruled_out(rejected) == words


def test_all_of_them_together_fit_into_a_message() -> None:
    assert len(ruled_out(dict.fromkeys(WORDS, 1000))) < 2048
