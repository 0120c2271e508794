"""The way from how replicas are placed to a better packing of the same ones, as moves that can be carried out.

A packing says which replicas belong together, not on which of several equal GPUs: so its GPUs are first told apart such
that the most bytes stay where they are. What then still differs falls into parts that have no GPU in common. Each part
is a list of moves of its own, made where it closes more than it loads anew; each of its moves claims the new place
before the old one is given up.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from vrampack.packing.moving import Done, opened, shares, told, undo, unkind, worth
from vrampack.packing.problem import Host, Move, Packing, Resident
from vrampack.packing.rules import Tightest
from vrampack.packing.tenancy import Tenancy

_MOST_COMPARED = 256
"""GPUs of a kind, that differ from what they should hold, at most: each is compared with all others."""

_Spot = tuple[str, str]
"""Host and device."""
_Class = tuple[str, int, int]
"""Group, devices and bytes: replicas that stand for one another."""
_Content = Counter[_Class]
_Step = tuple[Resident, _Spot]
"""Who goes where."""


def transition(
    *, hosts: Sequence[Host], residents: Sequence[Resident], target: Packing, limit: int
) -> tuple[Move, ...]:
    """At most ``limit`` moves towards ``target``, which places the replicas of ``residents`` on the same devices.

    ``residents``: all replicas with a claim on ``hosts``. What needs several devices, or may not be moved, stays. What
    is opened shrinks with each part of the way, by no less than the bytes that it loads anew. Empty where no part
    of it is worth that, or can be carried out move by move.

    Raises InvalidInputError as Tenancy does.
    """
    tenancy = Tenancy(hosts, residents)
    moves: list[Move] = []
    for part in _parts(hosts, residents, target):
        if len(part) <= limit - len(moves):
            moves += _carried_out(tenancy, part)
    return tuple(moves)


def _carried_out(tenancy: Tenancy, steps: Sequence[_Step]) -> tuple[Move, ...]:
    """Each step as soon as there is room for it; nothing where one finds none."""
    before = opened(tenancy.board)
    done: Done = []
    waiting = sorted(steps, key=lambda step: (-step[0].item.memory, step[0].item.key))
    while waiting:
        left = [step for step in waiting if not _moved(tenancy, step, done)]
        if len(left) == len(waiting):
            break
        waiting = left
    gain = 0 if waiting or unkind(tenancy, done) else worth(before, opened(tenancy.board), done)
    if not gain:
        undo(tenancy, done)
        return ()
    return told(done, shares(gain, [old.item.memory for old, _ in done]))


def _moved(tenancy: Tenancy, step: _Step, done: Done) -> bool:
    old, (host, device) = step
    (row,) = tenancy.rows(Resident(item=old.item, host=host, devices=(device,))).tolist()
    shut = np.delete(np.arange(len(tenancy.board.free)), row)
    new = tenancy.settle(old.item, Tightest(), shut=shut)
    if new is None:
        return False
    tenancy.swap(old, new)
    done.append((old, new))
    return True


@dataclass(slots=True, eq=False)
class _Bin:
    """A device: what it holds, and what it is to hold."""

    spot: _Spot
    weight: int
    here: list[Resident] = field(default_factory=list)
    wanted: _Content = field(default_factory=Counter)

    @property
    def content(self) -> _Content:
        return Counter(map(_class_of, self.here))


def _parts(hosts: Sequence[Host], residents: Sequence[Resident], target: Packing) -> list[list[_Step]]:
    """The parts that gain something, the most for each of their moves first."""
    bins = _bins(hosts, residents, target)
    steps = list(_steps(bins))
    together = _Together()
    for source, goal, _ in steps:
        together.join(source.spot, goal.spot)
    part_of: dict[_Spot, list[_Step]] = defaultdict(list)
    gains: Counter[_Spot] = Counter()
    for _, goal, resident in steps:
        part_of[together.root(goal.spot)].append((resident, goal.spot))
    for each in bins:
        if each.spot in together:
            gains[together.root(each.spot)] += each.weight * (bool(each.here) - bool(each.wanted))
    found = [
        (-gains[root] / len(part), root, part)
        for root, part in part_of.items()
        if gains[root] > 0 and all(resident.movable and resident.item.gpus == 1 for resident, _ in part)
    ]
    return [part for *_, part in sorted(found, key=lambda each: each[:2])]


def _steps(bins: Sequence[_Bin]) -> Iterator[tuple[_Bin, _Bin, Resident]]:
    """Who leaves one device for another."""
    leaving: dict[_Class, list[tuple[_Bin, Resident]]] = defaultdict(list)
    coming: dict[_Class, list[_Bin]] = defaultdict(list)
    for each in bins:
        over = each.content - each.wanted
        for resident in sorted(each.here, key=lambda one: (not one.movable, one.item.key)):
            if over[_class_of(resident)] > 0:
                over[_class_of(resident)] -= 1
                leaving[_class_of(resident)].append((each, resident))
        for class_, number in sorted((each.wanted - each.content).items()):
            coming[class_] += [each] * number
    for class_, some in leaving.items():
        for (source, resident), goal in zip(some, coming[class_], strict=False):
            yield source, goal, resident


def _bins(hosts: Sequence[Host], residents: Sequence[Resident], target: Packing) -> list[_Bin]:
    here: dict[_Spot, list[Resident]] = defaultdict(list)
    for resident in sorted(residents, key=lambda each: each.item.key):
        for name in resident.devices:
            here[resident.host, name].append(resident)
    known = {resident.item.key for resident in residents}
    wanted: dict[_Spot, _Content] = defaultdict(Counter)
    for placement in target.placed:
        if placement.item.key in known:
            item = placement.item
            for name in placement.devices:
                wanted[placement.host, name][item.group, item.gpus, item.memory] += 1
    kinds: dict[object, list[_Bin]] = defaultdict(list)
    for host in sorted(hosts, key=lambda each: each.name):
        for device in sorted(host.devices, key=lambda each: each.id):
            spot = (host.name, device.id)
            weight = device.capacity if device.price is None else device.price
            bin_ = _Bin(spot=spot, weight=weight, here=here[spot])
            foreign = device.free + sum(each.item.memory for each in here[spot])
            kinds[device.product, device.capacity, weight, foreign, device.closed, host.closed].append(bin_)
    for alike in kinds.values():
        _match(alike, [wanted[each.spot] for each in alike])
    return list(chain.from_iterable(kinds.values()))


def _match(bins: Sequence[_Bin], contents: Sequence[_Content]) -> None:
    """Tells each of these equal devices which of ``contents`` it is to hold, the ones with the most in common first."""
    free = defaultdict(list)
    for each in bins:
        free[frozenset(each.content.items())].append(each)
    left: list[_Content] = []
    for content in contents:
        same = free[frozenset(content.items())]
        if same:
            same.pop(0).wanted = content
        elif content:
            left.append(content)
    others = [each for some in free.values() for each in some]
    if len(left) > _MOST_COMPARED:  # too many to be compared: they stay as they are
        for each in others:
            each.wanted = each.content
        return
    left.sort(key=lambda content: (-_bytes(content), sorted(content.items())))
    for content in left:
        best = max(others, key=lambda each: (_bytes(each.content & content), -_bytes(each.content - content)))
        best.wanted = content
        others.remove(best)


def _class_of(resident: Resident) -> _Class:
    return resident.item.group, resident.item.gpus, resident.item.memory


def _bytes(content: _Content) -> int:
    return sum(memory * number for (_, _, memory), number in content.items())


class _Together:
    """Devices that one part of the way has in common."""

    def __init__(self) -> None:
        self._up: dict[_Spot, _Spot] = {}

    def __contains__(self, spot: _Spot) -> bool:
        return spot in self._up

    def root(self, spot: _Spot) -> _Spot:
        """The one that stands for all of them."""
        self._up.setdefault(spot, spot)
        while self._up[spot] != spot:
            spot = self._up[spot]
        return spot

    def join(self, one: _Spot, other: _Spot) -> None:
        """They are of one part."""
        first, second = sorted((self.root(one), self.root(other)))
        self._up[second] = first
