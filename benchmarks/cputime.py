"""CPU time of processes and their children: it compares two phases of a run on a machine that has other work too."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """Seconds of user and system time so far, by name of the process."""

    seconds: Mapping[str, float]

    @classmethod
    def of(cls, pids: Mapping[str, int]) -> Self:
        """``pids``: of processes that run. Their children count with them, those that ended and those that are not
        named themselves."""
        return cls(seconds={name: _seconds(pid, apart=frozenset(pids.values())) for name, pid in pids.items()})

    def since(self, before: Self) -> dict[str, float]:
        """What each has used since ``before``, where all of them were there, and in ``total`` all together."""
        used = {name: now - before.seconds[name] for name, now in self.seconds.items()}
        return {name: round(seconds, 2) for name, seconds in {**used, "total": sum(used.values())}.items()}


def _seconds(pid: int, *, apart: Collection[int]) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        words = " ".join(file.read_text(encoding="utf-8") for file in Path(f"/proc/{pid}/task").glob("*/children"))
    except FileNotFoundError:  # it ends just now, and its parent knows what it used
        return 0.0
    # The command's name stands in brackets and may hold anything. utime, stime, cutime and cstime: the last two are of
    # children that ended.
    ticks = sum(int(word) for word in stat.rpartition(")")[2].split()[11:15])
    children = {int(word) for word in words.split()} - set(apart)
    return ticks / _TICKS_A_SECOND + sum(_seconds(child, apart=apart) for child in children)
