"""What the operator would do, without a cluster: its own plans, carried out on paper until nothing more happens.

Between two plans Kubernetes' part is played: Deployments make and replace pods as they are told, evicted ones are gone
at once, and a replica is ready as soon as it has its GPUs; where a pool looks for better plans while engines start, as
soon as there is nothing else to do. No disruption budget refuses anything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from vrampack.api import names
from vrampack.api.gpupool import MovesMode, Startup
from vrampack.planning.actions import (
    ApplyChild,
    ChildAction,
    CreateChild,
    DeleteChild,
    EvictPods,
    PatchChild,
    PlacePod,
    Plan,
    WriteStatus,
)
from vrampack.planning.findings import MOST_CHUNKS_ASKED
from vrampack.planning.plan import plan
from vrampack.planning.playedkubernetes import Deployments, Priority
from vrampack.planning.seeking import answer, find
from vrampack.planning.snapshot import ChildView, Json, PodView, Snapshot
from vrampack.planning.verdict import Settings

MOST_PASSES: Final = 4096
"""A rollout takes a few passes for each replica; what is not settled then never will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """How it ends. ``snapshot``: the world then; ``plan``: the last one, which asks for nothing but words."""

    snapshot: Snapshot
    plan: Plan
    placed: tuple[PlacePod, ...]
    evicted: tuple[EvictPods, ...]
    replaced: tuple[PodView, ...]
    """Replicas of older templates that had a GPU, and whose place was taken by new ones."""
    settled: bool


def rehearse(snapshot: Snapshot, settings: Settings, *, priorities: Mapping[str, Priority]) -> Rehearsal:
    """Plans until nothing is left to do. ``priorities``: PriorityClasses by name; 0 for those it lacks."""
    stage = _Stage(snapshot, priorities)
    stage.remove({pod.uid for pod in snapshot.pods if pod.deleting})
    for _ in range(MOST_PASSES):
        before = stage.snapshot
        decided = plan(before, settings)
        if stage.looks_for(decided):
            continue
        stage.carry_out(decided)
        stage.play_kubernetes()
        if stage.snapshot == before and not stage.start():
            return stage.ended(decided, settled=True)
    return stage.ended(decided, settled=False)


class _Stage:
    def __init__(self, snapshot: Snapshot, priorities: Mapping[str, Priority]) -> None:
        self.snapshot = snapshot
        self._deployments = Deployments(snapshot, priorities)
        self._refined = {
            pool.name for pool in snapshot.pools if pool.spec.refine_seconds and pool.spec.startup is Startup.SERIALIZED
        }
        self._slow: set[str] = set()
        self._placed: list[PlacePod] = []
        self._evicted: list[EvictPods] = []

    def ended(self, decided: Plan, *, settled: bool) -> Rehearsal:
        return Rehearsal(
            snapshot=self.snapshot,
            plan=decided,
            placed=tuple(self._placed),
            evicted=tuple(self._evicted),
            replaced=tuple(self._deployments.replaced),
            settled=settled,
        )

    def looks_for(self, decided: Plan) -> bool:
        """Finds what the plan asks for, where moves are made or better plans looked for; True where that is news."""
        evicts = {pool.name for pool in self.snapshot.pools if pool.spec.moves.mode is MovesMode.EVICT}
        known = self.snapshot.memory.findings
        new = {
            name: answer(question, min(chunks, MOST_CHUNKS_ASKED)) if question.better else find(question)
            for name, (question, chunks) in decided.questions.items()
            if (name in evicts or question.pending is not None)
            and (name not in known or known[name].question != question)
        }
        memory = replace(self.snapshot.memory, findings={**known, **new})
        self.snapshot = replace(self.snapshot, memory=memory)
        return bool(new)

    def play_kubernetes(self) -> None:
        """One step of every Deployment."""
        self.snapshot = self._deployments.step(self.snapshot)

    def carry_out(self, decided: Plan) -> None:
        """The writes of a plan."""
        self._placed += decided.placements
        self._evicted += decided.evictions
        self.remove({each.uid for eviction in decided.evictions for each in eviction.pods})
        self.remove({each.pod.uid for each in decided.deletions})
        claims = {each.pod.uid: each for each in decided.placements}
        statuses = {(each.kind, each.namespace, each.name): each for each in decided.statuses}
        self.snapshot = replace(
            self.snapshot,
            pods=tuple(
                _running(pod, claims[pod.uid], ready=not self._starts_slowly(pod)) if pod.uid in claims else pod
                for pod in self.snapshot.pods
            ),
            children=self._children(decided.children),
            models=tuple(
                replace(each, status=_status(statuses.get(("ModelDeployment", each.namespace, each.name)), each.status))
                for each in self.snapshot.models
            ),
            pools=tuple(
                replace(each, status=_status(statuses.get(("GPUPool", "", each.name)), each.status))
                for each in self.snapshot.pools
            ),
        )

    def start(self) -> bool:
        """Engines that are still starting are ready; False where there are none."""
        starting = {pod.uid for pod in self.snapshot.pods if pod.uid in self._slow and not pod.ready}
        self.snapshot = replace(
            self.snapshot,
            pods=tuple(
                replace(pod, ready=True, started=True) if pod.uid in starting else pod for pod in self.snapshot.pods
            ),
        )
        return bool(starting)

    def _starts_slowly(self, pod: PodView) -> bool:
        """Whether others wait until its engine is ready, while a better plan is looked for."""
        model = next((each for each in self.snapshot.models if each.key == f"{pod.namespace}/{pod.model}"), None)
        if model is None or model.spec is None or model.spec.placement.pool not in self._refined:
            return False
        self._slow.add(pod.uid)
        return True

    def remove(self, uids: set[str]) -> None:
        """Pods that are gone, with what they used."""
        if not uids:
            return
        self.snapshot = replace(
            self.snapshot,
            pods=tuple(pod for pod in self.snapshot.pods if pod.uid not in uids),
            gpu_nodes=tuple(
                replace(
                    view,
                    status=view.status.model_copy(
                        update={
                            "gpus": tuple(
                                gpu.model_copy(
                                    update={
                                        "processes": tuple(
                                            each for each in gpu.processes or () if each.pod_uid not in uids
                                        )
                                    }
                                )
                                for gpu in view.status.gpus or ()
                            )
                        }
                    ),
                )
                for view in self.snapshot.gpu_nodes
            ),
        )

    def _children(self, actions: Iterable[ChildAction]) -> tuple[ChildView, ...]:
        owners = {each.key: each.uid for each in self.snapshot.models}
        found = {(each.kind, each.namespace, each.name): each for each in self.snapshot.children}
        for action in actions:
            match action:
                case CreateChild(manifest=manifest) | ApplyChild(manifest=manifest):
                    meta = manifest["metadata"]
                    key = (manifest["kind"], meta["namespace"], meta["name"])
                    found[key] = _child(manifest, owners[action.model], found.get(key))
                case DeleteChild(kind=kind, namespace=namespace, name=name):
                    found.pop((kind, namespace, name), None)
                case PatchChild(kind=kind, namespace=namespace, name=name, patch=patch):
                    before = found[kind, namespace, name]
                    spec = before.object["spec"] | patch["spec"]
                    found[kind, namespace, name] = _child(before.object | {"spec": spec}, before.owner_uid, before)
        return tuple(found[key] for key in sorted(found, key=lambda key: key[1:] + key[:1]))


def _running(pod: PodView, placement: PlacePod, *, ready: bool) -> PodView:
    return replace(
        pod,
        gated=False,
        gates=tuple(gate for gate in pod.gates if gate != names.GATE),
        claim=placement.claim,
        node=placement.node,
        phase="Running",
        because=placement.because,
        ready=ready,
        started=ready,
    )


def _child(manifest: Json, owner: str, before: ChildView | None) -> ChildView:
    meta = manifest["metadata"]
    generation = 1 if before is None else before.object["metadata"].get("generation", 1)
    if before is not None and before.object["spec"] != manifest["spec"]:
        generation += 1
    found: dict[str, Any] = {**manifest, "metadata": {**meta, "generation": generation}}
    if before is not None:
        found["status"] = before.object.get("status") or {}
    return ChildView(
        kind=manifest["kind"],
        namespace=meta["namespace"],
        name=meta["name"],
        uid=before.uid if before is not None else f"{owner}/{manifest['kind']}",
        resource_version="1",
        owner_uid=owner,
        deleting=False,
        object=found,
    )


def _status(written: WriteStatus | None, before: Json) -> Json:
    return before if written is None else written.status
