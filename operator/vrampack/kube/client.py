"""Raw requests to the API server: JSON in and out, no typed models between.

Sign-in, TLS and proxies are those of ``kubernetes.aio``, so every kubeconfig that works there works here. Its models
stay unused: they cost memory, and a large list takes them ten times as long to read.
"""

import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
import yaml
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from vrampack.api.names import FIELD_MANAGER, GROUP
from vrampack.errors import (
    ClusterError,
    ConflictError,
    DisruptionError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)

# A timeout is an OSError; a file with a token may be gone.
_NO_ANSWER = (aiohttp.ClientError, OSError, ConfigException)
_Items = list[dict[str, Any]]

_CONNECTIONS = 80  # more than the writes in flight: a watch holds one, and no Lease or list must wait for one
_PAGE = 500
_RESTARTS = 3
_REREAD_SECONDS = 60.0
_GONE = 410
_DISRUPTION = re.compile("disruption ?budget", re.IGNORECASE)
# What server-side apply says, as an internal error, to a field that the installed CustomResourceDefinition lacks.
_OLDER_SCHEMA = "field not declared in schema"
# An internal error that is one object's own: a webhook that is down, addresses that are used up, more than etcd takes,
# a field that its kind lacks. Each is met before anything is written, and nobody else has to wait for it.
_OWN_TROUBLE = re.compile(f"webhook|failed to allocate|too large|larger than max|{_OLDER_SCHEMA}", re.IGNORECASE)
_UPGRADE = "the CustomResourceDefinitions of the cluster are older than vrampack: apply those of this version"
# The loader stumbles over a file of another shape.
_NOT_A_KUBECONFIG = (ConfigException, OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError)
_WATCH_SECONDS = (300, 600)  # as other clients do, so that those of one moment don't come back in one moment
_BOOKMARK_SECONDS = 150  # the API server sends one a minute: a connection without any for so long is dead
_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_BOOKMARK_SECONDS)
# Nobody reads them: in the form that the API server has ready, since the controllers and the scheduler ask for it too;
# custom resources have only the other one.
_UNREAD = "application/vnd.kubernetes.protobuf, application/json"
# A list is read in every pass: within a cluster, bandwidth costs less than packing and unpacking it.
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "vrampack"}


class Kube:
    """One pool of connections to one API server. Paths are those of its REST API, such as ``/api/v1/pods``.

    Every request raises ConflictError (409), NotFoundError (404), UnavailableError (no answer in time, 429, 5xx) or
    ClusterError (any other refusal, and a 500 that is this object's own; its ``status`` says which). Nothing is tried
    again: callers read afresh instead.
    """

    def __init__(self, configuration: Any, *, timeout: float = 30) -> None:
        """``configuration``: one of ``kubernetes.aio``. ``timeout``: seconds for one request with its answer."""
        configuration.connection_pool_maxsize = _CONNECTIONS
        configuration.proxy = configuration.proxy or _proxy_of(configuration.host)
        configuration.client_session_kwargs = {"trust_env": False}
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, *, context: str | None = None) -> Self:
        """Signs in by a kubeconfig; without one as the pod's ServiceAccount, or else by the default kubeconfig.

        ``context``: of the kubeconfig, by default its current one. Sends nothing yet. Raises InvalidInputError where
        there is no usable kubeconfig.
        """
        configuration = Configuration()
        try:
            if kubeconfig is None and context is None and _as_pod(configuration):
                return cls(configuration)
            loader = await load_kube_config(kubeconfig, context, configuration, persist_config=False)
            configuration.refresh_api_key_hook = _rereading(loader.load_and_set)
            return cls(configuration)
        except _NOT_A_KUBECONFIG as error:
            allowed = f"a kubeconfig with a usable context is needed: {error}"
            raise InvalidInputError(field="kubeconfig", value=kubeconfig or "(default)", allowed=allowed) from error

    @property
    def url(self) -> str:
        """Where the API server is."""
        return str(self._configuration.host)

    async def close(self) -> None:
        await self._rest.close()

    async def get(self, path: str) -> dict[str, Any]:
        """The object at ``path``."""
        return _decoded(await self._request("GET", path))

    async def list_raw(self, path: str, **query: object) -> bytes:
        """The JSON of one list, for a reader that decodes only what it needs. Without ``limit``: all of it."""
        return await self._request("GET", path, query=query)

    async def watch_changes(self, path: str, **query: object) -> AsyncGenerator[None]:
        """Yields once when the watch is there and then after every change, several at once counting as one.

        Nothing is decoded. It ends after some minutes, as watches do; raises as every request does.
        """
        async with aclosing(self._stream(path, query, accept=_UNREAD)) as chunks:
            async for _ in chunks:
                yield

    async def watch(self, path: str, **query: object) -> AsyncGenerator[list[bytes]]:
        """Yields nothing once when the watch is there, and then its events as they come, each as JSON.

        It ends after some minutes, as watches do; raises as every request does.
        """
        rest = b""
        async with aclosing(self._stream(path, query, accept="application/json")) as chunks:
            async for chunk in chunks:
                *events, rest = (rest + chunk).split(b"\n")
                if events or not chunk:
                    yield events

    async def list(self, path: str, **query: object) -> _Items:
        """The items of a list, page by page at one resourceVersion; starts again where that expired meanwhile."""
        for _ in range(_RESTARTS):
            try:
                return await self._pages(path, query)
            except ClusterError as error:
                if error.status != _GONE:
                    raise
        return await self._pages(path, {**query, "limit": None})

    async def create(self, path: str, body: Mapping[str, Any], *, field_manager: str = FIELD_MANAGER) -> dict[str, Any]:
        """Creates an object in the collection at ``path``; unknown and double fields are refused."""
        query = {"fieldManager": field_manager, "fieldValidation": "Strict"}
        return _decoded(await self._request("POST", path, query=query, body=body))

    async def apply(
        self, path: str, body: Mapping[str, Any], *, field_manager: str, force: bool = True
    ) -> dict[str, Any]:
        """Server-side apply of an object, or of its status where ``path`` ends so; unknown fields are refused."""
        query = {"fieldManager": field_manager, "force": force, "fieldValidation": "Strict"}
        return await self._patch(path, body, "application/apply-patch+yaml", query)

    async def json_patch(self, path: str, ops: Sequence[Mapping[str, Any]], *, field_manager: str) -> dict[str, Any]:
        """All operations or none. A ``test`` that fails is a ClusterError of status 422."""
        return await self._patch(path, list(ops), "application/json-patch+json", {"fieldManager": field_manager})

    async def merge_patch(self, path: str, body: Mapping[str, Any], *, field_manager: str) -> dict[str, Any]:
        """Merges ``body`` into the object; None removes a key. With metadata.resourceVersion: only at that one."""
        return await self._patch(path, body, "application/merge-patch+json", {"fieldManager": field_manager})

    async def delete(
        self,
        path: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Deletes an object, and where given only this one (uid) as it was read (resourceVersion)."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if any(preconditions.values()):
            body["preconditions"] = {name: value for name, value in preconditions.items() if value}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        await self._request("DELETE", path, body=body)

    async def evict(self, path: str, *, uid: str, dry_run: bool = False) -> None:
        """Evicts the pod at ``path``, this very one, with its own grace period.

        ``dry_run``: only asks whether it may go. Raises DisruptionError where a PodDisruptionBudget does not let it go
        now.
        """
        options: dict[str, Any] = {"preconditions": {"uid": uid}}
        if dry_run:
            options["dryRun"] = ["All"]
        *_, namespace, _, name = path.split("/")
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        try:
            await self._request("POST", f"{path}/eviction", body=body)
        except UnavailableError as error:
            # 429 where it would be one too many, and 500 where two budgets speak of one pod: neither is an outage.
            if _DISRUPTION.search(str(error)):
                raise DisruptionError(str(error), status=error.status) from error
            raise

    async def _stream(self, path: str, query: Mapping[str, object], *, accept: str) -> AsyncGenerator[bytes]:
        asked = {"watch": True, "allowWatchBookmarks": True, "timeoutSeconds": random.randint(*_WATCH_SECONDS), **query}  # noqa: S311
        try:
            async with await self._send("GET", path, query=asked, accept=accept, limits=_STREAM) as response:
                if response.status >= 400:
                    said = _message(await response.read())
                    raise _refusal(response.status, f"WATCH {path}: {response.status} {said}")
                yield b""  # it is there
                async for chunk in response.content.iter_any():
                    yield chunk
        except _NO_ANSWER as error:
            raise _away("WATCH", path, error) from error

    async def _pages(self, path: str, query: Mapping[str, object]) -> _Items:
        items: _Items = []
        asked: dict[str, object] = {"limit": _PAGE, **query}
        while True:
            page = _decoded(await self._request("GET", path, query=asked))
            items += page.get("items") or ()
            following = page["metadata"].get("continue")
            if not following:
                return items
            # The token holds the resourceVersion; the API server refuses a second one beside it.
            asked = asked | {"continue": following, "resourceVersion": None, "resourceVersionMatch": None}

    async def _patch(self, path: str, body: Any, kind: str, query: Mapping[str, object]) -> dict[str, Any]:
        return _decoded(await self._request("PATCH", path, query=query, body=body, kind=kind))

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Any = None,
        kind: str = "application/json",
    ) -> bytes:
        try:
            response = await self._send(method, path, query=query or {}, body=body, kind=kind, limits=self._timeout)
            answer: bytes = await response.read()
        except _NO_ANSWER as error:
            raise _away(method, path, error) from error
        if response.status >= 400:
            raise _refusal(response.status, f"{method} {path}: {response.status} {_message(answer)}")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object],
        limits: aiohttp.ClientTimeout,
        body: Any = None,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> aiohttp.ClientResponse:
        headers = {**_HEADERS, "Accept": accept, "Content-Type": kind}
        for credential in (await self._configuration.auth_settings()).values():
            headers[credential["key"]] = credential["value"]
        answer = await self._rest.request(
            method, self.url + _with_query(path, query), headers, body, _request_timeout=limits
        )
        response: aiohttp.ClientResponse = answer.response
        return response


def _away(method: str, path: str, error: Exception) -> UnavailableError:
    return UnavailableError(f"{method} {path}: {str(error) or 'no answer in time'}")


def _proxy_of(url: str) -> str | None:
    """What the environment says (HTTPS_PROXY, NO_PROXY), asked once: aiohttp would ask it for every request, and look
    for credentials in a netrc file, each in a thread."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _as_pod(configuration: Any) -> bool:
    """Whether this process runs in a pod with a ServiceAccount; its token is read again every minute."""
    try:
        load_incluster_config(configuration)
    except ConfigException:
        return False
    return True


def _rereading(load: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Tokens expire: a file is read again and a sign-in command asked again, each minute at most."""
    due = time.monotonic() + _REREAD_SECONDS

    async def hook(configuration: Any) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _REREAD_SECONDS
            await load(configuration)

    return hook


def _with_query(path: str, query: Mapping[str, object]) -> str:
    given = {name: _word(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _decoded(answer: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(answer)
    return decoded


def _message(answer: bytes) -> str:
    """What the API server said; a proxy before it may say anything."""
    try:
        return str(msgspec.json.decode(answer)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return answer[:300].decode(errors="replace").strip()


def _refusal(status: int, message: str) -> ClusterError:
    said = message.partition(f": {status} ")[2]  # what comes before names the object
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and _OWN_TROUBLE.search(said):
        hint = f"; {_UPGRADE}" if _OLDER_SCHEMA in said and f"/apis/{GROUP}/" in message else ""
        return ClusterError(message + hint, status=status)
    kinds: dict[int, type[ClusterError]] = {404: NotFoundError, 409: ConflictError, 429: UnavailableError}
    return kinds.get(status, UnavailableError if status >= 500 else ClusterError)(message, status=status)
