"""Architectures and weights from GGUF metadata, as llama.cpp reads it."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.llamacpp_models import models
from benchmarks.llamacpp_oracle import gguf as metadata_file
from tests.unit.ggufbytes import Tensor, Value, gguf
from vrampack.errors import InvalidInputError, UnsupportedModelError, VrampackError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import LatentAttention, PagedAttention, RecurrentState, Span, StateKind
from vrampack.memory.llamacpp import LlamaContext, cache_buffers
from vrampack.memory.llamacppterms import weight_bytes
from vrampack.memory.workload import Workload
from vrampack.models.gguf import GgufHeader, read_header
from vrampack.models.ggufarchitecture import gguf_architecture
from vrampack.models.ggufweights import gguf_weights

SMALL: Mapping[str, Value] = MappingProxyType(
    {
        "block_count": 4,
        "embedding_length": 64,
        "context_length": 4096,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "feed_forward_length": 96,
        "vocab_size": 100,
    }
)


def header_of(content: bytes) -> GgufHeader:
    return read_header(lambda start, length: content[start:][:length], file="m.gguf", file_bytes=len(content))


def written(
    name: str, changes: Mapping[str, Value] | None = None, tensors: Mapping[str, Tensor] | None = None
) -> GgufHeader:
    own = {f"{name}.{key}": value for key, value in {**SMALL, **(changes or {})}.items()}
    return header_of(gguf({"general.architecture": name, **own}, tensors))


def read(
    name: str, changes: Mapping[str, Value] | None = None, tensors: Mapping[str, Tensor] | None = None
) -> Architecture:
    return gguf_architecture(written(name, changes, tensors), file="m.gguf")


def known(name: str) -> Architecture:
    return gguf_architecture(header_of(metadata_file(models()[name])), file="m.gguf")


def test_a_plain_model() -> None:
    architecture = read("llama", tensors={"output.weight": ("f16", (64, 100)), "token_embd.weight": ("f16", (64, 100))})
    assert architecture.layers == 4
    assert (architecture.attention_heads, architecture.kv_heads, architecture.head_dim) == (4, 2, 16)
    assert (architecture.hidden_size, architecture.intermediate_size, architecture.vocab_size) == (64, 96, 100)
    assert architecture.max_context == 4096
    assert architecture.dtype == "float16"
    assert not architecture.tied_embeddings
    assert not architecture.assumptions
    assert architecture.runs[0].mixers == (PagedAttention(heads=4, kv_heads=2, key_dim=16, value_dim=16),)


def kinds(architecture: Architecture) -> Counter[str]:
    """Layers by what each keeps."""
    found = Counter[str]()
    for run in architecture.runs:
        names = [
            mixer.span.value if isinstance(mixer, PagedAttention) else getattr(mixer, "kind", "latent")
            for mixer in run.mixers
        ]
        found["+".join(names) or "none"] += run.count
    return found


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("Llama-3.1-8B", {"full": 32}),
        ("Mistral-7B-v0.1", {"full": 32}),
        ("Nemotron-NAS", {"full": 36, "none": 12}),
        ("Phi-3-mini", {"full": 32}),
        ("Gemma-2-9B", {"full": 21, "sliding": 21}),
        ("Gemma-3-27B", {"full": 10, "sliding": 52}),
        ("Gemma-3n-E4B", {"full": 7, "sliding": 28}),
        ("Gemma-4-26B-A4B", {"full": 5, "sliding": 25}),
        ("gpt-oss-20b", {"full": 12, "sliding": 12}),
        ("EXAONE-4-32B", {"full": 16, "sliding": 48}),
        ("EXAONE-4-1.2B", {"full": 30}),
        ("Llama-4-Scout", {"full": 12, "chunked": 36}),
        ("GLM-4.5-Air", {"full": 46}),
        ("DeepSeek-V3", {"latent": 61}),
        ("DeepSeek-V2 (old file)", {"full": 60}),
        ("Qwen3-Next-80B-A3B", {"gated_delta": 36, "full": 12}),
        ("Jamba-1.5-mini", {"mamba1": 28, "full": 4}),
        ("Falcon-H1-7B", {"full+mamba2": 44}),
        ("Nemotron-H", {"mamba2": 18, "none": 18, "full": 3}),
        ("Kimi-Linear-48B", {"kimi_delta": 21, "latent": 6}),
        ("MiniMax-Text-01", {"lightning": 70, "full": 10}),
        ("LFM2-1.2B", {"short_conv": 11, "full": 5}),
        ("Mamba-2.8B", {"mamba1": 64}),
        ("RWKV-7-2.9B", {"wkv": 32}),
        ("Nanbeige-loop", {"full": 64}),
    ],
)
def test_layers_by_what_they_keep(name: str, layers: dict[str, int]) -> None:
    assert kinds(known(name)) == layers


def test_sizes_of_a_layer_are_its_own() -> None:
    gemma = {mixer for run in known("Gemma-4-26B-A4B").runs for mixer in run.mixers}
    assert gemma == {
        PagedAttention(heads=16, kv_heads=8, key_dim=256, value_dim=256, span=Span.SLIDING, window=1024),
        PagedAttention(heads=16, kv_heads=2, key_dim=512, value_dim=512),
    }
    (latent,) = {mixer for run in known("DeepSeek-V3").runs for mixer in run.mixers}
    assert latent == LatentAttention(heads=128, rank=512, rope_dim=64, query_rank=1536, nope_dim=128, value_dim=128)
    state = next(mixer for run in known("Qwen3-Next-80B-A3B").runs for mixer in run.mixers)
    assert state == RecurrentState(
        kind=StateKind.GATED_DELTA, conv_kernel=4, key_heads=16, key_dim=128, value_heads=32, value_dim=128
    )


def test_trailing_layers_of_gemma_share_the_caches_before_them() -> None:
    shared = sum(
        run.count
        for run in known("Gemma-4-E4B").runs
        for mixer in run.mixers
        if isinstance(mixer, PagedAttention) and mixer.shares_cache
    )
    assert shared == 18


def test_experts_are_in_the_layers_that_have_their_tensors() -> None:
    experts: dict[str, Value] = {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 32}
    tensors: dict[str, Tensor] = {f"blk.{layer}.ffn_up_exps.weight": ("f16", (64, 32, 8)) for layer in (1, 2, 3)}
    runs = read("qwen2moe", experts, tensors).runs
    widths = [(run.count, run.feed_forward.experts, run.feed_forward.width) for run in runs if run.feed_forward]
    assert widths == [(1, 0, 96), (3, 8, 0)]


def test_an_architecture_that_is_not_known_is_marked_or_refused() -> None:
    (assumption,) = read("nextmodel").assumptions
    assert "nextmodel is not known" in assumption
    with pytest.raises(UnsupportedModelError, match=r"nextmodel\.ssm\.state_size"):
        read("nextmodel", {"ssm.state_size": 16})
    with pytest.raises(UnsupportedModelError, match=r"nextmodel\.attention\.sliding_window"):
        read("nextmodel", {"attention.sliding_window": 512})
    with pytest.raises(UnsupportedModelError, match="a part of a model"):
        read("clip")


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("llama", {"block_count": 0}, "llama.block_count"),
        ("llama", {"block_count": 10**6}, "llama.block_count"),
        ("llama", {"attention.head_count_kv": [2, 2]}, "llama.attention.head_count_kv"),
        ("llama", {"attention.head_count_kv": "2"}, "llama.attention.head_count_kv"),
        ("llama", {"embedding_length": 0.5}, "llama.embedding_length"),
        ("llama", {"nextn_predict_layers": 4}, "llama.nextn_predict_layers"),
        ("gpt-oss", {}, "gpt-oss.attention.sliding_window"),
        ("gemma4", {"attention.sliding_window": 512}, "gemma4.attention.sliding_window_pattern"),
        ("mamba", {}, "mamba.ssm.conv_kernel"),
        ("qwen3next", {"full_attention_interval": 0, "ssm.conv_kernel": 4}, "qwen3next.full_attention_interval"),
    ],
)
def test_a_value_that_is_missing_or_impossible_is_said_with_its_key(
    name: str, changes: dict[str, Value], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(name, changes)
    assert caught.value.field == f"m.gguf:{field}"


_VALUES = st.one_of(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.floats(width=32, allow_nan=False),
    st.text(max_size=8),
    st.lists(st.integers(0, 600), min_size=1, max_size=6),
    st.lists(st.booleans(), min_size=1, max_size=6),
)
_KEYS = sorted({key.split(".", 1)[1] for metadata in models().values() for key in metadata if "general" not in key})


@given(st.sampled_from(sorted(models())), st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=5))
def test_any_metadata_is_read_or_refused_by_name(model: str, changes: dict[str, Value]) -> None:
    metadata = dict(models()[model])
    name = str(metadata["general.architecture"])
    header = header_of(metadata_file(metadata))
    changed = header_of(gguf({f"{name}.{key}": value for key, value in changes.items()} or {"x": 1}))
    mixed = replace(
        header,
        metadata={**{k: v for k, v in header.metadata.items() if k not in changed.lengths}, **changed.metadata},
        lengths={**{k: v for k, v in header.lengths.items() if k not in changed.metadata}, **changed.lengths},
    )
    with suppress(VrampackError):
        architecture = gguf_architecture(mixed, file="m.gguf")
        assert all(buffer.bytes >= 0 for buffer in cache_buffers(architecture, LlamaContext(tokens=256)))


TENSORS: Mapping[str, Tensor] = MappingProxyType(
    {
        "token_embd.weight": ("q8_0", (512, 1000)),
        "blk.0.attn_q.weight": ("q4_k", (512, 512)),
        "blk.1.attn_q.weight": ("q6_k", (512, 512)),
        "blk.2.attn_q.weight": ("q4_k", (512, 512)),
        "blk.3.attn_q.weight": ("q4_k", (512, 512)),
        "output_norm.weight": ("f32", (512,)),
    }
)
TABLE, Q4, Q6, NORM = 544_000, 147_456, 215_040, 2048
WORK = Workload(context_length=4096, concurrency=1, tokens_per_sequence=4096, max_batched_tokens=512, engine="llamacpp")


def test_the_input_table_stays_on_the_host() -> None:
    tensors = {**TENSORS, "output.weight": ("q6_k", (512, 1000))}
    header = written("llama", tensors=tensors)
    architecture = gguf_architecture(header, file="m.gguf")
    weights = gguf_weights(header.tensors, architecture=architecture)
    assert weights.total == TABLE + 3 * Q4 + Q6 + NORM + 420_000
    assert weights.parameters == 2 * 512_000 + 4 * 512 * 512 + 512
    assert weight_bytes(architecture, weights, WORK) == 3 * Q4 + Q6 + NORM + 420_096  # 128 bytes apart


def test_a_tied_table_is_on_the_gpu_as_the_output() -> None:
    header = written("llama", tensors=TENSORS)
    architecture = gguf_architecture(header, file="m.gguf")
    assert architecture.tied_embeddings
    weights = gguf_weights(header.tensors, architecture=architecture)
    assert weights.total == TABLE + 3 * Q4 + Q6 + NORM
    assert weight_bytes(architecture, weights, WORK) == weights.total


def test_layers_that_predict_are_not_loaded() -> None:
    header = written("glm4moe", {"nextn_predict_layers": 1, "expert_used_count": 0}, TENSORS)
    architecture = gguf_architecture(header, file="m.gguf")
    weights = gguf_weights(header.tensors, architecture=architecture)
    assert weights.predict == Q4
    assert weight_bytes(architecture, weights, WORK) == weights.total == TABLE + 2 * Q4 + Q6 + NORM


def test_gpus_of_a_pipeline_get_whole_layers() -> None:
    """Four layers and the output on two GPUs: three, and one with the output."""
    header = written("llama", tensors=TENSORS)
    architecture = gguf_architecture(header, file="m.gguf")
    weights = gguf_weights(header.tensors, architecture=architecture)
    assert weight_bytes(architecture, weights, replace(WORK, pipeline=2)) == max(2 * Q4 + Q6, Q4 + TABLE + NORM)
