"""Which agents are alive, by the Leases that they renew."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from vrampack.api.names import AGENT_LEASE_PREFIX
from vrampack.kube.wire import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class _Renewal:
    """A renewTime, and when it was first seen on our own clock."""

    time: datetime
    seen: float


class AgentLeases:
    """An agent is alive while its Lease has changed within the Lease's duration by our own clock.

    Two machines' clocks may differ, so a renewTime is only compared with itself. At first sight there is nothing to
    compare with: then it counts from the time that it names. ``clock``: seconds of a clock that never jumps.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._renewals: dict[str, _Renewal] = {}

    def alive(self, leases: Iterable[Lease], *, now: float) -> frozenset[str]:
        """Names of the nodes whose agents are alive. ``now``: seconds since 1970."""
        clock = self._clock()
        renewals, alive = {}, set()
        for lease in leases:
            name, renewed = lease.metadata.name, lease.spec.renew_time
            if not name.startswith(AGENT_LEASE_PREFIX) or renewed is None:
                continue
            known = self._renewals.get(name)
            if known is None:
                known = _Renewal(time=renewed, seen=clock - max(0.0, now - renewed.timestamp()))
            elif known.time != renewed:
                known = _Renewal(time=renewed, seen=clock)
            renewals[name] = known
            if clock - known.seen < lease.spec.lease_duration_seconds:
                alive.add(name.removeprefix(AGENT_LEASE_PREFIX))
        self._renewals = renewals
        return frozenset(alive)
