"""Pods that went while this process looked on, and what they had claimed.

A claim lives until the processes of its pod are gone from the GPU. What says so for good is the GPUNode, where the
claim of a pod that is gone stands beside its processes; but a pod may go before its claim was written there.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from vrampack.planning.actions import PlacePod
from vrampack.planning.mechanisms import read_back
from vrampack.planning.snapshot import PodView, Snapshot

_UNSEEN_SECONDS: Final = 60.0
"""How long a pod that is gone may still turn out to have a process: agents look every second, and say so at once."""


class Departures:
    """What is known from one pass to the next. It ends with this process, and only what was written is left then."""

    def __init__(self) -> None:
        self._present: dict[str, PodView] = {}
        self._gone: dict[str, tuple[PodView, float]] = {}

    def placing(self, placements: Iterable[PlacePod]) -> None:
        """These claims are written now. One that did not land holds nothing: its pod never has a process."""
        for each in placements:
            self._present[each.pod.uid] = replace(each.pod, claim=each.claim)

    def noted(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, and in its memory the pods that are gone since the ones before and may have processes yet."""
        pods = read_back(snapshot).pods
        there = {pod.uid for pod in pods}
        gone = {uid: (pod, snapshot.now) for uid, pod in self._present.items() if uid not in there}
        seen = {
            process.pod_uid
            for view in snapshot.gpu_nodes
            for gpu in view.status.gpus or ()
            for process in gpu.processes or ()
        }
        self._gone = {
            uid: (pod, since)
            for uid, (pod, since) in (gone | self._gone).items()
            if uid not in there and (uid in seen or snapshot.now - since < _UNSEEN_SECONDS)
        }
        self._present = {pod.uid: pod for pod in pods if pod.claim is not None}
        departed = tuple(pod for pod, _ in self._gone.values())
        return replace(snapshot, memory=replace(snapshot.memory, departed=departed))
