"""MPS servers kept by the agent, with a double of NVIDIA's control program that speaks as it does."""

import asyncio
import stat
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from vrampack.agent.mps import Attachments, MpsServers, unattached
from vrampack.agent.reading import GPUReading, NodeReading, PodUse
from vrampack.agent.status import conditions_of
from vrampack.units import GIB

DOUBLE = """\
#!/bin/sh
# nvidia-cuda-mps-control: -f serves until it is told to quit; without it each line of stdin is a question.
pipe=$CUDA_MPS_PIPE_DIRECTORY
if [ "$1" = -f ]; then
  rm -f "$pipe/quit"
  echo $$ >> "$pipe/starts"
  echo "$CUDA_VISIBLE_DEVICES" > "$pipe/serves"
  [ -e "$pipe/../broken" ] && exit 3
  while [ ! -e "$pipe/quit" ]; do sleep 0.05; done
  exit 0
fi
read -r question argument
case $question in
  get_server_list) cat "$pipe/servers" 2>/dev/null ;;
  get_client_list) cat "$pipe/clients-$argument" 2>/dev/null ;;
  quit) touch "$pipe/quit" ;;
  hang) sleep 60 ;;
esac
"""


@pytest.fixture
def servers(tmp_path: Path) -> MpsServers:
    program = tmp_path / "nvidia-cuda-mps-control"
    program.write_text(textwrap.dedent(DOUBLE))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return MpsServers(folder=tmp_path / "mps", control=str(program))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to that within ten seconds")


def run(servers: MpsServers, body: Callable[[], Awaitable[None]]) -> None:
    async def guarded() -> None:
        try:
            await body()
        finally:
            await servers.close()

    asyncio.run(guarded())


def starts(servers: MpsServers, uuid: str) -> int:
    path = servers.pipes(uuid) / "starts"
    return len(path.read_text().split()) if path.exists() else 0


def test_each_gpu_has_a_server_and_a_folder_of_its_own(servers: MpsServers) -> None:
    async def body() -> None:
        await servers.keep(["GPU-1", "GPU-2"])
        for uuid in ("GPU-1", "GPU-2"):
            await until((servers.pipes(uuid) / "serves").exists)
            assert (servers.pipes(uuid) / "serves").read_text().strip() == uuid
        assert (servers.folder / "shm").is_dir()
        await servers.keep(["GPU-1", "GPU-2"])
        assert starts(servers, "GPU-1") == 1

    run(servers, body)


def test_a_gpu_that_is_no_longer_shared_loses_its_server(servers: MpsServers) -> None:
    async def body() -> None:
        await servers.keep(["GPU-1", "GPU-2"])
        await until((servers.pipes("GPU-2") / "serves").exists)
        await servers.keep(["GPU-1"])
        assert (servers.pipes("GPU-2") / "quit").exists()
        assert not (servers.pipes("GPU-1") / "quit").exists()

    run(servers, body)


def test_one_that_ends_is_started_again_after_a_pause(servers: MpsServers) -> None:
    (servers.folder / "GPU-1").mkdir(parents=True)
    (servers.folder / "GPU-1" / "broken").touch()

    async def body() -> None:
        await servers.keep(["GPU-1"])
        await until(lambda: starts(servers, "GPU-1") == 1)
        began = asyncio.get_running_loop().time()
        while starts(servers, "GPU-1") == 1:
            await servers.keep(["GPU-1"])
            await asyncio.sleep(0.02)
            assert asyncio.get_running_loop().time() - began < 10
        assert asyncio.get_running_loop().time() - began >= 0.9

    run(servers, body)


def test_who_is_connected_is_asked_of_the_server(servers: MpsServers) -> None:
    async def body() -> None:
        await servers.keep(["GPU-1"])
        await until((servers.pipes("GPU-1") / "serves").exists)
        assert await servers.clients("GPU-1") == frozenset()
        (servers.pipes("GPU-1") / "servers").write_text("501\n")
        (servers.pipes("GPU-1") / "clients-501").write_text("4242\n4243\n")
        assert await servers.clients("GPU-1") == {4242, 4243}
        assert await servers.clients("GPU-of-nobody") == frozenset()

    run(servers, body)


def test_a_process_beside_its_server_is_told_of_and_not_asked_for_each_time(servers: MpsServers) -> None:
    use = PodUse(uid="u", bytes=GIB, pids=(41, 42))
    stranger = PodUse(uid="v", bytes=GIB, pids=(7,))
    gpu = GPUReading(uuid="GPU-1", index=3, product="X", memory=GIB, reserved=0, processes=(use, stranger))

    async def body() -> None:
        found = Attachments(servers=servers, every=10)
        assert await found.look([gpu], {"u": "serving/a"}, now=0) == ("pod serving/a on GPU 3 (PID 41, 42)",)
        await until((servers.pipes("GPU-1") / "serves").exists)
        (servers.pipes("GPU-1") / "servers").write_text("501\n")
        (servers.pipes("GPU-1") / "clients-501").write_text("41\n42\n")
        assert await found.look([gpu], {"u": "serving/a"}, now=5)
        assert await found.look([gpu], {"u": "serving/a"}, now=10) == ()

    run(servers, body)


@pytest.mark.parametrize(
    ("unattached_", "said"),
    [(None, None), ((), ("MPSAttached", True)), (("pod serving/a on GPU 3 (PID 41)",), ("MPSAttached", False))],
)
def test_the_condition_says_who(unattached_: tuple[str, ...] | None, said: tuple[str, bool] | None) -> None:
    reading = NodeReading(
        driver="580",
        cuda="13",
        injection_style=None,
        gpus=(),
        cpu=0,
        memory=0,
        pods=0,
        mismatches=(),
        unattached=unattached_,
    )
    found = conditions_of(reading, before={}, now="2026-01-01T00:00:00Z").get("MPSAttached")
    assert (found is None) == (said is None)
    if found is not None and said is not None:
        assert (found.type, found.status == "True") == said
        assert all(each in found.message for each in unattached_ or ())


def test_without_the_program_it_says_so_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    absent = MpsServers(folder=tmp_path / "mps", control=str(tmp_path / "absent"))

    async def body() -> None:
        await absent.keep(["GPU-1"])
        await absent.keep(["GPU-1"])
        assert await absent.clients("GPU-1") == frozenset()

    run(absent, body)
    assert len([each for each in caplog.records if "can be started" in each.getMessage()]) == 1


@pytest.mark.parametrize(
    ("processes", "clients", "found"),
    [
        ({"a": [1, 2], "b": [3]}, [1, 2, 3], {}),
        ({"a": [1, 2], "b": [3]}, [1, 2], {"b": (3,)}),
        ({"a": [2, 1]}, [], {"a": (1, 2)}),
        ({}, [7], {}),
    ],
)
def test_processes_beside_the_server(
    processes: dict[str, list[int]], clients: list[int], found: dict[str, tuple[int, ...]]
) -> None:
    assert unattached(processes, clients) == found
