"""The overlay against the rules it claims to follow, and against kubectl, which has them from Kubernetes itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.errors import InvalidInputError
from vrampack.planning.overlay import MERGE_KEYS, merge

BASE: dict[str, Any] = {
    "metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}},
    "spec": {
        "nodeSelector": {"zone": "a", "disk": "ssd"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "one"}],
        "securityContext": {"fsGroup": 1, "supplementalGroups": [1, 2]},
        "containers": [
            {
                "name": "engine",
                "image": "vllm:1",
                "args": ["--a", "--b"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
                "ports": [{"containerPort": 8000, "name": "http"}],
                "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                "resources": {"requests": {"cpu": "2", "memory": "4Gi"}},
                "startupProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 5},
            },
            {"name": "sidecar", "image": "metrics:1"},
        ],
        "volumes": [{"name": "cache", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}],
    },
}


def engine(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


OVERLAYS: dict[str, dict[str, Any]] = {
    "maps are merged": {"metadata": {"labels": {"b": "x", "d": "4"}}, "spec": {"nodeSelector": {"gpu": "h100"}}},
    "null removes": {"spec": {"nodeSelector": {"zone": None}, "imagePullSecrets": None, "unknown": None}},
    "null inside what is new": engine(lifecycle={"preStop": {"exec": {"command": ["x"]}, "httpGet": None}}),
    "lists without a merge key are replaced": {
        "spec": {"tolerations": [{"operator": "Exists"}], "securityContext": {"supplementalGroups": [3]}}
    },
    "elements are merged by name": engine(image="vllm:2", args=["--c"], env=[{"name": "B", "value": "x"}]),
    "a variable changes its kind": engine(
        env=[{"name": "B", "value": None, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    ),
    "new elements": {
        "spec": {
            "imagePullSecrets": [{"name": "two"}],
            "initContainers": [{"name": "fetch", "image": "fetch:1", "env": [{"name": "A", "value": "1"}]}],
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hub"]}],
            "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}],
        }
    },
    "elements are removed": {
        "spec": {
            "containers": [
                {"name": "sidecar", "$patch": "delete"},
                {"name": "engine", "env": [{"name": "A", "$patch": "delete"}, {"name": "Z", "$patch": "delete"}]},
            ]
        }
    },
    "ports by their number, mounts by their path": engine(
        ports=[{"containerPort": 8000, "name": "api"}, {"containerPort": 9000, "name": "metrics"}],
        volumeMounts=[{"mountPath": "/cache", "name": "shm"}, {"mountPath": "/data", "name": "cache"}],
    ),
    "a list is replaced by a directive": engine(env=[{"$patch": "replace"}, {"name": "Z", "value": "9"}]),
    "a map is replaced by a directive": engine(
        resources={"$patch": "replace", "limits": {"cpu": "1"}}, startupProbe={"$patch": "delete"}
    ),
    "deep maps are merged": engine(
        resources={"requests": {"cpu": "4"}, "limits": {"memory": "8Gi"}}, startupProbe={"failureThreshold": 3}
    ),
}


def kubectl() -> str | None:
    beside = Path(sys.executable).parent / "kubectl"
    return str(beside) if beside.exists() else shutil.which("kubectl")


@pytest.mark.skipif(kubectl() is None, reason="kubectl is not installed")
@pytest.mark.parametrize("case", OVERLAYS)
def test_same_as_kubectl(case: str, tmp_path: Path) -> None:
    head = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}}
    file = tmp_path / "template.json"
    file.write_text(json.dumps(head | {"template": BASE}))
    patch = json.dumps({"template": OVERLAYS[case]})
    command = [kubectl(), "patch", "--local", "--type=strategic", "-f", str(file), "-p", patch, "-o", "json"]
    answer = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    assert ordered(merge(BASE, OVERLAYS[case], path="t")) == ordered(json.loads(answer.stdout)["template"])


def ordered(value: Any, name: str = "") -> Any:
    """Merged lists by their merge key: kubectl puts what the patch names first, we keep what there was in its place.

    What kubectl adds when it reads a template (creationTimestamp, an empty resources) is left out.
    """
    if isinstance(value, dict):
        return {
            key: ordered(each, key)
            for key, each in value.items()
            if key != "creationTimestamp" and not (key in ("resources", "status") and not each)
        }
    if isinstance(value, list):
        elements = [ordered(each) for each in value]
        return sorted(elements, key=lambda each: str(each[MERGE_KEYS[name]])) if name in MERGE_KEYS else elements
    return value


def test_what_there_was_stays_in_its_place() -> None:
    overlay = engine(env=[{"name": "Z", "value": "$(A)"}, {"name": "B", "value": "x"}])
    env = merge(BASE, overlay, path="t")["spec"]["containers"][0]["env"]
    assert [(each["name"], each["value"]) for each in env] == [("A", "1"), ("B", "x"), ("C", "3"), ("Z", "$(A)")]


def test_a_volume_of_another_kind_is_no_longer_of_the_first() -> None:
    overlay = {"spec": {"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "hub"}}]}}
    volumes = merge(BASE, overlay, path="t")["spec"]["volumes"]
    assert volumes[0] == {"name": "cache", "persistentVolumeClaim": {"claimName": "hub"}}
    grown = {"spec": {"volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "1Gi"}}]}}
    assert merge(BASE, grown, path="t")["spec"]["volumes"][1]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}


@pytest.mark.parametrize(
    ("overlay", "field"),
    [
        ({"spec": []}, "t.spec"),
        ({"metadata": {"labels": {"a": {"b": "c"}}}}, "t.metadata.labels.a"),
        ({"spec": {"containers": {"name": "engine"}}}, "t.spec.containers"),
        ({"spec": {"containers": [{"image": "x"}]}}, "t.spec.containers[0].name"),
        ({"spec": {"containers": ["engine"]}}, "t.spec.containers[0]"),
        ({"spec": {"volumes": [{"name": "cache", "$patch": "merge"}]}}, "t.spec.volumes[0].$patch"),
        ({"spec": {"volumes": [{"name": "cache", "$patch": "replace"}]}}, "t.spec.volumes[0].$patch"),
        ({"spec": {"$setElementOrder/containers": []}}, "t.spec.$setElementOrder/containers"),
        (engine(env=[{"name": "A"}, {"value": "1"}]), "t.spec.containers[0].env[1].name"),
        (
            {"spec": {"tolerations": [{"$deleteFromPrimitiveList/x": []}]}},
            "t.spec.tolerations[0].$deleteFromPrimitiveList/x",
        ),
    ],
)
def test_what_kubernetes_would_silently_misread_is_refused(overlay: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        merge(BASE, overlay, path="t")
    assert refused.value.field == field


names = st.sampled_from(["a", "b", "c"])
scalars = st.one_of(st.booleans(), st.integers(0, 9), st.sampled_from(["", "x", "y"]))


def named(fields: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    elements = st.builds(lambda name, rest: rest | {"name": name}, names, fields)
    return st.lists(elements, max_size=3, unique_by=lambda each: each["name"])


variables = named(st.fixed_dictionaries({}, optional={"value": scalars}))
containers = named(
    st.fixed_dictionaries({}, optional={"image": scalars, "env": variables, "args": st.lists(scalars, max_size=2)})
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "containers": containers,
        "nodeSelector": st.dictionaries(names, st.sampled_from(["x", "y"]), max_size=2),
        "tolerations": st.lists(st.fixed_dictionaries({"key": names}), max_size=2),
        "replicas": st.integers(0, 9),
    },
)


@given(base=specs, overlay=specs)
def test_laid_on_twice_is_laid_on_once(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    before = json.dumps([base, overlay])
    once = merge(base, overlay, path="t")
    assert merge(once, overlay, path="t") == once
    assert json.dumps([base, overlay]) == before


@given(base=specs, overlay=specs)
def test_nothing_is_lost_and_the_overlay_wins(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    merged = merge(base, overlay, path="t")
    assert merge(base, {}, path="t") == base
    assert merge({}, overlay, path="t") == overlay
    assert merged.keys() == base.keys() | overlay.keys()
    for name, value in overlay.get("nodeSelector", {}).items():
        assert merged["nodeSelector"][name] == value
    assert merged.get("tolerations") == overlay.get("tolerations", base.get("tolerations"))
    found = [each["name"] for each in merged.get("containers", [])]
    kept = [each["name"] for each in base.get("containers", [])]
    assert found[: len(kept)] == kept
    assert set(found) == {*kept, *(each["name"] for each in overlay.get("containers", []))}


@given(base=specs, overlay=specs)
def test_deleting_every_container_leaves_none(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    merged = merge(base, overlay, path="t")
    deleted = [{"name": each["name"], "$patch": "delete"} for each in merged.get("containers", [])]
    assert merge(merged, {"containers": deleted}, path="t").get("containers", []) == []
