"""The client on the real API server: what goes in and out, and how each refusal is told apart."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from vrampack.errors import ClusterError, ConflictError, NotFoundError, UnavailableError
from vrampack.kube.client import Kube
from vrampack.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

NAMESPACE = "kube-client"
MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
MANAGER = "test"


def config_map(name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"made-by": "test"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest.fixture(scope="module")
async def kube(cluster: LocalCluster) -> AsyncIterator[Kube]:
    kube = await Kube.connect(str(cluster.kubeconfig))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await kube.create("/api/v1/namespaces", namespace)
    yield kube
    await kube.delete(f"/api/v1/namespaces/{NAMESPACE}")
    await kube.close()


async def test_what_is_written_is_read(kube: Kube) -> None:
    created = await kube.create(MAPS, config_map("written", a="1"))
    path = f"{MAPS}/written"
    assert await kube.get(path) == created
    assert created["metadata"]["managedFields"][0]["manager"] == "vrampack"

    await kube.json_patch(path, [{"op": "add", "path": "/data/b", "value": "2"}], field_manager=MANAGER)
    await kube.merge_patch(path, {"data": {"a": None}}, field_manager=MANAGER)
    applied = await kube.apply(path, config_map("written", c="3"), field_manager=MANAGER)
    assert applied["data"] == {"b": "2", "c": "3"}

    await kube.delete(path)
    with pytest.raises(NotFoundError):
        await kube.get(path)


async def test_a_list_joins_its_pages(kube: Kube) -> None:
    await asyncio.gather(*(kube.create(MAPS, config_map(f"page-{n}")) for n in range(7)))
    found = await kube.list(MAPS, labelSelector="made-by in (test)", limit=3, resourceVersion=0)
    assert [one["metadata"]["name"] for one in found] == [f"page-{n}" for n in range(7)]
    assert b'"page-6"' in await kube.list_raw(MAPS, labelSelector="made-by=test")
    assert await kube.list(MAPS, fieldSelector="metadata.name=absent") == []


async def test_refusals_are_told_apart_and_name_the_request(kube: Kube) -> None:
    made = (await kube.create(MAPS, config_map("here")))["metadata"]
    path = f"{MAPS}/here"
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"a": "1"}}
    with pytest.raises(ConflictError, match=f'POST {MAPS}: 409 configmaps "here" already exists'):
        await kube.create(MAPS, config_map("here"))
    with pytest.raises(ConflictError, match=f"PATCH {path}: 409 .*object has been modified"):
        await kube.merge_patch(path, stale, field_manager=MANAGER)
    with pytest.raises(ConflictError, match=f"DELETE {path}: 409 .*UID in the precondition"):
        await kube.delete(path, uid="another")
    test = {"op": "test", "path": "/metadata/uid", "value": "another"}
    with pytest.raises(ClusterError, match=f"PATCH {path}: 422") as refused:
        await kube.json_patch(path, [test], field_manager=MANAGER)
    assert refused.value.status == 422
    with pytest.raises(ClusterError, match=r'400 .*unknown field "dtaa"'):
        await kube.create(MAPS, config_map("typo") | {"dtaa": {}})
    with pytest.raises(NotFoundError, match="404 page not found"):
        await kube.get("/apis/nothing.here/v1/things")
    await kube.delete(path, uid=made["uid"], resource_version=made["resourceVersion"], grace_seconds=0)


async def test_what_the_installed_definitions_lack_is_refused_for_this_object_alone(
    installed: LocalCluster, kube: Kube
) -> None:
    pools = "/apis/vrampack.dev/v1alpha1/gpupools"
    pool = {"apiVersion": "vrampack.dev/v1alpha1", "kind": "GPUPool", "metadata": {"name": "older"}}
    await kube.create(pools, {**pool, "spec": {}})
    with pytest.raises(ClusterError, match=r"status\.newer.*apply those of this version") as refused:
        await kube.apply(f"{pools}/older/status", {**pool, "status": {"newer": 1}}, field_manager=MANAGER)
    assert not isinstance(refused.value, UnavailableError)
    await kube.delete(f"{pools}/older")


@pytest.mark.parametrize(("price", "good"), [("1.86", True), ("100M", True), (2, True), ("1E", False), ("-1", False)])
async def test_a_price_that_cannot_be_counted_is_refused(
    installed: LocalCluster, kube: Kube, price: object, good: bool
) -> None:
    pools = "/apis/vrampack.dev/v1alpha1/gpupools"
    pool = {
        "apiVersion": "vrampack.dev/v1alpha1",
        "kind": "GPUPool",
        "metadata": {"name": "priced"},
        "spec": {"prices": [{"product": "L4", "price": price}]},
    }
    if not good:
        with pytest.raises(ClusterError, match="write a number from 0 to 100M"):
            await kube.create(pools, pool)
        return
    await kube.create(pools, pool)
    await kube.delete(f"{pools}/priced")
