"""Which changes are suggested to whom: every model with a waiting replica is asked about once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.packing.room import Rooms
from vrampack.planning.cases import Case
from vrampack.planning.inventory import Inventory
from vrampack.planning.placing import Placed
from vrampack.planning.sizing import size
from vrampack.planning.snapshot import Snapshot
from vrampack.planning.verdict import Blocked, Settings, Sized
from vrampack.planning.whatif import Question, would_fit_if

MOST_ASKED: Final = 32
"""Models for which changes are looked for in one pass: a pass stays short however many wait."""


def suggested(
    placed: Placed, *, given: Sequence[Case], snapshot: Snapshot, stock: Inventory, settings: Settings
) -> Placed:
    """The same outcome, where of each model's replicas that wait for one reason the first says what would help.

    What is free is what the placements leave. While replicas are being placed, that is out of date at once: models then
    keep what they were told, and the pass after the last placement asks anew.
    """
    rooms: dict[str, Rooms] = {}
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
                if case.pool not in rooms:
                    rooms[case.pool] = Rooms(placed.hosts[case.pool])
                question = Question(spec=spec, sized=sized, item=first.unplaced.item)
                lines = would_fit_if(question, rooms=rooms[case.pool], resize=resized)
            mine[mine.index(first)] = replace(first, would_fit_if=lines)
        waits[case.model.key] = tuple(mine)
    return replace(placed, waits=waits)


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
        self._pool = next((pool for pool in snapshot.pools if pool.name == case.pool), None)
        self._profiles = {profile.name: profile for profile in snapshot.profiles}
        self._resolutions = snapshot.resolutions
        mine = (gpu for gpu in stock.gpus.values() if stock.pool_of[gpu.node] == case.pool)
        self._products = {gpu.product for gpu in mine if gpu.product}
        self._settings = settings
        self._known: list[tuple[ModelDeploymentSpec, Sized | Blocked]] = (
            [(case.model.spec, sized)] if case.model.spec else []
        )

    def __call__(self, spec: ModelDeploymentSpec) -> Sized | Blocked:
        for known, sized in self._known:
            if known == spec:
                return sized
        sized = size(
            replace(self._model, spec=spec),
            pool=self._pool,
            profiles=self._profiles,
            resolutions=self._resolutions,
            commit=self._commit,
            settings=self._settings,
            products=self._products,
        )
        self._known.append((spec, sized))
        return sized
