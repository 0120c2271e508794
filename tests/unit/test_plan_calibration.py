"""Measurements of a ModelProfile change the next estimate, product by product, and no pod that runs."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning_world import (
    H100,
    Json,
    children,
    decide,
    estimated,
    gpu,
    gpu_node,
    model,
    of_kind,
    placed,
    profile,
    status_of,
    told,
    world,
)
from vrampack.api import names
from vrampack.api.modelprofile import Measurement
from vrampack.memory.calibration import Observation
from vrampack.planning.actions import ApplyChild, Plan
from vrampack.planning.measurements import measurement_of, observation_of, setup_of
from vrampack.planning.need import Need
from vrampack.planning.snapshot import ModelView, ProfileView, Snapshot
from vrampack.units import GIB, parse_bytes

L40S = "NVIDIA-L40S"
L4 = "NVIDIA-L4"
SERVED = {"contextLength": 4096, "concurrency": 4}


def measurement(**changes: Any) -> Measurement:
    """What a start of `estimated` on an H100 was seen to use."""
    raw = {
        "engine": "vllm",
        "version": "0.33.0",
        "gpuProduct": H100,
        "parallelism": {},
        "kvCache": "bf16",
        "maxSequences": 4,
        "maxBatchedTokens": 8192,
        "contextLength": 4096,
        "cudaGraphs": "Auto",
        "weights": "15Gi",
        "activations": "512Mi",
        "graphs": "256Mi",
        "communication": "0",
        "runtimeContext": "700Mi",
        "samples": 3,
        "observedAt": "2027-01-01T00:00:00Z",
    }
    return Measurement.model_validate(raw | changes)


def measured(*found: Measurement) -> ProfileView:
    return replace(profile(), measurements=found or (measurement(),))


def estimate_of(snapshot: Snapshot) -> Json:
    found: Json = status_of(decide(snapshot))["estimate"]
    return found


def fresh(*found: Measurement, products: Sequence[str] = (H100,), **fields: Any) -> Json:
    """The estimate of a model that is not served yet."""
    fleet = [gpu_node(f"n{index}", gpu(f"GPU-{index}", product=name)) for index, name in enumerate(products)]
    return estimate_of(world(estimated(**fields), profiles=[measured(*found)], gpu_nodes=fleet))


def test_a_measured_profile_changes_the_next_estimate_and_its_method() -> None:
    computed = estimate_of(world(estimated(), profiles=[profile()]))
    assert computed["method"] == "Computed"
    found = fresh()
    assert found["method"] == "Measured"
    assert found["perGPU"] != computed["perGPU"]
    terms = {"weights": "15Gi", "activations": "512Mi", "cudaGraphs": "256Mi", "runtimeContext": "700Mi"}
    for term, size in terms.items():
        assert parse_bytes(found[term]) == parse_bytes(size)
    assert found["kvCache"] == computed["kvCache"]
    assert "15.00 GiB weights (measured) + " in found["explanation"]
    names_of_terms = (*terms, "kvCache", "communication", "allowance", "headroom")
    assert sum(parse_bytes(found[term]) for term in names_of_terms) == parse_bytes(found["perGPU"])


def test_a_run_with_more_to_do_is_told_apart_by_what_is_computed() -> None:
    """64 sequences take 2 GiB more than computed: so do 4, and not what 64 take."""
    served = {"contextLength": 4096, "concurrency": 64, "tokensPerSequence": 256}
    many = estimate_of(world(estimated(serving=served, engine={"maxBatchedTokens": 16384}), profiles=[profile()]))
    few = estimate_of(world(estimated(), profiles=[profile()]))
    computed = {name: parse_bytes(found["activations"]) for name, found in (("many", many), ("few", few))}
    assert computed["many"] > computed["few"]
    printed = computed["many"] + 2 * GIB
    larger = measurement(activations=str(printed), maxSequences=64, maxBatchedTokens=16384)
    found = parse_bytes(fresh(larger)["activations"])
    assert found == computed["few"] + 2 * GIB < printed
    assert parse_bytes(fresh(larger, measurement(activations="512Mi"))["activations"]) == 512 * 2**20, "the same load"
    unfit = measurement(activations=str(printed), contextLength=10**6)
    assert parse_bytes(fresh(unfit)["activations"]) == printed, "what the engine would refuse tells nothing apart"


def test_a_measurement_of_another_kind_of_run_changes_nothing() -> None:
    for other in ({"version": "0.32.0"}, {"gpuProduct": L40S}, {"kvCache": "fp8"}, {"cudaGraphs": "Disabled"}):
        assert fresh(measurement(**other))["method"] == "Computed", other


def test_harmless_arguments_make_no_run_of_another_kind() -> None:
    asked: Json = {"engine": {"args": ["--seed", "7", "--enable-log-requests"]}}
    assert fresh(measurement(args=["--chat-template=x"]), **asked)["method"] == "Measured"
    assert fresh(measurement(args=["--attention-backend", "FLASHINFER"]), **asked)["method"] == "Computed"


def test_what_a_spec_says_beside_its_arguments_makes_runs_of_another_kind() -> None:
    plain = estimated().spec
    assert plain is not None
    kinds = [
        plain,
        *(
            estimated(**{part: value}).spec
            for part, value in (
                ("speculation", {"method": "ngram", "tokens": 3}),
                ("speculation", {"method": "ngram", "tokens": 4}),
                ("adapters", {"max": 4}),
                ("adapters", {"max": 4, "maxRank": 64}),
                ("engine", {"imagesPerPrompt": 0}),
            )
        ),
    ]
    setups = [setup_of(spec, product=H100, kv_cache="bf16") for spec in kinds if spec is not None]
    for one in setups:
        assert [each for each in setups if each.alike(one)] == [one]
    assert setups[0].args == ()


def test_another_commit_of_the_model_that_drafts_makes_a_run_of_another_kind() -> None:
    spec = estimated(speculation={"method": "eagle3", "draftModel": "hf://org/draft", "tokens": 3}).spec
    assert spec is not None
    one, again, other = (setup_of(spec, product=H100, kv_cache="bf16", draft_commit=each * 40) for each in "aab")
    assert one.alike(again)
    assert not one.alike(other)
    read = observation_of(measurement_of(Observation(setup=one, weights=GIB), at=0)).setup
    assert read.alike(one)


def test_a_claim_is_that_of_the_neediest_product_that_a_replica_may_get() -> None:
    both = fresh(products=(H100, L40S))
    by_product = {each["product"]: each["perGPU"] for each in both["byProduct"]}
    assert both["perGPU"] == by_product[L40S] != by_product[H100]
    assert both["method"] == "Computed"
    alone = fresh(products=(H100, L40S), placement={"gpuProducts": [H100]})
    assert (alone["perGPU"], alone["method"]) == (by_product[H100], "Measured")
    assert not alone["byProduct"]


def templates(found: Plan) -> list[Json]:
    """The templates that a plan sends out."""
    sent = (each.manifest for each in of_kind(found, ApplyChild))
    return [each["spec"]["template"] for each in sent if each["kind"] == "Deployment"]


def test_a_calibration_is_pending_for_a_model_that_is_served_until_it_is_asked_for() -> None:
    made = children(estimated(), profiles=[profile()])
    snapshot = world(estimated(), pods=[placed()], made=made, profiles=[measured()])
    found = decide(snapshot)
    assert not templates(found)
    estimate = status_of(found)["estimate"]
    assert estimate["method"] == "Computed"
    assert estimate["pending"]["because"] == "CalibrationChanged"
    assert not templates(decide(told(snapshot, found))), "and stays so"
    asked = replace(snapshot, models=(replace(snapshot.models[0], refresh="2027-01-01"),))
    [template] = templates(decide(asked))
    need = Need.from_json(template["metadata"]["annotations"][names.NEED])
    assert need.bytes == parse_bytes(estimate["pending"]["perGPU"])
    assert need.context == 700 * GIB // 1024


def test_another_change_beside_a_calibration_is_no_calibration() -> None:
    made = children(estimated(), profiles=[profile()])
    shape = profile().spec.architecture.model_dump() | {"kv_heads": 4}  # type: ignore[union-attr]
    facts = replace(profile(architecture=shape), measurements=(measurement(),))
    estimate = estimate_of(world(estimated(), pods=[placed()], made=made, profiles=[facts]))
    assert estimate["pending"]["because"] == "EstimateChanged"


def test_declared_memory_stays_what_was_declared() -> None:
    found = fresh(memory={"perGPU": "30Gi"})
    assert (found["perGPU"], found["method"]) == ("30Gi", "Declared")


def test_products_with_another_runtime_context_have_lines_of_their_own() -> None:
    fleet = [gpu_node(name, gpu(f"GPU-{name}", product=name)) for name in (H100, L4)]
    both = estimate_of(world(estimated(), profiles=[profile()], gpu_nodes=fleet))
    by_product = {each["product"]: each["perGPU"] for each in both["byProduct"]}
    assert both["perGPU"] == by_product[H100]
    assert parse_bytes(by_product[H100]) > parse_bytes(by_product[L4])
    assert both["method"] == "Computed"


# What the agents see of replicas that run.


def running(
    model: ModelView,
    *,
    most: int,
    count: int = 1,
    of: ProfileView | None = None,
    told_by_engine: Json | None = None,
    **fields: Any,
) -> Snapshot:
    """A model whose replicas are ready on GPUs of their own, each of which saw the same peak; ``most``: bytes more than
    the KV cache."""
    known = replace(of or profile(), resource_version="5")
    made = children(model, profiles=[known])
    [deployment] = [each for each in made if each.kind == "Deployment"]
    asked = deployment.object["spec"]["template"]["metadata"]["annotations"][names.NEED]
    need = Need.from_json(asked)
    pods, found = [], []
    for index in range(count):
        name = f"llama-{index}"
        pods.append(replace(placed(name, on=f"GPU-{index}", claim=str(need.bytes)), **{"need": asked, **fields}))
        whole = str(need.kv + most)
        peak = [{"podUID": f"uid-{name}", "bytes": whole, "peak": whole} | (told_by_engine or {})]
        found.append(gpu(f"GPU-{index}", index=index, processes=peak))
    return world(model, pods=pods, made=made, profiles=[known], gpu_nodes=[gpu_node("n1", *found)])


def recorded(snapshot: Snapshot) -> tuple[Measurement, ...]:
    written = [each for each in decide(snapshot).statuses if each.kind == "ModelProfile"]
    return tuple(Measurement.model_validate(one) for each in written for one in each.status["measurements"])


def test_what_replicas_were_seen_to_hold_is_recorded_with_all_that_it_depends_on() -> None:
    fields: Json = {"engine": {"args": ["--seed", "7"]}, "adapters": {"max": 4}, "replicas": 2}
    snapshot = running(estimated(**fields), most=21 * GIB, count=2)
    [found] = recorded(snapshot)
    assert found.besides_cache is not None
    assert found.besides_cache.bytes == 21 * GIB
    assert (found.engine, found.version, found.gpu_product) == ("vllm", "0.33.0", H100)
    assert (found.max_sequences, found.max_batched_tokens, found.context_length) == (4, 8192, 4096)
    assert (found.kv_cache, found.cuda_graphs, found.samples) == ("bf16", "Auto", 2)
    assert found.args == ("--max-lora-rank=16", "--max-loras=4")
    assert found.weights is None, "a whole tells no terms apart"
    kept = replace(snapshot, profiles=(replace(snapshot.profiles[0], measurements=(found,)),))
    assert not recorded(kept), "written once"
    estimate = status_of(decide(kept))["estimate"]
    assert (estimate["method"], estimate["pending"]["because"]) == ("Computed", "CalibrationChanged")


def test_the_next_estimate_is_not_below_what_was_seen() -> None:
    [found] = recorded(running(estimated(), most=21 * GIB))
    after = fresh(found)
    assert after["method"] == "Measured"
    assert "allowance (measured)" in after["explanation"]
    others = parse_bytes(after["perGPU"]) - parse_bytes(after["kvCache"]) - parse_bytes(after["headroom"])
    assert others == 21 * GIB


def test_a_record_grows_with_what_is_seen_and_keeps_its_other_figures() -> None:
    before = measurement(besidesCache="21Gi", samples=1)
    for most, written in ((21 * GIB + 100, False), (20 * GIB, False), (22 * GIB, True)):
        found = recorded(running(estimated(), most=most, of=measured(before)))
        assert bool(found) is written, most
    [record] = found
    assert record.besides_cache is not None
    assert record.besides_cache.bytes == 22 * GIB
    assert (record.weights, record.samples) == (before.weights, 1), "terms of a log were not seen again"


def test_replicas_that_prove_nothing_are_not_recorded() -> None:
    assert recorded(running(estimated(), most=21 * GIB))
    for said, snapshot in {
        "not ready": running(estimated(), most=21 * GIB, ready=False),
        "of another template": running(estimated(), most=21 * GIB, need="{}"),
        "nothing but the cache": running(estimated(), most=0),
        "a declared claim": running(estimated(memory={"perGPU": "40Gi"}), most=21 * GIB),
        "fills what is free": running(
            estimated(engine={"name": "tgi", "version": "3.3.6"}, placement={"sharing": "Exclusive"}), most=21 * GIB
        ),
        "declared": world(model(), pods=[placed()], made=children(model()), profiles=[profile()]),
    }.items():
        assert not recorded(snapshot), said


def test_a_full_record_makes_no_room_for_another() -> None:
    full = [measurement(maxSequences=100 + index) for index in range(64)]
    assert not recorded(running(estimated(), most=21 * GIB, of=measured(*full)))


def test_no_floor_stands_against_a_declared_claim() -> None:
    declared = estimated(memory={"perGPU": "24Gi"})
    seen = [measurement(weights=None, activations=None, graphs=None, runtimeContext=None, besidesCache="30Gi")]
    found = status_of(decide(world(declared, profiles=[measured(*seen)])))
    assert found["estimate"]["perGPU"] == "24Gi"
    assert found["estimate"]["method"] == "Declared"


def test_terms_that_an_engine_tells_apart_are_recorded_too() -> None:
    engine = {"engine": {"name": "sglang", "version": "0.5.23"}}
    told_apart = {"weights": "16Gi", "graphs": "300Mi"}
    [found] = recorded(running(estimated(**engine), most=21 * GIB, told_by_engine=told_apart))
    assert found.weights is not None
    assert found.graphs is not None
    assert (found.weights.bytes, found.graphs.bytes) == (16 * GIB, 300 * GIB // 1024)
    after = fresh(found, **engine)
    assert (parse_bytes(after["weights"]), parse_bytes(after["cudaGraphs"])) == (16 * GIB, 306 * GIB // 1024)
    two = recorded(running(estimated(**engine, replicas=2), most=21 * GIB, count=2, told_by_engine=told_apart))
    assert [each.samples for each in two] == [2]
    drafting = estimated(**engine, speculation={"method": "ngram", "tokens": 2})
    [found] = recorded(running(drafting, most=21 * GIB, told_by_engine=told_apart))
    assert found.weights is None, "of what drafts nothing is in that figure"


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["--chat-template", "x" * 4090], id="one that is too long with its flag"),
        pytest.param(["--chat-template=x"] * 64, id="more than a record holds"),
        pytest.param([f"--chat-template={'x' * 4000}"] * 60, id="more than an object holds"),
    ],
)
def test_a_run_that_no_record_holds_is_left_out(args: list[str]) -> None:
    engine: Json = {"name": "sglang", "version": "0.5.23", "image": "registry.example.com/sglang:1"}
    assert recorded(running(estimated(engine=engine), most=21 * GIB))
    assert not recorded(running(estimated(engine=engine | {"args": args}), most=21 * GIB))


def test_what_ran_with_another_command_is_no_run_of_this_version_of_vrampack() -> None:
    """A template stays in force over an upgrade, which may give the engine other flags for the same spec."""
    snapshot = running(estimated(), most=21 * GIB)
    for part, value in (("args", ["--other"]), ("image", "vllm/vllm-openai:other")):
        children_of = copy.deepcopy(snapshot.children)
        [deployment] = [each for each in children_of if each.kind == "Deployment"]
        [engine] = [
            each
            for each in deployment.object["spec"]["template"]["spec"]["containers"]
            if each["name"] == names.ENGINE_CONTAINER
        ]
        engine[part] = value
        assert not recorded(replace(snapshot, children=children_of)), part


def test_records_of_one_setup_become_one_and_lose_nothing() -> None:
    """Written by hand, or told apart by arguments that are known to be harmless."""
    one = measurement(besidesCache="21Gi", weights="16Gi", samples=4)
    two = measurement(besidesCache="20Gi", weights="15Gi", args=["--seed", "7"], samples=2)
    [record] = recorded(running(estimated(), most=22 * GIB, of=measured(one, two)))
    assert record.weights is not None
    assert (record.weights.bytes, record.samples) == (16 * GIB, 4)


def test_an_image_of_ones_own_speaks_for_nobody_else() -> None:
    """Whoever may serve a model could otherwise raise what all others are to claim for it."""
    asked: list[Json] = [{"engine": {"image": f"registry.example.com/vllm:{tag}"}} for tag in (1, 2)]
    [found] = recorded(running(estimated(**asked[0]), most=50 * GIB))
    assert fresh(found)["method"] == "Computed"
    assert fresh(found, **asked[1])["method"] == "Computed"
    assert fresh(found, **asked[0])["method"] == "Measured"
