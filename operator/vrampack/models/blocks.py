"""Models whose layers were cut down one by one (Nemotron-NAS): every layer has its own heads and its own width."""

from collections.abc import Mapping
from dataclasses import dataclass

from vrampack.errors import UnsupportedModelError
from vrampack.models.fields import MAX_ITEMS, MAX_SIZE, Fields
from vrampack.units import round_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One layer. 0: it has no such part."""

    heads_in_group: int
    """Query heads for each KV head."""
    width: int


def blocks_of(text: Fields, *, layers: int, hidden: int) -> list[Block] | None:
    """``block_configs``, or None where there are none.

    Raises UnsupportedModelError for layers that were replaced by something else.
    """
    listed = text.get("block_configs")
    if listed is None:
        return None
    if not isinstance(listed, list) or not layers <= len(listed) <= MAX_ITEMS:
        raise text.refusal("block_configs", listed, f"a list of {layers} layers")
    blocks = []
    for item in listed[:layers]:
        if not isinstance(item, Mapping):
            raise text.refusal("block_configs", item, "an object for each layer")
        blocks.append(_block(text.inside("block_configs", item), hidden=hidden))
    return blocks


def _block(block: Fields, *, hidden: int) -> Block:
    attention, mlp = block.below("attention"), block.below("ffn")
    if attention is None or mlp is None:
        raise UnsupportedModelError(
            unknown="block_configs", detail="only layers that are described by attention and ffn are known"
        )
    for part in (attention, mlp):
        if part.get("replace_with_linear") or part.get("window_length") or part.get("unshifted_sink"):
            raise UnsupportedModelError(
                unknown="block_configs", detail="layers that were replaced by a linear or windowed one are not known"
            )
    group = 0 if attention.flag("no_op", default=False) else attention.size(("n_heads_in_group",))
    if mlp.flag("no_op", default=False):
        return Block(heads_in_group=group, width=0)
    if mlp.get("intermediate_size") is not None:
        return Block(heads_in_group=group, width=mlp.size(("intermediate_size",)))
    factor = mlp.number("ffn_mult", least=0, most=1024, default=0)
    width = round_up(int(2 * factor * hidden / 3), 256)
    if not 0 < width <= MAX_SIZE:
        raise mlp.refusal("ffn_mult", factor, "a number above 0")
    return Block(heads_in_group=group, width=width)
