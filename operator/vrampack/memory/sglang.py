"""How SGLang sizes its pools: of tokens, of window tokens, and of states.

It is told the tokens (``--max-total-tokens``) and the requests (``--max-running-requests``), with a static fraction of
the GPU that leaves room for just that. Read from ``model_runner_kv_cache_mixin.py``, ``pool_configurator.py`` and
``server_args.py`` of sgl-project/sglang (2026).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Final

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import DTYPE_BYTES
from vrampack.memory.enginepools import PoolClaim, PrintedPool, refuse_splits
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention, RecurrentState, Span, StateKind
from vrampack.memory.vllm.drafting import drafting_layers
from vrampack.memory.vllm.pages import check_groups, dtype_bytes
from vrampack.memory.vllm.pipeline import stages
from vrampack.memory.workload import Workload
from vrampack.units import GIB, round_up

KV_FIELD: Final = "spec.precision.kvCache"

STATES_PER_REQUEST: Final = 3
"""Read: states for each running request where prefixes are cached; one without."""

_ELEMENT: Final = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
_INDEX_SCALE: Final = 128
"""Read: the indexer's key is 8 bit, with a scale of four bytes for each 128 elements."""
_SPARSE_PAGE: Final = 64
"""Read: sparse latent attention needs pages of 64 tokens."""

_WINDOW_POOLS: Final = frozenset(
    (
        "Llama4ForConditionalGeneration",
        "GptOssForCausalLM",
        "MiMoV2FlashForCausalLM",
        "Step3p5ForCausalLM",
        "Gemma4ForCausalLM",
        "Gemma4ForConditionalGeneration",
        "LagunaForCausalLM",
    )
)
"""Read (``is_hybrid_swa_model``): classes whose sliding layers have a pool of their own; the rest keep every token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SglangPools:
    """What one rank allocates."""

    page: int
    tokens: int
    """Of the full pool, whole pages: what the log prints."""
    token_bytes: int
    window_tokens: int
    """Of the pool of sliding layers; 0: there is none."""
    window_token_bytes: int
    states: int
    """States of recurrent layers; 0: there are none."""
    state_bytes: int
    drafted_states: int = 0
    """States after each token that is drafted, of every request."""

    @property
    def bytes(self) -> int:
        """Each pool of tokens has one page more than it counts, each of states one state more."""
        full = (self.tokens + self.page) * self.token_bytes if self.token_bytes else 0
        window = (self.window_tokens + self.page) * self.window_token_bytes if self.window_tokens else 0
        return full + window + self.states_total

    @property
    def states_total(self) -> int:
        return (self.states + 1 + self.drafted_states) * self.state_bytes if self.states else 0

    @property
    def window_ratio(self) -> float:
        """``--swa-full-tokens-ratio`` that gives just these pools, rounded so that no window token is lost."""
        return ceil(self.window_tokens / self.tokens * 1e6) / 1e6 if self.tokens else 1.0


def pools_of(architecture: Architecture, workload: Workload) -> SglangPools:
    """The pools that hold every sequence, and one of full length, of the pipeline stage that has most.

    Raises InvalidInputError for a precision of K and V or ranks that SGLang does not have, UnsupportedModelError for
    layers that it has no pool of.
    """
    refuse_splits(workload, engine="SGLang", fields=("decode_context",))
    if workload.pipeline == 1:
        return _pools(architecture, workload)
    each = [_pools(stage, workload) for stage in _stages(architecture, workload.pipeline)]
    return max(each, key=lambda pools: pools.bytes)


def _stages(architecture: Architecture, pipeline: int) -> Iterator[Architecture]:
    """What each stage holds of the layers."""
    layers = [replace(run, count=1) for run in architecture.layer_runs for _ in range(run.count)]
    for held in stages(len(layers), pipeline):
        yield replace(architecture, layers=len(held), runs=tuple(layers[held.start : held.stop]))


def _pools(architecture: Architecture, workload: Workload) -> SglangPools:
    page = page_of(architecture)
    token, window_token, window = _bytes_per_token(architecture, workload)
    held = workload.concurrency * round_up(workload.tokens_per_sequence, page)
    tokens = max(held, round_up(workload.context_length + 1, page))
    per_sequence = min(round_up(workload.tokens_per_sequence, page), round_up(window, page) + 2 * page)
    # two chunks of a prompt are under way, and no window is freed before its step is done
    windows = workload.concurrency * per_sequence + 2 * workload.max_batched_tokens + 2 * page + window
    states = _states(architecture)
    return SglangPools(
        page=page,
        tokens=tokens,
        token_bytes=token,
        window_tokens=min(tokens, round_up(windows, page)) if window_token else 0,
        window_token_bytes=window_token,
        states=workload.concurrency * states_per_request(workload) if states else 0,
        state_bytes=sum(_state_bytes(state, architecture, workload.tensor) for state in states),
        drafted_states=workload.concurrency * workload.speculative_tokens if states else 0,
    )


def claim(architecture: Architecture, workload: Workload) -> PoolClaim:
    """The pools of one rank."""
    pools = pools_of(architecture, workload)
    held = workload.concurrency * workload.tokens_per_sequence
    sequences = f"{workload.concurrency} sequences of {workload.tokens_per_sequence} tokens"
    return PoolClaim(
        bytes=pools.bytes,
        tokens=pools.tokens,
        state_bytes=pools.states_total,
        why=sequences if held > workload.context_length else f"one sequence of {workload.context_length} tokens",
    )


def printed(architecture: Architecture, workload: Workload, available_bytes: int) -> PrintedPool:
    """What the log says of pools that get ``available_bytes``, with the states and the ratio of the workload's own.

    SGLang divides the bytes by those of a token; the one page more comes on top.
    """
    pools = pools_of(architecture, workload)
    rest = available_bytes - (pools.states + pools.drafted_states) * pools.state_bytes
    ratio = pools.window_ratio if pools.window_tokens else 0.0
    cell = pools.token_bytes + ratio * pools.window_token_bytes
    tokens = max(0, floor(rest / cell) // pools.page * pools.page) if cell else 0
    return PrintedPool(
        tokens=tokens,
        max_concurrency=tokens / workload.context_length,
        lines=tuple(_lines(architecture, pools, tokens)),
    )


def tokens_within(architecture: Architecture, workload: Workload, pool_bytes: int, *, page: int) -> int:
    """Tokens of a pool that is ``pool_bytes`` large, as the log names its size: without the one page more.

    For models whose layers share one pool.
    """
    token, window_token, _ = _bytes_per_token(architecture, workload)
    return max(0, pool_bytes // (token + window_token) // page * page - page)


def page_of(architecture: Architecture) -> int:
    """``--page-size``: tokens."""
    sparse = any(isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in _mixers(architecture))
    return _SPARSE_PAGE if sparse else 1


def states_per_request(workload: Workload) -> int:
    """States to allot for each running request. ``--max-mamba-cache-size`` is this times the requests."""
    return 1 if workload.prefix_caching is False else STATES_PER_REQUEST


def _lines(architecture: Architecture, pools: SglangPools, tokens: int) -> Iterable[str]:
    size = (tokens + pools.page) * pools.token_bytes / GIB
    if pools.window_tokens:
        windows = floor(tokens * pools.window_ratio) // pools.page * pools.page
        yield f"Use sliding window memory pool. full_layer_tokens={tokens}, swa_layer_tokens={windows}"
    if any(isinstance(mixer, LatentAttention) for mixer in _mixers(architecture)):
        yield f"KV Cache is allocated. #tokens: {tokens}, KV size: {size:.2f} GB"
    else:
        yield f"KV Cache is allocated. #tokens: {tokens}, K size: {size / 2:.2f} GB, V size: {size / 2:.2f} GB"


def _mixers(architecture: Architecture) -> list[Mixer]:
    return [mixer for run in architecture.layer_runs for mixer in run.mixers * run.count]


def _bytes_per_token(architecture: Architecture, workload: Workload) -> tuple[int, int, int]:
    """Bytes of a token in the full pool and in the pool of windows, and the widest window."""
    own_pool = architecture.class_name in _WINDOW_POOLS
    full = windows = window = 0
    for mixer in _mixers(architecture):
        if isinstance(mixer, LatentAttention):
            full += _latent_bytes(mixer, workload.kv_cache_precision)
        elif isinstance(mixer, PagedAttention) and mixer.span is not Span.CROSS:
            size = _paged_bytes(mixer, workload)
            if own_pool and mixer.span is not Span.FULL:
                windows, window = windows + size, max(window, mixer.window)
            else:
                full += size
    drafts = drafting_layers(architecture, workload)
    if drafts and full:
        # SGLang takes a layer that drafts for an average one that sees every token
        full += full * drafts // sum(_sees_all(mixer, own_pool=own_pool) for mixer in _mixers(architecture))
    return full, windows, window


def _sees_all(mixer: Mixer, *, own_pool: bool) -> bool:
    if isinstance(mixer, PagedAttention):
        return mixer.span is Span.FULL or (mixer.span is not Span.CROSS and not own_pool)
    return isinstance(mixer, LatentAttention)


def _paged_bytes(mixer: PagedAttention, workload: Workload) -> int:
    heads = max(1, mixer.kv_heads // workload.tensor)
    width = heads * (mixer.key_dim + mixer.value_dim)
    if workload.kv_cache_precision == "nvfp4":
        check_groups(mixer.key_dim, mixer.value_dim)
        return width // 2 + heads * mixer.key_dim * 2 // 16
    index = 2 * mixer.index_dim if mixer.index_dim else 0
    return width * _element(workload.kv_cache_precision) + index


def _latent_bytes(mixer: LatentAttention, precision: str) -> int:
    if mixer.window:
        raise UnsupportedModelError(
            unknown="compress_ratios", detail="SGLang's pools of compressed entries are not written out"
        )
    width = mixer.rank + mixer.rope_dim
    index = mixer.index_dim + mixer.index_dim // _INDEX_SCALE * 4
    if precision == "nvfp4":
        return width // 2 + width // 16 + index
    if precision == "fp8" and mixer.index_dim:
        return mixer.rank + mixer.rank // _INDEX_SCALE * 4 + 2 * mixer.rope_dim + index
    return width * _element(precision) + index


def _element(precision: str) -> int:
    try:
        return _ELEMENT[precision]
    except KeyError:
        allowed = ", ".join((*_ELEMENT, "nvfp4"))
        raise InvalidInputError(field=KV_FIELD, value=precision, allowed=f"SGLang: {allowed}") from None


def _states(architecture: Architecture) -> list[RecurrentState]:
    return [mixer for mixer in _mixers(architecture) if isinstance(mixer, RecurrentState)]


def _state_bytes(state: RecurrentState, architecture: Architecture, tensor: int) -> int:
    """One request's state in one layer: the convolution's inputs in the model's type, the rest in 32 bit."""
    if state.kind is StateKind.WKV:
        raise UnsupportedModelError(unknown="RWKV layers", detail="SGLang has none; llama.cpp serves them")
    keys, values = state.key_heads * state.key_dim, state.value_heads * state.value_dim
    if state.kind is StateKind.MAMBA2 and state.key_heads % tensor:
        keys = tensor * state.key_dim
    past = max(0, state.conv_kernel - 1) * (values + 2 * keys) // tensor
    if state.kind is StateKind.LIGHTNING:
        past = 0
    recurrent = values // tensor * state.key_dim
    return past * DTYPE_BYTES[architecture.dtype] + recurrent * dtype_bytes(state.state_dtype or "float32")
