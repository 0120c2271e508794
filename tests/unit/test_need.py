"""The annotation by which a pod says what it needs."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.api.modeldeployment import PlacementSpec, Sharing
from vrampack.errors import InvalidInputError
from vrampack.planning.need import Need, company

GOOD = {"gpus": 2, "bytes": 1 << 35, "kv": 1 << 33, "context": 1 << 29, "comm": 0}


OLDER = Need(gpus=1, bytes=27874295808, kv=8592031744, context=902823936, comm=0)
"""Of a version that wrote nothing of neighbours."""


def test_as_it_is_written() -> None:
    need = replace(OLDER, exclusive=False, avoid=("noisy",))
    sizes = '"gpus":1,"bytes":27874295808,"kv":8592031744,"context":902823936,"comm":0'
    assert need.to_json() == f'{{{sizes},"exclusive":false,"avoid":["noisy"]}}'
    assert OLDER.to_json() == f"{{{sizes}}}"


@pytest.mark.parametrize(
    ("pod", "spec", "holds"),
    [
        pytest.param((True, ("a",)), (False, ("b",)), (True, {"a"}), id="the pod's word, not what the spec is today"),
        pytest.param((False, ()), (True, ("b",)), (False, set()), id="also where it says that anybody may come"),
        pytest.param((True, ("a",)), None, (True, {"a"}), id="also when its model is gone"),
        pytest.param((None, None), (True, ("b",)), (True, {"b"}), id="of an older pod: the spec"),
        pytest.param((None, None), None, (False, set()), id="of an older pod whose model is gone: nothing is known"),
        pytest.param(None, (True, ("b",)), (True, {"b"}), id="of a need that can't be read: the spec"),
    ],
)
def test_who_may_be_beside_a_replica(
    pod: tuple[bool | None, tuple[str, ...] | None] | None,
    spec: tuple[bool, tuple[str, ...]] | None,
    holds: tuple[bool, set[str]],
) -> None:
    need = replace(OLDER, exclusive=pod[0], avoid=pod[1]) if pod is not None else None
    sharing = {True: Sharing.EXCLUSIVE, False: Sharing.SHARED}
    placement = PlacementSpec(sharing=sharing[spec[0]], avoid_models=spec[1]) if spec is not None else None
    found = company(need, placement)
    assert (found.exclusive, found.avoid) == holds


sizes = st.integers(0, 2**50)
needs = st.builds(
    Need,
    gpus=st.integers(1, 64),
    bytes=st.integers(1, 2**50),
    kv=sizes,
    context=sizes,
    comm=sizes,
    exclusive=st.none() | st.booleans(),
    avoid=st.none() | st.lists(st.text()).map(tuple),
    apart=st.none() | st.booleans(),
)


@given(need=needs)
def test_what_is_written_is_read(need: Need) -> None:
    assert Need.from_json(need.to_json()) == need


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        "[" * 100_000,
        json.dumps({"gpus": 1, "bytes": 1}),
        json.dumps(GOOD | {"extra": 1}),
        json.dumps(GOOD | {"gpus": 0}),
        json.dumps(GOOD | {"gpus": True}),
        json.dumps(GOOD | {"bytes": 0}),
        json.dumps(GOOD | {"bytes": "5Gi"}),
        json.dumps(GOOD | {"kv": 1.5}),
        json.dumps(GOOD | {"comm": -1}),
        json.dumps(GOOD | {"exclusive": None}),
        json.dumps(GOOD | {"exclusive": 1}),
        json.dumps(GOOD | {"apart": "yes"}),
        json.dumps(GOOD | {"avoid": "a"}),
        json.dumps(GOOD | {"avoid": [1]}),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"vrampack\.dev/need"):
        Need.from_json(text)
