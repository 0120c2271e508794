"""Which readings are worth a write: what decides a placement at once, how far memory has moved now and then.

A thousand agents write to one API server. So a changed set of processes, health or modes is written at once; room on
the node, and memory that only moves, at most every few seconds, and memory only when some figure has changed by a
hundredth.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vrampack.agent.reading import ForeignUse, GPUReading, NodeReading

PLAIN_USE_SECONDS: Final = 5.0
_STEP: Final = 0.01


def worth_writing(reading: NodeReading, last: NodeReading | None, seconds: float) -> bool:
    """Whether a reading is to be written ``seconds`` after ``last`` was."""
    if last is None:
        return True
    if _without_figures(reading) != _without_figures(last):
        return True
    if seconds < PLAIN_USE_SECONDS:
        return False
    if _room(reading) != _room(last):
        return True
    pairs = zip(_figures(reading), _figures(last), strict=True)
    return any(abs(now - before) > _STEP * before for now, before in pairs)


def _without_figures(reading: NodeReading) -> NodeReading:
    """All of it but how much memory is used."""
    return replace(
        reading,
        gpus=tuple(
            replace(
                gpu,
                in_use=None,
                processes=tuple(replace(each, bytes=0, peak=0) for each in gpu.processes),
                foreign=tuple(_same_size(each) for each in gpu.foreign),
            )
            for gpu in reading.gpus
        ),
        stuck=tuple(replace(each, bytes=0) for each in reading.stuck),
        cpu=0,
        memory=0,
        pods=0,
    )


def _room(reading: NodeReading) -> tuple[int, int, int]:
    return reading.cpu, reading.memory, reading.pods


def _same_size(use: ForeignUse) -> ForeignUse:
    return replace(use, bytes=0)


def _figures(reading: NodeReading) -> Iterator[int]:
    for gpu in reading.gpus:
        yield gpu.used
        yield from _of_gpu(gpu)


def _of_gpu(gpu: GPUReading) -> Iterator[int]:
    yield from (each.bytes for each in gpu.processes)
    yield from (each.peak for each in gpu.processes)
    yield from (each.bytes for each in gpu.foreign)
