"""What the stand-in driver shows: written as YAML by people and tests, as plain lines for its C side.

A field that is None is NotSupported on that GPU, as it is on the products that lack it.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
import yaml

from vrampack.errors import InvalidInputError
from vrampack.memory.gpus import GPUS
from vrampack.units import MIB, parse_bytes

_NVLINK: Final = 2  # NVML_P2P_CAPS_INDEX_NVLINK
_PCI: Final = 4
_READ: Final = 0
_P2P_OK: Final = 0
_P2P_NOT_SUPPORTED: Final = 5
_UNKNOWN_BYTES: Final = -1
_BYTES: Final = frozenset({"bytes", "idle", "memory", "usable"})


class _Entry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class Process(_Entry):
    """A process on a GPU. ``bytes`` None: the driver does not know. ``instance``: of MIG."""

    pid: int
    bytes: int | None = 0
    instance: int | None = None


class MigSlice(_Entry):
    """A MIG device that exists. ``profile``: such as 3g.40gb."""

    uuid: str
    profile: str
    instance: int
    memory: int


class GPU(_Entry):
    """One GPU. ``idle``: bytes in use that no process accounts for. ``error``: with which every call on it fails.
    ``usable``: bytes, instead of the product's.

    ``errors``: code by call, such as ``nvmlDeviceGetEccMode``.
    """

    product: str
    uuid: str
    idle: int = 0
    usable: int | None = None
    processes: list[Process] = []
    mps: list[Process] | None = []
    nvlink: list[int] = []
    numa: int | None = None
    compute_mode: int | None = 0
    ecc_uncorrected: int = 0
    rows: tuple[int, int, int, int] = (0, 0, 0, 0)
    mig: list[MigSlice] | None = None
    error: int | None = None
    errors: dict[str, int] = {}

    @property
    def used(self) -> int:
        return self.idle + sum(process.bytes or 0 for process in self.processes)


class Event(_Entry):
    """An XID on a GPU, by the GPU's index."""

    gpu: int
    xid: int


class Driver(_Entry):
    """The driver of one node. ``events``: all so far; one more is one that happens now. ``limits``: whether it keeps
    limits of memory."""

    version: str = "580.126.09"
    cuda: int = 13000
    gpus: list[GPU] = []
    errors: dict[str, int] = {}
    events: list[Event] = []
    limits: bool = False


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """What a product has beside its memory. ``profiles``: of MIG, by NVML's number."""

    name: str
    capability: tuple[int, int]
    ecc: bool
    remaps: bool
    """Whether it replaces rows of its memory; older ones retire pages."""
    profiles: Mapping[int, tuple[int, int, int, int, str, str]] = {}
    """id, slices, most, MiB, name, placements"""


def _mig(small: int, *, generation: str) -> dict[int, tuple[int, int, int, int, str, str]]:
    """Profiles of a card with 7 compute and 8 memory slices of ``small`` GB each."""
    names = {
        "A100-40": ("1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"),
        "80": ("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"),
        "H200": ("1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"),
        "B200": ("1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"),
    }[generation]
    one, double, two, three, four, seven = names
    return {
        0: (19, 1, 7, small, one, "0:1 1:1 2:1 3:1 4:1 5:1 6:1"),
        9: (15, 1, 4, small * 2, double, "0:2 2:2 4:2 6:2"),
        1: (14, 2, 3, small * 2, two, "0:2 2:2 4:2"),
        2: (9, 3, 2, small * 4, three, "0:4 4:4"),
        3: (5, 4, 1, small * 4, four, "0:4"),
        4: (0, 7, 1, small * 8, seven, "0:8"),
    }


PRODUCTS: Final[Mapping[str, Product]] = MappingProxyType(
    {
        "T4": Product(name="Tesla T4", capability=(7, 5), ecc=True, remaps=False),
        "L4": Product(name="NVIDIA L4", capability=(8, 9), ecc=True, remaps=True),
        "A10": Product(name="NVIDIA A10", capability=(8, 6), ecc=True, remaps=True),
        "RTX-4090": Product(name="NVIDIA GeForce RTX 4090", capability=(8, 9), ecc=False, remaps=True),
        "L40S": Product(name="NVIDIA L40S", capability=(8, 9), ecc=True, remaps=True),
        "A100-40": Product(
            name="NVIDIA A100-SXM4-40GB",
            capability=(8, 0),
            ecc=True,
            remaps=True,
            profiles=_mig(4864, generation="A100-40"),
        ),
        "A100-80": Product(
            name="NVIDIA A100-SXM4-80GB", capability=(8, 0), ecc=True, remaps=True, profiles=_mig(9728, generation="80")
        ),
        "H100-80": Product(
            name="NVIDIA H100 80GB HBM3", capability=(9, 0), ecc=True, remaps=True, profiles=_mig(9984, generation="80")
        ),
        "H200": Product(
            name="NVIDIA H200", capability=(9, 0), ecc=True, remaps=True, profiles=_mig(16384, generation="H200")
        ),
        "B200": Product(
            name="NVIDIA B200", capability=(10, 0), ecc=True, remaps=True, profiles=_mig(22528, generation="B200")
        ),
    }
)
"""By the short names of `vrampack.memory.gpus`, which has their memory."""


def parse_driver(text: str) -> Driver:
    """A driver from YAML; bytes may be quantities. Raises InvalidInputError with the field that is wrong."""
    try:
        driver = msgspec.convert(_in_bytes(yaml.safe_load(text)), Driver)
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInputError(field="driver", value=" ".join(str(error).split()), allowed="see state.py") from error
    for number, gpu in enumerate(driver.gpus):
        if gpu.product not in PRODUCTS:
            allowed = f"it is one of {', '.join(PRODUCTS)}"
            raise InvalidInputError(field=f"gpus[{number}].product", value=gpu.product, allowed=allowed)
    return driver


def lines(driver: Driver) -> str:
    """The same for the C side: a key and a value on each line."""
    return "".join(f"{key} {value}\n" for key, value in _driver(driver))


def _in_bytes(value: Any) -> Any:
    """Quantities as whole bytes, wherever a field holds bytes."""
    if isinstance(value, list):
        return [_in_bytes(each) for each in value]
    if isinstance(value, dict):
        return {
            key: parse_bytes(each)
            if key in ("bytes", "idle", "memory", "usable") and isinstance(each, str)
            else _in_bytes(each)
            for key, each in value.items()
        }
    return value


def _driver(driver: Driver) -> Iterator[tuple[str, object]]:
    yield "driver", driver.version
    yield "cuda", driver.cuda
    yield "gpus", len(driver.gpus)
    for call, code in driver.errors.items():
        yield f"error.{call}", code
    for index, gpu in enumerate(driver.gpus):
        for key, value in _gpu(gpu, index=index, gpus=len(driver.gpus)):
            yield f"gpu.{index}.{key}", value
    if driver.limits:
        yield "limits", 1
    yield "events", len(driver.events)
    for number, event in enumerate(driver.events):
        yield f"event.{number}", f"{event.gpu} {event.xid}"


def _gpu(gpu: GPU, *, index: int, gpus: int) -> Iterator[tuple[str, object]]:
    product, memory = PRODUCTS[gpu.product], GPUS[gpu.product]
    yield "uuid", gpu.uuid
    yield "name", product.name
    yield "minor", index
    yield "pci", f"00000000:{0x10 + index:02X}:00.0"
    yield "capability", "{} {}".format(*product.capability)
    total = memory.total if gpu.usable is None else gpu.usable + memory.reserved
    yield "memory", f"{total} {memory.reserved} {gpu.used}"
    optional = {"numa": gpu.numa, "computemode": gpu.compute_mode, "error": gpu.error}
    yield from ((key, value) for key, value in optional.items() if value is not None)
    if product.ecc:
        yield "ecc", "1 1"
        yield "eccerrors.1.0", gpu.ecc_uncorrected
    if product.remaps:
        yield "rows", " ".join(map(str, gpu.rows))
    else:
        yield "retiring", gpu.rows[2]
    for other in range(gpus):
        if other != index:
            linked = _P2P_OK if other in gpu.nvlink else _P2P_NOT_SUPPORTED
            yield f"p2p.{_NVLINK}.{other}", linked
            yield f"p2p.{_READ}.{other}", linked
    for kind, given in (("process", gpu.processes), ("mpsprocess", gpu.mps)):
        if given is not None:
            yield f"{kind}es", len(given)
            yield from ((f"{kind}.{at}", _process(each)) for at, each in enumerate(given))
    if product.profiles:
        yield from _mig_of(gpu, product)
    for call, code in gpu.errors.items():
        yield f"error.{call}", code


def _process(process: Process) -> str:
    known = _UNKNOWN_BYTES if process.bytes is None else process.bytes
    return f"{process.pid} {known}" + ("" if process.instance is None else f" {process.instance} 0")


def _mig_of(gpu: GPU, product: Product) -> Iterator[tuple[str, object]]:
    yield "migmode", "0 0" if gpu.mig is None else "1 1"
    yield "maxmig", 7
    if gpu.mig is None:
        return
    for at, each in enumerate(gpu.mig):
        yield f"mig.{at}.uuid", each.uuid
        yield f"mig.{at}.name", f"{product.name} MIG {each.profile}"
        yield f"mig.{at}.instance", each.instance
        yield f"mig.{at}.compute", 0
        yield f"mig.{at}.memory", f"{each.memory} {16 * MIB} 0"
    for number, (id_, slices, most, megabytes, name, placements) in product.profiles.items():
        yield f"profile.{number}", f"{id_} {slices} {most} {megabytes} MIG {name}"
        yield f"placements.{id_}", placements
        yield f"capacity.{id_}", max(0, most - len(gpu.mig))
