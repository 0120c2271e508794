"""The models: names on the wire, values with units, defaults, and what they refuse."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.integration.bad_objects import DEPLOYMENT, good_objects, merged, spec
from vrampack.api.common import Percentage, Quantity, wire_name
from vrampack.api.gpunode import GPUHealth, GPUNodeStatus, GPUStatus
from vrampack.api.gpupool import GPUPoolSpec
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modelprofile import WeightFiles
from vrampack.api.resources import RESOURCES
from vrampack.api.schema import definition

GIB = 2**30

GOOD_OBJECTS = tuple(good_objects())
RESOURCE_OF = {resource.kind: resource for resource in RESOURCES}


@pytest.mark.parametrize(
    ("attribute", "field"),
    [
        ("kv_cache", "kvCache"),
        ("per_gpu", "perGPU"),
        ("reserve_per_gpu", "reservePerGPU"),
        ("gpu_products", "gpuProducts"),
        ("gpus_per_replica", "gpusPerReplica"),
        ("pod_uid", "podUID"),
        ("uuid", "uuid"),
    ],
)
def test_names_on_the_wire(attribute: str, field: str) -> None:
    assert wire_name(attribute) == field


def test_a_quantity_knows_its_bytes_and_keeps_its_form() -> None:
    files = WeightFiles.model_validate({"bytes": 16060522496, "embeddingBytes": "2Gi"})
    assert files.bytes.bytes == 16060522496
    assert files.embedding_bytes.bytes == 2 * GIB
    assert files.wire() == {
        "bytes": "16060522496",
        "byDtype": {},
        "embeddingBytes": "2Gi",
        "replicatedBytes": "0",
    }
    assert Quantity.of(26583 * 2**20) == "26583Mi"


def test_a_percentage_knows_its_number() -> None:
    assert GPUPoolSpec().headroom.percent == 3.0
    assert GPUPoolSpec(headroom=Percentage("2.5%")).headroom.percent == 2.5


@pytest.mark.parametrize("manifest", GOOD_OBJECTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_a_good_object_survives_the_way_in_and_out(manifest: dict[str, Any]) -> None:
    model = RESOURCE_OF[manifest["kind"]].spec
    read = model.model_validate(manifest.get("spec", {}))
    assert model.model_validate(read.wire()) == read
    assert_kept(manifest.get("spec", {}), read.wire())


def assert_kept(given: Any, kept: Any) -> None:
    """Everything that was written is still there; only a quantity may have become a text."""
    if isinstance(given, dict):
        for key, value in given.items():
            assert_kept(value, kept[key])
    elif isinstance(given, list):
        assert len(given) == len(kept)
        for before, after in zip(given, kept, strict=True):
            assert_kept(before, after)
    else:
        assert given == kept or str(given) == kept


@pytest.mark.parametrize("manifest", GOOD_OBJECTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_the_models_default_what_the_api_server_defaults(manifest: dict[str, Any]) -> None:
    resource = RESOURCE_OF[manifest["kind"]]
    schema = definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    completed = defaulted(manifest.get("spec", {}), schema["properties"]["spec"])
    assert resource.spec.model_validate(completed) == resource.spec.model_validate(manifest.get("spec", {}))


def defaulted(value: Any, schema: dict[str, Any]) -> Any:
    """As the API server fills in defaults."""
    if isinstance(value, list):
        return [defaulted(each, schema["items"]) for each in value]
    if not isinstance(value, dict):
        return value
    completed = dict(value)
    for name, field in schema.get("properties", {}).items():
        if name not in completed and "default" in field:
            completed[name] = field["default"]
        if name in completed:
            completed[name] = defaulted(completed[name], field)
    return completed


def test_defaults() -> None:
    read = ModelDeploymentSpec.model_validate(DEPLOYMENT["spec"]).wire()
    assert read == {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct", "file": "", "revision": ""},
        "precision": {"weights": "Auto", "kvCache": "Auto", "onMismatch": "Stall"},
        "serving": {"contextLength": 8192, "concurrency": 16},
        "engine": {
            "name": "vllm",
            "version": "0.33.0",
            "args": [],
            "maxBatchedTokens": 8192,
            "cudaGraphs": "Auto",
            "prefixCaching": "Auto",
            "imagesPerPrompt": 1,
        },
        "parallelism": {"tensor": 1, "pipeline": 1, "data": 1, "expert": False, "decodeContext": 1},
        "replicas": 1,
        "memory": {},
        "placement": {
            "pool": "default",
            "gpuProducts": [],
            "sharing": "Shared",
            "spread": "Prefer",
            "avoidModels": [],
        },
        "rollout": "Auto",
        "service": {"port": 8000},
        "podTemplate": {},
    }


@pytest.mark.parametrize(
    ("patch", "path", "says"),
    [
        (spec(model={"source": "llama"}), ("model", "source"), "write hf://ORG/NAME"),
        (spec(serving={"concurrency": 0}), ("serving", "concurrency"), "greater than or equal to 1"),
        (spec(serving={"contextLength": None}), ("serving", "contextLength"), "required"),
        (spec(memory={"perGPU": "20 GiB"}), ("memory", "perGPU"), "20 GiB"),
        (spec(memory={"perGPU": "20"}), ("memory", "perGPU"), "at least 64Mi"),
        (spec(memory={"perGPU": "-1Gi"}), ("memory", "perGPU"), "negative"),
        (spec(memory={"headroom": "3"}), ("memory", "headroom"), "such as 3%"),
        (spec(precision={"weights": "bfloat16"}), ("precision", "weights"), "'bf16'"),
        (spec(placement={"gpuProducts": ["L 40"]}), ("placement", "gpuProducts", 0), "nvidia.com/gpu.product"),
    ],
)
def test_a_bad_value_is_named_with_its_path(patch: dict[str, Any], path: tuple[str, ...], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ModelDeploymentSpec.model_validate(merged(DEPLOYMENT, patch)["spec"])
    (error,) = refused.value.errors()
    assert error["loc"] == path
    assert says in error["msg"]


def test_a_field_of_a_newer_version_is_ignored() -> None:
    manifest = merged(DEPLOYMENT, spec(serving={"tomorrow": 1}))
    assert ModelDeploymentSpec.model_validate(manifest.get("spec", {})) == ModelDeploymentSpec.model_validate(
        DEPLOYMENT["spec"]
    )


def test_two_writers_of_a_gpu_write_only_their_own_fields() -> None:
    agent = GPUNodeStatus(gpus=(GPUStatus(uuid="GPU-1", index=0, health=GPUHealth.HEALTHY),))
    operator = GPUNodeStatus(gpus=(GPUStatus(uuid="GPU-1", claimed=Quantity.of(GIB), claims=()),))
    assert agent.wire() == {"gpus": [{"uuid": "GPU-1", "index": 0, "health": "Healthy"}]}
    assert operator.wire() == {"gpus": [{"uuid": "GPU-1", "claimed": "1Gi", "claims": []}]}
