"""Images and versions of the engines, in one place: what is run where a ModelDeployment names no image."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, TypeVar

from vrampack.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An engine's public image, and the newest version whose flags were read."""

    image: str
    """With ``{version}`` where the version stands."""
    newest: str
    oldest: str
    """Of an older one the flags are not known."""


RELEASES: Final[Mapping[str, Release]] = MappingProxyType(
    {
        "vllm": Release(image="vllm/vllm-openai:v{version}", newest="0.33.0", oldest="0.12.0"),
        "sglang": Release(image="lmsysorg/sglang:v{version}", newest="0.5.23", oldest="0.5.10"),
        "llamacpp": Release(image="ghcr.io/ggml-org/llama.cpp:server-cuda-{version}", newest="b7917", oldest="b5554"),
        "tgi": Release(image="ghcr.io/huggingface/text-generation-inference:{version}", newest="3.3.6", oldest="3.0.0"),
    }
)


class Spoken(Protocol):
    """A way of speaking to an engine, from a release on."""

    @property
    def since(self) -> tuple[int, ...]: ...


Dialect = TypeVar("Dialect", bound=Spoken)


def dialect_of(engine: str, *, version: str, dialects: Sequence[Dialect]) -> Dialect:
    """How a release is spoken to. ``dialects``: the newest first.

    Raises InvalidInputError for a version that is no release, or older than what was read.
    """
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    if match is not None:
        release = tuple(int(part or 0) for part in match.groups())
        for dialect in dialects:
            if release >= dialect.since:
                return dialect
    raise unspoken(engine, version=version)


def unspoken(engine: str, *, version: str) -> InvalidInputError:
    """The error for a version whose flags are not known."""
    known = RELEASES[engine]
    return InvalidInputError(
        field="spec.engine.version",
        value=version,
        allowed=f"write a release of {engine}, {known.oldest} or newer, such as {known.newest}",
    )


def image(engine: str, *, version: str) -> str:
    """The public image of this version."""
    return RELEASES[engine].image.format(version=version.removeprefix("v"))
