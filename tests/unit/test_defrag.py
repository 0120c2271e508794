"""``vrampack defrag``: which moves are worth while, and how they are made by hand."""

import json
import shlex
from dataclasses import replace

import pytest

from tests.unit.planning_world import gpu, gpu_node, model, placed, pod, pool, world
from vrampack.api.gpupool import SuggestedMove
from vrampack.cli.defrag import commands, packing_lines
from vrampack.planning.defragment import suggestions
from vrampack.planning.snapshot import Snapshot

FLEET = (gpu_node("n1", gpu()), gpu_node("n2", gpu("GPU-2")))


def scattered(*waiting: str, mode: str = "Never") -> Snapshot:
    """Two GPUs of 80 GiB that hold a replica of 20 and one of 30."""
    return world(
        model("small", per_gpu="20Gi"),
        model("other", per_gpu="30Gi"),
        model("large", per_gpu="70Gi"),
        pods=(
            placed("small-0", of="small"),
            placed("other-0", of="other", on="GPU-2", node="n2", claim="30Gi"),
            *(pod(name, of="large", need="70Gi") for name in waiting),
        ),
        gpu_nodes=FLEET,
        pools=(pool(startup="Parallel", moves={"mode": mode}),),
    )


def moves(snapshot: Snapshot) -> tuple[SuggestedMove, ...]:
    (advice,) = suggestions(snapshot).values()
    return advice.moves


@pytest.mark.parametrize("mode", ["Never", "Suggest", "Evict"])
def test_who_asks_is_told_whatever_the_mode_is(mode: str) -> None:
    (move,) = moves(scattered(mode=mode))
    assert (move.pod, move.from_node, move.to_node) == ("small-0", "n1", "n2")
    assert (str(move.gain), str(move.cost), move.because) == ("80Gi", "20Gi", "1 GPU less in use")


def test_room_for_one_that_waits_comes_first() -> None:
    move, *_ = moves(scattered("large-0"))
    assert move.because == "room for serving/large-0"
    assert str(move.gain) == "70Gi"


def test_a_full_fleet_has_nothing_to_gain() -> None:
    full = world(
        model("a", per_gpu="70Gi", replicas=2),
        pods=(
            placed("a-0", of="a", claim="70Gi"),
            placed("a-1", of="a", claim="70Gi", on="GPU-2", node="n2"),
        ),
        gpu_nodes=FLEET,
    )
    assert moves(full) == ()


def test_the_commands_cordon_what_is_left_evict_and_take_the_cordon_back() -> None:
    (move,) = moves(scattered())
    cordon, evict, wait, back = (shlex.split(line) for line in commands(move))
    said = [json.loads(words[1]) for words in (cordon, evict, back)]
    assert said[0]["metadata"] == {"name": "n1"}
    assert said[0]["spec"] == {"gpus": [{"uuid": "GPU-1", "cordoned": True}]}
    assert said[1]["metadata"] == {"name": "small-0", "namespace": "serving"}
    assert evict[-3] == "/api/v1/namespaces/serving/pods/small-0/eviction"
    assert said[2]["spec"] == {}
    assert wait[:2] == ["kubectl", "wait"]
    assert cordon[2:] == back[2:]


def test_who_asks_is_told_how_well_a_pool_is_packed() -> None:
    lines = packing_lines(suggestions(scattered()))
    assert len(lines) == 1
    assert lines[0].startswith(
        "pool default: 2 GPUs with 160.00 GiB, within 100.0% of the least memory that is possible"
    )
    implicit = replace(scattered(), pools=(pool(generation=0, startup="Parallel"),))
    assert packing_lines(suggestions(implicit))[1:] == [
        "  create a GPUPool default, and its status says so all the time"
    ]
    assert packing_lines(suggestions(world(model(), gpu_nodes=FLEET))) == [], "nothing runs"
