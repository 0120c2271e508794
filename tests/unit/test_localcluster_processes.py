"""Process groups, ports, certificates, progress and node objects of the local cluster."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from vrampack.localcluster.adminclient import until
from vrampack.localcluster.certificates import Authority
from vrampack.localcluster.nodes import NodeSpec, manifest, settled
from vrampack.localcluster.ports import free_ports
from vrampack.localcluster.process import Child, Guard, run, tail
from vrampack.localcluster.progress import LiveProgress, PlainProgress, progress_on

SLEEPER = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
STUBBORN = [
    sys.executable,
    "-S",
    "-uc",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready')\nwhile True: signal.pause()",
]


def child(guard: Guard, command: list[str], log: Path, deaths: list[str]) -> Child:
    return Child(
        name="sleeper",
        command=command,
        log=log,
        group=guard.group,
        on_death=lambda dead: deaths.append(dead.obituary()),
    )


def test_leaving_the_guard_kills_the_group() -> None:
    with Guard() as guard:
        popen = subprocess.Popen(SLEEPER, process_group=guard.group)
    assert popen.wait(timeout=10) == -signal.SIGKILL
    guard.close()


async def test_a_stopped_child_is_no_death(tmp_path: Path) -> None:
    deaths: list[str] = []
    with Guard() as guard:
        sleeper = child(guard, SLEEPER, tmp_path / "log", deaths)
        await sleeper.stop(patience=10)
        await sleeper.stop(patience=10)
    assert deaths == []


def states(process: Child) -> set[str]:
    """What its threads do, in the kernel's letters."""
    threads = Path(f"/proc/{process.pid}/task").glob("*/stat")
    return {each.read_text().rpartition(")")[2].split()[0] for each in threads}


async def test_a_paused_or_stubborn_child_stops_too(tmp_path: Path) -> None:
    async def said_something() -> bool:
        return bool(tail(tmp_path / "stubborn"))

    with Guard() as guard:
        paused = child(guard, SLEEPER, tmp_path / "paused", [])
        paused.pause()
        assert states(paused) == {"T"}
        await asyncio.wait_for(paused.stop(patience=60), timeout=10)

        stubborn = child(guard, STUBBORN, tmp_path / "stubborn", [])
        await until("it ignores SIGTERM", said_something, timeout=10)
        await asyncio.wait_for(stubborn.stop(patience=0.1), timeout=10)


async def test_a_death_tells_how_and_the_last_lines(tmp_path: Path) -> None:
    deaths: list[str] = []

    async def is_dead() -> bool:
        return bool(deaths)

    script = "import sys; print(*range(100), sep='\\n'); sys.exit(7)"
    with Guard() as guard:
        child(guard, [sys.executable, "-Sc", script], tmp_path / "log", deaths)
        await until("it is dead", is_dead, timeout=10)
    assert deaths[0].startswith("sleeper exited with status 7; the end of its log")
    assert deaths[0].splitlines()[1:] == [f"  {number}" for number in range(85, 100)]


async def test_a_cancelled_tool_is_killed() -> None:
    with Guard() as guard:
        task = asyncio.create_task(run(SLEEPER, stdin=None, environment=os.environ, group=guard.group))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done = await run(["cat"], stdin="hello", environment=os.environ, group=guard.group)
    assert (done.returncode, done.stdout) == (0, "hello")


def test_ports_are_free_and_distinct() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_a_client_trusts_the_server_by_the_authority_alone(tmp_path: Path) -> None:
    authority = Authority(name="test")
    authority.server(addresses=("127.0.0.1",), names=("localhost",)).write(folder=tmp_path, name="server")
    authority.client(user="admin", group="system:masters").write(folder=tmp_path, name="admin")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    assert (tmp_path / "admin.key").stat().st_mode & 0o077 == 0

    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.crt")
    server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    client.load_cert_chain(tmp_path / "admin.crt", tmp_path / "admin.key")
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on

    # A handshake in memory, each side fed with what the other wrote.
    wires = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    sides = [
        server.wrap_bio(wires[0], wires[1], server_side=True),
        client.wrap_bio(wires[1], wires[0], server_hostname="127.0.0.1"),
    ]
    pending = list(sides)
    for _ in range(10):
        for side in list(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not pending
    peer = sides[0].getpeercert()
    assert peer is not None
    assert peer["subject"] == ((("organizationName", "system:masters"),), (("commonName", "admin"),))


def test_plain_progress_speaks_at_the_start_and_every_half_minute() -> None:
    said: list[str] = []
    now = 0.0
    progress = PlainProgress(said.append, clock=lambda: now)
    progress.begin("etcd", number=2, of=6)
    for second in range(1, 70):
        now = float(second)
        progress.tick("go.etcd.io/raft")
    progress.end()
    assert said == [
        "building etcd (2 of 6)",
        "building etcd (2 of 6): 30 s so far; go.etcd.io/raft",
        "building etcd (2 of 6): 60 s so far; go.etcd.io/raft",
        "built etcd (2 of 6) in 69 s",
    ]


def test_live_progress_shows_what_and_which(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=100)
    progress = progress_on(console)
    assert isinstance(progress, LiveProgress)
    with progress:
        progress.note("This happens once.")
        progress.begin("etcd", number=2, of=6)
        progress.tick("go.etcd.io/raft")
        progress.end()
    shown = capsys.readouterr().out
    assert "This happens once." in shown
    assert "etcd (2 of 6)" in shown
    assert isinstance(progress_on(Console(force_terminal=False)), PlainProgress)


def test_a_node_is_schedulable_on_paper() -> None:
    node = manifest(
        NodeSpec(
            name="gpu-1",
            gpu_product="NVIDIA-H100-80GB-HBM3",
            labels={"zone": "a"},
            taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
            cpu="8",
            resources={"nvidia.com/gpu": "8"},
        )
    )
    assert node["metadata"]["labels"].items() >= {
        "kubernetes.io/hostname": "gpu-1",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "zone": "a",
        "kwok.x-k8s.io/node": "fake",
    }.items()  # fmt: skip
    assert node["metadata"]["annotations"] == {"kwok.x-k8s.io/node": "fake"}
    assert node["status"]["allocatable"] == {"cpu": "8", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": "8"}


@pytest.mark.parametrize(
    ("ready", "taint", "expected"),
    [
        ("True", None, True),
        ("True", "nvidia.com/gpu", True),
        ("True", "node.kubernetes.io/not-ready", False),
        ("True", "node.kubernetes.io/unreachable", False),
        ("Unknown", None, False),
        (None, None, False),
    ],
)
def test_when_a_node_is_settled(ready: str | None, taint: str | None, expected: bool) -> None:
    node = {
        "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]} if taint else {},
        "status": {"conditions": [{"type": "Ready", "status": ready}]} if ready else {},
    }
    assert settled(node) is expected
