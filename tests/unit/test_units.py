"""How numbers read in a sentence."""

import pytest

from vrampack.units import counted, each_of


@pytest.mark.parametrize(
    ("count", "alone", "each"),
    [(0, "0 GPUs", "each of 0 GPUs"), (1, "1 GPU", "1 GPU"), (4, "4 GPUs", "each of 4 GPUs")],
)
def test_one_and_many(count: int, alone: str, each: str) -> None:
    assert (counted(count, "GPU"), each_of(count, "GPU")) == (alone, each)
