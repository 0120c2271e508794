"""GPTQ and AutoRound: whole numbers packed into words of 32 bits, with rules for single modules.

Rules as in the engine (``get_dynamic_override``, ``get_layer_config``) and in the tools that write the files.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final

from vrampack.errors import UnsupportedModelError
from vrampack.memory.weightformat import DEFAULT_FORMATS, WeightFormat
from vrampack.models.fields import MAX_SHOWN, Fields
from vrampack.models.modulenames import ModuleNames
from vrampack.models.quantformats import MXFP4, group_size
from vrampack.models.quantscheme import Quantization, Rules, keys_of, made, names_of

_MAX_EXPRESSIONS: Final = 256
_REGULAR: Final = frozenset("*+?^$()[]{}|\\")
_INDEX_BYTES: Final = 4
_LAYERS: Final = frozenset({"layers", "h", "blocks"})
_FLOATS: Final[dict[tuple[str, int], WeightFormat]] = {
    ("mx_fp", 4): MXFP4,
    ("nv_fp", 4): DEFAULT_FORMATS["nvfp4"],
    ("mx_fp", 8): WeightFormat(precision="fp8", bits=8, group=32, scale_bytes=1),
    ("fp8", 8): DEFAULT_FORMATS["fp8"],
}
"""AutoRound's ``data_type`` and bits of what are no whole numbers."""


def gptq(settings: Fields) -> Quantization:
    """The files hold zero points and an index of each input always; engines drop what they do not need.

    ``dynamic`` changes the settings of the modules that its expressions match, or leaves them as they are (``-:``).
    """
    form = _packed(settings, None)
    rules, named_only = _dynamic(settings), False
    if listed := _in_block(settings):
        rules, named_only = (*rules, (ModuleNames.of(listed, setting="modules_in_block_to_quantize"), form)), True
    head = _head(rules, form) if settings.flag("lm_head", default=False) else None
    return made(
        settings,
        form,
        method="gptq",
        plain=("modules_to_not_convert",),
        others=rules,
        activation_order=settings.flag("desc_act", default=False),
        named_only=named_only,
        head=head,
    )


def autoround(settings: Fields) -> Quantization:
    """``extra_config`` has the settings of single modules, by name or expression; the output head is quantized only
    where it says so."""
    form = _of_type(settings, None)
    if form is None:
        raise settings.refusal("bits", settings.get("bits"), "fewer than 16: else nothing is quantized")
    _refuse_other_blocks(settings)
    rules: list[tuple[ModuleNames, WeightFormat | None]] = []
    extra = settings.below("extra_config")
    for name in keys_of(settings, "extra_config") if extra else ():
        own = extra.below(name) if extra else None
        if own is None:
            continue
        spelled = f"re:.*{name.removeprefix('.*')}" if _REGULAR.intersection(name) else name
        rules.append((ModuleNames.of((spelled,), setting="extra_config"), _of_type(own, settings)))
    rules.sort(key=lambda rule: bool(rule[0].patterns))  # names count before expressions
    return made(
        settings,
        form,
        method="gptq",
        plain=("modules_to_not_convert",),
        others=_gathered(rules, setting="extra_config"),
        head=next((own for names, own in rules if names.have_head()), None),
    )


def _packed(settings: Fields, base: Fields | None) -> WeightFormat:
    """``base`` answers for what the settings of a module leave out."""
    under = base or settings
    bits = settings.size(("bits",), least=2, most=8, default=under.size(("bits",), least=2, most=8) if base else None)
    ordered = settings.flag("desc_act", default=under.flag("desc_act", default=False))
    symmetric = settings.flag("sym", default=under.flag("sym", default=True))
    return WeightFormat(
        precision="gptq",
        bits=bits,
        group=group_size(settings if settings.get("group_size") is not None else under, "group_size"),
        zero_bits=0 if symmetric else bits,
        index_bytes=_INDEX_BYTES if ordered else 0,
    )


def _of_type(settings: Fields, base: Fields | None) -> WeightFormat | None:
    """None: sixteen bits, or more. Raises UnsupportedModelError for a type whose layout is not known."""
    under = base or settings
    bits = settings.size(("bits",), least=1, most=32, default=under.size(("bits",), least=1, most=32) if base else None)
    if bits >= 16:
        return None
    kind = settings.text("data_type") or under.text("data_type") or "int"
    if kind.startswith("int"):
        return _packed(settings, base)
    form = next((form for (word, each), form in _FLOATS.items() if kind.startswith(word) and each == bits), None)
    if form is None:
        raise UnsupportedModelError(
            unknown=f"quantization_config.data_type {kind[:MAX_SHOWN]}",
            detail=f"the layout of its weights at {bits} bits is not known yet",
        )
    return form


def _dynamic(settings: Fields) -> Rules:
    """Expressions that match from the beginning of a module's name, in their order."""
    dynamic = settings.below("dynamic")
    rules: list[tuple[ModuleNames, WeightFormat | None]] = []
    for name in keys_of(settings, "dynamic") if dynamic else ():
        skipped, pattern = name.startswith("-:"), name.removeprefix("-:").removeprefix("+:")
        own = dynamic.below(name) if dynamic and not skipped else None
        if own is None and not skipped:
            continue
        written = pattern.replace("\\.", ".")
        spelled = f"re:{pattern}" if _REGULAR.intersection(written) else written
        rules.append((ModuleNames.of((spelled,), setting="dynamic"), None if own is None else _packed(own, settings)))
    return _gathered(rules, setting="dynamic")


def _gathered(rules: Iterable[tuple[ModuleNames, WeightFormat | None]], *, setting: str) -> Rules:
    """Neighbours that are stored alike are one list: files name every module."""
    groups = groupby(rules, key=lambda rule: (rule[1], bool(rule[0].patterns)))
    gathered = tuple((ModuleNames.joined(names for names, _ in each), own) for (own, _), each in groups)
    if sum(len(names.patterns) for names, _ in gathered) > _MAX_EXPRESSIONS:
        raise UnsupportedModelError(
            unknown=f"quantization_config.{setting}", detail=f"it has more than {_MAX_EXPRESSIONS} expressions"
        )
    return gathered


def _in_block(settings: Fields) -> list[str]:
    """The only modules that are quantized, in lists of those that are so together; empty: all are."""
    listed = settings.get("modules_in_block_to_quantize")
    if not isinstance(listed, list) or not any(isinstance(item, list) for item in listed):
        return names_of(settings, "modules_in_block_to_quantize")
    names = [name for item in listed[:MAX_SHOWN] for name in (item if isinstance(item, list) else [item])]
    if not all(isinstance(name, str) for name in names):
        raise settings.refusal("modules_in_block_to_quantize", listed, "lists of module names")
    return names


def _head(rules: Rules, form: WeightFormat) -> WeightFormat | None:
    return next((own for names, own in rules if names.have_head()), form)


def _refuse_other_blocks(settings: Fields) -> None:
    """Blocks are named by their list (``model.layers``). Others than the decoder's alone are not known."""
    for name in ("block_name_to_quantize", "to_quant_block_names"):
        value = settings.get(name)
        if value is None or isinstance(value, Mapping):
            continue
        blocks = value.split(",") if isinstance(value, str) else _flat(value)
        if not any(str(block).strip().rpartition(".")[2] in _LAYERS for block in blocks):
            raise UnsupportedModelError(
                unknown=f"quantization_config.{name} {ascii(value)[:MAX_SHOWN]}",
                detail="which layers are quantized is not known",
            )


def _flat(value: object) -> list[object]:
    if not isinstance(value, list):
        return [value]
    return [part for item in value[:MAX_SHOWN] for part in (item if isinstance(item, list) else [item])]
