"""A tenancy's arrays are those of its hosts as they stand, whoever came, moved and went."""

import random

import numpy as np
from hypothesis import given, settings

from tests.unit.test_packing_moves import running, world
from tests.unit.test_packing_properties import GROUPS, chances
from vrampack.packing.arrays import NONE, PLENTY
from vrampack.packing.board import Board
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Placement
from vrampack.packing.rules import Tightest
from vrampack.packing.tenancy import Tenancy

COLUMNS = ("free", "cpu", "ram", "room", "slots", "exclusive", "occupied", "in_use", "open", "takes", "closed")


def assert_current(tenancy: Tenancy) -> None:
    fresh = Board(tenancy.hosts())
    for name in COLUMNS:
        mine, theirs = (np.minimum(getattr(board, name), PLENTY // 2) for board in (tenancy.board, fresh))
        assert np.array_equal(mine, theirs), name
    for group in (*GROUPS, "ns/wanted"):
        for name in ("tenants", "vetoes", "guests"):
            assert set(getattr(tenancy.board, name).of(group)) == set(getattr(fresh, name).of(group)), (name, group)


@settings(max_examples=150, deadline=None)
@given(draw=chances)
def test_the_arrays_follow_the_replicas(draw: random.Random) -> None:
    bare, residents, wanted = world(draw)
    tenancy = Tenancy(running(bare, residents), residents)
    assert_current(tenancy)
    for resident in draw.sample(residents, len(residents) // 2):
        tenancy.leave(resident)
        assert_current(tenancy)
    before = tenancy.hosts()
    if (new := tenancy.settle(wanted, Tightest(), shut=NONE)) is not None:
        tenancy.cancel(new)
        assert tenancy.hosts() == before
        assert_current(tenancy)
        tenancy.enter(new)
        assert_current(tenancy)
    for old in list(tenancy.residents.values()):
        before = tenancy.hosts()
        moved = tenancy.settle(old.item, Tightest(), shut=tenancy.rows(old))
        if moved is not None:
            tenancy.swap(old, moved)
            assert_current(tenancy)
            tenancy.revert(old, moved)
            assert tenancy.hosts() == before
            assert_current(tenancy)
    left = list(tenancy.residents.values())
    placements = [Placement(item=each.item, host=each.host, devices=each.devices) for each in left]
    assert tenancy.hosts() == tuple(sorted(occupied(bare, placements), key=lambda host: host.name))
