"""Which published configurations are read: exactly, with something taken for granted, or not at all, and why.

    python -m benchmarks.config_coverage --configs DIR [--configs DIR ...] [-o json]

Every ``*.json`` of a folder is taken for a config.json; a member ``_hf_quant_config`` stands for the file of that name
beside it. A file that is refused is listed with the field that was missing or not understood.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention
from vrampack.models.config import architecture_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What became of one file."""

    name: str
    family: str
    result: str
    """exact, assumed or refused."""
    layers: str
    """How many layers of which kind."""
    because: str
    """The assumption, or the field and what is wrong with it."""


def read(path: Path) -> Reading:
    """One file, whatever it holds."""
    config = json.loads(path.read_text())
    if not isinstance(config, dict):
        return Reading(name=path.stem, family="", result="refused", layers="", because="the file holds no object")
    family = str(config.get("model_type", ""))
    try:
        architecture = architecture_of(config, quant_config=config.get("_hf_quant_config"))
    except UnsupportedModelError as error:
        return Reading(name=path.stem, family=family, result="refused", layers="", because=str(error))
    except InvalidInputError as error:
        return Reading(name=path.stem, family=family, result="refused", layers="", because=str(error))
    return Reading(
        name=path.stem,
        family=architecture.model_type,
        result="assumed" if architecture.assumptions else "exact",
        layers=_layers(architecture),
        because="; ".join(architecture.assumptions),
    )


def readings(folders: list[Path]) -> Iterator[Reading]:
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            yield read(path)


def _layers(architecture: Architecture) -> str:
    counted: Counter[str] = Counter()
    for run in architecture.layer_runs:
        counted[" and ".join(_word(mixer) for mixer in run.mixers) or "feed-forward"] += run.count
    return ", ".join(f"{count} {word}" for word, count in counted.items())


def _word(mixer: Mixer) -> str:
    match mixer:
        case PagedAttention():
            return f"{mixer.span.value}{f' {mixer.window}' if mixer.window else ''}"
        case LatentAttention():
            return "latent"
        case _:
            return mixer.kind.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, action="append", required=True, help="folder of config.json files")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    given = parser.parse_args()
    found = list(readings(given.configs))
    totals = Counter(reading.result for reading in found)
    if given.output == "json":
        print(json.dumps({"files": [asdict(reading) for reading in found], "totals": totals}, indent=1))
        return
    for reading in found:
        print(f"{reading.result:8} {reading.name[:60]:60} {reading.family[:24]:24} {reading.because or reading.layers}")
    print(f"{len(found)} files: " + ", ".join(f"{totals[word]} {word}" for word in ("exact", "assumed", "refused")))


if __name__ == "__main__":
    main()
