"""Activations: the peak of one step, as the engine measures it at start to size its budget.

The start-up run encodes images, then runs a forward pass over a full batch, then samples for every sequence. What each
holds is counted from the engine's source; only workspaces of libraries are constants.
"""

from vrampack.memory.architecture import Architecture
from vrampack.memory.constants import LIBRARY_WORKSPACE
from vrampack.memory.draft import EAGLE3_STATES, Draft, draft_of, draft_workload
from vrampack.memory.forward import forward_elements, image_elements, latent_workspace_elements
from vrampack.memory.sampler import sampled_rows, sampler_bytes, sampler_state_bytes
from vrampack.memory.vllm.dtypes import served_dtype
from vrampack.memory.vllm.pages import dtype_bytes
from vrampack.memory.workload import Workload


def activation_bytes(architecture: Architecture, workload: Workload) -> int:
    """Peak bytes per GPU of the largest of the three steps, with what lasts through all."""
    element = dtype_bytes(served_dtype(architecture, workload))
    batch = workload.max_batched_tokens * architecture.hidden_size
    aside = EAGLE3_STATES * batch if workload.speculation == "eagle3" else 0
    forward = forward_elements(architecture, workload) + latent_workspace_elements(architecture, workload) + aside
    # While it samples, the engine still has the hidden states of the batch, and twice those of the sampled rows.
    hidden = batch + 2 * sampled_rows(workload) * architecture.hidden_size + aside
    encoded, encoding = image_elements(architecture, workload)
    peak = max(encoding * element, forward * element, sampler_bytes(architecture, workload) + hidden * element)
    if draft := draft_of(workload):
        peak = max(peak, (batch + aside) * element + _drafting_bytes(draft, workload))
    return peak + encoded * element + sampler_state_bytes(architecture, workload) + LIBRARY_WORKSPACE


def _drafting_bytes(draft: Draft, workload: Workload) -> int:
    """Of the model that drafts, beside the hidden states that it drafts from: its forward pass over the same batch,
    whose input is a state and a token's vector; or the logits of all heads of Medusa for every sequence."""
    element = dtype_bytes(served_dtype(draft.architecture, workload))
    hidden, load = draft.architecture.hidden_size, draft_workload(workload)
    if workload.speculation == "medusa":
        return workload.concurrency * draft.architecture.layers * (draft.architecture.vocab_size + hidden) * element
    joined = 2 * hidden if workload.speculation != "draft" else 0
    return (forward_elements(draft.architecture, load) + workload.max_batched_tokens * joined) * element
