"""From the tensors of GGUF files to the bytes that llama.cpp loads, and where it puts them."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from vrampack.memory.architecture import Architecture, LayerWeights, LoadedTensor, Split, WeightPart, Weights
from vrampack.memory.llamacppterms import FILE_PRECISION
from vrampack.models.gguf import GgufTensor

_LAYER: Final = re.compile(r"(?:blk|enc\.blk|dec\.blk)\.(\d+)\.")
_INPUT: Final = re.compile(r"(?:token_embd|position_embd|token_types|per_layer_token_embd)\.weight$")
"""Tables that are looked up, and stay in the memory of the host (``LLM_TENSOR_LAYER_INPUT``)."""
_TABLE: Final = "token_embd.weight"
_ROW_PADDING: Final = 512
_ALIGNMENT: Final = 128


def gguf_weights(tensors: Mapping[str, GgufTensor], *, architecture: Architecture) -> Weights:
    """The tensors of all parts of a file. Layers that predict further tokens are beside the total: they are loaded
    only for speculation with them.

    A rank of a pipeline gets whole layers; none is split, so that every part is a whole one.
    """
    trunk = _trunk(tensors, architecture)
    layers: dict[int, list[LoadedTensor]] = {layer: [] for layer in range(trunk)}
    before: list[LoadedTensor] = []
    after: list[LoadedTensor] = []
    total = predict = parameters = 0
    for name, tensor in tensors.items():
        layer = _LAYER.match(name)
        if layer is not None and int(layer[1]) >= trunk:
            predict += tensor.bytes
            continue
        total += tensor.bytes
        parameters += tensor.elements
        if layer is not None:
            layers[int(layer[1])].append(_loaded(tensor))
        elif _INPUT.match(name):
            before.append(_loaded(tensor, rows=name == _TABLE))
        else:
            after.append(_loaded(tensor))
    table = tensors.get(_TABLE)
    if table is not None and architecture.tied_embeddings:
        after.append(_loaded(table, rows=True))
    return Weights(
        total=total,
        parameters=parameters,
        precision=FILE_PRECISION,
        embedding=sum(tensors[name].bytes for name in (_TABLE, "output.weight") if name in tensors),
        predict=predict,
        layers=tuple(LayerWeights(count=1, tensors=tuple(held)) for held in layers.values()),
        before=tuple(before),
        after=tuple(after),
    )


def bytes_by_type(tensors: Mapping[str, GgufTensor]) -> dict[str, int]:
    """What the files hold, byte by byte, by the names of the types."""
    by_type = Counter[str]()
    for tensor in tensors.values():
        by_type[tensor.type.name] += tensor.bytes
    return dict(sorted(by_type.items()))


def _trunk(tensors: Mapping[str, GgufTensor], architecture: Architecture) -> int:
    """Layers that are always loaded. Encoder and decoder of one number lie on one GPU."""
    found = [int(layer[1]) for name in tensors if (layer := _LAYER.match(name))]
    return max(found, default=-1) + 1 - architecture.predict_layers if found else 0


def _loaded(tensor: GgufTensor, *, rows: bool = False) -> LoadedTensor:
    """With the padding of a CUDA buffer: the last row of a quantized tensor is filled up to a multiple of 512."""
    padding = 0
    if tensor.type.quantized and tensor.shape and tensor.shape[0] % _ROW_PADDING:
        missing = _ROW_PADDING - tensor.shape[0] % _ROW_PADDING
        padding = -(-missing // tensor.type.block) * tensor.type.bytes
    size = -(-(tensor.bytes + padding) // _ALIGNMENT) * _ALIGNMENT
    part = WeightPart(
        bytes=size, split=Split.VOCABULARY if rows else Split.WHOLE, units=tensor.shape[-1] if rows else 0
    )
    return LoadedTensor(parts=(part,))
