"""The plan of the operator, as a whole: what was planned happens, many at once, and nobody starves."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from tests.integration.commandline import command
from tests.integration.harness import World
from tests.integration.looks import claim_of, gpus_of, lone
from tests.integration.manifests import LOADS_FAST, Manifest, group, model
from vrampack.units import GIB, parse_bytes

pytestmark = pytest.mark.cluster


async def placed(world: World, names: list[str]) -> dict[str, list[tuple[str, ...]]]:
    """GPUs of the replicas of each model."""
    return {name: sorted(tuple(gpus_of(pod)) for pod in await world.pods(name) if gpus_of(pod)) for name in names}


async def test_what_vrampack_plan_says_is_what_the_operator_then_does(world: World, tmp_path: Path) -> None:
    await world.fleet(group("a", gpus=2), group("b", product="H100-80"), group("c", product="L4"))
    await world.apply(model("there", claim="15Gi"))
    await world.ready("there")
    wanted = [
        model("wide", claim="25Gi", parallelism={"tensor": 2}),
        model("many", claim="12Gi", replicas=4),
        model("alone", claim="8Gi", placement={"sharing": "Exclusive"}),
        model("large", claim="60Gi"),
        model("too-many", claim="38Gi", replicas=3),
    ]
    manifest = tmp_path / "models.yaml"
    manifest.write_text(yaml.safe_dump_all(wanted))
    status, out, err = await command(world, "plan", str(manifest), "-n", world.namespace, "-o", "json", "--refine=2")
    assert status == 2, err
    said = json.loads(out)
    uuids = {(node, index): world.gpu(node.removeprefix(f"{world.namespace}-"), index) for node, index in _gpus(world)}
    told: dict[str, list[tuple[str, ...]]] = {each["metadata"]["name"]: [] for each in wanted}
    for row in said["placements"]:
        space, name = row["model"].split("/")
        if space == world.namespace and name in told:
            assert row["new"]
            told[name].append(tuple(uuids[row["node"], index] for index in row["gpus"]))
    waiting = {row["model"]: row["replicas"] for row in said["waiting"] if row["model"].startswith(world.namespace)}

    await world.apply(*wanted)

    async def as_told() -> None:
        names = [each["metadata"]["name"] for each in wanted]
        found = await placed(world, names)
        assert {name: [sorted(gpus) for gpus in some] for name, some in found.items()} == {
            name: sorted(sorted(gpus) for gpus in some) for name, some in told.items()
        }
        late = {}
        for name in names:
            for entry in (await world.get("ModelDeployment", name)).get("status", {}).get("waiting", ()):
                late[f"{world.namespace}/{name}"] = late.get(f"{world.namespace}/{name}", 0) + entry["count"]
        assert late == waiting

    await world.eventually(as_told)
    for key in waiting:
        status, text, err = await command(world, "explain", key.split("/")[1], "-n", world.namespace)
        assert status == 0, err
        assert "ruled out:" in text


def _gpus(world: World) -> list[tuple[str, int]]:
    return [(each["name"], index) for each in world.groups for index in range(each["gpus"])]


async def test_five_hundred_replicas_of_forty_models_at_once(world: World) -> None:
    await world.fleet(group("big", count=16, product="H100-80", gpus=8), group("small", count=8, gpus=4))
    sizes = [2 + number % 13 for number in range(40)]
    counts = [12 + number % 2 for number in range(40)]
    assert sum(counts) == 500
    wanted = [
        model(f"m{number:02}", claim=f"{size}Gi", replicas=count, placement={"spread": "Ignore"})
        for number, (size, count) in enumerate(zip(sizes, counts, strict=True))
    ]
    await world.apply(*wanted)
    await world.ready(*(each["metadata"]["name"] for each in wanted), within=150)
    pods = [pod for pod in await world.every("Pod") if gpus_of(pod)]
    assert len(pods) == 500
    used = {gpu for pod in pods for gpu in gpus_of(pod)}
    demand = sum(claim_of(pod) for pod in pods)
    assert demand == sum(size * count for size, count in zip(sizes, counts, strict=True)) * GIB
    nodes = [node["status"]["gpus"] for node in await world.every("GPUNode")]
    opened = sum(parse_bytes(gpu["memory"]) for gpus in nodes for gpu in gpus if gpu["uuid"] in used)
    assert opened <= 1.1 * demand, f"{opened / demand:.3f} times what they need, on {len(used)} GPUs"


async def test_a_large_replica_among_a_stream_of_small_ones_is_placed(world: World) -> None:
    """Small ones come and go all the time, and each fits into what is free; the large one never would by itself."""
    await world.machinery.keep_one_operator()
    first = await world.machinery.leader()
    world.machinery.start_operator("--patience-seconds=4")
    await first.stop()
    await world.machinery.leader()
    await world.fleet(group("a"))
    await world.apply(small(0), small(1), small(2))
    await world.ready("small-0", "small-1", "small-2")
    await world.apply(model("large", claim="40Gi"))
    await world.waiting("large", "InsufficientGPUMemory")

    async def stream() -> None:
        """Before one goes, the next has come: there is never room for the large one unless it is kept for it."""
        for number in range(3, 60):
            await world.apply(small(number))
            await asyncio.sleep(1.0)  # the stream's own pace
            await world.delete("ModelDeployment", f"small-{number - 3}")

    flow = asyncio.create_task(stream())
    try:
        await world.ready("large", within=90)
        assert not flow.done(), "the stream was still on"
    finally:
        flow.cancel()
        await asyncio.gather(flow, return_exceptions=True)
    assert gpus_of(lone(await world.pods("large"))) == [world.gpu("a")]


def small(number: int) -> Manifest:
    return model(f"small-{number}", claim="13Gi", podTemplate=LOADS_FAST, placement={"spread": "Ignore"})
