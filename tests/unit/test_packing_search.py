"""Bins of one kind: solutions hold what was asked, bounds are never above the optimum, and a proof is never wrong."""

import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.packing_optimum import fewest_bins
from vrampack.packing.search import Progress, search
from vrampack.packing.stock import single

MANY = settings(max_examples=1500, deadline=None)
FEW = settings(max_examples=100, deadline=None)


def solved(sizes: list[int], capacity: int, *, seed: int = 0, steps: int = 400) -> Progress:
    stock, _ = single(sizes, capacity)
    progress = None
    for progress in islice(search(stock, seed=seed), steps):
        packed: Counter[int] = Counter()
        for pattern, times in progress.best.patterns.items():
            assert stock.free(pattern) >= 0
            for each, many in pattern.parts:
                packed[stock.sizes[each]] += many * times
        assert packed == Counter(sizes)
        assert progress.best.cost == sum(progress.best.patterns.values())
    assert progress is not None
    return progress


@MANY
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=9), capacity=st.integers(40, 60))
def test_the_bound_is_never_above_the_optimum_and_a_proof_never_wrong(sizes: list[int], capacity: int) -> None:
    least = fewest_bins(sizes, capacity)
    progress = solved(sizes, capacity)
    assert progress.bound <= least <= progress.best.cost
    if progress.optimal:
        assert progress.best.cost == least


@MANY
@given(draw=st.randoms(use_true_random=True), capacity=st.sampled_from([30, 50, 97]))
def test_small_instances_end_with_the_proof_of_the_optimum(draw: random.Random, capacity: int) -> None:
    sizes = [draw.randint(capacity // 6, capacity // 2 + 4) for _ in range(draw.randint(1, 10))]
    progress = solved(sizes, capacity)
    assert progress.best.cost == fewest_bins(sizes, capacity)


@FEW
@given(draw=st.randoms(use_true_random=True))
def test_the_answer_depends_on_the_seed_and_the_set_of_sizes_only(draw: random.Random) -> None:
    sizes = [draw.randint(20, 70) for _ in range(60)]
    mixed = draw.sample(sizes, len(sizes))
    for seed in (0, 1):
        one, other = solved(sizes, 150, seed=seed, steps=30), solved(mixed, 150, seed=seed, steps=30)
        assert one == other


def triplets(bins: int, draw: random.Random) -> list[int]:
    """Falkenauer's: each optimal bin of 1,000 holds exactly three."""
    sizes: list[int] = []
    for _ in range(bins):
        first = draw.randint(380, 490)
        second = draw.randint(250, (1000 - first) // 2)
        sizes += [first, second, 1000 - first - second]
    return sizes


@pytest.mark.parametrize("bins", [20, 40, 83, 167])
def test_triplets_are_solved_to_the_optimum_that_is_known_by_construction(bins: int) -> None:
    progress = solved(triplets(bins, random.Random(bins)), 1000, steps=2000)
    assert progress.optimal
    assert progress.best.cost == bins


def pieces(size: int, draw: random.Random) -> list[int]:
    """A bin cut into two to five pieces that fill it."""
    cuts = sorted(draw.sample(range(1, size), draw.randint(1, 4)))
    return [after - before for before, after in zip([0, *cuts], [*cuts, size], strict=True)]


@pytest.mark.parametrize("capacity", [1000, 10_000, 100_000])
def test_bins_cut_without_a_rest_are_found_again(capacity: int) -> None:
    draw = random.Random(capacity)
    sizes = [size for _ in range(30) for size in pieces(capacity, draw)]
    progress = solved(sizes, capacity, steps=2000)
    assert progress.optimal
    assert progress.best.cost == 30


def test_nothing_to_pack_needs_no_bin() -> None:
    assert solved([], 10).best.cost == 0


def test_pieces_without_size_need_one_bin() -> None:
    progress = solved([0, 0, 0], 10)
    assert progress.best.cost == 1


def test_a_piece_larger_than_a_bin_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 10"):
        single([11], 10)


@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0]])
def test_bins_of_no_size_hold_what_has_none(sizes: list[int]) -> None:
    progress = solved(sizes, 0)
    assert (progress.best.cost, progress.bound) == (min(1, len(sizes)),) * 2
