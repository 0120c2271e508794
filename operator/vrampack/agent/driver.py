"""One node's driver through its ups and downs: opened when it is there, let go when it is asked for, never trusted.

All of it blocks, and belongs to one thread of its own: a driver that hangs must hold up nothing but the readings. What
waits for critical errors has a second one.
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vrampack.agent.complaint import Complaint
from vrampack.agent.devices import Device, DriverVersions
from vrampack.agent.inventory import Inventory
from vrampack.agent.memorylimits import Key, MemoryLimits
from vrampack.agent.nvml import NVML, Failure, Trouble, Xid, XidWatch
from vrampack.agent.reading import Silence
from vrampack.errors import StaleLibraryError

_log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 10.0

_UNKNOWN: Final = DriverVersions(driver="", cuda="")

RELEASED: Final = Silence(
    reason="DriverReleased",
    message="the agent has let go of the driver, as it was told to; the node takes no new replica until it reads again",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the driver shows. With ``silence`` the devices are the last that were seen.

    ``fresh``: the driver was opened anew, so that what was wrong before is over. ``xids``: critical errors since the
    sight before. ``unlimited``: which pods are to have a limit of the driver on which GPU and have none, and why; None:
    none is asked for.
    """

    devices: tuple[Device, ...] = ()
    versions: DriverVersions = _UNKNOWN
    silence: Silence | None = None
    fresh: bool = False
    xids: tuple[Xid, ...] = ()
    unlimited: Mapping[Key, str] | None = None


class Driver:
    """Looks at the GPUs of this node. Times are seconds of one clock that never jumps.

    ``patience``: milliseconds of one wait for critical errors, for which letting go of the driver may have to wait.
    """

    def __init__(self, nvml: NVML, *, patience: int = 1000, limits: MemoryLimits | None = None) -> None:
        self._nvml = nvml
        self._limits = limits
        self._patience = patience
        self._inventory: Inventory | None = None
        self._xids: _XidThread | None = None
        self._last = Sight()
        self._retry_at = 0.0
        self._look_at = 0.0
        self._complaint = Complaint(_log)

    def see(self, *, now: float, release: bool) -> Sight:
        """What is there now. ``release``: let go of the driver, or leave it alone.

        Raises StaleLibraryError where only a new container can reach the driver.
        """
        if release:
            self.close()
            return self._silent(RELEASED)
        fresh = self._inventory is None
        if self._inventory is None:
            if now < self._retry_at:
                return Sight(devices=self._last.devices, versions=self._last.versions, silence=self._last.silence)
            opened = self._open()
            if isinstance(opened, Failure):
                return self._gone(opened, now=now)
            self._inventory, self._look_at = opened, now + _LOOK_SECONDS
        elif now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            before = self._inventory.handles.keys()
            if (failure := self._inventory.look()) is not None:
                return self._gone(failure, now=now)
            if self._inventory.handles.keys() != before:
                self._watch_xids()
        devices = self._inventory.poll()
        if isinstance(devices, Failure):
            return self._gone(devices, now=now)
        self._complaint.over()
        xids = self._xids.taken() if self._xids is not None else ()
        unlimited = None
        if self._limits is not None:
            unlimited = self._limits.keep(self._nvml, self._inventory.handles, now=now)
        self._last = Sight(
            devices=devices, versions=self._inventory.versions, fresh=fresh, xids=xids, unlimited=unlimited
        )
        return self._last

    def close(self) -> None:
        """Lets go of the driver and of every GPU."""
        if self._xids is not None:
            self._xids.stop()
            self._xids = None
        if self._inventory is not None:
            self._inventory = None
            self._nvml.close()

    def _open(self) -> Inventory | Failure:
        failure = self._nvml.open()
        if failure is not None:
            return failure
        opened = Inventory.open(self._nvml)
        if isinstance(opened, Failure):
            self._nvml.close()
            return opened
        self._inventory = opened
        self._watch_xids()
        return opened

    def _watch_xids(self) -> None:
        if self._xids is not None:
            self._xids.stop()
            self._xids = None
        if self._inventory is not None and self._inventory.handles:
            watch = self._nvml.watch_xids(self._inventory.handles)
            if isinstance(watch, XidWatch):
                self._xids = _XidThread(watch, patience=self._patience)
            else:
                _log.warning("critical errors of the GPUs are not seen: %s", watch)

    def _gone(self, failure: Failure, *, now: float) -> Sight:
        if failure.trouble is Trouble.STALE_LIBRARY:
            raise StaleLibraryError(
                f"{failure}: the driver was exchanged under this container, and only a new one can reach it"
            )
        self.close()
        self._retry_at = now + _RETRY_SECONDS
        silence = Silence(reason="NoDriver", message=f"the NVIDIA driver does not answer: {failure}")
        self._complaint.say(f"{silence.message}; tried again every {_RETRY_SECONDS:.0f} s")
        return self._silent(silence)

    def _silent(self, silence: Silence) -> Sight:
        self._last = Sight(devices=self._last.devices, versions=self._last.versions, silence=silence)
        return self._last


class _XidThread:
    """Waits for critical errors until it is stopped or the driver fails."""

    def __init__(self, watch: XidWatch, *, patience: int) -> None:
        self._watch = watch
        self._patience = patience
        self._stopped = threading.Event()
        self._found: deque[Xid] = deque()
        self._thread = threading.Thread(target=self._run, name="xids", daemon=True)
        self._thread.start()

    def taken(self) -> tuple[Xid, ...]:
        """Those since the last time."""
        found = []
        while self._found:
            found.append(self._found.popleft())
        return tuple(found)

    def stop(self) -> None:
        """After the wait that is under way; nothing of the driver is in use then."""
        self._stopped.set()
        self._thread.join()
        self._watch.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            found = self._watch.wait(milliseconds=self._patience)
            if isinstance(found, Failure):
                if found.trouble not in (Trouble.LOST, Trouble.FAILED):
                    _log.warning("no more critical errors are seen until the driver is opened anew: %s", found)
                    return
                self._stopped.wait(self._patience / 1000)  # a lost GPU may answer each wait at once
            elif found is not None:
                _log.warning("GPU %s: XID %d", found.uuid or "(unknown)", found.number)
                self._found.append(found)
