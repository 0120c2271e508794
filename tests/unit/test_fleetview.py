"""From GPUNodes, pods and ModelDeployments as the API server gives them to what the map draws."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.cli.fleetview import GPURow, Segment, Waiting, fleet_view, to_json
from vrampack.units import GIB, MIB

LABEL = "vrampack.dev/model-deployment"


def gpunode(
    name: str, *gpus: dict[str, Any], spec: list[dict[str, Any]] | None = None, **status: Any
) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"gpus": spec or []}, "status": {"gpus": list(gpus), **status}}


def gpu(uuid: str = "GPU-a", **fields: Any) -> dict[str, Any]:
    return {"uuid": uuid, "index": 0, "product": "NVIDIA-L40S", "memory": "44Gi", **fields}


def claim(uid: str, memory: str, **fields: Any) -> dict[str, Any]:
    return {"namespace": "serving", "pod": f"pod-{uid}", "uid": uid, "bytes": memory, **fields}


def pod(uid: str, model: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "serving", "name": f"pod-{uid}", "uid": uid, "labels": {LABEL: model}}}


def row(
    entry: dict[str, Any], *, spec: list[dict[str, Any]] | None = None, pods: Sequence[dict[str, Any]] = ()
) -> GPURow:
    view = fleet_view(gpunodes=[gpunode("n", entry, spec=spec)], pods=pods)
    return view.nodes[0].gpus[0]


def test_an_empty_gpu() -> None:
    assert row(gpu()) == GPURow(uuid="GPU-a", index=0, product="NVIDIA-L40S", capacity=44 * GIB, free=44 * GIB)


def test_claims_go_by_their_model_and_without_a_pod_by_its_name() -> None:
    found = row(
        gpu(claims=[claim("1", "10Gi"), claim("2", "512Mi"), claim("3", "1Gi", model="serving/phi")]),
        pods=[pod("1", "llama"), {"metadata": {"namespace": "x", "name": "y", "uid": "9"}}],
    )
    assert found.segments == (
        Segment(model="serving/llama", bytes=10 * GIB),
        Segment(model="serving/phi", bytes=1 * GIB),
        Segment(model="serving/pod-2", bytes=512 * MIB),
    )
    assert found.free == 44 * GIB - 11 * GIB - 512 * MIB


def test_foreign_is_what_others_use_and_what_replicas_use_beyond_their_claims() -> None:
    found = row(
        gpu(
            claims=[claim("1", "10Gi"), claim("2", "10Gi")],
            processes=[
                {"podUID": "1", "bytes": "11Gi"},
                {"podUID": "2", "bytes": "9Gi"},
                {"podUID": "gone", "bytes": "2Gi"},
            ],
            foreign=[{"name": "Xorg", "bytes": "1Gi"}],
        )
    )
    assert (found.foreign, found.free) == (4 * GIB, 20 * GIB)


@pytest.mark.parametrize(
    ("written", "reserve", "free"),
    [(None, 1, 43), ("40Gi", 4, 40), ("44Gi", 1, 43), ("0", 44, 0)],
    ids=["not yet written", "the pool keeps more", "older than the admin's wish", "takes nothing"],
)
def test_the_operators_figure_of_what_is_free_stands(written: str | None, reserve: int, free: int) -> None:
    found = row(gpu(**({} if written is None else {"free": written})), spec=[{"uuid": "GPU-a", "reserve": "1Gi"}])
    assert (found.reserve, found.free) == (reserve * GIB, free * GIB)


@pytest.mark.parametrize(
    ("entry", "wish", "flags"),
    [
        (gpu(health="Healthy"), {}, ()),
        (gpu(health="Unhealthy", xid=79), {}, ("failed (XID 79)",)),
        (gpu(health="Unhealthy"), {"cordoned": True}, ("failed", "cordoned")),
        (gpu(claims=[claim("1", "45Gi")]), {}, ("overcommitted",)),
        ({"uuid": "GPU-a", "claims": [claim("1", "45Gi")]}, {}, ("not in view",)),
    ],
)
def test_what_is_wrong_is_flagged(entry: dict[str, Any], wish: dict[str, Any], flags: tuple[str, ...]) -> None:
    assert row(entry, spec=[{"uuid": "GPU-a", **wish}]).flags == flags


def test_nodes_come_in_natural_order_and_a_silent_agent_is_flagged() -> None:
    silent = gpunode("gpu-10", conditions=[{"type": "Reporting", "status": "False"}])
    one = gpunode("gpu-2", gpu("GPU-b", index=1), gpu("GPU-a"), {"uuid": "GPU-c"})
    view = fleet_view(gpunodes=[silent, one], pods=[])
    assert [(node.name, node.flags) for node in view.nodes] == [("gpu-2", ()), ("gpu-10", ("agent silent",))]
    assert [gpu.uuid for gpu in view.nodes[0].gpus] == ["GPU-a", "GPU-b", "GPU-c"]


def test_what_waits_is_read_from_modeldeployments() -> None:
    waiting = [
        {"reason": "InsufficientGPUMemory", "count": 2, "needed": "20Gi", "gpus": 4},
        {"reason": "PodsRefused", "count": 1},
    ]
    deployment = {"metadata": {"namespace": "serving", "name": "llama"}, "status": {"waiting": waiting}}
    view = fleet_view(gpunodes=[], pods=[], modeldeployments=[deployment, {"metadata": {}}])
    assert view.waiting == (
        Waiting(model="serving/llama", replicas=2, reason="InsufficientGPUMemory", gpus=4, bytes=20 * GIB),
        Waiting(model="serving/llama", replicas=1, reason="PodsRefused"),
    )


def test_json_holds_the_rows_and_their_sums() -> None:
    full = gpu("GPU-a", claims=[claim("1", "48Gi")])
    view = fleet_view(gpunodes=[gpunode("n", full, gpu("GPU-b", index=1))], pods=[pod("1", "llama")])
    data = json.loads(to_json(view))
    assert data["nodes"][0]["gpus"][0]["segments"] == [{"model": "serving/llama", "bytes": 48 * GIB}]
    assert data["totals"] == {
        "gpus": 2,
        "capacity": 88 * GIB,
        "models": 48 * GIB,
        "foreign": 0,
        "reserve": 0,
        "free": 44 * GIB,
    }


@given(
    memory=st.integers(1, 200),
    claims=st.lists(st.integers(1, 60), max_size=4),
    foreign=st.integers(0, 60),
    reserve=st.integers(0, 20),
    free=st.none() | st.integers(0, 200),
)
def test_the_parts_of_a_gpu_are_the_whole(
    memory: int, claims: list[int], foreign: int, reserve: int, free: int | None
) -> None:
    entry = gpu(
        memory=str(memory),
        claims=[claim(str(number), str(size)) for number, size in enumerate(claims)],
        foreign=[{"bytes": str(foreign)}],
        **({} if free is None else {"free": str(free)}),
    )
    found = row(entry, spec=[{"uuid": "GPU-a", "reserve": str(reserve)}])
    assert sum(claims) + found.foreign + found.reserve + found.free == found.capacity
