"""The watches on the real API server, signed in as the chart's operator: what pokes, and what it leaves behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.claims import RELEASE
from tests.integration.manifests import model
from vrampack.api import names
from vrampack.controller.handlers import run_kopf
from vrampack.controller.pulse import Pulse, watches
from vrampack.errors import NotFoundError
from vrampack.kube.client import Kube
from vrampack.kube.mirror import Mirror
from vrampack.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

NAMESPACE = "handlers"
OURS = f"/apis/{names.API_VERSION}"
MODELS = f"{OURS}/namespaces/{NAMESPACE}/modeldeployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
PATIENCE_SECONDS = 20.0
QUIET_SECONDS = 0.7

_OWNED = {names.MANAGED_BY: names.MANAGER}
_CONTAINER = {"containers": [{"name": "engine", "image": "none"}]}
_GATED = {"schedulingGates": [{"name": names.GATE}], **_CONTAINER}
_TEMPLATE = {"metadata": {"labels": {"app": "none"}}, "spec": _CONTAINER}
OBJECTS: dict[str, dict[str, Any]] = {
    MODELS: model("watched"),
    f"{OURS}/gpupools": {"apiVersion": names.API_VERSION, "kind": "GPUPool", "metadata": {"name": "watched"}},
    f"{OURS}/gpunodes": {"apiVersion": names.API_VERSION, "kind": "GPUNode", "metadata": {"name": "watched"}},
    "/api/v1/nodes": {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "watched"}},
    PODS: {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "watched", "labels": _OWNED | {names.MODEL_DEPLOYMENT: "watched"}},
        "spec": _GATED,
    },
    DEPLOYMENTS: {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "watched", "labels": _OWNED},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "none"}}, "template": _TEMPLATE},
    },
}


@dataclass
class Watching:
    """The running watches, kopf's and the pulse, and their pokes."""

    kubeconfig: Path
    pokes: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    renew: asyncio.Event = field(default_factory=asyncio.Event)

    async def poked(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.pokes.get()

    async def quiet(self) -> int:
        """Nothing has poked for a while: the next poke has a new cause. Returns how often something did till then."""
        heard = 0
        try:
            while True:
                async with asyncio.timeout(QUIET_SECONDS):
                    await self.pokes.get()
                heard += 1
        except TimeoutError:
            return heard

    def poke(self) -> None:
        self.pokes.put_nowait(None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        kube = await Kube.connect(str(self.kubeconfig))
        pulse = Pulse(watches(kube, Mirror(kube), probing=True), poke=self.poke)
        pulses = asyncio.create_task(pulse.run())
        kopf = asyncio.create_task(
            run_kopf(
                kubeconfig=str(self.kubeconfig), poke=self.poke, stop=self.stop, ready=self.ready, renew=self.renew
            )
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.ready.wait()
            while not pulse.connected():
                await self.poked()
            yield
            assert pulse.connected()
        finally:
            self.stop.set()
            pulses.cancel()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(pulses, return_exceptions=True)
                await kopf
            await kube.close()


@pytest.fixture
async def watching(installed: LocalCluster) -> AsyncIterator[Watching]:
    watching = Watching(await installed.token_for("vrampack", RELEASE))
    async with watching.running():
        yield watching
    assert not watching.ready.is_set()


@pytest.fixture
async def admin(installed: LocalCluster) -> AsyncIterator[Kube]:
    """Leaves nothing of OBJECTS behind."""
    kube = await Kube.connect(str(installed.kubeconfig))
    await kube.apply(
        f"/api/v1/namespaces/{NAMESPACE}",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        field_manager="tests",
    )
    yield kube
    for path, body in OBJECTS.items():
        with suppress(NotFoundError):
            await kube.delete(f"{path}/{body['metadata']['name']}", grace_seconds=0)
    await kube.close()


async def test_every_kind_pokes_and_none_is_written_to(watching: Watching, admin: Kube) -> None:
    for path, body in OBJECTS.items():
        await watching.quiet()
        await admin.create(path, body, field_manager="tests")
        await watching.poked()
    await watching.quiet()
    found = (await admin.get(f"{MODELS}/watched"))["metadata"]
    assert "finalizers" not in found
    assert "annotations" not in found
    assert {entry["manager"] for entry in found["managedFields"]} == {"tests"}


@pytest.mark.parametrize(
    ("path", "part", "change"),
    [
        pytest.param(PODS, "/status", {"status": {"message": "changed"}}, id="pod"),
        pytest.param(DEPLOYMENTS, "", {"metadata": {"annotations": {"a": "b"}}}, id="Deployment"),
    ],
)
async def test_changes_and_deletions_poke_but_not_those_of_others(
    watching: Watching, admin: Kube, path: str, part: str, change: dict[str, Any]
) -> None:
    body = OBJECTS[path]
    name = body["metadata"]["name"]
    await admin.create(path, body, field_manager="tests")
    await watching.poked()
    await watching.quiet()
    await admin.merge_patch(f"{path}/{name}{part}", change, field_manager="tests")
    await watching.poked()
    await watching.quiet()
    await admin.delete(f"{path}/{name}", grace_seconds=0)
    await watching.poked()
    await watching.quiet()
    others = body | {"metadata": {"name": name, "labels": {"app": "none"}}}
    await admin.create(path, others, field_manager="tests")
    assert await watching.quiet() == 0


async def test_watches_outlive_an_api_server(watching: Watching, admin: Kube, installed: LocalCluster) -> None:
    await installed.restart_apiserver()
    await watching.quiet()
    assert watching.ready.is_set()
    for path in (MODELS, PODS, DEPLOYMENTS):
        await admin.create(path, OBJECTS[path], field_manager="tests")
        await watching.poked()
        await watching.quiet()
