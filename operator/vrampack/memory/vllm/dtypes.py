"""The types that vLLM computes in and keeps K and V in when it is left to choose."""

from typing import Final

from vrampack.memory.architecture import Architecture
from vrampack.memory.vllm.pages import dtype_bytes
from vrampack.memory.vllm.versions import rules_of
from vrampack.memory.workload import Workload

AUTO: Final = "auto"
_PRECISION: Final = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def served_dtype(architecture: Architecture) -> str:
    """The computation type of ``--dtype auto``: float32 checkpoints are served in 16 bit.

    Source: ``_resolve_auto_dtype`` of vLLM. Raises UnsupportedModelError for a type whose size is not known.
    """
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
    return (not own and architecture.kv_cache_dtype) or _PRECISION[served_dtype(architecture)]
