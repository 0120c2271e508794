"""The fleet as a picture in the terminal: a bar for each GPU, a colour and a letter for each model.

Nothing is said by colour alone: a replica begins with the letter of its model, and what is free, foreign or reserved
has a pattern of its own.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from vrampack.cli.fleetview import FleetView, GPURow, NodeRow, Segment, Totals
from vrampack.units import GIB, counted

COMPACT_ABOVE: Final = 100
"""GPUs; a larger fleet is drawn with one line for each node."""

_LETTERS: Final = ascii_uppercase + ascii_lowercase
_UNNAMED: Final = "?"
_LINES: Final = 12  # of problems, and of what waits
_PALETTE: Final = (39, 208, 41, 177, 220, 37, 203, 105, 149, 173, 51, 211)
"""Of the 256 colours those that read on black and on white and are told apart side by side."""

_MODEL, _FOREIGN, _RESERVED, _FREE = "█", "▒", "░", "·"
_GAUGE: Final = "·▁▂▃▄▅▆▇█"
_COLUMNS: Final = ("models", "other", "free", "GiB")
_FIGURE: Final = 8
_WARNING: Final = "bold red"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sign:
    """How a model is drawn, the bytes that it holds and on how many GPUs."""

    letter: str
    colour: str
    bytes: int
    gpus: int


def render_map(view: FleetView, *, width: int) -> RenderableType:
    """The picture, ``width`` columns wide. Figures are GiB; ``other`` is foreign use and what is reserved."""
    signs = _signs(view)
    lines = _compact(view, signs, width) if view.totals.gpus > COMPACT_ABOVE else _detailed(view, signs, width)
    return Group(
        *lines,
        Text(""),
        *_legend(signs, width),
        *_wrapped(_sums(view), width, gap=" · "),
        *_waiting(view, width),
    )


def _signs(view: FleetView) -> Mapping[str, _Sign]:
    """A colour for each model that depends on its name, moved on only where another model has it already.

    Where there are more models than letters, those with the most bytes get one.
    """
    held = Counter[str]()
    gpus = Counter[str]()
    for gpu in (gpu for node in view.nodes for gpu in node.gpus):
        gpus.update({segment.model for segment in gpu.segments})
        for segment in gpu.segments:
            held[segment.model] += segment.bytes
    letters = iter(_LETTERS)
    largest = {model for model, _ in sorted(held.items(), key=lambda entry: (-entry[1], entry[0]))[: len(_LETTERS)]}
    taken = Counter[int]()
    signs = {}
    for model in sorted(held):
        first = zlib.crc32(model.encode()) % len(_PALETTE)
        slots = [(first + step) % len(_PALETTE) for step in range(len(_PALETTE))]
        slot = min(slots, key=lambda slot: taken[slot])
        taken[slot] += 1
        signs[model] = _Sign(
            letter=next(letters) if model in largest else _UNNAMED,
            colour=f"color({_PALETTE[slot]})",
            bytes=held[model],
            gpus=gpus[model],
        )
    return signs


def _detailed(view: FleetView, signs: Mapping[str, _Sign], width: int) -> Iterator[Text]:
    """A heading for each node and a line for each of its GPUs."""
    notes = [_note(node, gpu) for node in view.nodes for gpu in node.gpus]
    note_width = min(max(map(len, notes), default=0), width // 3)
    bar_width = max(8, width - 6 - _FIGURE * len(_COLUMNS) - (note_width + 2 if note_width else 0))
    yield Text(" " * (5 + bar_width) + "".join(name.rjust(_FIGURE) for name in _COLUMNS), style="dim")
    for node in view.nodes:
        yield _heading(node, width)
        for gpu in node.gpus:
            line = Text(f"{'?' if gpu.index is None else gpu.index:>4} ", no_wrap=True)
            line.append_text(_bar(gpu, signs, bar_width))
            line.append_text(_figures(Totals.of([gpu]), free=gpu.free))
            line.append("  ")
            line.append(cut(_note(node, gpu), note_width), style=_WARNING if gpu.flags else "dim")
            line.rstrip()
            yield line


def _note(node: NodeRow, gpu: GPURow) -> str:
    """What stands behind the figures: what is wrong, and the product where the node's heading can't say it."""
    product = gpu.product.removeprefix("NVIDIA-") if len(_products(node)) > 1 else ""
    return ", ".join(filter(None, (*gpu.flags, product)))


def _products(node: NodeRow) -> Mapping[str, int]:
    return Counter(gpu.product for gpu in node.gpus if gpu.product)


def _heading(node: NodeRow, width: int) -> Text:
    products = " + ".join(f"{count} x {product}" for product, count in _products(node).items())
    flags = ", ".join(node.flags)
    room = width - len(flags) - 4
    line = Text(no_wrap=True)
    line.append(cut(node.name, room), style="bold")
    line.append("  " + cut(products or "no GPU in view", max(room - len(node.name), 0)), style="dim")
    line.append(f"  {flags}" if flags else "", style=_WARNING)
    line.rstrip()
    return line


def _compact(view: FleetView, signs: Mapping[str, _Sign], width: int) -> Iterator[Text]:
    """One line for each node: how full each GPU is, and one bar for all of them. Idle nodes are only counted."""
    idle = [node for node in view.nodes if _is_idle(node)]
    shown = [node for node in view.nodes if not _is_idle(node)]
    name_width = min(max((len(node.name) for node in shown), default=4), width // 4)
    gauge_width = max((len(node.gpus) for node in shown), default=4)
    bar_width = max(8, width - name_width - gauge_width - _FIGURE * len(_COLUMNS) - 5)
    heading = f"{'node':<{name_width + 3}}{'GPUs':<{gauge_width + 2}}{'':<{bar_width}}"
    yield Text(heading + "".join(name.rjust(_FIGURE) for name in _COLUMNS), style="dim")
    for node in shown:
        totals = Totals.of(node.gpus)
        line = Text(no_wrap=True)
        line.append(f"{cut(node.name, name_width):<{name_width}} {'!' if node.flags else ' '} ", style="bold")
        for gpu in node.gpus:
            line.append("!" if gpu.flags else _gauge(gpu), style=_WARNING if gpu.flags else "")
        line.append(" " * (gauge_width - len(node.gpus) + 2))
        line.append_text(_bar(_merged(node), signs, bar_width))
        line.append_text(_figures(totals, free=totals.free))
        yield line
    if idle:
        totals = Totals.of(gpu for node in idle for gpu in node.gpus)
        nodes, gpus = counted(len(idle), "node"), counted(totals.gpus, "GPU")
        text = f"{nodes} without a replica: {gpus}, {_gib(totals.free)} GiB free"
        yield Text(cut(text, width), style="dim")
    problems = [
        f"{node.name}: {'; '.join([*node.flags, *_gpu_flags(node)])}"
        for node in shown
        if node.flags or any(_gpu_flags(node))
    ]
    yield from (Text(cut(f"! {problem}", width), style=_WARNING) for problem in problems[:_LINES])
    if len(problems) > _LINES:
        yield Text(f"! and {len(problems) - _LINES} more nodes", style=_WARNING)


def _is_idle(node: NodeRow) -> bool:
    return not node.flags and not any(gpu.segments or gpu.flags for gpu in node.gpus)


def _gpu_flags(node: NodeRow) -> list[str]:
    """What is wrong with its GPUs, each thing once."""
    flags: dict[str, list[str]] = {}
    for gpu in node.gpus:
        for flag in gpu.flags:
            flags.setdefault(flag, []).append("?" if gpu.index is None else str(gpu.index))
    return [f"GPU {', '.join(indexes)} {flag}" for flag, indexes in flags.items()]


def _gauge(gpu: GPURow) -> str:
    """One cell: how much of what is not reserved is taken, in eighths."""
    capacity = gpu.capacity - gpu.reserve
    taken = capacity - max(gpu.free, 0)
    return _GAUGE[-(-taken * (len(_GAUGE) - 1) // capacity)] if capacity > 0 else _UNNAMED


def _merged(node: NodeRow) -> GPURow:
    """All GPUs of a node as one, and all replicas of a model."""
    totals = Totals.of(node.gpus)
    held = Counter[str]()
    for segment in (segment for gpu in node.gpus for segment in gpu.segments):
        held[segment.model] += segment.bytes
    return GPURow(
        uuid="",
        index=None,
        product="",
        capacity=totals.capacity,
        segments=tuple(Segment(model=model, bytes=held[model]) for model in sorted(held)),
        foreign=totals.foreign,
        reserve=totals.reserve,
        free=totals.free,
    )


def _bar(gpu: GPURow, signs: Mapping[str, _Sign], width: int) -> Text:
    """The GPU's memory from left to right: replicas, foreign use, what is reserved, what is free."""
    if not gpu.capacity:
        return Text(" " * width)
    parts = [(segment.bytes, signs[segment.model]) for segment in gpu.segments]
    fills = [(gpu.foreign, _FOREIGN, "red"), (gpu.reserve, _RESERVED, "bright_black"), (gpu.free, _FREE, "dim")]
    cells = cells_of([size for size, _ in parts] + [size for size, *_ in fills], width)
    bar = Text()
    for (_, sign), count in zip(parts, cells, strict=False):
        letter = sign.letter[:count]
        bar.append(letter, style=f"bold black on {sign.colour}")
        bar.append(_MODEL * (count - len(letter)), style=sign.colour)
    for (_, fill, style), count in zip(fills, cells[len(parts) :], strict=True):
        bar.append(fill * count, style=style)
    return bar


def cells_of(sizes: Sequence[int], width: int) -> list[int]:
    """``width`` cells shared out in proportion; what is there has at least one, as long as there are enough."""
    sizes = [max(size, 0) for size in sizes]
    total = sum(sizes) or 1
    cells = [max(size * width // total, 1) if size else 0 for size in sizes]
    while sum(cells) < width and any(sizes):
        cells[max(range(len(sizes)), key=lambda i: sizes[i] * width - cells[i] * total)] += 1
    while sum(cells) > width:
        cells[max(range(len(sizes)), key=lambda i: (cells[i], -i))] -= 1
    return cells


def _figures(totals: Totals, *, free: int) -> Text:
    figures = Text()
    for value in (totals.models, totals.foreign + totals.reserve):
        figures.append((_gib(value) if value else "-").rjust(_FIGURE))
    figures.append((_gib(free) if totals.capacity else "-").rjust(_FIGURE), style=_WARNING if free < 0 else "bold")
    figures.append((_gib(totals.capacity) if totals.capacity else "-").rjust(_FIGURE))
    return figures


def _gib(value: int) -> str:
    return f"{value / GIB:.1f}"


def _legend(signs: Mapping[str, _Sign], width: int) -> Iterator[Text]:
    """Each model with its GiB, in columns, and what the patterns mean."""
    named = {cut(model, width - 28): sign for model, sign in signs.items() if sign.letter != _UNNAMED}
    columns = [max((len(text) for text in texts), default=0) for texts in (named, map(_held, named.values()))]
    entries = []
    for model, sign in named.items():
        entry = Text()
        entry.append(f" {sign.letter} ", style=f"bold black on {sign.colour}")
        entry.append(f" {model:<{columns[0]}}")
        entry.append(f"  {_held(sign):>{columns[1]}}", style="dim")
        entries.append(entry)
    yield from _wrapped(entries, width, gap="  ")
    others = [sign for sign in signs.values() if sign.letter == _UNNAMED]
    if others:
        total = sum(sign.bytes for sign in others)
        yield Text(f" {_UNNAMED}  {len(others)} more models with {_gib(total)} GiB", style="dim")
    patterns = ((_FOREIGN, "foreign", "red"), (_RESERVED, "reserved", "bright_black"), (_FREE, "free", "dim"))
    yield from _wrapped([Text(f"{fill * 2} {name}", style=style) for fill, name, style in patterns], width, gap="   ")


def _held(sign: _Sign) -> str:
    return f"{_gib(sign.bytes)} on {sign.gpus:>2} GPU{'s' if sign.gpus > 1 else ' '}"


def _sums(view: FleetView) -> Iterator[Text]:
    totals = view.totals
    share = f" ({totals.models / totals.capacity:.0%})" if totals.capacity else ""
    yield Text(
        f"{counted(len(view.nodes), 'node')}, {counted(totals.gpus, 'GPU')}, {_gib(totals.capacity)} GiB", style="bold"
    )
    yield Text(f"models {_gib(totals.models)}{share}")
    yield Text(f"foreign {_gib(totals.foreign)}")
    yield Text(f"reserved {_gib(totals.reserve)}")
    yield Text(f"free {_gib(totals.free)}", style="bold")


def _waiting(view: FleetView, width: int) -> Iterator[Text]:
    """What has no GPU, a line for each model and reason; of many only the first."""
    for waiting in view.waiting[:_LINES]:
        need = f", {waiting.gpus or 1} x {_gib(waiting.bytes)} GiB each" if waiting.bytes is not None else ""
        text = f"waiting: {waiting.replicas} of {waiting.model}{need}: {waiting.reason}"
        yield Text(cut(text, width), style="yellow")
    if len(view.waiting) > _LINES:
        replicas = sum(waiting.replicas for waiting in view.waiting[_LINES:])
        yield Text(f"waiting: {replicas} more", style="yellow")


def _wrapped(pieces: Iterable[Text], width: int, *, gap: str) -> Iterator[Text]:
    """``pieces`` side by side, on as many lines as they need."""
    line = Text(no_wrap=True)
    for piece in pieces:
        if line.cell_len and line.cell_len + len(gap) + piece.cell_len > width:
            yield line
            line = Text(no_wrap=True)
        if line.cell_len:
            line.append(gap)
        line.append_text(piece)
    if line.cell_len:
        yield line


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"
