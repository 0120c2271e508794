"""Moves that would be worth while now, for people who ask."""

from collections.abc import Mapping

from vrampack.api.gpupool import SuggestedMove
from vrampack.planning.candidates import Eligibility
from vrampack.planning.cases import cases
from vrampack.planning.inventory import inventory
from vrampack.planning.moves import under_way
from vrampack.planning.placing import place
from vrampack.planning.seeking import find
from vrampack.planning.snapshot import Snapshot
from vrampack.planning.suggestedmoves import as_suggestions
from vrampack.planning.verdict import Settings


def suggestions(snapshot: Snapshot) -> Mapping[str, tuple[SuggestedMove, ...]]:
    """By pool, in the order in which they are to be made; whatever the pool's mode is, since a person asks."""
    settings = Settings(hub_token_namespaces=frozenset(model.namespace for model in snapshot.models))
    stock = inventory(snapshot)
    given = cases(snapshot, settings, stock=stock, moving=under_way(snapshot))
    placed = place(snapshot, stock, given, Eligibility(snapshot), patience=settings.patience_seconds, everywhere=True)
    return {
        name: as_suggestions(find(question.asked_by_a_person()), stock)
        for name, question in sorted(placed.questions.items())
    }
