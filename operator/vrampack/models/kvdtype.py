"""What the checkpoint's quantization makes of the engine's ``--kv-cache-dtype auto``."""

from collections.abc import Mapping
from typing import Final

from vrampack.models.fields import Fields

_ALGORITHMS: Final[dict[str, str]] = {"fp8": "fp8", "nvfp4": "nvfp4"}
_MODELOPT: Final = frozenset({"FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4", "MIXED_PRECISION"})
"""``quant_algo`` in the producer's own layout, where there is no ``quant_method``."""


def kv_cache_dtype_of(root: Fields, text: Fields, side: Mapping[str, object] | None) -> str:
    """``fp8`` or ``nvfp4``; empty: the KV cache has the computation type.

    ``side`` is ``hf_quant_config.json``: it counts only where config.json has no quantization of its own.
    """
    settings = root.below("quantization_config")
    if settings is None and side is not None:
        settings = Fields(side, path="hf_quant_config.json:")
    if settings is not None and _is_modelopt(settings):
        return _modelopt(settings)
    for fields in (root, text):
        for name in ("quantization_config", "compression_config"):
            settings = fields.below(name)
            if settings is not None and _method(settings) in ("compressed-tensors", "compressed_tensors"):
                return "fp8" if isinstance(settings.get("kv_cache_scheme"), Mapping) else ""
    return ""


def _method(settings: Fields) -> str:
    method = settings.get("quant_method")
    return method.lower() if isinstance(method, str) else ""


def _inner(settings: Fields) -> Fields | None:
    return settings.below("quantization") if isinstance(settings.get("quantization"), Mapping) else None


def _is_modelopt(settings: Fields) -> bool:
    if _method(settings).startswith("modelopt"):
        return True
    inner, producer = _inner(settings), settings.get("producer")
    own = isinstance(producer, Mapping) and producer.get("name") == "modelopt"
    if inner is None or not (own or inner.has("modelopt_quant_config")):
        return False
    return str(inner.get("quant_algo")).upper() in _MODELOPT


def _modelopt(settings: Fields) -> str:
    """A name, or the bits of a scheme; what is not known leaves the computation type."""
    inner = _inner(settings) or settings
    for fields, name in ((inner, "kv_cache_scheme"), (settings, "kv_cache_scheme")):
        if found := fields.get(name):
            return _scheme(found)
    found = inner.get("kv_cache_quant_algo") or settings.get("kv_cache_quant_algo")
    return _scheme(found)


def _scheme(found: object) -> str:
    if isinstance(found, str):
        return _ALGORITHMS.get(found.lower(), "")
    if not isinstance(found, Mapping) or found.get("type") != "float":
        return ""
    if found.get("num_bits") == 8 and found.get("dynamic") is False:
        return "fp8"
    return "nvfp4" if found.get("num_bits") == 4 else ""
