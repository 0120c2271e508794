"""The precision contract: what was asked for, against what the checkpoint says of itself and what its tensors are."""

from dataclasses import dataclass
from typing import Final

from vrampack.api.modeldeployment import ModelDeploymentSpec, WeightsPrecision
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.units import human_bytes

MISMATCH: Final = "PrecisionMismatch"
CONTRADICTED: Final = "PrecisionContradicted"

_PLAIN: Final = frozenset({"F64", "F32", "F16", "BF16", "BOOL", "I64"})
"""Types of weights that nothing was done to, and of the buffers and masks beside any weights."""
_UNQUANTIZED: Final = frozenset({WeightsPrecision.FP32, WeightsPrecision.BF16, WeightsPrecision.FP16})
_STORED: Final = {
    WeightsPrecision.FP8: ("F8_",),
    WeightsPrecision.INT8: ("I8", "U8", "I32", "U32"),
    WeightsPrecision.AWQ: ("I32", "U32", "I16", "I8", "U8"),
    WeightsPrecision.GPTQ: ("I32", "U32", "I16", "I8", "U8"),
    WeightsPrecision.BITSANDBYTES: ("U8", "I8"),
    WeightsPrecision.MXFP4: ("U8", "I8", "U32", "I32", "F4"),
    WeightsPrecision.NVFP4: ("U8", "I8", "U32", "I32", "F4"),
}
"""How the tensors of a quantized checkpoint may be typed in its files: whole elements, or several packed into one. A
name that ends with an underscore is a beginning."""
_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the contract holds; both precisions are named either way."""

    holds: bool
    reason: str
    message: str


def verdict(spec: ModelDeploymentSpec, facts: ModelProfileSpec) -> Verdict:
    """What was asked for against what is there."""
    wanted, found = spec.precision.weights, facts.precision
    stored = _stored(facts)
    asks = "is Auto" if wanted is WeightsPrecision.AUTO else f"asks for {wanted.value}"
    if wanted not in (WeightsPrecision.AUTO, found):
        return Verdict(
            holds=False,
            reason=MISMATCH,
            message=f"spec.precision.weights {asks}, and the checkpoint {facts.source} is {found.value}{stored}; name "
            f"a checkpoint in {wanted.value}, or ask for {found.value}",
        )
    if _contradicted(facts):
        return Verdict(
            holds=False,
            reason=CONTRADICTED,
            message=f"spec.precision.weights {asks}, and the ModelProfile of {facts.source} says {found.value}, but "
            f"its tensors are not{stored}; correct the ModelProfile, or delete it if vrampack wrote it",
        )
    return Verdict(
        holds=True,
        reason="AsAsked",
        message=f"spec.precision.weights {asks}, and the checkpoint is {found.value}{stored or ', its profile says'}",
    )


def _contradicted(facts: ModelProfileSpec) -> bool:
    """Whether the types of the tensors rule out the precision. GGUF has types of its own, which the file names, and
    precisions whose tensors may be of any type are not checked."""
    by_dtype = {dtype: size.bytes for dtype, size in facts.weight_files.by_dtype.items()}
    total = sum(by_dtype.values())
    if not total:
        return False
    types = _STORED.get(facts.precision, ())
    if facts.precision in _UNQUANTIZED:
        return 2 * sum(size for dtype, size in by_dtype.items() if dtype not in _PLAIN) >= total
    return bool(types) and not any(_is(dtype, each) for dtype in by_dtype for each in types)


def _is(dtype: str, known: str) -> bool:
    return dtype.startswith(known) if known.endswith("_") else dtype == known


def _stored(facts: ModelProfileSpec) -> str:
    """The types that weigh the most."""
    largest = sorted(facts.weight_files.by_dtype.items(), key=lambda each: (-each[1].bytes, each[0]))[:_NAMED]
    return f" ({', '.join(f'{human_bytes(size.bytes)} {dtype}' for dtype, size in largest)})" if largest else ""
