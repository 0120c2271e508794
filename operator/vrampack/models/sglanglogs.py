"""The start-up log of SGLang. Its "GB" is 2^30 bytes. It measures no activations: they are what its reserve is for."""

import re
from typing import Final

from vrampack.models.enginelogs import NUMBER, Dialect, Start
from vrampack.units import GIB

_RANK: Final = re.compile(r"^\[[\d :.,-]{8,30}((?: (?:TP|DP|PP|EP)\d{1,4}){0,4})\]")
_FIGURES: Final = (
    ("communication", re.compile(rf"Init torch distributed ends?\. .{{0,40}}?mem usage={NUMBER} GB")),
    ("weights", re.compile(rf"Load weight end\. .{{0,300}}?mem usage={NUMBER} GB")),
    (
        "cuda_graphs",
        re.compile(rf"Capture (?:\w{{1,20}} ){{0,2}}(?:cuda|CUDA) graph end\. .{{0,80}}?mem usage={NUMBER} GB"),
    ),
)
_TOKENS: Final = re.compile(r"KV Cache is allocated\. .{0,60}?#tokens: (\d{1,15})")
_SERVER: Final = re.compile(r"server_args=ServerArgs\(")
_NUMBERS: Final = (
    ("tensor", re.compile(r"\btp_size=(\d{1,5})")),
    ("pipeline", re.compile(r"\bpp_size=(\d{1,5})")),
    ("data", re.compile(r"\bdp_size=(\d{1,5})")),
    ("max_batched_tokens", re.compile(r"\bchunked_prefill_size=(\d{1,9})")),
    ("max_sequences", re.compile(r"\bmax_running_requests=(\d{1,9})")),
    ("context_length", re.compile(r"\bcontext_len(?:gth)?=(\d{1,9})")),
)
_SUMMARY: Final = "max_total_num_tokens="
_GRAPHS: Final = re.compile(r"\bdisable_cuda_graph=(True|False)")
_EXPERTS: Final = re.compile(r"\bep_size=(\d{1,5})")
_MODEL: Final = re.compile(r"\bmodel_path='([^']{1,300})'")
_KV_CACHE: Final = re.compile(r"\bkv_cache_dtype='([a-z0-9_]{1,20})'")
_DTYPE: Final = re.compile(r"Load weight end\. .{0,200}?dtype=torch\.(\w{1,20})")


def _read(line: str, start: Start) -> bool:
    ours = False
    if _SERVER.search(line) is not None or _SUMMARY in line:
        _settings(line, start)
        ours = True
    if (match := _TOKENS.search(line)) is not None:
        start.kv_tokens = int(match[1])
        ours = True
    if (match := _DTYPE.search(line)) is not None:
        start.dtype = match[1]
    for term, pattern in _FIGURES:
        if (match := pattern.search(line)) is not None:
            rank = _RANK.search(line)
            # A draft model loads, and is captured, after the model: both are there.
            name = rank[1].strip() if rank is not None else ""
            start.take(name, term, match[1], unit=GIB, summed=term != "communication")
            ours = True
    return ours


def _settings(line: str, start: Start) -> None:
    for name, pattern in _NUMBERS:
        if (match := pattern.search(line)) is not None:
            setattr(start, name, int(match[1]))
    if (match := _GRAPHS.search(line)) is not None:
        start.cuda_graphs = match[1] == "False"
    if (match := _EXPERTS.search(line)) is not None:
        start.expert = int(match[1]) > 1
    if (match := _MODEL.search(line)) is not None:
        start.model = match[1]
    if (match := _KV_CACHE.search(line)) is not None:
        start.kv_cache = match[1]


SGLANG: Final = Dialect(
    engine="sglang",
    hints=("mem usage=", "server_args=ServerArgs(", "KV Cache is allocated", _SUMMARY),
    begins=_SERVER,
    read=_read,
)
