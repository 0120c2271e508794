"""The packer in the operator: which GPU is filled, what a pool says of its GPUs, and better plans carried out."""

import pytest

from tests.integration.commandline import command
from tests.integration.harness import Recorder, World
from tests.integration.looks import gpus_of, lone
from tests.integration.manifests import Manifest, group, model
from vrampack.api import names

pytestmark = pytest.mark.cluster

LABEL = "world"


def pool(world: World, **spec: object) -> Manifest:
    """A pool of this world's nodes alone."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GPUPool",
        "metadata": {"name": world.namespace},
        "spec": {"nodeSelector": {LABEL: world.namespace}, "startup": "Parallel", **spec},
    }


def own(world: World, name: str, claim: str, *, spread: str = "Ignore", load: str = "0.3", **spec: object) -> Manifest:
    overlay = {"metadata": {"annotations": {"sim.vrampack.dev/load-seconds": load}}}
    placement = {"pool": world.namespace, "spread": spread}
    return model(name, claim=claim, placement=placement, **{"podTemplate": overlay, **spec})


async def fleet(world: World, *groups: Manifest) -> None:
    await world.fleet(*({**each, "labels": {LABEL: world.namespace}} for each in groups))


def on(world: World, node: str) -> Manifest:
    """A podTemplate for this node alone."""
    return {
        "metadata": {"annotations": {"sim.vrampack.dev/load-seconds": "0.3"}},
        "spec": {"nodeSelector": {"kubernetes.io/hostname": world.node(node)}},
    }


async def test_a_small_replica_leaves_the_gap_that_a_large_one_needs(world: World) -> None:
    """Of 44 GiB each: 30 are free on a, 40 on b. First fit would take a, and then nothing had room for 30."""
    await world.apply(pool(world))
    await fleet(world, group("a"), group("b"), group("c"))
    await world.apply(
        own(world, "first", "14Gi", podTemplate=on(world, "a")),
        own(world, "second", "4Gi", podTemplate=on(world, "b")),
        own(world, "filler", "14Gi", podTemplate=on(world, "c")),
        own(world, "large", "30Gi", podTemplate=on(world, "c")),
    )
    await world.ready("first", "second", "filler", "large")
    await world.apply(own(world, "small", "10Gi"))
    await world.ready("small")
    assert gpus_of(lone(await world.pods("small"))) == [world.gpu("b")]
    status, text, err = await command(world, "explain", "small", "-n", world.namespace)
    assert status == 0, err
    assert "the least memory that what is usual here can't use" in " ".join(text.split())
    await world.apply(own(world, "another", "30Gi"))
    await world.ready("another")


async def test_a_gpu_holds_no_more_replicas_than_the_pool_says(world: World) -> None:
    await world.apply(pool(world, maxReplicasPerGPU=1))
    await fleet(world, group("a", gpus=2))
    await world.apply(own(world, "m", "5Gi", replicas=3))
    await world.waiting("m", "TooManyReplicasOnGPU")
    taken = [gpus_of(pod) for pod in await world.pods("m") if gpus_of(pod)]
    assert sorted(taken) == sorted([[world.gpu("a", 0)], [world.gpu("a", 1)]])
    await world.patch("GPUPool", world.namespace, {"spec": {"maxReplicasPerGPU": 2}})
    await world.ready("m")


async def test_where_gpus_have_prices_the_cheapest_bytes_are_taken(world: World) -> None:
    prices = [
        {"product": "NVIDIA-L40S", "price": "0.9"},
        {"product": "NVIDIA-H100-80GB-HBM3", "price": 4},
    ]
    await world.apply(pool(world, prices=prices[:1], refineSeconds=1))
    await fleet(world, group("a"), group("b", product="H100-80"))

    await world.condition("GPUPool", world.namespace, "Priced", "False", "ProductWithoutPrice")
    await world.patch("GPUPool", world.namespace, {"spec": {"prices": prices}})
    await world.condition("GPUPool", world.namespace, "Priced", "True", "AllProductsPriced")
    await world.apply(own(world, "m", "15Gi", replicas=2))
    await world.ready("m")
    assert {gpu for pod in await world.pods("m") for gpu in gpus_of(pod)} == {world.gpu("a")}

    async def proven() -> None:
        bound = (await world.get("GPUPool", world.namespace))["status"].get("bound", {})
        assert (bound.get("usedPrice"), bound.get("leastPrice")) == ("0.9", "0.9")
        assert "proven optimal" in bound["explanation"]

    await world.eventually(proven)


TRIPLETS = (19, 13, 9, 16, 12, 13, 20, 11, 10, 19, 12, 10)
"""GiB of twelve models that fill four times 41 GiB to the last byte, which no plan by size finds."""


async def test_while_engines_start_a_better_plan_is_found_and_carried_out(world: World) -> None:
    await world.apply(pool(world, startup="Serialized", refineSeconds=5))
    await fleet(world, group("a", count=4))
    await world.apply(own(world, "busy", "3Gi", spread="Require", replicas=4, load="25"))

    async def claimed() -> None:
        assert len({gpu for pod in await world.pods("busy") for gpu in gpus_of(pod)}) == 4

    await world.eventually(claimed)
    wanted = [own(world, f"m{number:02}", f"{size}Gi") for number, size in enumerate(TRIPLETS)]
    await world.apply(*wanted)
    await world.ready(*(each["metadata"]["name"] for each in wanted), within=120)
    told = [
        pod["metadata"]["annotations"][names.BECAUSE]
        for each in wanted
        for pod in await world.pods(each["metadata"]["name"])
    ]
    assert all(each.startswith("the one that the search for a better packing gave it") for each in told)


STUCK = {"a": (15, 14, 15), "b": (12, 17), "c": (20,), "d": (8, 19, 12)}
"""GiB of the models on each GPU of 44: three GPUs would do, and none can be emptied before others change places."""


async def test_the_way_to_a_better_packing_is_made_move_by_move(world: World) -> None:
    await world.apply(pool(world, moves={"mode": "Never"}))
    await fleet(world, *(group(name) for name in STUCK))
    names_ = []
    for here, sizes in STUCK.items():
        for name in STUCK:
            wishes = [] if name == here else [{"uuid": world.gpu(name), "cordoned": True}]
            await world.patch("GPUNode", world.node(name), {"spec": {"gpus": wishes}})
        mine = {f"{here}{number}": own(world, f"{here}{number}", f"{size}Gi") for number, size in enumerate(sizes)}
        await world.apply(*mine.values())
        await world.ready(*mine)
        assert {gpu for name in mine for pod in await world.pods(name) for gpu in gpus_of(pod)} == {world.gpu(here)}
        names_ += mine
    for name in STUCK:
        await world.patch("GPUNode", world.node(name), {"spec": {"gpus": []}})
    async with Recorder(world, names_[0]) as one, Recorder(world, names_[-1]) as other:
        evict = {"refineSeconds": 3, "moves": {"mode": "Evict", "perHour": 16}}
        await world.patch("GPUPool", world.namespace, {"spec": evict})

        async def emptied() -> None:
            used = {gpu for name in names_ for pod in await world.pods(name) for gpu in gpus_of(pod)}
            assert len(used) == 3

        await world.eventually(emptied, within=120)
        await world.ready(*names_)
    assert (one.fewest, other.fewest) == (1, 1)
    done = (await world.get("GPUPool", world.namespace))["status"]["moves"]
    assert {each["because"].rpartition(" is ")[2] for each in done} == {"to be empty"}
