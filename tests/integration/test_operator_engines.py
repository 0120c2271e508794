"""Engines other than vLLM, from apply to Ready: each with its own command line, sized by its own rule."""

from typing import Any

import pytest

from tests.integration.harness import World
from tests.integration.looks import claim_of
from tests.integration.manifests import Manifest, group, model, profile
from vrampack.units import parse_bytes

pytestmark = pytest.mark.cluster

FILE = "tiny-Q4_K_M.gguf"


def engine_of(pod: Manifest) -> Manifest:
    found: Manifest = next(each for each in pod["spec"]["containers"] if each["name"] == "engine")
    return found


def valued(args: list[str], flag: str) -> str:
    """The value after a flag, however the engine writes it."""
    for position, each in enumerate(args):
        if each == flag:
            return args[position + 1]
        if each.startswith(f"{flag}="):
            return each.partition("=")[2]
    raise AssertionError(f"{flag} is not among {args}")


def gguf_profile(name: str) -> Manifest:
    facts = profile(name)
    facts["spec"] |= {"precision": "gguf", "file": FILE}
    return facts


async def served(world: World, **engine: Any) -> tuple[Manifest, Manifest]:
    """A model that this engine serves, once it is ready, and its pod."""
    await world.apply(model("m", claim=None, source="profile://facts", engine=engine))
    (deployment,) = await world.ready("m")
    (pod,) = await world.pods("m")
    assert claim_of(pod) == parse_bytes(deployment["status"]["estimate"]["perGPU"])
    return deployment, pod


async def test_llamacpp_serves_a_gguf_file(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(gguf_profile("facts"))
    deployment, pod = await served(world, name="llamacpp", version="b7917")
    engine = engine_of(pod)
    assert engine["image"] == "ghcr.io/ggml-org/llama.cpp:server-cuda-b7917"
    assert valued(engine["args"], "--ctx-size") == "4096"  # 4 sequences of 1024 tokens share the cells
    assert valued(engine["args"], "--model-url").endswith(
        f"/example/facts/resolve/{'0123456789abcdef' * 2}01234567/{FILE}"
    )
    assert deployment["status"]["model"]["precision"] == "gguf"
    assert deployment["status"]["estimate"]["method"] == "Computed"
