"""vLLM's sampling step: what it keeps beside the logits, counted from the tensors that its source makes.

All logits of a step are on every rank, whatever the tensor parallelism. One *copy* is a number of 4 bytes for each row
and each word of the vocabulary.
"""

from typing import Final

from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import SAMPLER_PROGRAMS
from vrampack.memory.layers import RecurrentState
from vrampack.memory.releases import release_of
from vrampack.memory.vllm.dtypes import served_dtype
from vrampack.memory.vllm.pages import dtype_bytes
from vrampack.memory.workload import Workload

_COPY: Final = 4

SORTED_UNTIL: Final = (0, 17, 0)
"""Since this release top-k and top-p are selected by kernels that need no sorted copy (Triton, then FlashInfer)."""
SECOND_RUNNER: Final = (0, 29, 0)
"""Since this release the second model runner is the default, which keeps statistics for penalties on the GPU …"""
SECOND_RUNNER_DENSE: Final = (0, 27, 0)
"""… and since this one for dense models without recurrent states (``use_v2_model_runner`` of 0.27.1, 0.28.0, 0.30.0;
0.22.0 had it for one family)."""

_SORT: Final = 8
"""Copies that PyTorch's segmented sort of floats makes: the values, their 64-bit indices (2), as many to start from
(2), and the radix sort's own buffer of values and indices (3). With the logits in 16 and in 32 bit that is 9.5."""
_FULL_SORT: Final = 11
"""The same for fewer than ``_SEGMENTS`` rows, which PyTorch sorts all together: values, indices (2), pairs of index
and row twice (4), a second set of keys, and the radix sort's buffer (3)."""
_SEGMENTS: Final = 128

_SELECTED: Final = 2
"""Copies that sampling without a sort makes: masked logits or noise, and probabilities."""


def sampler_bytes(architecture: Architecture, workload: Workload) -> int:
    """Peak of one step that samples for every sequence, hidden states aside. Nothing for models that answer with
    vectors."""
    if architecture.pooling:
        return 0
    rows = sampled_rows(workload)
    row = architecture.vocab_size * _COPY
    logits = dtype_bytes(served_dtype(architecture, workload)) / _COPY
    converted = 1 if logits < 1 else 0
    if release_of(workload.engine_version) < SORTED_UNTIL:
        few = min(rows, _SEGMENTS - 1)  # a step may always have fewer
        return int(max((logits + converted + _SORT) * rows, (logits + converted + _FULL_SORT) * few) * row)
    # The kernels that select have a row of scratch for each of their programs, which stays.
    return int((logits + converted + _SELECTED) * rows * row) + min(rows, SAMPLER_PROGRAMS) * row


def sampler_state_bytes(architecture: Architecture, workload: Workload) -> int:
    """What the second model runner keeps from start to end: for each sequence, how often each word was written, and
    one bit for each word of the prompt."""
    first = SECOND_RUNNER_DENSE if _is_plain(architecture) else SECOND_RUNNER
    if architecture.pooling or release_of(workload.engine_version) < first:
        return 0
    return workload.concurrency * (architecture.vocab_size * _COPY + -(-architecture.vocab_size // 32) * 4)


def _is_plain(architecture: Architecture) -> bool:
    """Dense, and without recurrent states."""
    states = any(isinstance(mixer, RecurrentState) for run in architecture.kinds for mixer in run.mixers)
    return not architecture.experts and not states


def sampled_rows(workload: Workload) -> int:
    """Rows of logits in one step: one for each sequence, and one for each token that it speculates on."""
    return min(workload.concurrency * (1 + workload.speculative_tokens), workload.max_batched_tokens)
