"""GPU products that a fleet file may name, for nodes that have no GPU; and what a usual node has beside each."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vrampack.memory.gpus import GPUS
from vrampack.units import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One GPU product as a simulated node has it.

    ``label``: the value of the node label ``nvidia.com/gpu.product``. ``total``: bytes that nvidia-smi calls total.
    ``usable``: bytes that CUDA calls total. ``cpu`` and ``memory``: cores and bytes of RAM that a usual node has for
    each such GPU.
    """

    label: str
    total: int
    usable: int
    cpu: int
    memory: int

    @property
    def reserved(self) -> int:
        """Bytes that the driver and the firmware keep."""
        return self.total - self.usable


def _beside(name: str, *, cpu: int, memory: int) -> Product:
    gpu = GPUS[name]
    return Product(label=gpu.label, total=gpu.total, usable=gpu.usable, cpu=cpu, memory=memory * GIB)


PRODUCTS: Final[Mapping[str, Product]] = MappingProxyType(
    {
        "T4": _beside("T4", cpu=12, memory=48),  # AWS g4dn.12xlarge
        "L4": _beside("L4", cpu=12, memory=48),  # AWS g6.12xlarge
        "A10": _beside("A10", cpu=12, memory=48),  # AWS g5.12xlarge
        "RTX-4090": _beside("RTX-4090", cpu=16, memory=64),  # a workstation
        "A100-40": _beside("A100-40", cpu=12, memory=144),  # AWS p4d.24xlarge
        "A100-80": _beside("A100-80", cpu=12, memory=144),  # AWS p4de.24xlarge
        "L40S": _beside("L40S", cpu=12, memory=96),  # AWS g6e.12xlarge
        "H100-80": _beside("H100-80", cpu=24, memory=256),  # AWS p5.48xlarge
        "H200": _beside("H200", cpu=24, memory=256),  # AWS p5en.48xlarge
        "B200": _beside("B200", cpu=24, memory=256),  # AWS p6-b200.48xlarge
    }
)
"""By the short name that a fleet file uses."""
