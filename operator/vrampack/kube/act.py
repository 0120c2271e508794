"""From a Plan to the API server: conditional writes, in the plan's order, each safe on its own."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final

from vrampack.api import names
from vrampack.errors import (
    ClusterError,
    ConflictError,
    DisruptionError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from vrampack.kube import paths
from vrampack.kube.client import Kube
from vrampack.kube.events import Recorder
from vrampack.kube.outcome import InterruptedActError, Outcome, Tally
from vrampack.planning.actions import (
    ApplyChild,
    ChildAction,
    CreateChild,
    DeleteChild,
    DeletePod,
    EvictPods,
    PatchChild,
    PlacePod,
    Plan,
    Tell,
    WriteStatus,
)
from vrampack.planning.claimpatch import claim_patch
from vrampack.planning.snapshot import ProbeView

_log = logging.getLogger(__name__)

Json = dict[str, Any]

_STALE: Final = (ConflictError, NotFoundError)
_IN_FLIGHT: Final = 64
"""Writes at once: enough to keep an API server busy. Each takes a connection, and memory for TLS with it."""
_ALREADY_THERE: Final = "already exists"
_VERSIONED: Final = ("ModelDeployment", "GPUPool", "ModelProfile")
"""What stands there is what the next decision rests on; a GPUNode's status changes whenever its agent reports."""


class Actor:
    """Carries out plans, one at a time.

    ``epoch``: of the Lease, None while it is not held. ``settled``: whether the fence against older epochs is in force.
    They are asked again right before each write. ``instance``: names this process in events. ``clock``: seconds of a
    clock that never jumps. ``in_flight``: most writes at once.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        epoch: Callable[[], int | None],
        settled: Callable[[], bool],
        in_flight: int = _IN_FLIGHT,
        instance: str = names.MANAGER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._epoch = epoch
        self._settled = settled
        self._slots = asyncio.Semaphore(in_flight)
        self._events = Recorder(kube, instance=instance, clock=clock)

    async def act(self, plan: Plan) -> Outcome:
        """One kind of write after the other, those of one kind together.

        Raises InterruptedActError, an UnavailableError, where a write got no answer: the others of its kind are
        ended first, the kinds behind it are not begun.
        """
        tally = Tally()
        children: dict[str, list[ChildAction]] = {}
        for action in plan.children:
            children.setdefault(action.model, []).append(action)
        try:
            await _together(self._place(action, tally) for action in plan.placements)
            await _together(self._children(actions, tally) for actions in children.values())
            await _together(self._delete(action, tally) for action in plan.deletions)
            await _together(self._evict(action, tally) for action in plan.evictions)
            await _together(self._write(action, tally) for action in plan.statuses)
            await _together(self._tell(event, tally) for event in plan.events)
            await _together(self._probe(manifest, tally) for manifest in plan.probes)
            await _together(self._end_probe(probe, tally) for probe in plan.ended_probes)
        except UnavailableError as error:
            raise InterruptedActError(error, outcome=tally.outcome()) from error
        return tally.outcome()

    async def _place(self, action: PlacePod, tally: Tally) -> None:
        pod = action.pod
        path = paths.item("Pod", namespace=pod.namespace, name=pod.name)
        async with self._slots:
            epoch = self._epoch()
            if epoch is None or not self._settled():
                tally.dropped += 1
                return
            try:
                patch = claim_patch(pod=pod, node=action.node, annotations=action.annotations, epoch=epoch)
                written = await self._kube.json_patch(path, patch, field_manager=names.PLACEMENT_MANAGER)
            except _STALE:
                tally.conflicts += 1
            except UnavailableError:
                raise
            except (ClusterError, InvalidInputError) as error:
                tally.refused[pod.uid] = _said(error)
                _log.warning("claim for pod %s/%s on %s refused: %s", pod.namespace, pod.name, action.node, error)
            else:
                tally.placed.append(action)
                tally.newest = max(tally.newest, int(written["metadata"]["resourceVersion"]))

    async def _children(self, actions: Sequence[ChildAction], tally: Tally) -> None:
        """Those of one model one by one, in their order. One that is refused does not hold up the others."""
        for action in actions:
            async with self._slots:
                if self._leads(tally):
                    await self._child(action, tally)

    async def _child(self, action: ChildAction, tally: Tally) -> None:
        kind, name = _identity(action)
        try:
            await self._send(action)
        except ConflictError as error:
            # A quota that is being counted gives a 409 too.
            if isinstance(action, CreateChild) and _ALREADY_THERE in str(error):
                tally.name_conflicts.add((action.model, kind, name))
            else:
                tally.conflicts += 1
        except NotFoundError:
            tally.conflicts += 1
        except UnavailableError:
            raise
        except ClusterError as error:
            _log.warning("%s %s of %s refused: %s", kind, name, action.model, error)
            tally.child_errors.setdefault(action.model, f"{kind} {name} is refused: {_said(error)}")

    async def _send(self, action: ChildAction) -> None:
        match action:
            case CreateChild(manifest=manifest):
                path = paths.collection(manifest["kind"], namespace=manifest["metadata"]["namespace"])
                await self._kube.create(path, manifest, field_manager=names.FIELD_MANAGER)
            case ApplyChild(manifest=manifest, resource_version=version):
                meta = manifest["metadata"]
                path = paths.item(manifest["kind"], namespace=meta["namespace"], name=meta["name"])
                body = {**manifest, "metadata": {**meta, "resourceVersion": version}}
                await self._kube.apply(path, body, field_manager=names.FIELD_MANAGER, force=True)
            case PatchChild(patch=patch, resource_version=version):
                path = paths.item(action.kind, namespace=action.namespace, name=action.name)
                body = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": version}}
                await self._kube.merge_patch(path, body, field_manager=names.FIELD_MANAGER)
            case DeleteChild(uid=uid, resource_version=version):
                path = paths.item(action.kind, namespace=action.namespace, name=action.name)
                await self._kube.delete(path, uid=uid, resource_version=version)

    async def _probe(self, manifest: Json, tally: Tally) -> None:
        meta = manifest["metadata"]
        path = paths.collection("Pod", namespace=meta["namespace"])
        await self._sent(
            f"probe {meta['name']}", lambda: self._kube.create(path, manifest, field_manager=names.FIELD_MANAGER), tally
        )

    async def _end_probe(self, probe: ProbeView, tally: Tally) -> None:
        path = paths.item("Pod", namespace=probe.namespace, name=probe.name)
        await self._sent(f"end of probe {probe.name}", lambda: self._kube.delete(path, uid=probe.uid), tally)

    async def _delete(self, action: DeletePod, tally: Tally) -> None:
        pod = action.pod
        path = paths.item("Pod", namespace=pod.namespace, name=pod.name)
        if await self._sent(
            f"deletion of pod {pod.namespace}/{pod.name}",
            lambda: self._kube.delete(path, uid=pod.uid, resource_version=pod.resource_version),
            tally,
        ):
            tally.deleted.append(action)

    async def _evict(self, action: EvictPods, tally: Tally) -> None:
        """Asks first whether each may go. Between that and the evictions a budget may shrink: then some are gone, which
        the next pass sees."""
        for dry_run in (True, False):
            for pod in action.pods:
                path = paths.item("Pod", namespace=pod.namespace, name=pod.name)
                try:
                    sent = await self._sent(
                        f"eviction of pod {pod.namespace}/{pod.name}",
                        partial(self._kube.evict, path, uid=pod.uid, dry_run=dry_run),
                        tally,
                    )
                except DisruptionError as error:
                    tally.held[pod.uid] = _said(error)
                    sent = False
                if not sent:
                    return
        tally.evicted.append(action)
        for event in action.events:
            await self._tell(event, tally)

    async def _write(self, action: WriteStatus, tally: Tally) -> None:
        meta = {"name": action.name}
        if action.namespace:
            meta["namespace"] = action.namespace
        if action.kind in _VERSIONED and action.resource_version:
            meta["resourceVersion"] = action.resource_version
        body = {
            "apiVersion": paths.api_version(action.kind),
            "kind": action.kind,
            "metadata": meta,
            "status": action.status,
        }
        path = paths.item(action.kind, namespace=action.namespace, name=action.name) + "/status"
        # Of a ModelProfile the resolver writes the rest, and each leaves out what is the other's.
        manager = names.MEASUREMENT_MANAGER if action.kind == "ModelProfile" else names.STATUS_MANAGER
        await self._sent(
            f"status of {action.kind} {action.name}",
            lambda: self._kube.apply(path, body, field_manager=manager, force=True),
            tally,
        )

    async def _tell(self, event: Tell, tally: Tally) -> None:
        await self._sent(f"event on {event.kind} {event.name}", lambda: self._events.tell(event), tally)

    async def _sent(self, what: str, write: Callable[[], Coroutine[Any, Any, object]], tally: Tally) -> bool:
        async with self._slots:
            if not self._leads(tally):
                return False
            try:
                await write()
            except _STALE:
                tally.conflicts += 1
            except (UnavailableError, DisruptionError):
                raise
            except ClusterError as error:
                tally.errors += 1
                _log.warning("%s refused: %s", what, error)
            else:
                return True
        return False

    def _leads(self, tally: Tally) -> bool:
        if self._epoch() is None:
            tally.dropped += 1
            return False
        return True


async def _together(writes: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Ends all of them; then raises what the first that failed raised."""
    for result in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _identity(action: ChildAction) -> tuple[str, str]:
    if isinstance(action, PatchChild | DeleteChild):
        return action.kind, action.name
    return action.manifest["kind"], action.manifest["metadata"]["name"]


def _said(error: ClusterError | InvalidInputError) -> str:
    """The API server's own words, without the request before them."""
    status = error.status if isinstance(error, ClusterError) else 0
    return str(error).partition(f": {status} ")[2] or str(error)
