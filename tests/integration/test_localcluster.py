"""The local cluster: what runs, what dies with whom, and how its pods and nodes behave."""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from vrampack.errors import ClusterError, LocalClusterError, NotFoundError
from vrampack.localcluster.assets import Assets
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.nodes import NodeSpec

NODE = "localcluster-node"


@pytest.fixture(scope="module")
async def node(cluster: LocalCluster) -> AsyncIterator[str]:
    await cluster.add_nodes([NodeSpec(name=NODE, gpu_product="NVIDIA-L4")])
    yield NODE
    await cluster.kubectl("delete", "node", NODE)


class Pods:
    """Pods on one node, in a namespace of their own."""

    def __init__(self, cluster: LocalCluster, *, node: str, namespace: str) -> None:
        self._cluster = cluster
        self._node = node
        self._namespace = namespace

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return (await self._cluster.kubectl("-n", self._namespace, *arguments, stdin=stdin)).stdout

    async def create(self, name: str, **annotations: str) -> None:
        await self.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "annotations": {f"sim.vrampack.dev/{key.replace('_', '-')}": a for key, a in annotations.items()},
                },
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": self._node},
                    "containers": [
                        {"name": "engine", "image": "vllm/vllm-openai:v0.33.0"},
                        {"name": "proxy", "image": "envoy:v1"},
                    ],
                },
            }
        )

    async def apply(self, manifest: dict[str, Any]) -> None:
        await self.kubectl("create", "-f", "-", stdin=json.dumps(manifest))

    async def wait(self, name: str, condition: str) -> None:
        await self.kubectl("wait", f"--for={condition}", f"pod/{name}", "--timeout=30s")

    async def get(self, name: str) -> dict[str, Any]:
        pod: dict[str, Any] = json.loads(await self.kubectl("get", "pod", name, "-o", "json"))
        return pod

    async def patch_status(self, name: str, **status: object) -> None:
        patch = json.dumps({"status": status})
        await self.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)


@pytest.fixture
async def pods(cluster: LocalCluster, node: str, request: pytest.FixtureRequest) -> AsyncIterator[Pods]:
    namespace = request.node.originalname.replace("_", "-").lower()[:60].rstrip("-")
    await cluster.kubectl("create", "namespace", namespace)
    yield Pods(cluster, node=node, namespace=namespace)
    await cluster.kubectl("-n", namespace, "delete", "jobs,pods", "--all")  # while their node is there to end them
    await cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def condition(pod: dict[str, Any], kind: str) -> str:
    return next(c["status"] for c in pod["status"]["conditions"] if c["type"] == kind)


def group_members(group: int) -> list[int]:
    """The living processes of a process group."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == group and state not in "ZX":
            members.append(int(stat.parent.name))
    return members


def running_with(word: str) -> list[str]:
    """The command lines of living processes in which a word occurs."""
    lines = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if word in line]


async def eventually(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


# What runs.


async def test_the_api_server_knows_its_version(cluster: LocalCluster) -> None:
    version = json.loads((await cluster.kubectl("version", "-o", "json")).stdout)
    assert version["serverVersion"]["gitVersion"] == "v1.36.4"
    assert (version["serverVersion"]["major"], version["serverVersion"]["minor"]) == ("1", "36")


async def test_runtime_class_and_admission_policies_are_there(cluster: LocalCluster) -> None:
    handler = await cluster.kubectl("get", "runtimeclass", "nvidia", "-o", "jsonpath={.handler}")
    assert handler.stdout == "nvidia"
    await cluster.kubectl("get", "validatingadmissionpolicies")


async def test_a_service_account_signs_in_with_its_own_rights_only(cluster: LocalCluster) -> None:
    await cluster.kubectl("create", "serviceaccount", "visitor")
    kubeconfig = await cluster.token_for("visitor", "default")

    who = await cluster.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig)
    assert who.stdout == "system:serviceaccount:default:visitor"
    with pytest.raises(ClusterError, match="forbidden"):
        await cluster.kubectl("get", "pods", kubeconfig=kubeconfig)
    with pytest.raises(NotFoundError):
        await cluster.token_for("nobody", "default")


async def test_helm_reaches_the_cluster(cluster: LocalCluster) -> None:
    assert (await cluster.helm("list", "--short")).stdout.strip() == ""


# How its pods behave.


async def test_a_pod_loads_and_is_ready(pods: Pods) -> None:
    await pods.create("server", load_seconds="1.5")
    await pods.wait("server", "jsonpath={.status.phase}=Running")
    loading = await pods.get("server")
    assert [condition(loading, kind) for kind in ("PodScheduled", "Initialized", "Ready")] == ["True", "True", "False"]
    assert [c["ready"] for c in loading["status"]["containerStatuses"]] == [False, False]

    await pods.wait("server", "condition=Ready")
    ready = await pods.get("server")
    assert {c["type"]: c["status"] for c in ready["status"]["conditions"]} == dict.fromkeys(
        ("PodReadyToStartContainers", "PodScheduled", "Initialized", "ContainersReady", "Ready"), "True"
    )
    engine, proxy = ready["status"]["containerStatuses"]
    assert (engine["name"], engine["image"], engine["ready"], engine["started"], engine["restartCount"]) == (
        "engine", "vllm/vllm-openai:v0.33.0", True, True, 0,
    )  # fmt: skip
    assert (
        engine["state"]["running"]["startedAt"]
        == loading["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    )
    assert proxy["name"] == "proxy"
    assert ready["status"]["podIP"].startswith("10.244.")


async def test_a_crashing_pod_restarts_again_and_again(pods: Pods) -> None:
    await pods.create("server", behaviour="crash", load_seconds="0.2")
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=CrashLoopBackOff"
    await pods.wait("server", waiting)
    crashed = await pods.get("server")
    assert crashed["status"]["phase"] == "Running"
    assert condition(crashed, "Ready") == "False"
    terminated = crashed["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (1, "Error")

    await pods.wait("server", "jsonpath={.status.containerStatuses[0].restartCount}=2")
    await pods.kubectl("annotate", "pod", "server", "sim.vrampack.dev/behaviour-")
    await pods.wait("server", "condition=Ready")
    assert (await pods.get("server"))["status"]["containerStatuses"][0]["restartCount"] >= 2


async def test_a_pod_that_is_never_ready_runs_on(pods: Pods) -> None:
    await pods.create("never", behaviour="never-ready", load_seconds="0.1")
    await pods.create("late", load_seconds="1")
    await pods.create("server", load_seconds="1")
    await pods.wait("late", "jsonpath={.status.phase}=Running")
    await pods.kubectl("annotate", "pod", "late", "sim.vrampack.dev/behaviour=never-ready")
    await pods.wait("server", "condition=Ready")
    assert [condition(await pods.get(name), "Ready") for name in ("never", "late")] == ["False", "False"]
    assert (await pods.get("never"))["status"]["phase"] == "Running"

    await pods.kubectl("annotate", "pod", "server", "sim.vrampack.dev/behaviour=never-ready")
    await pods.wait("server", "condition=Ready=False")


async def test_a_slow_pod_takes_its_time_to_end(pods: Pods) -> None:
    await pods.create("slow", behaviour="slow-termination", termination_seconds="2", load_seconds="0")
    await pods.create("quick", load_seconds="0")
    await pods.wait("slow", "condition=Ready")
    await pods.wait("quick", "condition=Ready")
    began = time.monotonic()
    await pods.kubectl("delete", "pod", "slow", "quick", "--wait=false")
    await pods.wait("quick", "delete")
    terminating = await pods.get("slow")
    assert "deletionTimestamp" in terminating["metadata"]
    assert condition(terminating, "Ready") == "True"
    await pods.wait("slow", "delete")
    assert time.monotonic() - began >= 2.0


async def test_an_evicted_pod_is_deleted_and_a_failed_one_stays(pods: Pods) -> None:
    names = ("evicted", "failed", "server")
    await asyncio.gather(*(pods.create(name, load_seconds=s) for name, s in zip(names, "334", strict=True)))
    await asyncio.gather(*(pods.wait(name, "jsonpath={.status.phase}=Running") for name in names))

    namespace = (await pods.get("evicted"))["metadata"]["namespace"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted", "namespace": namespace}}
    uri = f"/api/v1/namespaces/{namespace}/pods/evicted/eviction"
    await pods.kubectl("create", "--raw", uri, "-f", "-", stdin=json.dumps(eviction))
    await pods.patch_status("failed", phase="Failed", reason="Evicted")
    await pods.wait("evicted", "delete")
    await pods.wait("server", "condition=Ready")  # so the time is up at which the failed one would have been
    failed = await pods.get("failed")
    assert (failed["status"]["phase"], failed["status"]["reason"]) == ("Failed", "Evicted")
    assert condition(failed, "Ready") == "False"
    await pods.kubectl("delete", "pod", "failed", "--timeout=10s")


async def test_pods_of_a_job_complete(pods: Pods) -> None:
    template = {
        "metadata": {"annotations": {"sim.vrampack.dev/load-seconds": "0"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "work", "image": "work"}]},
    }
    await pods.apply(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}, "spec": {"template": template}}
    )
    await pods.kubectl("wait", "--for=condition=Complete", "job/work", "--timeout=30s")
    assert await pods.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.phase}") == "Succeeded"


# Lost nodes and outages.


async def test_a_lost_node_is_unknown_until_it_returns(cluster: LocalCluster, pods: Pods) -> None:
    await cluster.add_nodes([NodeSpec(name="lost"), NodeSpec(name="stays")])
    on_lost = Pods(cluster, node="lost", namespace=pods._namespace)
    for name in ("kept", "deleted"):
        await on_lost.create(name, load_seconds="0")
        await on_lost.wait(name, "condition=Ready")
    began = time.monotonic()
    await cluster.lose_node("lost")
    print(f"node lost after {time.monotonic() - began:.1f} s")

    lost = json.loads((await cluster.kubectl("get", "node", "lost", "-o", "json")).stdout)
    assert condition(lost, "Ready") == "Unknown"
    await cluster.kubectl(
        "wait", "--for=jsonpath={.spec.taints[?(@.effect=='NoExecute')].key}=node.kubernetes.io/unreachable",
        "node/lost", "--timeout=20s",
    )  # fmt: skip
    await on_lost.wait("kept", "condition=Ready=False")
    await on_lost.kubectl("delete", "pod", "deleted", "--wait=false")

    began = time.monotonic()
    await cluster.return_node("lost")
    print(f"node back after {time.monotonic() - began:.1f} s")
    await on_lost.wait("kept", "condition=Ready")
    await on_lost.wait("deleted", "delete")
    assert (await on_lost.get("kept"))["status"]["containerStatuses"][0]["restartCount"] == 0
    await on_lost.kubectl("delete", "pod", "kept")
    await cluster.kubectl("delete", "node", "lost", "stays")


async def test_the_api_server_comes_back_on_its_port(cluster: LocalCluster, pods: Pods) -> None:
    url = cluster.server_url
    await pods.create("before", load_seconds="3")
    await pods.wait("before", "jsonpath={.status.phase}=Running")

    await cluster.stop_apiserver()
    with pytest.raises(ClusterError, match="refused"):
        await pods.get("before")
    began = time.monotonic()
    await cluster.start_apiserver()
    print(f"API server back after {time.monotonic() - began:.1f} s")

    assert cluster.server_url == url
    await pods.wait("before", "condition=Ready")
    await pods.create("after", load_seconds="0")
    await pods.wait("after", "condition=Ready")


async def test_a_frozen_api_server_goes_on(cluster: LocalCluster, pods: Pods) -> None:
    cluster.pause_apiserver()
    listing = asyncio.ensure_future(pods.kubectl("get", "pods"))
    try:
        done, _ = await asyncio.wait([listing], timeout=0.5)
        assert not done
    finally:
        cluster.resume_apiserver()
    await listing


# What dies with whom.


async def test_a_second_cluster_runs_beside_and_reports_the_death_of_a_process(
    cluster: LocalCluster, assets: Assets, tmp_path: Path
) -> None:
    began = time.monotonic()
    async with LocalCluster(assets, tmp_path, nodes=[NodeSpec(name="other")]) as second:
        print(f"second cluster ready after {time.monotonic() - began:.1f} s")
        group = os.getpgid(second.pids["etcd"])
        assert second.server_url != cluster.server_url
        assert "other" in (await second.kubectl("get", "nodes")).stdout
        assert "other" not in (await cluster.kubectl("get", "nodes")).stdout

        os.kill(second.pids["kube-scheduler"], signal.SIGKILL)
        with pytest.raises(LocalClusterError, match=r"kube-scheduler was killed by SIGKILL; .*log"):
            await asyncio.wait_for(second.supervise(), timeout=10)
        began = time.monotonic()
    print(f"second cluster stopped after {time.monotonic() - began:.1f} s")
    assert group_members(group) == []
    assert (tmp_path / "logs" / "etcd.log").exists()


async def test_a_process_that_can_not_start_ends_the_start_at_once(assets: Assets, tmp_path: Path) -> None:
    broken = tmp_path / "kube-apiserver"
    broken.write_text("#!/bin/sh\necho 'the disk is on fire' >&2\nexit 3\n")
    broken.chmod(0o755)
    cluster = LocalCluster(dataclasses.replace(assets, kube_apiserver=broken), tmp_path / "cluster")
    began = time.monotonic()
    with pytest.raises(LocalClusterError, match=r"(?s)kube-apiserver exited with status 3; .*the disk is on fire"):
        await cluster.start()
    assert time.monotonic() - began < 5.0
    assert running_with(str(tmp_path / "cluster")) == []


def start_elsewhere(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a Python process whose standard output begins with a line when its cluster is ready."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )


KILLED = """
import asyncio, os
from rich.console import Console
from vrampack.localcluster.assets import ensure_assets
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.progress import progress_on

async def main():
    async with LocalCluster(ensure_assets(progress=progress_on(Console(stderr=True)))) as cluster:
        print(os.getpgid(cluster.pids["etcd"]), cluster.folder, flush=True)
        await cluster.supervise()

asyncio.run(main())
"""


async def test_a_killed_parent_leaves_nothing(assets: Assets) -> None:
    with start_elsewhere(KILLED) as parent:
        assert parent.stdout is not None
        group, folder = (await asyncio.to_thread(parent.stdout.readline)).split()
        assert len(group_members(int(group))) == 6
        parent.kill()
        await eventually(lambda: group_members(int(group)) == [])
        await eventually(lambda: not Path(folder).exists())


async def test_ctrl_c_leaves_nothing(assets: Assets, tmp_path: Path) -> None:
    program = "from vrampack.cli.localcluster import app; app()"
    with start_elsewhere(program, "up", "--nodes", "1") as up:
        assert up.stdout is not None
        line = await asyncio.to_thread(up.stdout.readline)
        folder = Path(line.strip().removeprefix("export KUBECONFIG=")).parent.parent
        assert (folder / "logs").is_dir()
        up.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(up.wait, 20) == 0
    assert not folder.exists()
    assert running_with(str(folder)) == []
