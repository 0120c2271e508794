"""Which engine can be served under which mechanism, alone or beside others, on one GPU or several: the refusals.

What is not refused has a golden pod (`test_golden_pods`); each refusal names a field and what to write instead.
"""

from itertools import product
from typing import Any, Final

import pytest

from tests.unit.planning_world import decide, estimated, gpu, gpu_node, pool, profile, status_of, world
from vrampack.api.gpupool import Mechanism
from vrampack.engines.releases import RELEASES

ENGINES: Final = ("vllm", "sglang", "llamacpp", "tgi", "custom")
ONE_GPU: Final = ("MIG", "MPS")
"""Mechanisms under which a process has one device."""
SHOWS_A_PART: Final = ("HAMi", "HAMiCore", "MemoryLimits")
"""Mechanisms under which a process takes its share for the whole GPU."""


def expected(engine: str, by: str, gpus: int, sharing: str) -> str:
    """The field of the refusal; empty: it is served."""
    if engine == "tgi":
        if by in SHOWS_A_PART:
            return "spec.engine.name"
        if sharing == "Shared" and by != "MIG":
            return "spec.placement.sharing"
    return "spec.parallelism" if gpus > 1 and by in ONE_GPU else ""


def asked(engine: str, gpus: int, sharing: str) -> dict[str, Any]:
    # llama.cpp spreads whole layers over GPUs.
    split = "pipeline" if engine == "llamacpp" else "tensor"
    fields: dict[str, Any] = {"parallelism": {split: gpus}, "placement": {"sharing": sharing}}
    if engine == "custom":
        return fields | {"engine": {"name": "custom", "image": "x:1"}, "memory": {"perGPU": "20Gi"}}
    return fields | {"engine": {"name": engine, "version": RELEASES[engine].newest}}


@pytest.mark.parametrize("by", [each.value for each in Mechanism])
@pytest.mark.parametrize("engine", ENGINES)
def test_each_combination_is_served_or_refused_with_the_field_that_decides_it(engine: str, by: str) -> None:
    facts = {"file": "model-Q8_0.gguf", "precision": "gguf"} if engine == "llamacpp" else {}
    for gpus, sharing in product((1, 2), ("Shared", "Exclusive")):
        given = world(
            estimated(**asked(engine, gpus, sharing)),
            profiles=[profile(**facts)],
            pools=[pool("default", mechanism=by)],
            gpu_nodes=[gpu_node("n1", gpu("GPU-1"), gpu("GPU-2", index=1))],
        )
        [ready] = [each for each in status_of(decide(given))["conditions"] if each["type"] == "Ready"]
        field = expected(engine, by, gpus, sharing)
        if field:
            assert ready["reason"] == "InvalidSpec", (gpus, sharing, ready["message"])
            assert ready["message"].startswith(f"{field}: "), (gpus, sharing, ready["message"])
            assert "is not allowed; " in ready["message"]
        else:
            assert ready["reason"] != "InvalidSpec", (gpus, sharing, ready["message"])
