"""The start-up log of vLLM, from 0.4 to 0.33: the words changed, the figures are the same.

Where it says what: weights always; activations and what is outside PyTorch in one line that several releases write only
with ``VLLM_LOGGING_LEVEL=DEBUG``; since about 0.27 weights and non-torch only together. "GB" of old releases is 2^30.
"""

import re
from typing import Final

from vrampack.models.enginelogs import NUMBER, Dialect, Start, gib
from vrampack.units import GIB

_RANK: Final = re.compile(r"\((?:Worker|VllmWorker|EngineCore|RayWorker)\w{0,40} ?[^)]{0,60}\)")
_PID: Final = re.compile(r" ?pid=\d+")
_GIB: Final = rf"\s*{NUMBER} ?Gi?B"

_FIGURES: Final = (
    ("weights", re.compile(rf"(?:Loading model weights|Model loading) took{_GIB}")),
    ("weights", re.compile(rf"model weights take{_GIB}")),
    ("weights", re.compile(rf"weights memory:{_GIB}")),
    ("weights", re.compile(rf"Actual usage is{_GIB} for weight,")),
    ("consumed", re.compile(rf"Actual usage is{_GIB} for consumed memory")),
    ("activations", re.compile(rf"PyTorch activation peak memory(?: takes)?{_GIB}")),
    ("activations", re.compile(rf"torch peak memory increase:{_GIB}")),
    ("activations", re.compile(rf"{NUMBER} GiB for peak activation")),
    ("non_torch", re.compile(rf"non_torch_memory(?: takes)?{_GIB}")),
    ("non_torch", re.compile(rf"non-torch forward increase memory:{_GIB}")),
    ("non_torch", re.compile(rf"{NUMBER} GiB for non-torch memory")),
    ("cuda_graphs", re.compile(rf"Graph capturing finished in [\d.]{{1,12}} secs?, took{_GIB}")),
    ("cuda_graphs", re.compile(rf"CUDA graph pool memory:{_GIB} \(actual\)")),
    ("cuda_graphs", re.compile(rf"{NUMBER} GiB for CUDAGraph memory")),
)
_FREE: Final = re.compile(rf"Free memory on device(?: \S{{1,16}})? \({NUMBER}/{NUMBER} GiB\) on startup")
_TOKENS: Final = re.compile(r"GPU KV cache size: ([\d,]{1,20}) tokens")

_VERSIONS: Final = (
    re.compile(r"LLM engine \(v?([^)\s]{1,60})\) with config"),
    re.compile(r"vLLM API server version (\S{1,60})"),
    re.compile(r"vLLM server version (\S{1,60})"),
    re.compile(r"[█▀▄▉].{0,60}version (\d\S{0,60})"),
)
_MODEL: Final = re.compile(r"[({ ]['\"]?model(?:_tag)?['\"]?[=:] ?['\"]([^'\"]{1,300})['\"]")
_NUMBERS: Final = (
    ("context_length", re.compile(r"\b(?:max_seq_len|max_model_len)['\"]?[=:] ?(\d{1,9})")),
    ("context_length", re.compile(r"Using max model len (\d{1,9})")),
    ("max_sequences", re.compile(r"\bmax_num_seqs['\"]?[=:] ?(\d{1,9})")),
    ("max_batched_tokens", re.compile(r"\bmax_num_batched_tokens['\"]?[=:] ?(\d{1,9})")),
    ("tensor", re.compile(r"\btensor_parallel_size['\"]?[=:] ?(\d{1,5})")),
    ("pipeline", re.compile(r"\bpipeline_parallel_size['\"]?[=:] ?(\d{1,5})")),
    ("data", re.compile(r"\bdata_parallel_size['\"]?[=:] ?(\d{1,5})")),
)
_SWITCHES: Final = (
    ("expert", re.compile(r"\benable_expert_parallel['\"]?[=:] ?(True|False)"), "True"),
    ("cuda_graphs", re.compile(r"\benforce_eager['\"]?[=:] ?(True|False)"), "False"),
)
_KV_CACHE: Final = re.compile(r"\bkv_cache_dtype['\"]?[=:] ?['\"]?([a-z0-9_]{1,20})")
_DTYPE: Final = re.compile(r"\bdtype=torch\.(\w{1,20})")
_SIZED: Final = re.compile(r"kv_cache_memory(?:_bytes)?['\"]?[=:] ?['\"]?\d")
_SETTINGS: Final = ("with config", "non-default args", "Namespace(", "Chunked prefill", "Using max model len")


def _read(line: str, start: Start) -> bool:
    ours = _settings(line, start) if any(each in line for each in _SETTINGS) else False
    for pattern in _VERSIONS:
        if (match := pattern.search(line)) is not None:
            start.version = match[1].rstrip(".,)")
            ours = True
    if (match := _TOKENS.search(line)) is not None:
        start.kv_tokens = int(match[1].replace(",", "") or 0)
        ours = True
    for term, pattern in _FIGURES:
        if (match := pattern.search(line)) is not None:
            # A term is printed more than once, each time rounded: the most is what it may be.
            start.take(_rank(line), term, match[1], unit=GIB)
            ours = True
    if (match := _FREE.search(line)) is not None:
        _context(start, _rank(line), free=match[1], total=match[2])
        ours = True
    return ours


def _context(start: Start, rank: str, *, free: str, total: str) -> None:
    """What was in use before it began. More free than there is makes no sense."""
    if float(free) > float(total):
        start.unusable["context"] = f"{free} of {total} GiB free was printed: more than there is"
        return
    seen = start.rank(rank)
    seen.context = max(gib(total) - gib(free), seen.context or 0)


def _settings(line: str, start: Start) -> bool:
    if (match := _MODEL.search(line)) is not None:
        start.model = match[1]
    for name, pattern in _NUMBERS:
        if (match := pattern.search(line)) is not None:
            setattr(start, name, int(match[1]))
    for name, pattern, true in _SWITCHES:
        if (match := pattern.search(line)) is not None:
            setattr(start, name, match[1] == true)
    if (match := _KV_CACHE.search(line)) is not None:
        start.kv_cache = match[1]
    if (match := _DTYPE.search(line)) is not None:
        start.dtype = match[1]
    start.sized = start.sized or _SIZED.search(line) is not None
    return True


def _rank(line: str) -> str:
    """The process, without its number: a core that is its own only worker and that worker are one."""
    match = _RANK.search(line[:200])
    return _PID.sub("", match[0]) if match is not None else ""


VLLM: Final = Dialect(
    engine="vllm",
    hints=(
        "GiB",
        "model weights",
        "Model loading took",
        "LLM engine (",
        "server version",
        "non-default args",
        "Namespace(",
        "Chunked prefill",
        "max model len",
        "GPU KV cache size",
        "version ",
    ),
    begins=re.compile(r"server version |LLM engine \(|[█▀▄▉].{0,60}version \d"),
    read=_read,
)
