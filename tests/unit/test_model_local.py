"""A model in a folder: its facts, and what is said of a folder that is broken or hostile."""

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.local_models import TINY, safetensors, tiny_tensors, write_model
from vrampack.errors import ModelSourceError, UnsupportedModelError, VrampackError
from vrampack.memory.architecture import WeightsMethod
from vrampack.models.facts import WeightFile, digest_of
from vrampack.models.local import read_config, read_folder

PARAMETERS = 2 * 512 * 64 + 64 + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64 + 2 * 64)


@pytest.mark.parametrize("shards", [1, 3])
def test_facts_are_the_same_however_the_weights_are_cut(tmp_path: Path, shards: int) -> None:
    found = read_folder(write_model(tmp_path, shards=shards), source="pvc://models/tiny")
    assert found.weights.parameters == PARAMETERS
    assert found.weights.total == 2 * PARAMETERS
    assert found.weights.precision == "bf16"
    assert found.architecture.layers == 2
    assert found.source == "pvc://models/tiny"
    assert found.commit == ""
    assert found.weights_digest == ""
    assert len(found.files) == shards


def test_the_digest_is_the_hub_s_of_the_same_contents(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    told: list[int] = []
    found = read_folder(folder, digest=True, hashed=told.append)
    content = (folder / "model.safetensors").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    expected = [WeightFile(name="model.safetensors", bytes=len(content), sha256=sha256)]
    assert found.weights_digest == digest_of(expected)
    assert sum(told) == len(content)


def test_other_copies_of_the_weights_are_left_out(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "consolidated.safetensors").write_bytes(safetensors(tiny_tensors()))
    (folder / "original").mkdir()
    assert [file.name for file in read_folder(folder).files] == ["model.safetensors"]


def test_headers_tell_the_weights_of_a_family_whose_layers_run_through_them_again(tmp_path: Path) -> None:
    """HRM: a cache for each of 256 layers, and weights of two."""
    found = read_folder(write_model(tmp_path, config=TINY | {"model_type": "hrm_text", "num_hidden_layers": 256}))
    assert found.weights.method is WeightsMethod.TENSORS
    assert (found.weights.parameters, found.architecture.layers) == (PARAMETERS, 256)


@pytest.mark.parametrize("shards", [1, 2])
def test_older_weight_files_count_by_their_size(tmp_path: Path, shards: int) -> None:
    """Nobody opens a pickle: what is in it may run."""
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    names = ["pytorch_model.bin"] if shards == 1 else [f"pytorch_model-{number}.bin" for number in range(shards)]
    for name in names:
        (folder / name).write_bytes(b"\0" * (2 * PARAMETERS // shards))
    if shards > 1:
        index = {"weight_map": {f"a{number}": name for number, name in enumerate(names)}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    found = read_folder(folder)
    assert found.weights.method is WeightsMethod.FILE_SIZES
    assert (found.weights.total, found.weights.precision) == (2 * PARAMETERS, "bf16")
    assert [file.name for file in found.files] == names


def test_what_older_files_store_wider_is_converted(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\0" * (4 * PARAMETERS))
    assert read_folder(folder).weights.total == 2 * PARAMETERS


def test_an_older_weight_file_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\0" * 100)
    with pytest.raises(ModelSourceError, match=r"pytorch_model\.bin.*100 bytes, and config\.json implies"):
        read_folder(folder)


def test_links_are_followed_as_in_the_hub_s_own_cache(tmp_path: Path) -> None:
    blobs = write_model(tmp_path / "blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("..") / "blobs" / file.name)
    assert read_folder(snapshot).weights == read_folder(blobs).weights


def broken(folder: Path) -> str:
    with pytest.raises(ModelSourceError) as refusal:
        read_folder(folder, digest=True)
    assert not refusal.value.retriable
    return str(refusal.value)


class TestBroken:
    def test_no_folder(self, tmp_path: Path) -> None:
        assert broken(tmp_path / "absent") == f"{tmp_path}/absent can't be read: it is not there."
        assert broken(write_model(tmp_path) / "config.json").endswith("config.json can't be read: it is no folder.")

    def test_a_link_in_a_circle(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path)
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to("other.safetensors")
        (folder / "other.safetensors").symlink_to("model.safetensors")
        assert "model.safetensors can't be read: its link leads in a circle" in broken(folder)

    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path)
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to("gone")
        assert "it is not there, its link leads nowhere" in broken(folder)

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path)
        (folder / "config.json").unlink()
        os.mkfifo(folder / "config.json")
        assert "config.json can't be used: it is no plain file" in broken(folder)

    def test_a_truncated_file(self, tmp_path: Path) -> None:
        path = write_model(tmp_path) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        assert "its header describes" in broken(tmp_path)
        path.write_bytes(path.read_bytes()[:4])
        assert "model.safetensors is no valid safetensors file: it has 4 bytes" in broken(tmp_path)

    def test_a_header_that_claims_ten_gigabytes(self, tmp_path: Path) -> None:
        path = write_model(tmp_path) / "model.safetensors"
        path.write_bytes(struct.pack("<Q", 10**10) + b"{}")
        assert "its header claims 10000000000 bytes" in broken(tmp_path)

    def test_no_weights(self, tmp_path: Path) -> None:
        (write_model(tmp_path) / "model.safetensors").unlink()
        assert "has no model.safetensors.index.json or model.safetensors" in broken(tmp_path)

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "", "x\0y", "original/a"])
    def test_an_index_that_leads_out_of_the_folder(self, tmp_path: Path, name: str) -> None:
        folder = write_model(tmp_path, shards=2)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        assert f"{folder} has no {name}" in broken(folder)

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 100_000])
    def test_an_index_that_is_none(self, tmp_path: Path, text: str) -> None:
        folder = write_model(tmp_path, shards=2)
        (folder / "model.safetensors.index.json").write_text(text)
        assert f"model.safetensors.index.json of {folder} can't be used" in broken(folder)

    def test_a_config_of_any_size(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path)
        (folder / "config.json").write_bytes(b" " * (16 * 1024**2 + 1))
        assert "it is larger than 16777216 bytes" in broken(folder)
        with pytest.raises(ModelSourceError, match="larger than 16777216"):
            read_config(folder / "config.json")

    def test_an_architecture_that_is_not_known_needs_no_weights(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({key: TINY[key] for key in TINY if key != "model_type"}))
        with pytest.raises(UnsupportedModelError, match="model_type"):
            read_folder(tmp_path)


def test_a_configuration_alone(tmp_path: Path) -> None:
    assert read_config(write_model(tmp_path) / "config.json") == TINY


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000])
def test_a_configuration_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelSourceError, match="it is no JSON"):
        read_config(tmp_path / "config.json")


@given(content=st.binary(max_size=400), index=st.none() | st.binary(max_size=200))
def test_bytes_of_any_kind_are_an_answer_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, index: bytes | None
) -> None:
    folder = write_model(tmp_path_factory.mktemp("model"))
    (folder / "model.safetensors").write_bytes(content)
    if index is not None:
        (folder / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(VrampackError):
        read_folder(folder, digest=True)


# Weights of something else.


def other_weights(folder: Path, shapes: dict[str, list[int]]) -> Path:
    write_model(folder)
    (folder / "model.safetensors").write_bytes(safetensors(shapes))
    return folder


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"anything": [10, 10]}, "its tensors have 200 bytes, and config.json implies"),
        (tiny_tensors() | {"lm_head.weight": [512, 6400]}, "and config.json implies"),
        (
            {name: shape for name, shape in tiny_tensors().items() if ".layers." in name and ".1." not in name},
            "it has tensors of 1 layer, and config.json says 2",
        ),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path: Path, shapes: dict[str, list[int]], says: str) -> None:
    with pytest.raises(ModelSourceError, match=r"model\.safetensors") as refusal:
        read_folder(other_weights(tmp_path / "m", shapes))
    assert refusal.value.reason == "ModelFilesInvalid"
    assert says in str(refusal.value)


def test_weights_that_are_quantized_or_lack_a_head_are_those_of_the_model(tmp_path: Path) -> None:
    shapes = tiny_tensors()
    del shapes["lm_head.weight"]
    assert read_folder(other_weights(tmp_path / "m", shapes)).weights.total > 0
    packed = {name: [size[0], max(1, size[-1] // 4)] for name, size in tiny_tensors().items()}
    assert read_folder(other_weights(tmp_path / "q", packed)).weights.total > 0
