"""A double of the host's /proc: for each process who it is, in the words of each container runtime."""

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

_CONTAINERS: Final = uuid.UUID("c0a7a11e-0d0b-5ad1-8c44-1f0f8d2f6a10")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProcess:
    """A process of the host. ``pod_uid`` is empty for one that is in no pod."""

    pid: int
    name: str
    pod_uid: str = ""


def _slice(uid: str) -> str:
    return f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"


RUNTIMES: Final[Mapping[str, Callable[[str, str], str]]] = MappingProxyType(
    {
        "containerd, systemd, version 2": lambda uid, container: (
            f"0::/kubepods.slice/kubepods-burstable.slice/{_slice(uid)}/cri-containerd-{container}.scope\n"
        ),
        "containerd, cgroupfs, version 2": lambda uid, container: f"0::/kubepods/burstable/pod{uid}/{container}\n",
        "CRI-O, systemd, version 2": lambda uid, container: (
            f"0::/kubepods.slice/kubepods-burstable.slice/{_slice(uid)}/crio-{container}.scope/container\n"
        ),
        "containerd, cgroupfs, version 1": lambda uid, container: (
            "".join(
                f"{number}:{controller}:/kubepods/burstable/pod{uid}/{container}\n"
                for number, controller in ((12, "pids"), (4, "memory"), (3, "cpu,cpuacct"), (1, "name=systemd"))
            )
            + "0::/system.slice/containerd.service\n"
        ),
    }
)
"""The text of /proc/PID/cgroup, by a pod's UID and the id of a container."""


class HostProc:
    """A folder that looks like the /proc of a host."""

    def __init__(self, folder: Path, *, runtime: str, booted: int) -> None:
        """``runtime``: one of RUNTIMES. ``booted``: seconds since 1970."""
        self.folder = folder
        self._cgroup = RUNTIMES[runtime]
        self._shown: dict[int, HostProcess] = {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stat").write_text(f"cpu 0 0 0 0\nbtime {booted}\n")

    def show(self, processes: Iterable[HostProcess]) -> None:
        """These processes and no others."""
        wanted = {process.pid: process for process in processes}
        for pid in self._shown.keys() - wanted.keys():
            shutil.rmtree(self.folder / str(pid), ignore_errors=True)
        for pid, process in wanted.items():
            if self._shown.get(pid) != process:
                self._write(process)
        self._shown = wanted

    def _write(self, process: HostProcess) -> None:
        folder = self.folder / str(process.pid)
        folder.mkdir(exist_ok=True)
        (folder / "comm").write_text(f"{process.name}\n")
        (folder / "cgroup").write_text(
            self._cgroup(process.pod_uid, container_id(process.pod_uid)) if process.pod_uid else "0::/user.slice\n"
        )
        # Fields behind the name: state, 18 that nobody reads here, and the start time.
        (folder / "stat").write_text(f"{process.pid} ({process.name}) S {' '.join(['0'] * 18)} {process.pid} 0\n")


def container_id(pod_uid: str) -> str:
    """64 hexadecimal digits, always the same for a pod."""
    return uuid.uuid5(_CONTAINERS, pod_uid).hex + uuid.uuid5(_CONTAINERS, f"{pod_uid}/2").hex
