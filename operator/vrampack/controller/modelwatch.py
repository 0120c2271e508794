"""Models that are served are looked at from time to time: has their branch moved, are their files still the same?

Nothing is decided here, and nothing restarts for what is seen. Looks are few: one for all ModelDeployments of one model
and revision, two at once at most, spread over the interval, longer apart the more models there are, so that the hub is
never asked more than so often, and longer apart while it does not answer.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vrampack.controller.hubtokens import Readable, read_token
from vrampack.errors import ClusterError, ModelSourceError
from vrampack.models.hubcache import is_offline
from vrampack.planning.resolution import Look, Token, Watch

if TYPE_CHECKING:
    from vrampack.models.hub import Patience

_LOG: Final = logging.getLogger(__name__)
_AT_ONCE: Final = 2
"""Looks at the same time: models that start come first."""
_SPACING: Final = 5.0
"""Seconds for each model that is watched: the interval is at least their sum."""
_JITTER: Final = 0.1
_MOST_DOUBLINGS: Final = 4
_LONGEST_ASKED: Final = 24 * 3600.0

Chance = Callable[[float, float], float]
"""A number between two, as random.uniform."""


@dataclass(slots=True)
class _Watched:
    tokens: tuple[Token, ...]
    task: asyncio.Task[None] | None = None
    seen: Look | None = None
    failures: int = 0


@dataclass(kw_only=True)
class ModelWatch:
    """One background task for each model and revision that is served; ``poke`` is called when what is seen changes.

    ``interval``: seconds between two looks at one model, more where many are watched; 0: never look. ``spacing``: the
    least time for each of them. ``token_namespaces``: where Secrets may be
    read, None: wherever the API server lets us. Call from the event loop; nothing here raises for a model.
    """

    kube: Readable
    endpoint: str | None
    poke: Callable[[], None]
    interval: float
    token_namespaces: Container[str] | None = None
    patience: "Patience | None" = None
    chance: Chance = random.uniform
    spacing: float = _SPACING
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE), init=False)
    _watched: dict[Watch, _Watched] = field(default_factory=dict, init=False)

    def watch(self, wanted: Mapping[Watch, tuple[Token, ...]]) -> None:
        """What is served now: begins what is new, and forgets what is not among it."""
        if not self.interval or is_offline():  # nothing moves in a cache, and hashing copies of weights takes minutes
            return
        for gone in self._watched.keys() - wanted.keys():
            if (task := self._watched.pop(gone).task) is not None:
                task.cancel()
        for each, tokens in wanted.items():
            if (known := self._watched.get(each)) is not None:
                known.tokens = tokens
                continue
            watched = self._watched[each] = _Watched(tokens=tokens)
            watched.task = asyncio.create_task(self._follow(each, watched), name=f"watch {each.source}")

    def looks(self) -> Mapping[Watch, Look]:
        """What was seen so far, as a copy that does not change."""
        return {each: watched.seen for each, watched in self._watched.items() if watched.seen is not None}

    async def close(self) -> None:
        """Ends all tasks."""
        tasks = [watched.task for watched in self._watched.values() if watched.task is not None]
        self.watch({})
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _interval(self) -> float:
        return max(self.interval, self.spacing * len(self._watched))

    async def _follow(self, watch: Watch, watched: _Watched) -> None:
        # The first look is anywhere in the interval: a leader that begins must not ask for a thousand models at once.
        await asyncio.sleep(self.chance(0, self._interval))
        while True:
            before = watched.seen
            async with self._slots:
                wait = await self._attempt(watch, watched)
            if watched.seen != before:
                self.poke()
            await asyncio.sleep(wait * self.chance(1 - _JITTER, 1 + _JITTER))

    async def _attempt(self, watch: Watch, watched: _Watched) -> float:
        """Notes what is seen, and returns the seconds until the next look."""
        from vrampack.models.hub import look  # as late as in the resolver, and for the same reason

        tokens = watched.tokens or (None,)
        try:
            # Another reader's token the next time, where this one's is refused.
            token = await read_token(
                self.kube, tokens[watched.failures % len(tokens)], namespaces=self.token_namespaces
            )
            seen = await look(
                source=watch.source,
                revision=watch.revision or None,
                commit=watch.commit,
                file=watch.file,
                token=token,
                endpoint=self.endpoint,
                patience=self.patience,
            )
        except ModelSourceError as error:
            watched.failures += 1
            if not error.retriable and watched.failures >= len(tokens):
                watched.seen = Look(reason=error.reason, message=str(error))
            if error.retry_after:
                return max(self._interval, min(error.retry_after, _LONGEST_ASKED))
        except ClusterError as error:  # what was seen stands
            watched.failures += 1
            _LOG.info("%s is looked at later: %s", watch.source, error)
        except Exception:  # one model that nobody thought of never stops the others
            watched.failures += 1
            _LOG.exception("%s can't be looked at", watch.source)
        else:
            watched.failures = 0
            watched.seen = Look(head=seen.head, digest=seen.digest, pinned_digest=seen.pinned_digest)
            return self._interval
        return self._interval * 2.0 ** min(watched.failures - 1, _MOST_DOUBLINGS)
