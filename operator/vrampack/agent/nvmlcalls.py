"""NVML's calls as plain values, the older versions of a call among them. Each raises pynvml.NVMLError."""

import ctypes
from collections.abc import Callable
from typing import Any, Final

import pynvml

from vrampack.agent.devices import Memory, MigProfile, Process, RemappedRows
from vrampack.units import MIB

Handle = Any

_NO_INSTANCE: Final = 0xFFFFFFFF
_MOST_PLACEMENTS: Final = 64


def address(handle: Handle) -> int | None:
    """What tells two handles apart, without asking the driver."""
    return ctypes.cast(handle, ctypes.c_void_p).value


def text(value: Any) -> str:
    """Of bytes or text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def pair(values: Any) -> tuple[bool, bool]:
    """Of a list of two."""
    first, second = values
    return bool(first), bool(second)


def memory(handle: Handle) -> Memory:
    """By the call that tells what the driver keeps."""
    info = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    return Memory(total=info.total, reserved=info.reserved, used=info.used)


def memory_v1(handle: Handle) -> Memory:
    """By the call before it, where that counts as used."""
    info = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Memory(total=info.total, reserved=0, used=info.used)


def memory_limit(handle: Handle, cgroup: str) -> int:
    """Bytes; of a group without a limit NVML's largest number."""
    limits = pynvml.c_nvmlGetMemoryLimits_v1_t(nameSpace=cgroup.encode())
    pynvml.nvmlDeviceGetMemoryLimits_v1(handle, limits)
    return int(limits.hardLimit)


def limit_memory(handle: Handle, cgroup: str, most: int) -> None:
    """Sets the hard limit, and no soft one."""
    limits = pynvml.c_nvmlSetMemoryLimits_v1_t(nameSpace=cgroup.encode(), softLimit=0, hardLimit=most)
    pynvml.nvmlDeviceSetMemoryLimits_v1(handle, limits)


def rows(handle: Handle) -> RemappedRows:
    """Of products from Ampere on."""
    corrected, uncorrected, pending, failed = pynvml.nvmlDeviceGetRemappedRows(handle)
    return RemappedRows(corrected=corrected, uncorrected=uncorrected, pending=bool(pending), failed=bool(failed))


def listings(kind: str, handle: Handle) -> list[Callable[[], list[Process]]]:
    """The newest version of a listing of processes first. Drivers before 510 lack the third, before 450 the second."""

    def listing(version: str) -> Callable[[], list[Process]]:
        name = f"nvmlDeviceGet{kind}RunningProcesses_{version}"
        return lambda: [_process(each) for each in getattr(pynvml, name)(handle)]

    return [listing("v3"), listing("v2"), lambda: _processes_v1(kind, handle)]


def _process(found: Any) -> Process:
    instance = getattr(found, "gpuInstanceId", _NO_INSTANCE)
    return Process(
        pid=found.pid,
        bytes=found.usedGpuMemory,
        instance=None if instance == _NO_INSTANCE else instance,
    )


class _ProcessV1(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong))


def _processes_v1(kind: str, handle: Handle) -> list[Process]:
    """The first version, which nvidia-ml-py has no wrapper for."""
    call = pynvml._nvmlGetFunctionPointer(f"nvmlDeviceGet{kind}RunningProcesses")
    count = ctypes.c_uint(0)
    code = call(handle, ctypes.byref(count), None)
    if code == pynvml.NVML_SUCCESS:
        return []
    if code != pynvml.NVML_ERROR_INSUFFICIENT_SIZE:
        raise pynvml.NVMLError(code)
    count.value = count.value * 2 + 5  # more may start meanwhile
    found = (_ProcessV1 * count.value)()
    pynvml._nvmlCheckReturn(call(handle, ctypes.byref(count), found))
    unknown = pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value
    return [Process(pid=each.pid, bytes=None if each.used == unknown else each.used) for each in found[: count.value]]


def profile_calls(handle: Handle, number: int) -> list[Callable[[], MigProfile]]:
    """The newest version first; placements are asked for by themselves."""

    def of(version: int) -> Callable[[], MigProfile]:
        return lambda: _profile(pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number, version=version))

    return [of(2), of(1)]


def _profile(info: Any) -> MigProfile:
    name = text(getattr(info, "name", b"")).removeprefix("MIG ")
    return MigProfile(
        id=info.id,
        name=name or f"{info.sliceCount}g.{round(info.memorySizeMB / 1024)}gb",
        memory=info.memorySizeMB * MIB,
        most=info.instanceCount,
        placements=(),
    )


def placements_of(handle: Handle, profile: int) -> tuple[tuple[int, int], ...]:
    """First memory slice and number of slices of each place that a profile, by its id, can have."""
    count = ctypes.c_uint(_MOST_PLACEMENTS)
    found = (pynvml.c_nvmlGpuInstancePlacement_t * _MOST_PLACEMENTS)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, found, ctypes.byref(count))
    return tuple((each.start, each.size) for each in found[: count.value])
