"""The map as a terminal shows it."""

import io
import random
import re
from string import ascii_uppercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from vrampack.cli.fleetmap import COMPACT_ABOVE, render_map
from vrampack.cli.fleetview import FleetView, GPURow, NodeRow, Segment, Waiting
from vrampack.units import GIB


def gpu(
    index: int, *claims: tuple[str, float], capacity: float = 44, **fields: float | str | tuple[str, ...]
) -> GPURow:
    sizes = {name: int(value * GIB) for name, value in fields.items() if isinstance(value, int | float)}
    flags = fields.get("flags", ())
    segments = tuple(Segment(model=model, bytes=int(size * GIB)) for model, size in claims)
    taken = sum(segment.bytes for segment in segments) + sum(sizes.values())
    return GPURow(
        uuid=f"GPU-{index}",
        index=index,
        product=str(fields.get("product", "NVIDIA-L40S")),
        capacity=int(capacity * GIB),
        segments=segments,
        foreign=sizes.get("foreign", 0),
        reserve=sizes.get("reserve", 0),
        free=int(capacity * GIB) - taken,
        flags=flags if isinstance(flags, tuple) else (),
    )


FLEET = FleetView(
    nodes=(
        NodeRow(
            name="gpu-1",
            gpus=(
                gpu(0, ("serving/llama-8b", 22), ("serving/phi-4", 11), foreign=5.5),
                gpu(1, ("serving/llama-8b", 0.1), reserve=11),
                gpu(2, flags=("failed (XID 79)",)),
            ),
        ),
        NodeRow(
            name="mixed",
            gpus=(
                gpu(0, ("serving/phi-4", 11), ("serving/phi-4", 11), capacity=22, product="NVIDIA-L4"),
                gpu(1, ("serving/llama-8b", 48), flags=("overcommitted",)),
                GPURow(uuid="GPU-x", index=None, product="", capacity=0, flags=("not in view",)),
            ),
            flags=("agent silent",),
        ),
    ),
    waiting=(
        Waiting(model="serving/llama-70b", replicas=1, reason="InsufficientGPUMemory", gpus=4, bytes=40 * GIB),
        Waiting(model="serving/new", replicas=2, reason="ModelUnresolved"),
    ),
)


def picture(view: FleetView, *, width: int = 80, colour: bool = False) -> list[str]:
    """The lines that a terminal of this width shows."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        no_color=not colour,
        color_system="256" if colour else None,
    )
    console.print(render_map(view, width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_fleet_on_80_columns_without_colour() -> None:
    assert (
        picture(FLEET)
        == """\
                            models   other    free     GiB
gpu-1  3 x NVIDIA-L40S
   0 A█████████B████▒▒▒···    33.0     5.5     5.5    44.0
   1 A░░░░░···············     0.1    11.0    32.9    44.0
   2 ·····················       -       -    44.0    44.0  failed (XID 79)
mixed  1 x NVIDIA-L4 + 1 x NVIDIA-L40S  agent silent
   0 B██████████B█████████    22.0       -     0.0    22.0  L4
   1 A████████████████████    48.0       -    -4.0    44.0  overcommitted, L40S
   ?                             -       -       -       -  not in view

 A  serving/llama-8b  70.1 on  3 GPUs   B  serving/phi-4     33.0 on  2 GPUs
▒▒ foreign   ░░ reserved   ·· free
2 nodes, 6 GPUs, 198.0 GiB · models 103.1 (52%) · foreign 5.5 · reserved 11.0
free 82.4
waiting: 1 of serving/llama-70b, 4 x 40.0 GiB each: InsufficientGPUMemory
waiting: 2 of serving/new: ModelUnresolved
""".splitlines()
    )


def test_colour_says_nothing_that_is_not_written() -> None:
    coloured = "\n".join(picture(FLEET, colour=True))
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines() == picture(FLEET)


def test_a_wide_terminal_gets_longer_bars_and_no_more_lines() -> None:
    narrow, wide = picture(FLEET, width=80), picture(FLEET, width=160)
    assert len(narrow) == len(wide) + 1  # the sums take two lines on 80 columns
    assert wide[2].count("█") > 3 * narrow[2].count("█")
    assert [line.split()[-4:] for line in wide[2:4]] == [line.split()[-4:] for line in narrow[2:4]]


def colours(view: FleetView) -> dict[str, set[str]]:
    """Model to the colours of its bars: each model by the letter that begins a share of it."""
    models = sorted({segment.model for node in view.nodes for gpu in node.gpus for segment in gpu.segments})
    lines = "\n".join(picture(view, colour=True))
    return {
        model: set(re.findall(rf"\x1b\[1;30;48;5;(\d+)m{letter}\x1b\[0m\x1b\[38;5;\1m█", lines))
        for model, letter in zip(models, ascii_uppercase, strict=False)
    }


def test_a_model_has_one_colour_of_its_own_that_others_do_not_change() -> None:
    models = [f"serving/model-{number}" for number in range(12)]
    view = FleetView(nodes=tuple(NodeRow(name=name, gpus=tuple(gpu(0, (m, 30)) for m in models)) for name in "ab"))
    found = colours(view)
    assert all(len(each) == 1 for each in found.values())
    assert len(set.union(*found.values())) == len(models)
    alone = FleetView(nodes=(NodeRow(name="a", gpus=(gpu(0, (models[0], 30)),)),))
    assert colours(alone)[models[0]] == found[models[0]]


def test_hundreds_of_nodes_take_a_line_each_and_idle_ones_one_for_all() -> None:
    busy = [NodeRow(name=f"busy-{n}", gpus=tuple(gpu(i, ("ns/m", 5.5 * i)) for i in range(8))) for n in range(150)]
    idle = [NodeRow(name=f"idle-{n}", gpus=tuple(gpu(i, reserve=1) for i in range(8))) for n in range(150)]
    lost = NodeRow(name="lost", gpus=(gpu(0), gpu(1, flags=("cordoned",))), flags=("agent silent",))
    lines = picture(FleetView(nodes=(*busy, *idle, lost)))
    assert lines[0].split() == ["node", "GPUs", "models", "other", "free", "GiB"]
    assert lines[1].split() == ["busy-0", "·▁▂▃▄▅▆▇", "A███████████···············", "154.0", "-", "198.0", "352.0"]
    assert sum(line.startswith("busy-") for line in lines) == 150
    assert "lost     ! ·!" in "\n".join(lines)
    assert "150 nodes without a replica: 1200 GPUs, 51600.0 GiB free" in lines
    assert "! lost: agent silent; GPU 1 cordoned" in lines


def test_more_models_than_letters() -> None:
    models = [f"ns/m-{number:03}" for number in range(80)]
    gpus = tuple(gpu(number, (model, 1 + number / 8)) for number, model in enumerate(models))
    lines = picture(FleetView(nodes=(NodeRow(name="n", gpus=gpus),)))
    assert " ?  28 more models with 75.2 GiB" in lines
    assert "ns/m-028" in "\n".join(lines)
    assert "ns/m-027" not in "\n".join(lines)


def test_an_empty_fleet() -> None:
    assert picture(FleetView(nodes=()))[-1].startswith("0 nodes, 0 GPUs, 0.0 GiB")
    assert picture(FleetView(nodes=(NodeRow(name="bare", gpus=()),)))[1] == "bare  no GPU in view"


@settings(max_examples=60, deadline=None)
@given(draw=st.randoms(use_true_random=True), width=st.sampled_from([72, 80, 100, 160, 240]))
def test_no_line_is_wider_than_the_terminal(draw: random.Random, width: int) -> None:
    nodes = tuple(
        NodeRow(
            name="n" * draw.randint(1, 60),
            gpus=tuple(
                gpu(
                    index,
                    *((f"ns/{'m' * draw.randint(1, 90)}", draw.uniform(0, 20)) for _ in range(draw.randint(0, 12))),
                    capacity=draw.choice([22, 44, 180]),
                    foreign=draw.choice([0.0, 2.0]),
                    product=draw.choice(["NVIDIA-L4", "NVIDIA-H100-80GB-HBM3"]),
                    flags=draw.choice([(), (), ("cordoned",), ("failed (XID 79)", "cordoned", "overcommitted")]),
                )
                for index in range(draw.randint(0, 8))
            ),
            flags=draw.choice([(), ("agent silent",)]),
        )
        for _ in range(draw.choice([1, 3, 40]))
    )
    lines = picture(FleetView(nodes=nodes, waiting=FLEET.waiting * 20), width=width)
    assert max(map(len, lines)) <= width
    if sum(len(node.gpus) for node in nodes) <= COMPACT_ABOVE:
        bars = [line for line in lines if re.match(r" {3,4}\d ", line)]
        assert len(bars) == sum(len(node.gpus) for node in nodes)
        assert len({len(re.split(r" {2,}", line[5:])[0]) for line in bars}) <= 1


@pytest.mark.parametrize("sizes", [[44.0], [43.9, 0.05], [0.01] * 6, [7.3, 7.3, 7.4], [1.0] * 40])
def test_every_share_that_there_is_room_for_shows_its_letter(sizes: list[float]) -> None:
    line = picture(FleetView(nodes=(NodeRow(name="n", gpus=(gpu(0, *(("ns/m", size) for size in sizes)),)),)))[2]
    bar = line[5:].split(" ")[0]
    assert len(bar) == 42
    assert bar.count("A") == min(len(sizes), 42)
