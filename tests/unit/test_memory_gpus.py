"""What is known of GPU products."""

import pytest

from vrampack.memory.gpus import GPUS, context_bytes, gpu_named
from vrampack.units import GIB


def test_no_card_gives_all_that_it_has() -> None:
    for gpu in GPUS.values():
        assert 0 < gpu.reserved < gpu.total // 20
        assert gpu.reserved + gpu.usable == gpu.total


def test_they_come_from_the_smallest_to_the_largest() -> None:
    sizes = [gpu.usable for gpu in GPUS.values()]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", ["H100-80", "h100-80", "NVIDIA-H100-80GB-HBM3", " nvidia-h100-80gb-hbm3"])
def test_a_card_goes_by_two_names(name: str) -> None:
    assert gpu_named(name) is GPUS["H100-80"]


def test_other_names_are_not_known() -> None:
    assert gpu_named("H100") is None
    assert gpu_named("") is None


@pytest.mark.parametrize(
    ("product", "gib"),
    [("Tesla-T4", 0.51), ("NVIDIA-L4", 0.51), ("NVIDIA-H200", 0.61), ("NVIDIA-B200", 0.61), ("never heard of", 0.61)],
)
def test_the_context_is_as_measured_or_the_most_that_was(product: str, gib: float) -> None:
    assert context_bytes(product) == int(gib * GIB)
    assert context_bytes("") == max(gpu.context for gpu in GPUS.values())
