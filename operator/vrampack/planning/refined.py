"""A better plan for replicas that have their place in the first one and can't take it yet, while engines start.

The first plan is acted on at once, as far as it goes. Meanwhile a better one is looked for, and it stands for as long
as nothing has changed but what it says itself: replicas that took the places it gives them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vrampack.packing.objective import cost
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Host, Item, Objective, Packing


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Replicas without a GPU. ``hosts``: without them; ``packing``: the best plan that is known, where the search for a
    better one begins: the question is the same wherever that is; ``keep``: keys of those that must not lose their place
    in it, since they have waited long."""

    hosts: tuple[Host, ...]
    items: tuple[Item, ...]
    keep: frozenset[str]
    packing: Packing = field(compare=False)


def pending(hosts: Sequence[Host], items: Sequence[Item], packing: Packing, *, patience: int) -> Pending:
    """``packing``: the plan of a pass. ``patience``: seconds after which a replica goes by its age."""
    return Pending(
        hosts=tuple(hosts),
        items=tuple(map(_ageless, items)),
        keep=frozenset(each.key for each in items if each.waited >= patience),
        packing=_of(packing, {each.key: _ageless(each) for each in items}),
    )


def better(
    first: Packing,
    plan: Packing,
    *,
    asked: Pending,
    hosts: tuple[Host, ...],
    items: Sequence[Item],
    objective: Objective,
    patience: int,
) -> Packing:
    """``plan``, which was found for what was ``asked``, where it still stands, costs no more than the first one, and
    takes the place of none that has waited for ``patience`` seconds."""
    if first.reserved:
        return first
    known = {each.key: each for each in asked.items}
    now = {each.key: each for each in items}
    if any(known.get(key) != _ageless(each) for key, each in now.items()):
        return first
    if occupied(asked.hosts, [each for each in plan.placed if each.item.key not in now]) != hosts:
        return first
    rest = _of(plan, now)
    aged = {each.item.key for each in rest.unplaced if each.item.waited >= patience}
    if not aged.isdisjoint(each.item.key for each in first.placed):
        return first
    costs = [cost(hosts=hosts, packing=each, objective=objective) for each in (rest, first)]
    return rest if costs[0] <= costs[1] else first


def _of(packing: Packing, items: Mapping[str, Item]) -> Packing:
    """What a plan says of ``items``."""
    return Packing(
        placed=tuple(replace(each, item=items[each.item.key]) for each in packing.placed if each.item.key in items),
        unplaced=tuple(replace(each, item=items[each.item.key]) for each in packing.unplaced if each.item.key in items),
    )


def _ageless(item: Item) -> Item:
    """Who waits gets older all the time, which is no news."""
    return replace(item, waited=0) if item.waited else item
