"""What the operator would do, without a cluster: its own plans, carried out on paper until nothing more happens.

Between two plans Kubernetes' part is played: Deployments make and replace pods as they are told, evicted ones are gone
at once, and a replica is ready as soon as it has its GPUs. No disruption budget refuses anything.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from vrampack.api import names
from vrampack.api.gpupool import MovesMode
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
from vrampack.planning.plan import plan
from vrampack.planning.podtemplate import requested, template_hash
from vrampack.planning.seeking import find
from vrampack.planning.snapshot import ChildView, Claim, Json, PodView, ReplicaSetView, Snapshot
from vrampack.planning.verdict import Settings

MOST_PASSES: Final = 4096
"""A rollout takes a few passes for each replica; what is not settled then never will be."""

DEFAULT_CLASS: Final = ""
"""The name by which ``priorities`` holds the class of pods that name none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priority:
    """A PriorityClass."""

    value: int
    preempts: bool = True


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
        if stage.snapshot == before:
            return stage.ended(decided, settled=True)
    return stage.ended(decided, settled=False)


@dataclass(kw_only=True)
class _Revisions:
    """The ReplicaSets of one Deployment: that of the template in force, by its hash."""

    hash: str
    uid: str
    made: int = 0


class _Stage:
    def __init__(self, snapshot: Snapshot, priorities: Mapping[str, Priority]) -> None:
        self.snapshot = snapshot
        self._priorities = priorities
        self._revisions: dict[str, _Revisions] = {}
        self._placed: list[PlacePod] = []
        self._evicted: list[EvictPods] = []
        self._replaced: list[PodView] = []
        owned: dict[str, list[ReplicaSetView]] = defaultdict(list)
        for each in snapshot.replica_sets:
            owned[each.owner_uid].append(each)
        self._known = {each.uid: each for each in snapshot.children if each.kind == "Deployment"}
        for uid, child in self._known.items():
            if found := _newest(owned[uid], snapshot.pods):
                self._revisions[uid] = _Revisions(hash=_hash(child), uid=found.uid)

    def ended(self, decided: Plan, *, settled: bool) -> Rehearsal:
        return Rehearsal(
            snapshot=self.snapshot,
            plan=decided,
            placed=tuple(self._placed),
            evicted=tuple(self._evicted),
            replaced=tuple(self._replaced),
            settled=settled,
        )

    def looks_for(self, decided: Plan) -> bool:
        """Finds what the plan asks for, where moves are made; True where that is news."""
        evicts = {pool.name for pool in self.snapshot.pools if pool.spec.moves.mode is MovesMode.EVICT}
        known = self.snapshot.memory.findings
        new = {
            name: find(question)
            for name, (question, _) in decided.questions.items()
            if name in evicts and (name not in known or known[name].question != question)
        }
        memory = replace(self.snapshot.memory, findings={**known, **new})
        self.snapshot = replace(self.snapshot, memory=memory)
        return bool(new)

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
            pods=tuple(_running(pod, claims[pod.uid]) if pod.uid in claims else pod for pod in self.snapshot.pods),
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

    def play_kubernetes(self) -> None:
        """One step of every Deployment."""
        pods: dict[str, list[PodView]] = defaultdict(list)
        deployment_of = {each.uid: each.owner_uid for each in self.snapshot.replica_sets}
        strangers: list[PodView] = []
        for pod in self.snapshot.pods:
            owner = deployment_of.get(pod.owner_uid, "")
            (pods[owner] if owner else strangers).append(pod)
        children = []
        for child in self.snapshot.children:
            if child.kind != "Deployment":
                children.append(child)
                continue
            step = self._step(child, pods[child.uid])
            pods[child.uid] = step.pods
            children.append(replace(child, object=child.object | {"status": step.status}))
        everybody = [*strangers, *(pod for each in pods.values() for pod in each)]
        self.snapshot = replace(
            self.snapshot,
            children=tuple(children),
            pods=tuple(sorted(everybody, key=lambda pod: (pod.namespace, pod.name))),
        )

    def _step(self, child: ChildView, pods: Sequence[PodView]) -> "_Step":
        spec = child.object["spec"]
        revision = self._revision(child)
        wanted = int(spec.get("replicas", 1))
        new = [pod for pod in pods if pod.owner_uid == revision.uid]
        old = [pod for pod in pods if pod.owner_uid != revision.uid]
        if old:
            rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
            surge = rolling.get("maxSurge") not in (0, "0", None)
            ready = sum(pod.ready for pod in (*new, *old))
            idle = next((pod for pod in old if not pod.ready), None)
            if idle is not None or ready > wanted - (0 if surge else 1):
                leaver = idle or old[-1]
                old.remove(leaver)
                if leaver.claim is not None:
                    self._replaced.append(leaver)
            if len(new) < wanted and len(new) + len(old) < wanted + (1 if surge else 0):
                new.append(self._pod(child, revision))
        else:
            while len(new) < wanted:
                new.append(self._pod(child, revision))
            # As a ReplicaSet does: those without a node first.
            new.sort(key=lambda pod: (pod.node == "", not pod.ready, pod.created, pod.name))
            del new[wanted:]
        status = {
            "observedGeneration": child.object["metadata"].get("generation", 1),
            "replicas": len(new) + len(old),
            "updatedReplicas": len(new),
        }
        return _Step(pods=[*new, *old], status=status)

    def _revision(self, child: ChildView) -> _Revisions:
        digest = _hash(child)
        known = self._revisions.get(child.uid)
        if known is None or known.hash != digest:
            uid = f"{child.uid}/{digest}"
            known = self._revisions[child.uid] = _Revisions(hash=digest, uid=uid)
            view = ReplicaSetView(
                namespace=child.namespace, name=f"{child.name}-{digest}", uid=uid, owner_uid=child.uid, replicas=0
            )
            self.snapshot = replace(self.snapshot, replica_sets=(*self.snapshot.replica_sets, view))
        return known

    def _pod(self, child: ChildView, revision: _Revisions) -> PodView:
        """A new pod of the Deployment's template, as the API server would have made it."""
        template = child.object["spec"]["template"]
        metadata, spec = template["metadata"], template["spec"]
        revision.made += 1
        cpu, memory = requested(template)
        priority = self._priorities.get(spec.get("priorityClassName", DEFAULT_CLASS), Priority(value=0))
        gates = tuple(gate["name"] for gate in spec.get("schedulingGates") or ())
        return PodView(
            namespace=child.namespace,
            name=f"{child.name}-{revision.hash[:5]}-{revision.made:04}",
            uid=f"{revision.uid}/{revision.made}",
            resource_version="1",
            model=metadata["labels"][names.MODEL_DEPLOYMENT],
            owner_uid=revision.uid,
            created=self.snapshot.now,
            phase="Pending",
            gated=names.GATE in gates,
            gates=gates,
            need=metadata["annotations"].get(names.NEED, ""),
            annotated=True,
            priority=priority.value,
            preempts=priority.preempts,
            cpu=cpu,
            memory=memory,
            node_selector=spec.get("nodeSelector") or {},
            affinity=spec.get("affinity"),
            tolerations=tuple(spec.get("tolerations") or ()),
            runtime_class=spec.get("runtimeClassName") or "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    pods: list[PodView] = field(default_factory=list)
    status: Json = field(default_factory=dict)


def _newest(found: Sequence[ReplicaSetView], pods: Iterable[PodView]) -> ReplicaSetView | None:
    """The ReplicaSet of the template in force: the one that wants pods and made the newest."""
    created: dict[str, float] = {}
    for pod in pods:
        created[pod.owner_uid] = max(pod.created, created.get(pod.owner_uid, 0.0))
    return max(found, key=lambda each: (each.replicas > 0, created.get(each.uid, 0.0), each.name), default=None)


def _hash(child: ChildView) -> str:
    return template_hash(child.object["spec"]["template"])


def _running(pod: PodView, placement: PlacePod) -> PodView:
    claim = Claim(gpus=placement.gpus, bytes=int(placement.annotations[names.CLAIM]), epoch=0)
    return replace(
        pod,
        gated=False,
        gates=tuple(gate for gate in pod.gates if gate != names.GATE),
        claim=claim,
        node=placement.node,
        phase="Running",
        because=placement.because,
        ready=True,
        started=True,
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
