"""Moves that would be worth while now, and how well a pool is packed, for people who ask."""

from collections.abc import Mapping
from dataclasses import dataclass

from vrampack.api.gpupool import SuggestedMove
from vrampack.planning.candidates import Eligibility
from vrampack.planning.cases import cases
from vrampack.planning.findings import MOST_CHUNKS_ASKED, Question
from vrampack.planning.inventory import Inventory, inventory
from vrampack.planning.moves import under_way
from vrampack.planning.placing import place
from vrampack.planning.seeking import answer
from vrampack.planning.snapshot import PoolView, Snapshot
from vrampack.planning.suggestedmoves import as_suggestions
from vrampack.planning.verdict import Settings
from vrampack.planning.whole import proven


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Of one pool. ``moves``: in the order in which they are to be made; ``packing``: how far it is from the best one
    possible, in words; empty where nothing runs. ``exists``: whether there is a GPUPool that can say so in its status;
    the pool ``default`` is there without one."""

    moves: tuple[SuggestedMove, ...]
    packing: str
    exists: bool


def suggestions(snapshot: Snapshot) -> Mapping[str, Advice]:
    """By pool; whatever its mode is, since a person asks."""
    settings = Settings(hub_token_namespaces=frozenset(model.namespace for model in snapshot.models))
    stock = inventory(snapshot)
    given = cases(snapshot, settings, stock=stock, moving=under_way(snapshot))
    placed = place(snapshot, stock, given, Eligibility(snapshot), patience=settings.patience_seconds, everywhere=True)
    pools = {pool.name: pool for pool in snapshot.pools}
    return {name: _advice(question, stock, pools[name]) for name, question in sorted(placed.questions.items())}


def _advice(question: Question, stock: Inventory, pool: PoolView) -> Advice:
    chunks = min(max(1, pool.spec.refine_seconds), MOST_CHUNKS_ASKED)
    found = answer(question.asked_by_a_person(), chunks)
    return Advice(
        moves=as_suggestions(found, stock),
        packing=proven(question.whole, found.bound) if found.bound is not None else "",
        exists=pool.generation > 0,
    )
