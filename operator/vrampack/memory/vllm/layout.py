"""The layout of a model's KV cache: its groups, the bytes of a block, and the blocks that a request takes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention, RecurrentState, Span
from vrampack.memory.mixers import mixer_counts
from vrampack.memory.vllm.blocks import StateBlocks, attention_block, coarser, state_blocks
from vrampack.memory.vllm.drafting import drafting_layers, drafting_mixers, retained_tokens
from vrampack.memory.vllm.dtypes import cache_precision, served_dtype
from vrampack.memory.vllm.groups import Group, block_bytes, groups_of
from vrampack.memory.vllm.pages import (
    Keeps,
    LayerCache,
    compressed_caches,
    index_token_bytes,
    keeps_of,
    latent_token_bytes,
    local_heads,
    paged_token_bytes,
    state_bytes,
)
from vrampack.memory.vllm.pipeline import widest_stage
from vrampack.memory.vllm.versions import Rules, rules_of
from vrampack.memory.workload import Workload

_ATTENTION_FREE: Final = frozenset({"MambaForCausalLM", "Mamba2ForCausalLM", "FalconMambaForCausalLM"})
"""Classes that vLLM takes for free of attention, and whose prefixes it does not cache by default."""
_CONTEXT_PARALLEL: Final = "spec.parallelism.decodeContext"
_INDEX_BYTES: Final = 2
"""Of an element of a paged layer's index key: bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KVLayout:
    """How a pool of blocks is shared by all layers of one rank."""

    block_size: int
    """Tokens of a block of attention."""
    groups: tuple[Group, ...]
    """Empty: the model keeps nothing."""
    bytes_per_block: int
    """Bytes of a block over all layers, on the rank that has most."""
    bytes_per_token: float
    """What a token of a sequence of full length costs on average, before it is rounded to blocks."""
    rules: Rules
    in_flight: int
    """Tokens that may be under way between being scheduled and being settled."""
    decode_context: int
    state_blocks: int
    """Blocks of each group of states that the engine sets aside for a request."""
    speculative_tokens: int
    retained: int
    """Tokens beyond a window that are kept for drafting."""
    coarser: int
    """How many of these blocks one block of another GPU may be as large as."""
    encoder_tokens: int
    encoder_budget: int
    """Tokens of an encoder that the engine sets aside for a request."""

    @property
    def has_states(self) -> bool:
        """Whether sequences have states, of which the engine wants one for every slot."""
        return any(group.keeps is Keeps.STATE for group in self.groups)

    def coarse(self) -> "KVLayout":
        """The layout of the GPU with the largest blocks."""
        if self.coarser == 1:
            return self
        groups = tuple(replace(group, block_size=group.block_size * self.coarser) for group in self.groups)
        return replace(self, groups=groups, bytes_per_block=self.bytes_per_block * self.coarser, coarser=1)

    def blocks_of_request(self, tokens: int) -> int:
        """Blocks that the engine sets aside to admit a request of ``tokens``, over all groups."""
        return sum(group.pools * self._admitted(group, tokens) for group in self.groups)

    def resident_blocks(self, tokens: int) -> int:
        """Blocks that a request holds after the decode step that made it ``tokens`` long."""
        return sum(group.pools * self._resident(group, tokens) for group in self.groups)

    def held_blocks(self, tokens: int) -> int:
        """Most blocks that a request holds while it decodes up to ``tokens``."""
        return sum(group.pools * self._held(group, tokens) for group in self.groups)

    def minimum_blocks(self, context_length: int) -> int:
        """Blocks that the engine demands before it starts: one request of full length."""
        if not self.groups:
            return 0
        return self.blocks_of_request(context_length) + self.rules.null_block_checked

    def minimum_bytes(self, context_length: int) -> int:
        """Bytes of the smallest pool that the engine starts with."""
        return self.minimum_blocks(context_length) * self.bytes_per_block

    def _admitted(self, group: Group, tokens: int) -> int:
        size = group.block_size
        match group.keeps:
            case Keeps.ALL:
                return _blocks(_blocks(tokens, self.decode_context), size)
            case Keeps.WINDOW:
                return _blocks(min(group.window - 1 + self.retained + self.in_flight, tokens), size) + 1
            case Keeps.CHUNK:
                return _blocks(min(group.window + self.in_flight, tokens), size)
            case Keeps.ENCODER:
                return _blocks(self.encoder_budget, size)
            case Keeps.STATE:
                return self.state_blocks

    def _resident(self, group: Group, tokens: int) -> int:
        size, before = group.block_size, tokens - 1
        match group.keeps:
            case Keeps.ALL:
                return _blocks(_blocks(tokens, self.decode_context), size)
            case Keeps.WINDOW:
                outside = max(0, before - group.window + 1 - self.retained)
                return _blocks(tokens, size) - outside // size
            case Keeps.CHUNK:
                return _blocks(tokens, size) - before // group.window * group.window // size
            case Keeps.ENCODER:
                return _blocks(self.encoder_tokens, size)
            case Keeps.STATE:
                return 1 + self.speculative_tokens

    def _held(self, group: Group, tokens: int) -> int:
        if group.keeps not in (Keeps.WINDOW, Keeps.CHUNK):
            return self._resident(group, tokens + self.speculative_tokens)
        drafted = tokens + self.speculative_tokens
        kept = group.window + self.retained + self.speculative_tokens
        return min(_blocks(drafted, group.block_size), _blocks(kept, group.block_size) + 1)


def kv_layout(architecture: Architecture, workload: Workload) -> KVLayout:
    """The layout that vLLM makes for ``workload``.

    Raises InvalidInputError for a KV precision, version or parallelism that the engine does not take with this model,
    UnsupportedModelError for layers whose cache can't share one pool.
    """
    rules = rules_of(workload.engine_version)
    precision, dtype = cache_precision(architecture, workload), served_dtype(architecture, workload)
    drafting = drafting_layers(architecture, workload)
    counts = _caching_mixers(architecture, workload)
    mixers = tuple(counts)
    states = _state_blocks(architecture, workload, mixers, precision=precision, dtype=dtype, rules=rules)
    size = states.block_size if states else attention_block(mixers, precision=precision, rules=rules)
    mixed = rules.mixed_groups and workload.hybrid_cache
    if _has_chunks(mixers):
        mixed = mixed and rules.chunked_groups and not drafting
    if states and states.page and not mixed:
        raise _no_mixed_groups(workload, rules)
    caches: dict[LayerCache, int] = {}
    of_mixer: dict[Mixer, list[LayerCache]] = {}
    for mixer, layers in counts.items():
        own = _indexed(mixer, mixers, rules)
        made = _caches(own, size, states, workload=workload, precision=precision, dtype=dtype)
        if not (rules.frees_windows and (mixed or len(mixers) == 1)):
            made = [_everything(cache) for cache in made]
        of_mixer[mixer] = made
        for cache in made:
            caches[cache] = caches.get(cache, 0) + layers
    _check_context_parallel(caches, workload)
    packed = any(isinstance(mixer, LatentAttention) and mixer.window for mixer in mixers)
    groups = groups_of(caches, packed=packed, nearly_alike=rules.nearly_alike)
    widest = block_bytes(groups, dense=rules.dense_packing or not packed)
    steps = rules.steps_in_flight
    if workload.pipeline > 1:
        widest = widest_stage(architecture, workload, groups, of_mixer)
        steps = workload.pipeline + steps - 1
    return KVLayout(
        block_size=size,
        groups=groups,
        bytes_per_block=widest,
        bytes_per_token=_bytes_per_token(caches, workload),
        rules=rules,
        in_flight=steps * workload.max_batched_tokens,
        decode_context=workload.decode_context,
        state_blocks=states.per_request if states else 0,
        speculative_tokens=workload.speculative_tokens,
        retained=retained_tokens(architecture, workload),
        coarser=coarser(mixers, block_size=size),
        encoder_tokens=architecture.encoder_tokens,
        encoder_budget=max(workload.max_batched_tokens, architecture.encoder_tokens, workload.encoder_budget),
    )


def _blocks(tokens: int, size: int) -> int:
    return -(-tokens // size)


def _caching_mixers(architecture: Architecture, workload: Workload) -> dict[Mixer, int]:
    """Those that have a cache of their own, with the layers that draft."""
    if not architecture.causal:
        return {}
    counts = {
        mixer: layers
        for mixer, layers in mixer_counts(architecture).items()
        if not (isinstance(mixer, PagedAttention) and mixer.shares_cache)
    }
    for mixer, drafted in drafting_mixers(architecture, workload):
        counts[mixer] = counts.get(mixer, 0) + drafted
    return counts


def _indexed(mixer: Mixer, mixers: Iterable[Mixer], rules: Rules) -> Mixer:
    """A sparse layer that takes over another's choice had an indexer of its own in older releases."""
    if rules.shared_indexers or not isinstance(mixer, LatentAttention) or not mixer.index_heads:
        return mixer
    return replace(mixer, index_dim=max(each.index_dim for each in mixers if isinstance(each, LatentAttention)))


def _state_blocks(
    architecture: Architecture,
    workload: Workload,
    mixers: tuple[Mixer, ...],
    *,
    precision: str,
    dtype: str,
    rules: Rules,
) -> StateBlocks | None:
    if not any(isinstance(mixer, RecurrentState) for mixer in mixers):
        return None
    caching = workload.prefix_caching
    if caching is None:
        caching = rules.hybrids_cache_prefixes and architecture.class_name not in _ATTENTION_FREE
    return state_blocks(
        mixers,
        tensor=workload.tensor,
        precision=precision,
        dtype=dtype,
        rules=rules,
        prefix_caching=caching,
        context_length=workload.context_length,
        speculative_tokens=workload.speculative_tokens,
        class_name=architecture.class_name,
    )


def _caches(
    mixer: Mixer,
    size: int,
    states: StateBlocks | None,
    *,
    workload: Workload,
    precision: str,
    dtype: str,
) -> list[LayerCache]:
    tensor = workload.tensor
    if isinstance(mixer, PagedAttention):
        page = size * paged_token_bytes(mixer, tensor=tensor, precision=precision)
        shape = (local_heads(mixer.kv_heads, tensor), mixer.key_dim, mixer.value_dim)
        caches = [LayerCache(keeps=keeps_of(mixer.span), block_size=size, page=page, window=mixer.window, shape=shape)]
        if mixer.index_dim:
            caches.append(_latent(size, mixer.index_dim, mixer.index_dim * _INDEX_BYTES))
        return caches
    if isinstance(mixer, RecurrentState):
        assert states is not None
        state = state_bytes(mixer, tensor=tensor, dtype=dtype, speculative_tokens=workload.speculative_tokens)
        page = states.page or state
        return [LayerCache(keeps=Keeps.STATE, block_size=states.state_block, page=page, shape=(state,))]
    if mixer.window:
        return list(compressed_caches(mixer))
    caches = [_latent(size, mixer.rank + mixer.rope_dim, latent_token_bytes(mixer, precision=precision))]
    if mixer.index_dim:
        caches.append(_latent(size, mixer.index_dim, index_token_bytes(mixer)))
    return caches


def _latent(size: int, width: int, token: int) -> LayerCache:
    return LayerCache(keeps=Keeps.ALL, block_size=size, page=size * token, latent=True, shape=(width, token))


def _has_chunks(mixers: Iterable[Mixer]) -> bool:
    return any(isinstance(mixer, PagedAttention) and mixer.span is Span.CHUNKED for mixer in mixers)


def _everything(cache: LayerCache) -> LayerCache:
    """Without groups of several kinds, layers with a window keep every token."""
    if cache.keeps in (Keeps.WINDOW, Keeps.CHUNK):
        return replace(cache, keeps=Keeps.ALL, window=0)
    return cache


def _no_mixed_groups(workload: Workload, rules: Rules) -> InvalidInputError:
    allowed = "states and attention of one model need groups of their own"
    if rules.mixed_groups:
        field, value = "spec.engine.args", "--disable-hybrid-kv-cache-manager"
        return InvalidInputError(field=field, value=value, allowed=f"not with this model: {allowed}")
    return InvalidInputError(
        field="spec.engine.version", value=workload.engine_version, allowed=f"vllm of 0.9.1 or newer: {allowed}"
    )


def _check_context_parallel(caches: Iterable[LayerCache], workload: Workload) -> None:
    parallel = workload.decode_context
    if parallel == 1:
        return
    if workload.tensor % parallel:
        raise InvalidInputError(
            field=_CONTEXT_PARALLEL, value=parallel, allowed=f"a divisor of the {workload.tensor} tensor ranks"
        )
    if any(cache.keeps in (Keeps.WINDOW, Keeps.CHUNK) for cache in caches):
        raise InvalidInputError(
            field=_CONTEXT_PARALLEL, value=parallel, allowed="1: layers with a window are not dealt out over ranks"
        )


def _bytes_per_token(caches: dict[LayerCache, int], workload: Workload) -> float:
    """Of a sequence of full length: windows and states are shared out over its tokens."""
    length = workload.context_length
    total = 0.0
    for cache, layers in caches.items():
        match cache.keeps:
            case Keeps.STATE:
                share = 1 / length
            case Keeps.WINDOW | Keeps.CHUNK:
                share = min(1.0, cache.window / length) / cache.block_size
            case _:
                share = 1 / cache.block_size
        total += layers * cache.page * share
    return total
