"""All tensors that a configuration implies, and the weights that they make."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from vrampack.memory.architecture import (
    Architecture,
    LayerWeights,
    LoadedTensor,
    Split,
    WeightPart,
    Weights,
    WeightsMethod,
)
from vrampack.memory.census import census_of
from vrampack.memory.constants import DTYPE_BYTES
from vrampack.memory.layers import LatentAttention, LayerRun, PagedAttention, RecurrentState
from vrampack.memory.tensorfacts import TensorFacts, family_facts
from vrampack.memory.tensors import (
    TensorShape,
    compressed_attention,
    feed_forward,
    latent_attention,
    matrix,
    paged_attention,
    vector,
)
from vrampack.memory.tensorshared import layer_with_shared_block, shared_block
from vrampack.memory.tensorstates import recurrent_state
from vrampack.memory.weightformat import WeightFormat, format_of
from vrampack.units import round_up

Forms = Callable[[int, str], WeightFormat | None]
"""How the matrix of this name in this layer is stored; None: in the computation type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShapes:
    """The tensors of a model by where a pipeline puts them."""

    before: tuple[TensorShape, ...]
    layers: tuple[tuple[int, tuple[TensorShape, ...]], ...]
    """How many layers in a row are alike, and the tensors of each."""
    after: tuple[TensorShape, ...]

    @property
    def parameters(self) -> int:
        """Elements in the files."""
        inside = sum(count * _elements(shapes) for count, shapes in self.layers)
        return _elements(self.before) + inside + _elements(self.after)


def model_shapes(architecture: Architecture, *, facts: TensorFacts | None = None) -> ModelShapes:
    """Every tensor of the language model and of its towers, as far as those are known.

    ``facts``: what the configuration says of biases, norms and the like; None: what the family has by itself.
    """
    known = family_facts(architecture.model_type) if facts is None else facts
    return ModelShapes(
        before=tuple(_before(architecture, known)),
        layers=tuple(
            (run.count, tuple(_layer(run, architecture=architecture, facts=known))) for run in architecture.layer_runs
        ),
        after=tuple(_after(architecture, known)),
    )


def weights_from_architecture(
    architecture: Architecture,
    *,
    precision: str,
    facts: TensorFacts | None = None,
    forms: Forms | None = None,
    prediction: Forms | None = None,
    head: WeightFormat | None = None,
) -> Weights:
    """The weights that a configuration implies.

    ``precision`` is that of ``spec.precision.weights``; ``forms`` says how each matrix of the layers is stored where
    that is known, else all are stored with the usual settings. ``prediction`` says so of layers that predict further
    tokens, None: as the last layer, and ``head`` of the output head, which like tables and towers is not quantized as a
    rule.
    """
    shapes = model_shapes(architecture, facts=facts)
    before = tuple(entry for shape in shapes.before for entry in _stored(shape, architecture))
    after = tuple(
        entry for shape in shapes.after for entry in _stored(shape, architecture, head if shape.name == _HEAD else None)
    )
    towers = tuple(entry for entry in before if entry.shape.name == _TOWER)
    before = tuple(entry for entry in before if entry.shape.name != _TOWER)
    usual = format_of(precision, dtype=architecture.dtype)
    layers = tuple(_layers(shapes, architecture=architecture, usual=usual, forms=forms))
    files = [(1, entry) for entry in (*before, *after)]
    files += [(count, entry) for count, entries in layers for entry in entries]
    files = [(count, entry) for count, entry in files if entry.shape.in_files]
    predict = _predict_bytes(shapes, architecture, usual=usual, forms=prediction or forms)
    held = tuple(LayerWeights(count=count, tensors=loaded(entries)) for count, entries in layers)
    return Weights(
        total=sum(count * entry.bytes for count, entry in files) + sum(entry.bytes for entry in towers),
        parameters=shapes.parameters,
        precision=precision,
        embedding=sum(count * entry.bytes for count, entry in files if entry.shape.split is Split.VOCABULARY),
        replicated=sum(count * entry.bytes for count, entry in files if entry.shape.split is Split.WHOLE),
        tower=sum(entry.bytes for entry in towers),
        predict=predict,
        method=WeightsMethod.SHAPES,
        layers=held,
        census=census_of((run.count, tensor) for run in held for tensor in run.tensors),
        before=loaded(before),
        after=loaded(after),
        towers=tuple(LoadedTensor(parts=(WeightPart(bytes=e.bytes, split=e.shape.split),)) for e in towers),
    )


_TOWER: Final = "tower"
_HEAD: Final = "lm_head"


def weights_from_file_sizes(architecture: Architecture, *, total: int, precision: str) -> Weights:
    """The weights where only the sizes of the files are known: ``total`` bytes, of which the shapes tell the parts."""
    shapes = weights_from_architecture(architecture, precision=precision)
    return Weights(total=total, parameters=shapes.parameters, precision=precision, method=WeightsMethod.FILE_SIZES)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A tensor with the bytes that it takes."""

    shape: TensorShape
    bytes: int
    form: WeightFormat | None = None


def _stored(shape: TensorShape, architecture: Architecture, form: WeightFormat | None = None) -> Iterator[_Stored]:
    """A tensor, its scales, and what the engine makes of it besides."""
    width = DTYPE_BYTES[shape.dtype or architecture.dtype]
    if form is None or form.bits >= 16:
        yield _Stored(shape=shape, bytes=shape.elements * width)
        return
    yield _Stored(shape=shape, bytes=shape.copies * form.matrix_bytes(shape.rows, shape.columns), form=form)
    if side := shape.copies * form.side_bytes(shape.rows, shape.columns):
        scales = replace(shape, name=f"{shape.name}.scales", fused=f"{shape.fused or shape.name}.scales")
        yield _Stored(shape=scales, bytes=side, form=form)
    if shape.name == ABSORBED:
        copy = replace(shape, name=f"{shape.name}.absorbed", in_files=False)
        yield _Stored(shape=copy, bytes=shape.elements * width)


ABSORBED: Final = "self_attn.kv_b_proj"
"""Latent attention works on this one in the computation type: of a quantized one the engine makes a copy."""


def loaded(entries: Iterable[_Stored]) -> tuple[LoadedTensor, ...]:
    """As the engine holds them: what it fuses is one tensor; those too small to matter alone are one as well."""
    parts: dict[str, list[WeightPart]] = {}
    for entry in entries:
        shape = entry.shape
        small = shape.columns == 1 and shape.split is Split.WHOLE
        parts.setdefault("" if small else shape.fused or shape.name, []).append(_part(entry))
    if "" in parts:
        parts[""] = [WeightPart(bytes=sum(part.bytes for part in parts[""]), split=Split.WHOLE)]
    return tuple(LoadedTensor(parts=tuple(each)) for each in parts.values())


def _part(entry: _Stored) -> WeightPart:
    shape, form = entry.shape, entry.form
    if form is None or not form.inner_align or shape.split is not Split.EXPERT:
        return WeightPart(bytes=entry.bytes, split=shape.split, units=shape.units)
    outer = shape.columns if shape.rows == shape.width else shape.rows
    return WeightPart(
        bytes=entry.bytes * round_up(outer, form.outer_align) // outer,
        split=shape.split,
        units=shape.units,
        width=shape.width,
        align=form.inner_align,
    )


def _layers(
    shapes: ModelShapes, *, architecture: Architecture, usual: WeightFormat, forms: Forms | None
) -> Iterator[tuple[int, tuple[_Stored, ...]]]:
    """Layers in a row that are alike in what is quantized, too."""
    first = 0
    for count, tensors in shapes.layers:
        numbers = range(first, first + (count if forms else 1))
        first += count
        layouts = (tuple(_form(shape, number, usual, forms) for shape in tensors) for number in numbers)
        for layout, group in groupby(layouts):
            pairs = zip(tensors, layout, strict=True)
            each = tuple(entry for shape, form in pairs for entry in _stored(shape, architecture, form))
            yield (len(tuple(group)) if forms else count), each


def _predict_bytes(shapes: ModelShapes, architecture: Architecture, *, usual: WeightFormat, forms: Forms | None) -> int:
    """Layers that predict further tokens are like the last one, with a matrix that joins the token to the state."""
    if not shapes.layers or not architecture.predict_layers:
        return 0
    joining = 2 * architecture.hidden_size**2 * DTYPE_BYTES[architecture.dtype]
    like = (
        entry
        for shape in shapes.layers[-1][1]
        for entry in _stored(shape, architecture, _form(shape, architecture.layers, usual, forms))
    )
    return architecture.predict_layers * (joining + sum(entry.bytes for entry in like))


def _form(shape: TensorShape, layer: int, usual: WeightFormat, forms: Forms | None) -> WeightFormat | None:
    if not shape.quantizable:
        return None
    form = usual if forms is None else forms(layer, shape.name)
    if form is not None and form.experts_only and shape.split is not Split.EXPERT:
        return None
    return form


def _before(architecture: Architecture, facts: TensorFacts) -> Iterator[TensorShape]:
    hidden = architecture.hidden_size
    yield _table("embed_tokens", architecture.vocab_size, hidden)
    if facts.positions:
        yield TensorShape(name="embed_positions", rows=facts.positions, columns=hidden)
    if facts.per_layer_width:
        width = facts.per_layer_width * architecture.layers
        yield _table("embed_tokens_per_layer", facts.per_layer_vocabulary or architecture.vocab_size, width)
        yield matrix("per_layer_model_projection", width, hidden)
        yield vector("per_layer_projection_norm", facts.per_layer_width)
    if facts.alternating_inputs:
        copies = facts.alternating_inputs - 1
        yield matrix("altup_projections", copies * hidden, hidden, split=Split.WHOLE)
        yield matrix("altup_unembed_projections", copies * hidden, hidden, split=Split.WHOLE)
    for block in range(facts.shared_blocks):
        yield from shared_block(block, architecture=architecture, facts=facts)
    if facts.encoder_layers:
        layer = _encoder_layer(hidden, facts) * facts.encoder_layers
        yield vector("encoder.layers", layer, split=Split.TENSOR)
        yield vector("encoder.stem", facts.encoder_stem + hidden * (2 if facts.norm_bias else 1))
    if facts.tower_elements:
        split = Split.WHOLE if facts.tower_whole else Split.TENSOR
        yield vector(_TOWER, facts.tower_elements, split=split)


def _encoder_layer(hidden: int, facts: TensorFacts) -> int:
    """Elements of a layer of an encoder: attention to itself, a feed-forward part, two norms."""
    biases = (2 if facts.keys_without_bias else 3) * hidden * facts.query_bias + hidden * facts.output_bias
    biases += (facts.encoder_width + hidden) * facts.feed_forward_bias
    norms = 2 * hidden * (2 if facts.norm_bias else 1)
    attention = 4 * hidden * (facts.encoder_heads or hidden)
    return attention + (3 if facts.encoder_gated else 2) * hidden * facts.encoder_width + biases + norms


def _after(architecture: Architecture, facts: TensorFacts) -> Iterator[TensorShape]:
    if facts.final_norm:
        yield vector("norm", architecture.hidden_size * (2 if facts.norm_bias else 1))
    if not architecture.tied_embeddings and not architecture.pooling:
        yield _table(_HEAD, architecture.vocab_size, architecture.hidden_size)
    if facts.head_bias:
        yield vector("lm_head.bias", architecture.vocab_size)


def _table(name: str, rows: int, columns: int) -> TensorShape:
    return TensorShape(name=name, rows=rows, columns=columns, split=Split.VOCABULARY, units=rows)


def _layer(run: LayerRun, *, architecture: Architecture, facts: TensorFacts) -> Iterator[TensorShape]:
    hidden = architecture.hidden_size
    if facts.shared_blocks and len(run.mixers) > 1:
        yield from layer_with_shared_block(run, hidden=hidden, facts=facts)
        return
    for mixer in run.mixers:
        match mixer:
            case PagedAttention() if facts.latent is not None:
                yield from latent_attention(facts.latent, hidden=hidden)
            case LatentAttention() if facts.output_groups:
                yield from compressed_attention(mixer, hidden=hidden, facts=facts)
            case PagedAttention():
                yield from paged_attention(mixer, hidden=hidden, facts=facts)
            case LatentAttention():
                yield from latent_attention(mixer, hidden=hidden, gate=facts.head_gate)
            case RecurrentState():
                yield from recurrent_state(mixer, hidden=hidden, facts=facts)
    if run.feed_forward is not None:
        yield from feed_forward(run.feed_forward, hidden=hidden, facts=facts)
    if norms := _norms(run, facts):
        yield vector("norms", norms * hidden * (2 if facts.norm_bias else 1))
    if facts.laurel_rank:
        yield matrix("laurel.linear_left", facts.laurel_rank, hidden, split=Split.WHOLE)
        yield matrix("laurel.linear_right", hidden, facts.laurel_rank, split=Split.WHOLE)
        yield vector("laurel.post_laurel_norm", hidden)
    if inputs := facts.alternating_inputs:
        yield TensorShape(name="altup.modality_router", rows=inputs, columns=hidden)
        yield vector("altup.coefs", inputs**3 + inputs**2 + 2 * hidden)
    if facts.per_layer_width:
        yield matrix("per_layer_input_gate", facts.per_layer_width, hidden, split=Split.WHOLE)
        yield matrix("per_layer_projection", hidden, facts.per_layer_width, split=Split.WHOLE)
        yield vector("post_per_layer_input_norm", hidden)


def _norms(run: LayerRun, facts: TensorFacts) -> int:
    """A layer that lacks one of its two parts lacks that one's norms, too (DeciLM, Mamba)."""
    parts = bool(run.mixers) + (run.feed_forward is not None)
    if not facts.norm_weight or not parts:
        return 0
    return facts.layer_norms if parts == 2 else -(-facts.layer_norms // 2)


def _elements(shapes: Iterable[TensorShape]) -> int:
    return sum(shape.elements for shape in shapes if shape.in_files)
