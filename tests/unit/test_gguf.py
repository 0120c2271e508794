"""Headers of GGUF files: what is read of them, and that nothing hostile is believed."""

import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ggufbytes import Raw, gguf, text
from vrampack.errors import ModelSourceError
from vrampack.memory.ggml import GGML_TYPES
from vrampack.models.gguf import MAX_HEADER_BYTES, GgufHeader, read_header
from vrampack.models.ggufcheckpoint import read_gguf
from vrampack.models.ggufweights import bytes_by_type

NAME = {"general.architecture": "llama"}
GIB = 2**30


def read(content: bytes, *, file_bytes: int | None = None) -> GgufHeader:
    size = len(content) if file_bytes is None else file_bytes
    return read_header(lambda start, length: content[start : start + length], file="m.gguf", file_bytes=size)


def test_metadata_has_its_types() -> None:
    header = read(
        gguf(
            {
                **NAME,
                "a.number": 7,
                "a.flag": True,
                "a.fraction": 0.5,
                "a.per_layer": [8, 0, 8],
                "a.flags": [True, False],
                "a.words": ["one", "two", "three"],
                "a.signed": Raw(5, struct.pack("<i", -3)),
                "a.wide": Raw(10, struct.pack("<Q", 2**40)),
            }
        )
    )
    assert header.metadata["a.number"] == 7
    assert header.metadata["a.flag"] is True
    assert header.metadata["a.fraction"] == 0.5
    assert header.metadata["a.per_layer"] == (8, 0, 8)
    assert header.metadata["a.flags"] == (True, False)
    assert header.metadata["a.signed"] == -3
    assert header.metadata["a.wide"] == 2**40
    assert "a.words" not in header.metadata
    assert header.lengths["a.words"] == 3


@pytest.mark.parametrize(
    ("kind", "row", "size"),
    [
        ("f32", 256, 1024),
        ("f16", 256, 512),
        ("bf16", 256, 512),
        ("q4_0", 256, 144),
        ("q5_1", 256, 192),
        ("q8_0", 256, 272),
        ("q2_k", 256, 84),
        ("q3_k", 256, 110),
        ("q4_k", 256, 144),
        ("q5_k", 256, 176),
        ("q6_k", 256, 210),
        ("iq1_s", 256, 50),
        ("iq1_m", 256, 56),
        ("iq2_xxs", 256, 66),
        ("iq2_s", 256, 82),
        ("iq3_xxs", 256, 98),
        ("iq3_s", 256, 110),
        ("iq4_nl", 256, 144),
        ("iq4_xs", 256, 136),
        ("mxfp4", 256, 136),
        ("nvfp4", 256, 144),
        ("tq1_0", 256, 54),
        ("tq2_0", 256, 66),
    ],
)
def test_bytes_of_a_tensor(kind: str, row: int, size: int) -> None:
    header = read(gguf(NAME, {"t": (kind, (row, 3))}))
    assert header.tensors["t"].bytes == 3 * size
    assert bytes_by_type(header.tensors) == {kind: 3 * size}


def test_bits_of_a_parameter_are_those_of_the_name() -> None:
    bits = {name: 8 * each.bytes / each.block for name, each in GGML_TYPES.items()}
    assert bits["q8_0"] == 8.5
    assert bits["q4_k"] == 4.5
    assert bits["mxfp4"] == 4.25
    assert bits["iq1_s"] == 1.5625
    assert bits["tq2_0"] == 2.0625


def test_a_long_header_is_read_in_ranges() -> None:
    content = gguf({**NAME, "tokenizer.ggml.tokens": [f"word {number}" for number in range(100_000)], "last": 1})
    asked: list[int] = []

    def fetch(start: int, length: int) -> bytes:
        asked.append(length)
        return content[start : start + length]

    header = read_header(fetch, file="m.gguf", file_bytes=len(content) + 40 * GIB)
    assert header.lengths["tokenizer.ggml.tokens"] == 100_000
    assert header.metadata["last"] == 1
    assert 3 <= len(asked) <= 8
    assert max(asked) <= 8 * 2**20


def count(tensors: int, pairs: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs)


def tensor(name: str, shape: tuple[int, ...], number: int, at: int = 0) -> bytes:
    whole = count(1, 1) + text("general.architecture") + struct.pack("<I", 8) + text("llama")
    whole += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", number, at)
    return whole + bytes(64)


HOSTILE = {
    "empty": (b"", "magic"),
    "another file": (b"PK\x03\x04" + bytes(64), "does not begin with GGUF"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648"),
    "more tensors than bytes": (count(10**12, 0) + bytes(64), "tensor_count claims"),
    "negative tensors": (b"GGUF" + struct.pack("<Iqq", 3, -1, 0) + bytes(64), "tensor_count claims"),
    "more pairs than bytes": (count(0, 2**63) + bytes(64), "metadata_kv_count claims"),
    "a key of 10 GB": (count(0, 1) + struct.pack("<Q", 10 * GIB) + bytes(64), "metadata key claims a text"),
    "a text of 10 GB": (
        gguf({"k": Raw(8, struct.pack("<Q", 10 * GIB) + b"x" * 64)}),
        "k claims a text of 10737418240",
    ),
    "an array of 10 GB": (gguf({"k": Raw(9, struct.pack("<IQ", 4, 3 * GIB) + bytes(64))}), "k claims 3221225472"),
    "texts that are not there": (gguf({"k": Raw(9, struct.pack("<IQ", 8, 2_000_000) + bytes(64))}), "k claims 2000000"),
    "an array of arrays": (gguf({"k": Raw(9, struct.pack("<IQ", 9, 2) + bytes(64))}), "k is an array of the type 9"),
    "an unknown type": (gguf({"k": Raw(13, bytes(64))}), "k has the unknown type 13"),
    "a flag of 2": (gguf({"k": Raw(7, b"\x02")}), "k is a flag"),
    "not UTF-8": (gguf({"k": Raw(8, struct.pack("<Q", 2) + b"\xff\xfe")}), "k holds a text that is not UTF-8"),
    "alignment 0": (gguf({"general.alignment": 0}), "general.alignment"),
    "alignment 33": (gguf({"general.alignment": 33}), "general.alignment"),
    "alignment as text": (gguf({"general.alignment": "32"}), "general.alignment"),
    "too many dimensions": (tensor("t", (1, 1, 1, 1, 1), 0), "'t' has 5 dimensions"),
    "an impossible shape": (tensor("t", (2**40, 2**40), 0), "'t' has an impossible shape"),
    "an unknown tensor type": (tensor("t", (32,), 99), "'t' has the unknown type 99"),
    "a withdrawn tensor type": (tensor("t", (32,), 31), "'t' has the unknown type 31"),
    "half a block": (tensor("t", (48,), 8), "no whole blocks of q8_0"),
    "a gap before it": (tensor("t", (8,), 0, at=32), "'t' does not begin"),
    "tensors beyond the end": (tensor("t", (4096,), 0), "its tensors end at byte"),
}


@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_hostile_is_said_with_file_and_field(content: bytes, words: str) -> None:
    with pytest.raises(ModelSourceError) as caught:
        read(content)
    assert words in str(caught.value)
    assert "m.gguf" in str(caught.value)
    assert not caught.value.retriable


def test_the_same_key_or_tensor_twice_is_refused() -> None:
    pair = text("k") + struct.pack("<IB", 0, 1)
    with pytest.raises(ModelSourceError, match="'k' is there twice"):
        read(count(0, 2) + pair + pair)
    entry = text("t") + struct.pack("<IQIQ", 1, 8, 0, 0)
    with pytest.raises(ModelSourceError, match="'t' is there twice"):
        read(count(2, 0) + entry + entry + bytes(64))


def test_a_file_that_claims_much_costs_neither_memory_nor_time() -> None:
    """The file says that it is 100 GB, that it has as many texts as are read at all, and gives zeros for ever."""
    start = gguf({"k": Raw(9, struct.pack("<IQ", 8, 2**21))})
    asked: list[int] = []

    def fetch(at: int, length: int) -> bytes:
        asked.append(length)
        return (start[at:] + bytes(length))[:length]

    began = time.process_time()
    header = read_header(fetch, file="m.gguf", file_bytes=100 * GIB)
    assert header.lengths["k"] == 2**21
    assert time.process_time() - began < 10
    assert max(asked) <= 8 * 2**20
    assert sum(asked) < MAX_HEADER_BYTES


def test_texts_of_many_arrays_are_counted_together() -> None:
    pair = struct.pack("<IIQ", 9, 8, 2**20) + bytes(8 * 2**20)
    with pytest.raises(ModelSourceError, match="c and the arrays before it claim 3145728 texts"):
        read(count(0, 3) + b"".join(text(key) + pair for key in "abc"))


@given(st.data())
def test_every_cut_and_every_changed_byte_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(
        gguf(
            {**NAME, "a.list": [1, 2, 3], "a.words": ["x", "yz"], "a.text": "abc", "general.alignment": 32},
            {"token_embd.weight": ("q8_0", (64, 4)), "blk.0.ffn_up.weight": ("f32", (8, 8))},
        )
    )
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(ModelSourceError):
        header = read(cut)
        assert header.header_bytes + header.data_bytes <= len(cut) + 31


@given(st.binary(max_size=200), st.integers(0, 2**40))
def test_any_bytes_are_read_or_refused(content: bytes, size: int) -> None:
    with suppress(ModelSourceError):
        header = read(b"GGUF\x03\x00\x00\x00" + content, file_bytes=size)
        assert header.header_bytes <= len(content) + 8


MINIMAL = {
    **NAME,
    "llama.block_count": 1,
    "llama.embedding_length": 64,
    "llama.context_length": 128,
    "llama.attention.head_count": 2,
    "llama.feed_forward_length": 96,
}
TENSORS = {"token_embd.weight": ("q8_0", (64, 100)), "blk.0.attn_q.weight": ("q4_0", (64, 64))}


@pytest.mark.parametrize("tensors", [{}, {"token_embd.weight": ("q8_0", (64, 100))}, TENSORS])
def test_a_file_without_some_of_its_layers_is_refused(tmp_path: Path, tensors: dict[str, Any]) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf({**MINIMAL, "llama.block_count": 2}, {**tensors}))
    with pytest.raises(ModelSourceError, match="its header says 2") as refusal:
        read_gguf(tmp_path / "m.gguf")
    assert refusal.value.reason == "ModelFilesInvalid"


def test_a_file_on_disk_is_read_with_its_parts(tmp_path: Path) -> None:
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(gguf({**MINIMAL, "split.count": 2}, {**TENSORS}))
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(gguf({"split.no": 1}, {"output.weight": ("f16", (64, 100))}))
    facts = read_gguf(tmp_path / "m-00002-of-00002.gguf")
    assert facts.by_dtype == {"f16": 12_800, "q4_0": 2304, "q8_0": 6800}
    assert facts.weights.total == 21_904
    assert facts.weights.precision == "gguf"
    assert facts.weights_digest == ""
    assert not facts.architecture.tied_embeddings
    assert [file.name for file in facts.files] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]


@pytest.mark.parametrize(
    ("names", "asked", "words"),
    [
        (["m-00001-of-00002.gguf"], "m-00001-of-00002.gguf", "has no m-00002-of-00002.gguf"),
        ([], "m.gguf", "has no m.gguf"),
        (["a.gguf", "b.gguf"], "*.gguf", "2 GGUF files for"),
    ],
)
def test_parts_that_are_missing_and_names_that_are_not_clear(
    tmp_path: Path, names: list[str], asked: str, words: str
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(gguf(MINIMAL))
    with pytest.raises(ModelSourceError, match=words.replace("*", r"\*")):
        read_gguf(tmp_path / asked)


def test_a_link_that_leads_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").symlink_to(tmp_path / "n.gguf")
    (tmp_path / "n.gguf").symlink_to(tmp_path / "m.gguf")
    with pytest.raises(ModelSourceError, match=r"m\.gguf"):
        read_gguf(tmp_path / "m.gguf")
