"""What is looked for beside the passes, in a process of its own: no pass ever waits for it.

Work is handed over in chunks that are counted, not timed. Between two chunks it is seen whether the question is still
the same; what was found for another one is dropped.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context, parent_process
from typing import Final

from vrampack.planning.findings import Findings, Question

_LOG: Final = logging.getLogger(__name__)
_NICENESS: Final = 10
_QUIET_SECONDS: Final = 2.0
"""How long a question stands before it is worth an answer: while a fleet is filled, each pass asks another one, and to
look for their answers would only take processors from what fills it."""


class Refiner:
    """One background task for each pool that is asked about; ``poke`` is called when something was found.

    ``workers``: makes what the work is done in; by default one process that begins with the first question, and ends
    with this one. ``quiet``: seconds for which a question stands before its answer is looked for.
    """

    def __init__(
        self,
        *,
        poke: Callable[[], None],
        workers: Callable[[], Executor] | None = None,
        quiet: float = _QUIET_SECONDS,
    ) -> None:
        self._poke = poke
        self._quiet = quiet
        self._make = workers or _one_process
        self._workers: Executor | None = None
        self._asked: dict[str, tuple[Question, int]] = {}
        self._found: dict[str, Findings] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def ask(self, questions: Mapping[str, tuple[Question, int]]) -> None:
        """By pool what is to be looked for now, and how many chunks of work that is worth. What is under way for
        another question is given up; a pool that is not named keeps what was found."""
        for pool, (question, chunks) in questions.items():
            known = self._asked.get(pool)
            if known is not None and known[0] == question:
                continue
            self._asked[pool] = (question, chunks)
            task = self._tasks.get(pool)
            if task is None or task.done():
                self._tasks[pool] = asyncio.create_task(self._look(pool), name=f"refine {pool}")

    def rest(self) -> None:
        """Gives up what is under way, until something is asked again. What was found stays."""
        self._asked.clear()

    def findings(self) -> Mapping[str, Findings]:
        """What was found so far, by pool, as a copy that does not change."""
        return dict(self._found)

    def forget(self) -> None:
        """Who does not lead looks for nothing."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._asked.clear()
        self._found.clear()

    async def close(self) -> None:
        """Ends all of it; a chunk under way is not waited for."""
        tasks = list(self._tasks.values())
        self.forget()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._workers is not None:
            if isinstance(self._workers, ProcessPoolExecutor):
                for process in list((self._workers._processes or {}).values()):  # it has no other end
                    process.kill()
            self._workers.shutdown(wait=False, cancel_futures=True)
            self._workers = None

    async def _look(self, pool: str) -> None:
        """Until the question that is asked is answered, as far as its chunks go."""
        answered: Question | None = None
        while (asked := self._asked.get(pool)) is not None and asked[0] is not answered:
            await asyncio.sleep(self._quiet)
            if self._asked.get(pool) is not asked:
                continue
            answered, chunks = asked
            try:
                await self._answer(pool, answered, chunks)
            except BrokenProcessPool:
                _LOG.warning("the process that refines plans has died; the next question starts another")
                self._workers = None
            except Exception:  # one question that nobody thought of never stops the others
                _LOG.exception("what pool %s is asked for can't be found", pool)

    async def _answer(self, pool: str, question: Question, chunks: int) -> None:
        found = await self._work(_find, question)
        for _ in range(chunks):
            if not self._tell(pool, found):
                return
            after = await self._work(_further, found)
            if after == found:
                break
            found = after
        self._tell(pool, replace(found, complete=True))

    def _tell(self, pool: str, found: Findings) -> bool:
        """Notes what was found; False where something else is asked by now."""
        asked = self._asked.get(pool)
        if asked is None or asked[0] is not found.question:
            return False
        before = self._found.get(pool)
        self._found[pool] = found
        if before is None or before.question is not found.question or _told(before) != _told(found):
            self._poke()
        return True

    async def _work(self, work: Callable[..., Findings], argument: Question | Findings) -> Findings:
        """``work`` in the process. Its answer comes with a question of its own: an equal one, but not the same."""
        if self._workers is None:
            self._workers = self._make()
        question = argument.question if isinstance(argument, Findings) else argument
        found: Findings = await asyncio.get_running_loop().run_in_executor(self._workers, work, argument)
        return found.of(question)


def _find(question: Question) -> Findings:
    # Imported in the process that looks: the solver's memory is no business of the operator's.
    from vrampack.planning.seeking import find

    return find(question)


def _further(findings: Findings) -> Findings:
    from vrampack.planning.seeking import further

    return further(findings)


def _told(found: Findings) -> object:
    """What a status says of it; the work alone is no news."""
    return found.room, found.closing, found.bound, found.plan, found.layouts, found.complete


def _one_process() -> Executor:
    return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """In the process: it gives way to everything else, and ends with the operator, however that ends."""
    os.nice(_NICENESS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
