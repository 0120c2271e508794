"""MIG layouts: only those that the hardware has, and as much of the demand as they can serve."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from vrampack.cli.main import app
from vrampack.errors import InvalidInputError
from vrampack.memory.gpus import GPUS
from vrampack.sharing.miglayout import NAMES, cuts, layouts, mig_config, sizes_of
from vrampack.units import GIB

H100 = sizes_of(GPUS["H100-80"].usable, names=NAMES["H100-80"])
ALL = tuple(each.size for each in H100)


def test_no_slice_is_taken_for_more_than_it_has() -> None:
    """Measured of an H100 80GB: an eighth 9.75 GiB, a quarter 19.62, a half 39.50, all of it 79.25."""
    real = {"1g.10gb": 9.75, "1g.20gb": 19.62, "2g.20gb": 19.62, "3g.40gb": 39.5, "4g.40gb": 39.5, "7g.80gb": 79.25}
    for each in H100:
        assert 0.98 * real[each.name] <= each.memory / GIB <= real[each.name]


@pytest.mark.parametrize(
    ("cut", "possible"),
    [
        (("1g",) * 7, True),
        (("1g",) * 8, False),
        (("3g", "3g"), True),
        (("1g", "1g", "1g", "3g"), True),
        (("1g", "1g", "1g", "1g", "3g"), True),
        (("1g", "3g", "3g"), False),
        (("4g", "3g"), True),
        (("4g", "4g"), False),
        (("2g", "2g", "2g", "1g"), True),
        (("2g", "2g", "2g", "2g"), False),
        (("1g.2x",) * 4, True),
        (("7g",), True),
        (("7g", "1g"), False),
    ],
)
def test_what_the_hardware_has(cut: tuple[str, ...], possible: bool) -> None:
    assert any(sorted(cut) == sorted(each) for each in cuts(ALL)) is possible


@settings(max_examples=30, deadline=None)
@given(demand=st.lists(st.integers(1 * GIB, 39 * GIB), max_size=9), gpus=st.integers(1, 3))
def test_each_replica_has_one_slice_that_holds_it(demand: list[int], gpus: int) -> None:
    found = layouts(H100, demand, gpus=gpus)
    assert found == layouts(H100, demand, gpus=gpus)
    served = [index for layout in found for index in layout.serves]
    assert len(served) == len(set(served))
    memory = {each.name: each.memory for each in H100}
    for layout in found:
        slices = sorted((memory[name] for name, count in layout.slices.items() for _ in range(count)), reverse=True)
        needs = sorted((demand[index] for index in layout.serves), reverse=True)
        assert all(need <= size for need, size in zip(needs, slices, strict=False))
        assert len(needs) <= len(slices)
    if not demand:
        assert served == []


def test_a_usual_mix() -> None:
    (layout,) = layouts(H100, [35 * GIB, 18 * GIB, 9 * GIB, 8 * GIB], gpus=1)
    assert layout.serves == (0, 1, 2, 3)
    assert layout.slices["3g.40gb"] + layout.slices.get("4g.40gb", 0) == 1
    config = mig_config("llm-mix", [layout])
    assert config["version"] == "v1"
    assert list(config["mig-configs"]) == ["llm-mix"]  # type: ignore[call-overload]


def test_a_replica_that_no_slice_holds_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="whole GPUs"):
        layouts(H100[:-1], [60 * GIB], gpus=1)


def manifest(folder: Path, *, replicas: int) -> str:
    deployment = {
        "apiVersion": "vrampack.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m"},
        "spec": {
            "model": {"source": "hf://org/model"},
            "serving": {"contextLength": 1024, "concurrency": 4},
            "engine": {"name": "custom", "image": "x"},
            "memory": {"perGPU": "18Gi"},
            "replicas": replicas,
        },
    }
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(deployment))
    return str(path)


def test_the_command_prints_a_change_to_review(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["mig-layout", manifest(tmp_path, replicas=3), "--gpu", "H100-80"])
    assert result.exit_code == 0, result.output
    assert "kubectl label node NODE nvidia.com/mig.config=vrampack" in result.output
    config = yaml.safe_load(result.output)
    (device,) = config["mig-configs"]["vrampack"]
    assert sum(device["mig-devices"].values()) >= 3


def test_the_command_says_who_finds_no_slice(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["mig-layout", manifest(tmp_path, replicas=9), "--gpu", "H100-80"])
    assert result.exit_code == 1
    assert "without a slice" in result.output
    wrong = CliRunner().invoke(app, ["mig-layout", manifest(tmp_path, replicas=1), "--gpu", "L40S"])
    assert wrong.exit_code == 2
