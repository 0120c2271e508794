"""Arguments that a user adds to an engine's own: passed on only when they leave GPU memory alone.

An argument that vrampack sets, one that changes GPU memory and one that nobody has looked at are all refused, each
with what to do instead. That is stricter than most users expect, and it is the point: the estimate holds only for
flags that it knows. A list of what is allowed also catches abbreviations (``--gpu-memory-util``), which argparse takes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vrampack.api.ownedflags import OwnedFlags
from vrampack.errors import InvalidInputError

FIELD = "spec.engine.args"

_NEGATIVE_NUMBER = re.compile(r"-\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What is known of an engine's flags. Names are written as ``--with-dashes``."""

    engine: str
    owned: tuple[OwnedFlags, ...]
    """Flags that vrampack sets."""
    memory: frozenset[str]
    """Flags that are known to change GPU memory, and that the estimate does not read."""
    switches: frozenset[str]
    """Harmless flags without a value; their ``--no-`` form is harmless too."""
    values: frozenset[str]
    """Harmless flags with one value."""
    lists: frozenset[str]
    """Harmless flags with one value or more."""
    equals: bool = True
    """Whether a value may follow its flag after ``=``, too."""


def check(args: Sequence[str], *, flags: Flags) -> None:
    """Raises InvalidInputError for the first argument that is not known to leave GPU memory alone."""
    position = 0
    while position < len(args):
        position += _length(args, position, flags)


def _length(args: Sequence[str], position: int, flags: Flags) -> int:
    """How many arguments the flag at this position takes up, itself included."""
    argument = args[position]
    name, has_value = _flag(argument, position)
    if has_value and not flags.equals:
        raise _refused(argument, position, f"{flags.engine} takes a value as an argument of its own, after the flag")
    spellings = frozenset(_spellings(name))
    _refuse_known(argument, position, spellings, flags)
    if spellings & flags.switches:
        if has_value:
            raise _refused(argument, position, "this flag takes no value")
        return 1
    if name not in flags.values and name not in flags.lists:
        raise _refused(
            argument,
            position,
            f"it is not among the arguments of {flags.engine} that are known to leave GPU memory alone; leave it out, "
            "or use engine custom, where you declare the memory yourself",
        )
    if has_value:
        return 1
    following = _values_after(args, position + 1)
    if following == 0:
        raise _refused(argument, position, "this flag needs a value")
    return 1 + (following if name in flags.lists else 1)


def _flag(argument: str, position: int) -> tuple[str, bool]:
    """The flag's name as argparse sees it (dashes for underscores, nothing after a dot), and whether ``=`` follows."""
    if not argument.startswith("-"):
        raise _refused(argument, position, "an argument begins with --; a value follows the flag that it belongs to")
    name, equals, _ = argument.partition("=")
    return name.partition(".")[0].replace("_", "-"), bool(equals)


def _spellings(name: str) -> Iterator[str]:
    """All the flags that this one may negate: ``--no-x`` is ``--x``, and ``--disable-x`` is ``--enable-x``."""
    yield name
    positive = "--" + name.removeprefix("--no-") if name.startswith("--no-") else name
    yield positive
    for prefix, inverse in (("--disable-", "--enable-"), ("--enable-", "--disable-")):
        if positive.startswith(prefix):
            yield inverse + positive.removeprefix(prefix)


def _refuse_known(argument: str, position: int, spellings: frozenset[str], flags: Flags) -> None:
    for owned in flags.owned:
        if not spellings.isdisjoint(owned.flags) or any(name.startswith(owned.families) for name in spellings):
            raise _refused(argument, position, f"leave it out: {owned.reason}")
    if spellings & flags.memory:
        raise _refused(
            argument, position, "it changes GPU memory in a way that the estimate does not know; leave it out"
        )


def _values_after(args: Sequence[str], start: int) -> int:
    """How many arguments from here on are values: up to the next flag. A negative number is a value."""
    count = 0
    for argument in args[start:]:
        if argument.startswith("-") and not _NEGATIVE_NUMBER.match(argument):
            break
        count += 1
    return count


def _refused(argument: str, position: int, allowed: str) -> InvalidInputError:
    return InvalidInputError(field=f"{FIELD}[{position}]", value=argument, allowed=allowed)
