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
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

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

_ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 2**31 - 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308),
    *("", "auto", "full_attention", "sliding_attention", "fp8", "\x00", "é" * 200, "9" * 5000),
    *([], {}, [[]], [{}], [0] * 5000, ["x"] * 5000, {"": None}, {"text_config": {}}),
)
_CONFIG: Final[dict[str, Any]] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}


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
    architecture = architecture_of(_CONFIG)
    types = matrix_types(tensors)
    precision = precision_of(_CONFIG, dtype=architecture.dtype, matrix_types=types)
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


# ---- seeds -------------------------------------------------------------------------------------------------------


def seeds_of(target: str, folder: Path | None) -> list[bytes]:
    """Those of our own, and the files of a folder."""
    ending = {"config": "*.json", "gguf": "*.gguf", "safetensors": "*.safetensors"}[target]
    found = [path.read_bytes()[: 2**20] for path in sorted(folder.glob(ending))] if folder is not None else []
    return [*_OWN[target](), *found]


def _own_config() -> list[bytes]:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    latent = {"kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}
    state = {"linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_num_value_heads": 4}
    state |= {"linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "full_attention_interval": 2}
    quantized = {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": {}}}}
    variants: list[dict[str, Any]] = [
        {},
        {"model_type": "gemma3_text", "sliding_window": 512, "sliding_window_pattern": 2},
        {"model_type": "deepseek_v3", **latent, **experts, "n_routed_experts": 8},
        {"model_type": "qwen3_next", **state, **experts},
        {"model_type": "nemotron_h", "hybrid_override_pattern": "M*", "mamba_num_heads": 4, "ssm_state_size": 16},
        {"quantization_config": quantized},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}},
        {"text_config": _CONFIG, "vision_config": {"hidden_size": 32, "image_size": 224, "patch_size": 14}},
    ]
    return [json.dumps({**_CONFIG, **each}).encode() for each in variants]


def _own_safetensors() -> list[bytes]:
    tensors = {
        "__metadata__": {"format": "pt"},
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [1000, 64], "data_offsets": [0, 128000]},
        "model.layers.0.self_attn.q_proj.weight": {
            "dtype": "BF16",
            "shape": [64, 64],
            "data_offsets": [128000, 136192],
        },
        "model.layers.1.mlp.up_proj.weight": {"dtype": "F32", "shape": [128, 64], "data_offsets": [136192, 168960]},
    }
    header = json.dumps(tensors).encode()
    return [struct.pack("<Q", len(header)) + header]


def _own_gguf() -> list[bytes]:
    pairs: dict[str, str | int] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.feed_forward_length": 128,
        "llama.context_length": 2048,
        "llama.vocab_size": 1000,
    }
    body = b"".join(_text(key) + _typed(value) for key, value in pairs.items())
    tensors = {"token_embd.weight": (64, 1000), "blk.0.attn_q.weight": (64, 64), "output.weight": (64, 1000)}
    table, offset = b"", 0
    for name, shape in tensors.items():
        table += _text(name) + struct.pack("<I", 2) + struct.pack("<QQ", *shape) + struct.pack("<IQ", 1, offset)
        offset += shape[0] * shape[1] * 2
    return [b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + body + table]


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _typed(value: str | int) -> bytes:
    return struct.pack("<I", 8) + _text(value) if isinstance(value, str) else struct.pack("<II", 4, value)


_OWN: Final[dict[str, Callable[[], list[bytes]]]] = {
    "config": _own_config,
    "safetensors": _own_safetensors,
    "gguf": _own_gguf,
}


# ---- changes at random -------------------------------------------------------------------------------------------


def changed(target: str, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """A seed with a few changes: of its values where it holds JSON, of its bytes else, sometimes of both."""
    content = chance.choice(seeds)
    if target != "gguf" and chance.random() < 0.8:
        start = PREFIX_BYTES if target == "safetensors" else 0
        try:
            value = json.loads(content[start:])
        except (ValueError, RecursionError):
            value = None
        for _ in range(chance.randint(1, 4)):
            value = _with_another_value(value, chance)
        content = json.dumps(value).encode()
        if start:
            content = struct.pack("<Q", len(content)) + content
        if chance.random() < 0.9:
            return content
    return _with_other_bytes(content, chance)


def _with_another_value(value: Any, chance: random.Random) -> Any:
    """One place somewhere inside is another value, is gone, or is there under another name."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        changed = dict(value)
        if chance.random() < 0.1:
            del changed[key]
        elif chance.random() < 0.1:
            changed[chance.choice(list(value))] = value[key]
        else:
            changed[key] = _with_another_value(value[key], chance)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        return [*value[:place], _with_another_value(value[place], chance), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.5:
        return chance.choice((value - 1, value + 1, -value, value * 2, value // 2, value * 10**6))
    return chance.choice(_ODD)


def _with_other_bytes(content: bytes, chance: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(made) + 1)
        match chance.randrange(4):
            case 0:
                del made[place:]
            case 1:
                made[place : place + 1] = bytes([chance.randrange(256)])
            case 2:
                made[place:place] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 16)))
            case _:
                width = chance.choice((4, 8))
                number = chance.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)) % 2 ** (8 * width)
                made[place : place + width] = number.to_bytes(width, "little")
    return bytes(made)


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
