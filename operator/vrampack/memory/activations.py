"""Activations: the peak of one step, as the engine measures it at start to size its budget.

The start-up run encodes images, then runs a forward pass over a full batch, then samples for every sequence. What each
holds is counted from the engine's source; only workspaces of libraries are constants.
"""

from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import LIBRARY_WORKSPACE
from vrampack.memory.forward import forward_elements, image_elements, latent_workspace_elements
from vrampack.memory.sampler import sampled_rows, sampler_bytes, sampler_state_bytes
from vrampack.memory.vllm.dtypes import served_dtype
from vrampack.memory.vllm.pages import dtype_bytes
from vrampack.memory.workload import Workload


def activation_bytes(architecture: Architecture, workload: Workload) -> int:
    """Peak bytes per GPU of the largest of the three steps, with what lasts through all."""
    element = dtype_bytes(served_dtype(architecture, workload))
    forward = forward_elements(architecture, workload) + latent_workspace_elements(architecture, workload)
    # While it samples, the engine still has the hidden states of the batch, and twice those of the sampled rows.
    hidden = (workload.max_batched_tokens + 2 * sampled_rows(workload)) * architecture.hidden_size
    encoded, encoding = image_elements(architecture, workload)
    peak = max(encoding * element, forward * element, sampler_bytes(architecture, workload) + hidden * element)
    return peak + encoded * element + sampler_state_bytes(architecture, workload) + LIBRARY_WORKSPACE
