"""What a person sees while the control plane is built, which takes minutes, once."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

INTRODUCTION = (
    "Building the local control plane from pinned Go modules. "
    "This happens once and takes about 9 minutes on 2 cores; what is finished is kept."
)


class BuildProgress(Protocol):
    """Told about a build as it goes. A context: left when the build ends, however it ends."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...
    def note(self, message: str) -> None:
        """Something worth a line."""

    def begin(self, binary: str, *, number: int, of: int) -> None:
        """The ``number``-th of ``of`` binaries is being built now."""

    def tick(self, detail: str) -> None:
        """It still is. Called several times per second; ``detail`` is what the compiler does."""

    def end(self) -> None:
        """It is finished."""


class LiveProgress:
    """A line per binary that shows how long it has been going, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def note(self, message: str) -> None:
        self._progress.print(message)

    def begin(self, binary: str, *, number: int, of: int) -> None:
        self._task = self._progress.add_task(f"{binary} ({number} of {of})", total=1, detail="")

    def tick(self, detail: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, detail=detail[-60:])

    def end(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=1, detail="")
            self._task = None


class PlainProgress:
    """A line at the start of each binary and every 30 s, for logs."""

    def __init__(
        self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic, every: float = 30.0
    ) -> None:
        self._write = write
        self._clock = clock
        self._every = every
        self._what = ""
        self._began = self._said = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def note(self, message: str) -> None:
        self._write(message)

    def begin(self, binary: str, *, number: int, of: int) -> None:
        self._what = f"{binary} ({number} of {of})"
        self._began = self._said = self._clock()
        self._write(f"building {self._what}")

    def tick(self, detail: str) -> None:
        now = self._clock()
        if now - self._said >= self._every:
            self._said = now
            self._write(f"building {self._what}: {now - self._began:.0f} s so far; {detail}")

    def end(self) -> None:
        self._write(f"built {self._what} in {self._clock() - self._began:.0f} s")


def progress_on(console: Console) -> BuildProgress:
    """A live display on a terminal, lines elsewhere."""
    if console.is_terminal:
        return LiveProgress(console)
    return PlainProgress(lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False))
