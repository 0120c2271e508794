"""What holds for every snapshot, whatever is in it."""

from collections import defaultdict
from dataclasses import replace
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.planning_world import (
    PARALLEL,
    Json,
    children,
    decide,
    gpu,
    gpu_node,
    model,
    node,
    placed,
    pod,
    pool,
    told,
    unreadable,
    where,
    world,
)
from vrampack.planning.actions import Plan
from vrampack.planning.inventory import inventory
from vrampack.planning.need import Need
from vrampack.planning.plan import plan
from vrampack.planning.snapshot import ModelView, PodView, Snapshot
from vrampack.planning.verdict import Settings
from vrampack.units import GIB

# Few names and round sizes, so that things collide. Children are made once: they are the slow part.
MODELS: dict[str, ModelView] = {
    "a": model("a", per_gpu="16Gi", replicas=3),
    "b": model("b", per_gpu="24Gi", replicas=3, gpus=2, rollout="InPlace"),
    "own": model("own", per_gpu="16Gi", replicas=2, placement={"sharing": "Exclusive"}),
    "shy": model("shy", per_gpu="8Gi", replicas=2, placement={"avoidModels": ["a"], "spread": "Require"}),
}
CHILDREN = {
    (name, rolling): children(each, rolling=rolling) for name, each in MODELS.items() for rolling in (True, False)
}
CHILDREN_OF_LLAMA = children(model())
UUIDS = [f"GPU-{number}" for number in range(6)]

texts = st.sampled_from(["Ready", "True", "llama-0", "GPU-0", "1Gi", "2026-01-01T00:00:00Z", ""]) | st.text()
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "status", "reason", "lastTransitionTime", "pod", "gpus", "uuid", "observed"])
            | texts,
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
statuses = st.dictionaries(
    st.sampled_from(["conditions", "placements", "model", "estimate", "waiting", "summary"]), anything
)

gib = st.integers(0, 30)
rarely = st.integers(0, 9).map(lambda number: number == 0)


@st.composite
def pods(draw: st.DrawFn, index: int) -> PodView:
    of = draw(st.sampled_from(sorted(MODELS)))
    spec = MODELS[of].spec
    assert spec is not None
    tensor = spec.parallelism.tensor
    name, size = f"{of}-{index}", draw(st.integers(1, 30))
    fields: Json = {"of": of, "deleting": draw(rarely), "cpu": 1000}
    if draw(st.booleans()):
        need = Need(gpus=tensor, bytes=size * GIB, kv=0, context=0, comm=0).to_json()
        gates = draw(st.sampled_from([("vrampack.dev/placement",)] * 5 + [("vrampack.dev/placement", "x/y")]))
        return replace(pod(name, **fields), need="?" if draw(rarely) else need, gates=gates)
    on = draw(st.lists(st.sampled_from([*UUIDS, "GPU-lost"]), min_size=tensor, max_size=tensor, unique=True))
    state = draw(st.sampled_from(["Running", "Running", "Running", "Succeeded", "Failed"]))
    bound = draw(st.booleans())
    fields |= {"phase": state, "ready": bound and draw(st.booleans()), "node": "n0" if bound else ""}
    return placed(
        name, on=",".join(on), claim=f"{size}Gi", refused="" if bound else draw(st.sampled_from(["", "no"])), **fields
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    found = [draw(pods(index)) for index in range(draw(st.integers(1, 10)))]
    uids = [each.uid for each in found]
    fleet = []
    for number in range(3):
        cards = []
        for index, uuid in enumerate(UUIDS[2 * number : 2 * number + 2]):
            users = draw(st.lists(st.sampled_from([*uids, "stranger"]), max_size=2, unique=True))
            cards.append(
                gpu(
                    uuid,
                    index=index,
                    memory=None if draw(rarely) else f"{draw(st.sampled_from([24, 40, 80]))}Gi",
                    health="Unhealthy" if draw(rarely) else "Healthy",
                    foreign=[{"bytes": f"{draw(gib)}Gi"}] if draw(rarely) else [],
                    processes=[{"podUID": uid, "bytes": f"{draw(gib)}Gi"} for uid in users],
                )
            )
        reserve = [{"uuid": UUIDS[2 * number], "reserve": f"{draw(gib)}Gi", "cordoned": draw(rarely)}]
        fleet.append(gpu_node(f"n{number}", *cards, alive=not draw(rarely), spec=reserve))
    nodes = [
        node(each.name, ready=not draw(rarely), unschedulable=draw(rarely), cpu=draw(st.sampled_from([2000, 64000])))
        for each in fleet
        if not draw(rarely)
    ]
    policy = draw(st.sampled_from([PARALLEL, pool(generation=0), pool(startup="Parallel", objective="Balanced")]))
    rolling = {name: draw(st.booleans()) for name in MODELS}
    return world(
        *MODELS.values(),
        pods=found,
        gpu_nodes=fleet,
        nodes=nodes,
        pools=[policy],
        made=[each for name in MODELS for each in CHILDREN[name, rolling[name]]],
    )


# A busy machine is no failure.
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(snapshots())
def test_claims_never_exceed_what_a_gpu_has(snapshot: Snapshot) -> None:
    stock = inventory(snapshot)
    new: dict[str, int] = defaultdict(int)
    for action in plan(snapshot, Settings()).placements:
        need = Need.from_json(action.pod.need)
        assert len(set(action.gpus)) == need.gpus
        assert {stock.gpus[uuid].node for uuid in action.gpus} == {action.node}
        for uuid in action.gpus:
            assert stock.gpus[uuid].closed is None
            new[uuid] += need.bytes
    assert all(size <= stock.gpus[uuid].free for uuid, size in new.items())


@FEW
@given(snapshots())
def test_every_waiting_replica_is_placed_or_explained(snapshot: Snapshot) -> None:
    found = decide(snapshot)
    statuses = {each.name: each.status for each in found.statuses if each.kind == "ModelDeployment"}
    for name in MODELS:
        gated = {each.name for each in snapshot.pods if each.model == name and each.gated and not each.deleting}
        entries = statuses[name]["waiting"]
        assert sum(each["count"] for each in entries) == len(gated - where(found).keys())
        assert all(each["reason"] and each["message"] for each in entries)


@FEW
@given(snapshots(), st.randoms(use_true_random=False))
def test_the_plan_depends_on_what_is_there_and_not_on_its_order(snapshot: Snapshot, chance: Random) -> None:
    first = decide(snapshot)
    assert decide(snapshot) == first
    shuffled = list(snapshot.pods)
    chance.shuffle(shuffled)
    other = decide(replace(snapshot, pods=tuple(shuffled)))
    assert where(other) == where(first)
    assert other.waiting == first.waiting


@FEW
@given(snapshots())
def test_exclusive_replicas_are_alone_and_models_that_avoid_each_other_apart(snapshot: Snapshot) -> None:
    before = {
        uuid: [each for each in snapshot.pods if each.claim and uuid in each.claim.gpus and not each.ended]
        for uuid in UUIDS
    }
    found = decide(snapshot)
    for uuid in UUIDS:
        new = [each.pod for each in found.placements if uuid in each.gpus]
        tenants = [each.model for each in (*before[uuid], *new)]
        if new and "own" in tenants:
            assert len(tenants) == 1
        if "shy" in [each.model for each in new]:
            assert "a" not in tenants


@FEW
@given(snapshots())
def test_nothing_that_is_bound_is_deleted_and_no_node_twice(snapshot: Snapshot) -> None:
    found = decide(snapshot, refusal_seconds=0).deletions
    assert all(not each.pod.node and each.pod.claim is not None for each in found)
    assert len({each.node for each in found}) == len(found)


@FEW
@given(snapshots())
def test_carrying_a_plan_out_leads_to_rest(snapshot: Snapshot) -> None:
    """Each pass places, starts and writes until nothing is left to do."""
    for _ in range(12):
        found = decide(snapshot)
        if not (found.placements or found.children or found.statuses):
            break
        after = told(snapshot, found)
        # Engines that started are ready, so that the next one of a GPU may start.
        snapshot = replace(
            after,
            pods=tuple(replace(each, ready=True) if each.claim and not each.gated else each for each in after.pods),
        )
    else:
        raise AssertionError("the plan never rests")


@settings(max_examples=100, deadline=None)
@given(statuses, statuses)
def test_a_former_status_of_any_shape_is_no_obstacle(of_model: Json, of_pool: Json) -> None:
    used = [{"podUID": "uid-llama-0", "bytes": "1Gi"}]
    snapshot = world(
        model(status=of_model),
        unreadable(model("other", status=of_model), "spec.replicas: -1"),
        pods=[placed(on="GPU-0")],
        gpu_nodes=[gpu_node("n1", gpu("GPU-0", processes=used))],
        pools=[pool(status=of_pool)],
        made=CHILDREN_OF_LLAMA,
    )
    bare = replace(
        snapshot,
        models=tuple(replace(each, status={}) for each in snapshot.models),
        pools=tuple(replace(each, status={}) for each in snapshot.pools),
    )
    assert reasons(decide(snapshot)) == reasons(decide(bare))


def reasons(found: Plan) -> list[tuple[str, str, str, str]]:
    return [
        (each.kind, each.name, condition["type"], condition["reason"])
        for each in found.statuses
        for condition in each.status["conditions"]
    ]
