"""Which GPU to fill: the one whose host loses least of what it is worth to the replicas that are typically asked for.

A device is worth the most that typical replicas could make of its free bytes, at the prices of ``packing.prices``: what
is left behind a badly chosen neighbour is worth less than its bytes. A host's CPU may not suffice for that. So its
worth is that of the programme that fills all its devices within its CPU, by Lagrange's relaxation: the least, over
prices of CPU, of what the devices are worth to replicas that pay for theirs, and of its CPU at that price. Which
replicas will come is not ours to choose: the worth is the mean over futures in which those of each size take little,
middling or much CPU.

Products are not all asked for alike: what everyone can use anyway is taken before what some replicas depend on
(``scarcity``). The loss is the measure of fragmentation; that of Weng et al. (Beware of Fragmentation, USENIX ATC 2023)
counts the bytes that classes can't use one by one, and does not see which of them belong together.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vrampack.packing.arrays import IntArray
from vrampack.packing.board import Board
from vrampack.packing.knapsack import FloatArray, filled
from vrampack.packing.mix import Typical
from vrampack.packing.prices import admits, level, share_prices, steps_of
from vrampack.packing.problem import Criterion, Item

LEAST_PRICE = 0.1
"""A share's price is at least this part of its bytes: there are not always enough small ones to fill every gap."""
QUANTILES = (0.25, 0.5, 0.75)
"""The futures: how much CPU replicas of a size take, as a quantile of the mix."""
_CPU_PRICES = (0.0, *(2.0**power for power in range(-4, 4)))
"""Tried prices of CPU, as multiples of what the mix pays for it on average."""
_ROUNDING = 1e-6
"""Losses that differ by less, in devices, are equal; then the fuller host is taken, so that whole ones stay whole."""
_FULLER = 1e-3
_SMALLER = 1e-8
"""Of hosts equally full, the smaller: it could not take so many devices' replicas anyway."""
_SWEEPS = 50
_LONG = 1.5
"""A product that lasts so many times as long as its even share is plentiful; more makes no difference."""


class Worth:
    """What free devices are worth to a typical mix, in bytes."""

    def __init__(self, mix: Sequence[Typical], capacities: Mapping[str, int]) -> None:
        """``capacities``: bytes of a device, by product; there is at least one.

        Raises VrampackError where the prices can't be worked out.
        """
        self.products = {name: number for number, name in enumerate(capacities)}
        self.unit = max(capacities.values())
        prices = np.maximum(share_prices(mix, capacities), [LEAST_PRICE * each.memory for each in mix])
        weight = np.array([each.weight if each.gpus else 0.0 for each in mix])
        gpus = np.array([max(each.gpus, 1) for each in mix])
        cpu = np.array([float(each.cpu) for each in mix])
        spent = float((weight * cpu).sum())
        average = float((weight * gpus * prices).sum()) / spent if spent else 0.0
        rates = np.array(_CPU_PRICES) * average
        self._rates: FloatArray = np.tile(rates, len(QUANTILES))
        """Futures and prices of CPU: the first axis of what follows."""
        self._capacity = np.array(list(capacities.values()), np.int64)
        tables = [self._table(mix, name, size, prices, rates) for name, size in capacities.items()]
        self._steps = np.array([len(table) - 1 for table in tables], np.int64)
        self._start = np.concatenate(([0], np.cumsum(self._steps + 1)[:-1]))
        self._flat = np.ascontiguousarray(np.concatenate(tables).T)

    def _table(
        self, mix: Sequence[Typical], product: str, capacity: int, prices: FloatArray, rates: FloatArray
    ) -> FloatArray:
        """By steps that are free: the worth, a column for each future and price of CPU."""
        able = [number for number, each in enumerate(mix) if admits(each, product, capacity)]
        sizes = sorted({mix[number].memory for number in able})
        steps = steps_of(capacity, sizes)
        values = np.zeros((len(sizes), len(self._rates)))
        for row, size in enumerate(sizes):
            alike = sorted((number for number in able if mix[number].memory == size), key=lambda it: mix[it].cpu)
            shares = np.cumsum([mix[number].weight for number in alike])
            for column, quantile in enumerate(QUANTILES):
                first = int(np.searchsorted(shares, quantile * shares[-1], side="right"))
                paid = [
                    prices[number] - rates * (mix[number].cpu / mix[number].gpus)
                    for number in alike[min(first, len(alike) - 1) :]
                ]
                values[row, column * len(rates) : (column + 1) * len(rates)] = np.max(paid, axis=0)
        levels = level(np.array(sizes, np.int64), capacity, steps)
        return filled(sizes=np.maximum(levels, 1), values=values, steps=steps).best

    def losses(
        self,
        *,
        product: IntArray,
        free: IntArray,
        cpu: IntArray,
        memory: IntArray,
        demand: IntArray,
        only: IntArray | None = None,
    ) -> FloatArray:
        """What hosts lose when one device takes one item: hosts by items by devices, in bytes.

        ``product`` and ``free`` (0: takes nothing): hosts by devices; ``cpu``: what the hosts have free. ``memory`` and
        ``demand`` (of CPU): of the items. ``only``: the devices that are asked about, where the others are like them.
        Whether an item fits is not asked.
        """
        now = self._devices(product, free)
        total = now.sum(axis=2)
        if only is not None:
            product, free, now = product[:, only], free[:, only], now[:, :, only]
        after = self._devices(product[:, None, :], free[:, None, :] - memory[None, :, None])
        after += (total[:, :, None] - now)[:, :, None, :]
        left = (cpu[:, None] - demand[None, :])[:, :, None]
        return self._hosts(total, cpu)[:, None, None] - self._hosts(after, left)

    def losses_of_teams(
        self, *, product: IntArray, free: IntArray, cpu: IntArray, memory: int, demand: IntArray, team: IntArray
    ) -> FloatArray:
        """What hosts lose when the devices at ``team`` (hosts by places) take an item together: hosts by items, which
        differ in their CPU only. Without places: what they lose with their CPU alone."""
        total = self._devices(product, free).sum(axis=2)
        kind, room = np.take_along_axis(product, team, 1), np.take_along_axis(free, team, 1)
        after = total + (self._devices(kind, room - memory) - self._devices(kind, room)).sum(axis=2)
        left = cpu[:, None] - demand[None, :]
        return self._hosts(total, cpu)[:, None] - self._hosts(np.repeat(after[:, :, None], len(demand), axis=2), left)

    def _devices(self, product: IntArray, free: IntArray) -> FloatArray:
        """The worth of devices."""
        steps = self._steps[product]
        levels = np.clip(level(np.maximum(free, 0), self._capacity[product], steps), 0, steps)
        return self._flat.take(self._start[product] + levels, axis=1)

    def _hosts(self, devices: FloatArray, cpu: IntArray) -> FloatArray:
        """The worth of hosts, from that of all their devices together and their free CPU."""
        rates = self._rates.reshape(-1, *(1,) * cpu.ndim)
        worth = devices + rates * np.maximum(cpu, 0)
        futures = worth.reshape(len(QUANTILES), -1, *worth.shape[1:])
        least: FloatArray = futures.min(axis=1).sum(axis=0) / len(QUANTILES)
        return least

    def score(self, losses: FloatArray, *, free: IntArray, capacity: IntArray) -> FloatArray:
        """``losses`` in devices, rounded; of equal ones the fuller host, and then the smaller, comes first."""
        rounded = np.round(losses / self.unit / _ROUNDING) * _ROUNDING
        score: FloatArray = rounded + _FULLER * free / np.maximum(capacity, 1) + _SMALLER * capacity / self.unit
        return score


def scarcity(mix: Sequence[Typical], free: Mapping[str, int]) -> dict[str, float]:
    """By product, how much sooner than the others it would run out if the mix went on coming: 0 not at all, 1 at once.

    ``free``: bytes, by product. The demand of the mix is spread over the products as evenly as it can be, each class
    over those that it may have: water is poured class by class until no level changes. The fuller a product then is,
    the scarcer.
    """
    names = [name for name, bytes_ in free.items() if bytes_ > 0]
    room = np.array([float(free[name]) for name in names])
    demands: dict[tuple[bool, ...], float] = {}
    for each in mix:
        if each.gpus:
            able = tuple(each.products is None or name in each.products for name in names)
            demands[able] = demands.get(able, 0.0) + each.weight * each.gpus * each.memory
    pools = [(np.flatnonzero(each), demand) for each, demand in sorted(demands.items()) if any(each) and demand > 0]
    total = sum(demand for _, demand in pools)
    if not total:
        return dict.fromkeys(free, 0.0)
    room /= room.sum()
    poured = [np.zeros(len(vessels)) for vessels, _ in pools]
    load = np.zeros(len(names))
    for _ in range(_SWEEPS):
        before = load.copy()
        for number, (vessels, demand) in enumerate(pools):
            load[vessels] -= poured[number]
            poured[number] = _pour(load[vessels], room[vessels], demand / total)
            load[vessels] += poured[number]
        if np.abs(load - before).max() < 1e-9:
            break
    lasts = room / np.maximum(load, 1e-12)
    most = min(lasts.max(), _LONG)
    found = dict.fromkeys(free, 0.0)
    found |= {
        name: round(max(0.0, 1 - last / most) * 50) / 50 for name, last in zip(names, lasts.tolist(), strict=True)
    }
    return found


def _pour(load: FloatArray, room: FloatArray, demand: float) -> FloatArray:
    """``demand`` over vessels of ``room`` that hold ``load``, to one level as far as it goes."""
    levels = load / room
    order = np.argsort(levels, kind="stable")
    wide, held = np.cumsum(room[order]), np.cumsum(load[order])
    # The level when the first n vessels share it; the right n is the last whose vessels are all below it.
    rises = (demand + held) / wide
    count = int(np.flatnonzero(rises >= levels[order] - 1e-12)[-1])
    poured: FloatArray = np.maximum(0.0, rises[count] * room - load)
    return poured


class LeastFragmentation:
    """A rule of the packer: the device whose host loses least. ``scarce``: by product, as of ``scarcity``.

    ``used_first``: devices in use come before empty ones, for the fewest opened; else only what is lost counts.
    """

    def __init__(self, worth: Worth, *, scarce: Mapping[str, float] | None = None, used_first: bool = True) -> None:
        self._worth = worth
        self._scarce = scarce or {}
        self._used_first = used_first

    @property
    def criterion(self) -> Criterion:
        return Criterion.LEAST_FRAGMENTATION

    @property
    def orders_empty(self) -> bool:
        return True

    def order(self, board: Board, item: Item, rows: IntArray) -> IntArray:
        """``rows``, the least loss first. Devices of products that the mix knows nothing of come last."""
        places, owner = np.unique(board.host[rows], return_inverse=True)
        start = np.searchsorted(board.host, places)
        size = np.searchsorted(board.host, places, side="right") - start
        grid = start[:, None] + np.arange(size.max(initial=0))
        real = grid < (start + size)[:, None]
        grid = np.where(real, grid, 0)
        known = np.array([self._worth.products.get(name, -1) for name in board.products], np.int64)
        product = known[board.product[grid]]
        usable = real & board.takes[grid] & (product >= 0)
        free = np.where(usable, board.free[grid], 0)
        losses = self._worth.losses(
            product=np.maximum(product, 0),
            free=free,
            cpu=board.cpu[places],
            memory=np.array([item.memory]),
            demand=np.array([item.cpu]),
        )[:, 0]
        capacity = np.where(real, board.capacity[grid], 0).sum(axis=1)
        score = self._worth.score(losses, free=free.sum(axis=1)[:, None], capacity=capacity[:, None])
        scarce = np.array([self._scarce.get(name, 0.0) for name in board.products])
        mine = score[owner, rows - start[owner]] + scarce[board.product[rows]] * (item.memory / self._worth.unit)
        mine[known[board.product[rows]] < 0] = np.inf
        if self._used_first:
            return rows[np.lexsort((mine, ~board.in_use[rows]))]
        return rows[np.argsort(mine, kind="stable")]
