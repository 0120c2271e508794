"""A cache of fewer bits needs no more memory, but where vLLM's kernels read it in larger blocks.

With a cache in fp8 they take blocks of 64 tokens, and not of 16, for heads of 512 elements (from 0.31) and for latents
of 576. A sequence holds whole blocks, so many short ones may hold more bytes of fp8 than of bf16; and a block that is
large enough for a state is rounded up to whole kernel blocks.
"""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.kv import kv_figures
from vrampack.memory.layers import RecurrentState
from vrampack.memory.mixers import mixer_counts
from vrampack.memory.vllm.blocks import attention_block
from vrampack.memory.vllm.versions import rules_of
from vrampack.memory.workload import Workload
from vrampack.models.config import architecture_of

GROWS = {"0.33.0": {"gemma4_text"}, "0.27.1": set[str](), "0.20.0": {"kimi_linear"}}
"""Models of which some load needs more in fp8. Of other latents a claim has room for Blackwell's 32 tokens."""
NARROW_BLOCK = 64
"""Tokens that a block of the kernels for fp8 has."""
LOADS = tuple(product((128, 8192), (1, 16, 256), (20, 100, 400, 4000), (1, 8)))
"""Context lengths, sequences, the tokens of one, and GPUs."""


def more_in_fp8(architecture: Architecture, version: str) -> list[tuple[int, int, int, int]]:
    """The loads of which the cache is larger in fp8 than in bf16."""
    found = []
    for context, concurrency, tokens, tensor in LOADS:
        if tokens > context or context > (architecture.max_context or context):
            continue
        load = Workload(
            context_length=context,
            concurrency=concurrency,
            tokens_per_sequence=tokens,
            max_batched_tokens=512,
            tensor=tensor,
            engine_version=version,
        )
        try:
            wide, narrow = (
                kv_figures(architecture, replace(load, kv_cache_precision=precision)).bytes
                for precision in ("bf16", "fp8")
            )
        except (InvalidInputError, UnsupportedModelError):
            continue  # the release or the split is refused by its field
        if narrow > wide:
            found.append((context, concurrency, tokens, tensor))
    return found


def blocks_grow(architecture: Architecture, version: str) -> bool:
    """Whether the kernels that read fp8 ask for larger blocks than those that read bf16."""
    mixers, rules = tuple(mixer_counts(architecture)), rules_of(version)
    wide, narrow = (attention_block(mixers, precision=precision, rules=rules) for precision in ("bf16", "fp8"))
    return narrow > wide


@pytest.mark.parametrize("version", GROWS)
def test_fp8_needs_more_only_where_the_kernels_blocks_are_larger(shared_data: Path, version: str) -> None:
    larger = set()
    for file in sorted((shared_data / "model-configs").glob("*.json")):
        try:
            architecture = architecture_of(json.loads(file.read_text()), stored_dtype="bfloat16")
        except (UnsupportedModelError, InvalidInputError):
            continue  # refused by its field
        if found := more_in_fp8(architecture, version):
            assert blocks_grow(architecture, version), file.stem
            larger.add(architecture.model_type)
            if not any(isinstance(mixer, RecurrentState) for mixer in mixer_counts(architecture)):
                assert all(tokens < NARROW_BLOCK for _, _, tokens, _ in found), (file.stem, found)
    assert larger == GROWS[version]
