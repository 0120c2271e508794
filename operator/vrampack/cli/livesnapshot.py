"""A snapshot of a live cluster, as a pass of the operator begins with it."""

import time
from pathlib import Path
from typing import Any

from vrampack.errors import ClusterError
from vrampack.kube.client import Kube
from vrampack.kube.observe import Observer
from vrampack.planning.snapshot import Memory, Snapshot

_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
_FORBIDDEN = 403


async def live_snapshot(kubeconfig: Path | None, *, namespace: str) -> tuple[Snapshot, list[dict[str, Any]]]:
    """The cluster now, and its PriorityClasses. ``namespace``: the operator's.

    Raises ClusterError where it can't be read, and says what is needed.
    """
    kube = await Kube.connect(None if kubeconfig is None else str(kubeconfig))
    try:
        now = time.time()
        observer = Observer(kube, namespace=namespace, lease_clock=time.monotonic)
        snapshot = await observer.observe(now=now, memory=Memory(started=now), resolutions={})
        return snapshot, await kube.list(_CLASSES)
    except ClusterError as error:
        if error.status == _FORBIDDEN:
            raise ClusterError(
                f"{error}; this looks at the whole fleet, so it needs to list pods, nodes, Deployments, Leases in "
                f"{namespace} and vrampack's own kinds everywhere",
                status=_FORBIDDEN,
            ) from error
        raise
    finally:
        await kube.close()
