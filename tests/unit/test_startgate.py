"""One engine after the other on a GPU: the failure without it, and what cures it."""

import asyncio
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.allocator_double import DeviceDouble, EngineDouble, StartFailedError
from tests.unit.replicas import LLAMA_8B, LLAMA_8B_NEED, QWEN_SGLANG, QWEN_SGLANG_NEED, TRITON, TRITON_NEED
from vrampack.agent.pods import decode_pods
from vrampack.agent.startgate import StartGate, Tenant, application, tenants_of
from vrampack.engines import startgate
from vrampack.engines.base import EngineContainer, EngineInput
from vrampack.engines.registry import engine
from vrampack.planning.need import Need
from vrampack.planning.podtemplate import pod_template
from vrampack.units import GIB

# --- the failure, and its two cures ---------------------------------------------------------------------------------


def two(*, absolute: bool) -> tuple[DeviceDouble, list[EngineDouble]]:
    """Two engines that fit well beside each other on a 32 GiB card."""
    device = DeviceDouble(total=32 * GIB)
    size = 3 * GIB if absolute else None
    share = {"utilization": 0.3 if absolute else 0.45, "context": GIB // 2, "peak": 2 * GIB, "kv_cache_bytes": size}
    weights = {"first": 8 * GIB, "second": 9 * GIB}
    return device, [EngineDouble(name=name, weights=each, **share) for name, each in weights.items()]


def interleaved(device: DeviceDouble, engines: list[EngineDouble], order: list[int]) -> None:
    """Their starts, a step of one and a step of the other as ``order`` says, then whatever is left."""
    running = [each.start(device) for each in engines]
    for index in [*order, *(index for index in range(len(engines)) for _ in range(8))]:
        next(running[index], None)


def serialized(device: DeviceDouble, engines: list[EngineDouble], order: list[int]) -> None:
    """The same, but each asks the gate before its first step, and tells by its readiness that it is through."""
    gate = StartGate()
    running = [each.start(device) for each in engines]
    tenants = {
        each.name: Tenant(
            uid=each.name, name=each.name, gpus=frozenset({"GPU-1"}), running=True, started=False, since=100.0
        )
        for each in engines
    }
    granted: set[str] = set()
    for tick, index in enumerate([*order, *(index for index in (0, 1, 0, 1) for _ in range(8))]):
        name = engines[index].name
        if name not in granted and gate.ask(name, since=100.0, tenants=tenants, now=100.0 + tick) is not None:
            continue
        granted.add(name)
        if next(running[index], "ready") == "ready":
            tenants[name] = replace(tenants[name], started=True)


ORDERS = st.lists(st.integers(0, 1), max_size=12)


def test_two_engines_that_measure_together_mistake_each_other() -> None:
    """Both read what is free, both load, and each takes the other's weights for its own."""
    alone_device, (alone, _) = two(absolute=False)
    for _ in alone.start(alone_device):
        pass
    device, engines = two(absolute=False)
    with pytest.raises(StartFailedError, match="no available memory for the cache blocks"):
        interleaved(device, engines, [0, 1, 0, 1, 0, 1, 0, 1])
    assert alone.kv_cache is not None
    assert alone.kv_cache > 4 * GIB


@given(order=ORDERS)
def test_one_after_the_other_they_measure_right(order: list[int]) -> None:
    expected = []
    device, engines = two(absolute=False)
    for each in engines:
        for _ in each.start(device):
            pass
        expected.append(each.kv_cache)
    device, engines = two(absolute=False)
    serialized(device, engines, order)
    assert [each.kv_cache for each in engines] == expected


@given(order=ORDERS)
def test_told_absolute_sizes_they_need_no_order(order: list[int]) -> None:
    device, engines = two(absolute=True)
    interleaved(device, engines, order)
    assert [each.kv_cache for each in engines] == [3 * GIB, 3 * GIB]
    assert device.free > 0


# --- whose turn it is -------------------------------------------------------------------------------------------------


def tenant(uid: str, *gpus: str, running: bool = True, started: bool = False, since: float = 100.0) -> Tenant:
    return Tenant(
        uid=uid, name=f"ns/{uid}", gpus=frozenset(gpus or ("A",)), running=running, started=started, since=since
    )


@dataclass
class Node:
    """A gate, the pods and a clock."""

    tenants: dict[str, Tenant]
    gate: StartGate = field(default_factory=StartGate)
    now: float = 100.0

    def ask(self, uid: str, *, after: float = 1.0) -> str | None:
        self.now += after
        return self.gate.ask(uid, since=self.tenants[uid].since, tenants=self.tenants, now=self.now)

    def change(self, uid: str, **changes: Any) -> None:
        self.tenants[uid] = replace(self.tenants[uid], **changes)


def node(*tenants: Tenant, **fields: Any) -> Node:
    return Node({each.uid: each for each in tenants}, **fields)


def test_the_first_to_ask_starts_and_the_other_waits_until_it_has_started() -> None:
    found = node(tenant("a"), tenant("b"))
    found.tenants.pop("b")
    assert found.ask("a") is None
    found.tenants["b"] = tenant("b")
    assert found.ask("b") == "ns/a"
    found.change("a", started=True)
    assert found.ask("b") is None


def test_on_another_gpu_nobody_waits() -> None:
    found = node(tenant("a", "A"), tenant("b", "B", running=False))
    assert found.ask("a") is None
    found.change("b", running=True)
    assert found.ask("b") is None


def test_an_engine_that_never_asked_holds_up_the_others_while_it_starts() -> None:
    found = node(tenant("a", since=90.0), tenant("b"))
    assert found.ask("b") == "ns/a"
    found.change("a", started=True)
    assert found.ask("b") is None


def test_both_waiting_the_earlier_one_comes_first() -> None:
    found = node(tenant("old", started=False), tenant("a", running=False), tenant("b", running=False))
    assert found.ask("old") is None
    for uid in ("b", "a"):
        found.change(uid, running=True)
        assert found.ask(uid) is not None
    found.change("old", started=True)
    assert found.ask("a") == "ns/b"
    assert found.ask("b") is None
    assert found.ask("a") == "ns/b"


def test_two_that_share_two_gpus_never_wait_for_each_other() -> None:
    found = node(tenant("a", "A", "B", running=False), tenant("b", "B", "A", running=False))
    for uid in ("a", "b"):
        found.change(uid, running=True)
    answers = [found.ask(uid) for uid in ("a", "b", "a", "b")]
    assert answers.count(None) >= 1
    assert not (found.ask("a") is None and found.ask("b") is None)


def test_a_crashed_engine_asks_again_and_its_former_readiness_counts_for_nothing() -> None:
    found = node(tenant("a", started=True), tenant("b", started=True))
    # a's container starts again at 200; the pods are known as they were before
    assert found.gate.ask("a", since=200.0, tenants=found.tenants, now=201.0) is None
    found.change("b", started=False, since=202.0)
    assert found.gate.ask("b", since=202.0, tenants=found.tenants, now=203.0) == "ns/a"
    found.change("a", since=200.0)
    assert found.gate.ask("b", since=202.0, tenants=found.tenants, now=204.0) is None


def test_nobody_holds_up_others_for_ever() -> None:
    found = node(tenant("a"), tenant("b", running=False), gate=StartGate(longest=60.0))
    assert found.ask("a") is None
    found.change("b", running=True)
    assert found.ask("b", after=30) == "ns/a"
    assert found.ask("b", after=31) is None


def test_one_that_is_gone_holds_up_nobody() -> None:
    found = node(tenant("a"), tenant("b", running=False))
    assert found.ask("a") is None
    found.change("b", running=True)
    assert found.ask("b") == "ns/a"
    del found.tenants["a"]
    assert found.ask("b") is None


def test_who_asks_no_more_loses_its_place() -> None:
    found = node(tenant("old"), tenant("a", running=False), tenant("b", running=False))
    assert found.ask("old") is None
    found.change("a", running=True)
    found.ask("a")
    found.change("a", running=False)
    found.change("b", running=True)
    found.ask("b", after=20)
    found.change("old", started=True)
    assert found.ask("b") is None


@given(
    gpus=st.lists(st.sets(st.sampled_from("ABC"), min_size=1), min_size=2, max_size=5),
    steps=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60),
)
def test_at_most_one_engine_of_a_gpu_starts(gpus: list[set[str]], steps: list[tuple[int, bool]]) -> None:
    found = node(*(tenant(str(index), *each, running=False) for index, each in enumerate(gpus)))
    starting: set[str] = set()
    for index, gets_ready in steps:
        uid = str(index % len(gpus))
        if gets_ready and uid in starting:
            starting.discard(uid)
            found.change(uid, started=True)
        elif not found.tenants[uid].started and uid not in starting:
            found.change(uid, running=True)
            if found.ask(uid) is None:
                starting.add(uid)
        for one in starting:
            for other in starting - {one}:
                assert not found.tenants[one].gpus & found.tenants[other].gpus
    # and nobody waits for nothing: with all that start ready, somebody who waits gets its turn
    for uid in starting:
        found.change(uid, started=True)
    waiting = [uid for uid, each in found.tenants.items() if each.running and not each.started]
    assert not waiting or None in [found.ask(uid) for uid in waiting for _ in range(2)]


def test_pods_as_the_agent_sees_them() -> None:
    pod = {
        "metadata": {
            "name": "p",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": "1",
            "labels": {"vrampack.dev/model-deployment": "m"},
            "annotations": {"vrampack.dev/gpus": "A,B"},
        },
        "spec": {"containers": [{"name": "engine", "startupProbe": {}}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {"name": "engine", "started": True, "state": {"running": {"startedAt": "2026-11-28T10:00:00Z"}}}
            ],
        },
    }
    raw = web.json_response({"items": [pod]}).body
    assert isinstance(raw, bytes)
    (found,) = tenants_of(decode_pods(raw)).values()
    assert found == Tenant(
        uid="u", name="ns/p", gpus=frozenset({"A", "B"}), running=True, started=True, since=1795860000.0
    )


# --- the script --------------------


class Agent(http.server.ThreadingHTTPServer):
    """Answers as the agent's gate says, or with one status for all."""

    def __init__(self, answers: Iterator[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.asked: list[str] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Agent

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(next(self.server.answers))
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing."""


def run_script(agent: Agent | None, *, tools: Path | None = None, own_gate: int | None = None, limit: int = 60) -> str:
    environment = {
        "VRAMPACK_HOST_IP": "127.0.0.1",
        "VRAMPACK_START_PORT": str(agent.server_address[1] if agent is not None else 1),
        "VRAMPACK_POD_UID": "uid-1",
        "VRAMPACK_START_SECONDS": str(limit),
        "PATH": str(tools) if tools is not None else os.environ["PATH"],
    }
    command = startgate.command(["/bin/echo", "engine", "runs"], own_gate=own_gate)
    done = subprocess.run([*command, "--flag"], env=environment, capture_output=True, text=True, timeout=50, check=True)
    return done.stdout + done.stderr


@pytest.fixture
def with_python_alone(tmp_path: Path) -> Path:
    """A PATH without curl."""
    for tool in ("sh", "date", "sleep"):
        (tmp_path / tool).symlink_to(Path(shutil.which(tool) or "").resolve())
    (tmp_path / "python3").symlink_to(Path(sys.executable).resolve())
    return tmp_path


def served(*statuses: int) -> Agent:
    agent = Agent(iter(statuses))
    threading.Thread(target=agent.serve_forever, daemon=True).start()
    return agent


@pytest.mark.parametrize("tool", ["curl", "python3"])
def test_the_script_waits_for_its_turn_and_then_becomes_the_engine(tool: str, with_python_alone: Path) -> None:
    if tool == "curl" and shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    agent = served(409, 409, 200)
    said = run_script(agent, tools=None if tool == "curl" else with_python_alone)
    assert said == "engine runs --flag\n"
    assert len(agent.asked) == 3
    assert agent.asked[0].startswith("/start/uid-1?since=")
    assert len(set(agent.asked)) == 1


def test_an_image_without_tools_starts_at_once(tmp_path: Path) -> None:
    for tool in ("sh", "date", "sleep"):
        (tmp_path / tool).symlink_to(Path(shutil.which(tool) or "").resolve())
    said = run_script(served(409), tools=tmp_path)
    assert "engine runs --flag" in said
    assert "neither curl nor python3" in said


def test_a_start_that_takes_for_ever_elsewhere_holds_it_up_for_so_long_only() -> None:
    said = run_script(served(*[409] * 20), limit=2)
    assert "engine runs --flag" in said
    assert "so this one starts too" in said


def test_without_an_agent_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startgate, "_BEFORE", startgate._BEFORE.replace("-ge 20 ]", "-ge 1 ]"))
    said = run_script(None)
    assert "engine runs --flag" in said
    assert "no agent answers" in said


def test_an_engine_with_a_gate_of_its_own_starts_at_once_and_is_let_on() -> None:
    gate = served(503, 200)
    port = gate.server_address[1]
    said = run_script(served(200), own_gate=port)
    assert f"engine runs --flag --gated-launch-port={port}" in said
    assert [path for path in gate.asked if path == "/gate/activate"]


def test_the_endpoint_speaks_as_the_gate_says() -> None:
    tenants: Mapping[str, Tenant] = {"a": tenant("a"), "b": tenant("b", running=False)}

    async def talk() -> list[tuple[int, str]]:
        app = application(StartGate(), tenants=lambda: tenants, clock=lambda: 105.0)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        from aiohttp import ClientSession

        answers = []
        async with ClientSession() as session:
            for path in ("start/a?since=100", "start/b?since=101", "start/nobody?since=1", "start/a?since=x"):
                async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                    answers.append((answer.status, await answer.text()))
        await runner.cleanup()
        return answers

    statuses = asyncio.run(talk())
    assert [status for status, _ in statuses] == [200, 409, 404, 400]
    assert "ns/a" in statuses[1][1]


# --- in the template --------------------

GATE = startgate.StartGate(port=9443, seconds=600)


def engine_container(name: str, given: EngineInput, need: Need, **overlay: Any) -> dict[str, Any]:
    template = pod_template(
        name="m", engine=engine(name)(given), need=need, overlay=overlay, runtime_class="nvidia", gate=GATE
    )
    found: dict[str, Any] = next(each for each in template["spec"]["containers"] if each["name"] == "engine")
    return found


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_the_script_stands_before_the_command_that_the_image_would_run() -> None:
    container = engine_container("vllm", LLAMA_8B, LLAMA_8B_NEED)
    assert container["command"][:2] == ["/bin/sh", "-c"]
    assert container["command"][3:] == ["vrampack-start", "vllm", "serve"]
    assert container["args"][0].startswith("--model=")
    said = variables(container)
    assert said["VRAMPACK_START_PORT"] == "9443"
    assert said["VRAMPACK_HOST_IP"]["fieldRef"]["fieldPath"] == "status.hostIP"
    assert said["VRAMPACK_POD_UID"]["fieldRef"]["fieldPath"] == "metadata.uid"


def test_the_startup_probe_allows_for_the_wait() -> None:
    without: EngineContainer = engine("vllm")(LLAMA_8B)
    assert without.probes.startup is not None
    probe = engine_container("vllm", LLAMA_8B, LLAMA_8B_NEED)["startupProbe"]
    assert (probe["failureThreshold"] - without.probes.startup["failureThreshold"]) * probe["periodSeconds"] == 600


def test_sglang_waits_at_its_own_gate_where_it_has_one() -> None:
    new = engine_container("sglang", QWEN_SGLANG, QWEN_SGLANG_NEED)["command"]
    assert "--gated-launch-port=30999" in new[2]
    old = engine_container("sglang", replace(QWEN_SGLANG, version="0.5.12"), QWEN_SGLANG_NEED)["command"]
    assert "gated-launch-port" not in old[2]
    assert old[3:] == ["vrampack-start", "python3", "-m", "sglang.launch_server"]


def test_a_custom_engine_waits_only_with_a_command_of_its_own() -> None:
    assert "command" not in engine_container("custom", TRITON, TRITON_NEED)
    written = {"containers": [{"name": "engine", "command": ["tritonserver", "--model-store=/m"]}]}
    container = engine_container("custom", TRITON, TRITON_NEED, spec=written)
    assert container["command"][3:] == ["vrampack-start", "tritonserver", "--model-store=/m"]


def test_kubernetes_expands_nothing_in_the_script() -> None:
    """It replaces ``$(NAME)`` where NAME is a variable of the container, and ``$$`` by ``$``."""
    container = engine_container("sglang", QWEN_SGLANG, QWEN_SGLANG_NEED)
    script = container["command"][2]
    assert "$$" not in script
    assert not [name for name in variables(container) if f"$({name})" in script]
