"""Whether a GPU can be trusted with a replica: what the driver counts, and critical errors as they come.

An XID is the driver's word for a critical error, numbered by kind. Those that an application brings upon itself say
nothing about the GPU; all others leave it in doubt until it is reset, so they stay until then. What ends them is a new
start of the node, or of the driver as the agent sees it: that is also what letting go of the driver is for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from vrampack.agent.devices import Device
from vrampack.agent.nvml import Xid
from vrampack.api.gpunode import GPUHealth, GPUNodeStatus

OF_APPLICATIONS: Final = frozenset({13, 31, 43, 45, 68, 109})
"""Faults of a program: illegal instructions and accesses, its end, decoder errors, a context switch that timed out."""
FELL_OFF: Final = 79
"""The GPU has fallen off the bus. Then the driver says so at every call, and need not be remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``fault``: why no replica may use the GPU, in words; empty where one may. ``xid``: its last critical error."""

    fault: str = ""
    xid: int | None = None


@dataclass(kw_only=True)
class Errors:
    """The critical errors of a node's GPUs since their last reset."""

    latched: dict[str, int] = field(default_factory=dict)
    counted: dict[tuple[str, int], int] = field(default_factory=dict)
    """How often each came, by GPU and number, those of applications as well."""

    def note(self, xids: Iterable[Xid], uuids: Iterable[str]) -> None:
        """``uuids``: all GPUs; an error of none in particular is one of each."""
        everyone = tuple(uuids)
        for xid in xids:
            for uuid in (xid.uuid,) if xid.uuid else everyone:
                self.counted[uuid, xid.number] = self.counted.get((uuid, xid.number), 0) + 1
                if xid.number not in OF_APPLICATIONS:
                    self.latched[uuid] = xid.number

    def adopt(self, known: Mapping[str, int]) -> None:
        """What the agent before this one had found; what is known here is newer."""
        self.latched = {**known, **self.latched}

    def forget(self) -> None:
        """The driver starts anew."""
        self.latched.clear()

    def verdict(self, device: Device) -> Verdict:
        """What all of this says of one GPU."""
        xid = self.latched.get(device.identity.uuid)
        if device.lost:
            return Verdict(fault=f"does not answer ({device.lost})", xid=FELL_OFF if xid is None else xid)
        if xid is not None:
            return Verdict(fault=f"failed with XID {xid}", xid=xid)
        if device.traits.rows is not None and device.traits.rows.failed:
            return Verdict(fault="has memory rows that can't be replaced any more")
        return Verdict()


def standing_errors(former: GPUNodeStatus, *, booted: float) -> dict[str, int]:
    """The critical errors that an earlier agent reported, unless the node was started anew since.

    ``booted``: seconds since 1970.
    """
    healthy = next((each for each in former.conditions or () if each.type == "Healthy"), None)
    if healthy is None or datetime.fromisoformat(healthy.last_transition_time).timestamp() < booted:
        return {}
    return {
        gpu.uuid: gpu.xid
        for gpu in former.gpus or ()
        if gpu.health is GPUHealth.UNHEALTHY and gpu.xid is not None and gpu.xid != FELL_OFF
    }
