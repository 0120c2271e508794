"""The parts that encoders of images and sound have in common: how many elements each has."""

import math
from dataclasses import dataclass

from vrampack.models.fields import Fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A tower without what joins it to the language model."""

    elements: int
    width: int = 0
    """Elements of a vector that comes out; 0: it is joined already."""


def linear(inputs: int, outputs: int, *, bias: bool = True) -> int:
    """A matrix, and a bias as a rule."""
    return inputs * outputs + (outputs if bias else 0)


def block(
    hidden: int,
    width: int,
    *,
    gated: bool = False,
    biases: bool = True,
    norm_bias: bool = True,
    norms: int = 2,
    keys: int | None = None,
) -> int:
    """A layer of attention and a feed-forward part. ``keys``: elements of keys, and of values, where they are fewer
    than those of queries."""
    keys = hidden if keys is None else keys
    attention = 2 * linear(hidden, hidden, bias=biases) + 2 * linear(hidden, keys, bias=biases)
    ways = 2 if gated else 1
    inner = ways * linear(hidden, width, bias=biases) + linear(width, hidden, bias=biases)
    return attention + inner + norms * hidden * (2 if norm_bias else 1)


def edge(fields: Fields, *names: str, default: int | None = None, most: int = 65_536) -> int:
    """A length in pixels; of a height and a width the first."""
    for name in names:
        if isinstance(fields.get(name), list):
            return max(1, min((fields.numbers(name) or [1])[0], most))
    return fields.size(names, least=0, most=most, default=default)


def patch_elements(fields: Fields, hidden: int, *, frames: int = 1, bias: bool = True) -> int:
    """The convolution that makes a vector of each patch."""
    side = edge(fields, "patch_size", "spatial_patch_size", default=14, most=1024)
    channels = fields.size(("num_channels", "in_channels", "in_chans"), most=64, default=3)
    return linear(channels * frames * side**2, hidden, bias=bias)


def patches(fields: Fields) -> int:
    """Of an image of the size that is written."""
    side = edge(fields, "patch_size", default=14, most=1024)
    sizes = fields.numbers("image_size") if isinstance(fields.get("image_size"), list) else None
    if sizes:
        return math.prod(min(max(size, 0), 65_536) // max(side, 1) for size in sizes[:2])
    return (fields.size(("image_size",), least=0, most=65_536, default=0) // max(side, 1)) ** 2


def layers_of(fields: Fields, *names: str) -> int:
    """How many layers there are."""
    return fields.size(names or ("num_hidden_layers",), most=1024)
