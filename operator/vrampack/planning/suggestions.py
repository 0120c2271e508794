"""Which changes are suggested to whom: every model with a waiting replica is asked about once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.packing.room import Rooms
from vrampack.planning.candidates import Eligibility
from vrampack.planning.cases import Case
from vrampack.planning.inventory import Inventory
from vrampack.planning.movewords import told
from vrampack.planning.placing import Placed
from vrampack.planning.queueing import Waits
from vrampack.planning.sizing import size
from vrampack.planning.snapshot import PodView, Snapshot
from vrampack.planning.verdict import Blocked, Settings, Sized
from vrampack.planning.whatif import Question, Resize, changed, would_fit_if

MOST_ASKED: Final = 32
"""Models for which changes are looked for in one pass: a pass stays short however many wait."""


_MOST_POOLS: Final = 3


def suggested(
    placed: Placed,
    *,
    given: Sequence[Case],
    snapshot: Snapshot,
    stock: Inventory,
    settings: Settings,
    eligible: Eligibility,
) -> Placed:
    """The same outcome, where of each model's replicas that wait for one reason the first says what would help.

    What is free is what the placements leave. While replicas are being placed, that is out of date at once: models then
    keep what they were told, and the pass after the last placement asks anew.
    """
    rooms = _RoomsOf(placed)
    waits = dict(placed.waits)
    asked = 0
    for case in given:
        mine = list(waits.get(case.model.key, ()))
        spec, sized = case.model.spec, case.sized
        packed = sorted((each for each in mine if each.unplaced is not None), key=lambda each: each.pod.name)
        if not packed or spec is None or not isinstance(sized, Sized):
            continue
        if asked == MOST_ASKED:
            break
        asked += not placed.placements
        resized = _Resizing(case, sized, snapshot, stock, settings)
        for reason in sorted({each.reason for each in packed}):
            first = next(each for each in packed if each.reason == reason)
            if placed.placements:
                lines = _told(case, reason)
            else:
                assert first.unplaced is not None
                question = Question(spec=spec, sized=sized, item=first.unplaced.item)
                lines = would_fit_if(question, rooms=rooms[case.pool], resize=resized)
                elsewhere = _other_pools(question, first.pod, case, rooms, resized, eligible, snapshot)
                lines += tuple(islice(elsewhere, _MOST_POOLS))
                lines += _moves(first, case, snapshot, placed, stock)
            mine[mine.index(first)] = replace(first, would_fit_if=lines)
        waits[case.model.key] = tuple(mine)
    return replace(placed, waits=waits)


def _moves(first: Waits, case: Case, snapshot: Snapshot, placed: Placed, stock: Inventory) -> tuple[str, ...]:
    """Moves of running replicas, where they were found for this very state of things."""
    found = snapshot.memory.findings.get(case.pool)
    if found is None or first.unplaced is None or found.question != placed.questions.get(case.pool):
        return ()
    return told(found.room, first.unplaced.item.key, stock)


def _other_pools(
    question: Question,
    pod: PodView,
    case: Case,
    rooms: "_RoomsOf",
    resized: Resize,
    eligible: Eligibility,
    snapshot: Snapshot,
) -> Iterator[str]:
    """Pools that have room for a replica as it is, by name. Their headroom and runtime class may be other ones."""
    for pool in snapshot.pools:
        if pool.name == case.pool or pool.problem or not (hosts := rooms.hosts.get(pool.name)):
            continue
        sized = resized(changed(question.spec, "placement", pool=pool.name))
        if not isinstance(sized, Sized):
            continue
        runtime_class = sized.template["spec"].get("runtimeClassName") or ""
        there = replace(pod, owner_uid=f"{pod.owner_uid} in {pool.name}", runtime_class=runtime_class)
        refused = eligible.refused(there, model=case.model.key, pool=pool, hosts=hosts)
        wanted = replace(question.item, gpus=sized.need.gpus, memory=sized.need.bytes, refused=refused)
        if any(room >= sized.need.bytes for room in rooms[pool.name].most(wanted).values()):
            yield f"placement.pool: {pool.name}"


class _RoomsOf:
    """The rooms of each pool, made when they are asked for."""

    def __init__(self, placed: Placed) -> None:
        self.hosts = placed.hosts
        self._made: dict[str, Rooms] = {}

    def __getitem__(self, pool: str) -> Rooms:
        if pool not in self._made:
            self._made[pool] = Rooms(self.hosts[pool])
        return self._made[pool]


def _told(case: Case, reason: str) -> tuple[str, ...]:
    """What the status says now; nothing where it can't be read, as what another version wrote may not."""
    former = case.model.status.get("waiting")
    for entry in former if isinstance(former, list) else ():
        if isinstance(entry, dict) and entry.get("reason") == reason:
            lines = entry.get("wouldFitIf")
            return tuple(line for line in lines if isinstance(line, str)) if isinstance(lines, list) else ()
    return ()


class _Resizing:
    """Sizes the model of a case with another spec, at the commit that it is served at; the same spec only once."""

    def __init__(self, case: Case, sized: Sized, snapshot: Snapshot, stock: Inventory, settings: Settings) -> None:
        self._model = case.model
        self._commit = sized.commit
        self._draft_commit = sized.draft.commit if sized.draft is not None else ""
        self._pools = {pool.name: pool for pool in snapshot.pools}
        self._profiles = {profile.name: profile for profile in snapshot.profiles}
        self._resolutions = snapshot.resolutions
        self._stock = stock
        self._of_pool: dict[str, frozenset[str]] = {}
        self._settings = settings
        self._known: list[tuple[ModelDeploymentSpec | None, Sized | Blocked]] = [(case.model.spec, sized)]

    def __call__(self, spec: ModelDeploymentSpec) -> Sized | Blocked:
        for known, sized in self._known:
            if known == spec:
                return sized
        pool = spec.placement.pool
        sized = size(
            replace(self._model, spec=spec),
            pool=self._pools.get(pool),
            profiles=self._profiles,
            resolutions=self._resolutions,
            commit=self._commit,
            draft_commit=self._draft_commit,
            settings=self._settings,
            products=self._products(pool),
        )
        self._known.append((spec, sized))
        return sized

    def _products(self, pool: str) -> frozenset[str]:
        if pool not in self._of_pool:
            mine = (gpu for gpu in self._stock.gpus.values() if self._stock.pool_of[gpu.node] == pool)
            self._of_pool[pool] = frozenset(gpu.product for gpu in mine if gpu.product)
        return self._of_pool[pool]
