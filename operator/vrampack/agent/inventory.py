"""What GPUs a node has and what they do: read off the driver, which may be away or lose a GPU at any moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vrampack.agent.devices import Device, DriverVersions, Identity, Memory, Mig, MigDevice, Traits
from vrampack.agent.nvml import NVML, Failure, Trouble, value
from vrampack.agent.nvmlcalls import Handle

_PATIENCE = 3
"""Readings that may fail in a row before a GPU counts as lost."""
_NOTHING = Memory(total=0, reserved=0, used=0)


@dataclass(kw_only=True)
class _Known:
    """A GPU that was seen, and the last that could be read of it."""

    handle: Handle
    device: Device
    failures: int = 0


@dataclass(kw_only=True)
class Inventory:
    """The GPUs of an open driver. ``versions`` and the handles are of this one loading of it."""

    nvml: NVML
    versions: DriverVersions
    _known: dict[str, _Known] = field(default_factory=dict)

    @classmethod
    def open(cls, nvml: NVML) -> "Inventory | Failure":
        """All GPUs of a driver that was opened."""
        versions = nvml.versions()
        if isinstance(versions, Failure):
            return versions
        inventory = cls(nvml=nvml, versions=versions)
        failure = inventory.look()
        return inventory if failure is None else failure

    @property
    def handles(self) -> Mapping[str, Handle]:
        """By UUID."""
        return {uuid: known.handle for uuid, known in self._known.items()}

    def look(self) -> Failure | None:
        """Everything anew, what changes seldom as well: which GPUs there are, their modes, errors and MIG devices.

        A failure means that the driver is gone; one of a single GPU makes that one lost.
        """
        count = self.nvml.count()
        if isinstance(count, Failure):
            return count
        found: dict[str, _Known] = {}
        for index in range(count):
            known = self._identify(index)
            if isinstance(known, Failure):
                if known.trouble in (Trouble.NO_DRIVER, Trouble.STALE_LIBRARY):
                    return known
                self._lose(index, known, found)
            else:
                found[known.device.identity.uuid] = known
        if found.keys() != self._known.keys():
            _connect(self.nvml, found)
        self._known = found
        return None

    def poll(self) -> tuple[Device, ...] | Failure:
        """Memory and processes of every GPU now. A failure means that the driver is gone."""
        for known in self._known.values():
            failure = self._read(known)
            if failure is not None and failure.trouble in (Trouble.NO_DRIVER, Trouble.STALE_LIBRARY):
                return failure
        return tuple(known.device for known in self._known.values())

    def _identify(self, index: int) -> _Known | Failure:
        handle = self.nvml.handle(index)
        if isinstance(handle, Failure):
            return handle
        uuid = self.nvml.uuid(handle)
        if isinstance(uuid, Failure):
            return uuid
        before = self._known.get(uuid)
        if before is None:
            identity = _identity(self.nvml, handle, uuid=uuid, index=index)
            before = _Known(handle=handle, device=Device(identity=identity, traits=Traits(), memory=_NOTHING))
        identity = replace(before.device.identity, index=index)
        traits = _traits(self.nvml, handle)
        known = _Known(
            handle=handle,
            device=replace(before.device, identity=identity, traits=traits),
            failures=before.failures,
        )
        if before.device.memory is _NOTHING and (failure := self._read(known)) is not None:
            if failure.trouble is not Trouble.FAILED:
                return failure
            known.device = replace(known.device, lost=str(failure))  # its memory was never known
        return known

    def _read(self, known: _Known) -> Failure | None:
        memory = self.nvml.memory(known.handle)
        if isinstance(memory, Failure):
            return self._failed(known, memory)
        processes = self.nvml.processes(known.handle)
        if isinstance(processes, Failure):
            if processes.trouble is not Trouble.UNSUPPORTED:
                return self._failed(known, processes)
            processes = ()
        known.failures = 0
        known.device = replace(known.device, memory=memory, processes=processes, lost="")
        return None

    def _failed(self, known: _Known, failure: Failure) -> Failure:
        """The last reading stays; a GPU that is lost, or that fails again and again, says so."""
        known.failures += 1
        if failure.trouble is Trouble.LOST or known.failures >= _PATIENCE:
            known.device = replace(known.device, lost=str(failure))
        return failure

    def _lose(self, index: int, failure: Failure, found: dict[str, _Known]) -> None:
        """A GPU that is still counted but can't be named any more is the one that was there before."""
        for uuid, known in self._known.items():
            if known.device.identity.index == index:
                known.device = replace(known.device, lost=str(failure))
                found[uuid] = known


def _identity(nvml: NVML, handle: Handle, *, uuid: str, index: int) -> Identity:
    name = value(nvml.name(handle)) or "unknown"
    return Identity(
        uuid=uuid,
        index=index,
        product=name.replace(" ", "-"),
        name=name,
        bus=value(nvml.bus(handle)) or "",
        minor=value(nvml.minor(handle)),
        capability=value(nvml.capability(handle)),
        numa=value(nvml.numa(handle)),
    )


def _connect(nvml: NVML, found: dict[str, _Known]) -> None:
    """Who reaches whom, once for each set of GPUs."""
    for uuid, known in found.items():
        others = [(each, other.handle) for each, other in found.items() if each != uuid]
        known.device = replace(
            known.device,
            identity=replace(
                known.device.identity,
                nvlink=tuple(each for each, other in others if value(nvml.nvlinked(known.handle, other))),
                p2p=tuple(each for each, other in others if value(nvml.reads(known.handle, other))),
            ),
        )


def _traits(nvml: NVML, handle: Handle) -> Traits:
    ecc, rows = value(nvml.ecc(handle)), value(nvml.rows(handle))
    return Traits(
        compute_mode=value(nvml.compute_mode(handle)),
        ecc=ecc,
        ecc_uncorrected=value(nvml.ecc_uncorrected(handle)) if ecc else None,
        rows=rows,
        retiring=value(nvml.retiring(handle)) if rows is None else None,
        repair_pending=value(nvml.repair_pending(handle)),
        mig=_mig(nvml, handle),
    )


def _mig(nvml: NVML, handle: Handle) -> Mig | None:
    mode = value(nvml.mig_mode(handle))
    if mode is None:
        return None
    current, pending = mode
    if not current:
        return Mig(current=False, pending=pending)
    devices = []
    for index in range(value(nvml.most_mig_devices(handle)) or 0):
        mig = nvml.mig_handle(handle, index)
        if isinstance(mig, Failure):
            continue  # an empty place: the others may be taken
        if (device := _mig_device(nvml, mig)) is not None:
            devices.append(device)
    return Mig(current=True, pending=pending, devices=tuple(devices), profiles=nvml.mig_profiles(handle))


def _mig_device(nvml: NVML, mig: Handle) -> MigDevice | None:
    uuid, memory = value(nvml.uuid(mig)), value(nvml.memory(mig))
    instance, compute = value(nvml.instance(mig)), value(nvml.compute_instance(mig))
    if uuid is None or memory is None or instance is None:
        return None  # it is being made or taken away
    profile = (value(nvml.name(mig)) or "").rpartition("MIG ")[2]
    return MigDevice(uuid=uuid, profile=profile, instance=instance, compute=compute or 0, memory=memory)
