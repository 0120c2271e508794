"""Replicas that several tests start from: real models with round figures."""

from dataclasses import replace
from typing import Any

from tests.unit.known_models import QWEN3_8B
from vrampack.engines.base import Budget, ClaimModel, EngineInput, HubModel, SecretKey
from vrampack.memory import llamacpppool, sglang, tgi
from vrampack.memory.workload import Workload
from vrampack.planning.need import Need
from vrampack.units import GIB, MIB

LLAMA_8B = EngineInput(
    model=HubModel(repository="meta-llama/Llama-3.1-8B-Instruct", commit="0e9e39f249a16976918f6564b8830bc894c89659"),
    served_name="llama-8b",
    context_length=8192,
    concurrency=16,
    max_batched_tokens=8192,
    weights_precision="bf16",
    checkpoint_precision="bf16",
    checkpoint_dtype="bfloat16",
    kv_cache_precision="bf16",
    version="0.33.0",
    image=None,
    port=8000,
    weight_bytes=16_060_522_240,
    host_memory=10 * GIB,
    shared_memory=1 * GIB,
)
LLAMA_8B_NEED = Need(gpus=1, bytes=26583 * MIB, kv=8 * GIB + 2 * MIB, context=861 * MIB, comm=0)

LLAMA_70B = replace(
    LLAMA_8B,
    model=HubModel(repository="meta-llama/Llama-3.3-70B-Instruct", commit="6f6073b423013f6a7d4d9f39144961bfbfbc386b"),
    served_name="llama-70b",
    tensor=4,
    weight_bytes=141_107_412_992,
    host_memory=28 * GIB,
    shared_memory=4 * GIB,
    prefix_caching=True,
    token=SecretKey(name="hf-token", key="token"),
    hub_endpoint="https://hub.example.com",
    args=("--enable-auto-tool-choice", "--tool-call-parser", "llama3_json"),
)
LLAMA_70B_NEED = Need(gpus=4, bytes=48_128 * MIB, kv=10 * GIB, context=861 * MIB, comm=604 * MIB)

FROM_CLAIM = replace(LLAMA_8B, model=ClaimModel(claim="models", path="llama/8b/"))

TRITON = replace(LLAMA_8B, served_name="whisper", image="registry.example.com/whisper:2.1", args=("--fast",))
TRITON_NEED = Need(gpus=1, bytes=6 * GIB, kv=0, context=0, comm=0)

OVERLAY: dict[str, Any] = {
    "metadata": {"labels": {"team": "search"}, "annotations": {"prometheus.io/scrape": "true"}},
    "spec": {
        "nodeSelector": {"zone": "a"},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "gpu-generation", "operator": "In", "values": ["hopper"]}]}
                    ]
                }
            }
        },
        "tolerations": [
            {"key": "dedicated", "operator": "Equal", "value": "llm", "effect": "NoSchedule"},
            {
                "key": "node.kubernetes.io/unreachable",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 600,
            },
        ],
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "hub-cache"}}],
        "containers": [
            {
                "name": "engine",
                "env": [{"name": "NCCL_DEBUG", "value": "WARN"}, {"name": "VLLM_NO_USAGE_STATS", "value": "0"}],
                "resources": {"requests": {"cpu": 12, "memory": "65536Mi"}, "limits": {"memory": "0.125Ti"}},
                "readinessProbe": {"failureThreshold": 6},
            },
            {"name": "metrics", "image": "registry.example.com/metrics:1", "resources": {"limits": {"cpu": "0.25"}}},
        ],
    },
}

_QWEN_WORK = Workload(
    context_length=8192,
    concurrency=8,
    tokens_per_sequence=4096,
    max_batched_tokens=2048,
    engine="llamacpp",
    engine_version="b7917",
)
QWEN_GGUF = replace(
    LLAMA_8B,
    model=HubModel(repository="Qwen/Qwen3-8B-GGUF", commit="7c41481f57cb95916b40956ab2f0b139b296d974"),
    file="Qwen3-8B-Q4_K_M.gguf",
    served_name="qwen",
    context_length=8192,
    concurrency=8,
    max_batched_tokens=2048,
    weights_precision="gguf",
    checkpoint_precision="gguf",
    version="b7917",
    weight_bytes=5_027_783_488,
    architecture=QWEN3_8B,
    workload=_QWEN_WORK,
    budget=Budget(
        weights=4700 * MIB,
        kv_cache=llamacpppool.claim(QWEN3_8B, _QWEN_WORK).bytes,
        working=700 * MIB,
        claim=11_264 * MIB,
        slack=640 * MIB,
    ),
)
QWEN_GGUF_FROM_CLAIM = replace(QWEN_GGUF, model=ClaimModel(claim="models", path="qwen"))
QWEN_GGUF_NEED = Need(gpus=1, bytes=11_264 * MIB, kv=4608 * MIB, context=861 * MIB, comm=0)

_QWEN_ON_TORCH = replace(_QWEN_WORK, engine="sglang", engine_version="0.5.23", max_batched_tokens=4096)
_SGLANG_BUDGET = Budget(
    weights=15_744 * MIB,
    kv_cache=sglang.claim(QWEN3_8B, _QWEN_ON_TORCH).bytes,
    working=1024 * MIB,
    claim=23_552 * MIB,
    slack=1024 * MIB,
)
QWEN_SGLANG = replace(
    QWEN_GGUF,
    model=HubModel(repository="Qwen/Qwen3-8B", commit="b968826d9c46dd6066d109eabc6255188de91218"),
    file="",
    weights_precision="bf16",
    checkpoint_precision="bf16",
    version="0.5.23",
    max_batched_tokens=4096,
    weight_bytes=16_381_470_720,
    workload=_QWEN_ON_TORCH,
    budget=_SGLANG_BUDGET,
)
QWEN_SGLANG_NEED = Need(gpus=1, bytes=23_552 * MIB, kv=4608 * MIB, context=861 * MIB, comm=0)

_QWEN_ON_TGI = replace(_QWEN_ON_TORCH, engine="tgi", engine_version="3.3.6")
QWEN_TGI = replace(
    QWEN_SGLANG,
    version="3.3.6",
    workload=_QWEN_ON_TGI,
    budget=replace(_SGLANG_BUDGET, kv_cache=tgi.claim(QWEN3_8B, _QWEN_ON_TGI).bytes),
)
QWEN_TGI_NEED = replace(QWEN_SGLANG_NEED, fraction=23_552 * MIB, exclusive=True)
