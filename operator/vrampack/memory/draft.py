"""A second model beside the one that is served: it drafts tokens, which the first one checks (speculative decoding).

It is loaded with the first one, on the ranks of the last pipeline stage and split as it is; its attention layers have
their cache in the same pool of blocks; and each step runs it over the same batch. vLLM lets it use the first model's
tables where its files hold none, or equal ones (``_maybe_share_embeddings``): the former is counted, the latter can't
be known from headers, so that such a draft is estimated by its table too high.
"""

from dataclasses import dataclass, replace
from typing import Final

from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.workload import SECOND_MODEL, Workload

FIELD: Final = "spec.speculation.draftModel"

EAGLE3_STATES: Final = 3
"""Read: hidden states of the first model, of a low, a middle and a high layer, that EAGLE-3 drafts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The model that drafts."""

    architecture: Architecture
    weights: Weights


def draft_of(workload: Workload) -> Draft | None:
    """The second model, where the method needs one. Raises InvalidInputError where it is not given."""
    if workload.speculation not in SECOND_MODEL:
        return None
    if not isinstance(workload.draft, Draft):
        raise InvalidInputError(
            field=FIELD, value=None, allowed=f"{workload.speculation} drafts with a second model: name it"
        )
    return workload.draft


def draft_workload(workload: Workload) -> Workload:
    """The same load, as the model that drafts sees it: all of it is on one stage, and it draws no images."""
    return replace(
        workload,
        pipeline=1,
        expert=False,
        speculation="",
        speculative_tokens=0,
        draft=None,
        lora_adapters=0,
        lora_rank=0,
        text_only=True,
        headroom_percent=0,
    )
