"""The types that vLLM computes in and keeps K and V in when it is left to choose."""

from typing import Final

from vrampack.memory.architecture import Architecture
from vrampack.memory.vllm.pages import dtype_bytes
from vrampack.memory.vllm.versions import rules_of
from vrampack.memory.workload import Workload

AUTO: Final = "auto"
_PRECISION: Final = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_DTYPE: Final = {precision: dtype for dtype, precision in _PRECISION.items()}


def served_dtype(architecture: Architecture, workload: Workload) -> str:
    """The computation type: that of a plain KV cache where one is asked for, because the engine keeps both alike;
    else that of ``--dtype auto``, which serves float32 checkpoints in 16 bit.

    Source: ``_resolve_auto_dtype`` of vLLM. Raises UnsupportedModelError for a type whose size is not known.
    """
    if workload.kv_cache_precision in _DTYPE:
        return _DTYPE[workload.kv_cache_precision]
    dtype = architecture.dtype.removeprefix("torch.")
    dtype_bytes(dtype)
    if dtype == "float32":
        return "float16" if architecture.pooling else "bfloat16"
    return dtype


def cache_precision(architecture: Architecture, workload: Workload) -> str:
    """The precision of K and V: as asked, or what ``auto`` makes of the checkpoint."""
    own = architecture.class_name in rules_of(workload.engine_version).own_precision
    if workload.kv_cache_precision != AUTO and not own:
        return workload.kv_cache_precision
    return (not own and architecture.kv_cache_dtype) or _PRECISION[served_dtype(architecture, workload)]
