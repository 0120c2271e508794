"""Fixtures of the integration tests: the chart in force, and a world for each test of the operator."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

import pytest

from tests.integration.auditor import Auditor
from tests.integration.claims import RELEASE, install
from tests.integration.harness import World
from tests.integration.kubectl import Kubectl
from tests.integration.machinery import TOKEN_NAMESPACE, Machinery
from tests.integration.manifests import TINY, group, profile
from vrampack.kube.client import Kube
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.hubdouble import HubDouble
from vrampack.localcluster.process import Guard

Machine = TypeVar("Machine", bound=Machinery)
TOKENS = f"hubTokens.namespaces={{{TOKEN_NAMESPACE}}}"
"""A value of the chart: who installs it again keeps it, as other modules count on it."""


@pytest.fixture(scope="session")
async def installed(cluster: LocalCluster) -> LocalCluster:
    """The cluster with the chart of the real helm in force, and no operator yet."""
    await prepare(cluster)
    return cluster


async def prepare(cluster: LocalCluster) -> None:
    """Puts the chart in force, and the namespace whose secrets are tokens of the hub."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TOKEN_NAMESPACE}}
    await Kubectl(cluster=cluster).apply(namespace)
    await install(cluster, TOKENS)


@contextlib.asynccontextmanager
async def machinery_of(
    kind: type[Machine], installed: LocalCluster, request: pytest.FixtureRequest, folders: pytest.TempPathFactory
) -> AsyncIterator[Machine]:
    """Hub, agent and operators of one module, ended with it however it ends: other modules play the operator."""
    name = request.module.__name__.rpartition("_")[2]
    folder = folders.mktemp(name)
    kube = await Kube.connect(str(installed.kubeconfig))
    with Guard() as guard:
        async with HubDouble(open_terms=True) as hub:
            machinery = kind(
                name=name,
                cluster=installed,
                kube=kube,
                hub=hub,
                folder=folder,
                guard=guard,
                operator_kubeconfig=await installed.token_for("vrampack", RELEASE),
                agent_kubeconfig=await installed.token_for("vrampack-agent", RELEASE),
            )
            machinery.write_fleet({"nodes": [group("nowhere")]})
            try:
                yield machinery
            finally:
                await machinery.stop()
                await kube.close()


@pytest.fixture(scope="module")
async def machinery(
    installed: LocalCluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Machinery]:
    """One simulated agent for all nodes."""
    async with machinery_of(Machinery, installed, request, tmp_path_factory) as machinery:
        yield machinery


@pytest.fixture
async def world(machinery: Machinery) -> AsyncIterator[World]:
    """A namespace without nodes, an operator that leads, and an auditor of all that happens."""
    machinery.worlds += 1
    world = World(machinery=machinery, namespace=f"{machinery.name}-{machinery.worlds}")
    world.log_starts = {each.identity: each.log.stat().st_size for each in machinery.operators}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": world.namespace}}
    await world.kube.create("/api/v1/namespaces", namespace)
    tiny = profile(TINY)
    await world.kube.apply(world.path("ModelProfile", TINY), tiny, field_manager="kubectl")
    try:
        await machinery.start_agent()
        await machinery.leader()
        async with Auditor(machinery.cluster.kubeconfig) as auditor:
            yield world
            await auditor.settle()
            auditor.check()
        machinery.check_alive()
    finally:
        await world.clear()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """A test that fails shows what the operators said while it ran."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and isinstance(world, World):
        report.sections.append(("log of the operators", world.operator_log()))
        report.sections += [(f"log of {name}", text) for name, text in world.machinery.agent_logs().items()]
