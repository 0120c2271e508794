"""Images and versions of the engines, in one place: what is run where a ModelDeployment names no image."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


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


def image(engine: str, *, version: str) -> str:
    """The public image of this version."""
    return RELEASES[engine].image.format(version=version.removeprefix("v"))
