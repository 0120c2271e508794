"""Headers of weight files that somebody made to harm: an error with file and field, in bounded memory and time."""

import json
import struct
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.errors import ModelSourceError
from vrampack.models.safetensors import DTYPE_BITS, MAX_HEADER_BYTES, Tensor, header_length, parse_header

FILE = "model-00001-of-00002.safetensors"


def encode(entries: Any) -> bytes:
    return json.dumps(entries).encode()


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]} | changes


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        (10 * 1024**3, "its header claims 10737418240 bytes"),
        (2**64 - 1, "its header claims 18446744073709551615 bytes"),
        (0, "its header claims 0 bytes"),
        (MAX_HEADER_BYTES + 1, "its header claims"),
    ],
)
def test_a_length_that_no_header_has_is_refused_before_it_is_read(claim: int, says: str) -> None:
    with pytest.raises(ModelSourceError, match=f"{FILE}.*{says}"):
        header_length(struct.pack("<Q", claim), file=FILE)


@pytest.mark.parametrize(
    ("hostile", "field"),
    [
        (entry(shape=[-4, -8]), "shape"),
        (entry(shape=[2**62, 2**62]), "shape"),
        (entry(shape=[1] * 1000), "shape"),
        (entry(shape="4,8"), "shape"),
        (entry(shape={"0": 4}), "shape"),
        (entry(shape=[4.0, 8]), "shape"),
        (entry(data_offsets=[-64, 0]), "offsets"),
        (entry(data_offsets=[64, 0]), "bytes"),
        (entry(data_offsets=[0, 2**63]), "offsets"),
        (entry(data_offsets=[0, 64, 128]), "offsets"),
        (entry(data_offsets=None), "offsets"),
        (entry(dtype="BF17"), "type"),
        (entry(dtype=16), "type"),
        (entry(dtype={"BF16": 1}), "type"),
        ([], "entry"),
        ("BF16", "entry"),
        (None, "entry"),
    ],
)
def test_the_tensor_and_its_field_are_named(hostile: Any, field: str) -> None:
    header = encode({"model.norm.weight": hostile})
    with pytest.raises(ModelSourceError, match=rf"{FILE}.*'model\.norm\.weight'.*{field}"):
        parse_header(header, file=FILE, file_bytes=8 + len(header) + 64)


@pytest.mark.parametrize("second", [[0, 64], [32, 96], [65, 129], [128, 192]])
def test_tensors_that_overlap_or_leave_gaps_are_refused(second: list[int]) -> None:
    header = encode({"a": entry(), "b": entry(data_offsets=second)})
    with pytest.raises(ModelSourceError, match=f"{FILE}.*overlap or leave gaps"):
        parse_header(header, file=FILE, file_bytes=8 + len(header) + second[1])


@pytest.mark.parametrize("missing", [1, 32, 63])
def test_a_truncated_file_is_refused(missing: int) -> None:
    header = encode({"a": entry()})
    with pytest.raises(ModelSourceError, match=f"{FILE}.*describes {8 + len(header) + 64} bytes"):
        parse_header(header, file=FILE, file_bytes=8 + len(header) + 64 - missing)
    with pytest.raises(ModelSourceError, match=f"{FILE}.*no JSON"):
        parse_header(header[:-missing], file=FILE, file_bytes=8 + len(header) + 64)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 2_000_000,
        b'{"a":' * 1_000_000,
        b"{" + b'"a":{},' * 1_000_000 + b'"b":{}}',
        b'{"a":[' + b"1," * 5_000_000 + b"1]}",
        b'{"a":' + b"9" * 1_000_000 + b"}",
        b'{"' + b"a" * 1_000_000 + b'":{}}',
    ],
    ids=["lists", "objects", "many tensors", "many numbers", "a long number", "a long name"],
)
def test_a_header_that_is_all_header_costs_little(header: bytes) -> None:
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(ModelSourceError, match=FILE) as refusal:
            parse_header(header, file=FILE, file_bytes=8 + len(header))
        assert len(str(refusal.value)) < 500
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024**2
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELD = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(sorted(DTYPE_BITS)) | JSON,
        "shape": st.lists(st.integers(-2, 2**40) | st.integers(0, 8), max_size=4) | JSON,
        "data_offsets": st.lists(st.integers(-8, 512), max_size=3) | JSON,
    },
)


@given(st.dictionaries(st.text(max_size=12), FIELD | JSON, max_size=4), st.integers(0, 2**40))
def test_any_header_gives_tensors_or_a_refusal(entries: dict[str, Any], file_bytes: int) -> None:
    header = encode(entries)
    try:
        tensors = parse_header(header, file=FILE, file_bytes=file_bytes)
    except ModelSourceError as refusal:
        assert FILE in str(refusal)  # noqa: PT017
        return
    assert sum(tensor.bytes for tensor in tensors.values()) == file_bytes - 8 - len(header)


@given(
    st.lists(
        st.tuples(st.sampled_from(("F32", "BF16", "U8", "I64")), st.lists(st.integers(0, 9), max_size=3)), max_size=6
    )
)
def test_what_a_writer_writes_is_read(written: list[tuple[str, list[int]]]) -> None:
    entries, expected, end = {}, {}, 0
    for number, (dtype, shape) in enumerate(written):
        size = DTYPE_BITS[dtype] // 8
        for length in shape:
            size *= length
        entries[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        expected[f"t{number}"] = Tensor(dtype=dtype, shape=tuple(shape), bytes=size)
        end += size
    header = encode(entries)
    assert parse_header(header, file=FILE, file_bytes=8 + len(header) + end) == expected
