"""An estimate in the terminal: the terms as a table, and a bar for each GPU.

Nothing is said by colour alone: every term has a letter, and what is free or missing has a pattern of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vrampack.cli.estimateview import CardView, EstimateView
from vrampack.cli.fleetmap import cells_of, cut
from vrampack.memory.architecture import WeightsMethod
from vrampack.memory.inverse import Limit, Reach
from vrampack.units import counted, each_of, human_bytes

_COLOURS: Final = (39, 208, 41, 177, 220, 37, 105, 149, 203)
"""As on the map: of the 256 colours those that read on black and on white."""
_NAMES: Final[Mapping[str, str]] = {"kv_cache": "KV cache", "cuda_graphs": "CUDA graphs"}
_LETTERS: Final[Mapping[str, str]] = {"cuda_graphs": "G", "allowance": "±"}
"""Where the first letter is another term's."""
_EXPLAINED: Final[Mapping[str, str]] = {
    "kv_cache": "whole blocks for every resident sequence",
    "activations": "peak of one step",
    "cuda_graphs": "captured graphs",
    "communication": "buffers between the GPUs of a replica",
    "runtime_context": "CUDA context and libraries, outside the engine's budget",
    "allowance": "how far graphs and libraries, which are fitted, may be off",
    "headroom": "kept free on top",
}
_WEIGHTS: Final[Mapping[WeightsMethod, str]] = {
    WeightsMethod.TENSORS: "what the weight files hold, as the engine keeps it",
    WeightsMethod.FILE_SIZES: "as large as the weight files",
    WeightsMethod.SHAPES: "the tensors that config.json implies",
    WeightsMethod.PARAMETERS: "about what config.json implies",
}
_MODEL, _FREE, _MISSING = "█", "·", "▒"
_BAR: Final = 24
_SHORTEST_BAR: Final = 8
_CARD_HEADS: Final = ("GPU", "usable", "", "sequences", "context")
_BAD: Final = "bold red"
_GOOD: Final = "bold green"


def render_estimates(views: Sequence[EstimateView], *, width: int) -> RenderableType:
    """All of them, below each other, ``width`` columns wide."""
    lines: list[RenderableType] = []
    for view in views:
        if lines:
            lines.append(Text(""))
        lines += [
            *_heading(view, width),
            Text(""),
            _terms(view),
            *_printed(view),
            Text(""),
            _cards(view, width),
            *_suggestions(view),
        ]
    return Group(*lines)


def _heading(view: EstimateView, width: int) -> Iterator[Text]:
    title = view.model if view.name == view.model else f"{view.name}  {view.model}"
    yield Text(cut(title, width), style="bold")
    facts = [view.model_type]
    if view.parameters:
        facts.append(f"{view.parameters / 1e9:.2f}B parameters")
    facts += [f"weights {view.precision}" if view.precision else "", f"KV cache {view.kv_cache_precision}"]
    yield Text(cut(", ".join(filter(None, facts)), width), style="dim") if view.terms else Text("custom engine")
    load = f"context {view.context_length}, {counted(view.concurrency, 'sequence')}"
    if view.tokens_per_sequence != view.context_length:
        load += f" of {view.tokens_per_sequence} tokens"
    yield Text(
        cut(f"{load}, {view.max_batched_tokens} batched tokens, {counted(view.gpus, 'GPU')}", width), style="dim"
    )
    if view.weights_known_by is WeightsMethod.PARAMETERS:
        words = "! the weights are not exact: config.json leaves open what some of their tensors are"
        yield Text(words, style="yellow")
    for note in (*view.assumptions, *view.notes):
        yield Text(f"! {note}", style="yellow")


def _terms(view: EstimateView) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False, pad_edge=False)
    # Where there is little room it is the explanation that is cut, never a figure.
    table.add_column(min_width=3, no_wrap=True)
    table.add_column(min_width=max(len(_name(name)) for name in (*view.terms, "claim")), no_wrap=True)
    table.add_column(justify="right", min_width=9, no_wrap=True)
    table.add_column(justify="right", min_width=4, no_wrap=True)
    table.add_column(style="dim", overflow="ellipsis", no_wrap=True)
    total = sum(view.terms.values()) or 1
    for number, (name, value) in enumerate(view.terms.items()):
        letter = Text(f" {_letter(name)} ", style=f"bold black on color({_COLOURS[number % len(_COLOURS)]})")
        share = f"{100 * value / total:.0f} %"
        table.add_row(letter, _name(name), human_bytes(value), share, _explained(view, name))
    words = each_of(view.gpus, "GPU")
    if view.computed is not None:
        table.add_row("", "sum", human_bytes(view.computed), "", "")
    declared = "declared by memory.perGPU; " if view.method == "Declared" else ""
    table.add_row(
        "", Text("claim", style="bold"), Text(human_bytes(view.claim), style="bold"), "", f"{declared}on {words}"
    )
    return table


def _printed(view: EstimateView) -> Iterator[Text]:
    """What an admin can hold against the engine's own log."""
    if view.kv_why:
        yield Text(f"     KV cache: {view.kv_why}", style="dim")
    if view.kv_tokens:
        blocks = counted(view.kv_blocks or 0, "block")
        words = f"{blocks}, {view.kv_tokens} tokens, maximum concurrency {view.max_concurrency_at_context}x"
        yield Text(f"     the engine prints at start: {words}", style="dim")


def _cards(view: EstimateView, width: int) -> Table:
    """Where there is little room it is the bar that is short or left out, never a figure."""
    rows = [_figures(card) for card in view.cards]
    columns = zip(_CARD_HEADS, zip(*rows, strict=True), strict=True)
    others = sum(max(len(head), *map(len, texts)) + 2 for head, texts in columns)
    bar = min(_BAR, width - others)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    name, usable, verdict, *reaches = _CARD_HEADS
    table.add_column(name, no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column(usable, justify="right", no_wrap=True)
    table.add_column(verdict, no_wrap=True)
    for head in reaches:
        table.add_column(head, justify="right", no_wrap=True)
    for card, (gpu, *figures) in zip(view.cards, rows, strict=True):
        table.add_row(gpu, _bar(view, card, bar) if bar >= _SHORTEST_BAR else "", *figures)
    return table


def _figures(card: CardView) -> list[Text]:
    return [Text(card.gpu), Text(human_bytes(card.usable)), _verdict(card), *map(_reached, _reaches(card))]


def _reaches(card: CardView) -> tuple[Reach | None, Reach | None]:
    return card.largest_concurrency, card.longest_context


def _reached(reach: Reach | None) -> Text:
    """A figure that more memory would not raise is marked."""
    if reach is None or not reach.value:
        return Text("-")
    return Text(f"{reach.value}{'*' if reach.limit is Limit.REFUSED else ''}")


def _verdict(card: CardView) -> Text:
    if not card.allowed:
        return Text("not among gpuProducts", style="dim")
    if card.fits:
        return Text(f"fits, {human_bytes(card.free)} left", style=_GOOD)
    return Text(f"does not fit, {human_bytes(-card.free)} short", style=_BAD)


def _bar(view: EstimateView, card: CardView, width: int) -> Text:
    """The GPU from left to right: the terms, and what is free; or the terms, and what is missing of the last ones."""
    sizes = list(view.terms.values()) if view.terms and view.computed is None else [view.claim]
    claim = sum(sizes)
    cells = cells_of([*sizes, max(0, card.usable - claim)], width)
    bar = Text()
    for number, (name, count) in enumerate(zip(view.terms or ("claim",), cells, strict=False)):
        letter = _letter(name)[:count]
        colour = f"color({_COLOURS[number % len(_COLOURS)]})"
        bar.append(letter, style=f"bold black on {colour}")
        bar.append(_MODEL * (count - len(letter)), style=colour)
    bar.append(_FREE * (width - len(bar)), style="dim")
    if claim > card.usable:
        there = card.usable * width // claim
        bar = bar[:there]
        bar.append(_MISSING * (width - there), style=_BAD)
    return bar


def _suggestions(view: EstimateView) -> Iterator[Text]:
    if any(reach is not None and reach.limit is Limit.REFUSED for card in view.cards for reach in _reaches(card)):
        yield Text("* as far as the model or the engine goes", style="dim")
    for card in view.cards:
        for line in card.would_fit_if:
            yield Text(f"would fit on {card.gpu} if {line}")


def _explained(view: EstimateView, name: str) -> str:
    if name == "weights" and view.weights_known_by is not None:
        return _WEIGHTS[view.weights_known_by]
    return _EXPLAINED.get(name, "")


def _letter(name: str) -> str:
    return _LETTERS.get(name) or _name(name)[:1].upper()


def _name(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))
