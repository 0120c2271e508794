"""The status of a ModelProfile: its facts in words, for the columns of kubectl."""

from typing import Final

from vrampack.api.modelprofile import ModelProfileSpec, ModelProfileStatus, ProfileSummary
from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture
from vrampack.memory.kv import kv_figures
from vrampack.memory.vllm.dtypes import AUTO
from vrampack.memory.workload import Workload
from vrampack.planning.facts import architecture_and_weights
from vrampack.units import human_bytes

_CONTEXT: Final = 131072
"""Tokens: the length of a sequence where the checkpoint does not say how long they may be."""
_SCALES: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def profile_status(spec: ModelProfileSpec, *, generation: int) -> ModelProfileStatus:
    """Raises InvalidInputError, with the field, for figures that contradict each other."""
    architecture, weights = architecture_and_weights(spec)
    return ModelProfileStatus(
        observed_generation=generation,
        summary=ProfileSummary(
            parameters=_in_short(spec.parameters),
            weights=human_bytes(weights.total),
            kv_per_token=_kv_per_token(architecture),
        ),
    )


def _kv_per_token(architecture: Architecture) -> str:
    """Of one token of a sequence of the longest length: layers with a window and states share theirs out. Empty for a
    model that vLLM could not cache: what is wrong with it is said where it is asked for."""
    context = architecture.max_context or _CONTEXT
    workload = Workload(
        context_length=context,
        concurrency=1,
        tokens_per_sequence=context,
        max_batched_tokens=1,
        kv_cache_precision=AUTO,
    )
    try:
        return human_bytes(kv_figures(architecture, workload).bytes_per_token)
    except (InvalidInputError, UnsupportedModelError):
        return ""


def _in_short(count: int) -> str:
    """``8.03B``, as models are named."""
    for scale, suffix in _SCALES:
        if count >= scale:
            return f"{count / scale:.2f}{suffix}"
    return str(count)
