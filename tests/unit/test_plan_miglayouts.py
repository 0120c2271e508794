"""Layouts of MIG devices that are suggested for replicas that wait, and never made."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning_world import (
    STARTED,
    Json,
    decide,
    gpu,
    gpu_node,
    model,
    placed,
    pod,
    pool,
    status_of,
    waiting,
    world,
)
from vrampack.api.gpunode import MIGProfile
from vrampack.packing.layouts import SliceProfile, legal_layouts
from vrampack.planning.miglayouts import names_of
from vrampack.planning.seeking import find
from vrampack.planning.snapshot import Memory, PoolView, Snapshot
from vrampack.units import GIB, parse_bytes

PROFILES: list[Json] = [
    {"name": "1g.10gb", "memory": "9Gi", "most": 7, "placements": [f"{start}:1" for start in range(7)]},
    {"name": "1g.10gb+me", "memory": "9Gi", "most": 1, "placements": [f"{start}:1" for start in range(7)]},
    {"name": "1g.20gb", "memory": "19Gi", "most": 4, "placements": ["0:2", "2:2", "4:2", "6:2"]},
    {"name": "2g.20gb", "memory": "19Gi", "most": 3, "placements": ["0:2", "2:2", "4:2"]},
    {"name": "3g.40gb", "memory": "39Gi", "most": 2, "placements": ["0:4", "4:4"]},
    {"name": "4g.40gb", "memory": "39Gi", "most": 1, "placements": ["0:4"]},
    {"name": "7g.80gb", "memory": "79Gi", "most": 1, "placements": ["0:8"]},
]
"""As an H100 reports them."""
ALL = tuple(MIGProfile.model_validate(each) for each in PROFILES)
SEVEN = [{"uuid": f"MIG-{number}", "profile": "1g.10gb", "memory": "9Gi"} for number in range(7)]


def sliced(name: str = "GPU-1", devices: list[Json] | None = None, **fields: Any) -> Json:
    return gpu(name, mig=True, mig_devices=SEVEN if devices is None else devices, mig_profiles=PROFILES, **fields)


def mig(**fields: Any) -> PoolView:
    return pool("default", mechanism="MIG", startup="Parallel", **fields)


def told(*pods: Any, gpus: list[Json] | None = None, policy: PoolView | None = None, claim: str = "30Gi") -> Any:
    """What stands in the pool's status, once it was looked for; None where nothing does."""
    asked = world(
        model("large", per_gpu=claim, replicas=4),
        model("small", per_gpu="5Gi"),
        pods=pods or (pod("large-0", of="large", need=claim),),
        gpu_nodes=[gpu_node("n1", *(gpus or [sliced()]))],
        pools=[policy or mig()],
    )
    return status_of(decide(_found(asked)), "default", kind="GPUPool").get("suggestedLayouts")


def _found(snapshot: Snapshot) -> Snapshot:
    answers = {name: find(question) for name, (question, _) in decide(snapshot).questions.items()}
    return Snapshot(
        **{name: getattr(snapshot, name) for name in snapshot.__slots__ if name != "memory"},
        memory=Memory(started=STARTED, findings=answers),
    )


def test_an_idle_gpu_would_be_cut_for_who_waits() -> None:
    (layout,) = told()
    assert (layout["node"], layout["gpu"], layout["index"]) == ("n1", "GPU-1", 0)
    assert layout["because"] == "room for 1 replica of serving/large"
    assert "3g.40gb" in layout["devices"] or "4g.40gb" in layout["devices"]


def test_as_many_as_wait_find_room_on_as_few_gpus_as_possible() -> None:
    pods = [pod(f"large-{number}", of="large", need="30Gi") for number in range(2)]
    (layout,) = told(*pods, gpus=[sliced(), sliced("GPU-2", [], index=1)])
    assert layout["devices"] == ["4g.40gb", "3g.40gb"], "all seven parts of compute are handed out"
    assert layout["because"] == "room for 2 replicas of serving/large"


def test_nothing_is_changed_and_the_replica_waits() -> None:
    asked = world(
        model("large", per_gpu="30Gi"),
        pods=[pod("large-0", of="large", need="30Gi")],
        pools=[mig()],
        gpu_nodes=[gpu_node("n1", sliced())],
    )
    decided = decide(_found(asked))
    assert (decided.placements, decided.evictions, decided.deletions) == ((), (), ())
    assert waiting(decided, "large")["reason"] == "InsufficientGPUMemory"


@pytest.mark.parametrize(
    ("gpus", "policy"),
    [
        pytest.param([sliced()], mig(layouts="Keep"), id="the pool keeps them"),
        pytest.param([sliced(health="Unhealthy")], mig(), id="a GPU that is out of order"),
        pytest.param([gpu("GPU-1", mig=True, mig_devices=SEVEN)], mig(), id="nobody knows what it can be cut into"),
        pytest.param([sliced(), gpu("GPU-2", index=1)], mig(layouts="Keep"), id="one that is not in MIG mode"),
    ],
)
def test_what_may_not_be_cut(gpus: list[Json], policy: PoolView) -> None:
    assert told(gpus=gpus, policy=policy) == []


def test_a_gpu_that_somebody_uses_stays_as_it_is() -> None:
    there = placed("small-0", of="small", on="MIG-3", claim="5Gi")
    assert told(there, pod("large-0", of="large", need="30Gi")) == []


def test_who_is_too_large_for_any_slice_gets_none() -> None:
    assert told(claim="79500Mi") is not None
    assert told(claim="90Gi") == []


def test_of_other_mechanisms_nothing_is_said() -> None:
    assert told(gpus=[gpu("GPU-1", memory="10Gi")], policy=pool()) is None


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ((39, 39), ("4g.40gb", "3g.40gb")),
        ((39, 19, 19), ("3g.40gb", "2g.20gb", "2g.20gb")),
        ((19, 19, 19, 19), ("2g.20gb", "2g.20gb", "2g.20gb", "1g.20gb")),
        ((79,), ("7g.80gb",)),
        ((9,) * 7, ("1g.10gb",) * 7),
        ((50,), ()),
    ],
)
def test_the_names_of_a_layout_give_out_the_most_compute(layout: tuple[int, ...], names: tuple[str, ...]) -> None:
    found = names_of([size * GIB for size in layout], ALL)
    assert sum(int(each[0]) for each in found) == sum(int(each[0]) for each in names)
    assert sorted(found) == sorted(names)


@given(number=st.integers(0, 200))
def test_every_legal_layout_has_names_that_the_gpu_has_places_for(number: int) -> None:
    shapes = [
        SliceProfile(
            memory=parse_bytes(each["memory"]),
            starts=tuple(int(place.split(":")[0]) for place in each["placements"]),
            size=int(each["placements"][0].split(":")[1]),
        )
        for each in PROFILES
    ]
    layouts = legal_layouts(shapes)
    layout = layouts[number % len(layouts)]
    names = names_of(layout, ALL)
    assert len(names) == len(layout)
    assert sum(int(each[0]) for each in names) <= 7
