"""From a model's source to its ModelProfile, in the background: no pass ever waits for the model hub."""

import asyncio
import logging
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakValueDictionary

from vrampack.api import names
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.api.source import profile_name
from vrampack.controller.hubtokens import read_token
from vrampack.errors import (
    ClusterError,
    ConflictError,
    InvalidInputError,
    ModelSourceError,
    NotFoundError,
    UnavailableError,
    UnsupportedModelError,
)
from vrampack.models.profile import profile_manifest
from vrampack.planning.profilestatus import profile_status
from vrampack.planning.resolution import Resolution, ResolveRequest

if TYPE_CHECKING:
    from vrampack.models.hub import Patience

_LOG: Final = logging.getLogger(__name__)
_PROFILES: Final = f"/apis/{names.API_VERSION}/modelprofiles"
_AT_ONCE: Final = 8


class Objects(Protocol):
    """The part of the API server's client that is used here."""

    async def get(self, path: str) -> dict[str, Any]: ...
    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]: ...
    async def apply(self, path: str, body: Mapping[str, Any], *, field_manager: str) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds until a request is tried again."""

    first: float = 5.0
    """After a failure that may pass by itself; doubles with each one in a row."""
    longest: float = 300.0
    longest_asked: float = 3600.0
    """The most that is waited when the hub itself asks for patience."""
    recheck: float = 60.0
    """After an answer that stands until someone changes something: a Secret, the hub's permissions, the profile."""


@dataclass(slots=True)
class _Followed:
    """A request that is asked for, its task and the newest answer."""

    task: asyncio.Task[None] | None = None
    resolution: Resolution | None = None
    failures: int = 0


class Resolver:
    """One background task for each request that is asked for; ``poke`` is called when an answer changes.

    ``endpoint``: the model hub, None for ``HF_ENDPOINT``. ``token_namespaces``: where Secrets may be read, None:
    wherever the API server lets us. Call from the event loop; nothing here raises for a model.
    """

    def __init__(
        self,
        kube: Objects,
        *,
        endpoint: str | None,
        poke: Callable[[], None],
        token_namespaces: Container[str] | None = None,
        patience: "Patience | None" = None,
        pace: Pace | None = None,
    ) -> None:
        self._kube = kube
        self._endpoint = endpoint
        self._poke = poke
        self._token_namespaces = token_namespaces
        self._patience = patience
        self._pace = pace or Pace()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._followed: dict[ResolveRequest, _Followed] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def request(self, requests: Iterable[ResolveRequest]) -> None:
        """What is wanted now: starts what is new, and forgets what is not among them."""
        wanted = set(requests)
        for request in self._followed.keys() - wanted:
            _cancel(self._followed.pop(request))
        for request in wanted - self._followed.keys():
            followed = self._followed[request] = _Followed()
            followed.task = asyncio.create_task(self._follow(request, followed), name=f"resolve {request.source}")

    def results(self) -> Mapping[ResolveRequest, Resolution]:
        """The answers so far, as a copy that does not change. What is absent is under way."""
        return {
            request: followed.resolution
            for request, followed in self._followed.items()
            if followed.resolution is not None
        }

    async def close(self) -> None:
        """Ends all tasks."""
        tasks = [followed.task for followed in self._followed.values() if followed.task is not None]
        self.request(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, request: ResolveRequest, followed: _Followed) -> None:
        while True:
            before = followed.resolution
            async with self._slots:
                wait = await self._attempt(request, followed)
            if followed.resolution != before:
                self._poke()
            await asyncio.sleep(wait)

    async def _attempt(self, request: ResolveRequest, followed: _Followed) -> float:
        """Notes the answer, and returns the seconds until the next attempt."""
        asked_for: float | None = None
        try:
            known = followed.resolution.commit if followed.resolution is not None else None
            commit = await self._resolved(request, known)
            followed.resolution = Resolution(commit=commit)
            followed.failures = 0
            return self._pace.recheck
        except ModelSourceError as error:
            followed.resolution = Resolution(reason=error.reason, message=str(error), retriable=error.retriable)
            asked_for = error.retry_after
        except UnsupportedModelError as error:
            message = f"The memory of {request.source} can't be estimated: {error}."
            followed.resolution = Resolution(reason="UnsupportedArchitecture", message=message)
        except InvalidInputError as error:
            message = f"config.json of {request.source} can't be used: {error}."
            followed.resolution = Resolution(reason="ModelFilesInvalid", message=message)
        except UnavailableError as error:  # the API server is away: what was known of the model stands
            _LOG.info("%s waits for the API server: %s", request.source, error)
            return self._backoff(followed)
        except ClusterError as error:
            message = f"The API server refuses what is needed to resolve {request.source}: {error}"
            followed.resolution = Resolution(reason="ProfileRefused", message=message, retriable=True)
        except Exception as error:  # one model that nobody thought of never stops the others
            _LOG.exception("%s can't be resolved", request.source)
            message = f"vrampack failed on {request.source} ({type(error).__name__}): see the operator's log."
            followed.resolution = Resolution(reason="InternalError", message=message, retriable=True)
        if not followed.resolution.retriable:
            followed.failures = 0
            return self._pace.recheck
        backoff = self._backoff(followed)
        return min(asked_for, self._pace.longest_asked) if asked_for else backoff

    def _backoff(self, followed: _Followed) -> float:
        doublings = min(followed.failures, 32)  # far beyond the longest wait; keeps the power a small number
        followed.failures += 1
        return min(self._pace.first * 2.0**doublings, self._pace.longest)

    async def _resolved(self, request: ResolveRequest, known: str | None) -> str:
        """The commit, once its profile exists. A branch is followed only until it is ``known`` where it was: what is
        served changes when the user says so."""
        from vrampack.models.hub import (  # its client is 20 MB: not where all is written by hand
            read_facts,
            resolve_commit,
        )

        if known is not None and await self._profile(request, known) is not None:
            return known
        token = await read_token(self._kube, request.token_secret, namespaces=self._token_namespaces)
        commit = known or await resolve_commit(
            source=request.source,
            revision=request.revision or None,
            token=token,
            endpoint=self._endpoint,
            patience=self._patience,
        )
        async with self._reading(request, commit):  # readers with tokens of their own wait for the first one
            profile = await self._profile(request, commit)
            if profile is None:
                facts = await read_facts(
                    source=request.source,
                    revision=commit,
                    token=token,
                    endpoint=self._endpoint,
                    patience=self._patience,
                    file=request.file,
                )
                profile = await self._created(profile_manifest(facts, file=request.file))
        if profile is not None and not profile.get("status", {}).get("summary"):
            await self._summarize(profile)
        return commit

    def _reading(self, request: ResolveRequest, commit: str) -> asyncio.Lock:
        return self._locks.setdefault(profile_name(request.source, commit, request.file), asyncio.Lock())

    async def _profile(self, request: ResolveRequest, commit: str) -> dict[str, Any] | None:
        try:
            return await self._kube.get(f"{_PROFILES}/{profile_name(request.source, commit, request.file)}")
        except NotFoundError:
            return None

    async def _created(self, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
        """None: someone else was faster, and the facts of a commit are the same for all."""
        try:
            return await self._kube.create(_PROFILES, manifest)
        except ConflictError:
            return None

    async def _summarize(self, profile: Mapping[str, Any]) -> None:
        metadata = profile["metadata"]
        status = profile_status(
            ModelProfileSpec.model_validate(profile["spec"]), generation=metadata.get("generation", 1)
        )
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "ModelProfile",
            "metadata": {"name": metadata["name"]},
            "status": {"observedGeneration": status.observed_generation, "summary": status.wire()["summary"]},
        }
        await self._kube.apply(f"{_PROFILES}/{metadata['name']}/status", body, field_manager=names.STATUS_MANAGER)


def _cancel(followed: _Followed) -> None:
    if followed.task is not None:
        followed.task.cancel()
