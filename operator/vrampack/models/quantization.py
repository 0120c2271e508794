"""Which precision a checkpoint is stored in, as ``spec.precision.weights`` names it."""

from collections.abc import Mapping, Set
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.models.fields import Fields

_COMPUTATION: Final[dict[str, str]] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_METHODS: Final[dict[str, str]] = {
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "awq": "awq",
    "gptq": "gptq",
    "bitsandbytes": "bitsandbytes",
    "mxfp4": "mxfp4",
}
_COMPRESSED_FORMATS: Final[dict[str, str]] = {
    "float-quantized": "fp8",
    "int-quantized": "int8",
    "nvfp4-pack-quantized": "nvfp4",
}
_PLAIN_TYPES: Final = frozenset({"F64", "F32", "F16", "BF16"})


def precision_of(config: Mapping[str, object], *, dtype: str, matrix_types: Set[str]) -> str:
    """The precision of the weights as they are served.

    Without a quantization it is the computation type ``dtype``, whatever the files hold: the engine converts as it
    loads. ``matrix_types`` are the types of the tensors with two dimensions or more.
    Raises UnsupportedModelError for formats whose memory is not known, and for a KV cache that the checkpoint decides.
    """
    fields = Fields(config)
    settings = fields.below("quantization_config") or fields.below("compression_config")
    if settings is None:
        others = matrix_types - _PLAIN_TYPES
        if others:
            raise UnsupportedModelError(
                unknown="quantization_config",
                detail=f"config.json names no quantization, but the weights hold {', '.join(sorted(others))}",
            )
        return _COMPUTATION[dtype]
    for name in ("kv_cache_scheme", "kv_cache_quant_algo"):
        if settings.get(name):
            raise UnsupportedModelError(
                unknown=f"quantization_config.{name}",
                detail="a checkpoint that chooses the KV cache's precision itself",
            )
    method = settings.text("quant_method")
    if method == "compressed-tensors":
        layout = settings.text("format")
        if layout in _COMPRESSED_FORMATS:
            return _COMPRESSED_FORMATS[layout]
        raise UnsupportedModelError(
            unknown=f"quantization_config.format {layout}", detail="the layout of its weights is not known yet"
        )
    if method not in _METHODS:
        raise UnsupportedModelError(
            unknown=f"quantization_config.quant_method {method}", detail="the layout of its weights is not known yet"
        )
    bits = settings.get("bits")
    if method in ("awq", "gptq") and bits != 4:
        raise UnsupportedModelError(
            unknown=f"quantization_config.bits {bits}", detail=f"only 4 bits of {method} are known yet"
        )
    return _METHODS[method]
