"""The whole pod of each engine under each mechanism, byte for byte as in golden/pods, with its claim in each style.

``UPDATE_GOLDEN=1 pytest tests/unit/test_golden_pods.py`` writes the files anew; read the difference before you commit
it. A style changes annotations and nothing else, so a file holds the pod once and the annotations of each style.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.unit.replicas import (
    LLAMA_8B,
    LLAMA_8B_NEED,
    QWEN_GGUF,
    QWEN_GGUF_NEED,
    QWEN_SGLANG,
    QWEN_SGLANG_NEED,
    QWEN_TGI,
    QWEN_TGI_NEED,
    TRITON,
    TRITON_NEED,
)
from vrampack.api import names
from vrampack.api.gpupool import InjectionStyle
from vrampack.api.gpupool import Mechanism as MechanismName
from vrampack.engines.base import EngineInput
from vrampack.engines.registry import ENGINES, engine
from vrampack.planning.claimpatch import pinned
from vrampack.planning.need import Need
from vrampack.planning.podtemplate import device_template_name, pod_template
from vrampack.sharing.base import Claimed, Request, Share
from vrampack.sharing.registry import MECHANISMS, mechanism
from vrampack.units import GIB

GOLDEN: Final = Path(__file__).parent / "golden" / "pods"
REPLICAS: Final[Mapping[str, tuple[EngineInput, Need]]] = {
    "vllm": (LLAMA_8B, LLAMA_8B_NEED),
    "sglang": (QWEN_SGLANG, QWEN_SGLANG_NEED),
    "llamacpp": (QWEN_GGUF, QWEN_GGUF_NEED),
    "tgi": (QWEN_TGI, QWEN_TGI_NEED),
    "custom": (TRITON, TRITON_NEED),
}
STYLES: Final = tuple(style for style in InjectionStyle if style is not InjectionStyle.AUTO)
HANDED_OVER_BY_OTHERS: Final = ("HAMi", "KAI", "DRA")
"""Mechanisms in which nobody reads the style."""
GPU: Final = "GPU-5a1b2c3d-0000-1111-2222-333344445555"
SLICE: Final = "MIG-7a9e3f10-6c5d-5b4a-8f21-0c1d2e3f4a5b"


def claimed_pod(given: EngineInput, need: Need, *, engine_name: str, by: str, style: InjectionStyle) -> dict[str, Any]:
    """The pod as it is once it has its GPU, and before it whatever else it refers to."""
    shares = mechanism(by)
    mutation = shares.mutation(Request(name=given.served_name, gpus=need.gpus, claim_bytes=need.bytes))
    template = pod_template(
        name=given.served_name,
        engine=engine(engine_name)(given),
        need=need,
        overlay={},
        runtime_class=None if style is InjectionStyle.NRI and by not in HANDED_OVER_BY_OTHERS else "nvidia",
        mutation=mutation,
    )
    share = Share(kv_cache=need.kv, runtime_context=need.context, communication=need.comm, fraction=need.fraction)
    gpus = [SLICE if shares.sliced else GPU]
    claim = Claimed(gpus=gpus, bytes=need.bytes, style=style, share=share, usable_bytes=79 * GIB)
    template["metadata"]["annotations"] |= shares.annotations(claim) | {names.EPOCH: "7"}
    del template["spec"]["schedulingGates"]
    template["spec"]["affinity"] = pinned(None, node="gpu-1")
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    if mutation.device_request is not None:
        name = device_template_name(given.served_name, mutation.device_request)
        pod["x-resource-claim-template"] = {"metadata": {"name": name}, **mutation.device_request}
    return pod


def styles_of(by: str) -> tuple[InjectionStyle, ...]:
    return (InjectionStyle.CDI_RUNTIME,) if by in HANDED_OVER_BY_OTHERS else STYLES


def written(engine_name: str, by: str) -> str:
    given, need = REPLICAS[engine_name]
    pods = {
        style.value: claimed_pod(given, need, engine_name=engine_name, by=by, style=style) for style in styles_of(by)
    }
    annotations = {style: pod["metadata"].pop("annotations") for style, pod in pods.items()}
    for style, pod in pods.items():
        # Nodes with NRI have no RuntimeClass, so a pool of them names none.
        if style == InjectionStyle.NRI and by not in HANDED_OVER_BY_OTHERS:
            assert "runtimeClassName" not in pod["spec"]
            pod["spec"]["runtimeClassName"] = "nvidia"
    (first, *others) = pods.values()
    assert all(other == first for other in others)
    return yaml.safe_dump({"pod": first, "annotations by style": annotations}, width=120)


@pytest.mark.parametrize("by", MECHANISMS)
@pytest.mark.parametrize("engine_name", REPLICAS)
def test_whole_pod(engine_name: str, by: str) -> None:
    path = GOLDEN / f"{engine_name}-{by.lower()}.yaml"
    found = written(engine_name, by)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found)
    assert path.read_text() == found


def test_every_engine_and_every_mechanism_has_one() -> None:
    assert REPLICAS.keys() == ENGINES.keys()
    assert MECHANISMS.keys() == {each.value for each in MechanismName}
    expected = {f"{name}-{by.lower()}.yaml" for name in ENGINES for by in MECHANISMS}
    assert {each.name for each in GOLDEN.iterdir()} == expected


@pytest.mark.parametrize("by", MECHANISMS)
def test_a_claim_is_annotations_that_the_template_lacks(by: str) -> None:
    given, need = REPLICAS["vllm"]
    pod = claimed_pod(given, need, engine_name="vllm", by=by, style=InjectionStyle.CDI_RUNTIME)
    missing = set(names.CLAIM_ANNOTATIONS) - pod["metadata"]["annotations"].keys()
    assert not missing


@pytest.mark.parametrize("by", HANDED_OVER_BY_OTHERS)
def test_where_others_hand_the_gpu_over_the_runtime_is_told_nothing(by: str) -> None:
    given, need = REPLICAS["vllm"]
    pod = claimed_pod(given, need, engine_name="vllm", by=by, style=InjectionStyle.CDI_RUNTIME)
    (container,) = pod["spec"]["containers"]
    told = {each["name"] for each in container["env"]}
    assert not told & {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_GPU_MEMORY_LIMIT"}
    assert "VRAMPACK_UTILIZATION" in told
