"""Ends a group of processes when the process that wanted them is gone, however it went.

Run as ``python -I guard.py [FOLDER]``, as the leader of a process group of its own. Its standard input is a pipe whose
other end only the owner holds: a closed pipe, a clean exit, Ctrl-C and SIGKILL all look the same from here, the end of
input. Then the whole group is killed, this process with it, and FOLDER, where given, is removed.

A process of the group is started with ``Popen(process_group=PID of this process)``. Between fork and exec it still
holds a copy of the pipe's other end, so the end of input can't come before it has joined: none can slip away. That is
why this is a group and not PR_SET_PDEATHSIG, which needs Linux and hangs on the thread that started the child.
"""

import os
import shutil
import signal
import sys
import time


def main(folder: str | None) -> None:
    while os.read(0, 4096):
        pass
    if folder is not None:
        _remove_after_death(folder)
    os.killpg(0, signal.SIGKILL)


def _remove_after_death(folder: str) -> None:
    """Forks a process that removes ``folder`` as soon as this one, and so the whole group, is killed."""
    death_of_guard, held_by_guard = os.pipe()
    outside_the_group, told_by_child = os.pipe()
    if os.fork() != 0:
        os.close(told_by_child)
        os.read(outside_the_group, 1)
        return
    os.setsid()
    os.close(told_by_child)
    os.close(held_by_guard)
    os.read(death_of_guard, 1)
    for _ in range(100):  # the last write of a dying process may still put a file there
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):  # noqa: PTH110 - pathlib would double the start-up time of this process
            break
        time.sleep(0.05)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
