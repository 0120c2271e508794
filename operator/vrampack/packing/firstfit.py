"""First-fit decreasing over the whole set of waiting replicas at once, onto the bytes that are really free.

On identical empty devices and single-device items it opens at most 11/9 of the optimum plus 6/9 of a device
(Dósa, Li, Han, Tuza: Tight absolute bound for First Fit Decreasing bin-packing, TCS 510, 2013).
"""

from collections.abc import Sequence
from typing import NoReturn

from vrampack.errors import InvalidInputError
from vrampack.packing.explain import explain
from vrampack.packing.problem import Host, Item, Objective, Packing, Placement
from vrampack.packing.scan import choose, scan_for
from vrampack.packing.state import working_copy


def pack(*, hosts: Sequence[Host], items: Sequence[Item], objective: Objective = Objective.FEWEST_GPUS) -> Packing:
    """Give each item its devices, or the reasons why it has none.

    Items are taken by priority (higher first), rank (lower first), then those with several GPUs before those with one,
    by bytes over all their GPUs (more first), exclusive before shared, and by key. Several GPUs come first because they
    must be free at once on one host: single ones find room in the gaps that are left, the other way round a few small
    ones scattered over the hosts would shut all of them out.

    The result depends on the sets of hosts, devices and items only, never on the order in which they come. Claims that
    exist are never moved. An item that fits nowhere does not stop those after it; its reasons describe the devices as
    they are when everything else is placed.

    Raises InvalidInputError for a negative demand, for a key, a host or a device of a host that comes twice, and for an
    empty string where a reason belongs.
    """
    state = working_copy(hosts)
    scan = scan_for(objective, state)
    placed: list[Placement] = []
    waiting: list[Item] = []
    for item in _in_turn(items):
        choice = choose(item, state, scan)
        if choice is None:
            waiting.append(item)
            continue
        host, devices = choice
        host.take(item, devices)
        scan.taken(devices)
        placed.append(Placement(item=item, host=host.name, devices=tuple(device.id for device in devices)))
    return Packing(placed=tuple(placed), unplaced=tuple(explain(waiting, state)))


def _in_turn(items: Sequence[Item]) -> list[Item]:
    keys: set[str] = set()
    for item in items:
        if item.key in keys:
            raise InvalidInputError(field="items.key", value=item.key, allowed="each item is listed once")
        keys.add(item.key)
        if min(item.gpus, item.memory, item.cpu, item.host_memory) < 0:
            _refuse_negative(item)
        if "" in item.refused.values():
            raise InvalidInputError(field=f"items[{item.key}].refused", value="", allowed="each host has a reason")
    return sorted(items, key=_turn)


def _refuse_negative(item: Item) -> NoReturn:
    demands = {"gpus": item.gpus, "memory": item.memory, "cpu": item.cpu, "host_memory": item.host_memory}
    name, value = next((name, value) for name, value in demands.items() if value < 0)
    raise InvalidInputError(field=f"items[{item.key}].{name}", value=value, allowed="a demand is 0 or more")


def _turn(item: Item) -> tuple[int, int, bool, int, bool, str]:
    return (-item.priority, item.rank, item.gpus < 2, -item.gpus * item.memory, not item.exclusive, item.key)
