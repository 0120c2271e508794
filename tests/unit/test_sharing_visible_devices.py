"""The annotations of a claim, and the value that each kind of node understands."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrampack.api import names
from vrampack.api.gpupool import InjectionStyle
from vrampack.errors import InvalidInputError
from vrampack.sharing.base import Claimed, Share, utilization
from vrampack.sharing.registry import mechanism
from vrampack.sharing.visible_devices import MECHANISM, resolve_style, runs_with
from vrampack.units import GIB, MIB

NRI = "nvidia.cdi.k8s.io/container.engine"


def annotations(**changes: Any) -> dict[str, str]:
    claim: dict[str, Any] = {
        "gpus": ("GPU-a", "GPU-b"),
        "bytes": 26583 * MIB,
        "style": InjectionStyle.CDI_RUNTIME,
        "share": Share(kv_cache=8 * GIB, runtime_context=861 * MIB, communication=604 * MIB),
        "usable_bytes": 79 * GIB,
    }
    return MECHANISM.annotations(Claimed(**(claim | changes)))


def test_a_claim() -> None:
    assert annotations() == {
        "vrampack.dev/gpus": "GPU-a,GPU-b",
        "vrampack.dev/claim": "27874295808",
        "vrampack.dev/visible-devices": "runtime.nvidia.com/gpu=GPU-a,runtime.nvidia.com/gpu=GPU-b",
        "vrampack.dev/utilization": "0.3104",  # (26583 - 861 - 604) / (79 * 1024) = 0.310497…
        "vrampack.dev/kv-cache-bytes": "8589934592",
        "vrampack.dev/memory-limit-mib": "26583",
    }


@pytest.mark.parametrize(
    ("style", "value"),
    [
        (InjectionStyle.BARE, "GPU-a,GPU-b"),
        (InjectionStyle.CDI_RUNTIME, "runtime.nvidia.com/gpu=GPU-a,runtime.nvidia.com/gpu=GPU-b"),
        (
            InjectionStyle.CDI_DEVICE_PLUGIN,
            "k8s.device-plugin.nvidia.com/gpu=GPU-a,k8s.device-plugin.nvidia.com/gpu=GPU-b",
        ),
        (InjectionStyle.CDI_HOST, "nvidia.com/gpu=GPU-a,nvidia.com/gpu=GPU-b"),
        (InjectionStyle.NRI, "void"),
    ],
)
def test_visible_devices_by_style(style: InjectionStyle, value: str) -> None:
    found = annotations(style=style)
    assert found[names.VISIBLE_DEVICES] == value
    assert set(found) - {NRI} == set(names.CLAIM_ANNOTATIONS) - {names.EPOCH}
    assert (NRI in found) == (style is InjectionStyle.NRI)


def test_nri_reads_an_annotation_of_its_own() -> None:
    devices = "k8s.device-plugin.nvidia.com/gpu=GPU-a,k8s.device-plugin.nvidia.com/gpu=GPU-b"
    assert annotations(style=InjectionStyle.NRI)[NRI] == devices


@pytest.mark.parametrize(
    ("pool", "node", "resolved"),
    [
        (InjectionStyle.AUTO, InjectionStyle.BARE, InjectionStyle.BARE),
        (InjectionStyle.CDI_HOST, InjectionStyle.BARE, InjectionStyle.CDI_HOST),
        (InjectionStyle.AUTO, None, InjectionStyle.CDI_RUNTIME),
        (InjectionStyle.AUTO, InjectionStyle.AUTO, InjectionStyle.CDI_RUNTIME),
    ],
)
def test_whose_style_counts(pool: InjectionStyle, node: InjectionStyle | None, resolved: InjectionStyle) -> None:
    assert resolve_style(pool=pool, node=node) is resolved


def test_nodes_with_nri_have_no_runtime_class() -> None:
    assert runs_with(InjectionStyle.NRI, runtime_class=None)
    assert not runs_with(InjectionStyle.NRI, runtime_class="nvidia")
    assert runs_with(InjectionStyle.CDI_RUNTIME, runtime_class="nvidia")
    assert runs_with(InjectionStyle.BARE, runtime_class="")


def test_the_limit_is_never_below_the_claim() -> None:
    assert annotations(bytes=MIB + 1)[names.MEMORY_LIMIT_MIB] == "2"


@given(
    claim=st.integers(1, 300 * GIB),
    context=st.integers(0, 2 * GIB),
    communication=st.integers(0, 2 * GIB),
    usable=st.integers(1 * GIB, 300 * GIB),
)
def test_utilization_asks_for_no_more_than_the_claim_has(
    claim: int, context: int, communication: int, usable: int
) -> None:
    share = Share(kv_cache=0, runtime_context=context, communication=communication)
    written = utilization(claim_bytes=claim, share=share, usable_bytes=usable)
    assert len(written) == 6
    assert 0.0001 <= float(written) <= 0.99
    budget = max(claim - context - communication, usable // 10_000 + 1)
    assert int(written[2:]) * usable <= budget * 10_000


def test_registry() -> None:
    assert mechanism("VisibleDevices") is MECHANISM
    with pytest.raises(InvalidInputError, match="VisibleDevices"):
        mechanism("TimeSlicing")
