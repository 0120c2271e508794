"""The operator process, put together."""

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

from vrampack.controller.handlers import run_kopf
from vrampack.controller.lease import Leadership
from vrampack.controller.loop import Loop
from vrampack.controller.metrics import Metrics
from vrampack.controller.modelwatch import ModelWatch
from vrampack.controller.probes import Heartbeat, listening, metrics_app, probes_app
from vrampack.controller.pulse import Pulse, watches
from vrampack.controller.refiner import Refiner
from vrampack.controller.resolver import Resolver
from vrampack.controller.trigger import Trigger
from vrampack.engines.startgate import StartGate
from vrampack.kube.act import Actor
from vrampack.kube.client import Kube
from vrampack.kube.history import History
from vrampack.kube.mirror import Mirror
from vrampack.kube.observe import Observer
from vrampack.planning import verdict

_log = logging.getLogger(__name__)

_STALL_RESYNCS = 4
"""A leader without a pass for this many resyncs hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an admin sets, as the flags of ``vrampack run`` have it. Times are seconds; port 0: none."""

    kubeconfig: str | None
    namespace: str
    identity: str
    lease_seconds: int
    hub_token_namespaces: frozenset[str]
    toleration_seconds: int
    probes_port: int
    metrics_port: int
    resync_seconds: float
    refusal_seconds: float
    deletion_interval_seconds: float
    patience_seconds: int
    hub_endpoint: str | None
    model_check_seconds: float
    probe_image: str = ""
    """Empty: injection styles are what agents and pools say."""
    start_port: int = 0
    """Where the nodes' agents say whose turn it is to start; 0: nowhere."""


async def run(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT, then gives the Lease back."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    trigger = Trigger(resync=settings.resync_seconds)
    heartbeat = Heartbeat(stall_seconds=max(120.0, _STALL_RESYNCS * settings.resync_seconds))
    watching = asyncio.Event()
    async with AsyncExitStack() as stack:
        kube = await Kube.connect(settings.kubeconfig)
        stack.push_async_callback(kube.close)
        leadership = Leadership(
            kube,
            namespace=settings.namespace,
            identity=settings.identity,
            lease_seconds=settings.lease_seconds,
            on_change=trigger.poke,
        )
        resolver = Resolver(
            kube,
            endpoint=settings.hub_endpoint,
            poke=trigger.poke,
            token_namespaces=settings.hub_token_namespaces,
        )
        stack.push_async_callback(resolver.close)
        watch = ModelWatch(
            kube=kube,
            endpoint=settings.hub_endpoint,
            poke=trigger.poke,
            interval=settings.model_check_seconds,
            token_namespaces=settings.hub_token_namespaces,
        )
        stack.push_async_callback(watch.close)
        restored = asyncio.Event()
        history = History(on_restore=restored.set)
        mirror = Mirror(kube, history=history)
        refiner = Refiner(poke=trigger.poke)
        stack.push_async_callback(refiner.close)
        loop = Loop(
            observer=Observer(
                kube,
                namespace=settings.namespace,
                lease_clock=time.monotonic,
                mirror=mirror,
                probing=bool(settings.probe_image),
                history=history,
            ),
            actor=Actor(
                kube,
                epoch=lambda: leadership.epoch,
                settled=lambda: leadership.settled,
                instance=settings.identity,
            ),
            resolver=resolver,
            watch=watch,
            refiner=refiner,
            leadership=leadership,
            trigger=trigger,
            metrics=metrics,
            heartbeat=heartbeat,
            settings=verdict.Settings(
                hub_endpoint=settings.hub_endpoint,
                hub_token_namespaces=settings.hub_token_namespaces,
                unreachable_seconds=settings.toleration_seconds,
                refusal_seconds=settings.refusal_seconds,
                deletion_interval_seconds=settings.deletion_interval_seconds,
                patience_seconds=settings.patience_seconds,
                probing=verdict.Probing(image=settings.probe_image, namespace=settings.namespace)
                if settings.probe_image
                else None,
                start_gate=StartGate(port=settings.start_port) if settings.start_port else None,
            ),
        )
        pulse = Pulse(watches(kube, mirror, probing=bool(settings.probe_image)), poke=trigger.poke)
        checks = {
            "watching": lambda: watching.is_set() and pulse.connected(),
            "lease": lambda: leadership.epoch is None or loop.observed_once,
        }
        if settings.probes_port:
            app = probes_app(heartbeat=heartbeat, checks=checks)
            await stack.enter_async_context(listening(app, port=settings.probes_port))
        if settings.metrics_port:
            await stack.enter_async_context(listening(metrics_app(registry), port=settings.metrics_port))
        _log.info("vrampack runs as %s in namespace %s", settings.identity, settings.namespace)
        kopf = run_kopf(kubeconfig=settings.kubeconfig, poke=trigger.poke, stop=stop, ready=watching, renew=restored)
        await _together(stop, kopf, pulse, leadership, loop)
    _log.info("vrampack has stopped")


async def _together(
    stop: asyncio.Event, kopf: Coroutine[Any, Any, None], pulse: Pulse, leadership: Leadership, loop: Loop
) -> None:
    """The loop ends before the Lease is given back, so that nothing is written without it."""
    leading = asyncio.Event()
    lead = asyncio.create_task(leadership.run(leading), name="lease")
    passes = asyncio.create_task(loop.run(), name="passes")
    watches = asyncio.create_task(kopf, name="watches")
    pulses = asyncio.create_task(pulse.run(), name="pulse")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait({lead, passes, watches, pulses, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # none but stop ends by itself: what it raised ends the process
    finally:
        stop.set()
        stopped.cancel()
        passes.cancel()
        pulses.cancel()
        await asyncio.gather(passes, pulses, return_exceptions=True)
        leading.set()
        await asyncio.gather(lead, watches, return_exceptions=True)
