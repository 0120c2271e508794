"""Which events poke, and how the watches wait for an API server."""

import itertools
from typing import Any

import kopf
import pytest

from vrampack.controller.handlers import NODES, POKING, Backoff, NodeChanges, register


def node(**changes: Any) -> dict[str, Any]:
    metadata = {"name": "gpu-0", "uid": changes.get("uid", "a"), "labels": changes.get("labels", {"rack": "1"})}
    ready = {"type": "Ready", "status": changes.get("ready", "True"), "lastHeartbeatTime": changes.get("time", "10:00")}
    pressure = {"type": "MemoryPressure", "status": changes.get("pressure", "False")}
    return {
        "metadata": metadata | {"resourceVersion": changes.get("version", "1")},
        "spec": {key: changes[key] for key in ("unschedulable", "taints") if key in changes},
        "status": {"allocatable": {"cpu": changes.get("cpu", "8")}, "conditions": [pressure, ready]},
    }


def event(kind: str | None, **changes: Any) -> kopf.RawEvent:
    return {"type": kind, "object": node(**changes)}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({"time": "10:05", "version": "2"}, False),
        ({"pressure": "True"}, False),
        ({"uid": "b"}, True),
        ({"labels": {"rack": "2"}}, True),
        ({"unschedulable": True}, True),
        ({"taints": [{"key": "maintenance", "effect": "NoSchedule"}]}, True),
        ({"ready": "Unknown"}, True),
        ({"cpu": "4"}, True),
    ],
)
def test_a_heartbeat_of_a_node_is_no_change(change: dict[str, Any], matters: bool) -> None:
    changes = NodeChanges()
    assert changes.matter(event(None))
    assert changes.matter(event("MODIFIED", **change)) is matters
    assert not changes.matter(event("MODIFIED", **change))


def test_a_node_that_goes_and_comes_back_matters_twice() -> None:
    changes = NodeChanges()
    assert [changes.matter(event(kind)) for kind in ("ADDED", "DELETED", "ADDED")] == [True, True, True]


def test_a_node_without_a_status_yet() -> None:
    assert NodeChanges().matter({"type": "ADDED", "object": {"metadata": {"name": "gpu-0"}}})  # type: ignore[typeddict-item]


def test_every_kind_is_watched_by_its_full_name_and_only_watched() -> None:
    registry = kopf.OperatorRegistry()
    register(registry, lambda: None)
    selectors = {(found.group, found.version, found.any_name) for found in registry._watching.get_all_selectors()}
    assert selectors == {(kind.group, kind.version, kind.plural) for kind in (*POKING, NODES)}
    assert not registry._changing.get_all_handlers()  # these would write annotations and finalizers
    assert not registry._spawning.get_all_handlers()


def test_waits_grow_to_a_bound_without_an_end() -> None:
    waits = list(itertools.islice(Backoff(first=1, longest=5), 1000))
    assert 0.5 <= waits[0] <= 1
    assert all(2.5 <= wait <= 5 for wait in waits[3:])
    assert len(set(waits)) > 900
