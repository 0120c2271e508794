"""Bin-packing instances drawn from the published definitions of classes, for `benchmarks.bpplib` to solve.

    python -m benchmarks.bpplib_drawn --output DIR [--seed N]
    python -m benchmarks.bpplib --instances DIR --bounds DIR/bounds.tsv

They have the published classes' capacity, numbers and ranges of sizes, not the published instances' sizes. Cut bins are
cut into pieces without a rest, so their number is the optimum, and is written to ``bounds.tsv``. Where it is not known,
an instance counts as solved if the packer proves its answer.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

Case = tuple[str, int, list[int], int | None]
"""Class, capacity, sizes, and the optimum where it is known."""


def cases(draw: random.Random) -> Iterator[Case]:
    """All of them."""
    for _ in range(50):
        yield "Schwerin_1", 1000, [draw.randint(150, 200) for _ in range(100)], None
        yield "Schwerin_2", 1000, [draw.randint(150, 200) for _ in range(120)], None
    for _ in range(20):
        yield "Scholl_3", 100_000, [draw.randint(20_000, 35_000) for _ in range(200)], None
    for _ in range(60):
        largest = draw.choice([550, 600, 650, 700, 800])
        yield "Like_Hard28", 1000, [draw.randint(1, largest) for _ in range(draw.choice([160, 180, 200]))], None
    for _ in range(20):
        bins = draw.randint(60, 75)
        yield "Cut_1000", 1000, [s for _ in range(bins) for s in _cut(1000, draw.randint(2, 4), 1, draw)], bins
    for _ in range(20):
        bins = draw.randint(13, 29)
        pieces = draw.choice([3, 4, 5, 6, 8])
        yield "Cut_10000", 10_000, [s for _ in range(bins) for s in _cut(10_000, pieces, 300, draw)], bins


def _cut(size: int, pieces: int, least: int, draw: random.Random) -> list[int]:
    """A bin cut into ``pieces`` of ``least`` or more."""
    while True:
        cuts = sorted(draw.sample(range(1, size), pieces - 1))
        found = [after - before for before, after in zip([0, *cuts], [*cuts, size], strict=True)]
        if min(found) >= least:
            return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    bounds = []
    for number, (kind, capacity, sizes, optimum) in enumerate(cases(random.Random(options.seed))):
        name = f"{kind.lower()}_{number:03}"
        folder = options.output / kind
        folder.mkdir(parents=True, exist_ok=True)
        lines = (len(sizes), capacity, *sorted(sizes, reverse=True))
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        if optimum is not None:
            bounds.append(f"{name}\t{optimum}\t{optimum}\n")
    (options.output / "bounds.tsv").write_text("".join(bounds), encoding="utf-8")


if __name__ == "__main__":
    main()
