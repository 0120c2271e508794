"""What the GPUs have left: usable memory less reserve, foreign use and claims, as hosts for the packer."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from vrampack.api.common import Quantity
from vrampack.api.gpunode import GPUClaim, GPUStatus
from vrampack.errors import InvalidInputError
from vrampack.packing.problem import Device, Host
from vrampack.planning.closing import gpu_obstacle, node_obstacle
from vrampack.planning.links import link_domains
from vrampack.planning.need import Company, Need, company
from vrampack.planning.poolnodes import pools_of, products_of
from vrampack.planning.prices import prices_of
from vrampack.planning.reasons import Obstacle
from vrampack.planning.slices import devices_of
from vrampack.planning.snapshot import GPUNodeView, Grant, NodeView, PodView, PoolView, Snapshot
from vrampack.sharing.registry import mechanism
from vrampack.units import parse_millicores


@dataclass(frozen=True, slots=True, kw_only=True)
class GPU:
    """One GPU and its account, bytes. ``held``: by pod UID, the larger of claim and observed use."""

    uuid: str
    node: str
    index: int
    product: str
    usable: int
    reserve: int
    foreign: int
    held: Mapping[str, int]
    claimed: int
    closed: Obstacle | None
    tolerance: float = 0.0
    """Percent of a claim that may be used on top of it."""
    peaks: Mapping[str, int] = field(default_factory=dict)
    """The most that each pod was seen to use, by its UID."""
    offered: bool | None = None
    """Whether a device plugin offers it; None: nobody knows."""
    outlived: Mapping[str, GPUClaim] = field(default_factory=dict)
    """Claims of pods that are gone and whose processes are not, by UID: they live until NVML says so."""
    alone: bool = False
    """Whether it is for one replica: a MIG device."""

    @property
    def free(self) -> int:
        """May be negative: then the world took what was claimed."""
        return self.usable - self.reserve - self.foreign - sum(self.held.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All GPUs by UUID, the hosts by pool, and which pods hold a claim on which GPU."""

    gpus: Mapping[str, GPU]
    hosts: Mapping[str, tuple[Host, ...]]
    pool_of: Mapping[str, str]
    overlaps: Mapping[str, tuple[str, ...]]
    """Pools that match a node of another pool, by pool."""
    tenants: Mapping[str, tuple[PodView, ...]]
    """Pods with a live claim, by GPU."""
    observed: Mapping[tuple[str, str], int]
    """Bytes in use, by GPU and pod UID, as the agents saw them."""

    @property
    def lingering(self) -> Mapping[str, Mapping[str, int]]:
        """By GPU and pod UID: bytes of processes whose pod holds no claim on it any more."""
        return {
            uuid: {
                uid: size
                for uid, size in gpu.held.items()
                if not any(pod.uid == uid for pod in self.tenants.get(uuid, ()))
            }
            for uuid, gpu in self.gpus.items()
        }


def holders(pods: Iterable[PodView]) -> dict[str, tuple[PodView, ...]]:
    """Pods whose claim lives, by GPU: a claim ends with its pod, or when the pod has Succeeded or Failed."""
    found: dict[str, list[PodView]] = defaultdict(list)
    for pod in pods:
        if pod.claim is not None and not pod.ended:
            for uuid in pod.claim.gpus:
                found[uuid].append(pod)
    return {uuid: tuple(each) for uuid, each in found.items()}


def inventory(snapshot: Snapshot) -> Inventory:
    """The account of every GPU that a GPUNode names."""
    pools, overlaps = pools_of(snapshot)
    by_name = {pool.name: pool for pool in snapshot.pools}
    nodes = {node.name: node for node in snapshot.nodes}
    companies = _companies(snapshot)
    tenants = holders(snapshot.pods)
    ended = {pod.uid: pod for pod in snapshot.pods if pod.ended and pod.claim is not None}
    ended |= {pod.uid: pod for pod in snapshot.memory.departed}
    obscure = {uuid for pod in snapshot.pods if not pod.ended for uuid in pod.obscure}
    on_node: dict[str, list[PodView]] = defaultdict(list)
    # The first by name has a GPU that two nodes report.
    devices = {view.name: devices_of(view, by_name[pools[view.name]], ended) for view in snapshot.gpu_nodes}
    gpu_node = {gpu.uuid: view.name for view in reversed(snapshot.gpu_nodes) for gpu in devices[view.name]}
    for pod in snapshot.pods:
        if not pod.ended and (place := pod.node or (gpu_node.get(pod.claim.gpus[0], "") if pod.claim else "")):
            on_node[place].append(pod)
    granted = _granted_to_others(snapshot)
    gpus: dict[str, GPU] = {}
    hosts: dict[str, list[Host]] = {pool.name: [] for pool in snapshot.pools}
    prices = {name: prices_of(by_name[name].spec, found) for name, found in products_of(devices, pools).items()}
    for view in snapshot.gpu_nodes:
        pool = by_name[pools[view.name]]
        account = [
            _gpu(view, gpu, pool, tenants.get(gpu.uuid, ()), granted.get(gpu.uuid, ()), ended)
            for gpu in devices[view.name]
        ]
        # Two nodes can't have one GPU, or its memory would be given away twice.
        account = [replace(gpu, closed=Obstacle.GPU_REPORTED_TWICE) if gpu.uuid in gpus else gpu for gpu in account]
        account = [replace(gpu, closed=Obstacle.GPU_CLAIM_OBSCURE) if gpu.uuid in obscure else gpu for gpu in account]
        gpus.update((gpu.uuid, gpu) for gpu in account if gpu.uuid not in gpus)
        hosts[pool.name].append(
            _host(
                view,
                nodes.get(view.name),
                pool,
                account,
                on_node.get(view.name, []),
                tenants,
                companies,
                prices[pool.name],
            )
        )
    return Inventory(
        gpus=gpus,
        hosts={name: tuple(each) for name, each in hosts.items()},
        pool_of=pools,
        overlaps=overlaps,
        tenants=tenants,
        observed={
            (gpu.uuid, process.pod_uid): process.bytes.bytes
            for view in snapshot.gpu_nodes
            for gpu in view.status.gpus or ()
            for process in gpu.processes or ()
        },
    )


def group_of(pod: PodView) -> str:
    """The packer's word for the model of a pod."""
    return f"{pod.namespace}/{pod.model}"


def _granted_to_others(snapshot: Snapshot) -> dict[str, tuple[Grant, ...]]:
    """What kube-scheduler gave of each GPU to pods that are not ours."""
    ours = {pod.uid for pod in snapshot.pods}
    found: dict[str, tuple[Grant, ...]] = {}
    for grant in snapshot.devices.grants if snapshot.devices is not None else ():
        if grant.pod_uid not in ours:
            found[grant.uuid] = (*found.get(grant.uuid, ()), grant)
    return found


def _claim(pod: PodView) -> GPUClaim:
    assert pod.claim is not None
    return GPUClaim(namespace=pod.namespace, pod=pod.name, uid=pod.uid, bytes=Quantity.of(pod.claim.bytes))


def _remembered(gpu: GPUStatus) -> dict[str, GPUClaim]:
    """Claims of the pods whose processes are on a GPU, by UID, as the node's agent knows them."""
    found = {}
    for each in gpu.processes or ():
        namespace, _, name = (each.pod or "").partition("/")
        if each.claim is not None and namespace and name:
            found[each.pod_uid] = GPUClaim(namespace=namespace, pod=name, uid=each.pod_uid, bytes=each.claim)
    return found


def _gpu(
    view: GPUNodeView,
    gpu: GPUStatus,
    pool: PoolView,
    tenants: tuple[PodView, ...],
    granted: tuple[Grant, ...],
    ended: Mapping[str, PodView],
) -> GPU:
    spec = next((each for each in view.spec.gpus if each.uuid == gpu.uuid), None)
    sliced = mechanism(pool.spec.mechanism.value).sliced
    usable = gpu.memory.bytes if gpu.memory is not None else 0
    observed: dict[str, int] = {}
    for process in gpu.processes or ():
        observed[process.pod_uid] = observed.get(process.pod_uid, 0) + process.bytes.bytes
    claims = {pod.uid: pod.claim.bytes for pod in tenants if pod.claim is not None}
    # What stands here of a claim is the operator's word; a pod that went before that is known by its node's agent.
    outlived = _remembered(gpu) | {each.uid: each for each in gpu.claims or () if each.uid in observed}
    outlived = {uid: each for uid, each in outlived.items() if uid not in claims}
    outlived |= {uid: _claim(ended[uid]) for uid in observed if uid in ended}
    sizes = claims | {uid: each.bytes.bytes for uid, each in outlived.items()}
    held = {uid: max(sizes.get(uid, 0), observed.get(uid, 0)) for uid in sorted(sizes.keys() | observed.keys())}
    return GPU(
        uuid=gpu.uuid,
        node=view.name,
        index=gpu.index if gpu.index is not None else 0,
        product=gpu.product or "",
        usable=usable,
        reserve=pool.spec.reserve_per_gpu.bytes + (spec.reserve.bytes if spec is not None else 0),
        # What was given out may not be in use yet, and what is in use was mostly given out: the larger counts.
        foreign=max(
            sum(each.bytes.bytes for each in gpu.foreign or ()),
            sum(usable if each.bytes is None else each.bytes for each in granted),
        ),
        held=held,
        claimed=sum(sizes.values()),
        closed=gpu_obstacle(gpu, wishes=view.spec.gpus, pool=pool.spec),
        tolerance=pool.spec.overuse.tolerance.percent,
        peaks={each.pod_uid: each.peak.bytes for each in gpu.processes or () if each.peak is not None},
        offered=gpu.offered,
        outlived=outlived,
        alone=sliced,
    )


def _host(
    view: GPUNodeView,
    node: NodeView | None,
    pool: PoolView,
    account: list[GPU],
    pods: list[PodView],
    tenants: Mapping[str, tuple[PodView, ...]],
    companies: Mapping[str, Company],
    prices: Mapping[str, int] | None,
) -> Host:
    free = view.status.node
    # The agent's figures leave vrampack's pods out, so they do not lag behind what is placed now.
    cpu = parse_millicores(free.cpu) if free is not None and free.cpu is not None else (node.cpu if node else None)
    memory = free.memory.bytes if free is not None and free.memory is not None else (node.memory if node else None)
    slots = free.pods if free is not None and free.pods is not None else (node.pods if node else None)
    links = link_domains(view.status.gpus or ())
    return Host(
        name=view.name,
        devices=tuple(
            replace(_device(gpu, tenants.get(gpu.uuid, ()), companies, pool, prices), link=links.get(gpu.uuid))
            for gpu in account
        ),
        cpu=None if cpu is None else cpu - sum(pod.cpu for pod in pods),
        memory=None if memory is None else memory - sum(pod.memory for pod in pods),
        slots=None if slots is None else slots - len(pods),
        tenants=frozenset(map(group_of, pods)),
        closed=node_obstacle(view, node, pool=pool.spec),
    )


def _device(
    gpu: GPU,
    tenants: tuple[PodView, ...],
    companies: Mapping[str, Company],
    pool: PoolView,
    prices: Mapping[str, int] | None,
) -> Device:
    most = 1 if gpu.alone else pool.spec.max_replicas_per_gpu
    return Device(
        id=gpu.uuid,
        product=gpu.product,
        capacity=gpu.usable - gpu.reserve,
        free=gpu.free,
        tenants=frozenset(map(group_of, tenants)),
        exclusive=any(companies[pod.uid].exclusive for pod in tenants),
        avoided_by=frozenset(f"{pod.namespace}/{name}" for pod in tenants for name in companies[pod.uid].avoid),
        closed=gpu.closed,
        # Fewer than none where there are more than the pool allows now.
        slots=None if most is None else most - len(tenants),
        price=None if prices is None else prices[gpu.product],
        slice_of=f"{gpu.node}/{gpu.index}" if gpu.alone else None,
    )


def _companies(snapshot: Snapshot) -> Mapping[str, Company]:
    """What each pod with a claim has beside it, by UID. Replicas of one template say the same, and are read once."""
    models = {model.key: model for model in snapshot.models}
    known: dict[tuple[str, str], Company] = {}
    found = {}
    for pod in snapshot.pods:
        if pod.claim is None or pod.ended:
            continue
        key = (group_of(pod), pod.need)
        if key not in known:
            model = models.get(key[0])
            spec = model.spec if model is not None else None
            known[key] = company(said(pod), spec.placement if spec is not None else None)
        found[pod.uid] = known[key]
    return found


def said(pod: PodView) -> Need | None:
    """The need that a pod names; None where it can't be read."""
    try:
        return Need.from_json(pod.need)
    except InvalidInputError:
        return None
