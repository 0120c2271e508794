"""The pods of vrampack on a node over time: which left processes behind, and which are not where they should be."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from vrampack.agent.attribution import NAMELESS, UNATTRIBUTED
from vrampack.agent.pods import Pod
from vrampack.agent.reading import GPUReading, Stuck, WrongGPUs
from vrampack.api.gpunode import GPUNodeStatus

STUCK_SECONDS: Final = 30.0
"""Processes of a pod that is gone may take so long to end: the kubelet has killed them by then."""
NONE_SEEN_SECONDS: Final = 15.0
"""A ready engine without a process on a GPU that it claims: for so long it may just have been missed."""


@dataclass(kw_only=True)
class Tenants:
    """What is remembered of the pods of vrampack on this node. Times are seconds of one clock that never jumps."""

    names: dict[str, str] = field(default_factory=dict)
    """Namespace and name, by UID, of those that are here and of those whose processes still are."""
    _claims: dict[tuple[str, str], int] = field(default_factory=dict)
    """What these pods claim, by their UID and the GPU's."""
    _peaks: dict[tuple[str, str], int] = field(default_factory=dict)
    """The most that a pod was seen to use, by its UID and the GPU's."""
    _gone_since: dict[str, float] = field(default_factory=dict)
    _missing_since: dict[str, float] = field(default_factory=dict)

    def update(self, pods: Iterable[Pod], *, seen: Iterable[str], now: float) -> None:
        """``pods``: that the API server has. ``seen``: UIDs of the pods that have a process on a GPU."""
        ours = [pod for pod in pods if pod.managed]
        here = {pod.metadata.uid: pod.name for pod in ours}
        left = {uid: name for uid, name in self.names.items() if uid not in here and uid in set(seen)}
        self.names = {**here, **left}
        self._gone_since = {uid: self._gone_since.get(uid, now) for uid in left}
        self._claims = {
            **{(uid, gpu): claim for (uid, gpu), claim in self._claims.items() if uid in left},
            **{(pod.metadata.uid, gpu): pod.claim for pod in ours if not pod.on_node for gpu in pod.gpus},
        }

    def adopt(self, former: GPUNodeStatus) -> None:
        """What the agent before this one knew: pods, whose processes are not foreign then, their claims and peaks."""
        held = [(gpu.uuid, each) for gpu in former.gpus or () for each in gpu.claims or ()]
        seen = [(gpu.uuid, each) for gpu in former.gpus or () for each in gpu.processes or ()]
        names = {each.uid: f"{each.namespace}/{each.pod}" for _, each in held}
        names |= {each.pod_uid: each.pod for _, each in seen if each.pod}
        claims = {(each.uid, gpu): each.bytes.bytes for gpu, each in held}
        claims |= {(each.pod_uid, gpu): each.claim.bytes for gpu, each in seen if each.claim is not None}
        peaks = {(each.pod_uid, gpu): each.peak.bytes for gpu, each in seen if each.peak is not None}
        self.names = {**names, **self.names}
        self._claims = {**claims, **self._claims}
        self._peaks = {**peaks, **self._peaks}

    def remembered(self, gpus: Sequence[GPUReading]) -> tuple[GPUReading, ...]:
        """The same readings, with each pod's name, claim, and the most that it was seen to use; peaks of pods without a
        process are forgotten."""
        self._peaks = {
            # What others leave may be anybody's, and a peak is what the next estimate is made from.
            (use.uid, gpu.uuid): max(0 if use.inferred else use.bytes, self._peaks.get((use.uid, gpu.uuid), 0))
            for gpu in gpus
            for use in gpu.processes
        }
        return tuple(
            replace(
                gpu,
                processes=tuple(
                    replace(
                        use,
                        peak=self._peaks[use.uid, gpu.uuid],
                        pod=self.names.get(use.uid, ""),
                        claim=self._claims.get((use.uid, gpu.uuid), 0),
                    )
                    for use in gpu.processes
                ),
            )
            for gpu in gpus
        )

    def stuck(self, gpus: Sequence[GPUReading], *, now: float) -> tuple[Stuck, ...]:
        """Processes that have outlived their pod for too long."""
        late = {uid for uid, since in self._gone_since.items() if now - since >= STUCK_SECONDS}
        return tuple(
            Stuck(pod=self.names[use.uid], uid=use.uid, gpu=gpu.index, bytes=use.bytes, pids=use.pids)
            for gpu in gpus
            for use in gpu.processes
            if use.uid in late
        )

    def mismatches(
        self, pods: Iterable[Pod], gpus: Sequence[GPUReading], *, sighted: bool, now: float
    ) -> tuple[WrongGPUs, ...]:
        """Pods whose processes are on a GPU that they do not claim; or, once ready, on none of those that they claim.

        A process in a MIG device is seen on its GPU. Where another scheduler chose the GPU, any of the node is right.
        ``sighted``: whether the GPUs can be read now. Where some of a GPU's use is nobody's that is in view, as in a
        sandbox or without the host's process namespace, no process is missed there.
        """
        whole = {each.uuid: gpu.uuid for gpu in gpus for each in gpu.mig_devices or ()}
        on: dict[str, set[str]] = defaultdict(set)
        for gpu in gpus:
            for use in gpu.processes:
                on[use.uid].add(gpu.uuid)
        hidden = {gpu.uuid for gpu in gpus for use in gpu.foreign if use.name in (UNATTRIBUTED, NAMELESS)}
        wrong, missing = [], {}
        for pod in pods:
            uid, claimed = pod.metadata.uid, {whole.get(uuid, uuid) for uuid in pod.gpus}
            if not (pod.managed and claimed) or pod.on_node:
                continue
            seen = on.get(uid, set())
            if sighted and pod.ready and claimed - seen - hidden:
                missing[uid] = self._missing_since.get(uid, now)
            if seen - claimed or now - missing.get(uid, now) >= NONE_SEEN_SECONDS:
                wrong.append(
                    WrongGPUs(
                        namespace=pod.metadata.namespace,
                        pod=pod.metadata.name,
                        uid=uid,
                        claimed=tuple(sorted(claimed)),
                        seen=tuple(sorted(seen)),
                    )
                )
        self._missing_since = missing
        return tuple(sorted(wrong, key=lambda each: each.uid))
