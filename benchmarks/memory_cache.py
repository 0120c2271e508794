"""The KV cache of a measured run: how many tokens the engine's own rule finds room for in the bytes that it printed."""

import re
from dataclasses import replace

from benchmarks.measurements import LLAMA_CPP, Row, UnusableError
from benchmarks.memory_runs import Compared, asked, graph_batch, only_vllm, workload_of
from vrampack.memory import sglang, tgi
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention, Span
from vrampack.memory.llamacpp import LlamaContext, cache_buffers
from vrampack.memory.vllm.layout import kv_layout
from vrampack.memory.vllm.pool import Printed as PrintedPool
from vrampack.memory.vllm.pool import printed
from vrampack.units import GIB


def kv_tokens(row: Row) -> Compared:
    """Tokens that the rule of the engine finds room for in the bytes that the engine printed."""
    row = _readable(row)
    if row.engine in LLAMA_CPP:
        return _llama_tokens(row)
    tokens = row.printed("kv_cache_tokens")
    if row.engine == "sglang":
        low, middle, high = _sglang_pools(row)
    elif row.engine == "tgi":
        low, middle, high = _tgi_tokens(row)
    else:
        low, middle, high = (found.tokens for found in _pools(row))
    block = row.cache.get("block", 16) * row.decode_context
    return Compared(
        row=row.number,
        engine=row.engine,
        estimated=middle,
        printed=tokens.value,
        within_rounding=low - block <= tokens.value <= high + block,
    )


def max_concurrency(row: Row) -> Compared:
    """Requests of the longest length that fit into the bytes that the engine printed."""
    concurrency = row.printed("max_concurrency")
    only_vllm(row, "maximum concurrency")
    row = _readable(row)
    low, middle, high = (found.max_concurrency for found in _pools(row))
    block = 1 / row.cache["blocks_of_request"]
    return Compared(
        row=row.number,
        engine=row.engine,
        estimated=middle,
        printed=concurrency.value,
        within_rounding=low - block - concurrency.half_digit
        <= concurrency.value
        <= high + block + concurrency.half_digit,
    )


def _readable(row: Row) -> Row:
    """Where the configuration is an excerpt, with what the cache does not depend on filled in."""
    try:
        row.architecture()
    except UnusableError:
        return row.for_cache()
    return row


def _pools(row: Row) -> tuple[PrintedPool, PrintedPool, PrintedPool]:
    """What the engine prints of a pool of the printed bytes: of the least, the middle and the most that the digits
    leave open."""
    pool = row.printed("kv_cache_gib")
    context = row.whole("max_model_len", row.architecture().max_context)
    layout = asked(row, lambda row: kv_layout(row.architecture(), workload_of(row, graph_batch(row))))
    if not layout.groups:
        raise UnusableError("the model keeps nothing between steps")
    row.cache["block"] = max(group.block_size for group in layout.groups)
    row.cache["blocks_of_request"] = layout.blocks_of_request(context)
    low, middle, high = (
        printed(layout, int(gib * GIB), context)
        for gib in (pool.value - pool.half_digit, pool.value, pool.value + pool.half_digit)
    )
    return low, middle, high


def _sglang_pools(row: Row) -> tuple[float, float, float]:
    """Tokens of SGLang in the printed bytes. A page is what its backend takes, unless the note names one: on Ascend 128
    tokens, of which the architecture knows nothing."""
    pool = row.printed("kv_cache_gib")
    architecture, workload = row.architecture(), workload_of(row, graph_batch(row))
    named = re.search(r"\bpage (\d+)", row.note)
    page = int(named[1]) if named else 128 if "ascend" in row.note.lower() else sglang.page_of(architecture)
    row.cache["block"] = page
    mixers = [mixer for run in architecture.kinds for mixer in run.mixers]
    several = any(isinstance(one, PagedAttention) and one.span is Span.SLIDING for one in mixers)

    def within(pool_bytes: int) -> int:
        if several:
            return sglang.printed(architecture, workload, pool_bytes).tokens
        return sglang.tokens_within(architecture, workload, pool_bytes, page=page)

    def counted(row: Row) -> tuple[float, float, float]:
        low, middle, high = (
            within(int(gib * GIB)) for gib in (pool.value - pool.half_digit, pool.value, pool.value + pool.half_digit)
        )
        return low, middle, high

    return asked(row, counted)


def _tgi_tokens(row: Row) -> tuple[float, float, float]:
    """Whole blocks of the printed bytes."""
    pool = row.printed("kv_cache_gib")

    def counted(row: Row) -> tuple[float, float, float]:
        workload = workload_of(row, graph_batch(row))
        low, middle, high = (
            tgi.printed(row.architecture(), workload, int(gib * GIB)).tokens
            for gib in (pool.value - pool.half_digit, pool.value, pool.value + pool.half_digit)
        )
        return low, middle, high

    return asked(row, counted)


def _llama_tokens(row: Row) -> Compared:
    """The other way round: the context sets the bytes, so the tokens are those of the context, in the proportion of
    the bytes that the engine printed to the bytes that the rule gives."""
    pool = row.printed("kv_cache_gib")
    tokens = row.whole("kv_cache_tokens", row.whole("max_model_len"))
    found = asked(row, _llama_bytes) / GIB
    if not found:
        raise UnusableError("the model keeps nothing between steps")
    return Compared(
        row=row.number,
        engine=row.engine,
        estimated=tokens * pool.value / found,
        printed=tokens,
        within_rounding=abs(found - pool.value) <= pool.half_digit * (1 + 1e-9),
    )


def _llama_bytes(row: Row) -> int:
    """What the engine prints as its cache; states of recurrent layers have a line of their own."""
    kinds = {"bf16": "f16", "fp8": "f16"}
    cache_type = kinds.get(row.kv_precision, row.kv_precision)
    steps = re.search(r"\bubatch (\d+)", row.note)
    context = LlamaContext(
        tokens=row.whole("max_model_len"),
        sequences=row.whole("max_num_seqs", 1),
        micro_batch=int(steps[1]) if steps else 512,
        unified="stream" not in row.note,
        full_windows=row.engine == "ik_llama.cpp" or "swa-full" in row.note,  # the fork knows no other
        key_type=cache_type,
        value_type=cache_type,
    )
    architecture = row.architecture()
    if "mla=0" in row.note:
        runs = tuple(
            replace(run, mixers=tuple(_expanded(one) for one in run.mixers)) for run in architecture.layer_runs
        )
        architecture = replace(architecture, runs=runs)
    buffers = cache_buffers(architecture, context)
    cells = [buffer.bytes for buffer in buffers if buffer.name != "state"]
    return sum(cells or (buffer.bytes for buffer in buffers))


def _expanded(mixer: Mixer) -> Mixer:
    """ik_llama.cpp with ``-mla 0``: latent attention as the keys and values of every head."""
    if not isinstance(mixer, LatentAttention):
        return mixer
    return PagedAttention(
        heads=mixer.heads,
        kv_heads=mixer.heads,
        key_dim=mixer.nope_dim + mixer.rope_dim,
        value_dim=mixer.value_dim,
    )
