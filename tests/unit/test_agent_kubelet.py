"""What the kubelet has handed out: over a real gRPC server on a Unix socket, and by every name that a GPU goes by."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from tests.unit.kubelet_double import KubeletDouble
from vrampack.agent.allocations import Held
from vrampack.agent.devices import Device, Identity, Memory, Mig, MigDevice, Traits
from vrampack.agent.kubelet import Kubelet
from vrampack.agent.podresources import Grant, Granted, Offer, PodResources
from vrampack.agent.pods import Pod, decode_nodes, decode_pods
from vrampack.agent.reading import Allocation
from vrampack.api import names
from vrampack.errors import ClusterError
from vrampack.units import GIB

MEMORY = Memory(total=80 * GIB, reserved=GIB, used=0)
MIG = MigDevice(uuid="MIG-5", profile="3g.40gb", instance=1, compute=0, memory=MEMORY)
DEVICES = (
    Device(identity=Identity(uuid="GPU-a", index=0, product="H100", minor=1), traits=Traits(), memory=MEMORY),
    Device(
        identity=Identity(uuid="GPU-b", index=1, product="H100", minor=0),
        traits=Traits(mig=Mig(current=True, pending=True, devices=(MIG,))),
        memory=MEMORY,
    ),
)
(NODE,) = decode_nodes(
    b'{"items":[{"metadata":{"name":"n","uid":"u","resourceVersion":"1"},'
    b'"status":{"allocatable":{"nvidia.com/gpu":"2","cpu":"8"}}}]}'
)


def pod(name: str, *, namespace: str = "default", **labels: str) -> Pod:
    keys = {f"{names.GROUP}/{key.replace('_', '-')}": value for key, value in labels.items()}
    meta = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1", "labels": keys}
    (decoded,) = decode_pods(msgspec.json.encode({"items": [{"metadata": meta}]}))
    return decoded


class Api:
    """The API server's ResourceSlices."""

    def __init__(self, items: list[dict[str, Any]] | None = None) -> None:
        self.items = items
        self.asked: list[object] = []

    async def list_raw(self, path: str, **query: object) -> bytes:
        self.asked.append(query["fieldSelector"])
        if self.items is None:
            raise ClusterError("no", status=403)
        return msgspec.json.encode({"items": self.items})


@pytest.fixture
def double(tmp_path: Path) -> Iterator[KubeletDouble]:
    double = KubeletDouble(tmp_path / "kubelet.sock")
    double.start()
    yield double
    double.stop()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def ask(double: KubeletDouble, *pods: Pod, api: Api | None = None) -> Held:
    kubelet = Kubelet(
        resources=PodResources(double.socket), kube=api or Api(), node="n", namespace="system", clock=Clock()
    )
    try:
        return await kubelet.held(devices=DEVICES, pods={each.metadata.uid: each for each in pods}, node=NODE)
    finally:
        kubelet.close()


class TestSocket:
    async def test_all_that_the_kubelet_knows(self, double: KubeletDouble) -> None:
        double.pods = {
            "default/a": {
                "main": {"plugin": {"nvidia.com/gpu": ["GPU-a"]}},
                "side": {"dra": {"claim": ("gpu.nvidia.com", "n", "gpu-0")}},
            },
            "default/b": {"main": {}},
        }
        double.offers = {"nvidia.com/gpu": ["GPU-a", "GPU-b"]}
        resources = PodResources(double.socket)
        assert await resources.read() == Granted(
            grants=(
                Grant(namespace="default", pod="a", container="main", resource="nvidia.com/gpu", device="GPU-a"),
                Grant(
                    namespace="default",
                    pod="a",
                    container="side",
                    resource="default/claim",
                    device="gpu-0",
                    driver="gpu.nvidia.com",
                    pool="n",
                ),
            ),
            offers=(
                Offer(resource="nvidia.com/gpu", device="GPU-a"),
                Offer(resource="nvidia.com/gpu", device="GPU-b"),
            ),
        )
        resources.close()

    async def test_a_kubelet_that_restarts(self, double: KubeletDouble) -> None:
        resources = PodResources(double.socket)
        assert isinstance(await resources.read(), Granted)
        double.stop()
        assert isinstance(await resources.read(), str)
        double.start()
        assert isinstance(await resources.read(), Granted)
        resources.close()

    async def test_a_refusal_is_told(self, double: KubeletDouble) -> None:
        double.error = grpc.StatusCode.RESOURCE_EXHAUSTED
        resources = PodResources(double.socket)
        answer = await resources.read()
        assert isinstance(answer, str)
        assert "as the test wants it" in answer
        resources.close()


@pytest.mark.parametrize(
    ("resource", "device", "uuid"),
    [
        ("nvidia.com/gpu", "GPU-a", "GPU-a"),
        ("nvidia.com/gpu.shared", "GPU-b::3", "GPU-b"),
        ("nvidia.com/mig-3g.40gb", "MIG-5", "GPU-b"),
        ("nvidia.com/gpu", "1", "GPU-b"),
        ("nvidia.com/gpu", "1::0", "GPU-b"),
        ("nvidia.com/gpu", "nvidia0", "GPU-b"),
        ("nvidia.com/gpu", "nvidia1/gi1", "GPU-a"),
        ("nvidia.com/gpu", "nvidia1/vgpu2", "GPU-a"),
        ("nvidia.com/gpu", "GPU-of-another-node", None),
        ("rdma/hca", "0", None),
        ("nvidia.com/gpu", "7", None),
    ],
)
async def test_names_of_a_device_plugin(double: KubeletDouble, resource: str, device: str, uuid: str | None) -> None:
    double.pods = {"default/other": {"main": {"plugin": {resource: [device]}}}}
    double.offers = {resource: [device]}
    found = await ask(double)
    assert found.offered == (frozenset() if uuid is None else {uuid})
    assert list(found.allocations) == ([] if uuid is None else [uuid])


SLICE = {
    "spec": {
        "driver": "gpu.nvidia.com",
        "pool": {"name": "n"},
        "devices": [
            {"name": "gpu-7", "attributes": {"uuid": {"string": "GPU-a"}, "index": {"int": 7}}},
            {"name": "gpu-7-mig-1", "attributes": {"gpu.nvidia.com/parentUUID": {"string": "GPU-b"}}},
        ],
    }
}


@pytest.mark.parametrize(
    ("items", "device", "uuid"),
    [
        ([SLICE], ("gpu.nvidia.com", "n", "gpu-7"), "GPU-a"),
        ([SLICE], ("gpu.nvidia.com", "n", "gpu-7-mig-1"), "GPU-b"),
        ([], ("gpu.nvidia.com", "n", "gpu-0"), "GPU-b"),
        (None, ("gpu.nvidia.com", "n", "gpu-1-mig-19-4-1"), "GPU-a"),
        ([SLICE], ("nic.example.com", "n", "gpu-0"), None),
    ],
    ids=["by the slice", "a part of it", "by its name", "without permission", "of another driver"],
)
async def test_devices_of_a_dra_driver(
    double: KubeletDouble, items: list[dict[str, Any]] | None, device: tuple[str, str, str], uuid: str | None
) -> None:
    double.pods = {"default/other": {"main": {"dra": {"claim": device}}}}
    api = Api(items)
    found = await ask(double, api=api)
    assert list(found.allocations) == ([] if uuid is None else [uuid])
    assert api.asked == ["spec.nodeName=n"]


async def test_who_counts(double: KubeletDouble) -> None:
    """Ours are claimed already; only in the operator's namespace can a pod hold a GPU for vrampack."""
    gpu = {"main": {"plugin": {"nvidia.com/gpu": ["GPU-a"]}}}
    double.pods = dict.fromkeys(("default/ours", "system/holder", "default/pretender", "default/static"), gpu)
    found = await ask(
        double,
        pod("ours", model_deployment="m"),
        pod("holder", namespace="system", reservation="true"),
        pod("pretender", reservation="true"),
    )
    assert [(each.pod, each.reservation) for each in found.allocations["GPU-a"]] == [
        ("holder", True),
        ("pretender", False),
        ("static", False),
    ]
    assert found.allocations["GPU-a"][1] == Allocation(
        namespace="default", pod="pretender", container="main", resource="nvidia.com/gpu", device="GPU-a"
    )


async def test_one_that_hangs_holds_up_nothing_and_what_was_known_holds(
    double: KubeletDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrampack.agent.kubelet._PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr("vrampack.agent.podresources._TIMEOUT_SECONDS", 0.5)
    clock = Clock()
    kubelet = Kubelet(resources=PodResources(double.socket), kube=Api(), node="n", namespace="system", clock=clock)

    async def held() -> Held:
        clock.now += 3
        return await kubelet.held(devices=DEVICES, pods={}, node=NODE)

    try:
        double.offers = {"nvidia.com/gpu": ["GPU-b"]}
        async with asyncio.timeout(20):
            while (await held()).offered != {"GPU-b"}:
                pass
            double.hangs.set()
            began = time.monotonic()
            before = await held()
            assert (before.offered, before.trouble) == ({"GPU-b"}, "")
            assert time.monotonic() - began < 0.5
            while not (silent := await held()).trouble:
                pass
            assert silent.offered == {"GPU-a", "GPU-b"}, "its time is over: it may hand out anything"
            double.hangs.clear()
            while (await held()).trouble:
                pass
    finally:
        kubelet.close()


async def test_a_kubelet_that_can_not_be_asked_may_hand_out_anything(tmp_path: Path) -> None:
    found = await ask(KubeletDouble(tmp_path / "absent.sock"))
    assert found.offered == {"GPU-a", "GPU-b"}
    assert "absent.sock" in found.trouble
