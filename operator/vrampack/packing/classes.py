"""Identical replicas are one class with a count: whatever is worked out for one of them holds for all."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter

from vrampack.packing.problem import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemClass:
    """Items that differ in key and age only, those that have waited longest first, then by key."""

    items: tuple[Item, ...]

    @property
    def item(self) -> Item:
        """The one that stands for all of them."""
        return self.items[0]

    @property
    def count(self) -> int:
        return len(self.items)


def classes_of(items: Iterable[Item]) -> tuple[ItemClass, ...]:
    """The classes, by the least of their keys, whatever the order of ``items``."""
    likeness = Likeness()
    found: dict[Hashable, list[Item]] = {}
    for item in items:
        found.setdefault(likeness(item), []).append(item)
    classes: list[tuple[str, ItemClass]] = []
    for members in found.values():
        members.sort(key=_key)
        least = members[0].key
        if any(map(_waited, members)):
            members.sort(key=_waited, reverse=True)  # which keeps the order of those that have waited as long
        classes.append((least, ItemClass(items=tuple(members))))
    return tuple(each for _, each in sorted(classes, key=itemgetter(0)))


def fit_of(item: Item) -> tuple[Hashable, ...]:
    """What decides where an item fits, but for the hosts that are refused to it."""
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
    )


class Likeness:
    """Tells whether items are alike: equal answers for items between which nothing in the packer tells apart.

    Replicas of one template usually share one mapping of refused hosts, so each mapping is read once only. It must not
    outlive the items that it was asked about.
    """

    def __init__(self) -> None:
        self._refused: dict[int, Hashable] = {}

    def __call__(self, item: Item) -> Hashable:
        return (
            *fit_of(item),
            item.priority,
            item.rank,
            item.preempts,
            self._hosts(item.refused) if item.refused else None,
        )

    def _hosts(self, refused: Mapping[str, str]) -> Hashable:
        known = self._refused.get(id(refused))
        if known is None:
            known = self._refused[id(refused)] = frozenset(refused.items())
        return known


_key = attrgetter("key")
_waited = attrgetter("waited")
