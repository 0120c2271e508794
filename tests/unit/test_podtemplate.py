"""The pod template as a whole: byte for byte as in golden/, and what an overlay can and can't do to it."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.replicas import (
    FROM_CLAIM,
    LLAMA_8B,
    LLAMA_8B_NEED,
    LLAMA_70B,
    LLAMA_70B_NEED,
    OVERLAY,
    QWEN_SGLANG,
    QWEN_SGLANG_NEED,
    TRITON,
    TRITON_NEED,
)
from vrampack.engines import custom, sglang, vllm
from vrampack.engines.base import EngineContainer
from vrampack.engines.startgate import StartGate
from vrampack.errors import InvalidInputError
from vrampack.planning.need import Need
from vrampack.planning.podtemplate import pod_template, template_hash

GOLDEN = Path(__file__).parent / "golden"


def render(
    *,
    name: str = "llama-8b",
    engine: EngineContainer | None = None,
    need: Need = LLAMA_8B_NEED,
    overlay: dict[str, Any] | None = None,
    runtime_class: str | None = "nvidia",
    **others: Any,
) -> dict[str, Any]:
    return pod_template(
        name=name,
        engine=engine or vllm.container(LLAMA_8B),
        need=need,
        overlay=overlay or {},
        runtime_class=runtime_class,
        **others,
    )


def engine_of(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in template["spec"]["containers"] if each["name"] == "engine")
    return found


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


TEMPLATES = {
    "vllm": render(),
    "vllm-from-claim": render(engine=vllm.container(FROM_CLAIM), runtime_class=None),
    "vllm-tensor-parallel-with-overlay": render(
        name="llama-70b",
        engine=vllm.container(LLAMA_70B),
        need=LLAMA_70B_NEED,
        overlay=OVERLAY,
        priority_class="serving",
        unreachable_seconds=30,
    ),
    "vllm-waiting-its-turn": render(gate=StartGate(port=9468)),
    "sglang-waiting-at-its-own-gate": render(
        name="qwen", engine=sglang.container(QWEN_SGLANG), need=QWEN_SGLANG_NEED, gate=StartGate(port=9468)
    ),
    "custom": render(name="whisper", engine=custom.container(TRITON), need=TRITON_NEED),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_whole_template(name: str) -> None:
    """``UPDATE_GOLDEN=1`` writes the files anew; read the difference before you commit it."""
    written = yaml.safe_dump(TEMPLATES[name], width=120)
    path = GOLDEN / f"podtemplate-{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(written)
    assert path.read_text() == written


def test_hash_is_of_what_the_template_means() -> None:
    milli = {"spec": {"containers": [{"name": "engine", "resources": {"requests": {"cpu": "4000m"}}}]}}
    plain = {"spec": {"containers": [{"resources": {"requests": {"cpu": 4}}, "name": "engine"}]}}
    assert template_hash(render(overlay=milli)) == template_hash(render(overlay=plain))
    assert template_hash(render(overlay=milli)) != template_hash(render())
    assert template_hash(render(need=TRITON_NEED)) != template_hash(render())


def test_the_overlay_is_not_changed_and_rendering_twice_is_the_same() -> None:
    before = yaml.safe_dump(OVERLAY)
    assert render(overlay=OVERLAY) == render(overlay=OVERLAY)
    assert yaml.safe_dump(OVERLAY) == before


def test_what_is_ours_survives_whatever_the_overlay_replaces() -> None:
    template = render(
        overlay={
            "metadata": {"labels": {"$patch": "replace", "a": "b"}, "annotations": {"$patch": "delete"}},
            "spec": {
                "schedulingGates": [{"$patch": "replace"}, {"name": "example.com/quota"}],
                "containers": [{"name": "engine", "env": [{"$patch": "replace"}, {"name": "A", "value": "1"}]}],
            },
        }
    )
    assert template["metadata"]["labels"] == {
        "a": "b",
        "app.kubernetes.io/managed-by": "vrampack",
        "vrampack.dev/model-deployment": "llama-8b",
    }
    assert list(template["metadata"]["annotations"]) == ["vrampack.dev/need"]
    assert template["spec"]["schedulingGates"] == [{"name": "vrampack.dev/placement"}, {"name": "example.com/quota"}]
    found = variables(engine_of(template))
    assert found["A"] == "1"
    assert (
        found["NVIDIA_VISIBLE_DEVICES"]["fieldRef"]["fieldPath"]
        == "metadata.annotations['vrampack.dev/visible-devices']"
    )
    assert "HF_HOME" not in found  # ours as a default only: the overlay has replaced the list


def test_every_other_container_sees_no_gpu() -> None:
    template = render(
        overlay={
            "spec": {
                "initContainers": [{"name": "fetch", "image": "cuda:13"}],
                "containers": [{"name": "sidecar", "image": "cuda:13", "env": [{"name": "A", "value": "1"}]}],
            }
        }
    )
    (fetch,) = template["spec"]["initContainers"]
    (sidecar,) = (each for each in template["spec"]["containers"] if each["name"] == "sidecar")
    assert fetch["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    assert sidecar["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}, {"name": "A", "value": "1"}]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], ["nvidia.com/gpu", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]),
        ([{"operator": "Exists"}], []),
        (
            [{"key": "nvidia.com/gpu", "operator": "Equal", "value": "a100", "effect": "NoSchedule"}],
            ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"],
        ),
        (
            [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}],
            ["nvidia.com/gpu", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"],
        ),
    ],
)
def test_default_tolerations_only_where_the_user_says_nothing(given: list[dict[str, Any]], added: list[str]) -> None:
    tolerations = render(overlay={"spec": {"tolerations": given}})["spec"]["tolerations"]
    assert tolerations[: len(given)] == given
    assert [each["key"] for each in tolerations[len(given) :]] == added


def engine_with(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


TERMS = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"


def terms(found: Any) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": found}}
    return {"affinity": {"nodeAffinity": required}}


REFUSED = {
    "nodeName": ({"spec": {"nodeName": "n1"}}, "spec.nodeName"),
    "schedulerName": ({"spec": {"schedulerName": "mine"}}, "spec.schedulerName"),
    "hostNetwork": ({"spec": {"hostNetwork": True}}, "spec.hostNetwork"),
    "runtimeClassName": ({"spec": {"runtimeClassName": "runc"}}, "spec.runtimeClassName"),
    "priorityClassName": ({"spec": {"priorityClassName": "high"}}, "spec.priorityClassName"),
    "our gate": ({"spec": {"schedulingGates": [{"name": "vrampack.dev/placement"}]}}, "spec.schedulingGates[0].name"),
    "our gate, removed": (
        {"spec": {"schedulingGates": [{"name": "vrampack.dev/placement", "$patch": "delete"}]}},
        "spec.schedulingGates[0].name",
    ),
    "our label": (
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}},
        "metadata.labels[app.kubernetes.io/managed-by]",
    ),
    "our annotation": (
        {"metadata": {"annotations": {"vrampack.dev/claim": "1"}}},
        "metadata.annotations[vrampack.dev/claim]",
    ),
    "devices by annotation": (
        {"metadata": {"annotations": {"nvidia.cdi.k8s.io/pod": "GPU-1"}}},
        "metadata.annotations[nvidia.cdi.k8s.io/pod]",
    ),
    "a name for the pods": ({"metadata": {"name": "x"}}, "metadata.name"),
    "a label that is no text": ({"metadata": {"labels": {"tier": 1}}}, "metadata.labels[tier]"),
    "another part of the template": ({"status": {}}, "status"),
    "visible devices": (
        engine_with(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]),
        "spec.containers[0].env[0].name",
    ),
    "CUDA's visible devices": (
        engine_with(env=[{"name": "A", "value": ""}, {"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]),
        "spec.containers[0].env[1].name",
    ),
    "our variables, in a sidecar": (
        {"spec": {"initContainers": [{"name": "i", "env": [{"name": "VRAMPACK_GPUS", "value": "x"}]}]}},
        "spec.initContainers[0].env[0].name",
    ),
    "a GPU request": (
        engine_with(resources={"limits": {"nvidia.com/gpu": 1}}),
        "spec.containers[0].resources.limits[nvidia.com/gpu]",
    ),
    "a GPU request of the pod": (
        {"spec": {"resources": {"requests": {"nvidia.com/mig-1g.5gb": 1}}}},
        "spec.resources.requests[nvidia.com/mig-1g.5gb]",
    ),
    "privileges": (
        engine_with(securityContext={"privileged": True}),
        "spec.containers[0].securityContext.privileged",
    ),
    "the engine's command": (engine_with(command=["sh"]), "spec.containers[0].command"),
    "the engine's arguments": (engine_with(args=[]), "spec.containers[0].args"),
    "the engine, replaced": (engine_with(**{"$patch": "replace"}), "spec.containers[0].$patch"),
    "the spec, replaced": ({"spec": {"$patch": "replace"}}, "spec.$patch"),
    "all containers, replaced": (
        {"spec": {"containers": [{"$patch": "replace"}, {"name": "other"}]}},
        "spec.containers",
    ),
    "no containers": ({"spec": {"containers": None}}, "spec.containers"),
    "an amount that is none": (
        engine_with(resources={"requests": {"cpu": "many"}}),
        "spec.containers[0].resources.requests.cpu",
    ),
    "an amount below nothing": (
        engine_with(resources={"requests": {"memory": "-1Gi"}}),
        "spec.containers[0].resources.requests.memory",
    ),
    "levels without end": ({"spec": {"x": deep(70)}}, "spec.x" + 63 * ".a"),
}


SIDECAR = {"name": "sidecar", "image": "metrics:1"}


@pytest.mark.parametrize(
    ("spec", "field", "allowed"),
    [
        ({"containers": "none"}, "containers", "a list"),
        ({"initContainers": {"name": "new"}}, "initContainers", "a list"),
        ({"containers": [{"name": 5}]}, "containers[0].name", "a text"),
        ({"containers": [{"name": True}]}, "containers[0].name", "a text"),
        ({"containers": [SIDECAR | {"resources": []}]}, "containers[0].resources", "a map"),
        ({"containers": [SIDECAR | {"resources": {"requests": 4}}]}, "containers[0].resources.requests", "a map"),
        (
            {"containers": [SIDECAR | {"resources": {"requests": {"cpu": [1]}}}]},
            "containers[0].resources.requests.cpu",
            "a quantity",
        ),
        ({"containers": [{"name": "engine", "env": [{"name": 5}]}]}, "containers[0].env[0].name", "a text"),
        (
            {"containers": [{"name": "engine", "env": [{"name": "A", "value": 5}]}]},
            "containers[0].env[0].value",
            "in quotes",
        ),
        (
            {"containers": [{"name": "engine", "ports": [{"containerPort": "9"}]}]},
            "containers[0].ports[0].containerPort",
            "a whole number",
        ),
        ({"volumes": [{"name": "v", "emptyDir": "x"}]}, "volumes[0].emptyDir", "a map"),
        ({"nodeSelector": "zone"}, "nodeSelector", "a map"),
        ({"nodeSelector": {"zone": 1}}, "nodeSelector.zone", "in quotes"),
        ({"tolerations": {}}, "tolerations", "a list"),
        ({"tolerations": ["all"]}, "tolerations[0]", "a map"),
        ({"tolerations": [None]}, "tolerations[0]", "leave the element out"),
        ({"tolerations": [{"key": 1}]}, "tolerations[0].key", "a text"),
        ({"affinity": []}, "affinity", "a map"),
        ({"affinity": {"nodeAffinity": "gpu"}}, "affinity.nodeAffinity", "a map"),
        (terms({"key": "zone"}), TERMS, "a list"),
        (terms(["zone"]), f"{TERMS}[0]", "a map"),
        (terms([{"matchExpressions": {}}]), f"{TERMS}[0].matchExpressions", "a list"),
        (
            terms([{"matchExpressions": [{"key": "zone", "values": "a"}]}]),
            f"{TERMS}[0].matchExpressions[0].values",
            "a list",
        ),
    ],
)
def test_a_field_of_another_shape_is_refused_where_it_stands(spec: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        render(overlay={"spec": spec})
    assert refused.value.field == f"spec.podTemplate.spec.{field}"
    assert allowed in refused.value.allowed


@pytest.mark.parametrize(
    "overlay",
    [
        pytest.param({"metadata": {"labels": {"env": "prod", "ports": "many"}}}, id="labels named as lists of a pod"),
        pytest.param({"spec": {"nodeSelector": {"resources": "large"}}}, id="a selector named as a map of a pod"),
        pytest.param({"spec": {"newField": [{"any": {"shape": [1]}}]}}, id="what a newer Kubernetes has"),
        pytest.param({"spec": {"nodeSelector": None, "affinity": {"podAffinity": None}}}, id="null removes"),
    ],
)
def test_shapes_that_are_right(overlay: dict[str, Any]) -> None:
    assert render(overlay=overlay)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    overlay, field = REFUSED[case]
    with pytest.raises(InvalidInputError) as refused:
        render(overlay=overlay)
    assert refused.value.field == f"spec.podTemplate.{field}"


def test_a_custom_engine_may_have_a_command_and_has_its_arguments_elsewhere() -> None:
    engine = custom.container(TRITON)
    template = render(engine=engine, overlay=engine_with(command=["python3", "serve.py"]))
    assert engine_of(template)["command"] == ["python3", "serve.py"]
    assert engine_of(template)["args"] == ["--fast"]
    with pytest.raises(InvalidInputError, match=r"spec\.engine\.args"):
        render(engine=engine, overlay=engine_with(args=["-v"]))
