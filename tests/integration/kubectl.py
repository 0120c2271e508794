"""The real kubectl, as one user or another."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from vrampack.localcluster.cluster import LocalCluster

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """Runs kubectl with the same options each time: a namespace, a user. By default the cluster's admin."""

    cluster: LocalCluster
    options: tuple[str, ...] = ()
    kubeconfig: Path | None = None

    async def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Its output. Raises ClusterError where kubectl fails."""
        command = (*self.options, *arguments)
        return (await self.cluster.kubectl(*command, stdin=stdin, kubeconfig=self.kubeconfig)).stdout

    async def refused(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl says. Fails the test where kubectl succeeds."""
        command = (*self.options, *arguments)
        done = await self.cluster.kubectl(*command, stdin=stdin, kubeconfig=self.kubeconfig, check=False)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} was accepted: {done.stdout}"
        return done.stderr

    async def get(self, *arguments: str) -> Any:
        return json.loads(await self("get", *arguments, "-o", "json"))

    async def apply(self, manifest: Mapping[str, Any]) -> None:
        await self("apply", "-f", "-", stdin=json.dumps(manifest))

    async def patch(self, pod: str, operations: Sequence[Mapping[str, Any]]) -> None:
        await self("patch", "pod", pod, "--type=json", "-p", json.dumps(operations))

    def within(self, namespace: str) -> Self:
        return replace(self, options=(*self.options, "-n", namespace))

    def acting_as(self, user: str) -> Self:
        return replace(self, options=(*self.options, f"--as={user}"))

    def signed_in(self, kubeconfig: Path) -> Self:
        return replace(self, kubeconfig=kubeconfig)


async def until(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks again and again; each asking takes as long as a kubectl does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS:.0f} s"
