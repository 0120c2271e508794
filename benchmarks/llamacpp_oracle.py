"""Our rules for llama.cpp against what llama.cpp itself prints, for every architecture whose cache differs.

    python -m benchmarks.llamacpp_oracle
    python -m benchmarks.llamacpp_oracle --models Gemma -o json

An extra outside the tests: the first run builds the source package of llama-cpp-python from PyPI for the CPU into a
cache folder (--cache), which takes minutes and a C++ compiler. Models are metadata of the real shapes
(``llamacpp_models``), written as GGUF files and read by our own reader; no weight exists. Each is made into contexts
of several lengths, slots and cache types. A buffer is exact when its cells are equal and keys and values are equal to
the printed hundredth of a MiB; of the compute buffer, which is modelled from above, the ratio is shown.
"""

import argparse
import importlib.util
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.llamacpp_models import Value, models
from vrampack.errors import UnsupportedModelError, VrampackError
from vrampack.memory.architecture import Architecture
from vrampack.memory.ggml import GGML_TYPES
from vrampack.memory.llamacpp import CacheBuffer, LlamaContext, cache_buffers
from vrampack.memory.llamacppcompute import compute_bytes
from vrampack.models.gguf import GgufHeader, GgufTensor, read_header
from vrampack.models.ggufarchitecture import gguf_architecture
from vrampack.units import MIB

PACKAGE: Final = "llama-cpp-python==0.3.36"
_BUILD: Final = "-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF"
_CACHE: Final = Path.home() / ".cache" / "vrampack" / "llamacpp-oracle"
_WORKER: Final = Path(__file__).with_name("llamacpp_worker.py")
_SIZE: Final = re.compile(
    r"size = +([\d.]+) MiB \( *(\d+) cells.*?[KR] \(\w+\): +([\d.]+) MiB, [VS] \(\w+\): +([\d.]+) MiB"
)
_SUMS: Final = re.compile(r"ratio = \d+, state = (\d+) x .*size = +([\d.]+) MiB")
_COMPUTE: Final = re.compile(r"compute buffer size = +([\d.]+) MiB")
_SUM_NAMES: Final = ("sums 4", "sums 128", "index sums 4")
_UNGATED: Final = frozenset(("gpt2", "starcoder2", "falcon", "nemotron_h", "rwkv6", "rwkv7"))

CONTEXTS: Final = (
    LlamaContext(tokens=8192),
    LlamaContext(tokens=32768, sequences=8),
    LlamaContext(tokens=8192, sequences=4, unified=False),
    LlamaContext(tokens=5000, sequences=3, unified=False, micro_batch=384),
    LlamaContext(tokens=100_000, sequences=16, micro_batch=2048),
    LlamaContext(tokens=16384, sequences=2, full_windows=True),
    LlamaContext(tokens=8192, sequences=2, flash_attention=False),
    LlamaContext(tokens=300, sequences=1, micro_batch=512),
    *(
        LlamaContext(tokens=12288, sequences=4, key_type=kind, value_type=kind)
        for kind in ("bf16", "f32", "q8_0", "q4_0", "q5_1", "iq4_nl")
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One context of one model. Without ``problem`` the figures are comparable."""

    model: str
    context: LlamaContext
    ours: tuple[tuple[int, float, float], ...] = ()
    """Cells, MiB of keys and MiB of values of each buffer."""
    theirs: tuple[tuple[int, float, float], ...] = ()
    compute_ours: float = 0.0
    compute_theirs: float = 0.0
    problem: str = ""

    @property
    def exact(self) -> bool:
        return len(self.ours) == len(self.theirs) and all(
            mine[0] == printed[0] and all(abs(mine[part] - printed[part]) <= 0.0051 for part in (1, 2))
            for mine, printed in zip(sorted(self.ours), sorted(self.theirs), strict=True)
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=_CACHE, help="folder of the built package")
    parser.add_argument("--models", default="", help="only models with this in their name")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    build(arguments.cache)
    chosen = {name: metadata for name, metadata in models().items() if arguments.models in name}
    rows = [row for name, metadata in chosen.items() for row in compare(name, metadata, cache=arguments.cache)]
    print(json.dumps(summary(rows), indent=2) if arguments.output == "json" else text(rows))
    return 0 if rows and all(row.exact for row in rows if not row.problem) else 1


def build(cache: Path) -> None:
    """The package in ``cache``, built once."""
    if (cache / "llama_cpp").is_dir():
        return
    if importlib.util.find_spec("pip") is None:
        raise SystemExit(f"{sys.executable} has no pip to build {PACKAGE} with: python -m ensurepip")
    print(f"building {PACKAGE} into {cache}; this takes minutes", file=sys.stderr)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--target",
        str(cache),
        "--no-binary",
        "llama-cpp-python",
        PACKAGE,
    ]
    subprocess.run(
        command, check=True, env={**os.environ, "CMAKE_ARGS": f"{_BUILD} {os.environ.get('CMAKE_ARGS', '')}"}
    )


def compare(name: str, metadata: Mapping[str, Value], *, cache: Path) -> Iterator[Row]:
    """One row per context."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        file.write_bytes(gguf(metadata))
        header = read_header(
            lambda start, length: file.read_bytes()[start:][:length], file=name, file_bytes=file.stat().st_size
        )
        answers = list(ask(file, cache=cache))
    architecture = gguf_architecture(with_tensors(header), file=name)
    for context, answer in zip(CONTEXTS, answers, strict=True):
        yield row_of(name, architecture, context, answer)


def ask(file: Path, *, cache: Path) -> Iterator[dict[str, Any]]:
    """What llama.cpp answers, context by context. One that makes it abort takes only itself along."""
    environment = {**os.environ, "PYTHONPATH": str(cache), "GGML_NO_BACKTRACE": "1"}
    waiting = list(CONTEXTS)
    while waiting:
        wanted = json.dumps({"file": str(file), "contexts": [parameters(context) for context in waiting]})
        done = subprocess.run(
            [sys.executable, str(_WORKER)], input=wanted, capture_output=True, text=True, env=environment, check=False
        )
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        yield from answers
        waiting = waiting[len(answers) :]
        if waiting:
            yield {"made": False, "log": done.stderr.splitlines()[-3:]}
            waiting = waiting[1:]


def parameters(context: LlamaContext) -> dict[str, int | bool]:
    """``llama_context_params`` of a context."""
    return {
        "n_ctx": context.tokens,
        "n_batch": context.micro_batch,
        "n_ubatch": context.micro_batch,
        "n_seq_max": context.sequences,
        "kv_unified": context.unified,
        "swa_full": context.full_windows,
        "type_k": GGML_TYPES[context.key_type].number,
        "type_v": GGML_TYPES[context.value_type].number,
        "flash_attn_type": int(context.flash_attention),
    }


def row_of(name: str, architecture: Architecture, context: LlamaContext, answer: Mapping[str, Any]) -> Row:
    log = "\n".join(answer["log"])
    try:
        buffers = cache_buffers(architecture, context)
    except VrampackError as refusal:
        agreed = "" if answer["made"] else "both refuse: "
        return Row(model=name, context=context, problem=f"{agreed}{refusal}")
    if not answer["made"]:
        return Row(model=name, context=context, problem=f"llama.cpp refuses: {_reason(log)}")
    printed = [(int(found[2]), float(found[3]), float(found[4])) for found in _SIZE.finditer(log) if float(found[1])]
    printed += [(int(rows), float(size), 0.0) for rows, size in _SUMS.findall(log)]
    return Row(
        model=name,
        context=context,
        ours=tuple(map(_figures, buffers)),
        theirs=tuple(printed),
        compute_ours=_compute(architecture, context),
        compute_theirs=max((float(size) for size in _COMPUTE.findall(log)), default=0.0),
    )


def _compute(architecture: Architecture, context: LlamaContext) -> float:
    """MiB; 0 where the compute buffer of this architecture is not modelled."""
    try:
        return compute_bytes(architecture, context) / MIB
    except UnsupportedModelError:
        return 0.0


def _figures(buffer: CacheBuffer) -> tuple[int, float, float]:
    """Cells, keys and values; of the running sums of DeepSeek V4 llama.cpp prints one figure for both."""
    if buffer.name in _SUM_NAMES:
        return buffer.cells, buffer.bytes / MIB, 0.0
    return buffer.cells, buffer.key_bytes / MIB, buffer.value_bytes / MIB


def _reason(log: str) -> str:
    """The line that says why, without the folder that it was built in."""
    lines = [line for line in log.splitlines() if re.search("error|failed|ASSERT|invalid|not support", line)]
    return re.sub(r"/\S*/", "", lines[-1] if lines else log[-200:])


def with_tensors(header: GgufHeader) -> GgufHeader:
    """A header that names the tensors of gates and experts, as a file with weights does."""
    name = str(header.metadata["general.architecture"])
    dense = header.metadata.get(f"{name}.leading_dense_block_count", 0)
    layers = header.metadata[f"{name}.block_count"]
    assert isinstance(dense, int)
    assert isinstance(layers, int)
    names = [] if name in _UNGATED else ["blk.0.ffn_gate.weight"]
    if header.metadata.get(f"{name}.expert_count"):
        names += [f"blk.{layer}.ffn_up_exps.weight" for layer in range(dense, layers)]
    tensor = GgufTensor(type=GGML_TYPES["f32"], shape=(1,), bytes=4)
    return replace(header, tensors=dict.fromkeys(names, tensor))


def gguf(metadata: Mapping[str, Value]) -> bytes:
    """A GGUF file without a tensor."""
    pairs = b"".join(_text(key) + _value(value) for key, value in metadata.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + pairs


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Value) -> bytes:
    match value:
        case str():
            return struct.pack("<I", 8) + _text(value)
        case list():
            number, code = _kind(value[0])
            return struct.pack(f"<IIQ{len(value)}{code}", 9, number, len(value), *value)
        case _:
            number, code = _kind(value)
            return struct.pack(f"<I{code}", number, value)


def _kind(value: bool | int | float) -> tuple[int, str]:
    if isinstance(value, bool):
        return 7, "?"
    return (4, "I") if isinstance(value, int) else (6, "f")


def summary(rows: list[Row]) -> dict[str, Any]:
    """Counts, and every row that is not exact or can't be compared."""
    usable = [row for row in rows if not row.problem]
    ratios = sorted(row.compute_ours / row.compute_theirs for row in usable if row.compute_theirs and row.compute_ours)
    return {
        "models": len({row.model for row in rows}),
        "rows": len(rows),
        "exact": sum(row.exact for row in usable),
        "different": [
            {"model": row.model, "context": str(row.context), "ours": row.ours, "theirs": row.theirs}
            for row in usable
            if not row.exact
        ],
        "unusable": [
            {"model": row.model, "context": str(row.context), "reason": row.problem} for row in rows if row.problem
        ],
        "compute_ratio": {
            "rows": len(ratios),
            "least": round(ratios[0], 3),
            "median": round(statistics.median(ratios), 3),
            "most": round(ratios[-1], 3),
        }
        if ratios
        else {},
    }


def text(rows: list[Row]) -> str:
    """For people: a line per model, then what differs."""
    lines = [f"{'model':26} {'exact':>8}  compute buffer, ours over theirs"]
    for name in dict.fromkeys(row.model for row in rows):
        usable = [row for row in rows if row.model == name and not row.problem]
        ratios = [row.compute_ours / row.compute_theirs for row in usable if row.compute_theirs and row.compute_ours]
        shown = f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "none printed"
        lines.append(f"{name:26} {sum(row.exact for row in usable):>3}/{len(usable):<3}   {shown}")
    whole = summary(rows)
    lines += [f"different: {each}" for each in whole["different"]]
    lines += [f"unusable: {each}" for each in whole["unusable"]]
    lines.append(
        f"{whole['exact']} of {whole['rows'] - len(whole['unusable'])} contexts exact; compute {whole['compute_ratio']}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
