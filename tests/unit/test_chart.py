"""What the chart renders, without a cluster."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vrampack.api import names
from vrampack.localcluster.assets import Assets

ALL_ON = (
    "metrics.serviceMonitor.enabled=true",
    "metrics.prometheusRule.enabled=true",
    "networkPolicy.enabled=true",
    "hubTokens.namespaces={serving,research}",
    "hub.endpoint=https://hub.example.com",
    "image.digest=sha256:" + "a" * 64,
)

Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def chart(repo_root: Path) -> Path:
    return repo_root / "charts/vrampack"


@pytest.fixture
def helm(assets: Assets, chart: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*values: str) -> subprocess.CompletedProcess[str]:
        command = [assets.helm, "template", "vrampack", chart, "--namespace=vrampack-system"]
        return subprocess.run(
            [*command, *(f"--set={value}" for value in values)], capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    def rendered(*values: str) -> list[dict[str, Any]]:
        done = helm(*values)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return rendered


def one(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (document,) = (found for found in documents if (found["kind"], found["metadata"]["name"]) == (kind, name))
    return document


def test_the_chart_brings_the_same_resource_kinds(repo_root: Path, chart: Path) -> None:
    def content(folder: Path) -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.yaml")}

    assert content(chart / "crds") == content(repo_root / "crds"), "make crds copies them"


def test_the_schema_knows_every_value(chart: Path) -> None:
    def check(path: str, schema: dict[str, Any], value: Any) -> None:
        if "properties" not in schema:
            return
        assert schema["additionalProperties"] is False, path
        assert schema["properties"].keys() - {"global"} == value.keys(), path
        for key, inner in value.items():
            check(f"{path}.{key}", schema["properties"][key], inner)

    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    check("values", schema, yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("operator.replica=1", "at '/operator': additional properties 'replica' not allowed"),
        ("operator.replicas=-1", "at '/operator/replicas'"),
        ("operator.logLevel=loud", "at '/operator/logLevel'"),
        ("hub.endpoint=hub.example.com", "at '/hub/endpoint'"),
        ("hubTokens.namespaces={Serving}", "at '/hubTokens/namespaces/0'"),
        ("image.digest=latest", "at '/image/digest'"),
    ],
)
def test_bad_values_are_refused(
    helm: Callable[..., subprocess.CompletedProcess[str]], value: str, complaint: str
) -> None:
    done = helm(value)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_by_default_agents_are_made_and_nothing_optional(render: Render) -> None:
    kinds = {document["kind"] for document in render()}
    assert not kinds & {"ServiceMonitor", "PrometheusRule", "NetworkPolicy"}
    assert [document["metadata"]["name"] for document in render() if document["kind"] == "DaemonSet"] == [
        "vrampack-agent"
    ]
    assert "DaemonSet" not in {document["kind"] for document in render("agent.enabled=false")}
    assert not [d for d in render() if d["kind"] == "Role" and "secrets" in json.dumps(d["rules"])]


def test_with_everything_on_each_object_is_there_once(render: Render) -> None:
    documents = render(*ALL_ON)
    keys = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
    assert len(set(keys)) == len(keys)
    assert {"DaemonSet", "ServiceMonitor", "PrometheusRule", "NetworkPolicy"} <= {kind for kind, _, _ in keys}
    assert {("Role", "serving", "vrampack-hub-tokens"), ("Role", "research", "vrampack-hub-tokens")} <= set(keys)


def test_the_operators_settings_reach_it(render: Render) -> None:
    deployment = one(
        render(*ALL_ON, "defaults.tolerationSeconds=30", "operator.replicas=0"), "Deployment", names.LEADER_LEASE
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["spec"]["replicas"] == 0
    assert {"--toleration-seconds=30", "--hub-token-namespaces=serving,research"} <= set(container["args"])
    assert {"name": "HF_ENDPOINT", "value": "https://hub.example.com"} in container["env"]
    assert container["image"] == "vrampack@sha256:" + "a" * 64


def test_selectors_find_their_pods_and_no_others(render: Render) -> None:
    documents = render(*ALL_ON)
    labels = {
        d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"]
        for d in documents
        if d["kind"] in ("Deployment", "DaemonSet")
    }
    service = one(documents, "Service", "vrampack-metrics")
    for selector in (
        service["spec"]["selector"],
        one(documents, "PodDisruptionBudget", "vrampack")["spec"]["selector"]["matchLabels"],
        one(documents, "NetworkPolicy", "vrampack")["spec"]["podSelector"]["matchLabels"],
    ):
        assert [name for name, found in labels.items() if selector.items() <= found.items()] == ["vrampack"]
    agents = one(documents, "Service", "vrampack-agent-metrics")
    found = [name for name, own in labels.items() if agents["spec"]["selector"].items() <= own.items()]
    assert found == ["vrampack-agent"]
    agent_monitor = one(documents, "ServiceMonitor", "vrampack-agent")["spec"]
    assert agent_monitor["selector"]["matchLabels"].items() <= agents["metadata"]["labels"].items()
    assert agent_monitor["endpoints"][0]["honorLabels"]
    monitor = one(documents, "ServiceMonitor", "vrampack")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_the_agent_sees_all_gpus_and_the_hosts_processes(render: Render) -> None:
    pod = one(render(), "DaemonSet", "vrampack-agent")["spec"]["template"]["spec"]
    environment = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert pod["hostPID"]
    assert pod["runtimeClassName"] == "nvidia"
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "utility"


def test_the_agent_is_as_unprivileged_as_it_can_be(render: Render) -> None:
    pod = one(render(), "DaemonSet", "vrampack-agent")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    folders = [volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume]
    assert folders == ["/var/lib/kubelet/pod-resources"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "pod-resources")
    assert mount["readOnly"]
    assert not {"hostNetwork", "hostIPC"} & pod.keys()
    without = one(render("agent.podResources=", "agent.runAsUser=65532"), "DaemonSet", "vrampack-agent")["spec"][
        "template"
    ]["spec"]
    assert not [volume for volume in without["volumes"] if "hostPath" in volume]
    assert without["securityContext"]["runAsUser"] == 65532


def test_engines_ask_at_the_nodes_port_and_the_operator_knows_it(render: Render) -> None:
    documents = render("agent.startPort=9999")
    (agent,) = one(documents, "DaemonSet", "vrampack-agent")["spec"]["template"]["spec"]["containers"]
    assert {"name": "start", "containerPort": 9999, "hostPort": 9999} in agent["ports"]
    assert "--start-port=9999" in agent["args"]
    (operator,) = one(documents, "Deployment", "vrampack")["spec"]["template"]["spec"]["containers"]
    assert "--start-port=9999" in operator["args"]
    assert f"--probe-image={operator['image']}" in operator["args"]
    without = one(render("agent.enabled=false"), "Deployment", "vrampack")["spec"]["template"]["spec"]["containers"][0][
        "args"
    ]
    assert not [each for each in without if each.startswith(("--start-port", "--probe-image"))]


def test_only_an_operator_that_probes_may_make_pods(render: Render) -> None:
    def makes_pods(*values: str) -> list[str]:
        roles = [
            role for role in render(*values) if role["metadata"]["name"] == "vrampack-operator" and "rules" in role
        ]
        rules = [(role["kind"], rule) for role in roles for rule in role["rules"]]
        return [kind for kind, rule in rules if "pods" in rule["resources"] and "create" in rule["verbs"]]

    assert makes_pods() == ["Role"]
    assert makes_pods("agent.probeInjection=false") == []
    assert makes_pods("agent.enabled=false") == []


def test_mps_servers_have_two_folders_of_the_host(render: Render) -> None:
    documents = render("agent.mps=true")
    pod = one(documents, "DaemonSet", "vrampack-agent")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "--mps-folder=/run/vrampack/mps" in container["args"]
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    hosts = {each["name"]: each["hostPath"]["path"] for each in pod["volumes"] if "hostPath" in each}
    assert hosts[mounts["/dev/shm"]] == f"{hosts[mounts['/run/vrampack/mps']]}/shm"


def test_limits_of_the_driver_take_the_hosts_control_groups_and_no_capability(render: Render) -> None:
    pod = one(render("agent.memoryLimits=true"), "DaemonSet", "vrampack-agent")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "--memory-limits=/sys/fs/cgroup" in container["args"]
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "cgroups")
    (volume,) = (each for each in pod["volumes"] if each["name"] == "cgroups")
    assert mount["mountPath"] == volume["hostPath"]["path"], "the driver is told the host's own path"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (plain,) = one(render(), "DaemonSet", "vrampack-agent")["spec"]["template"]["spec"]["containers"]
    assert not any("memory-limits" in each for each in plain["args"])


def test_reservations_hold_what_they_are_told_to(render: Render) -> None:
    values = ("agent.reservations[0].name=llm", "agent.reservations[0].gpus=4")
    pod = one(render(*values), "DaemonSet", "vrampack-reservation-llm")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert pod["metadata"]["labels"][names.RESERVATION] == "llm"
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_agents_are_bound_to_their_nodes_unless_one_stands_for_many(render: Render) -> None:
    policy = one(render(), "ValidatingAdmissionPolicy", "vrampack-agents")["spec"]
    (condition,) = policy["matchConditions"]
    assert "'system:serviceaccount:vrampack-system:vrampack-agent'" in condition["expression"]
    assert names.AGENT_LEASE_PREFIX in policy["variables"][1]["expression"]
    kinds = {document["metadata"]["name"] for document in render("agent.bindToNode=false")}
    assert "vrampack-agents" not in kinds


POLICIES = ("vrampack-replicas", "vrampack-claims")


def test_the_policies_speak_of_the_names_that_the_operator_writes(render: Render) -> None:
    documents = render()
    policies = {name: one(documents, "ValidatingAdmissionPolicy", name)["spec"] for name in POLICIES}
    no_claim_on_creation = policies["vrampack-replicas"]["validations"][0]["expression"]
    claims = {*names.CLAIM_ANNOTATIONS, *names.MECHANISM_ANNOTATIONS, names.BECAUSE}
    assert set(re.findall(r"'(vrampack\.dev/[a-z-]+)'", no_claim_on_creation)) == claims
    known = {*claims, names.GATE, names.NEED, names.MODEL_DEPLOYMENT, f"{names.GROUP}/"}
    for policy in policies.values():
        assert set(re.findall(r"vrampack\.dev/[a-z-]*", json.dumps(policy))) <= known
        (expression,) = policy["matchConstraints"]["objectSelector"]["matchExpressions"]
        assert expression == {"key": names.MODEL_DEPLOYMENT, "operator": "Exists"}
        assert policy["failurePolicy"] == "Fail"


def test_one_policy_is_for_what_is_created_and_one_with_the_lease_for_what_is_changed(render: Render) -> None:
    documents = render()
    rules = {
        name: one(documents, "ValidatingAdmissionPolicy", name)["spec"]["matchConstraints"]["resourceRules"]
        for name in POLICIES
    }
    operations = {name: rule["operations"] for name, (rule,) in rules.items()}
    assert operations == {"vrampack-replicas": ["CREATE"], "vrampack-claims": ["UPDATE"]}
    bindings = {name: one(documents, "ValidatingAdmissionPolicyBinding", name)["spec"] for name in POLICIES}
    assert all(binding["validationActions"] == ["Deny"] for binding in bindings.values())
    assert "paramRef" not in bindings["vrampack-replicas"]  # pods are made whether or not there is a Lease
    assert bindings["vrampack-claims"]["paramRef"] == {
        "name": names.LEADER_LEASE,
        "namespace": "vrampack-system",
        "parameterNotFoundAction": "Deny",
    }


def test_the_operators_requests_wait_among_those_of_controllers(render: Render) -> None:
    documents = render()
    schema = one(documents, "FlowSchema", "vrampack")["spec"]
    pod = one(documents, "Deployment", "vrampack")["spec"]["template"]["spec"]
    (rule,) = schema["rules"]
    (subject,) = rule["subjects"]
    assert subject["serviceAccount"] == {"name": pod["serviceAccountName"], "namespace": "vrampack-system"}
    assert schema["priorityLevelConfiguration"] == {"name": "workload-high"}
    assert schema["matchingPrecedence"] < 9000  # that of Kubernetes' own schema for all ServiceAccounts
