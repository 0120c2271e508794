"""Raw requests to the API server as its admin: what setting a cluster up needs, no more."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from vrampack.errors import ClusterError, ConflictError, LocalClusterError, NotFoundError, UnavailableError

_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
_PARALLEL = 32


class AdminClient:
    """One session to one API server, by client certificate."""

    def __init__(self, *, url: str, authority: Path, certificate: Path, key: Path) -> None:
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
        connector = aiohttp.TCPConnector(ssl=context, limit=_PARALLEL)
        self._session = aiohttp.ClientSession(base_url=url, connector=connector, timeout=_TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str) -> Any:
        """The object or list at ``path``."""
        return await self._request("GET", path)

    async def create(self, path: str, body: Mapping[str, Any], *, existing_is_fine: bool = False) -> Any:
        """Creates an object. Raises ConflictError where it exists, unless that is fine."""
        try:
            return await self._request("POST", path, body=body)
        except ConflictError:
            if not existing_is_fine:
                raise
            return None

    async def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Merges ``body`` into an object; None removes a key."""
        return await self._request("PATCH", path, body=body, content_type="application/merge-patch+json")

    async def ready(self) -> bool:
        """Whether the API server answers that it is ready."""
        try:
            async with self._session.get("/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _request(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, content_type: str = "application/json"
    ) -> Any:
        headers = {"Content-Type": content_type}
        try:
            async with self._session.request(method, path, json=body, headers=headers) as response:
                answer = await response.json(content_type=None)
                if response.status < 400:
                    return answer
                raise _error(response.status, f"{method} {path}: {answer.get('message', answer)}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"{method} {path}: {str(error) or 'no answer in time'}") from error


def _error(status: int, message: str) -> ClusterError:
    if status == 409:
        return ConflictError(message, status=status)
    if status == 404:
        return NotFoundError(message, status=status)
    if status == 429 or status >= 500:
        return UnavailableError(message, status=status)
    return ClusterError(message, status=status)


async def until(what: str, condition: Any, *, timeout: float) -> None:  # noqa: ASYNC109 - the message says what was awaited
    """Asks ``condition`` again and again until it is true. Raises LocalClusterError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not await condition():
        if time.monotonic() > deadline:
            raise LocalClusterError(f"{what}: not after {timeout:.0f} s")
        await asyncio.sleep(0.05)
