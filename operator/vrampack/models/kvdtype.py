"""What the checkpoint's quantization makes of the engine's ``--kv-cache-dtype auto``.

Source: ``resolve_kv_cache_dtype_string`` and the attention layer of vLLM. Where config.json has a quantization, that
alone counts: the side file is read only without one.
"""

from collections.abc import Mapping
from typing import Final

from vrampack.models.fields import Fields

_ALGORITHMS: Final[dict[str, str]] = {"fp8": "fp8", "nvfp4": "nvfp4"}


def kv_cache_dtype_of(root: Fields, text: Fields, side: Mapping[str, object] | None) -> str:
    """``fp8`` or ``nvfp4``; empty: the KV cache has the computation type."""
    for fields in (root, text):
        for name in ("quantization_config", "compression_config"):
            settings = fields.below(name)
            if settings is not None:
                return _of(settings, settings.get("quant_method"))
    if side is None:
        return ""
    return _of(Fields(side, path="hf_quant_config.json:"), "modelopt")


def _of(settings: Fields, method: object) -> str:
    """ModelOpt names an algorithm or describes it; compressed-tensors has one scheme, fp8."""
    if method == "compressed-tensors":
        return "fp8" if settings.get("kv_cache_scheme") is not None else ""
    if not isinstance(method, str) or not method.startswith("modelopt"):
        return ""
    nested = settings.below("quantization") if isinstance(settings.get("quantization"), Mapping) else None
    inner = settings if nested is None else nested
    for name in ("kv_cache_scheme", "kv_cache_quant_algo"):
        for fields in (inner, settings):
            if found := fields.get(name):
                return _of_algorithm(found)
    return ""


def _of_algorithm(found: object) -> str:
    if isinstance(found, str):
        return _ALGORITHMS.get(found.lower(), "")
    if not isinstance(found, Mapping) or found.get("type") != "float":
        return ""
    if found.get("dynamic") is False and found.get("num_bits") == 8:
        return "fp8"
    return "nvfp4" if found.get("num_bits") == 4 else ""
