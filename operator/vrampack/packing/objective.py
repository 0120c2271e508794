"""What a plan is judged by: one measure for the planner, its bounds and the benchmarks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vrampack.errors import InvalidInputError
from vrampack.packing.layouts import parts
from vrampack.packing.problem import Device, Host, Item, Objective, Packing


@dataclass(frozen=True, slots=True, order=True)
class Cost:
    """Lexicographic, less is better. Costs of packings of the same items on the same hosts compare.

    ``unplaced``: for each priority, the highest first: how many items have no place, and their bytes over all GPUs.
    ``opened``: the memory (or the price) of the devices that the packing puts into use; with Objective.BALANCED the
    unevenness instead: the sum over all devices of the square of the share in use, in units of 2^-20.
    ``gpus``: how many devices it puts into use; slices of one GPU count once. ``moves``: replicas that are moved.
    """

    unplaced: tuple[tuple[int, int], ...]
    opened: int
    gpus: int
    moves: int


def cost(
    *, hosts: Sequence[Host], packing: Packing, objective: Objective = Objective.FEWEST_GPUS, moves: int = 0
) -> Cost:
    """What ``packing`` of items on ``hosts`` costs. ``moves`` is the caller's count.

    Raises InvalidInputError where some devices have a price and others have none.
    """
    devices = {(host.name, device.id): device for host in hosts for device in host.devices}
    for cut in packing.cuts:
        whole = devices.pop((cut.host, cut.device))
        devices |= {(cut.host, part.id): part for part in parts(whole, cut.layout)}
    priced = {device.price is not None for device in devices.values()}
    if len(priced) > 1:
        bare = min(name for name, device in devices.items() if device.price is None)
        raise InvalidInputError(
            field=f"hosts[{bare[0]}].devices[{bare[1]}].price",
            value=None,
            allowed="all devices have a price or none has",
        )
    taken: Counter[tuple[str, str]] = Counter()
    for placement in packing.placed:
        for name in placement.devices:
            taken[placement.host, name] += placement.item.memory
    fresh = {name: devices[name] for name in taken if not devices[name].in_use}
    opened = sum(device.capacity if device.price is None else device.price for device in fresh.values())
    if objective is Objective.BALANCED:
        opened = sum(_unevenness(device, taken[name]) for name, device in devices.items())
    return Cost(
        unplaced=_unplaced(
            (placement.item for placement in packing.placed), [unplaced.item for unplaced in packing.unplaced]
        ),
        opened=opened,
        gpus=len({(host, device.slice_of or name) for (host, name), device in fresh.items()}),
        moves=moves,
    )


def _unplaced(placed: Iterable[Item], unplaced: Sequence[Item]) -> tuple[tuple[int, int], ...]:
    count: Counter[int] = Counter()
    memory: Counter[int] = Counter()
    for item in unplaced:
        count[item.priority] += 1
        memory[item.priority] += item.gpus * item.memory
    levels = sorted({item.priority for item in placed} | count.keys(), reverse=True)
    return tuple((count[level], memory[level]) for level in levels)


def _unevenness(device: Device, taken: int) -> int:
    used = max(0, device.capacity - device.free) + taken
    return (used << 10) ** 2 // max(device.capacity, 1) ** 2
