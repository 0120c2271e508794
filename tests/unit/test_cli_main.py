"""The command line as a whole: what it lists, how it refuses, what its flags become."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from typer.testing import CliRunner

import vrampack
from tests.unit.kubeconfig import write_kubeconfig
from vrampack.cli import main as command_line
from vrampack.cli.logs import LogFormat, LogLevel, configure
from vrampack.controller import app as controller
from vrampack.controller.probes import listening


def invoke(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", **(env or {})}).invoke(command_line.app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_help_lists_every_command_and_reads_no_kubernetes() -> None:
    script = "import sys, vrampack.cli.main; print({'kopf', 'kubernetes', 'pydantic', 'rich.live'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    code, output = invoke("--help")
    assert code == 0
    assert {"run", "agent", "demo", "map", "estimate", "profile", "crds", "cluster", "version"} <= set(output.split())


def test_the_version_is_the_package_s() -> None:
    assert invoke("version") == invoke("--version") == (0, f"{vrampack.__version__}\n")


def test_what_is_refused_on_purpose_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("clusters: []", encoding="utf-8")
    command = [sys.executable, "-m", "vrampack", "map", "--kubeconfig", str(tmp_path / "config")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("vrampack: kubeconfig: ")
    assert len(done.stderr.splitlines()) == 1


async def test_an_object_nested_to_the_api_servers_limit_does_not_hide_the_others(tmp_path: Path) -> None:
    levels = 10_000 - 3  # items, the object, its spec
    metadata = '"metadata": {"namespace": "serving", "name": "deep"}'
    deep = f'{{{metadata}, "spec": {{"overlay": {"[" * levels}{"]" * levels}}}}}'
    lists = {
        "modeldeployments": deep,
        "gpunodes": '{"metadata": {"name": "gpu-1"}}',
        "pods": deep,
    }

    async def answer(request: web.Request) -> web.Response:
        body = f'{{"metadata": {{}}, "items": [{lists[request.path.rpartition("/")[2]]}]}}'
        return web.Response(text=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with listening(app, port=0, host="127.0.0.1") as port:
        kubeconfig = write_kubeconfig(tmp_path, f"http://127.0.0.1:{port}")
        command = ("-m", "vrampack", "map", "-o", "json", "--kubeconfig", str(kubeconfig))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert [node["name"] for node in json.loads(output)["nodes"]] == ["gpu-1"]


class TestRun:
    @pytest.fixture
    def taken(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[controller.Settings]]:
        taken: list[controller.Settings] = []

        async def run(settings: controller.Settings) -> None:
            taken.append(settings)

        monkeypatch.setattr(controller, "run", run)
        level = logging.getLogger().level
        yield taken
        logging.basicConfig(level=level, handlers=[], force=True)

    def test_the_flags_of_the_chart(self, taken: list[controller.Settings]) -> None:
        flags = "--namespace=system --identity=pod-1 --lease-seconds=20 --hub-token-namespaces=team-a,team-b "
        flags += "--toleration-seconds=90 --probes-port=8081 --metrics-port=8080 --log-level=info --log-format=json"
        assert invoke("run", *flags.split(), env={"HF_ENDPOINT": "http://mirror"})[0] == 0
        (settings,) = taken
        assert settings.hub_token_namespaces == {"team-a", "team-b"}
        assert (settings.namespace, settings.identity, settings.lease_seconds) == ("system", "pod-1", 20)
        assert (settings.toleration_seconds, settings.hub_endpoint) == (90, "http://mirror")

    def test_without_flags(self, taken: list[controller.Settings]) -> None:
        assert invoke("run", env={"HF_ENDPOINT": ""})[0] == 0
        (settings,) = taken
        assert settings.identity
        assert settings.hub_endpoint is None
        assert settings.hub_token_namespaces == frozenset()

    def test_a_port_that_is_none(self, taken: list[controller.Settings]) -> None:
        code, output = invoke("run", "--metrics-port=70000")
        assert code == 2
        assert "--metrics-port" in output
        assert not taken


def test_a_json_log_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure(level=LogLevel.INFO, form=LogFormat.JSON)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("vrampack.test").exception("it %s", "failed")
    logging.basicConfig(handlers=[], force=True)
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "vrampack.test", "it failed")
    assert "two\nlines" in entry["exception"]
