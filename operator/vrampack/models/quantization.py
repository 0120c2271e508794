"""Which precision a checkpoint is stored in, from its configuration: the word of ``spec.precision.weights``, and how
its matrices are laid out.

The settings stand in ``quantization_config`` (or ``compression_config``) of config.json, or of its text part, or in
the side file ``hf_quant_config.json`` that ModelOpt writes.
"""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.models.fields import Fields
from vrampack.models.identity import text_parts
from vrampack.models.kvdtype import kv_cache_dtype_of
from vrampack.models.modulenames import ModuleNames
from vrampack.models.quantformats import MXFP4
from vrampack.models.quantmethods import READERS
from vrampack.models.quantscheme import Quantization

__all__ = ["Quantization", "precision_of", "quantization_of"]

_COMPUTATION: Final[dict[str, str]] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_PLAIN_TYPES: Final = frozenset({"F64", "F32", "F16", "BF16"})


def quantization_of(
    config: Mapping[str, object], *, quant_config: Mapping[str, object] | None = None
) -> Quantization | None:
    """What a config.json, and the side file ``hf_quant_config.json`` where there is one, say of quantization.

    None: nothing is quantized. Raises UnsupportedModelError for formats whose layout is not known, and
    InvalidInputError for values of a wrong type.
    """
    settings = _settings(config, quant_config)
    if settings is None:
        return None
    method = (settings.text("quant_method") or ("modelopt" if settings.get("quant_algo") else "")).lower()
    if method.startswith("modelopt"):
        method = "modelopt"
    if settings.get("quantized_layers"):
        method = "modelopt"  # a file may name the method of the layers that are not listed
    reader = READERS.get(method)
    if reader is None:
        raise UnsupportedModelError(
            unknown=f"quantization_config.quant_method {method or None}",
            detail="the layout of its weights is not known yet",
        )
    found = replace(reader(settings), kv_cache=_kv_cache(config, quant_config))
    if method == "fp8" and Fields(config).get("expert_dtype") == "fp4":  # DeepSeek V4: the experts alone
        experts = (ModuleNames.of(("experts",)), MXFP4)
        return replace(found, precision="mxfp4", others=(experts, *found.others))
    return found


def _kv_cache(config: Mapping[str, object], quant_config: Mapping[str, object] | None) -> str:
    parts = text_parts(Fields(config))
    return kv_cache_dtype_of(parts[0], parts[-1], quant_config)


def precision_of(
    config: Mapping[str, object],
    *,
    dtype: str,
    matrix_types: Set[str],
    quant_config: Mapping[str, object] | None = None,
) -> str:
    """The precision of the weights as they are served.

    Without a quantization it is the computation type ``dtype``, whatever the files hold: the engine converts as it
    loads. ``matrix_types`` are the types of the tensors with two dimensions or more.
    Raises UnsupportedModelError for formats whose memory is not known.
    """
    quantization = quantization_of(config, quant_config=quant_config)
    if quantization is not None:
        return quantization.precision
    others = matrix_types - _PLAIN_TYPES
    if others:
        raise UnsupportedModelError(
            unknown="quantization_config",
            detail=f"config.json names no quantization, but the weights hold {', '.join(sorted(others))}",
        )
    return _COMPUTATION[dtype]


def _settings(config: Mapping[str, object], quant_config: Mapping[str, object] | None) -> Fields | None:
    for fields in text_parts(Fields(config)):
        for name in ("quantization_config", "compression_config"):
            if (settings := fields.below(name)) is not None:
                return settings
    if quant_config is None:
        return None
    side = Fields(quant_config, path="hf_quant_config.json:")
    return side.below("quantization") or (side if side.get("quant_algo") else None)
