"""Canonical quantities; the pairs are what a Kubernetes 1.36 API server wrote back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.planning.quantity import canonical_quantity
from vrampack.units import parse_quantity

PAIRS = {
    "0": "0",
    "0.0Gi": "0",
    "1": "1",
    "1000m": "1",
    "1500m": "1500m",
    "0.5": "500m",
    "0.25": "250m",
    "12": "12",
    "1000": "1k",
    "1200": "1200",
    "12000": "12k",
    "1e3": "1e3",
    "1500e3": "1500e3",
    "1024Mi": "1Gi",
    "65536Mi": "64Gi",
    "1.5Gi": "1536Mi",
    "0.125Ti": "128Gi",
    "26583Mi": "26583Mi",
    "1025Ki": "1025Ki",
    "1000Ki": "1000Ki",
    "2e-3": "2e-3",
    "100n": "1m",
    "1e-4": "1e-3",
    "0.5Gi": "512Mi",
    "1023Ki": "1023Ki",
    "0.5Ki": "512",
    "1.1Gi": "1181116006400m",
    "1000000": "1M",
    "7E": "7E",
}


@pytest.mark.parametrize("written", PAIRS)
def test_as_the_api_server_writes_it(written: str) -> None:
    assert canonical_quantity(written) == PAIRS[written]


def test_a_plain_number() -> None:
    assert canonical_quantity(4) == "4"
    assert canonical_quantity(0.5) == "500m"


def test_no_quantity() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        canonical_quantity("many")


suffixes = st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "e-3"])


@given(number=st.integers(0, 10**9), suffix=suffixes)
def test_same_amount_and_stable(number: int, suffix: str) -> None:
    canonical = canonical_quantity(f"{number}{suffix}")
    assert parse_quantity(canonical) == parse_quantity(f"{number}{suffix}")
    assert canonical_quantity(canonical) == canonical
