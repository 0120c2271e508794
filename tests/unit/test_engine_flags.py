"""Every flag that is told an engine is one of its release's own parser.

``flags/ENGINE-VERSION.txt`` holds the names of all options, and nothing else, as they stand in the published sources:
vLLM's ``engine/arg_utils.py`` and ``entrypoints/common/cli_args.py``, SGLang's ``srt/server_args.py`` with its groups
of fields, TGI's ``launcher/src/main.rs``. A switch that argparse lets negate counts under its own name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.unit.replicas import LLAMA_8B, QWEN_SGLANG, QWEN_TGI
from vrampack.engines.base import AdapterSlots, Drafts, EngineInput
from vrampack.engines.registry import engine
from vrampack.engines.releases import RELEASES

FLAGS: Final = Path(__file__).parent / "flags"
REPLICAS: Final[Mapping[str, EngineInput]] = {"vllm": LLAMA_8B, "sglang": QWEN_SGLANG, "tgi": QWEN_TGI}
ALIKE: Final[Sequence[Mapping[str, Any]]] = ({}, {"cuda_graphs": False}, {"tensor": 2}, {"kv_cache_precision": "fp8"})
OF_TORCH: Final[Sequence[Mapping[str, Any]]] = (
    *ALIKE,
    {"pipeline": 2},
    {"expert": True, "tensor": 2},
    {"prefix_caching": False},
    {"weights_precision": "fp8"},
    {"adapters": AdapterSlots(count=4, rank=32)},
    {"drafts": Drafts(method="mtp", tokens=2)},
    {"drafts": Drafts(method="ngram", tokens=3)},
    {"images_per_prompt": 2},
)
VARIANTS: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    "vllm": (*OF_TORCH, {"prefix_caching": True}, {"data": 2}, {"tensor": 4, "decode_context": 2}),
    "sglang": OF_TORCH,
    "tgi": ALIKE,
}
NEWEST: Final = [f"{name}-{RELEASES[name].newest}" for name in REPLICAS]


@pytest.mark.parametrize("release", sorted({*NEWEST, "sglang-0.5.10"}))
def test_all_that_an_engine_is_told_are_flags_of_its_release(release: str) -> None:
    name, _, version = release.partition("-")
    known = set((FLAGS / f"{release}.txt").read_text(encoding="ascii").split())
    told = set()
    for changes in VARIANTS[name]:
        built = engine(name)(replace(REPLICAS[name], version=version, **changes))
        told |= {argument.partition("=")[0] for argument in built.args if argument.startswith("--")}
        if built.own_gate is not None:
            told.add("--gated-launch-port")
    assert len(told) > 12
    unknown = {flag for flag in told if flag not in known and flag.replace("--no-", "--", 1) not in known}
    assert not unknown
