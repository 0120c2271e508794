"""What vrampack sets itself on a replica, so that a user can't set it too: flags, variables, annotations.

The estimate holds only while these are what vrampack says. The API server refuses them when an object is applied, with
the field to use instead; the engine modules refuse whatever else may change GPU memory.
"""

from collections.abc import Iterable
from typing import Final

from vrampack.api.common import Rule
from vrampack.api.ownedflags import LLAMACPP_FLAGS, SGLANG_FLAGS, TGI_FLAGS, VLLM_FLAGS, OwnedFlags

ENVIRONMENT: Final = (
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_GPU_MEMORY_REQUEST",
    "NVIDIA_GPU_MEMORY_LIMIT",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
)
ENVIRONMENT_PREFIX: Final = "VRAMPACK_"

DEVICE_ANNOTATIONS: Final = (
    "nvidia.cdi.k8s.io/",
    "cdi.k8s.io/",
    "nvidia.com/use-gpu",
    "nvidia.com/nouse-gpu",
    "nvidia.com/vgpu-mode",
    "hami.io/",
    "gpu-fraction",
    "gpu-memory",
)
"""Beginnings of annotations by which a container gets devices on its own: of NVIDIA's NRI plugin, of CDI's first form,
of HAMi and of KAI."""

# As argparse reads an argument: the name ends at '=' or '.', '_' is '-', and --no-x and --disable-x are --x.
_NAMES_OF_ARGS: Final = (
    "self.args.map(a, a.split('=')[0].split('.')[0].replace('_', '-')"
    ".replace('--no-', '--').replace('--disable-', '--enable-'))"
)
# As written: the parsers of the other engines take no short form of a long flag.
_PLAIN_NAMES_OF_ARGS: Final = "self.args.map(a, a.split('=')[0])"


def text_list(values: Iterable[str]) -> str:
    """A CEL list of texts without quotes in them."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def argument_rules() -> tuple[Rule, ...]:
    """One rule for each concern of vLLM, and one for each other engine, for an object with the fields name and args.

    Rules cost the API server time by their number and length, and it allows so much in all: so the other engines have
    one rule each, whose message leaves the reason to the page that it names.
    """
    return (
        *(_rule("vllm", owned, _NAMES_OF_ARGS, _abbreviated(owned)) for owned in VLLM_FLAGS),
        *(
            _rule(engine, _together(engine, flags), _PLAIN_NAMES_OF_ARGS, _whole(flags))
            for engine, flags in (("sglang", SGLANG_FLAGS), ("llamacpp", LLAMACPP_FLAGS), ("tgi", TGI_FLAGS))
        ),
    )


def _rule(engine: str, owned: OwnedFlags, names: str, condition: str) -> Rule:
    return Rule(
        rule=f"self.name != '{engine}' || !has(self.args) || !{names}.exists(n, {condition})",
        message=f"leave out {owned.names}: {owned.reason}",
        message_expression=f"'leave out ' + {names}.filter(n, {condition})[0] + ': {owned.reason}'",
        field_path=".args",
    )


def _together(engine: str, flags: Iterable[OwnedFlags]) -> OwnedFlags:
    known = [flag for owned in flags for flag in owned.flags if flag.startswith("--")]
    return OwnedFlags(
        flags=(f"{', '.join(known[:3])} and whatever else vrampack sets of {engine}",),
        reason="vrampack sets it from another field; docs/engines.md has the field of each flag",
    )


def _abbreviated(owned: OwnedFlags) -> str:
    abbreviated = f"n.startsWith('-') && {text_list(owned.flags)}.exists(f, f.startsWith(n))"
    return " || ".join([abbreviated, *_families(owned)])


def _whole(flags: Iterable[OwnedFlags]) -> str:
    exact = [flag for owned in flags for flag in owned.flags]
    return " || ".join([f"n in {text_list(exact)}", *(each for owned in flags for each in _families(owned))])


def _families(owned: OwnedFlags) -> list[str]:
    return [f"n.startsWith('{family}')" for family in owned.families]
