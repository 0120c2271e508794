"""Hostile files against the readers: every input is read or refused by name, in bounded time, and nothing else happens.

    python -m benchmarks.fuzz_readers config --seeds DIR --seconds 60
    python -m benchmarks.fuzz_readers safetensors --seconds 60 --with atheris
    python -m benchmarks.fuzz_readers gguf --seeds DIR --seconds 60 --with mutations --random 7

``atheris`` (the extra ``fuzz``) follows the branches that an input takes; ``mutations`` needs nothing and changes seeds
at random, JSON by its values. ``--seeds``: files to begin with, config.json for ``config``, GGUF files for ``gguf``;
beside them there are small ones of our own. A config that is read is estimated too, and a header's tensors become
weights. What comes out as anything but an error of ours is printed with the input's path, and the exit status is 1.

This runs outside CI. What CI runs are the same targets under hypothesis, for seconds (``tests/unit/test_fuzz.py``).
"""

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.fuzz_seeds import CONFIG, changed, seeds_of
from vrampack.errors import VrampackError
from vrampack.memory.architecture import Weights
from vrampack.memory.estimate import estimate
from vrampack.memory.vllm.dtypes import AUTO
from vrampack.memory.workload import Workload
from vrampack.models.config import architecture_of
from vrampack.models.facts import ModelFacts
from vrampack.models.gguf import read_header
from vrampack.models.ggufarchitecture import gguf_architecture
from vrampack.models.ggufweights import gguf_weights
from vrampack.models.profile import profile_manifest
from vrampack.models.quantization import precision_of, quantization_of
from vrampack.models.safetensors import PREFIX_BYTES, header_length, parse_header
from vrampack.models.tensorfacts import weights_of_config
from vrampack.models.weights import matrix_types, weights_of

SLOW_SECONDS: Final = 10.0
"""An input that takes longer is a finding too."""

_FILE_BYTES: Final = 2**30
"""As large as any tensors of a seed need; only the header is there."""


def read_config(content: bytes) -> None:
    """A config.json, to the estimate of what it describes and the profile that would be written of it."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        return
    if not isinstance(config, dict):
        return
    side = config.get("_hf_quant_config")
    architecture = architecture_of(config, quant_config=side if isinstance(side, dict) else None)
    quantization_of(config)
    weights = weights_of_config(config, architecture=architecture)
    profile_manifest(
        ModelFacts(
            source="hf://org/model",
            commit="a" * 40,
            architecture=architecture,
            weights=weights,
            weights_digest="",
            by_dtype={},
            files=(),
        )
    )
    for engine in ("vllm", "sglang", "llamacpp", "tgi"):
        try:
            estimate(architecture=architecture, weights=weights, workload=_workload(engine))
        except VrampackError:
            continue


def read_safetensors(content: bytes) -> None:
    """A header as it lies at the beginning of a file, and the weights that its tensors are."""
    length = header_length(content[:PREFIX_BYTES], file="model.safetensors")
    header = content[PREFIX_BYTES : PREFIX_BYTES + length]
    tensors = parse_header(header, file="model.safetensors", file_bytes=PREFIX_BYTES + length + _data_bytes(header))
    architecture = architecture_of(CONFIG)
    types = matrix_types(tensors)
    precision = precision_of(CONFIG, dtype=architecture.dtype, matrix_types=types)
    weights = weights_of(tensors, architecture=architecture, precision=precision)
    if weights.total:
        estimate(architecture=architecture, weights=weights, workload=_workload("vllm"))


def read_gguf(content: bytes) -> None:
    """A GGUF file's header, and the model that it describes."""

    def fetch(start: int, length: int) -> bytes:
        return content[start : start + length]

    header = read_header(fetch, file="model.gguf", file_bytes=_FILE_BYTES)
    architecture = gguf_architecture(header, file="model.gguf")
    weights: Weights = gguf_weights(header.tensors, architecture=architecture)
    estimate(architecture=architecture, weights=weights, workload=_workload("llamacpp"))


def _data_bytes(header: bytes) -> int:
    """What the header says that follows it, so that not every input is refused for the size of its file."""
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return 0
    return max((end for end in ends if isinstance(end, int)), default=0)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "config": read_config,
    "safetensors": read_safetensors,
    "gguf": read_gguf,
}


def judged(target: Callable[[bytes], None], content: bytes) -> None:
    """Raises whatever is no error of ours, and TimeoutError for an input that takes too long."""
    began = time.monotonic()
    with contextlib.suppress(VrampackError):
        target(content)
    if (took := time.monotonic() - began) > SLOW_SECONDS:
        raise TimeoutError(f"{len(content)} bytes took {took:.1f} s")


def _workload(engine: str) -> Workload:
    return Workload(
        context_length=64,
        concurrency=2,
        tokens_per_sequence=64,
        max_batched_tokens=64,
        kv_cache_precision=AUTO if engine == "vllm" else "fp16",
        engine=engine,
    )


def mutations(target: str, seeds: Sequence[bytes], *, seconds: float, seed: int) -> Iterator[tuple[bytes, str]]:
    """Tries for ``seconds``, and yields each input that is a finding with its traceback. Prints how many it tried."""
    chance, tried, ends = random.Random(seed), 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        content = changed(target, seeds, chance)
        tried += 1
        try:
            judged(TARGETS[target], content)
        except Exception:  # whatever it is, it is a finding
            yield content, traceback.format_exc()
    print(f"{target}: {tried:,} inputs from {len(seeds)} seeds in {seconds:g} s")


def _atheris(target: str, seeds: Sequence[bytes], *, seconds: float, seed: int) -> int:
    """Does not return where it finds something: libFuzzer prints the input and ends the process."""
    try:
        import atheris  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        print("atheris is not installed: pip install 'vrampack[fuzz]', or --with mutations", file=sys.stderr)
        return 2
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(seeds):
            (Path(folder) / f"seed-{number}").write_bytes(content)
        limits = [
            f"-max_total_time={int(seconds)}",
            f"-timeout={int(SLOW_SECONDS)}",
            f"-seed={seed}",
            "-rss_limit_mb=2048",
        ]
        atheris.Setup([sys.argv[0], *limits, "-max_len=65536", folder], lambda data: judged(TARGETS[target], data))
        atheris.Fuzz()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing was found; 1: findings, each printed with its input's path; 2: the question is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=tuple(TARGETS))
    parser.add_argument("--seeds", type=Path, help="folder with files to begin with")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--random", type=int, default=1, help="seed of what is tried")
    parser.add_argument(
        "--keep", type=Path, help="folder for inputs that are findings; left out: that of temporary files"
    )
    parser.add_argument("--with", dest="engine", choices=("atheris", "mutations"), default="mutations")
    asked = parser.parse_args(arguments)
    if asked.seeds is not None and not asked.seeds.is_dir():
        print(f"{asked.seeds} is no folder", file=sys.stderr)
        return 2
    seeds = seeds_of(asked.target, asked.seeds)
    if asked.engine == "atheris":
        return _atheris(asked.target, seeds, seconds=asked.seconds, seed=asked.random)
    found = 0
    for content, trace in mutations(asked.target, seeds, seconds=asked.seconds, seed=asked.random):
        found += 1
        with tempfile.NamedTemporaryFile(
            prefix=f"{asked.target}-", suffix=".finding", dir=asked.keep, delete=False
        ) as file:
            file.write(content)
        print(f"{file.name}\n{trace}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
