"""``vrampack profile``: what it prints can be applied, and sizes the model it was made of."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.unit.ggufbytes import gguf
from tests.unit.local_models import TINY, write_model
from tests.unit.planning_world import decide, estimated, status_of, world
from tests.unit.test_gguf import MINIMAL, TENSORS
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.cli import main as command_line
from vrampack.errors import ModelSourceError
from vrampack.estimator import read_model
from vrampack.localcluster.hubcatalogue import catalogue
from vrampack.localcluster.hubdouble import HubDouble
from vrampack.planning.facts import architecture_and_weights
from vrampack.planning.snapshot import ProfileView

CLAIM = "pvc://models/tiny"


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(command_line.app, ["profile", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def manifest(*arguments: str) -> dict[str, Any]:
    code, out, err = invoke(*arguments)
    assert (code, err) == (0, "")
    found: dict[str, Any] = yaml.safe_load(out)
    return found


def test_a_folder_becomes_a_profile_that_sizes_the_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shards=2)
    found = manifest(str(folder), "--source", CLAIM)
    assert (found["apiVersion"], found["kind"]) == ("vrampack.dev/v1alpha1", "ModelProfile")
    spec = ModelProfileSpec.model_validate(found["spec"])
    assert spec.source == CLAIM
    assert spec.revision == ""
    assert spec.weights_digest.startswith("sha256:")
    facts = read_model(folder)
    assert architecture_and_weights(spec)[0] == facts.architecture
    # The same files give the same object, so that applying it again changes nothing.
    assert manifest(str(folder), "--source", CLAIM) == found
    assert json.loads(invoke(str(folder), "--source", CLAIM, "-o", "json")[1]) == found


def test_the_command_that_a_stalled_model_names_is_the_one(tmp_path: Path) -> None:
    served = estimated(source=CLAIM)
    message = status_of(decide(world(served)))["conditions"][0]["message"]
    command = "vrampack profile /models/tiny --source pvc://models/tiny | kubectl apply -f -"
    assert message.endswith(command)
    folder = write_model(tmp_path / "models" / "tiny")
    arguments = command.partition(" | ")[0].replace("/models/tiny", str(folder), 1).split()[2:]
    found = manifest(*arguments)
    applied = ProfileView(
        name=found["metadata"]["name"], generation=1, spec=ModelProfileSpec.model_validate(found["spec"])
    )
    small = estimated(model={"source": CLAIM}, serving={"contextLength": 1024, "concurrency": 2})
    status = status_of(decide(world(small, profiles=(applied,))))
    assert not [each for each in status["conditions"] if each["type"] == "Stalled"]
    assert status["model"]["profile"] == found["metadata"]["name"]


def test_files_that_were_downloaded_keep_their_source(tmp_path: Path) -> None:
    commit = "0e9e39f249a16976918f6564b8830bc894c89659"
    found = manifest(str(write_model(tmp_path)), "--source", "hf://team/tiny", "--revision", commit)
    assert (found["spec"]["source"], found["spec"]["revision"]) == ("hf://team/tiny", commit)


def test_a_gguf_file_is_named_in_its_profile(tmp_path: Path) -> None:
    path = tmp_path / "m-Q4_0.gguf"
    path.write_bytes(gguf({**MINIMAL}, {**TENSORS}))
    spec = ModelProfileSpec.model_validate(manifest(str(path), "--source", "pvc://models/m")["spec"])
    assert (spec.file, spec.precision.value) == ("m-Q4_0.gguf", "gguf")
    assert spec.weights_digest.startswith("sha256:")


class TestHub:
    @pytest.fixture
    async def hub(self) -> AsyncIterator[HubDouble]:
        async with HubDouble(models=list(catalogue())) as double:
            yield double

    async def test_a_model_on_the_hub(self, hub: HubDouble) -> None:
        found = await asyncio.to_thread(manifest, "hf://Qwen/Qwen3-0.6B", "--endpoint", hub.url)
        assert found["spec"]["revision"] == hub.commit("Qwen/Qwen3-0.6B")
        assert found["spec"]["parameters"] == 596_049_920

    async def test_a_model_that_is_not_there(self, hub: HubDouble) -> None:
        with pytest.raises(ModelSourceError, match="team/absent"):
            await asyncio.to_thread(manifest, "hf://team/absent", "--endpoint", hub.url)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(write_model(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say with --source where the engine will load these files from"),
        (["--source", "profile://tiny"], "a ModelProfile is no place for files"),
        (["--source", "s3://bucket"], "write hf://ORG/NAME, pvc://CLAIM/PATH or profile://NAME"),
        (["--source", "hf://team/tiny"], "write the full commit"),
        (["--source", "hf://team/tiny", "--revision", "main"], "write the full commit"),
        (["--source", CLAIM, "--revision", "a" * 40], "write the full commit with --source hf://"),
        (["--source", CLAIM, "-o", "table"], "printed as yaml or json"),
    ],
)
def test_a_question_that_is_wrong(folder: str, arguments: list[str], says: str) -> None:
    code, out, err = invoke(folder, *arguments)
    assert (code, out) == (2, "")
    assert says in err


@pytest.mark.parametrize("model", ["", CLAIM, "https://hub.example/a/b"])
def test_models_that_are_no_place(model: str) -> None:
    code, out, err = invoke(model, "--source", CLAIM)
    assert (code, out) == (2, "")
    assert f"model: {model!r} is not allowed" in err


def test_a_gguf_file_of_a_folder(tmp_path: Path) -> None:
    for name in ("tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf"):
        (tmp_path / name).write_bytes(gguf(MINIMAL, TENSORS))
    found = manifest(str(tmp_path), "--model-file", "tiny-Q8_0.gguf", "--source", CLAIM)
    assert found["spec"]["file"] == "tiny-Q8_0.gguf"


def test_a_source_for_a_model_on_the_hub() -> None:
    code, _, err = invoke("hf://team/tiny", "--source", CLAIM)
    assert code == 2
    assert "a model on the hub is its own source" in err


def test_a_model_that_is_not_known(tmp_path: Path) -> None:
    folder = write_model(tmp_path, config={key: TINY[key] for key in TINY if key != "num_hidden_layers"})
    code, out, err = invoke(str(folder), "--source", CLAIM)
    assert (code, out) == (2, "")
    assert "num_hidden_layers" in err
