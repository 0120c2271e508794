"""Dead ends: what only a person's change can help."""

from collections import defaultdict
from collections.abc import Sequence

from vrampack.api.modeldeploymentstatus import WaitingStatus
from vrampack.planning.cases import Case
from vrampack.planning.inventory import Inventory
from vrampack.planning.need import Need
from vrampack.planning.rollout import Rolled
from vrampack.planning.verdict import Blocked
from vrampack.units import counted, human_bytes


def dead_end(case: Case, stock: Inventory, rolled: Rolled, waiting: Sequence[WaitingStatus]) -> tuple[str, str] | None:
    """Why a model is stalled: reason and message; None where it is not."""
    serving = f"; the former revision keeps serving with {counted(case.ready, 'replica')}" if case.ready else ""
    if isinstance(case.sized, Blocked):
        return (case.sized.reason, case.sized.message + serving) if case.sized.stalled else None
    if case.taken:
        kinds = " and ".join(case.taken)
        return (
            "NameConflict",
            (
                f"{kinds} {case.model.namespace}/{case.model.name} is not vrampack's and stays as it is; delete or "
                "rename it, or rename this ModelDeployment"
            ),
        )
    waits = case.replicas > len(case.placed) and (waiting or not case.placed)
    if not waits and not rolled.waits:
        return None
    found = _too_large(case, case.live_need or case.sized.need, stock)
    return (found[0], found[1] + serving) if found is not None else None


def _too_large(case: Case, need: Need, stock: Inventory) -> tuple[str, str] | None:
    """Whether no GPU of the pool would do even if it were empty."""
    spec = case.model.spec
    products = set(spec.placement.gpu_products) if spec is not None else set()
    gpus = [
        gpu
        for gpu in stock.gpus.values()
        if stock.pool_of[gpu.node] == case.pool and gpu.usable and (not products or gpu.product in products)
    ]
    if not gpus:
        return None
    largest = max(gpus, key=lambda gpu: gpu.usable - gpu.reserve)
    room = largest.usable - largest.reserve
    if need.bytes > room:
        return (
            "LargerThanAnyGPU",
            (
                f"needs {human_bytes(need.bytes)} on each GPU, and the largest of the pool that is allowed "
                f"({largest.product}) has {human_bytes(room)}, {human_bytes(need.bytes - room)} too little; "
                "lower serving.concurrency or serving.contextLength, or raise parallelism.tensor"
            ),
        )
    fitting: dict[tuple[str, str], int] = defaultdict(int)
    for gpu in gpus:
        if gpu.usable - gpu.reserve >= need.bytes:
            fitting[gpu.node, gpu.product] += 1
    most = max(fitting.values())
    if most < need.gpus:
        return (
            "LargerThanAnyNode",
            (
                f"needs {need.gpus} GPUs of one product on one node, and no node has more than {most} that are "
                "large enough; lower parallelism.tensor"
            ),
        )
    return None
