"""Claims of pods that go before they stand in a GPUNode."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.planning_world import NOW, gpu, gpu_node, placed, pod, world
from vrampack.api import names
from vrampack.controller.departures import Departures
from vrampack.planning.actions import PlacePod
from vrampack.planning.snapshot import Claim, PodView
from vrampack.units import GIB

PROCESS = {"podUID": "uid-llama-0", "bytes": "5Gi", "pids": [4242]}
CLAIMED = PlacePod(pod=pod(), node="n1", gpus=("GPU-1",), annotations={names.CLAIM: str(20 * GIB)})


class Passes:
    """Snapshots one after the other, as the loop takes them."""

    def __init__(self) -> None:
        self.departures = Departures()

    def see(self, *pods: PodView, at: float = 0.0, processes: Any = ()) -> list[tuple[str, int]]:
        """What is remembered of pods that are gone."""
        fleet = [gpu_node("n1", gpu(processes=list(processes)))]
        found = self.departures.noted(world(pods=pods, gpu_nodes=fleet, now=NOW + at)).memory.departed
        return [(each.uid, each.claim.bytes) for each in found if each.claim is not None]


@pytest.mark.parametrize(
    ("there", "remembered"),
    [
        pytest.param(placed(), [("uid-llama-0", 20 * GIB)], id="one with a claim"),
        pytest.param(placed(phase="Failed"), [("uid-llama-0", 20 * GIB)], id="one that had failed"),
        pytest.param(pod(), [], id="one that waits for a GPU"),
    ],
)
def test_a_pod_that_was_there_in_the_pass_before(there: PodView, remembered: list[tuple[str, int]]) -> None:
    passes = Passes()
    assert passes.see(there) == []
    assert passes.see(at=1) == remembered


def test_a_pod_that_is_gone_before_a_pass_sees_its_claim() -> None:
    passes = Passes()
    passes.see(pod())
    passes.departures.placing([CLAIMED])
    assert passes.see(at=1, processes=[PROCESS]) == [("uid-llama-0", 20 * GIB)]


def test_a_claim_that_did_not_land_is_none_of_a_pod_that_waits_on() -> None:
    passes = Passes()
    passes.departures.placing([CLAIMED])
    assert passes.see(pod(), at=1) == []
    assert passes.see(at=2) == []


def test_it_is_remembered_while_it_has_a_process_and_a_while_without_one() -> None:
    passes = Passes()
    passes.see(placed())
    assert passes.see(at=1)
    assert passes.see(at=50, processes=[PROCESS])  # an agent that says so late
    assert passes.see(at=5000, processes=[PROCESS])
    assert passes.see(at=5001) == []
    passes.see(placed("llama-1"), at=6000)
    assert passes.see(at=6001)
    assert passes.see(at=6059)
    assert passes.see(at=6062) == []


def test_another_pod_of_the_same_name_is_another() -> None:
    passes = Passes()
    passes.see(placed())
    assert passes.see(placed(uid="uid-of-the-next"), at=1) == [("uid-llama-0", 20 * GIB)]


def test_where_another_scheduler_chose_the_gpus_its_choice_counts() -> None:
    departures = Departures()
    fleet = [gpu_node("n1", gpu("GPU-1"), gpu("GPU-2", index=1, processes=[PROCESS]))]
    claim = Claim(gpus=("GPU-1",), bytes=20 * GIB, epoch=1, on_node=True)
    departures.noted(world(pods=[replace(placed(), claim=claim)], gpu_nodes=fleet))
    (gone,) = departures.noted(world(gpu_nodes=fleet)).memory.departed
    assert gone.claim is not None
    assert gone.claim.gpus == ("GPU-2",)
