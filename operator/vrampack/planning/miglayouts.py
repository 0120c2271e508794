"""Layouts of MIG devices that would suit replicas that wait: for people to review, and never made.

Only GPUs that nobody uses are looked at, and only cuts that their driver reports as possible.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from vrampack.api.gpunode import GPUStatus, MIGProfile
from vrampack.api.gpupool import Layouts, SuggestedLayout
from vrampack.packing.firstfit import pack
from vrampack.packing.layouts import SliceProfile, legal_layouts
from vrampack.packing.problem import Cut, Device, Host, Item, Placement
from vrampack.planning.snapshot import GPUNodeView, PoolView
from vrampack.sharing.registry import mechanism
from vrampack.units import counted

MOST_SUGGESTED: Final = 32
MOST_CUT_FOR: Final = 64
"""Replicas that a layout is looked for."""
_MOST_NAMED: Final = 4
_COMPUTE: Final = 7
"""Parts of compute that a GPU has for its MIG devices."""
_PROFILE: Final = re.compile(r"(\d+)g\.\d+gb")
"""A size of MIG device that an engine can use; the others have a media engine or share their compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recut:
    """Replicas that wait, and the GPUs of a pool where those that nobody uses may be cut. ``profiles``: of each of
    these, what its driver offers, less the pool's reserve; with its index."""

    hosts: tuple[Host, ...]
    items: tuple[Item, ...]
    profiles: Mapping[str, tuple[int | None, tuple[MIGProfile, ...]]]
    reserve: int


def recut(pool: PoolView, views: Iterable[GPUNodeView], hosts: Iterable[Host], blocked: Sequence[Item]) -> Recut | None:
    """``hosts``: as they are left. None where nothing may be cut, or nobody waits for it."""
    if not blocked or pool.spec.layouts is not Layouts.SUGGEST or not mechanism(pool.spec.mechanism.value).sliced:
        return None
    reserve = pool.spec.reserve_per_gpu.bytes
    profiles: dict[str, tuple[int | None, tuple[MIGProfile, ...]]] = {}
    by_name = {view.name: view for view in views}
    found = []
    for host in hosts:
        idle = {gpu.uuid: gpu for gpu in _idle(by_name[host.name], host)}
        profiles |= {uuid: (gpu.index, gpu.mig_profiles or ()) for uuid, gpu in idle.items()}
        parts = {each.uuid for gpu in idle.values() for each in gpu.mig_devices or ()}
        kept = [replace(each, price=None) for each in host.devices if each.id not in parts | idle.keys()]
        found.append(replace(host, devices=(*kept, *(_divisible(gpu, reserve) for gpu in idle.values()))))
    return Recut(hosts=tuple(found), items=tuple(blocked), profiles=profiles, reserve=reserve) if profiles else None


def suggested_layouts(question: Recut) -> tuple[SuggestedLayout, ...]:
    """The GPUs that would be cut otherwise than they are, and for whom."""
    packing = pack(hosts=question.hosts, items=question.items)
    told = []
    for cut in packing.cuts:
        if cut.changed:
            index, profiles = question.profiles[cut.device]
            told.append(
                SuggestedLayout(
                    node=cut.host,
                    gpu=cut.device,
                    index=index,
                    devices=names_of(cut.layout, profiles, reserve=question.reserve),
                    because=_because(cut, packing.placed),
                )
            )
    return tuple(told[:MOST_SUGGESTED])


def names_of(layout: Sequence[int], profiles: Sequence[MIGProfile], *, reserve: int = 0) -> tuple[str, ...]:
    """What a MIG manager calls the devices of a layout (bytes, less ``reserve``). Of several of a size those with the
    most compute that the GPU has places for, as evenly as can be."""
    offered = [[each for each in _usable(profiles) if each.memory.bytes - reserve == size] for size in layout]
    chosen = [some for some in product(*offered) if _compute(some) <= _COMPUTE and _has_places(some)]
    best = max(chosen, key=lambda some: (_compute(some), _evenness(some)), default=())
    return tuple(each.name for each in sorted(best, key=lambda each: (-each.memory.bytes, -_compute([each]))))


def _idle(view: GPUNodeView, host: Host) -> Iterator[GPUStatus]:
    """GPUs in MIG mode on which there is nothing, and that the admin has not taken out of use."""
    devices = {each.id: each for each in host.devices}
    cordoned = {wish.uuid for wish in view.spec.gpus if wish.cordoned}
    for gpu in view.status.gpus or ():
        parts = [devices.get(each.uuid) for each in gpu.mig_devices or ()]
        if (
            gpu.mig
            and gpu.uuid not in cordoned
            and any(_usable(gpu.mig_profiles or ()))
            and all(each is not None and _is_idle(each) for each in parts)
        ):
            yield gpu


def _is_idle(device: Device) -> bool:
    return device.closed is None and not device.in_use and device.free == device.capacity


def _divisible(gpu: GPUStatus, reserve: int) -> Device:
    shapes = [
        SliceProfile(memory=each.memory.bytes - reserve, starts=tuple(start for start, _ in places), size=places[0][1])
        for each in _usable(gpu.mig_profiles or ())
        for places in [_places(each)]
        if each.memory.bytes > reserve
    ]
    present = tuple(sorted((each.memory.bytes - reserve for each in gpu.mig_devices or ()), reverse=True))
    others = [each for each in legal_layouts(shapes) if each != present]
    # Of layouts that serve as many the first is taken: no larger slices than it takes, and then as few as possible.
    layouts = (present, *sorted(others, key=lambda each: (each[0], len(each))))
    capacity = max(map(sum, layouts))
    return Device(id=gpu.uuid, product=gpu.product or "", capacity=capacity, free=capacity, slots=1, layouts=layouts)


def _usable(profiles: Iterable[MIGProfile]) -> list[MIGProfile]:
    return [each for each in profiles if _PROFILE.fullmatch(each.name) and _places(each)]


def _places(profile: MIGProfile) -> tuple[tuple[int, int], ...]:
    """Where such a device can begin, and how many parts of memory it takes."""
    pairs = (each.partition(":") for each in profile.placements)
    return tuple((int(start), int(size)) for start, _, size in pairs if start.isdecimal() and size.isdecimal())


def _compute(profiles: Iterable[MIGProfile]) -> int:
    return sum(int(each.name.partition("g")[0]) for each in profiles)


def _evenness(profiles: Iterable[MIGProfile]) -> list[int]:
    return sorted(_compute([each]) for each in profiles)


def _has_places(profiles: Sequence[MIGProfile], taken: frozenset[int] = frozenset()) -> bool:
    """Whether they find places beside one another."""
    if not profiles:
        return True
    spans = (frozenset(range(start, start + size)) for start, size in _places(profiles[0]))
    return any(not span & taken and _has_places(profiles[1:], taken | span) for span in spans)


def _because(cut: Cut, placed: Sequence[Placement]) -> str:
    """For which models, and how many replicas of each."""
    groups: dict[str, int] = {}
    for each in placed:
        if each.host == cut.host and each.devices[0].rpartition("/")[0] == cut.device:
            groups[each.item.group] = groups.get(each.item.group, 0) + 1
    named = [f"{counted(number, 'replica')} of {group}" for group, number in sorted(groups.items())]
    more = len(named) - _MOST_NAMED
    return ("room for " + ", ".join(named[:_MOST_NAMED]) + (f" and {more} more models" if more > 0 else ""))[:256]
