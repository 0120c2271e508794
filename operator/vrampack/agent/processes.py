"""From a process id of the host to the pod that it belongs to, by its control group.

The kubelet puts every container into a control group whose path names the pod: with the systemd driver as
``kubepods-burstable-pod<uid with underscores>.slice/cri-containerd-<id>.scope``, with cgroupfs as
``kubepods/burstable/pod<uid>/<id>``; CRI-O writes ``crio-<id>``. Version 1 has such a line for each controller, version
2 has one. A reader in a control group namespace of its own sees the same names behind ``..``.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_POD: Final = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})")
"""The UID of a pod; that of a static pod is the hash of its file, without dashes."""
_CONTAINER: Final = re.compile(r"(?:^|[-/:])([0-9a-f]{64})(?:\.scope)?(?=/|$)")
_START_TIME: Final = 19
"""Position of the start time in /proc/PID/stat behind the name, which may hold anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a process is. ``pod_uid`` and ``container_id`` are empty for a process of the host itself."""

    name: str
    pod_uid: str = ""
    container_id: str = ""


UNKNOWN: Final = Owner(name="")
"""A process that is not in view: it has ended meanwhile, or the agent does not share the host's process namespace."""


@dataclass(kw_only=True)
class ProcessTable:
    """Owners of processes, read once for each process. ``proc``: where the host's /proc is."""

    proc: Path = Path("/proc")
    _known: dict[int, tuple[str, Owner]] = field(default_factory=dict)

    def owners(self, pids: Collection[int]) -> dict[int, Owner]:
        """The owner of each of these processes now; all others are forgotten."""
        self._known = {pid: found for pid in pids if (found := self._owner(pid)) is not None}
        return {pid: self._known[pid][1] if pid in self._known else UNKNOWN for pid in pids}

    def booted_at(self) -> float:
        """When the host was started, in seconds since 1970; 0 where /proc does not say."""
        try:
            found = re.search(r"^btime (\d+)$", (self.proc / "stat").read_text(), re.MULTILINE)
        except OSError:
            return 0.0
        return float(found[1]) if found is not None else 0.0

    def _owner(self, pid: int) -> tuple[str, Owner] | None:
        folder = self.proc / str(pid)
        try:
            start = _start_time((folder / "stat").read_text(errors="replace"))
            known = self._known.get(pid)
            if known is not None and known[0] == start:
                return known
            cgroup = (folder / "cgroup").read_text(errors="replace")
            return start, owner_of(cgroup, name=(folder / "comm").read_text(errors="replace").strip())
        except OSError:
            return None


def owner_of(cgroup: str, *, name: str) -> Owner:
    """Whose a process is, by the text of its /proc/PID/cgroup."""
    for line in cgroup.splitlines():
        path = line.partition(":")[2].partition(":")[2]
        pod = _POD.search(path)
        if pod is None:
            continue
        containers = _CONTAINER.findall(path[pod.end() :])
        return Owner(
            name=name,
            pod_uid=pod[1].replace("_", "-"),
            container_id=containers[0] if containers else "",  # what a container starts below itself is its own
        )
    return Owner(name=name)


def _start_time(stat: str) -> str:
    """In ticks since boot: with the id it names a process for good."""
    fields = stat.rpartition(")")[2].split()
    return fields[_START_TIME] if len(fields) > _START_TIME else ""
