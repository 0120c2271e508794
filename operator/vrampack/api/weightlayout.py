"""ModelProfile: the tensors of a model one by one, as the engine holds them."""

from typing import Annotated, Final

from pydantic import Field

from vrampack.api.common import ApiModel
from vrampack.api.modellayers import MAX_LAYERS

MAX_LAYOUT_KINDS: Final = 64
MAX_LAYOUT_TENSORS: Final = 128
MAX_TENSOR_TEXT: Final = 512
_TENSOR_PATTERN: Final = (
    r"^(~ ?)?[0-9]{1,16} (whole|tensor|heads|vocabulary|shared|expert)(/[0-9]{1,9}){0,3}"
    r"( [+] [0-9]{1,16} (whole|tensor|heads|vocabulary|shared|expert)(/[0-9]{1,9}){0,3}){0,15}$"
)
LoadedTensorText = Annotated[str, Field(max_length=MAX_TENSOR_TEXT, pattern=_TENSOR_PATTERN)]
"""A tensor as the engine holds it, in words: ``~ 8192 whole``, ``33554432 tensor + 8388608 heads/8``."""


class LayoutRun(ApiModel):
    """Layers in a row that hold the same tensors."""

    kind: str = Field(min_length=1, max_length=16)
    """Name of their kind."""
    count: int = Field(ge=1, le=MAX_LAYERS)
    """How many layers."""


class WeightLayout(ApiModel):
    """The tensors as the engine holds them, since what a GPU holds depends on how each is split. A tensor is the sum of
    its parts: bytes of the whole model and how they are split (whole, tensor, heads/HEADS, vocabulary/ROWS, shared,
    expert/EXPERTS, and expert/EXPERTS/WIDTH/ALIGNMENT where a kernel pads the share of a GPU). One that begins with ~
    is several small ones together."""

    kinds: dict[str, Annotated[tuple[LoadedTensorText, ...], Field(max_length=MAX_LAYOUT_TENSORS)]] = Field(
        max_length=MAX_LAYOUT_KINDS
    )
    """The tensors of a layer of each kind."""
    order: tuple[LayoutRun, ...] = Field(max_length=MAX_LAYERS)
    """The layers from the first to the last."""
    before: tuple[LoadedTensorText, ...] = Field(default=(), max_length=MAX_LAYOUT_TENSORS)
    """What the first pipeline stage holds besides: the embedding table."""
    towers: tuple[LoadedTensorText, ...] = Field(default=(), max_length=MAX_LAYOUT_TENSORS)
    """Vision and audio towers."""
    after: tuple[LoadedTensorText, ...] = Field(default=(), max_length=MAX_LAYOUT_TENSORS)
    """What the last pipeline stage holds besides: the last norm, the output head."""
