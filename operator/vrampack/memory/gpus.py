"""GPU products: how much memory an engine can have of each.

A card never gives an engine the memory of its data sheet: the driver keeps a part for itself, and GB are not GiB. What
counts is what CUDA calls the card's total, which is the total of ``nvidia-smi`` less the part that it calls reserved.
Totals of nvidia-smi are those of modal-labs/modal-client pull request 2797 unless an entry names another source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from vrampack.memory.constants import CUDA_CONTEXT, CUDA_CONTEXT_OF_SMALL_GPUS
from vrampack.units import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class GPU:
    """One GPU product.

    ``label``: its name as GPU feature discovery writes it, the driver's with dashes. ``total``: bytes that nvidia-smi
    calls total. ``usable``: bytes that CUDA calls total. ``context``: bytes that CUDA and the driver take before
    anything is allocated; where that was not measured, the most of those that were.
    """

    label: str
    total: int
    usable: int
    context: int = CUDA_CONTEXT

    @property
    def reserved(self) -> int:
        """Bytes that the driver and the firmware keep."""
        return self.total - self.usable


def _cuda_total(gib: float) -> int:
    """Bytes of a figure that CUDA's out-of-memory message gave with two decimals, rounded down to whole MiB."""
    return int(gib * 1024) * MIB


GPUS: Final[Mapping[str, GPU]] = MappingProxyType(
    {
        # 14.56 GiB by CUDA: AlphaGPU/leetgpu-challenges issue 52 (older drivers gave 14.75).
        "T4": GPU(label="Tesla-T4", total=15360 * MIB, usable=_cuda_total(14.56), context=CUDA_CONTEXT_OF_SMALL_GPUS),
        # 22.03 GiB by CUDA on cards of 23034 MiB.
        "L4": GPU(label="NVIDIA-L4", total=23034 * MIB, usable=_cuda_total(22.03), context=CUDA_CONTEXT_OF_SMALL_GPUS),
        # 22.06 GiB by CUDA on the A10G of AWS, which has the same total.
        "A10": GPU(
            label="NVIDIA-A10", total=23028 * MIB, usable=_cuda_total(22.06), context=CUDA_CONTEXT_OF_SMALL_GPUS
        ),
        # 24564 MiB: RLinf/RLinf issue 255. 23.52 GiB by CUDA: Soul-AILab/SoulX-FlashTalk issue 5.
        "RTX-4090": GPU(
            label="NVIDIA-GeForce-RTX-4090",
            total=24564 * MIB,
            usable=_cuda_total(23.52),
            context=CUDA_CONTEXT_OF_SMALL_GPUS,
        ),
        # 24576 MiB and, under driver 580, 23.56 GiB by CUDA: noonghunna/club-3090 issue 58.
        "RTX-3090": GPU(
            label="NVIDIA-GeForce-RTX-3090",
            total=24576 * MIB,
            usable=_cuda_total(23.56),
            context=CUDA_CONTEXT_OF_SMALL_GPUS,
        ),
        # 32607 MiB: noonghunna/club-3090 issue 1229. 31.37 GiB by CUDA: Wan-Video/Wan2.1 issue 465.
        "RTX-5090": GPU(label="NVIDIA-GeForce-RTX-5090", total=32607 * MIB, usable=_cuda_total(31.37)),
        # deviceQuery in bottlerocket-os/bottlerocket pull request 3873.
        "A100-40": GPU(label="NVIDIA-A100-SXM4-40GB", total=40960 * MIB, usable=42_298_834_944),
        # 44.39 GiB by CUDA with ECC on.
        "L40S": GPU(label="NVIDIA-L40S", total=46068 * MIB, usable=_cuda_total(44.39)),
        # 46068 MiB with ECC on, and 44.43 GiB by CUDA: DINGYANB/MTVCrafter issue 21.
        "RTX-6000-Ada": GPU(label="NVIDIA-RTX-6000-Ada-Generation", total=46068 * MIB, usable=_cuda_total(44.43)),
        # deviceQuery under driver 580 (85,028,896,768 under 570).
        "H100-80": GPU(label="NVIDIA-H100-80GB-HBM3", total=81559 * MIB, usable=85_017_755_648),
        # deviceQuery under driver 555, the 79.25 GiB of many out-of-memory messages.
        "A100-80": GPU(label="NVIDIA-A100-SXM4-80GB", total=81920 * MIB, usable=85_100_068_864),
        # 143771 MiB by nvidia-smi, 139.81 GiB by CUDA in the start-up logs of vLLM.
        "H200": GPU(label="NVIDIA-H200", total=143771 * MIB, usable=_cuda_total(139.81)),
        # 183359 MiB: NVIDIA/TensorRT-LLM issue 10278. 726 MiB reserved, 178.35 GiB by CUDA: unslothai/unsloth pull
        # request 9362.
        "B200": GPU(label="NVIDIA-B200", total=183359 * MIB, usable=182633 * MIB),
    }
)
"""By a short name, from the smallest to the largest."""


@lru_cache(maxsize=256)
def context_bytes(product: str) -> int:
    """What CUDA and the driver take of a GPU before anything is allocated; of one that is not known, the most."""
    found = gpu_named(product)
    return found.context if found is not None else CUDA_CONTEXT


def gpu_named(name: str) -> GPU | None:
    """By its short name or its label, in whatever case; None: not known."""
    wanted = name.strip().casefold()
    return next((gpu for short, gpu in GPUS.items() if wanted in (short.casefold(), gpu.label.casefold())), None)
