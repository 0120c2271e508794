"""Child processes that never outlive this one, and whose death is noticed at once."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vrampack.localcluster import guard


class Guard:
    """A process group that dies with this process: pass ``group`` to ``Popen(process_group=…)``.

    Leaving the context kills what is left in the group. ``folder`` is removed when this process dies without leaving.
    """

    def __init__(self, *, folder: Path | None = None) -> None:
        command = [sys.executable, "-I", "-S", guard.__file__, *([] if folder is None else [str(folder)])]
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # whoever reads this process's output must not wait for the guard
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self.group = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kills all that is left in the group, the guard too. May be called again."""
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):
            self._popen.stdin.close()
        self._popen.wait()


class Child:
    """One running process of a group. Needs a running event loop; ``on_death`` is called in it, unless ``stop`` was."""

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        group: int,
        on_death: Callable[["Child"], None],
    ) -> None:
        self.name = name
        self.log = log
        self._on_death = on_death
        self._stopping = False
        loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=group,
            )
        # A thread, because asyncio's own subprocesses take no process group under uvloop.
        threading.Thread(target=self._wait, args=(loop,), name=f"wait for {name}", daemon=True).start()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._reap)

    def _reap(self) -> None:
        self._exited.set()
        if not self._stopping:
            self._on_death(self)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return not self._exited.is_set()

    async def stop(self, *, patience: float) -> None:
        """Ends the process: SIGTERM, and SIGKILL after ``patience`` seconds. May be called again."""
        self._stopping = True
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a paused process gets its SIGTERM only when it goes on
        try:
            await asyncio.wait_for(self._exited.wait(), timeout=patience)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._exited.wait()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; a process that is gone takes none."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def pause(self) -> None:
        """Freezes the process, and returns when it stands still: a signal alone is only on its way, and until the last
        thread has taken it the process may still answer. One that is gone is left alone."""
        self.signal(signal.SIGSTOP)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._popen.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def obituary(self) -> str:
        """How the process ended and the last lines of its log."""
        code = self._popen.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        return f"{self.name} {how}; the end of its log ({self.log}):\n{tail(self.log)}"


async def run(
    command: Sequence[str], *, stdin: str | None, environment: Mapping[str, str], group: int
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end in a process group. Cancelled, it kills the command."""
    popen = _piped(command, environment=environment, group=group)
    try:
        output, errors = await asyncio.to_thread(popen.communicate, stdin)
    except asyncio.CancelledError:
        popen.kill()
        raise
    return subprocess.CompletedProcess(command, popen.returncode, output, errors)


def _piped(command: Sequence[str], *, environment: Mapping[str, str], group: int) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, process_group=group, text=True
    )


def tail(log: Path, *, lines: int = 15) -> str:
    """The last lines of a log file, indented. Long lines are cut."""
    with log.open(encoding="utf-8", errors="replace") as file:
        return "".join(f"  {line.rstrip()[:400]}\n" for line in deque(file, maxlen=lines)).rstrip("\n")
