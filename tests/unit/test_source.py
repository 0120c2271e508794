"""Model sources and the names of their profiles."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.api.source import ModelSource, SourceKind, parse_source, profile_name
from vrampack.errors import InvalidInputError


@pytest.mark.parametrize(
    ("source", "kind", "name", "path"),
    [
        ("hf://meta-llama/Llama-3.1-8B-Instruct", SourceKind.HUB, "meta-llama/Llama-3.1-8B-Instruct", ""),
        ("pvc://models/llama/8b", SourceKind.CLAIM, "models", "llama/8b"),
        ("pvc://models", SourceKind.CLAIM, "models", ""),
        ("profile://llama-8b.team-a", SourceKind.PROFILE, "llama-8b.team-a", ""),
    ],
)
def test_parsed(source: str, kind: SourceKind, name: str, path: str) -> None:
    assert parse_source(source) == ModelSource(kind=kind, name=name, path=path)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "meta-llama/Llama-3.1-8B",
        "hf://Llama",
        "hf://a/b/c",
        "hf://-a/b",
        "https://example.org/a/b",
        "pvc://models/../secrets",
        "pvc://Models/a",
        "pvc://models/",
        "profile://UPPER",
        "hf://a/b\n",
        "hf://a/" + "b" * 600,
    ],
)
def test_refused(source: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        parse_source(source)
    assert refusal.value.field == "spec.model.source"


def test_profile_name_reads_like_the_model_and_tells_commits_apart() -> None:
    first, second = (profile_name("hf://meta-llama/Llama-3.1-8B-Instruct", commit) for commit in ("a" * 40, "b" * 40))
    assert first == "meta-llama-llama-3-1-8b-instruct-b4ad01c45b"
    assert first != second


@given(st.text(max_size=600), st.text(max_size=50))
def test_profile_name_is_always_a_dns_label(source: str, commit: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", profile_name(source, commit))
