"""Sharing mechanisms on the real control plane: what a node must have, and DRA, where kube-scheduler itself decides."""

import json
from typing import Any

import pytest

from tests.integration.harness import World
from tests.integration.looks import claim_of, gpus_of
from tests.integration.manifests import Manifest, group, model
from vrampack.api import names
from vrampack.units import GIB, parse_bytes

pytestmark = pytest.mark.cluster

DRIVER = "gpu.nvidia.com"


def pool(world: World, **spec: Any) -> Manifest:
    """A pool of this world's nodes alone."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GPUPool",
        "metadata": {"name": f"{world.namespace}-pool"},
        "spec": {"nodeSelector": {"world": world.namespace}, "runtimeClassName": "", **spec},
    }


def device_class(world: World) -> Manifest:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": f"{world.namespace}-gpu"},
        "spec": {"selectors": [{"cel": {"expression": f"device.driver == '{DRIVER}'"}}]},
    }


def published(world: World, node: str, *, gpus: int, by_memory: bool = True) -> Manifest:
    """A ResourceSlice as a driver writes it for the GPUs of a node, 44Gi each."""
    memory: Manifest = {"value": "44Gi"}
    if by_memory:
        memory["requestPolicy"] = {"default": "1Gi", "validRange": {"min": "1Mi", "step": "1Mi"}}
    devices = [
        {
            "name": f"gpu-{index}",
            "attributes": {"uuid": {"string": world.gpu(node, index)}},
            "capacity": {"memory": memory},
            **({"allowMultipleAllocations": True} if by_memory else {}),
        }
        for index in range(gpus)
    ]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": world.node(node)},
        "spec": {
            "driver": DRIVER,
            "nodeName": world.node(node),
            "pool": {"name": world.node(node), "generation": 1, "resourceSliceCount": 1},
            "devices": devices,
        },
    }


def in_pool(world: World, name: str, claim: str, **spec: Any) -> Manifest:
    return model(name, claim=claim, placement={"pool": f"{world.namespace}-pool"}, **spec)


async def allocation(world: World, pod: Manifest) -> tuple[str, int]:
    """The device and the bytes that kube-scheduler gave a pod."""
    (held,) = [
        claim["status"]["allocation"]["devices"]["results"]
        for claim in await world.every("ResourceClaim")
        if any(each["uid"] == pod["metadata"]["uid"] for each in claim["status"].get("reservedFor", ()))
    ]
    (result,) = held
    return result["device"], parse_bytes(result["consumedCapacity"]["memory"])


async def test_kube_scheduler_counts_the_bytes_and_chooses_the_gpu(world: World) -> None:
    await world.fleet(group("a", gpus=2, labels={"world": world.namespace}))
    await world.apply(device_class(world), published(world, "a", gpus=2))
    await world.apply(pool(world, mechanism="DRA", deviceClass=f"{world.namespace}-gpu"))
    await world.apply(*(in_pool(world, name, "20Gi") for name in ("one", "two", "three", "four")))
    await world.ready("one", "two", "three", "four")
    taken: dict[str, int] = {}
    for name in ("one", "two", "three", "four"):
        (pod,) = await world.pods(name)
        device, consumed = await allocation(world, pod)
        assert consumed == claim_of(pod) == 20 * GIB
        assert pod["spec"]["resourceClaims"][0]["resourceClaimTemplateName"].startswith(f"{name}-")
        assert pod["metadata"]["annotations"][names.SCOPE] == names.NODE_SCOPE
        taken[device] = taken.get(device, 0) + consumed
    assert taken == {"gpu-0": 40 * GIB, "gpu-1": 40 * GIB}
    await world.condition("GPUPool", f"{world.namespace}-pool", "MechanismReady", "True", "Works")

    async def read_back() -> None:
        gpus = (await world.get("GPUNode", world.node("a")))["status"]["gpus"]
        for index, gpu in enumerate(gpus):
            holders = {each["pod"] for each in gpu["claims"]}
            for name in ("one", "two", "three", "four"):
                (pod,) = await world.pods(name)
                device, _ = await allocation(world, pod)
                assert (pod["metadata"]["name"] in holders) == (device == f"gpu-{index}")

    await world.eventually(read_back)
    await world.apply(in_pool(world, "five", "20Gi"))
    await world.waiting("five", "InsufficientGPUMemory")


async def test_what_others_claim_by_dra_is_never_packed_over(world: World) -> None:
    await world.fleet(group("a", labels={"world": world.namespace}))
    await world.apply(device_class(world), published(world, "a", gpus=1))
    await world.apply(pool(world, mechanism="DRA", deviceClass=f"{world.namespace}-gpu"))
    exactly = {
        "deviceClassName": f"{world.namespace}-gpu",
        "capacity": {"requests": {"memory": "30Gi"}},
    }
    claim = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": "stranger"},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
    }
    stranger = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stranger"},
        "spec": {
            "tolerations": [{"operator": "Exists"}],
            "nodeSelector": {"world": world.namespace},
            "resourceClaims": [{"name": "gpu", "resourceClaimName": "stranger"}],
            "containers": [{"name": "c", "image": "x", "resources": {"claims": [{"name": "gpu"}]}}],
        },
    }
    await world.apply(claim, stranger)

    async def allocated() -> None:
        found = await world.get("ResourceClaim", "stranger")
        assert found.get("status", {}).get("reservedFor"), found

    await world.eventually(allocated)
    await world.apply(in_pool(world, "big", "20Gi"))
    waits = await world.waiting("big", "InsufficientGPUMemory")
    assert parse_bytes(waits["closest"]["free"]) < 15 * GIB
    await world.delete("Pod", "stranger")
    await world.delete("ResourceClaim", "stranger")
    await world.ready("big")


async def test_pods_of_a_namespace_share_the_gpu_of_one_claim(world: World) -> None:
    await world.fleet(group("a", labels={"world": world.namespace}))
    await world.apply(device_class(world), published(world, "a", gpus=1, by_memory=False))
    spec = {"mechanism": "DRA", "deviceClass": f"{world.namespace}-gpu"}
    await world.apply(pool(world, **spec))
    lacking = await world.condition("GPUPool", f"{world.namespace}-pool", "MechanismReady", "False", "NodesLackIt")
    said = next(each for each in lacking["status"]["conditions"] if each["type"] == "MechanismReady")
    assert "consumable shares" in said["message"]
    exactly = {"deviceClassName": f"{world.namespace}-gpu"}
    await world.apply(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "metadata": {"name": "shared"},
            "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
        }
    )
    await world.apply(pool(world, **spec, resourceClaim="shared"))
    await world.condition("GPUPool", f"{world.namespace}-pool", "MechanismReady", "True", "Works")
    await world.apply(in_pool(world, "one", "20Gi"), in_pool(world, "two", "20Gi"))
    await world.ready("one", "two")
    found = await world.get("ResourceClaim", "shared")
    holders = {each["uid"] for each in found["status"]["reservedFor"]}
    for name in ("one", "two"):
        (pod,) = await world.pods(name)
        assert pod["metadata"]["uid"] in holders


@pytest.mark.parametrize(
    ("mechanism", "advice", "reason"),
    [
        ("MIG", "no GPU has a MIG device", "GPUNotInMIGMode"),
        ("MPS", "vrampack.dev/mps=true", "MechanismNotReady"),
        ("HAMi", "install HAMi", "MechanismNotReady"),
        ("HAMiCore", "vrampack.dev/hami-core=true", "MechanismNotReady"),
        ("KAI", "run the device plugin", "MechanismNotReady"),
        ("MemoryLimits", "615 or newer", "MechanismNotReady"),
    ],
)
async def test_a_cluster_without_it_says_what_is_missing(
    world: World, mechanism: str, advice: str, reason: str
) -> None:
    await world.fleet(group("a", labels={"world": world.namespace}))
    await world.apply(pool(world, mechanism=mechanism), in_pool(world, "m", "10Gi"))
    lacking = await world.condition("GPUPool", f"{world.namespace}-pool", "MechanismReady", "False", "NodesLackIt")
    said = next(each for each in lacking["status"]["conditions"] if each["type"] == "MechanismReady")
    assert advice in said["message"]
    await world.waiting("m", reason)


async def test_hami_is_told_the_gpu_and_the_bytes(world: World) -> None:
    await world.fleet(group("a", gpus=2, labels={"world": world.namespace}))
    annotate = {"metadata": {"annotations": {"hami.io/node-nvidia-register": "[]"}}}
    await world.kube.merge_patch(world.path("Node", world.node("a")), annotate, field_manager="kubectl")
    await world.apply(pool(world, mechanism="HAMi"), in_pool(world, "m", "10Gi"))

    async def claimed() -> Manifest:
        pods = await world.pods("m")
        assert pods, "the Deployment has no pod yet"
        assert gpus_of(pods[0]), json.dumps(pods[0]["metadata"])
        return pods[0]

    pod = await world.eventually(claimed)
    assert pod["spec"]["schedulerName"] == "hami-scheduler"
    (engine,) = pod["spec"]["containers"]
    assert engine["resources"]["limits"] == {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "10240"}
    assert pod["metadata"]["annotations"]["nvidia.com/use-gpuuuid"] == gpus_of(pod)[0]
