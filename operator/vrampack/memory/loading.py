"""What loading needs beyond what is served: conversion of whole checkpoints, and tensors laid out anew for a kernel."""

from dataclasses import replace
from typing import Final

from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.constants import DTYPE_BYTES
from vrampack.memory.releases import release_of
from vrampack.memory.weightformat import WeightFormat
from vrampack.memory.weights import laid_out, largest_tensor_bytes, reserved_bytes, weights_from_architecture
from vrampack.memory.workload import Workload

_ONLINE: Final = WeightFormat(precision="fp8", bits=8, group=-1)
"""One scale for each matrix: ``--quantization fp8`` of vLLM over a checkpoint that is not quantized."""

_STREAMED: Final = (0, 15, 0)
"""Read: since this release of vLLM a layer is converted as soon as it is loaded (its pull request 31914). Before, the
whole model lay there in its own type first: Qwen1.5-MoE-A2.7B printed a peak of 26.7 GiB for 13.9 GiB of fp8."""

_LAID_OUT_ANEW: Final = frozenset({"awq", "gptq", "int4", "int8", "mxfp4", "nvfp4", "fp8"})
"""Read: what vLLM's ``process_weights_after_loading`` copies for Marlin, CUTLASS or FlashInfer, tensor by tensor: while
it does, the old and the new one are there. bitsandbytes is loaded as it is served."""


def quantized_online(architecture: Architecture, weights: Weights) -> Weights:
    """The weights of a checkpoint that is not quantized, as the engine serves them in fp8: all matrices of the layers
    are converted while they are loaded; tables, heads, routers and towers are not."""
    before = weights_from_architecture(architecture, precision=weights.precision)
    after = weights_from_architecture(architecture, precision="fp8", forms=lambda _layer, _name: _ONLINE)
    return replace(
        weights,
        total=weights.total - before.total + after.total,
        precision="fp8",
        embedding=weights.embedding or after.embedding,
        replicated=weights.replicated - before.replicated + after.replicated if weights.replicated else 0,
        converted=weights.total,
        layers=(),
        census=(),
        before=(),
        after=(),
    )


def loading_peak_bytes(architecture: Architecture, weights: Weights, workload: Workload) -> int:
    """The most that a rank holds while it loads. Never less than ``reserved_bytes``."""
    layout = laid_out(architecture, weights)
    served = reserved_bytes(architecture, layout, workload)
    return served + _on_top(architecture, layout, workload, served=served)


def claimed_bytes(architecture: Architecture, weights: Weights, workload: Workload, *, besides: int) -> int:
    """What to set aside for the weights where ``besides`` bytes are for what comes after loading: KV cache, activations
    and graphs. While the engine loads, none of that is there yet, and its room serves what loading needs on top."""
    layout = laid_out(architecture, weights)
    served = reserved_bytes(architecture, layout, workload)
    return served + max(0, _on_top(architecture, layout, workload, served=served) - besides)


def _on_top(architecture: Architecture, layout: Weights, workload: Workload, *, served: int) -> int:
    if not layout.converted and layout.precision not in _LAID_OUT_ANEW:
        return 0
    largest = largest_tensor_bytes(layout, workload)
    if not layout.converted:
        return largest
    if release_of(workload.engine_version) >= _STREAMED:
        return 8 * DTYPE_BYTES[architecture.dtype] // _ONLINE.bits * largest
    return served * layout.converted // layout.total - served + largest
