"""The working copy of hosts and devices that a run of the packer writes to, and the one test of what may go where.

Everything in it only ever gets scarcer: bytes, CPU and slots shrink, neighbours and vetoes grow. So a device that could
not take an item will never take an equal one later in the same run; scans and explanations rest on that.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from vrampack.errors import InvalidInputError
from vrampack.packing.problem import Device, Host, Item, Reason, Spread


@dataclass(slots=True, eq=False, kw_only=True)
class DeviceState:
    """One GPU. ``turn`` is its place in the scan: devices in use before empty ones."""

    host: "HostState"
    id: str
    product: str
    capacity: int
    free: int
    tenants: set[str]
    avoided_by: set[str]
    exclusive: bool
    closed: str | None
    turn: tuple[int, int] = (1, 0)

    @property
    def in_use(self) -> bool:
        """Whether a claim is on it. A foreign process alone does not make it so."""
        return self.exclusive or bool(self.tenants)


@dataclass(slots=True, eq=False, kw_only=True)
class HostState:
    """One node. ``alone``: groups of which a replica placed here requires that no other of them joins it.

    ``version`` counts the items booked: where it has not changed, nor has anything on the host.
    ``products`` holds the devices by product; there and in ``devices`` they are in the order of product and id.
    """

    name: str
    cpu: int | None
    memory: int | None
    slots: int | None
    tenants: set[str]
    closed: str | None
    version: int = 0
    alone: set[str] = field(default_factory=set)
    devices: list[DeviceState] = field(default_factory=list)
    products: dict[str, list[DeviceState]] = field(default_factory=dict)

    def take(self, item: Item, devices: Sequence[DeviceState]) -> None:
        """Book ``item`` on ``devices`` of this host."""
        self.version += 1
        self.tenants.add(item.group)
        if item.spread is Spread.REQUIRE:
            self.alone.add(item.group)
        if self.cpu is not None:
            self.cpu -= item.cpu
        if self.memory is not None:
            self.memory -= item.host_memory
        if self.slots is not None:
            self.slots -= 1
        for device in devices:
            device.free -= item.memory
            device.tenants.add(item.group)
            device.avoided_by |= item.avoid
            device.exclusive |= item.exclusive


def working_copy(hosts: Sequence[Host]) -> list[HostState]:
    """Hosts by name, their devices by product and id, whatever the order in which they came.

    Raises InvalidInputError for a host or a device of a host that comes twice, and for a closed one without a reason.
    """
    states: list[HostState] = []
    for host in sorted(hosts, key=lambda host: host.name):
        if states and states[-1].name == host.name:
            raise InvalidInputError(field="hosts.name", value=host.name, allowed="each host is listed once")
        states.append(_host_state(host))
    return states


def _host_state(host: Host) -> HostState:
    path = f"hosts[{host.name}]"
    state = HostState(
        name=host.name,
        cpu=host.cpu,
        memory=host.memory,
        slots=host.slots,
        tenants=set(host.tenants),
        closed=_reason(host.closed, path),
    )
    ids: set[str] = set()
    for device in sorted(host.devices, key=lambda device: (device.product, device.id)):
        if device.id in ids:
            raise InvalidInputError(field=f"{path}.devices.id", value=device.id, allowed="each device is listed once")
        ids.add(device.id)
        state.devices.append(_device_state(device, state, path))
        state.products.setdefault(device.product, []).append(state.devices[-1])
    return state


def _device_state(device: Device, host: HostState, path: str) -> DeviceState:
    return DeviceState(
        host=host,
        id=device.id,
        product=device.product,
        capacity=device.capacity,
        free=device.free,
        tenants=set(device.tenants),
        avoided_by=set(device.avoided_by),
        exclusive=device.exclusive,
        closed=_reason(device.closed, f"{path}.devices[{device.id}]"),
    )


def _reason(closed: str | None, path: str) -> str | None:
    if closed == "":  # as a reason it would not count as one
        raise InvalidInputError(field=f"{path}.closed", value=closed, allowed="give a reason, or None where it is open")
    return closed


def likeness(item: Item) -> Hashable:
    """Equal for items between which the packer need not tell apart once their order is settled."""
    return (
        item.group,
        item.gpus,
        item.memory,
        item.cpu,
        item.host_memory,
        item.exclusive,
        item.products,
        item.avoid,
        item.spread,
        frozenset(item.refused.items()) if item.refused else None,
    )


def obstacles(item: Item, devices: Sequence[DeviceState]) -> list[str | None]:
    """For each of ``devices``, all of one host: the first reason why it can't take its share of ``item`` by itself.

    None where it can. First means the order of Reason.
    """
    host = devices[0].host
    if host.closed:
        return [host.closed] * len(devices)
    group, products, avoid, exclusive, memory = item.group, item.products, item.avoid, item.exclusive, item.memory
    refused = item.refused.get(host.name)
    spread = _must_spread(item, host)
    last = _shortage(item, host)
    lack = last or Reason.INSUFFICIENT_GPU_MEMORY
    found: list[str | None] = []
    for device in devices:
        if device.closed or refused:
            found.append(device.closed or refused)
        elif products is not None and device.product not in products:
            found.append(Reason.PRODUCT_MISMATCH)
        elif group in device.avoided_by or (avoid and not device.tenants.isdisjoint(avoid)):
            found.append(Reason.AVOIDED_NEIGHBOUR)
        elif spread:
            found.append(Reason.SPREAD)
        elif device.exclusive:
            found.append(Reason.GPU_EXCLUSIVE)
        elif exclusive and device.tenants:
            found.append(Reason.GPU_NOT_EMPTY)
        else:
            found.append(lack if device.free < memory else last)
    return found


def host_obstacle(item: Item, host: HostState) -> str | None:
    """The first reason why ``host`` can't take ``item``, which needs no device."""
    if _must_spread(item, host):
        return host.closed or item.refused.get(host.name) or Reason.SPREAD
    return host.closed or item.refused.get(host.name) or _shortage(item, host)


def _must_spread(item: Item, host: HostState) -> bool:
    return item.group in (host.tenants if item.spread is Spread.REQUIRE else host.alone)


def _shortage(item: Item, host: HostState) -> Reason | None:
    # As in Kubernetes, who asks for no CPU or RAM is welcome even where more is promised than there is.
    if host.cpu is not None and host.cpu < item.cpu > 0:
        return Reason.INSUFFICIENT_CPU
    if host.memory is not None and host.memory < item.host_memory > 0:
        return Reason.INSUFFICIENT_MEMORY
    if host.slots is not None and host.slots < 1:
        return Reason.INSUFFICIENT_SLOTS
    return None
