"""What an auditor holds against every change: the invariants of GPU claims, replayed version by version.

Pure: it is fed with changes in the order of their resourceVersions and keeps the first violation with the history that
led to it. Times are Unix seconds at which a change was seen; they only decide how old a view of a GPU may be that a
claim was based on, since the world may shrink a GPU at any moment and no writer can know it in that very moment.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from tests.integration.audit_views import AuditedGPU, AuditedPod, read_gpus, read_pod
from vrampack.api import names
from vrampack.units import human_bytes, parse_bytes

COMPLETE = (names.GPUS, names.CLAIM, names.EPOCH)
"""Annotations without which a claim is none."""


_MANAGERS = (names.FIELD_MANAGER, names.STATUS_MANAGER, names.PLACEMENT_MANAGER, names.AGENT_MANAGER)


class Kind(StrEnum):
    """What is watched."""

    POD = "pods"
    GPU_NODE = "gpunodes"
    GPU_POOL = "gpupools"
    NODE = "nodes"
    LEASE = "leases"
    MODEL_DEPLOYMENT = "modeldeployments"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One version of one object.

    ``deleted``: the object is gone. ``listed``: found in a list, so what it was before is not known.
    ``blind_since``: the list ended a time in which changes may have been missed; it began then.
    """

    kind: Kind
    version: int
    object: Mapping[str, Any]
    seen: float
    deleted: bool = False
    listed: bool = False
    blind_since: float | None = None


@dataclass(frozen=True, kw_only=True)
class Violation:
    """What was broken, by which version, and what happened before."""

    version: int
    message: str
    history: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            (f"at resourceVersion {self.version}: {self.message}", *(f"  {line}" for line in self.history))
        )


@dataclass(frozen=True, kw_only=True)
class _Pool:
    selector: Mapping[str, str]
    reserve: int
    before: int
    """Reserve before the last change of it, which was seen at ``since``."""
    since: float


@dataclass(kw_only=True)
class _View:
    """The GPUs of a node between two changes of its GPUNode."""

    gpus: Mapping[str, AuditedGPU]
    until: float | None = None


@dataclass(kw_only=True)
class Ledger:
    """Replays changes. ``grace``: seconds for which a view of a GPU may be outdated when a claim is written.

    ``allowed_annotations``: keys that the test itself put on ModelDeployments.
    """

    grace: float = 2.0
    allowed_annotations: frozenset[str] = frozenset()
    violation: Violation | None = None
    claims: int = 0
    _pods: dict[str, AuditedPod] = field(default_factory=dict)
    _holders: dict[str, dict[str, AuditedPod]] = field(default_factory=lambda: defaultdict(dict))
    _views: dict[str, deque[_View]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=200)))
    _pools: dict[str, _Pool] = field(default_factory=dict)
    _labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _leases: dict[str, float] = field(default_factory=dict)
    _epoch: int = 0
    _history: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=40)))

    def apply(self, change: Change) -> None:
        """Replays one change; the changes of all kinds come in the order of their versions."""
        match change.kind:
            case Kind.POD:
                self._pod(change)
            case Kind.GPU_NODE:
                self._gpu_node(change)
            case Kind.GPU_POOL:
                self._gpu_pool(change)
            case Kind.NODE:
                self._node(change)
            case Kind.LEASE:
                self._lease(change)
            case Kind.MODEL_DEPLOYMENT:
                self._model_deployment(change)

    def check(self) -> None:
        """Raises AssertionError with the first violation."""
        if self.violation is not None:
            raise AssertionError(str(self.violation))

    # --- pods -----------------------------------------------------------------------------------------------------

    def _pod(self, change: Change) -> None:
        after = read_pod(change.object)
        before = self._pods.pop(after.uid, None)
        if before is not None:
            after = replace(after, managed=True)  # whoever takes the label away changes nothing
        if not after.managed:
            return  # it may carry any annotation: it claims nothing
        for uuid in before.gpus if before is not None else ():
            self._holders[uuid].pop(after.uid, None)
        if change.deleted:
            self._note(change, (after.uid, *after.gpus), f"{after} is gone")
            return
        self._pods[after.uid] = after
        for uuid in after.gpus if after.live else ():
            self._holders[uuid][after.uid] = after
        if before != after:
            self._note(change, (after.uid, *after.gpus), str(after))
        if before is not None and before.claimed and before.annotations != after.annotations:
            self._violated(change, f"the claim of pod {after.name} changed", after.uid)
        self._check_gate(change, before, after)
        if after.claimed and not (before is not None and before.claimed):
            self._check_claim(change, before, after)

    def _check_gate(self, change: Change, before: AuditedPod | None, after: AuditedPod) -> None:
        """The gate goes together with a whole claim, in one change, and no pod starts before."""
        missing = [name for name in COMPLETE if not after.annotations.get(name)]
        if after.gated and after.claimed:
            self._violated(change, f"pod {after.name} has a claim and still its gate", after.uid)
        elif not after.gated and missing:
            how = "lost its gate" if before is not None and before.gated else "has no gate"
            self._violated(change, f"pod {after.name} {how} without {', '.join(missing)}", after.uid)
        elif not after.gated and before is None and not change.listed:
            self._violated(change, f"pod {after.name} was created with a claim", after.uid)
        if after.node and missing:
            self._violated(change, f"pod {after.name} is on {after.node} without {', '.join(missing)}", after.uid)

    def _check_claim(self, change: Change, before: AuditedPod | None, pod: AuditedPod) -> None:
        self.claims += 1
        if before is None and change.listed and change.blind_since is None:
            return  # from before the audit
        epoch = pod.annotations.get(names.EPOCH, "")
        if not epoch.isdecimal():
            self._violated(change, f"the epoch {epoch!r} of pod {pod.name} is no number", pod.uid)
        elif int(epoch) < self._epoch and change.blind_since is None:
            self._violated(change, f"epoch {epoch} of pod {pod.name} is older than {self._epoch}", pod.uid)
        else:
            self._epoch = max(self._epoch, int(epoch))
        if pod.claim <= 0 or not pod.gpus or len(set(pod.gpus)) < len(pod.gpus):
            self._violated(change, f"the claim of pod {pod.name} is not an amount on distinct GPUs", pod.uid)
        if pod.pinned is None:
            self._violated(change, f"pod {pod.name} has a claim and is not bound to one node", pod.uid)
            return
        lease_until = self._leases.get(pod.pinned)
        if lease_until is not None and change.seen - self.grace > lease_until and change.blind_since is None:
            late = change.seen - lease_until
            self._violated(change, f"pod {pod.name} was put on {pod.pinned}, silent for {late:.1f} s", pod.uid)
        if pod.on_node:
            self._check_node(change, pod)
            return
        for uuid in pod.gpus:
            self._check_gpu(change, pod, uuid)

    def _check_node(self, change: Change, pod: AuditedPod) -> None:
        """Where another scheduler chooses the GPU, all claims of a node fit on its GPUs together."""
        since = (change.seen if change.blind_since is None else change.blind_since) - self.grace
        claimed = sum(
            each.claim * len(each.gpus) for each in self._pods.values() if each.pinned == pod.pinned and each.live
        )
        usable = [
            sum(gpu.usable or 0 for gpu in view.gpus.values())
            for view in self._views[pod.pinned or ""]
            if view.until is None or view.until >= since
        ]
        if claimed > max(usable, default=0):
            self._violated(change, f"{claimed} bytes are claimed on {pod.pinned}, which has {usable}", pod.uid)

    def _check_gpu(self, change: Change, pod: AuditedPod, uuid: str) -> None:
        """The GPU takes the claim in the last view of it, or in one that was the last a moment ago."""
        since = (change.seen if change.blind_since is None else change.blind_since) - self.grace
        views = [view for view in self._views[pod.pinned or ""] if view.until is None or view.until >= since]
        reserve = self._pool_reserve(pod.pinned or "", since)
        holders = self._holders[uuid]
        objections = [
            _objection(view.gpus.get(uuid), holders, reserve=reserve, blind=change.blind_since is not None)
            for view in views
        ] or ["its node has no GPUNode"]
        if all(objections):
            where = f"GPU {uuid} of {pod.pinned}"
            self._violated(change, f"pod {pod.name} got {where}, but {objections[-1]}", pod.uid, uuid)

    # --- the rest of the world ------------------------------------------------------------------------------------

    def _gpu_node(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        views = self._views[name]
        gpus = {} if change.deleted else read_gpus(change.object)
        before = views[-1].gpus if views else {}
        if views and gpus == before:
            return
        if views:
            views[-1].until = change.seen
        views.append(_View(gpus=gpus))
        for uuid in {*before, *gpus}:
            if before.get(uuid) != gpus.get(uuid):
                self._note(change, (uuid,), f"GPU {uuid} of {name}: {gpus.get(uuid, 'gone')}")

    def _gpu_pool(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        before = self._pools.pop(name, None)
        if not change.deleted:
            spec = change.object.get("spec", {})
            reserve = parse_bytes(spec.get("reservePerGPU", "0"))
            same = before is not None and before.reserve == reserve
            self._pools[name] = _Pool(
                selector=spec.get("nodeSelector", {}),
                reserve=reserve,
                before=before.before if same and before else before.reserve if before else reserve,
                since=before.since if same and before else change.seen,
            )

    def _node(self, change: Change) -> None:
        metadata = change.object["metadata"]
        if change.deleted:
            self._labels.pop(metadata["name"], None)
        else:
            self._labels[metadata["name"]] = metadata.get("labels", {})

    def _lease(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        if not name.startswith(names.AGENT_LEASE_PREFIX):
            return
        node = name.removeprefix(names.AGENT_LEASE_PREFIX)
        spec = change.object.get("spec", {})
        if change.deleted or not spec.get("renewTime"):
            self._leases.pop(node, None)
        else:
            renewed = datetime.fromisoformat(spec["renewTime"]).timestamp()
            self._leases[node] = renewed + spec.get("leaseDurationSeconds", 60)

    def _model_deployment(self, change: Change) -> None:
        """The user's object stays the user's: status is the only part of it that is ours."""
        if change.deleted:
            return
        metadata = change.object["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        for finalizer in metadata.get("finalizers", ()):
            if _ours(finalizer):
                self._violated(change, f"ModelDeployment {name} has the finalizer {finalizer}")
        for key in metadata.get("annotations", {}):
            if _ours(key) and key != names.REFRESH and key not in self.allowed_annotations:
                self._violated(change, f"ModelDeployment {name} has the annotation {key}")
        for entry in metadata.get("managedFields", ()):
            touched = sorted({"f:spec", "f:metadata"} & entry.get("fieldsV1", {}).keys())
            if entry.get("manager") in _MANAGERS and touched:
                self._violated(change, f"{entry['manager']} wrote {', '.join(touched)} of ModelDeployment {name}")

    def _pool_reserve(self, node: str, since: float) -> int:
        """Bytes that the node's pool keeps free; the smaller figure while a change is fresh."""
        labels = self._labels.get(node, {})
        named = sorted(name for name in self._pools if name != names.DEFAULT_POOL)
        for pool in (self._pools.get(name) for name in (*named, names.DEFAULT_POOL)):
            if pool is not None and pool.selector.items() <= labels.items():
                return min(pool.reserve, pool.before) if pool.since >= since else pool.reserve
        return 0

    # --- telling --------------------------------------------------------------------------------------------------

    def _note(self, change: Change, subjects: Iterable[str], text: str) -> None:
        line = f"{change.version} {datetime.fromtimestamp(change.seen, UTC):%H:%M:%S.%f} {text}"
        for subject in subjects:
            self._history[subject].append(line)

    def _violated(self, change: Change, message: str, *subjects: str) -> None:
        """Keeps the first one: what follows may only be its consequence."""
        if self.violation is None:
            lines = {line: None for subject in subjects for line in self._history[subject]}
            history = tuple(sorted(lines, key=lambda line: int(line.split()[0])))
            self.violation = Violation(version=change.version, message=message, history=history)


def _objection(gpu: AuditedGPU | None, holders: Mapping[str, AuditedPod], *, reserve: int, blind: bool) -> str:
    """Why a GPU can't hold these pods; empty where it can.

    Where changes were missed, only the claims themselves are held against the GPU: what else was on it then is unknown.
    """
    if gpu is None or gpu.usable is None:
        return "it is not there"
    claims = sum(pod.claim for pod in holders.values())
    if blind:
        return f"claims of {claims} exceed {gpu.usable} usable bytes" if claims > gpu.usable else ""
    if gpu.cordoned:
        return "it is cordoned"
    if not gpu.healthy:
        return "it has failed"
    held = sum(max(pod.claim, gpu.processes.get(uid, 0)) for uid, pod in holders.items())
    # A claim lives until the processes of its pod are gone, wherever it was written down.
    orphans = sum(max(size, gpu.claims.get(uid, 0)) for uid, size in gpu.processes.items() if uid not in holders)
    total = held + orphans + gpu.foreign + gpu.reserve + reserve
    if total <= gpu.usable:
        return ""
    return (
        f"it is overbooked by {total - gpu.usable} bytes ({human_bytes(total - gpu.usable)}): {len(holders)} claims "
        f"{held}, processes without a claim {orphans}, foreign {gpu.foreign}, reserve {gpu.reserve + reserve}, "
        f"usable {gpu.usable}"
    )


def _ours(key: str) -> bool:
    return names.GROUP in key or "vrampack" in key or "kopf" in key
