"""What the checkpoint's quantization makes of the engine's ``--kv-cache-dtype auto``."""

from collections.abc import Mapping
from typing import Final

from vrampack.models.fields import Fields

_ALGORITHMS: Final[dict[str, str]] = {"FP8": "fp8", "FP8_E4M3": "fp8", "NVFP4": "nvfp4"}


def kv_cache_dtype_of(root: Fields, text: Fields, side: Mapping[str, object] | None) -> str:
    """``fp8`` or ``nvfp4``; empty: the KV cache has the computation type."""
    for fields in (root, text):
        for name in ("quantization_config", "compression_config"):
            settings = fields.below(name)
            if settings is not None and (found := _of(settings)):
                return found
    if side is None:
        return ""
    return _of(Fields(side, path="hf_quant_config.json:"))


def _of(settings: Fields) -> str:
    algorithm = settings.get("kv_cache_quant_algo")
    inner = settings.below("quantization") if isinstance(settings.get("quantization"), Mapping) else None
    if algorithm is None and inner is not None:
        algorithm = inner.get("kv_cache_quant_algo")
    if isinstance(algorithm, str):
        return _ALGORITHMS.get(algorithm.upper(), "")
    scheme = settings.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        bits = scheme.get("num_bits")
        return "fp8" if bits == 8 else ""
    return ""
