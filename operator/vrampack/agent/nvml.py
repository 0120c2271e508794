"""The border to NVML: each call gives a value or a `Failure`, and nothing is raised.

NVML only, by nvidia-ml-py: CUDA is never loaded, so the agent holds no context on any GPU. What an old driver lacks is
asked for by the call before it; what a product lacks is a failure that says Unsupported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any, Final, TypeVar

import pynvml

from vrampack.agent.devices import (
    ComputeMode,
    DriverVersions,
    Memory,
    MigProfile,
    Process,
    RemappedRows,
)
from vrampack.agent.nvmlcalls import (
    Handle,
    address,
    limit_memory,
    listings,
    memory,
    memory_limit,
    memory_v1,
    pair,
    placements_of,
    profile_calls,
    rows,
    text,
)

T = TypeVar("T")

_COMPUTE_MODES: Final = (
    ComputeMode.DEFAULT,
    ComputeMode.EXCLUSIVE_THREAD,
    ComputeMode.PROHIBITED,
    ComputeMode.EXCLUSIVE_PROCESS,
)


class Trouble(StrEnum):
    """What an error means for the agent."""

    UNSUPPORTED = "Unsupported"
    """This product or driver has no such figure, or not for this process."""
    LOST = "Lost"
    """The GPU answers no more until it is reset or the node is."""
    NO_DRIVER = "NoDriver"
    """No driver is loaded, or it was unloaded."""
    STALE_LIBRARY = "StaleLibrary"
    """The library in this container is of another version than the driver: only a new container mends that."""
    FAILED = "Failed"
    """Anything else; the next try may succeed."""


_TROUBLES: Final = {
    Trouble.UNSUPPORTED: (
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
    ),
    Trouble.LOST: (
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_INSUFFICIENT_POWER,
        pynvml.NVML_ERROR_IRQ_ISSUE,
    ),
    Trouble.NO_DRIVER: (
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
    ),
    Trouble.STALE_LIBRARY: (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,),
}
_TROUBLE_OF: Final = {code: trouble for trouble, codes in _TROUBLES.items() for code in codes}


@dataclass(frozen=True, slots=True)
class Failure:
    """What NVML said instead of a value. ``code``: NVML's number."""

    call: str
    code: int
    trouble: Trouble
    text: str

    def __str__(self) -> str:
        return f"{self.call}: {self.text} (NVML error {self.code})"


class NVML:
    """The calls that the agent makes. All may block, and none is made before `open` has given None."""

    def open(self) -> Failure | None:
        """Loads the library and asks for the driver."""
        return _failure(_ask("nvmlInit", pynvml.nvmlInit))

    def close(self) -> None:
        """Lets go of the driver and of every GPU. Never fails."""
        _ask("nvmlShutdown", pynvml.nvmlShutdown)

    def versions(self) -> DriverVersions | Failure:
        driver = _ask("nvmlSystemGetDriverVersion", pynvml.nvmlSystemGetDriverVersion)
        if isinstance(driver, Failure):
            return driver
        cuda = _ask(
            "nvmlSystemGetCudaDriverVersion",
            pynvml.nvmlSystemGetCudaDriverVersion_v2,
            pynvml.nvmlSystemGetCudaDriverVersion,
        )
        known = "" if isinstance(cuda, Failure) else f"{cuda // 1000}.{cuda % 1000 // 10}"
        return DriverVersions(driver=driver, cuda=known)

    def count(self) -> int | Failure:
        return _ask("nvmlDeviceGetCount", pynvml.nvmlDeviceGetCount)

    def handle(self, index: int) -> Handle | Failure:
        return _ask("nvmlDeviceGetHandleByIndex", lambda: pynvml.nvmlDeviceGetHandleByIndex(index))

    def uuid(self, handle: Handle) -> str | Failure:
        return _ask("nvmlDeviceGetUUID", lambda: pynvml.nvmlDeviceGetUUID(handle))

    def name(self, handle: Handle) -> str | Failure:
        return _ask("nvmlDeviceGetName", lambda: pynvml.nvmlDeviceGetName(handle))

    def bus(self, handle: Handle) -> str | Failure:
        """PCI address, such as 00000000:1B:00.0."""
        return _ask("nvmlDeviceGetPciInfo", lambda: text(pynvml.nvmlDeviceGetPciInfo(handle).busId))

    def minor(self, handle: Handle) -> int | Failure:
        return _ask("nvmlDeviceGetMinorNumber", lambda: pynvml.nvmlDeviceGetMinorNumber(handle))

    def capability(self, handle: Handle) -> tuple[int, int] | Failure:
        return _ask("nvmlDeviceGetCudaComputeCapability", lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle))

    def numa(self, handle: Handle) -> int | Failure:
        return _ask("nvmlDeviceGetNumaNodeId", lambda: pynvml.nvmlDeviceGetNumaNodeId(handle))

    def memory(self, handle: Handle) -> Memory | Failure:
        """Before the second version of the call, what the driver keeps counts as used."""
        return _ask("nvmlDeviceGetMemoryInfo", lambda: memory(handle), lambda: memory_v1(handle))

    def memory_limit(self, handle: Handle, cgroup: str) -> int | Failure:
        """Bytes that all processes below a control group may have of the GPU. No driver before 615 has this call."""
        return _ask("nvmlDeviceGetMemoryLimits_v1", lambda: memory_limit(handle, cgroup))

    def limit_memory(self, handle: Handle, cgroup: str, *, most: int) -> Failure | None:
        """Sets that to ``most``, which only root may."""
        return _failure(_ask("nvmlDeviceSetMemoryLimits_v1", lambda: limit_memory(handle, cgroup, most)))

    def processes(self, handle: Handle) -> tuple[Process, ...] | Failure:
        """Whatever computes or draws on the GPU, MPS clients as well, each process once."""
        found = _ask("nvmlDeviceGetComputeRunningProcesses", *listings("Compute", handle))
        if isinstance(found, Failure):
            return found
        by_pid = {process.pid: process for process in found}
        for kind in ("Graphics", "MPSCompute"):
            more = _ask(f"nvmlDeviceGet{kind}RunningProcesses", *listings(kind, handle))
            for process in () if isinstance(more, Failure) else more:
                by_pid.setdefault(process.pid, process)
        return tuple(by_pid.values())

    def compute_mode(self, handle: Handle) -> ComputeMode | Failure:
        return _ask("nvmlDeviceGetComputeMode", lambda: _COMPUTE_MODES[pynvml.nvmlDeviceGetComputeMode(handle)])

    def ecc(self, handle: Handle) -> bool | Failure:
        return _ask("nvmlDeviceGetEccMode", lambda: bool(pynvml.nvmlDeviceGetEccMode(handle)[0]))

    def ecc_uncorrected(self, handle: Handle) -> int | Failure:
        """Errors since the driver was loaded."""
        return _ask(
            "nvmlDeviceGetTotalEccErrors",
            lambda: pynvml.nvmlDeviceGetTotalEccErrors(
                handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
            ),
        )

    def rows(self, handle: Handle) -> RemappedRows | Failure:
        return _ask("nvmlDeviceGetRemappedRows", lambda: rows(handle))

    def retiring(self, handle: Handle) -> bool | Failure:
        """Of products before Ampere, which retire pages instead of replacing rows."""
        return _ask(
            "nvmlDeviceGetRetiredPagesPendingStatus",
            lambda: bool(pynvml.nvmlDeviceGetRetiredPagesPendingStatus(handle)),
        )

    def repair_pending(self, handle: Handle) -> bool | Failure:
        return _ask("nvmlDeviceGetRepairStatus", lambda: any(pynvml.nvmlDeviceGetRepairStatus(handle)))

    def nvlinked(self, one: Handle, other: Handle) -> bool | Failure:
        """Whether NVLink connects them, by a switch or not."""
        return self._reaches(one, other, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)

    def reads(self, one: Handle, other: Handle) -> bool | Failure:
        """Whether one reads the other's memory by itself."""
        return self._reaches(one, other, 0)  # NVML_P2P_CAPS_INDEX_READ, a tuple by mistake in nvidia-ml-py

    def _reaches(self, one: Handle, other: Handle, index: int) -> bool | Failure:
        return _ask(
            "nvmlDeviceGetP2PStatus",
            lambda: pynvml.nvmlDeviceGetP2PStatus(one, other, index) == pynvml.NVML_P2P_STATUS_OK,
        )

    def mig_mode(self, handle: Handle) -> tuple[bool, bool] | Failure:
        """Now, and after the next reset."""
        return _ask("nvmlDeviceGetMigMode", lambda: pair(pynvml.nvmlDeviceGetMigMode(handle)))

    def most_mig_devices(self, handle: Handle) -> int | Failure:
        return _ask("nvmlDeviceGetMaxMigDeviceCount", lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))

    def mig_handle(self, handle: Handle, index: int) -> Handle | Failure:
        return _ask(
            "nvmlDeviceGetMigDeviceHandleByIndex", lambda: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        )

    def instance(self, mig: Handle) -> int | Failure:
        return _ask("nvmlDeviceGetGpuInstanceId", lambda: pynvml.nvmlDeviceGetGpuInstanceId(mig))

    def compute_instance(self, mig: Handle) -> int | Failure:
        return _ask("nvmlDeviceGetComputeInstanceId", lambda: pynvml.nvmlDeviceGetComputeInstanceId(mig))

    def mig_profiles(self, handle: Handle) -> tuple[MigProfile, ...]:
        """All sizes of MIG device that the GPU can have; a driver before 470 has no names for them."""
        found = []
        for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
            info = _ask("nvmlDeviceGetGpuInstanceProfileInfoV", *profile_calls(handle, number))
            if isinstance(info, Failure):
                continue
            places = _ask("nvmlDeviceGetGpuInstancePossiblePlacements", partial(placements_of, handle, info.id))
            found.append(replace(info, placements=value(places) or ()))
        return tuple(found)

    def watch_xids(self, handles: Mapping[str, Handle]) -> "XidWatch | Failure":
        """Critical errors from now on, of GPUs by their UUIDs. One that has no events is left out."""
        events = _ask("nvmlEventSetCreate", pynvml.nvmlEventSetCreate)
        if isinstance(events, Failure):
            return events
        for handle in handles.values():
            register = partial(pynvml.nvmlDeviceRegisterEvents, handle, pynvml.nvmlEventTypeXidCriticalError, events)
            _ask("nvmlDeviceRegisterEvents", register)
        return XidWatch(events, names={address(handle): uuid for uuid, handle in handles.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """A critical error. ``uuid``: of the GPU, empty where the driver could not say which."""

    uuid: str
    number: int


class XidWatch:
    """A queue of critical errors in the driver. ``names``: UUIDs by the address of their handles; a GPU that has fallen
    off the bus can't be asked for its own."""

    def __init__(self, events: Any, *, names: Mapping[int | None, str]) -> None:
        self._events = events
        self._names = names

    def wait(self, *, milliseconds: int) -> Xid | Failure | None:
        """The next error; None: none came in this time. Blocks without holding Python's lock."""
        data = _ask("nvmlEventSetWait", lambda: pynvml.nvmlEventSetWait_v2(self._events, milliseconds))
        if isinstance(data, Failure):
            return None if data.code == pynvml.NVML_ERROR_TIMEOUT else data
        return Xid(uuid=self._names.get(address(data.device), ""), number=int(data.eventData))

    def close(self) -> None:
        _ask("nvmlEventSetFree", lambda: pynvml.nvmlEventSetFree(self._events))


def value(answer: T | Failure) -> T | None:
    """None instead of a failure, where it does not matter why."""
    return None if isinstance(answer, Failure) else answer


def _ask(call: str, *ways: Callable[[], T]) -> T | Failure:
    """The answer of the first way that this driver has."""
    failure = Failure(call, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, Trouble.UNSUPPORTED, "no way to ask")
    for way in ways:
        try:
            return way()
        except pynvml.NVMLError as error:
            failure = _failed(call, error)
            if failure.code not in (
                pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
                pynvml.NVML_ERROR_DEPRECATED,
            ):
                return failure
        except (ValueError, IndexError, UnicodeDecodeError) as error:  # an answer of no known form
            return Failure(call, pynvml.NVML_ERROR_UNKNOWN, Trouble.FAILED, str(error))
    return failure


def _failed(call: str, error: Any) -> Failure:
    code = int(error.value)
    # NVMLError's own text asks the library again, which may be what failed.
    text = type(error)._errcode_to_string.get(code, "") or type(error).__name__.removeprefix("NVMLError_")
    return Failure(call, code, _TROUBLE_OF.get(code, Trouble.FAILED), text)


def _failure(answer: object) -> Failure | None:
    return answer if isinstance(answer, Failure) else None
