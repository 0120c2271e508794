"""The one loop that decides and writes: observe, plan, act, while this process holds the Lease."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from vrampack.controller.lease import Leadership
from vrampack.controller.metrics import HELD, Metrics, Pass, Phase, Placement
from vrampack.controller.metrics import Memory as MemoryKind
from vrampack.controller.modelwatch import ModelWatch
from vrampack.controller.probes import Heartbeat
from vrampack.controller.recollection import Recollection
from vrampack.controller.refiner import Refiner
from vrampack.controller.resolver import Resolver
from vrampack.controller.trigger import Trigger
from vrampack.errors import UnavailableError
from vrampack.kube.act import Actor
from vrampack.kube.mirror import newest
from vrampack.kube.observe import Observer
from vrampack.kube.outcome import InterruptedActError, Outcome
from vrampack.planning.actions import Plan
from vrampack.planning.plan import plan
from vrampack.planning.verdict import Settings

_log = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
_SETTLING: Final = 0.5
_LONGEST_UNTOLD: Final = 10.0
"""Seconds for which statuses, events, Services and budgets may wait while replicas are placed in every pass."""


class Loop:
    """Passes until cancelled. It ends for no object and no answer of the API server."""

    def __init__(
        self,
        *,
        observer: Observer,
        actor: Actor,
        resolver: Resolver,
        watch: ModelWatch,
        refiner: Refiner,
        leadership: Leadership,
        trigger: Trigger,
        metrics: Metrics,
        heartbeat: Heartbeat,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observer = observer
        self._actor = actor
        self._resolver = resolver
        self._watch = watch
        self._refiner = refiner
        self._leadership = leadership
        self._trigger = trigger
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._recollection: Recollection | None = None
        self._pause = _FIRST_PAUSE
        self._alarm: asyncio.TimerHandle | None = None
        self._untold_since: float | None = None
        self.observed_once = False

    async def run(self) -> None:
        """Waits for the trigger, and passes."""
        while True:
            await self._trigger.wait()
            if self._leadership.epoch is None:
                self._recollection = None
                self._resolver.request(())
                self._watch.watch({})
                self._refiner.forget()
                self._metrics.set_leader(False)
                self._heartbeat.standby(self._monotonic())
                continue
            self._metrics.set_leader(True)
            self._heartbeat.pass_started(self._monotonic())
            try:
                await self._pass()
            except UnavailableError as error:
                _log.warning("the API server is away: %s", error)
                self._metrics.count_pass(Pass.UNAVAILABLE)
                self._heartbeat.unavailable(self._monotonic())
                self._again_after_pause()
            except Exception:
                _log.exception("a pass failed; the next one starts afresh")
                self._metrics.count_pass(Pass.ERROR)
                self._heartbeat.pass_failed(self._monotonic())
                self._again_after_pause()
            else:
                self._pause = _FIRST_PAUSE
                self._metrics.count_pass(Pass.OK)
                self._heartbeat.pass_ended(self._monotonic())

    async def _pass(self) -> None:
        if self._recollection is None:
            self._recollection = Recollection(refusal_seconds=self._settings.refusal_seconds, now=self._clock())
        recollection = self._recollection
        began = self._monotonic()
        settled, since = self._leadership.settled, recollection.new_enough(began)
        snapshot = await self._observer.observe(
            now=self._clock(),
            memory=replace(recollection.memory(), findings=self._refiner.findings()),
            resolutions=self._resolver.results(),
            since=since,
        )
        self.observed_once = True
        snapshot = recollection.departures.noted(replace(snapshot, looks=self._watch.looks()))
        observed = self._monotonic()
        decided = plan(snapshot, self._settings)
        planned = self._monotonic()
        hurried = self._hurried(decided, now=began)
        self._resolver.request(decided.resolve)
        self._watch.watch(decided.watch)
        recollection.departures.placing(decided.placements)
        if decided.placements:
            self._refiner.rest()  # the next pass asks something else, and until then the processors have enough to do
        else:
            self._refiner.ask(decided.questions)
        try:
            outcome = await self._actor.act(decided.first() if hurried else decided)
        except InterruptedActError as error:
            recollection.did(error.outcome, now=self._clock(), complete=False)
            self._count(error.outcome)
            raise
        # Until the fence is in force, a leader that was deposed may still write.
        if settled and not (decided.deletions or decided.evictions):
            recollection.trust(max(newest(snapshot.pods), outcome.newest))
        acted = self._monotonic()
        for phase, seconds in (
            (Phase.OBSERVE, observed - began),
            (Phase.PLAN, planned - observed),
            (Phase.ACT, acted - planned),
        ):
            self._metrics.time_phase(phase, seconds)
        again = recollection.saw(snapshot, over=decided.over_budget)
        again = recollection.did(outcome, now=self._clock(), complete=not hurried) or hurried or again
        self._count(outcome)
        self._show(decided)
        if outcome.placed or outcome.deleted or outcome.child_errors or outcome.name_conflicts:
            _log.info(
                "pass: %d placed, %d waiting, %d children, %d deleted, %d conflicts; "
                "observe %.3f s, plan %.3f s, act %.3f s",
                len(outcome.placed),
                sum((decided.waiting or {}).values()),
                len(decided.children),
                len(outcome.deleted),
                outcome.conflicts,
                observed - began,
                planned - observed,
                acted - planned,
            )
        if outcome.dropped:
            self._wake(self._clock() + _SETTLING)
        elif again or outcome.conflicts:
            self._trigger.poke()
        elif decided.wake_at is not None:
            self._wake(decided.wake_at)

    def _hurried(self, decided: Plan, *, now: float) -> bool:
        """Whether others may wait for a place meanwhile, so that what the pass tells has to wait for them.

        When many come at once, each pass would tell what the next one changes, and those that came during it would wait
        for that.
        """
        if decided.placements and not (decided.deletions or decided.evictions):
            if self._untold_since is None:
                self._untold_since = now
            if now - self._untold_since < _LONGEST_UNTOLD:
                return True
        self._untold_since = None
        return False

    def _count(self, outcome: Outcome) -> None:
        now = self._clock()
        for placed in outcome.placed:
            self._metrics.count_placement(Placement.PLACED, seconds_since_event=now - placed.pod.created)
        for _ in outcome.refused:
            self._metrics.count_placement(Placement.REFUSED)
        for _ in range(outcome.conflicts):
            self._metrics.count_conflict()
        for eviction in outcome.evicted:
            self._metrics.count_evictions(eviction.reason, len(eviction.pods))
        if outcome.held:
            self._metrics.count_evictions(HELD, len(outcome.held))

    def _show(self, decided: Plan) -> None:
        self._metrics.set_waiting(decided.waiting or {})
        self._metrics.set_changed(decided.changed or {})
        self._metrics.set_over_budget(len(decided.over_budget))
        fleet: dict[str, dict[MemoryKind, int]] = {}
        for (product, kind), amount in (decided.gpu_bytes or {}).items():
            fleet.setdefault(product, {})[MemoryKind(kind)] = amount
        self._metrics.set_gpu_memory(fleet)

    def _again_after_pause(self) -> None:
        self._wake(self._clock() + self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _wake(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        delay = max(0.05, at - self._clock())
        self._alarm = asyncio.get_running_loop().call_later(delay, self._trigger.poke)
