"""The annotation by which a pod says what it needs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.errors import InvalidInputError
from vrampack.planning.need import Need

GOOD = {"gpus": 2, "bytes": 1 << 35, "kv": 1 << 33, "context": 1 << 29, "comm": 0}


def test_as_it_is_written() -> None:
    need = Need(gpus=1, bytes=27874295808, kv=8592031744, context=902823936, comm=0)
    assert need.to_json() == '{"gpus":1,"bytes":27874295808,"kv":8592031744,"context":902823936,"comm":0}'


sizes = st.integers(0, 2**50)


@given(need=st.builds(Need, gpus=st.integers(1, 64), bytes=st.integers(1, 2**50), kv=sizes, context=sizes, comm=sizes))
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
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"vrampack\.dev/need"):
        Need.from_json(text)
