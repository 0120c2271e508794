"""The command line of vrampack, as the cluster's admin uses it."""

import asyncio
import sys

from tests.integration.claims import RELEASE
from tests.integration.harness import World


async def command(world: World, *words: str) -> tuple[int, str, str]:
    """Exit status, what it said, and what it complained of."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vrampack",
        *words,
        f"--kubeconfig={world.cluster.kubeconfig}",
        f"--operator-namespace={RELEASE}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
