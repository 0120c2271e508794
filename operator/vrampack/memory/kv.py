"""KV cache: whole blocks, as vLLM allots them."""

from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import KV_BLOCK_TOKENS, KV_ELEMENT_BYTES, NULL_BLOCKS


def kv_heads_per_rank(architecture: Architecture, *, tensor: int) -> int:
    """KV heads that one rank stores. With more ranks than heads every rank keeps one: they are copied, not split."""
    return max(1, architecture.kv_heads // tensor)


def kv_bytes_per_token(architecture: Architecture, *, tensor: int, precision: str) -> int:
    """Bytes per token and GPU: a K and a V vector of each local head in each layer."""
    heads = kv_heads_per_rank(architecture, tensor=tensor)
    return 2 * architecture.layers * heads * architecture.head_dim * KV_ELEMENT_BYTES[precision]


def blocks_of(tokens: int) -> int:
    """Blocks that one sequence of ``tokens`` occupies."""
    return -(-tokens // KV_BLOCK_TOKENS)


def kv_blocks(*, concurrency: int, tokens_per_sequence: int, context_length: int) -> int:
    """Blocks of the pool: every resident sequence, at least one of full length, and the null block."""
    return max(concurrency * blocks_of(tokens_per_sequence), blocks_of(context_length)) + NULL_BLOCKS


def printed_concurrency(*, blocks: int, context_length: int) -> str:
    """vLLM's "Maximum concurrency" line: pool over blocks of one full-length request, two digits."""
    return f"{blocks / blocks_of(context_length):.2f}"
