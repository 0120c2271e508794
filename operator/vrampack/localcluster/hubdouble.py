"""The hub double: a local server that answers as the model hub does, for demo, tests and benchmarks.

It serves the models of the catalogue: repository info, small files in full, weight files as real headers and sparse
zeros. It refuses as the hub refuses (the same statuses and ``X-Error-Code`` headers), keeps a log of requests, and
counts every byte of weights that anyone takes.
"""

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from aiohttp import web
from aiohttp.typedefs import Handler

from vrampack.localcluster.hubcatalogue import CatalogueModel, catalogue
from vrampack.localcluster.hubfiles import StoredFile
from vrampack.localcluster.hubrepository import Fault, Refusal, Repository

__all__ = ["Fault", "HubDouble", "LoggedRequest"]

_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One request that was answered."""

    method: str
    path: str
    range: str | None
    token: str | None
    status: int


@dataclass(kw_only=True)
class HubDouble:
    """Use as an async context manager, or call ``start`` and ``stop``."""

    models: Iterable[CatalogueModel] = field(default_factory=lambda: list(catalogue()))
    tokens: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Valid tokens, and the gated or private repositories that each may read."""
    open_terms: bool = False
    """Whether gated repositories are open to all: as if everyone had accepted their terms."""
    host: str = "127.0.0.1"
    port: int = 0
    """0: a free one, kept over ``offline`` and ``online``."""
    requests: list[LoggedRequest] = field(default_factory=list, init=False)
    weight_bytes: int = field(default=0, init=False)
    """Bytes of tensors that were sent. vrampack takes none."""

    def __post_init__(self) -> None:
        self._repositories = {model.repository: Repository(model) for model in self.models}
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """For ``HF_ENDPOINT``."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listens. Raises OSError where the port is taken."""
        app = web.Application(middlewares=[self._log])
        app.router.add_get("/api/models/{org}/{name}", self._info)
        app.router.add_get("/api/models/{org}/{name}/revision/{revision}", self._info)
        app.router.add_get("/{org}/{name}/resolve/{revision}/{path:.+}", self._resolve)
        app.router.add_get("/storage/{org}/{name}/{commit}/{path:.+}", self._storage)
        self._stopping = asyncio.Event()
        self._runner = web.AppRunner(app, shutdown_timeout=1, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Frees the port and ends the connections. Does nothing when it is not running."""
        if self._runner is not None:
            self._stopping.set()
            await self._runner.cleanup()
            self._runner = None

    async def offline(self) -> None:
        """Refuses connections until ``online``."""
        await self.stop()

    async def online(self) -> None:
        """Listens again, on the same port."""
        await self.start()

    def set_fault(
        self, repository: str, fault: Fault | None, *, times: int | None = None, retry_after: int = 1
    ) -> None:
        """From now on, for ``times`` requests (None: until it is changed). ``retry_after``: seconds, with a refusal
        that passes. None takes the fault away."""
        self._repositories[repository].set_fault(fault, times=times, retry_after=retry_after)

    def move_branch(self, repository: str, branch: str = "main", *, without: Collection[str] = ()) -> str:
        """A new commit with new weights on the branch, which is made if there is none. Old commits stay.

        ``without``: files that it lacks."""
        return self._repositories[repository].move(branch, without=without)

    def commit(self, repository: str, branch: str = "main") -> str:
        """Where the branch is."""
        return self._repositories[repository].branches[branch]

    # ---- answers ----

    @web.middleware
    async def _log(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except Refusal as refusal:
            response = web.json_response({"error": refusal.message}, status=refusal.status, headers=refusal.headers)
        self.requests.append(
            LoggedRequest(
                method=request.method,
                path=request.path,
                range=request.headers.get("Range"),
                token=_token(request),
                status=response.status,
            )
        )
        return response

    async def _info(self, request: web.Request) -> web.StreamResponse:
        held = self._visible(request)
        if (page := await self._meet_fault(held)) is not None:
            return page
        commit = held.commit_of(request.match_info.get("revision", "main"))
        with_blobs = request.query.get("blobs", "").lower() == "true"
        siblings = [_sibling(file, commit, with_blobs=with_blobs) for file in held.files_at(commit).values()]
        return web.json_response(
            {
                "id": held.model.repository,
                "modelId": held.model.repository,
                "author": held.model.repository.partition("/")[0],
                "sha": commit,
                "private": held.model.private,
                "gated": "manual" if held.model.gated else False,
                "disabled": False,
                "tags": ["safetensors"],
                "siblings": siblings,
            },
            headers={"X-Repo-Commit": commit},
        )

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        held = self._visible(request)
        self._check_terms(request, held)
        if (page := await self._meet_fault(held)) is not None:
            return page
        commit = held.commit_of(request.match_info["revision"])
        file = held.files_at(commit).get(request.match_info["path"])
        if file is None:
            raise Refusal(404, "Entry not found", code="EntryNotFound")
        digest = file.digest(commit)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if not file.large:
            return await self._send(request, file, headers, held.fault)
        headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{digest}"'}
        location = f"/storage/{held.model.repository}/{commit}/{file.name}"
        return web.Response(status=302, headers=headers | {"Location": location})

    async def _storage(self, request: web.Request) -> web.StreamResponse:
        """Where large files lie: the address itself is the permission, as with a signed one."""
        held = self._named(request)
        commit = request.match_info["commit"]
        file = None if held is None else held.files_at(commit).get(request.match_info["path"])
        if held is None or file is None:
            raise Refusal(403, "Access denied")
        headers = {"ETag": f'"{file.digest(commit)}"', "Accept-Ranges": "bytes"}
        return await self._send(request, file, headers, held.fault)

    async def _send(
        self, request: web.Request, file: StoredFile, headers: Mapping[str, str], fault: Fault | None
    ) -> web.StreamResponse:
        start, end = 0, file.size
        asked = _RANGE.fullmatch(request.headers.get("Range", ""))
        status = 200
        if asked is not None and fault is not Fault.IGNORES_RANGES:
            start, end = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else file.size, file.size)
            if start >= file.size:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{file.size}"})
            status = 206
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - start
        if status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        while start < end:
            after = min(start + _CHUNK, end)
            chunk = file.head[start:after]
            zeros = after - start - len(chunk)
            await response.write(chunk + bytes(zeros))
            self.weight_bytes += zeros
            start = after
        return response

    # ---- who may see what ----

    def _named(self, request: web.Request) -> Repository | None:
        return self._repositories.get(f"{request.match_info['org']}/{request.match_info['name']}")

    def _visible(self, request: web.Request) -> Repository:
        """The repository, unless the reader may not know that it is there."""
        token = _token(request)
        if token is not None and token not in self.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        held = self._named(request)
        if held is not None and (not held.model.private or self._may_read(token, held)):
            return held
        if token is None:
            raise Refusal(401, "Invalid username or password.", code="RepoNotFound")
        raise Refusal(404, "Repository not found", code="RepoNotFound")

    def _check_terms(self, request: web.Request, held: Repository) -> None:
        token = _token(request)
        if not held.model.gated or self.open_terms or self._may_read(token, held):
            return
        message = f"Access to model {held.model.repository} is restricted."
        raise Refusal(401 if token is None else 403, message, code="GatedRepo")

    def _may_read(self, token: str | None, held: Repository) -> bool:
        return token is not None and held.model.repository in self.tokens.get(token, ())

    async def _meet_fault(self, held: Repository) -> web.Response | None:
        """Raises or delays as the fault says; the page that stands in for an answer, or None to go on."""
        match held.take_fault():
            case Fault.HANGS:
                await self._stopping.wait()
            case Fault.NO_HUB:
                return web.Response(text="<html>Sign in to the network</html>", content_type="text/html")
        return None


def _token(request: web.Request) -> str | None:
    return request.headers.get("Authorization", "").removeprefix("Bearer ") or None


def _sibling(file: StoredFile, commit: str, *, with_blobs: bool) -> dict[str, object]:
    sibling: dict[str, object] = {"rfilename": file.name}
    if with_blobs:
        digest = file.digest(commit)
        sibling |= {"blobId": digest[:40], "size": file.size}
        if file.large:
            sibling["lfs"] = {"sha256": digest, "size": file.size, "pointerSize": 135}
    return sibling
