"""Engines other than vLLM, from apply to Ready: each with its own command line, sized by its own rule."""

from typing import Any

import pytest

from tests.integration.harness import World
from tests.integration.looks import claim_of
from tests.integration.manifests import Manifest, group, model, profile
from vrampack.errors import ClusterError
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


async def served(world: World, *, sharing: str = "Shared", **engine: Any) -> tuple[Manifest, Manifest]:
    """A model that this engine serves, once it is ready, and its pod."""
    placement = {"sharing": sharing}
    await world.apply(model("m", claim=None, source="profile://facts", engine=engine, placement=placement))
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


async def test_sglang_serves_a_model_by_tokens(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(profile("facts"))
    _, pod = await served(world, name="sglang", version="0.5.23")
    engine = engine_of(pod)
    assert engine["command"] == ["python3", "-m", "sglang.launch_server"]
    assert valued(engine["args"], "--max-total-tokens") == "4096"
    assert 0 < float(valued(engine["args"], "--mem-fraction-static")) < 1


async def test_tgi_serves_a_model_on_a_gpu_of_its_own_and_stalls_on_a_shared_one(world: World) -> None:
    await world.fleet(group("a"))
    await world.apply(profile("facts"))
    await world.apply(model("shared", claim=None, source="profile://facts", engine={"name": "tgi", "version": "3.3.6"}))
    stalled = await world.condition("ModelDeployment", "shared", "Stalled", "True", "InvalidSpec")
    said = next(each for each in stalled["status"]["conditions"] if each["type"] == "Stalled")
    assert "spec.placement.sharing" in said["message"]
    assert "write Exclusive" in said["message"]
    deployment, pod = await served(world, sharing="Exclusive", name="tgi", version="3.3.6")
    fraction = float(pod["metadata"]["annotations"]["vrampack.dev/utilization"])
    (gpu,) = (await world.get("GPUNode", world.node("a")))["status"]["gpus"]
    claimed = parse_bytes(deployment["status"]["estimate"]["perGPU"])
    assert abs(fraction - claimed / parse_bytes(gpu["memory"])) < 0.0002
    assert valued(engine_of(pod)["args"], "--cuda-memory-fraction") == "$(VRAMPACK_UTILIZATION)"


async def test_arguments_that_vrampack_sets_are_refused_by_name(world: World) -> None:
    for engine, version, flag in (
        ("sglang", "0.5.23", "--mem-fraction-static=0.9"),
        ("llamacpp", "b7917", "--ctx-size"),
        ("tgi", "3.3.6", "--cuda-memory-fraction=0.5"),
    ):
        bad = model("bad", source="profile://facts", engine={"name": engine, "version": version, "args": [flag]})
        with pytest.raises(ClusterError, match=flag.partition("=")[0]):
            await world.apply(bad)
