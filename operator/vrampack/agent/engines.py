"""What engines say of their own memory, where one has an endpoint that tells its terms apart.

That is SGLang: ``/server_info`` has the weights and the captured graphs. (vLLM's metrics have only the blocks of a
cache whose bytes it was told; the others have nothing.) Each start is asked once it is ready, beside the passes, and
only numbers leave the answer, which is anybody's.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import msgspec

from vrampack.agent.pods import Pod
from vrampack.agent.reading import GPUReading, PodUse
from vrampack.models.enginelogs import gib

_log = logging.getLogger(__name__)

_MOST_BYTES: Final = 4 * 1024 * 1024
_SECONDS: Final = 5.0
_TRIES: Final = 3

Fetch = Callable[[str], Awaitable[bytes]]
"""Gives the body at a URL. Raises OSError, TimeoutError, ValueError or aiohttp.ClientError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """Bytes on the GPU of a rank; 0: not told."""

    weights: int = 0
    graphs: int = 0


@dataclass(slots=True)
class _Asked:
    restarts: int
    tries: int = 0
    report: EngineReport | None = None
    asking: asyncio.Task[EngineReport | None] | None = None


async def fetch(url: str) -> bytes:
    """Over HTTP, from this very address. Raises ValueError for anything but an answer of a few MiB, and TimeoutError
    after a few seconds.

    A redirect would have the agent ask whomever the engine names, and what is packed may unpack to any size.
    """
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as response,
    ):
        if response.status != HTTPStatus.OK:
            raise ValueError(f"status {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > _MOST_BYTES:
                raise ValueError(f"more than {_MOST_BYTES} bytes")
        return bytes(body)


class EngineReports:
    """What the engines of one node have said, by the UID of their pods."""

    def __init__(self, fetch: Fetch = fetch) -> None:
        self._fetch = fetch
        self._asked: dict[str, _Asked] = {}

    def look(self, pods: Iterable[Pod]) -> None:
        """Takes what was answered, and asks those that have started since. Blocks nothing."""
        there = {pod.metadata.uid: (pod, url) for pod in pods if pod.ready and (url := pod.server_info)}
        for uid in self._asked.keys() - there.keys():
            self._forget(uid)
        for uid, (pod, url) in there.items():
            asked = self._asked.get(uid)
            if asked is None or asked.restarts != pod.restarts:
                self._forget(uid)
                asked = self._asked[uid] = _Asked(restarts=pod.restarts)
            if asked.asking is not None and asked.asking.done():
                answered, asked.asking = asked.asking, None
                asked.report = answered.result()
            if asked.report is None and asked.asking is None and asked.tries < _TRIES:
                asked.tries += 1
                asked.asking = asyncio.create_task(self._ask(url))

    def told(self, gpus: Sequence[GPUReading]) -> tuple[GPUReading, ...]:
        """The same readings, with what the engine of each pod says."""
        return tuple(replace(gpu, processes=tuple(map(self._with_terms, gpu.processes))) for gpu in gpus)

    async def close(self) -> None:
        """Ends what is being asked."""
        tasks = [asked.asking for asked in self._asked.values() if asked.asking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _with_terms(self, use: PodUse) -> PodUse:
        asked = self._asked.get(use.uid)
        report = asked.report if asked is not None else None
        return use if report is None else replace(use, weights=report.weights, graphs=report.graphs)

    def _forget(self, uid: str) -> None:
        asked = self._asked.pop(uid, None)
        if asked is not None and asked.asking is not None:
            asked.asking.cancel()

    async def _ask(self, url: str) -> EngineReport | None:
        try:
            return read(await self._fetch(url))
        except (OSError, TimeoutError, aiohttp.ClientError, ValueError) as error:
            _log.info("%s tells nothing of its memory: %s", url, error)
            return None


def read(body: bytes) -> EngineReport:
    """SGLang's answer: GiB of the first rank of each data parallel one. Raises ValueError where it is none."""
    try:
        states = msgspec.json.decode(body)["internal_states"]
        usages = [state["memory_usage"] for state in states]
        return EngineReport(
            weights=max(_bytes(each.get("weight")) for each in usages),
            graphs=max(_graphs(each.get("graph")) for each in usages),
        )
    except (KeyError, TypeError, AttributeError, msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no memory_usage in what it answers ({error})") from error


def _graphs(found: Any) -> int:
    """A number, or since 0.5.15 one for each phase."""
    return sum(map(_bytes, found.values())) if isinstance(found, dict) else _bytes(found)


def _bytes(size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, int | float):
        return 0
    with contextlib.suppress(ValueError, OverflowError):
        return gib(f"{size:.3f}") if 0 < size < 1e6 else 0
    return 0
