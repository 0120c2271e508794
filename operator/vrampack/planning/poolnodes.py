"""Which nodes a pool has, and what GPUs are in them."""

from collections import defaultdict
from collections.abc import Mapping

from vrampack.api.gpunode import GPUStatus
from vrampack.planning.snapshot import Snapshot


def pools_of(snapshot: Snapshot) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """The pool of each GPU node: the first by name that matches, the default pool last of all. And by pool, the nodes
    that another one matches too."""
    labels = {node.name: node.labels for node in snapshot.nodes}
    named = sorted((pool for pool in snapshot.pools if pool.generation or pool.name != "default"), key=lambda p: p.name)
    pool_of: dict[str, str] = {}
    overlaps: dict[str, set[str]] = defaultdict(set)
    for view in snapshot.gpu_nodes:
        have = labels.get(view.name, {})
        matching = [
            pool.name
            for pool in named
            if all(have.get(key) == value for key, value in pool.spec.node_selector.items())
            and (pool.name != "default" or pool.spec.node_selector)
        ]
        pool_of[view.name] = matching[0] if matching else "default"
        if len(matching) > 1:
            for name in matching:
                overlaps[name].add(view.name)
    return pool_of, {name: tuple(sorted(found)) for name, found in overlaps.items()}


def products_of(
    devices: Mapping[str, tuple[GPUStatus, ...]], pool_of: Mapping[str, str]
) -> Mapping[str, frozenset[str]]:
    """By pool, what its nodes have."""
    found: dict[str, set[str]] = defaultdict(set)
    for node, gpus in devices.items():
        found[pool_of[node]] |= {gpu.product or "" for gpu in gpus}
    return {name: frozenset(products) for name, products in found.items()}
