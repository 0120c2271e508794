"""How long to wait between tries."""

import itertools

from vrampack.controller.backoff import Backoff


def test_waits_grow_to_a_bound_without_an_end() -> None:
    waits = list(itertools.islice(Backoff(first=1, longest=5), 1000))
    assert 0.5 <= waits[0] <= 1
    assert all(2.5 <= wait <= 5 for wait in waits[3:])
    assert len(set(waits)) > 900


def test_each_round_begins_anew() -> None:
    backoff = Backoff(first=1, longest=100)
    for _ in range(2):
        assert max(itertools.islice(backoff, 3)) <= 4
