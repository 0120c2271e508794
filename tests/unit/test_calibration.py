"""Measured terms instead of computed ones: when, which, and never below what was seen."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.memory.calibration import Observation, Setup, calibrated, merged
from vrampack.memory.estimate import Estimate
from vrampack.units import GIB, MIB

ASKED = Setup(
    engine="vllm",
    version="0.33.0",
    product="NVIDIA-L40S",
    max_sequences=64,
    max_batched_tokens=8192,
    context_length=16384,
    kv_cache="bf16",
)
TERMS: dict[str, Any] = {
    "weights": 15 * GIB,
    "kv_cache": 8 * GIB,
    "activations": 2 * GIB,
    "cuda_graphs": 1 * GIB,
    "communication": 0,
    "runtime_context": 1 * GIB,
    "allowance": 300 * MIB,
    "headroom": 819 * MIB,
}
COMPUTED = Estimate(
    **TERMS,
    per_gpu=sum(TERMS.values()),
    gpus=1,
    kv_cache_bytes=8 * GIB,
    kv_bytes_per_token=131072,
    kv_blocks=4096,
    max_concurrency_at_context="4.00",
    host_memory=GIB,
    shared_memory=GIB,
)


def seen(samples: int = 3, *, setup: Setup = ASKED, **terms: int | None) -> Observation:
    return Observation(setup=setup, samples=samples, **terms)


def after(*observations: Observation, asked: Setup = ASKED) -> Estimate:
    return calibrated(COMPUTED, observations=observations, asked=asked, headroom_percent=3)


def test_measured_terms_replace_computed_ones_and_the_sum_is_exact() -> None:
    found = after(seen(weights=14 * GIB, activations=GIB, cuda_graphs=512 * MIB))
    assert (found.weights, found.activations, found.cuda_graphs) == (14 * GIB, GIB, 512 * MIB)
    assert (found.runtime_context, found.kv_cache) == (COMPUTED.runtime_context, COMPUTED.kv_cache)
    assert found.measured == ("activations", "cuda_graphs", "weights")
    terms = (getattr(found, term) for term in TERMS)
    assert found.per_gpu == sum(terms)
    assert found.headroom == 762 * MIB  # 3 % of 24.5 GiB and 300 MiB, the next whole MiB


def test_what_is_allowed_for_fitted_terms_goes_with_the_last_of_them() -> None:
    assert after(seen(cuda_graphs=GIB)).allowance == COMPUTED.allowance
    assert after(seen(cuda_graphs=GIB, runtime_context=GIB)).allowance == 0
    pair = replace(COMPUTED, gpus=2)
    for communication, left in ((None, COMPUTED.allowance), (GIB, 0)):
        runs = [seen(cuda_graphs=GIB, runtime_context=GIB, communication=communication)]
        assert calibrated(pair, observations=runs, asked=ASKED, headroom_percent=3).allowance == left


OTHERS: dict[str, Any] = {
    "engine": "sglang",
    "version": "0.32.0",
    "product": "NVIDIA-H100-80GB-HBM3",
    "kv_cache": "fp8",
    "tensor": 2,
    "pipeline": 2,
    "data": 2,
    "expert": True,
    "decode_context": 2,
    "cuda_graphs": False,
    "args": ("--attention-backend=FLASHINFER",),
}


@pytest.mark.parametrize("field", OTHERS)
def test_a_run_of_another_kind_says_nothing(field: str) -> None:
    other = replace(ASKED, **{field: OTHERS[field]})
    assert after(seen(setup=other, weights=GIB * 14, activations=9 * GIB)) == COMPUTED


@pytest.mark.parametrize("version", ["v0.33.0", "0.33.0+cu130", " 0.33.0"])
def test_a_version_is_the_same_however_it_is_written(version: str) -> None:
    assert after(seen(setup=replace(ASKED, version=version), activations=GIB)).activations == GIB


def test_arguments_are_the_same_in_any_order() -> None:
    one, two = replace(ASKED, args=("--a=1", "--b=2")), replace(ASKED, args=("--b=2", "--a=1"))
    assert after(seen(setup=one, activations=GIB), asked=two).activations == GIB


DRIVERS = [
    ("activations", ("max_sequences", "max_batched_tokens", "context_length")),
    ("cuda_graphs", ("max_sequences", "max_batched_tokens")),
    ("communication", ("max_batched_tokens",)),
    ("weights", ()),
    ("runtime_context", ()),
]


@pytest.mark.parametrize(("term", "drivers"), DRIVERS)
@pytest.mark.parametrize("driver", ["max_sequences", "max_batched_tokens", "context_length"])
def test_a_run_with_less_of_what_drives_a_term_does_not_lower_it(
    term: str, drivers: tuple[str, ...], driver: str
) -> None:
    least = getattr(COMPUTED, term) * 3 // 4
    run = seen(setup=replace(ASKED, **{driver: getattr(ASKED, driver) - 1}), **{term: least})
    assert getattr(after(run), term) == (getattr(COMPUTED, term) if driver in drivers else least)
    run = seen(setup=replace(ASKED, **{driver: getattr(ASKED, driver) + 1}), **{term: least})
    assert getattr(after(run), term) == least


def test_a_run_with_less_of_what_drives_a_term_raises_it() -> None:
    """More never needs less than less did."""
    smaller = replace(ASKED, max_sequences=8, context_length=1024)
    found = after(seen(setup=smaller, activations=3 * GIB))
    assert (found.activations, found.measured) == (3 * GIB, ("activations",))


def test_of_several_runs_with_more_the_nearest_counts() -> None:
    large, larger = replace(ASKED, max_sequences=128), replace(ASKED, max_sequences=512)
    runs = seen(setup=large, activations=3 * GIB), seen(setup=larger, activations=5 * GIB)
    assert after(*runs).activations == 3 * GIB


# Runs with more to do, told apart by what is computed for both loads.


def computed_for(setup: Setup) -> Estimate:
    """Activations of a MiB for each sequence, graphs of one for each 64 tokens; at ASKED less than COMPUTED says."""
    return replace(COMPUTED, activations=setup.max_sequences * MIB, cuda_graphs=setup.max_batched_tokens // 64 * MIB)


def told_apart(*observations: Observation, asked: Setup = ASKED) -> Estimate:
    return calibrated(
        computed_for(asked), observations=observations, asked=asked, headroom_percent=3, computed_for=computed_for
    )


MORE = replace(ASKED, max_sequences=256, max_batched_tokens=16384)


@pytest.mark.parametrize(
    ("activations", "expected"),
    [
        (300 * MIB, (64 + 44) * MIB),  # 44 MiB more than computed for 256 sequences: so are 64
        (256 * MIB, 64 * MIB),
        (200 * MIB, 64 * MIB),  # less than computed: nothing rests on how well that scales
        (64 * MIB, 64 * MIB),
        (40 * MIB, 40 * MIB),  # the larger run took no more
        (0, 0),
    ],
)
def test_a_larger_run_counts_for_what_it_took_beyond_the_computed(activations: int, expected: int) -> None:
    assert told_apart(seen(setup=MORE, activations=activations)).activations == expected


def test_of_the_same_load_the_measured_term_stands() -> None:
    for size in (10 * MIB, 64 * MIB, 900 * MIB):
        assert told_apart(seen(activations=size)).activations == size


def test_without_what_is_computed_for_the_other_load_its_own_figure_counts() -> None:
    found = calibrated(
        COMPUTED,
        observations=[seen(setup=MORE, activations=5 * GIB)],
        asked=ASKED,
        headroom_percent=3,
        computed_for=lambda setup: None,
    )
    assert found.activations == 5 * GIB == after(seen(setup=MORE, activations=5 * GIB)).activations


def test_what_is_allowed_for_fitted_terms_stays_where_a_term_was_carried_over() -> None:
    graphs = seen(setup=MORE, cuda_graphs=GIB, runtime_context=GIB)
    assert told_apart(graphs).cuda_graphs < GIB
    assert told_apart(graphs).allowance == COMPUTED.allowance
    assert told_apart(seen(cuda_graphs=GIB, runtime_context=GIB)).allowance == 0


def test_of_several_runs_of_the_same_the_most_that_was_seen_counts() -> None:
    assert after(seen(activations=GIB), seen(activations=GIB + 5)).activations == GIB + MIB


def test_few_samples_get_a_little_more_for_what_varies_from_start_to_start() -> None:
    once = after(seen(samples=2, activations=GIB, weights=14 * GIB))
    assert (once.activations, once.weights) == (1045 * MIB, 14 * GIB)
    assert after(seen(samples=3, activations=GIB)).activations == GIB


def test_weights_of_something_else_are_not_believed() -> None:
    assert after(seen(weights=7 * GIB)) == COMPUTED
    assert after(seen(weights=8 * GIB)).weights == 8 * GIB


ACCOUNTED = 15 * GIB + 2 * GIB + GIB + GIB
"""All terms of COMPUTED but the cache, the allowance and the headroom."""


def test_a_whole_that_was_seen_is_a_floor_for_the_sum_and_replaces_no_term() -> None:
    found = after(seen(1, besides_cache=ACCOUNTED + GIB))
    assert (found.allowance, found.measured) == (GIB, ("allowance",))
    assert all(
        getattr(found, term) == getattr(COMPUTED, term) for term in TERMS if term not in ("allowance", "headroom")
    )
    for within in (ACCOUNTED // 2, ACCOUNTED, ACCOUNTED + COMPUTED.allowance):
        assert after(seen(besides_cache=within)) == COMPUTED, "a short peak may have been missed"


def test_a_whole_of_a_run_with_more_is_no_floor() -> None:
    larger = replace(ASKED, max_sequences=128)
    assert after(seen(setup=larger, besides_cache=2 * ACCOUNTED)) == COMPUTED


def test_a_whole_holds_beside_measured_terms() -> None:
    terms = {"cuda_graphs": GIB, "runtime_context": GIB}
    assert after(seen(**terms), seen(besides_cache=ACCOUNTED + 5)).allowance == MIB
    assert after(seen(**terms), seen(besides_cache=ACCOUNTED)).allowance == 0


def test_of_an_engine_that_takes_all_at_its_start_the_whole_is_also_the_most() -> None:
    asked = replace(ASKED, engine="llamacpp", version="b7917")
    run = seen(setup=replace(asked, max_sequences=128), besides_cache=ACCOUNTED + 100 * MIB)
    found = after(run, asked=asked)
    assert (found.allowance, found.measured) == (100 * MIB, ("allowance",))
    once = after(replace(run, samples=1), asked=asked).allowance
    assert once == 100 * MIB + 392 * MIB, "2 % of the whole more"
    assert after(replace(run, besides_cache=ACCOUNTED // 2), asked=asked) == COMPUTED, "not all of it was seen"


def test_nothing_that_was_not_seen_is_replaced() -> None:
    assert after() == after(seen()) == COMPUTED


def test_several_starts_are_one_observation_of_the_most() -> None:
    found = merged([seen(1, weights=14 * GIB, activations=GIB), seen(2, activations=2 * GIB)])
    assert found == seen(3, weights=14 * GIB, activations=2 * GIB)


def starts(*gib: float) -> int | None:
    return merged([seen(1, runtime_context=int(size * GIB)) for size in gib]).runtime_context


def test_a_single_high_start_of_many_is_left_out_and_a_second_one_brings_it_back() -> None:
    assert starts(0.5, 0.5, 0.5, 9) == 9 * GIB, "of four nothing is called an outlier"
    assert starts(0.5, 0.5, 0.5, 0.5, 9) == GIB // 2
    assert starts(0.5, 0.5, 0.5, 9, 9) == 9 * GIB
    assert starts(0.5, 0.5, 0.5, 0.5, 0.7) == int(0.7 * GIB), "200 MiB more is no outlier"


def test_starts_of_different_setups_are_not_merged() -> None:
    with pytest.raises(ValueError, match="one setup"):
        merged([seen(), seen(setup=replace(ASKED, max_sequences=1))])
    with pytest.raises(ValueError, match="at least one"):
        merged([])


SIZES = st.integers(0, 40 * GIB)
COUNTS = st.integers(1, 1024)
RUNS = st.lists(
    st.builds(
        lambda sequences, tokens, context, samples, **terms: seen(
            samples,
            setup=replace(ASKED, max_sequences=sequences, max_batched_tokens=tokens, context_length=context),
            **terms,
        ),
        COUNTS,
        st.integers(1, 16384),
        st.integers(1, 32768),
        st.integers(1, 5),
        weights=SIZES,
        activations=SIZES,
        cuda_graphs=SIZES,
        communication=SIZES,
        runtime_context=SIZES,
        besides_cache=SIZES,
    ),
    max_size=5,
)


@given(RUNS)
def test_no_estimate_is_below_what_was_seen_with_no_more_than_is_asked(runs: list[Observation]) -> None:
    found = after(*runs)
    for run in runs:
        setup = run.setup
        if all(getattr(setup, driver) <= getattr(ASKED, driver) for driver in DRIVERS[0][1]):
            for term, _ in DRIVERS:
                value = getattr(run, term)
                if term != "weights" or value >= COMPUTED.weights / 2:
                    assert getattr(found, term) >= value
            assert found.per_gpu - found.headroom - found.kv_cache >= (run.besides_cache or 0)


@given(RUNS)
def test_a_carried_term_is_between_what_was_seen_with_less_and_with_more(runs: list[Observation]) -> None:
    computed, found = computed_for(ASKED), told_apart(*runs)
    for term, drivers in DRIVERS:
        pairs = [
            (getattr(run, term), [getattr(run.setup, each) - getattr(ASKED, each) for each in drivers], run.samples)
            for run in runs
            if term != "weights" or getattr(run, term) >= computed.weights / 2
        ]
        least = max((size for size, more, _ in pairs if all(each <= 0 for each in more)), default=0)
        above = [size for size, more, _ in pairs if all(each >= 0 for each in more)]
        value = getattr(found, term)
        assert value >= least
        if above:
            most = max(least, min(above))
            assert value <= most * 1.02 + MIB
            assert value >= min(most, getattr(computed, term)), "never below both"


@given(RUNS, COUNTS, COUNTS)
def test_more_sequences_never_need_less_of_what_is_carried_over(runs: list[Observation], one: int, other: int) -> None:
    asked = [replace(ASKED, max_sequences=count) for count in sorted((one, other))]
    fewer, more = (told_apart(*runs, asked=each) for each in asked)
    if "activations" in fewer.measured and "activations" in more.measured:
        assert fewer.activations <= more.activations


@given(RUNS, st.floats(0, 50))
def test_the_terms_always_sum_to_the_claim(runs: list[Observation], percent: float) -> None:
    found = calibrated(COMPUTED, observations=runs, asked=ASKED, headroom_percent=percent)
    assert found.per_gpu == sum(getattr(found, term) for term in TERMS)
    assert all(getattr(found, term) % MIB == 0 for term in TERMS)


@given(RUNS, COUNTS, COUNTS)
def test_more_sequences_never_need_less(runs: list[Observation], one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    asked = [replace(ASKED, max_sequences=count) for count in (fewer, more)]
    measured = [after(*runs, asked=each) for each in asked]
    if all("activations" in each.measured for each in measured):
        assert measured[0].activations <= measured[1].activations
