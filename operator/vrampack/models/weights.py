"""From the tensors of a checkpoint to the bytes that the engine loads."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
from vrampack.memory.constants import DTYPE_BYTES, WEIGHT_BITS
from vrampack.memory.layers import LatentAttention, Mixer, PagedAttention
from vrampack.memory.tensorfacts import family_facts
from vrampack.models.quantization import Quantization
from vrampack.models.safetensors import DTYPE_BITS, Tensor
from vrampack.models.tensornames import Role, TensorName, parse_name
from vrampack.units import round_up

_TYPES: Final[dict[str, str]] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_PLAIN: Final = frozenset({"fp32", "fp16", "bf16"})


def stored_dtype(tensors: Mapping[str, Tensor]) -> str | None:
    """The computation type that most bytes are stored in; None where they are stored in none."""
    by_dtype = Counter[str]()
    for tensor in tensors.values():
        if tensor.dtype in _TYPES:
            by_dtype[_TYPES[tensor.dtype]] += tensor.bytes
    return max(by_dtype, key=lambda dtype: (by_dtype[dtype], dtype), default=None)


def matrix_types(tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Types of the tensors that weigh: those with two dimensions or more."""
    return frozenset(
        tensor.dtype
        for name, tensor in tensors.items()
        if len(tensor.shape) > 1 and parse_name(name).role is not Role.UNUSED
    )


def bytes_by_dtype(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """What the files hold, byte by byte, loaded or not."""
    by_dtype = Counter[str]()
    for tensor in tensors.values():
        by_dtype[tensor.dtype] += tensor.bytes
    return dict(sorted(by_dtype.items()))


def weights_of(
    tensors: Mapping[str, Tensor],
    *,
    architecture: Architecture,
    precision: str,
    quantization: Quantization | None = None,
) -> Weights:
    """The weights that the engine loads of these tensors.

    Not loaded are an output head that is tied, buffers that engines compute themselves, and what a quantization method
    does not use; ``quantization`` tells. Layers beyond the architecture's are those of multi-token prediction.
    """
    entries = list(_entries(tensors, architecture, precision=precision, quantization=quantization))
    kept = [entry for entry in entries if entry.name.role is not Role.PREDICT]
    by_role = Counter[Role]()
    for entry in kept:
        by_role[entry.name.role] += entry.bytes
    layers = tuple(_layers([entry for entry in kept if entry.in_layers], architecture))
    outside = [entry for entry in kept if not entry.in_layers and entry.name.role is not Role.TOWER]
    after = [entry for entry in outside if entry.name.role is Role.HEAD]
    before = [entry for entry in outside if entry.name.role is not Role.HEAD]
    tower = by_role[Role.TOWER]
    tower_split = Split.WHOLE if family_facts(architecture.model_type).tower_whole else Split.TENSOR
    return Weights(
        total=sum(by_role.values()),
        parameters=sum(_parameters(entry, precision) for entry in kept),
        precision=precision,
        embedding=sum(entry.bytes for entry in kept if entry.split is Split.VOCABULARY),
        replicated=sum(
            entry.bytes for entry in kept if entry.split is Split.WHOLE and entry.name.role is not Role.TOWER
        ),
        tower=tower,
        predict=sum(entry.bytes for entry in entries if entry.name.role is Role.PREDICT),
        method=WeightsMethod.TENSORS,
        layers=layers,
        census=census_of((run.count, tensor) for run in layers for tensor in run.tensors),
        before=_fused(before, None, architecture) if layers else (),
        towers=(LoadedTensor(parts=(WeightPart(bytes=tower, split=tower_split),)),) if tower else (),
        after=_fused(after, None, architecture) if layers else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A tensor with what it is and the bytes that it takes once loaded."""

    name: TensorName
    tensor: Tensor
    bytes: int
    quantization: Quantization | None = None

    @property
    def in_layers(self) -> bool:
        return self.name.layer is not None and not self.name.encoder and self.name.role is not Role.TOWER

    @property
    def split(self) -> Split:
        """KEYS_OR_VALUES and the like are told apart by the layer's heads."""
        if len(self.tensor.shape) < 2 and self.name.role is not Role.EXPERT:
            return Split.WHOLE
        return _SPLITS.get(self.name.role, Split.TENSOR)


_SPLITS: Final[dict[Role, Split]] = {
    Role.TABLE: Split.VOCABULARY,
    Role.HEAD: Split.VOCABULARY,
    Role.WHOLE: Split.WHOLE,
    Role.KEYS_OR_VALUES: Split.HEADS,
    Role.SHARED_EXPERT: Split.SHARED,
    Role.EXPERT: Split.EXPERT,
}


def _entries(
    tensors: Mapping[str, Tensor], architecture: Architecture, *, precision: str, quantization: Quantization | None
) -> Iterator[_Entry]:
    plain = precision in _PLAIN
    width = DTYPE_BYTES[architecture.dtype]
    for name, tensor in tensors.items():
        parsed = parse_name(name)
        if parsed.role is Role.UNUSED or (parsed.role is Role.HEAD and architecture.tied_embeddings):
            continue
        if not plain and _unused(name, quantization):
            continue
        beyond = parsed.layer is not None and parsed.layer >= architecture.layers and not parsed.encoder
        if beyond and parsed.role is not Role.TOWER:
            parsed = replace(parsed, role=Role.PREDICT)
        size = tensor.bytes
        if plain or (tensor.dtype in _FLOATS and not parsed.side):
            size = tensor.elements * (DTYPE_BYTES["float32"] if parsed.wide else width)
        elif name.endswith(".absmax") and tensor.dtype == "U8":
            size = tensor.elements * DTYPE_BYTES["float32"]  # engines undo the second quantization, of the scales
        yield _Entry(name=parsed, tensor=tensor, bytes=size, quantization=quantization)


def _unused(name: str, quantization: Quantization | None) -> bool:
    """What GPTQ's files hold always and its kernels need only sometimes."""
    if quantization is None or quantization.method != "gptq":
        return False
    if name.endswith(".g_idx"):
        return not quantization.activation_order
    return name.endswith(".qzeros") and not quantization.form.zero_bits


def _layers(entries: Iterable[_Entry], architecture: Architecture) -> Iterator[LayerWeights]:
    by_layer: dict[int, list[_Entry]] = defaultdict(list)
    for entry in entries:
        if entry.name.layer is not None:
            by_layer[entry.name.layer].append(entry)
    mixers = [run.mixers for run in architecture.layer_runs for _ in range(run.count)]
    if not by_layer or len(mixers) <= max(by_layer):
        return
    each = (_fused(by_layer.get(layer, ()), mixers[layer], architecture) for layer in range(len(mixers)))
    for tensors, alike in groupby(each):
        yield LayerWeights(count=len(tuple(alike)), tensors=tensors)


def _fused(
    entries: Iterable[_Entry], mixers: tuple[Mixer, ...] | None, architecture: Architecture
) -> tuple[LoadedTensor, ...]:
    """As the engine holds them, in the order of their names so that alike layers are equal."""
    parts: dict[str, Counter[WeightPart]] = defaultdict(Counter)
    found = list(entries)
    for entry in (*found, *_values_that_are_keys(found, mixers)):
        whole_vector = entry.split is Split.WHOLE and len(entry.tensor.shape) < 2
        key = "" if whole_vector else entry.name.fused
        for part in _parts(entry, mixers, architecture):
            parts[key][replace(part, bytes=0)] += part.bytes
        if _is_absorbed(entry, mixers):
            copy = entry.tensor.elements * DTYPE_BYTES[architecture.dtype]
            parts[f"{entry.name.fused}.absorbed"][WeightPart(bytes=0, split=Split.TENSOR)] += copy
    return tuple(LoadedTensor(parts=_summed(parts[key])) for key in sorted(parts))


def _summed(parts: Mapping[WeightPart, int]) -> tuple[WeightPart, ...]:
    whole = (replace(part, bytes=size) for part, size in parts.items())
    return tuple(sorted(whole, key=lambda part: (part.split, part.units, part.align, part.bytes)))


def _values_that_are_keys(entries: list[_Entry], mixers: tuple[Mixer, ...] | None) -> list[_Entry]:
    """Gemma 4 stores no value projection where the keys' serves for both; the engine holds it twice."""
    attention = any(isinstance(mixer, PagedAttention) and not mixer.shares_cache for mixer in mixers or ())
    keys = [entry for entry in entries if entry.name.short.endswith(".k_proj.weight")]
    values = any(".v_proj." in entry.name.short for entry in entries)
    return keys if attention and keys and not values else []


def _parts(entry: _Entry, mixers: tuple[Mixer, ...] | None, architecture: Architecture) -> Iterator[WeightPart]:
    """The ways in which a tensor is split."""
    attention = next((mixer for mixer in mixers or () if isinstance(mixer, PagedAttention)), None)
    size, split = entry.bytes, entry.split
    if split is Split.EXPERT:
        yield _expert_part(entry, architecture)
    elif split is Split.VOCABULARY:
        yield WeightPart(bytes=size, split=split, units=architecture.vocab_size)
    elif split is Split.HEADS and attention:
        yield WeightPart(bytes=size, split=split, units=attention.kv_heads)
    elif split is Split.HEADS:
        yield WeightPart(bytes=size, split=Split.TENSOR)
    elif entry.name.role is Role.QUERIES_KEYS_VALUES and attention and split is Split.TENSOR:
        keys = attention.kv_heads * (attention.key_dim + attention.value_dim)
        shared = size * keys // (keys + attention.heads * attention.key_dim)
        yield WeightPart(bytes=size - shared, split=Split.TENSOR)
        yield WeightPart(bytes=shared, split=Split.HEADS, units=attention.kv_heads)
    else:
        yield WeightPart(bytes=size, split=split)


def _expert_part(entry: _Entry, architecture: Architecture) -> WeightPart:
    """Experts in a form that the engine pads are padded to the hidden size here, and by width on each rank."""
    units, form = architecture.experts or 1, entry.quantization.form if entry.quantization else None
    if form is None or not form.inner_align or entry.tensor.dtype in _FLOATS:
        return WeightPart(bytes=entry.bytes, split=Split.EXPERT, units=units)
    hidden = architecture.hidden_size
    return WeightPart(
        bytes=entry.bytes * round_up(hidden, form.outer_align) // hidden,
        split=Split.EXPERT,
        units=units,
        width=architecture.expert_intermediate_size,
        align=form.inner_align,
    )


def _is_absorbed(entry: _Entry, mixers: tuple[Mixer, ...] | None) -> bool:
    """Latent attention works on the way up in the computation type: of a quantized one the engine makes a copy."""
    return (
        ".kv_b_proj." in entry.name.fused
        and not entry.name.side
        and entry.tensor.dtype not in _FLOATS
        and any(isinstance(mixer, LatentAttention) for mixer in mixers or ())
    )


def _parameters(entry: _Entry, precision: str) -> int:
    """Parameters of the model in one tensor: several in an element of a packed one, none in a side tensor."""
    if entry.name.side and precision not in _PLAIN:
        return 0
    bits = entry.quantization.least_bits if entry.quantization else WEIGHT_BITS[precision]
    packed = entry.tensor.dtype in ("I32", "U32", "U8", "I8") and bits < DTYPE_BITS[entry.tensor.dtype]
    return entry.tensor.elements * DTYPE_BITS[entry.tensor.dtype] // bits if packed else entry.tensor.elements
