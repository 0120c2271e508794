"""A replica that waits is told what would make it fit, and what it is told is true."""

import re

import pytest

from benchmarks.llama_profile import LLAMA_PROFILE
from tests.integration.harness import World
from tests.integration.looks import gpus_of, lone
from tests.integration.manifests import Manifest, group, model
from vrampack.api import names
from vrampack.units import GIB, parse_bytes

pytestmark = pytest.mark.cluster

CONTEXT = 8192


def asked(source: str, concurrency: int) -> Manifest:
    """Llama 3.1 8B: 15 GiB of weights, and 1 GiB of KV cache for each sequence."""
    return model("m", claim=None, source=source, serving={"contextLength": CONTEXT, "concurrency": concurrency})


async def test_the_smallest_changes_that_would_fit_are_told_and_hold(world: World) -> None:
    await world.fleet(group("a"))
    name = f"llama-{world.namespace}"
    await world.apply(
        {"apiVersion": names.API_VERSION, "kind": "ModelProfile", "metadata": {"name": name}, "spec": LLAMA_PROFILE}
    )
    await world.apply(model("first", claim="20Gi"))
    await world.ready("first")
    await world.apply(asked(f"profile://{name}", 16))

    async def told() -> list[str]:
        entry = lone((await world.get("ModelDeployment", "m"))["status"].get("waiting", ()))
        assert entry["reason"] == "InsufficientGPUMemory"
        assert entry.get("wouldFitIf")
        return list(entry["wouldFitIf"])

    lines = await world.eventually(told)
    assert "kvCache: fp8" not in lines, "half of the cache is still too much"
    assert not [line for line in lines if "precision.weights" in line], "the weights are a contract"
    assert [line for line in lines if line.startswith("contextLength ≤ ")]
    (most,) = (int(found[1]) for line in lines if (found := re.fullmatch(r"concurrency ≤ (\d+)", line)))
    assert 1 <= most < 16

    await world.patch("ModelDeployment", "m", {"spec": {"serving": {"concurrency": most + 1}}})

    async def one_too_many() -> None:
        found = await world.get("ModelDeployment", "m")
        assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
        assert f"concurrency ≤ {most}" in lone(found["status"].get("waiting", ())).get("wouldFitIf", ())

    await world.eventually(one_too_many)
    await world.patch("ModelDeployment", "m", {"spec": {"serving": {"concurrency": most}}})
    (found,) = await world.ready("m")
    (pod,) = await world.pods("m")
    assert gpus_of(pod) == gpus_of(lone(await world.pods("first")))
    claimed = parse_bytes(found["status"]["estimate"]["perGPU"])
    assert claimed + 20 * GIB <= 44.39 * GIB
    assert not found["status"].get("waiting")


async def test_another_pool_with_room_is_told_by_name(world: World) -> None:
    await world.fleet(group("a"), group("b", product="H100-80"))
    other = f"large-{world.namespace}"
    await world.apply(
        {
            "apiVersion": names.API_VERSION,
            "kind": "GPUPool",
            "metadata": {"name": other},
            "spec": {"nodeSelector": {"kubernetes.io/hostname": world.node("b")}},
        }
    )
    await world.apply(model("first", claim="30Gi"))
    await world.ready("first")
    await world.apply(model("m", claim="40Gi"))

    async def told() -> None:
        entry = lone((await world.get("ModelDeployment", "m"))["status"].get("waiting", ()))
        assert f"placement.pool: {other}" in entry.get("wouldFitIf", ())

    await world.eventually(told)
    await world.apply(model("m", claim="40Gi", placement={"pool": other}))
    await world.ready("m")
    assert gpus_of(lone(await world.pods("m"))) == [world.gpu("b")]
