"""How the matrices of a checkpoint are stored: what every method of quantization is read into."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vrampack.memory.weightformat import WeightFormat
from vrampack.models.fields import Fields
from vrampack.models.modulenames import PREDICTION, ModuleNames

_MAX_MODULES: Final = 500_000

Rules = tuple[tuple[ModuleNames, WeightFormat | None], ...]
"""Modules and how they are stored, None for the computation type; the first that has a module counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How the matrices of a checkpoint are stored."""

    precision: str
    """Of most matrices, as ``spec.precision.weights`` names it."""
    method: str
    """As the file names it: fp8, awq, gptq, compressed-tensors, modelopt, mxfp4, bitsandbytes, …"""
    form: WeightFormat
    """Layout of most matrices."""
    kv_cache: str = ""
    """What the checkpoint makes of the KV cache: ``fp8``, ``int8``, ``nvfp4``; empty: nothing."""
    activation_order: bool = False
    """GPTQ quantized its columns by importance: an index of each input is loaded."""
    plain: ModuleNames = field(default_factory=ModuleNames)
    """Modules that are not quantized."""
    others: Rules = ()
    """Modules that are stored in another way than most."""
    named_only: bool = False
    """Nothing but those is quantized."""
    listed: bool = True
    """False: the file should list what is not quantized, and has no such list."""
    head: WeightFormat | None = None
    """How the output head is stored; None: in the computation type, as nearly always."""

    @property
    def bits(self) -> int:
        """Of one element of most matrices, without scales."""
        return self.form.bits

    @property
    def group(self) -> int:
        """Inputs that share a scale in most matrices; 0: a scale for each output; -1: one for the matrix."""
        return self.form.group

    @property
    def least_bits(self) -> int:
        """Of one element of the matrices with the fewest: what is packed into the files' integers."""
        return min(self.form.bits, *(form.bits for _, form in self.others if form), self.form.bits)

    def form_of(self, layer: int, name: str) -> WeightFormat | None:
        """How the matrix ``name`` (``self_attn.q_proj``) of a layer is stored; None: in the computation type."""
        if self.plain.have(layer, name):
            return None
        for names, form in self.others:
            if names.have(layer, name):
                return form
        return None if self.named_only else self.form

    def form_of_prediction(self, layer: int, name: str) -> WeightFormat | None:
        """The same of a layer that predicts further tokens: named apart, or counted on behind the others."""
        if self.plain.have(PREDICTION, name):
            return None
        for names, form in self.others:
            if names.have(PREDICTION, name):
                return form
        return self.form_of(layer, name)


def made(
    settings: Fields,
    form: WeightFormat,
    *,
    method: str,
    plain: tuple[str, ...],
    others: Rules = (),
    activation_order: bool = False,
    named_only: bool = False,
    head: WeightFormat | None = None,
) -> Quantization:
    """``plain``: the fields that list what is not quantized. Raises InvalidInputError and UnsupportedModelError."""
    names = [(name, field) for field in plain for name in names_of(settings, field)]
    return Quantization(
        precision=form.precision,
        method=method,
        form=form,
        activation_order=activation_order,
        plain=ModuleNames.of((name for name, _ in names), setting=names[0][1] if names else ""),
        others=others,
        named_only=named_only,
        head=head,
    )


def keys_of(settings: Fields, name: str) -> list[str]:
    """Names of the object under ``name``. Raises InvalidInputError."""
    value = settings.get(name)
    if not isinstance(value, Mapping) or len(value) > _MAX_MODULES or not all(isinstance(key, str) for key in value):
        raise settings.refusal(name, value, "an object with a name for each group of modules")
    return list(value)


def names_of(settings: Fields, name: str) -> list[str]:
    """The list under ``name``, empty where there is none. Raises InvalidInputError."""
    value = settings.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MAX_MODULES or not all(isinstance(item, str) for item in value):
        raise settings.refusal(name, value, "a list of module names")
    return value
