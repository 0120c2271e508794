"""Leadership on the real API server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from vrampack.api import names
from vrampack.controller.lease import Leadership
from vrampack.kube.client import Kube
from vrampack.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

NAMESPACE = "lease-test"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{names.LEADER_LEASE}"


@pytest.fixture(scope="module")
async def kube(cluster: LocalCluster) -> AsyncIterator[Kube]:
    """A namespace where no operator campaigns."""
    kube = await Kube.connect(str(cluster.kubeconfig))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await kube.create("/api/v1/namespaces", namespace)
    yield kube
    await kube.delete(f"/api/v1/namespaces/{NAMESPACE}")
    await kube.close()


class Contender:
    def __init__(self, kube: Kube, identity: str) -> None:
        self.changed = asyncio.Event()
        self.leadership = Leadership(
            kube, namespace=NAMESPACE, identity=identity, lease_seconds=3, on_change=self.changed.set
        )
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.leadership.run(self.stop))

    async def until(self, so: Callable[[Leadership], bool]) -> None:
        async with asyncio.timeout(30):
            while not so(self.leadership):
                await self.changed.wait()
                self.changed.clear()

    async def end(self) -> None:
        self.stop.set()
        await self.task


async def test_leaders_follow_each_other_with_rising_epochs(kube: Kube) -> None:
    first = Contender(kube, "first")
    await first.until(lambda leadership: leadership.settled)
    before = first.leadership.epoch
    assert before is not None
    second = Contender(kube, "second")

    await first.end()
    assert first.leadership.epoch is None
    await second.until(lambda leadership: leadership.epoch == before + 1)
    spec = (await kube.get(LEASE))["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("second", before + 1)

    second.task.cancel()  # a crash: nothing is given back
    with contextlib.suppress(asyncio.CancelledError):
        await second.task
    third = Contender(kube, "third")
    await third.until(lambda leadership: leadership.epoch == before + 2)
    assert second.leadership.epoch is None
    await third.end()
    assert not (await kube.get(LEASE))["spec"].get("holderIdentity")
