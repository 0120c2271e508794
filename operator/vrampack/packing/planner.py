"""A fleet that is asked again and again. It holds the arrays, so that one more replica is placed without a look at all
hosts, and a host that changed is written into its own rows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from vrampack.packing.board import Board
from vrampack.packing.occupied import occupied
from vrampack.packing.portfolio import best_run
from vrampack.packing.problem import Cut, Host, Item, Objective, Packing, Placement, Reservation, Unplaced
from vrampack.packing.rules import Rule
from vrampack.packing.run import answer
from vrampack.packing.turn import in_turn


class Planner:
    """Places replicas and books them. Each answer is what ``pack`` says to the hosts as they stand then.

    Reservations hold for the call that makes them only: the caller hands them in again.
    """

    def __init__(
        self, hosts: Sequence[Host], *, objective: Objective = Objective.FEWEST_GPUS, rule: Rule | None = None
    ) -> None:
        """Raises InvalidInputError as ``pack`` does for its hosts."""
        self._objective = objective
        self._rule = rule
        self._told = {host.name: host for host in hosts}
        self._placed: dict[str, list[Placement]] = defaultdict(list)
        self._cuts: dict[str, list[Cut]] = defaultdict(list)
        self._board = Board(hosts)

    def place(self, item: Item) -> Placement | Unplaced:
        """A place for one more item, or the reasons why it has none. Raises InvalidInputError as ``pack`` does."""
        packing = self.place_all([item])
        return packing.placed[0] if packing.placed else packing.unplaced[0]

    def place_all(
        self, items: Sequence[Item], *, patience: int | None = None, reserve: Sequence[Reservation] = ()
    ) -> Packing:
        """``pack`` for ``items``; what is placed stays booked."""
        lots = in_turn(items, patience=patience, reserve=reserve)
        found = best_run(self._board, lots, self._objective, rule=self._rule)
        packing = answer(found)
        for placement in packing.placed:
            self._placed[placement.host].append(placement)
        for cut in packing.cuts:
            self._cuts[cut.host].append(cut)
        if packing.reserved or packing.cuts:  # closed devices, and slices that the next answer takes for devices
            self._board = Board(self.hosts())
        else:
            self._board = found.board
            self._board.settle()
        return packing

    def update(self, hosts: Iterable[Host]) -> None:
        """These hosts changed: they are now as given here, with all that is on them. Others stay as they are.

        Raises InvalidInputError as ``pack`` does; then nothing has changed.
        """
        new = {host.name: host for host in hosts}
        same = all(name in self._told and self._board.renewable(self._told[name], host) for name, host in new.items())
        if not same:
            staying = {name: host for name, host in self._told.items() if name not in new}
            board = Board([*self._occupied(staying), *new.values()])
        for name, host in new.items():
            if same:
                self._board.renew(host, groups=self._groups(name))
            self._forget(name)
            self._told[name] = host
        if not same:
            self._board = board

    def remove(self, names: Iterable[str]) -> None:
        """These hosts are gone."""
        for name in names:
            self._forget(name)
        self._board = Board(self.hosts())

    def hosts(self) -> tuple[Host, ...]:
        """All hosts as they stand, by name."""
        return self._occupied(self._told)

    def _occupied(self, told: Mapping[str, Host]) -> tuple[Host, ...]:
        placements = [placement for each in self._placed.values() for placement in each]
        cuts = [cut for each in self._cuts.values() for cut in each]
        return occupied([told[name] for name in sorted(told)], placements, cuts)

    def _forget(self, name: str) -> None:
        self._told.pop(name, None)
        self._placed.pop(name, None)
        self._cuts.pop(name, None)

    def _groups(self, name: str) -> set[str]:
        """All groups that the board may know on a host."""
        host = self._told[name]
        found = set(host.tenants)
        for device in host.devices:
            found |= device.tenants | device.avoided_by
        for placement in self._placed.get(name, ()):
            found |= placement.item.avoid | {placement.item.group}
        return found
