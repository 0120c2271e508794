"""From process ids to pods, by /proc trees with the lines of each container runtime."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.agent.processes import UNKNOWN, Owner, ProcessTable, owner_of
from vrampack.localcluster.standin.proc import RUNTIMES, HostProc, HostProcess, container_id

UID = "3f0c2b1a-9d8e-4c7b-a6f5-0123456789ab"
UNDERSCORED = UID.replace("-", "_")
ID = "5e" * 32
BURSTABLE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice"

LINES = {
    "containerd, systemd, guaranteed": f"0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope",
    "containerd, systemd, best effort": (
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope"
    ),
    "containerd, cgroupfs": f"0::/kubepods/burstable/pod{UID}/{ID}",
    "containerd, cgroupfs, guaranteed": f"0::/kubepods/pod{UID}/{ID}",
    "containerd, drivers that disagree": (
        f"0::/system.slice/containerd.service/kubepods-burstable-pod{UNDERSCORED}.slice:cri-containerd:{ID}"
    ),
    "CRI-O, systemd": f"0::{BURSTABLE}/crio-{ID}.scope",
    "CRI-O, a control group below": (f"0::{BURSTABLE}/crio-{ID}.scope/container"),
    "CRI-O, cgroupfs": f"0::/kubepods/burstable/pod{UID}/crio-{ID}",
    "Docker": f"0::{BURSTABLE}/docker-{ID}.scope",
    "kind, nested": (
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
        f"kubelet-kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope"
    ),
    "version 1": (
        f"12:devices:/kubepods/burstable/pod{UID}/{ID}\n11:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}\n"
        f"1:name=systemd:/kubepods/burstable/pod{UID}/{ID}\n0::/system.slice/containerd.service"
    ),
    "version 1, the pod not in the first line": f"13:rdma:/\n12:devices:/kubepods/burstable/pod{UID}/{ID}",
    "a reader in a namespace of its own": (
        f"0::/../../kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope"
    ),
    "a control group of its own inside": f"0::/kubepods/burstable/pod{UID}/{ID}/{'ab' * 32}",
}


@pytest.mark.parametrize("text", LINES.values(), ids=LINES.keys())
def test_the_pod_and_its_container(text: str) -> None:
    assert owner_of(text + "\n", name="python3") == Owner(name="python3", pod_uid=UID, container_id=ID)


@pytest.mark.parametrize(
    "text",
    [
        "0::/",
        "0::/user.slice/user-1000.slice/session-4.scope",
        "0::/system.slice/nvidia-persistenced.service",
        "0::/system.slice/docker-" + ID + ".scope",
        "0::/system.slice/podman-3f0c2b1a-9d8e-4c7b-a6f5.service",
        "",
        "nonsense",
    ],
)
def test_a_process_of_the_host(text: str) -> None:
    assert owner_of(text, name="Xorg") == Owner(name="Xorg")


def test_a_static_pod_is_named_by_the_hash_of_its_file() -> None:
    digest = "0123456789abcdef0123456789abcdef"
    assert owner_of(f"0::/kubepods/burstable/pod{digest}/{ID}", name="x").pod_uid == digest


@given(st.text(max_size=300))
def test_no_text_is_a_crash(text: str) -> None:
    owner_of(text, name="x")


@pytest.mark.parametrize("runtime", RUNTIMES)
class TestTable:
    def host(self, folder: Path, runtime: str) -> HostProc:
        host = HostProc(folder, runtime=runtime, booted=1_700_000_000)
        host.show([HostProcess(pid=42, name="python3", pod_uid=UID), HostProcess(pid=43, name="Xorg) S 1 (")])
        return host

    def test_owners(self, tmp_path: Path, runtime: str) -> None:
        table = ProcessTable(proc=self.host(tmp_path, runtime).folder)
        assert table.owners([42, 43, 44]) == {
            42: Owner(name="python3", pod_uid=UID, container_id=container_id(UID)),
            43: Owner(name="Xorg) S 1 ("),
            44: UNKNOWN,
        }
        assert table.booted_at() == 1_700_000_000

    def test_an_id_that_is_used_again_is_another_process(self, tmp_path: Path, runtime: str) -> None:
        host = self.host(tmp_path, runtime)
        table = ProcessTable(proc=host.folder)
        assert table.owners([42])[42].pod_uid == UID
        (host.folder / "42/cgroup").write_text("0::/user.slice\n")
        assert table.owners([42])[42].pod_uid == UID, "read once for each process"
        stat = (host.folder / "42/stat").read_text()
        (host.folder / "42/stat").write_text(stat.replace(" 42 0\n", " 77 0\n"))
        assert table.owners([42])[42].pod_uid == ""


def test_without_a_proc_nobody_is_known(tmp_path: Path) -> None:
    table = ProcessTable(proc=tmp_path / "absent")
    assert table.owners([1]) == {1: UNKNOWN}
    assert table.booted_at() == 0
