"""Limits of the driver for pods: since release 615 it keeps all processes below a control group to bytes of a GPU.

A limit on a container's own control group is what a process sees as all of the GPU's memory, and the container toolkit
sets that one from the environment. One on the pod's holds as well and is not seen, so that no fraction that an engine
was told is of something else. It is set once the pod has a process on the GPU. No soft limit is: that would have to be
taken back before the control group goes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vrampack.agent.nvml import NVML, Failure
from vrampack.agent.nvmlcalls import Handle

_AGAIN: Final = 10.0
"""Seconds after which a limit is read again, and one that could not be set is tried again."""
_DEPTHS: Final = range(1, 5)
"""Folders above a pod's: two usually, more where the kubelet itself is in a container."""

Key = tuple[str, str]
"""UIDs of a pod and of a GPU."""


@dataclass(kw_only=True)
class MemoryLimits:
    """``folder``: the host's control groups, of version 2. ``wanted``: bytes; replaced as a whole by another thread."""

    folder: Path
    wanted: Mapping[Key, int] = field(default_factory=dict)
    _done: dict[Key, tuple[int, str]] = field(default_factory=dict)
    """What was asked for, and why it does not hold; empty: it does."""
    _again_at: float = 0.0

    def keep(self, nvml: NVML, handles: Mapping[str, Handle], *, now: float) -> dict[Key, str]:
        """Sets what is not set yet, and says why what can't be. ``handles``: by UUID."""
        wanted = self.wanted
        if now >= self._again_at:
            self._done.clear()
            self._again_at = now + _AGAIN
        self._done = {key: done for key, done in self._done.items() if wanted.get(key) == done[0]}
        for (uid, uuid), most in wanted.items():
            if uuid in handles and (uid, uuid) not in self._done:
                self._done[uid, uuid] = most, self._limited(nvml, handles[uuid], uid, most)
        return {key: trouble for key, (_, trouble) in self._done.items() if trouble}

    def _limited(self, nvml: NVML, handle: Handle, uid: str, most: int) -> str:
        try:
            group = control_group(self.folder, uid)
        except OSError as error:
            return f"the control groups can't be read: {error}"
        if group is None:
            return f"no control group of it, of version 2, is in {self.folder}"
        found = nvml.memory_limit(handle, str(group))
        if found == most:
            return ""
        failure = found if isinstance(found, Failure) else nvml.limit_memory(handle, str(group), most=most)
        return "" if failure is None else str(failure)


def control_group(folder: Path, uid: str) -> Path | None:
    """A pod's, by its UID. The kubelet names it by either of its drivers. Raises OSError."""
    if not (folder / "cgroup.controllers").exists():
        return None
    forms = (f"*pod{uid.replace('-', '_')}.slice", f"pod{uid}")
    found = (path for depth in _DEPTHS for form in forms for path in folder.glob("*/" * depth + form))
    return next(found, None)
