"""The start-up log of llama.cpp and of what is built from it: buffers by device, in MiB."""

import re
from typing import Final

from vrampack.models.enginelogs import NUMBER, Dialect, Start
from vrampack.units import MIB

_BUFFER: Final = re.compile(
    rf"(\w{{1,60}}):\s{{1,40}}([A-Za-z]\w{{1,40}})(?:\[\w{{1,20}}\])? {{1,4}}(?:(model|KV|RS|compute|output|LoRA) )?"
    rf"(?:self )?buffer size {{0,4}}= {{0,12}}{NUMBER} MiB"
)
_DEVICE: Final = re.compile(r"(?:CUDA|ROCm|HIP|Vulkan|SYCL|MUSA|CANN|Metal|MTL)\d{0,3}(?:_Mapped|_Private)?")
_TERMS: Final = {"model": "weights", "": "weights", "LoRA": "weights", "compute": "activations"}
_BEGINS: Final = re.compile(r"llama_model_loader: loaded meta data")
_VERSIONS: Final = (
    re.compile(r"\bbuild: (\d{1,6}) \(([0-9a-f]{6,40})\)"),
    re.compile(r"\bversion: (\d{1,6}) \(([0-9a-f]{6,40})\)"),
    re.compile(r"\bbuild_info: b(\d{1,6})-([0-9a-f]{6,40})"),
)
_PRODUCT: Final = re.compile(r"Device 0: (.{1,80}?), compute capability")
_NUMBER: Final = re.compile(r"\b(n_ctx|n_ctx_per_seq|n_ctx_seq|n_seq_max|n_ubatch) {0,20}= {0,4}(\d{1,9})")
_KV_TYPES: Final = re.compile(r"K \((\w{1,10})\):.{0,60}V \((\w{1,10})\):")
_NAME: Final = re.compile(r"general\.name str {1,40}= (.{1,200})")


def _read(line: str, start: Start) -> bool:
    ours = _BEGINS.search(line) is not None
    if (match := _BUFFER.search(line)) is not None:
        ours = True
        if (term := _TERMS.get(match[3] or "")) is not None and _DEVICE.fullmatch(match[2]):
            start.take(match[2].partition("_")[0], term, match[4], unit=MIB, summed=True)
    for pattern in _VERSIONS:
        if (match := pattern.search(line)) is not None:
            start.version = f"b{match[1]}"
            ours = True
    if (match := _PRODUCT.search(line)) is not None:
        start.product = match[1]
        ours = True
    if (match := _KV_TYPES.search(line)) is not None:
        start.kv_cache = match[1]
        ours = True
    if (match := _NAME.search(line)) is not None:
        start.model = match[1].strip()
        ours = True
    if "llama" in line and (match := _NUMBER.search(line)) is not None:
        _number(start, match[1], int(match[2]))
        ours = True
    return ours


def _number(start: Start, name: str, value: int) -> None:
    """``n_ctx`` is of all slots together; older ones print no context of one slot."""
    match name:
        case "n_seq_max":
            start.max_sequences = value
        case "n_ubatch":
            start.max_batched_tokens = value
        case "n_ctx":
            start.context_length = start.context_length or value
        case _:
            start.context_length = value


LLAMACPP: Final = Dialect(
    engine="llamacpp",
    hints=(
        "buffer size",
        "llama_model_loader",
        "llama_context",
        "llama_new_context",
        "Device 0:",
        "build",
        "version: ",
        "K (",
        "general.name",
    ),
    begins=_BEGINS,
    read=_read,
)
