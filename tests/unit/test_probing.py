"""Finding out how a node hands out GPUs: one probe after the other, and an answer that holds for what the node runs."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import planning_world
from tests.unit.planning_world import NOW, gpu, gpu_node, node, pool
from vrampack.api import names
from vrampack.api.gpunode import InjectionFound
from vrampack.api.gpupool import InjectionStyle
from vrampack.kube import wire
from vrampack.kube.views import probe_view
from vrampack.planning.inventory import inventory
from vrampack.planning.plan import plan
from vrampack.planning.probing import ORDER, PATIENCE_SECONDS, Probes, probes, setup_of, verdict
from vrampack.planning.snapshot import ProbeView, Snapshot
from vrampack.planning.verdict import Probing, Settings

PROBING = Probing(image="registry.example.com/vrampack:1", namespace="vrampack-system")
STATUS = {"driver": "580.126.09", "container_runtime": "containerd://2.1.4"}
SETUP = "driver 580.126.09, containerd://2.1.4"


def world(*there: ProbeView, status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None) -> Snapshot:
    view = gpu_node("n1", gpu("GPU-1"), gpu("GPU-2", index=1), **(STATUS | (status or {})))
    pools = [pool("default", **(spec or {}))]
    return planning_world.world(gpu_nodes=[view], pools=pools, probes=there)


def asked(given: Snapshot) -> Probes:
    return probes(given, inventory(given), PROBING)


def probe(style: InjectionStyle, *, setup: str = SETUP, **state: Any) -> ProbeView:
    fields: dict[str, Any] = {"succeeded": False, "failed": False, "message": "", "created": NOW - 5}
    return ProbeView(
        namespace="vrampack-system",
        name=f"probe-{style.value}",
        uid=f"uid-{style.value}",
        resource_version="1",
        node="n1",
        setup=setup,
        style=style,
        **(fields | state),
    )


def failed(*styles: InjectionStyle) -> list[ProbeView]:
    return [probe(style, failed=True, message="saw no GPU") for style in styles]


def test_the_first_probe_asks_for_one_gpu_by_the_style_that_works_most_often() -> None:
    (pod,) = asked(world()).create
    (container,) = pod["spec"]["containers"]
    said = {each["name"]: each["value"] for each in container["env"]}
    assert said["NVIDIA_VISIBLE_DEVICES"] == "runtime.nvidia.com/gpu=GPU-1"
    assert said["WANTED"] == "GPU-1"
    assert said["NVIDIA_DRIVER_CAPABILITIES"] == "utility"
    assert pod["spec"]["runtimeClassName"] == "nvidia"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["metadata"]["namespace"] == "vrampack-system"
    assert pod["metadata"]["annotations"][names.PROBE_SETUP] == SETUP
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["n1"]
    assert not [key for key in container["resources"].get("limits", {}) if "nvidia" in key]


def test_one_at_a_time_and_the_next_once_one_has_failed() -> None:
    running = probe(InjectionStyle.CDI_RUNTIME)
    waits = asked(world(running))
    assert waits.create == ()
    assert waits.wake_at == running.created + PATIENCE_SECONDS
    (pod,) = asked(world(*failed(InjectionStyle.CDI_RUNTIME))).create
    assert pod["metadata"]["annotations"][names.PROBE_STYLE] == "Bare"


def test_nri_is_asked_by_an_annotation_and_without_a_runtime_class() -> None:
    (pod,) = asked(world(*failed(*ORDER[:-1]))).create
    assert "runtimeClassName" not in pod["spec"]
    assert pod["metadata"]["annotations"]["nvidia.cdi.k8s.io/container.engine"].endswith("gpu=GPU-1")
    (container,) = pod["spec"]["containers"]
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container["env"]


def test_the_one_that_works_is_kept_with_what_it_holds_for_and_the_probes_go() -> None:
    there = [*failed(InjectionStyle.CDI_RUNTIME), probe(InjectionStyle.BARE, succeeded=True)]
    answer = asked(world(*there))
    assert answer.found["n1"].style is InjectionStyle.BARE
    assert answer.found["n1"].setup == SETUP
    assert {each.style for each in answer.delete} == {InjectionStyle.CDI_RUNTIME, InjectionStyle.BARE}
    assert answer.create == ()


def test_where_no_style_works_it_says_what_each_saw_and_what_to_change() -> None:
    answer = asked(world(*failed(*ORDER)))
    found = answer.found["n1"]
    assert found.style is None
    assert "volume mounts" in found.message
    assert "Bare: saw no GPU" in found.message


@pytest.mark.parametrize(
    "status",
    [
        {"injection": {"style": "Bare", "setup": SETUP}},
        {"injection": {"setup": SETUP}},
        {"injection_style": "CDIHost"},
    ],
)
def test_what_is_known_is_not_asked_again(status: dict[str, Any]) -> None:
    answer = asked(world(status=status))
    assert (answer.create, answer.found) == ((), {})


def test_a_new_driver_runtime_toolkit_or_boot_and_the_admins_own_word_are_reasons_to_ask_again() -> None:
    known = {"injection": {"style": "Bare", "setup": SETUP}}
    assert asked(world(status=known | {"driver": "615.10"})).create
    assert asked(world(status=known | {"container_runtime": "containerd://2.2.0"})).create
    assert asked(world(status=known | {"container_toolkit": "1.20.0"})).create
    assert asked(world(status=known | {"boot_id": "5f2c9c4e-1b1c-4a55-9a39-3f0f6cf8d1c0"})).create, "a reboot"
    view = world(status=known).gpu_nodes[0]
    labelled = replace(node("n1"), labels={names.NODE_STACK: "toolkit-1.21"})
    assert setup_of(view, labelled) != setup_of(view, node("n1"))


def test_probes_of_an_older_setup_go() -> None:
    answer = asked(world(probe(InjectionStyle.BARE, setup="driver 535", succeeded=True)))
    assert [each.style for each in answer.delete] == [InjectionStyle.BARE]
    assert answer.create
    assert not answer.found


@pytest.mark.parametrize(
    "spec",
    [{"injection_style": "Bare"}, {"mechanism": "HAMi"}, {"mechanism": "KAI"}, {"mechanism": "DRA"}],
)
def test_nothing_is_asked_where_nobody_would_read_the_answer(spec: dict[str, Any]) -> None:
    there = probe(InjectionStyle.BARE)
    answer = asked(world(there, spec=spec))
    assert answer.create == ()
    assert answer.delete == (there,)


def test_without_an_image_nothing_is_asked() -> None:
    given = world()
    assert probes(given, inventory(given), None) == Probes()


@given(outcomes=st.lists(st.sampled_from(["succeeded", "failed", "late", "running"]), max_size=len(ORDER)))
def test_a_verdict_comes_with_a_success_or_with_every_style_failed(outcomes: list[str]) -> None:
    states: dict[str, dict[str, Any]] = {
        "succeeded": {"succeeded": True},
        "failed": {"failed": True},
        "late": {"created": NOW - PATIENCE_SECONDS},
        "running": {},
    }
    there = [probe(style, **states[outcome]) for style, outcome in zip(ORDER, outcomes, strict=False)]
    found = verdict(there, setup=SETUP, now=NOW)
    if "succeeded" in outcomes:
        assert found is not None
        assert found.style is ORDER[outcomes.index("succeeded")]
    elif len(outcomes) == len(ORDER) and "running" not in outcomes:
        assert found is not None
        assert found.style is None
    else:
        assert found is None


def test_the_plan_keeps_replicas_off_until_it_knows_and_then_writes_what_it_knows() -> None:
    settings = Settings(probing=PROBING)
    first = plan(world(), settings)
    assert len(first.probes) == 1
    done = plan(world(probe(InjectionStyle.CDI_RUNTIME, succeeded=True)), settings)
    (status,) = (each.status for each in done.statuses if each.kind == "GPUNode")
    assert status["injection"]["style"] == "CDIRuntime"
    (known,) = (each for each in status["conditions"] if each["type"] == "InjectionKnown")
    assert (known["status"], known["reason"]) == ("True", "CDIRuntime")
    assert len(done.ended_probes) == 1
    none = plan(world(*failed(*ORDER)), settings)
    (status,) = (each.status for each in none.statuses if each.kind == "GPUNode")
    (known,) = (each for each in status["conditions"] if each["type"] == "InjectionKnown")
    assert (known["status"], known["reason"]) == ("False", "Unsupported")


def pod(phase: str, state: dict[str, Any]) -> wire.Pod:
    import msgspec

    raw = {
        "metadata": {
            "name": "p",
            "namespace": "vrampack-system",
            "uid": "u",
            "resourceVersion": "1",
            "annotations": {names.PROBE_NODE: "n1", names.PROBE_SETUP: SETUP, names.PROBE_STYLE: "Bare"},
        },
        "status": {"phase": phase, "containerStatuses": [{"name": "engine", "state": state}]},
    }
    return msgspec.convert(raw, wire.Pod)


@pytest.mark.parametrize(
    ("phase", "state", "succeeded", "fails", "message"),
    [
        ("Succeeded", {"terminated": {"message": "GPU-1 "}}, True, False, "GPU-1"),
        ("Failed", {"terminated": {"message": "GPU-1 GPU-2 "}}, False, True, "saw GPU-1 GPU-2"),
        ("Failed", {"terminated": {"message": ""}}, False, True, "saw no GPU"),
        (
            "Pending",
            {"waiting": {"reason": "CreateContainerError", "message": "unresolvable CDI devices"}},
            False,
            True,
            "CreateContainerError unresolvable CDI devices",
        ),
        ("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "x"}}, False, False, "ImagePullBackOff x"),
        ("Running", {"running": {}}, False, False, ""),
    ],
)
def test_pods_as_the_api_server_has_them(
    phase: str, state: dict[str, Any], succeeded: bool, fails: bool, message: str
) -> None:
    view = probe_view(pod(phase, state))
    assert (view.succeeded, view.failed, view.message) == (succeeded, fails, message)
    assert (view.node, view.style) == ("n1", InjectionStyle.BARE)


def test_the_field_takes_what_a_verdict_says() -> None:
    found = verdict(failed(*ORDER), setup=SETUP, now=NOW)
    assert found is not None
    assert InjectionFound.model_validate(found.model_dump()) == found
    assert len(found.message) <= 1024
