"""The status of a ModelProfile: its facts in words, for the columns of kubectl."""

from typing import Final

from vrampack.api.modelprofile import ComputeType, ModelProfileSpec, ModelProfileStatus, ProfileSummary
from vrampack.memory.kv import kv_bytes_per_token
from vrampack.planning.facts import architecture_and_weights
from vrampack.units import human_bytes

_KV_PRECISION: Final = {ComputeType.BFLOAT16: "bf16", ComputeType.FLOAT16: "fp16", ComputeType.FLOAT32: "fp32"}
_SCALES: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def profile_status(spec: ModelProfileSpec, *, generation: int) -> ModelProfileStatus:
    """Raises InvalidInputError, with the field, for figures that contradict each other."""
    architecture, weights = architecture_and_weights(spec)
    kv_per_token = kv_bytes_per_token(architecture, tensor=1, precision=_KV_PRECISION[spec.architecture.dtype])
    return ModelProfileStatus(
        observed_generation=generation,
        summary=ProfileSummary(
            parameters=_in_short(spec.parameters),
            weights=human_bytes(weights.total),
            kv_per_token=human_bytes(kv_per_token),
        ),
    )


def _in_short(count: int) -> str:
    """``8.03B``, as models are named."""
    for scale, suffix in _SCALES:
        if count >= scale:
            return f"{count / scale:.2f}{suffix}"
    return str(count)
