"""The command lines and configuration files of the five processes."""

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from vrampack.localcluster.assets import Assets

SERVICE_RANGE = "10.0.0.0/24"
SERVICE_ADDRESS = "10.0.0.1"  # the first of the range: the service named kubernetes
POD_RANGE = "10.244.0.0/16"
MANAGED = "kwok.x-k8s.io/node"
LOST = "sim.vrampack.dev/lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where one cluster keeps its files, and which ports it has."""

    folder: Path
    server_port: int
    etcd_port: int
    etcd_peer_port: int
    node_grace_seconds: int

    @property
    def server_url(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"

    @property
    def etcd_url(self) -> str:
        return f"http://127.0.0.1:{self.etcd_port}"

    @property
    def store(self) -> Path:
        """The folder of etcd's data."""
        return self.folder / "etcd"

    def pki(self, name: str) -> Path:
        return self.folder / "pki" / name

    def kubeconfig(self, user: str) -> Path:
        return self.folder / "kubeconfig" / f"{user}.yaml"

    def log(self, component: str) -> Path:
        return self.folder / "logs" / f"{component}.log"


def etcd(assets: Assets, layout: Layout) -> Sequence[str | Path]:
    peer = f"http://127.0.0.1:{layout.etcd_peer_port}"
    return [
        assets.etcd,
        f"--data-dir={layout.store}",
        f"--listen-client-urls={layout.etcd_url}",
        f"--advertise-client-urls={layout.etcd_url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # the data need not outlive the machine
        "--log-level=warn",
    ]


def kube_apiserver(assets: Assets, layout: Layout) -> Sequence[str | Path]:
    return [
        assets.kube_apiserver,
        f"--etcd-servers={layout.etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",  # else it looks for a default route, and ends where there is none
        f"--secure-port={layout.server_port}",
        f"--tls-cert-file={layout.pki('server.crt')}",
        f"--tls-private-key-file={layout.pki('server.key')}",
        f"--client-ca-file={layout.pki('ca.crt')}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={layout.pki('service-account.key')}",
        f"--service-account-signing-key-file={layout.pki('service-account.key')}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        "--allow-privileged=true",
        "--disable-admission-plugins=ServiceAccount",  # no token volume in pods that no kubelet runs
        "--endpoint-reconciler-type=none",
        "--profiling=false",
    ]


def kube_controller_manager(assets: Assets, layout: Layout) -> Sequence[str | Path]:
    kubeconfig = layout.kubeconfig("kube-controller-manager")
    return [
        assets.kube_controller_manager,
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        "--use-service-account-credentials=true",  # each controller with its own role, as kubeadm has it
        f"--service-account-private-key-file={layout.pki('service-account.key')}",
        f"--root-ca-file={layout.pki('ca.crt')}",
        "--controllers=*,-nodeipam",
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
        "--concurrent-deployment-syncs=20",
        "--concurrent-replicaset-syncs=20",
        "--concurrent-service-endpoint-syncs=20",
        "--concurrent-namespace-syncs=20",
        "--horizontal-pod-autoscaler-sync-period=5s",
        f"--node-monitor-grace-period={layout.node_grace_seconds}s",
        "--node-monitor-period=1s",
        "--node-eviction-rate=10",  # by default one lost node in ten seconds loses its pods
        "--secondary-node-eviction-rate=10",
        "--profiling=false",
    ]


def kube_scheduler(assets: Assets, layout: Layout) -> Sequence[str | Path]:
    config = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(layout.kubeconfig("kube-scheduler")),
            "qps": 1000,  # 50 by default: that would be its rate of binding pods
            "burst": 2000,
        },
    }
    path = layout.folder / "kube-scheduler.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return [assets.kube_scheduler, f"--config={path}", "--secure-port=0", "--profiling=false"]


def kwok(assets: Assets, layout: Layout) -> Sequence[str | Path]:
    options = {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "metadata": {"name": "kwok"},
        "options": {
            "cidr": POD_RANGE,
            # Labels, not annotations: kwok filters labels in its watch, so that a node which loses the label (or is
            # marked as lost) is deleted to it and its Lease let go. A lost annotation it would not notice.
            "manageNodesWithLabelSelector": f"{MANAGED}=fake,!{LOST}",
            # Renewed four times per duration, and the grace period is one and a half of them, as with a real kubelet.
            "nodeLeaseDurationSeconds": max(1, layout.node_grace_seconds * 2 // 3),
            "podPlayStageParallelism": 16,
            "nodePlayStageParallelism": 16,
            "nodeLeaseParallelism": 16,
            "podsOnNodeSyncParallelism": 4,
        },
    }
    stages = importlib.resources.files("vrampack.localcluster") / "stages"
    documents = [yaml.safe_dump(options), *((stages / f"{kind}.yaml").read_text("utf-8") for kind in ("node", "pod"))]
    path = layout.folder / "kwok.yaml"
    path.write_text("---\n".join(documents), encoding="utf-8")
    return [assets.kwok, f"--kubeconfig={layout.kubeconfig('kwok')}", f"--config={path}", "--v=WARN"]
