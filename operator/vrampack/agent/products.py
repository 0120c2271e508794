"""GPU products as the driver reports them, for nodes that have none.

A card never gives an engine the memory of its data sheet: the driver keeps a part for itself, and GB are not GiB. What
counts is what CUDA calls the card's total, which is the total of ``nvidia-smi`` less the part that it calls reserved.
Totals of nvidia-smi are those of modal-labs/modal-client pull request 2797 unless an entry names another source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from vrampack.units import GIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One GPU product.

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


def _cuda_total(gib: float) -> int:
    """Bytes of a figure that CUDA's out-of-memory message gave with two decimals, rounded down to whole MiB."""
    return int(gib * 1024) * MIB


PRODUCTS: Final[Mapping[str, Product]] = MappingProxyType(
    {
        # 14.56 GiB by CUDA: AlphaGPU/leetgpu-challenges issue 52 (older drivers gave 14.75). Node: AWS g4dn.12xlarge.
        "T4": Product(label="Tesla-T4", total=15360 * MIB, usable=_cuda_total(14.56), cpu=12, memory=48 * GIB),
        # 22.03 GiB by CUDA on cards of 23034 MiB. Node: AWS g6.12xlarge.
        "L4": Product(label="NVIDIA-L4", total=23034 * MIB, usable=_cuda_total(22.03), cpu=12, memory=48 * GIB),
        # 22.06 GiB by CUDA on the A10G of AWS, which has the same total. Node: AWS g5.12xlarge.
        "A10": Product(label="NVIDIA-A10", total=23028 * MIB, usable=_cuda_total(22.06), cpu=12, memory=48 * GIB),
        # 24564 MiB: RLinf/RLinf issue 255. 23.52 GiB by CUDA: Soul-AILab/SoulX-FlashTalk issue 5. Node: a workstation.
        "RTX-4090": Product(
            label="NVIDIA-GeForce-RTX-4090", total=24564 * MIB, usable=_cuda_total(23.52), cpu=16, memory=64 * GIB
        ),
        # deviceQuery in bottlerocket-os/bottlerocket pull request 3873. Node: AWS p4d.24xlarge.
        "A100-40": Product(
            label="NVIDIA-A100-SXM4-40GB", total=40960 * MIB, usable=42_298_834_944, cpu=12, memory=144 * GIB
        ),
        # deviceQuery under driver 555, the 79.25 GiB of many out-of-memory messages. Node: AWS p4de.24xlarge.
        "A100-80": Product(
            label="NVIDIA-A100-SXM4-80GB", total=81920 * MIB, usable=85_100_068_864, cpu=12, memory=144 * GIB
        ),
        # 44.39 GiB by CUDA with ECC on. Node: AWS g6e.12xlarge.
        "L40S": Product(label="NVIDIA-L40S", total=46068 * MIB, usable=_cuda_total(44.39), cpu=12, memory=96 * GIB),
        # deviceQuery under driver 580 (85,028,896,768 under 570). Node: AWS p5.48xlarge.
        "H100-80": Product(
            label="NVIDIA-H100-80GB-HBM3", total=81559 * MIB, usable=85_017_755_648, cpu=24, memory=256 * GIB
        ),
        # 143771 MiB by nvidia-smi, 139.81 GiB by CUDA in the start-up logs of vLLM. Node: AWS p5en.48xlarge.
        "H200": Product(label="NVIDIA-H200", total=143771 * MIB, usable=_cuda_total(139.81), cpu=24, memory=256 * GIB),
        # 183359 MiB: NVIDIA/TensorRT-LLM issue 10278. 726 MiB reserved, 178.35 GiB by CUDA: unslothai/unsloth pull
        # request 9362. Node: AWS p6-b200.48xlarge.
        "B200": Product(label="NVIDIA-B200", total=183359 * MIB, usable=182633 * MIB, cpu=24, memory=256 * GIB),
    }
)
"""By the short name that a fleet file uses."""
