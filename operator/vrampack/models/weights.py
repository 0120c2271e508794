"""From the tensors of a checkpoint to the bytes that the engine loads."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.constants import DTYPE_BYTES, WEIGHT_BITS
from vrampack.models.safetensors import DTYPE_BITS, Tensor

_UNUSED: Final = re.compile(r"rotary_emb\.inv_freq$|\.(attn|attention)\.(bias|masked_bias)$")
"""Buffers of older checkpoints that engines compute themselves."""
_HEAD: Final = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_TABLE: Final = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings)\.weight$")
_WHOLE: Final = re.compile(r"(^|\.)wpe\.weight$|\.(mlp|block_sparse_moe)\.(gate|shared_expert_gate)\.weight$")
"""Matrices that every rank holds in full: learned positions and routers."""
_SIDE: Final = re.compile(r"scale|zero|g_idx|absmax|quant_map|quant_state|_shape$|input_global")
"""Tensors that belong to a quantized matrix and are no parameters of the model."""

_TYPES: Final[dict[str, str]] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def stored_dtype(tensors: Mapping[str, Tensor]) -> str | None:
    """The computation type that most bytes are stored in; None where they are stored in none."""
    by_dtype = Counter[str]()
    for tensor in tensors.values():
        if tensor.dtype in _TYPES:
            by_dtype[_TYPES[tensor.dtype]] += tensor.bytes
    return max(by_dtype, key=lambda dtype: (by_dtype[dtype], dtype), default=None)


def matrix_types(tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Types of the tensors that weigh: those with two dimensions or more."""
    return frozenset(tensor.dtype for name, tensor in tensors.items() if len(tensor.shape) > 1 and not _skip(name))


def bytes_by_dtype(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """What the files hold, byte by byte, loaded or not."""
    by_dtype = Counter[str]()
    for tensor in tensors.values():
        by_dtype[tensor.dtype] += tensor.bytes
    return dict(sorted(by_dtype.items()))


def weights_of(tensors: Mapping[str, Tensor], *, architecture: Architecture, precision: str) -> Weights:
    """Sum of what is loaded: an output head that is tied, and buffers that engines compute themselves, are not."""
    quantized = precision not in ("fp32", "fp16", "bf16")
    total = parameters = embedding = replicated = 0
    for name, tensor in _loaded(tensors, architecture):
        size = tensor.bytes if quantized else tensor.elements * DTYPE_BYTES[architecture.dtype]
        total += size
        parameters += _parameters(name, tensor, precision) if quantized else tensor.elements
        if len(tensor.shape) == 2 and (_TABLE.search(name) or _HEAD.search(name)):
            embedding += size
        elif len(tensor.shape) < 2 or _WHOLE.search(name):
            replicated += size
    return Weights(total=total, parameters=parameters, precision=precision, embedding=embedding, replicated=replicated)


def _loaded(tensors: Mapping[str, Tensor], architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        if _skip(name) or (architecture.tied_embeddings and _HEAD.search(name)):
            continue
        yield name, tensor


def _skip(name: str) -> bool:
    return _UNUSED.search(name) is not None


def _parameters(name: str, tensor: Tensor, precision: str) -> int:
    """Parameters of a quantized model in one tensor: several in an element of a packed one, none in a side tensor."""
    if _SIDE.search(name):
        return 0
    packed = tensor.dtype in ("I32", "U32", "U8") and WEIGHT_BITS[precision] == 4
    return tensor.elements * (DTYPE_BITS[tensor.dtype] // 4 if packed else 1)
