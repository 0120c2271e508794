"""The script before an engine: it waits for its turn, and nothing that goes wrong keeps the engine from starting."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.replicas import LLAMA_8B, LLAMA_8B_NEED, QWEN_SGLANG, QWEN_SGLANG_NEED, TRITON, TRITON_NEED
from vrampack.engines import startgate
from vrampack.engines.base import EngineContainer, EngineInput
from vrampack.engines.registry import engine
from vrampack.planning.need import Need
from vrampack.planning.podtemplate import pod_template


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
