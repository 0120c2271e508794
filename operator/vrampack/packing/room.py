"""How large an item could be and still find its devices: the packer's answer turned round."""

from collections.abc import Sequence
from dataclasses import replace

from vrampack.packing.problem import Host, Item
from vrampack.packing.state import DeviceState, obstacles, working_copy

_Offer = tuple[int, Sequence[DeviceState]]


class Rooms:
    """Asks these hosts, as they are, again and again. An answer looks at the roomiest devices first, so it seldom looks
    at more than a few hosts of a large fleet."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        """Raises InvalidInputError for a host or a device of a host that comes twice."""
        found: dict[str, list[Sequence[DeviceState]]] = {}
        for host in working_copy(hosts):
            for product, devices in host.products.items():
                found.setdefault(product, []).append(sorted(devices, key=lambda device: -device.free))
        self._devices = {product: found[product] for product in sorted(found)}
        self._offers: dict[tuple[str, int], list[_Offer]] = {}

    @property
    def products(self) -> tuple[str, ...]:
        """All products, by name."""
        return tuple(self._devices)

    def most(self, item: Item) -> dict[str, int]:
        """The most bytes on each of its devices with which ``item`` would find them, by product; what it asks for now
        does not matter. A product that is missing has no room for it, however small it were. ``gpus`` is 1 or more.
        """
        smallest = replace(item, memory=0)
        wanted = [name for name in self._devices if item.products is None or name in item.products]
        rooms = {product: self._room(smallest, product) for product in wanted}
        return {product: room for product, room in rooms.items() if room > 0}

    def _room(self, item: Item, product: str) -> int:
        best = 0
        for most, devices in self._sorted(product, item.gpus):
            if most <= best:
                break
            reasons = obstacles(item, devices)
            free = [device.free for device, reason in zip(devices, reasons, strict=True) if reason is None]
            if len(free) >= item.gpus:
                best = max(best, free[item.gpus - 1])
        return best

    def _sorted(self, product: str, gpus: int) -> list[_Offer]:
        """Devices of each host with what the last of the ``gpus`` roomiest has free, the roomiest first."""
        key = (product, gpus)
        if key not in self._offers:
            offers = [(each[gpus - 1].free, each) for each in self._devices[product] if len(each) >= gpus]
            self._offers[key] = sorted(offers, key=lambda offer: -offer[0])
        return self._offers[key]
