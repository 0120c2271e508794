"""Who leads: one Lease, changed by conditional writes only."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from vrampack.api import names
from vrampack.errors import ClusterError, ConflictError, InvalidInputError, NotFoundError
from vrampack.kube.client import Kube

_log = logging.getLogger(__name__)

_SETTLE_SECONDS: Final = 1.0
_RENEWALS: Final = 7.5  # in the time that a Lease lasts
_LEADS: Final = 2 / 3  # of that time after the last renewal: nobody else takes the Lease before all of it is over
_EARLY: Final = 0.01  # seconds by which a timer may fire too soon, and then nothing would have changed yet


@dataclass(frozen=True, slots=True, kw_only=True)
class _Term:
    """One acquisition by this process. The time to the microsecond tells it from any other of the same identity."""

    epoch: int
    acquired: str

    def is_in(self, spec: Mapping[str, Any], *, identity: str) -> bool:
        found = (spec.get("holderIdentity"), spec.get("leaseTransitions"), spec.get("acquireTime"))
        return found == (identity, self.epoch, self.acquired)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    term: _Term
    since: float
    renewed: float  # when the last renewal that arrived was sent
    version: str


class Leadership:
    """Campaigns for the Lease, keeps it and gives it back.

    Only durations by the own clock count; the times in the Lease are for people, and to see that they change. A Lease
    that somebody renews is never taken, not even one of the same identity: it may be of a process that still runs.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        identity: str,
        lease_seconds: int = 15,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``lease_seconds``: how long others wait for a leader that went silent; it gives up by itself after 2/3.

        ``on_change`` is called when leadership is gained, settled or lost; the properties say which. Raises
        InvalidInputError for an empty identity or less than one second.
        """
        if not identity:
            raise InvalidInputError(field="identity", value=identity, allowed="a name of this process is needed")
        if lease_seconds < 1:
            raise InvalidInputError(field="lease-seconds", value=lease_seconds, allowed="1 or more are allowed")
        self._kube = kube
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._leases}/{names.LEADER_LEASE}"
        self._identity = identity
        self._lease_seconds = lease_seconds
        self._on_change = on_change
        self._clock = clock
        self._held: _Held | None = None
        self._attempt: _Term | None = None
        self._highest = 0
        self._seen: tuple[Mapping[str, Any], float] | None = None
        self._announced: tuple[int | None, bool] = (None, False)
        self._trouble = ""

    @property
    def epoch(self) -> int | None:
        """The number of this leadership, which every claim carries; None: not the leader, by the clock of now."""
        held = self._held
        return held.term.epoch if held is not None and self._clock() < self._gives_up(held) else None

    @property
    def settled(self) -> bool:
        """Whether the API server has surely seen who leads, so that claims of this epoch are accepted."""
        held = self._held
        return self.epoch is not None and held is not None and self._clock() - held.since >= _SETTLE_SECONDS

    async def run(self, stop: asyncio.Event) -> None:
        """Campaigns and renews until ``stop`` is set, then gives the Lease back. Waits out an API server that is away.

        Whoever sets ``stop`` has stopped writing before. Where this is cancelled, others wait for the Lease to expire.
        """
        while not stop.is_set():
            self._announce()
            answered = await self._step()
            self._announce()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause(answered=answered)):
                    await stop.wait()
        await self._release()
        self._announce()

    async def _step(self) -> bool:
        """Reads the Lease and does what is due. False: there was no answer, or a refusal."""
        try:
            async with asyncio.timeout(self._patience()):
                await self._read_and_write()
        except ConflictError:
            return True  # another was faster: the next step sees who
        except (ClusterError, TimeoutError) as error:
            self._complain(str(error) or f"{self._path}: no answer in time")
            return False
        self._trouble = ""
        return True

    async def _read_and_write(self) -> None:
        asked = self._clock()
        try:
            lease = await self._kube.get(self._path)
        except NotFoundError:
            lease = None
        spec = (lease or {}).get("spec") or {}
        first_look, leading = self._seen is None, self.epoch is not None
        self._highest = max(self._highest, spec.get("leaseTransitions") or 0)
        expired = self._expired(spec, asked=asked)
        mine = self._attempt is not None and self._attempt.is_in(spec, identity=self._identity)
        held = self._held
        if lease is not None and held is not None and leading and mine:
            await self._renew(held, version=lease["metadata"]["resourceVersion"])
            return
        if held is not None and not mine:
            _log.warning("the Lease %s is not of %s any more: %r", self._path, self._identity, spec)
            self._held = None
        # A Lease that was there and vanished may still have a leader, who does not know yet.
        free = first_look or leading if lease is None else not spec.get("holderIdentity")
        if free or mine or expired:
            await self._acquire(lease)

    def _expired(self, spec: Mapping[str, Any], *, asked: float) -> bool:
        """Whether the Lease stayed as it is for as long as it lasts, from the first answer that showed it so."""
        if self._seen is None or self._seen[0] != spec:
            self._seen = spec, self._clock()
            return False
        return asked >= self._expires(*self._seen)

    async def _acquire(self, lease: Mapping[str, Any] | None) -> None:
        """Writes a new term, whether or not the last one was of this process too."""
        term = _Term(epoch=self._highest + 1, acquired=_now())
        self._attempt = term  # an answer that is lost may stand for a write that arrived
        sent = self._clock()
        if lease is None:
            metadata: dict[str, Any] = {"name": names.LEADER_LEASE}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            written = await self._kube.create(self._leases, body | {"spec": self._spec(term)})
        else:
            written = await self._write(self._spec(term), version=lease["metadata"]["resourceVersion"])
        version = written["metadata"]["resourceVersion"]
        self._highest = term.epoch
        self._held = _Held(term=term, since=self._clock(), renewed=sent, version=version)
        _log.info("%s leads, epoch %d", self._identity, term.epoch)

    async def _renew(self, held: _Held, *, version: str) -> None:
        sent = self._clock()
        written = await self._write(self._spec(held.term), version=version)
        version = written["metadata"]["resourceVersion"]
        self._held = _Held(term=held.term, since=held.since, renewed=sent, version=version)

    async def _release(self) -> None:
        held, leading = self._held, self.epoch is not None
        self._held = None
        if held is None or not leading:
            return
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        try:
            async with asyncio.timeout(self._interval):
                await self._write(spec, version=held.version)
        except (ClusterError, TimeoutError) as error:
            _log.warning("the Lease %s was not given back and has to expire: %s", self._path, error)
        else:
            _log.info("%s gave the Lease back", self._identity)

    async def _write(self, spec: Mapping[str, Any], *, version: str) -> dict[str, Any]:
        """Only onto the Lease as it was read. Raises ConflictError where it has changed."""
        body = {"metadata": {"resourceVersion": version}, "spec": spec}
        return await self._kube.merge_patch(self._path, body, field_manager=names.FIELD_MANAGER)

    def _spec(self, term: _Term) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._lease_seconds,
            "acquireTime": term.acquired,
            "renewTime": _now(),
            "leaseTransitions": term.epoch,
        }

    @property
    def _interval(self) -> float:
        return self._lease_seconds / _RENEWALS

    def _gives_up(self, held: _Held) -> float:
        return held.renewed + self._lease_seconds * _LEADS

    def _expires(self, spec: Mapping[str, Any], seen: float) -> float:
        return seen + float(spec.get("leaseDurationSeconds") or self._lease_seconds)

    def _patience(self) -> float:
        """Seconds for one step: a leader tries twice before it has to give up, and says so in time when it has to."""
        longest = self._lease_seconds * _LEADS / 2
        held = self._held
        return longest if held is None or self.epoch is None else min(longest, self._gives_up(held) - self._clock())

    def _pause(self, *, answered: bool) -> float:
        """Seconds to the next step: a renewal, or a moment when something changes by itself."""
        now = self._clock()
        moments = [now + self._interval]
        if self._held is not None:
            moments += [self._gives_up(self._held), self._held.since + _SETTLE_SECONDS]
        elif self._seen is not None and answered:
            moments.append(self._expires(*self._seen))
        return min(moment - now for moment in moments if moment > now) + _EARLY

    def _announce(self) -> None:
        state = self.epoch, self.settled
        before, self._announced = self._announced, state
        if state == before:
            return
        if state[0] is None:
            _log.info("%s does not lead any more", self._identity)
        self._on_change()

    def _complain(self, message: str) -> None:
        """Once for each trouble, not once for each try."""
        if message != self._trouble:
            self._trouble = message
            _log.warning("the Lease of the leader: %s", message)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
