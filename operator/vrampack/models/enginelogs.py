"""What inference engines print about their memory when they start, read from their logs.

A log is anybody's text: it is read line by line, each cut off at a length, up to a size, and only numbers leave it. One
log may hold several starts; each one counts. Which engine wrote it is seen by its lines.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import BinaryIO, Final

from vrampack.errors import InvalidInputError
from vrampack.units import GIB, MIB

MAX_LOG_BYTES: Final = 512 * MIB
MAX_LINE: Final = 64 * 1024
MAX_STARTS: Final = 1000
MAX_RANKS: Final = 1024
NUMBER: Final = r"(-?\d{1,9}(?:\.\d{1,9})?)"
"""A size as engines print it: bounded, so that a hostile one is no number."""

MOST_CONTEXT: Final = 2 * GIB
"""A CUDA context with its libraries takes 0.2 to 1.2 GiB before anything is loaded."""

_PRINTED_DIGITS: Final = 2
"""Engines round to two digits and leave out a last zero: 3.1 is 3.10."""
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")


@dataclass(slots=True, kw_only=True)
class Seen:
    """Figures of one rank, bytes; None: not printed."""

    weights: int | None = None
    consumed: int | None = None
    """Weights and what is outside PyTorch, where an engine prints only both together."""
    activations: int | None = None
    cuda_graphs: int | None = None
    non_torch: int | None = None
    context: int | None = None
    """What was in use of the GPU before the engine began to load."""
    communication: int | None = None


@dataclass(slots=True, kw_only=True)
class Start:
    """One start of an engine: how it ran, where it says so, and what each rank printed."""

    engine: str
    version: str = ""
    product: str = ""
    model: str = ""
    context_length: int | None = None
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None
    expert: bool | None = None
    kv_cache: str = ""
    """As the engine writes it: auto, fp8, …"""
    dtype: str = ""
    """Computation type: bfloat16, …"""
    cuda_graphs: bool | None = None
    sized: bool = False
    """Whether it was told the bytes of its KV cache: then it prints no breakdown."""
    kv_tokens: int | None = None
    ranks: dict[str, Seen] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    """Terms of which a printed figure does not count, and why in words."""

    def rank(self, name: str) -> Seen:
        """The figures of a rank; beyond a bound, those of the last one."""
        if name not in self.ranks and len(self.ranks) >= MAX_RANKS:
            return self.ranks[next(reversed(self.ranks))]
        return self.ranks.setdefault(name, Seen())

    def take(self, rank: str, term: str, text: str, *, unit: int, summed: bool = False) -> None:
        """A printed figure of a rank. Printed again it is the larger one that counts, or their sum.

        One below zero says only that memory was given back while the engine looked: not what the term takes. Nothing
        of such a sum counts then.
        """
        seen = self.rank(rank)
        if float(text) < 0:
            self.unusable[term] = f"{text} was printed: memory was given back meanwhile, which is no measure of it"
            if summed:
                setattr(seen, term, None)
            return
        before = getattr(seen, term)
        size = _bytes(text, unit)
        if not summed:
            size = max(size, before or 0)
        elif before is not None:
            size += before
        elif term in self.unusable:
            return
        setattr(seen, term, size)

    def most(self, term: str) -> int | None:
        """Of the rank that used the most: the claim is the same on all."""
        found = [value for seen in self.ranks.values() if (value := getattr(seen, term)) is not None]
        return max(found, default=None)

    @property
    def measured(self) -> bool:
        """Whether it printed figures, usable or not."""
        figures = (getattr(seen, each.name) for seen in self.ranks.values() for each in fields(Seen))
        return bool(self.unusable) or any(figure is not None for figure in figures)


Reader = Callable[[str, Start], bool]
"""Reads a line into a start. True: the line is one of this engine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one engine writes: ``begins`` tells the first line of a start, ``read`` all others."""

    engine: str
    hints: tuple[str, ...]
    """Texts of which one is in each line that matters: all others are skipped unread."""
    begins: re.Pattern[str]
    read: Reader


def read_starts(path: Path, *, dialects: Iterable[Dialect]) -> tuple[Start, ...]:
    """The starts that a log file holds and that printed figures. Blocking.

    Raises InvalidInputError for a file that can't be read, is too long, or in which no engine says anything.
    """
    try:
        with path.open("rb") as file:
            return read_stream(file, name=str(path), dialects=dialects)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InvalidInputError(field="LOGFILE", value=str(path), allowed=f"a file that can be read ({why})") from error


def read_stream(file: BinaryIO, *, name: str, dialects: Iterable[Dialect]) -> tuple[Start, ...]:
    """As `read_starts`, of what is open already. Raises InvalidInputError, and OSError."""
    starts = starts_of(_lines(file, name), dialects=dialects)
    if not starts:
        raise InvalidInputError(
            field="LOGFILE",
            value=name,
            allowed="the start-up log of vLLM, SGLang or llama.cpp with its memory figures; an engine that was given "
            "--kv-cache-memory-bytes prints none: see vrampack calibrate --command",
        )
    return starts


def starts_of(lines: Iterable[str], *, dialects: Iterable[Dialect]) -> tuple[Start, ...]:
    """Those that printed figures, in order. Raises InvalidInputError for more than a thousand."""
    known = tuple(dialects)
    hints = tuple(hint for dialect in known for hint in dialect.hints)
    found: list[Start] = []
    open_: dict[str, Start] = {}
    for raw in lines:
        if not any(hint in raw for hint in hints):
            continue
        line = _ESCAPES.sub("", raw)
        for dialect in known:
            start = open_.get(dialect.engine)
            if start is None or (start.measured and dialect.begins.search(line)):
                former = start or Start(engine=dialect.engine)
                start = Start(engine=dialect.engine, version=former.version, product=former.product)
            if dialect.read(line, start):
                if open_.get(dialect.engine) is not start:
                    open_[dialect.engine] = start
                    found.append(start)
                break
        if len(found) > MAX_STARTS:
            raise InvalidInputError(
                field="LOGFILE", value=len(found), allowed=f"at most {MAX_STARTS} starts in one log"
            )
    return tuple(start for start in found if start.measured)


def figures(start: Start) -> dict[str, int]:
    """Terms of the estimate by name, bytes on the rank that used the most; what was not printed is absent.

    What vLLM calls non-torch belongs to the buffers between ranks where there are several, and to the context where
    there is one. Several GiB in use before it began are another process's: of such a GPU the context is not taken.
    """
    found = {term: start.most(term) for term in ("weights", "activations", "cuda_graphs")}
    others = max((_non_torch(seen) for seen in start.ranks.values()), key=lambda each: each or 0, default=None)
    context = start.most("context")
    if context is not None and context > MOST_CONTEXT:
        context = None
    if (start.tensor or 1) * (start.pipeline or 1) * (start.data or 1) > 1:
        found["communication"] = start.most("communication") if others is None else others
        found["runtime_context"] = context
    elif others is not None and context is not None:
        found["runtime_context"] = context + others
    return {term: value for term, value in found.items() if value is not None}


def _non_torch(seen: Seen) -> int | None:
    if seen.non_torch is not None or seen.consumed is None or seen.weights is None:
        return seen.non_torch
    rest = seen.consumed - seen.weights + GIB // 100  # both were rounded
    return rest if rest >= 0 else None


def gib(text: str) -> int:
    """Bytes that a printed figure stands for, at most: what rounding may have taken is given back. Not below zero."""
    return _bytes(text, GIB)


def mib(text: str) -> int:
    """As `gib`, of a figure in MiB."""
    return _bytes(text, MIB)


def _bytes(text: str, unit: int) -> int:
    digits = max(_PRINTED_DIGITS, len(text.partition(".")[2]))
    value = float(text)
    return math.ceil((value + 0.5 * 10.0**-digits) * unit) if value > 0 else 0


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    """Lines of a binary file, each cut off where it is too long to be one of an engine's."""
    total = 0
    whole = True
    while chunk := file.readline(MAX_LINE):
        total += len(chunk)
        if total > MAX_LOG_BYTES:
            raise InvalidInputError(
                field="LOGFILE", value=name, allowed=f"at most {MAX_LOG_BYTES // MIB} MiB: cut out the start"
            )
        if whole:
            yield chunk.decode("utf-8", "replace")
        whole = chunk.endswith(b"\n")
