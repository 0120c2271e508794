"""What processes have used, with their children."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.cputime import CpuTimes

BUSY = """
import time
input()
end = time.process_time() + 0.5
while time.process_time() < end:
    pass
print(flush=True)
input()
"""
"""When it is told to, uses half a second and says so; then it waits for its end."""


class Worker:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def work(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        self._process.stdout.readline()

    def end(self) -> None:
        self._process.communicate("\n")


@pytest.fixture
def child() -> Iterator[Worker]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=pipe, stdout=pipe, text=True) as process:
        yield Worker(process)


def test_children_count_with_their_parent_while_they_run_and_afterwards(child: Worker) -> None:
    before = CpuTimes.of({"parent": os.getpid()})
    child.work()
    assert CpuTimes.of({"parent": os.getpid()}).since(before)["parent"] >= 0.4
    child.end()
    used = CpuTimes.of({"parent": os.getpid()}).since(before)
    assert used["total"] == used["parent"] >= 0.4


def test_a_child_that_is_named_counts_for_itself(child: Worker) -> None:
    child.work()
    both = CpuTimes.of({"parent": os.getpid(), "child": child.pid}).seconds
    alone = CpuTimes.of({"parent": os.getpid()}).seconds
    assert both["child"] >= 0.4
    assert alone["parent"] >= both["parent"] + 0.4
    child.end()
