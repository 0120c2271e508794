"""Kubernetes' part in a rehearsal: Deployments that make and replace pods as they are told."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from vrampack.api import names
from vrampack.planning.podtemplate import requested, template_hash
from vrampack.planning.snapshot import ChildView, Json, PodView, ReplicaSetView, Snapshot

DEFAULT_CLASS: Final = ""
"""The name by which ``priorities`` holds the class of pods that name none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priority:
    """A PriorityClass."""

    value: int
    preempts: bool = True


@dataclass(kw_only=True)
class _Revision:
    """The ReplicaSets of one Deployment: that of the template in force, by its hash."""

    hash: str
    uid: str
    made: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    pods: list[PodView] = field(default_factory=list)
    status: Json = field(default_factory=dict)


class Deployments:
    """Those of one rehearsal, and the ReplicaSets of their templates. ``priorities``: PriorityClasses by name; 0 for
    those it lacks."""

    def __init__(self, snapshot: Snapshot, priorities: Mapping[str, Priority]) -> None:
        self.replaced: list[PodView] = []
        """Replicas of older templates that had a GPU, and whose place was taken by new ones."""
        self._priorities = priorities
        self._revisions: dict[str, _Revision] = {}
        self._made: list[ReplicaSetView] = []
        self._now = snapshot.now
        owned: dict[str, list[ReplicaSetView]] = defaultdict(list)
        for each in snapshot.replica_sets:
            owned[each.owner_uid].append(each)
        for child in snapshot.children:
            if child.kind == "Deployment" and (found := _newest(owned[child.uid], snapshot.pods)):
                self._revisions[child.uid] = _Revision(hash=_hash(child), uid=found.uid)

    def step(self, snapshot: Snapshot) -> Snapshot:
        """One step of every Deployment, for the next look at things."""
        self._now, self._made = snapshot.now, []
        pods: dict[str, list[PodView]] = defaultdict(list)
        deployment_of = {each.uid: each.owner_uid for each in snapshot.replica_sets}
        strangers: list[PodView] = []
        for pod in snapshot.pods:
            owner = deployment_of.get(pod.owner_uid, "")
            (pods[owner] if owner else strangers).append(pod)
        children = []
        for child in snapshot.children:
            if child.kind != "Deployment":
                children.append(child)
                continue
            step = self._step(child, pods[child.uid])
            pods[child.uid] = step.pods
            children.append(replace(child, object=child.object | {"status": step.status}))
        everybody = [*strangers, *(pod for each in pods.values() for pod in each)]
        return replace(
            snapshot,
            children=tuple(children),
            pods=tuple(sorted(everybody, key=lambda pod: (pod.namespace, pod.name))),
            replica_sets=(*snapshot.replica_sets, *self._made),
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
                    self.replaced.append(leaver)
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

    def _revision(self, child: ChildView) -> _Revision:
        digest = _hash(child)
        known = self._revisions.get(child.uid)
        if known is None or known.hash != digest:
            uid = f"{child.uid}/{digest}"
            known = self._revisions[child.uid] = _Revision(hash=digest, uid=uid)
            view = ReplicaSetView(
                namespace=child.namespace, name=f"{child.name}-{digest}", uid=uid, owner_uid=child.uid, replicas=0
            )
            self._made.append(view)
        return known

    def _pod(self, child: ChildView, revision: _Revision) -> PodView:
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
            created=self._now,
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


def _newest(found: Sequence[ReplicaSetView], pods: Iterable[PodView]) -> ReplicaSetView | None:
    """The ReplicaSet of the template in force: the one that wants pods and made the newest."""
    created: dict[str, float] = {}
    for pod in pods:
        created[pod.owner_uid] = max(pod.created, created.get(pod.owner_uid, 0.0))
    return max(found, key=lambda each: (each.replicas > 0, created.get(each.uid, 0.0), each.name), default=None)


def _hash(child: ChildView) -> str:
    return template_hash(child.object["spec"]["template"])
