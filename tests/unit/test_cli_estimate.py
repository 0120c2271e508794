"""``vrampack estimate``: figures, exit statuses, and what is said of a question that is wrong."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from tests.unit.ggufbytes import gguf as gguf_file
from tests.unit.local_models import TINY, write_model
from tests.unit.planning_world import decide, estimated, gpu, gpu_node, status_of, world
from tests.unit.test_gguf import MINIMAL, TENSORS
from vrampack.api.common import Quantity
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.cli import main as command_line
from vrampack.cli.estimatepicture import render_estimates
from vrampack.cli.estimatesubject import subject_of_options
from vrampack.cli.estimateview import CardView, EstimateView, cards_of
from vrampack.errors import VrampackError
from vrampack.estimator import estimate, read_model
from vrampack.localcluster.hubcatalogue import catalogue
from vrampack.localcluster.hubdouble import HubDouble
from vrampack.memory.architecture import WeightsMethod
from vrampack.memory.gpus import GPUS
from vrampack.memory.inverse import Limit, Reach
from vrampack.planning.snapshot import ProfileView
from vrampack.planning.verdict import Sized
from vrampack.units import GIB, MIB, human_bytes

GOLDEN = Path(__file__).parent / "golden" / "estimate.txt"


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "110", "NO_COLOR": "1"}).invoke(command_line.app, ["estimate", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def answer(*arguments: str) -> dict[str, Any]:
    """The only estimate of the JSON."""
    code, out, _ = invoke(*arguments, "-o", "json")
    found: dict[str, Any] = json.loads(out)
    assert code == (0 if found["fits"] else 3)
    (only,) = found["estimates"]
    return dict(only)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "tiny"))


def manifest(path: Path, *objects: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump_all(objects))
    return str(path)


def deployment(name: str = "tiny", *, namespace: str = "serving", **spec: Any) -> dict[str, Any]:
    usual = {"model": {"source": "profile://tiny"}, "serving": {"contextLength": 1024, "concurrency": 4}}
    return {
        "apiVersion": "vrampack.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": usual | spec,
    }


def profile_of(folder: str, name: str = "tiny") -> dict[str, Any]:
    result = CliRunner().invoke(command_line.app, ["profile", folder, "--source", "pvc://models/tiny", "-o", "json"])
    found: dict[str, Any] = json.loads(result.stdout)
    found["metadata"]["name"] = name
    return found


class TestModel:
    def test_the_figures_are_the_library_s(self, folder: str) -> None:
        found = answer(folder, "-c", "1024", "-n", "4", "--tokens-per-sequence", "512", "-g", "L4", "-g", "24Gi")
        expected = estimate(folder, context_length=1024, concurrency=4, tokens_per_sequence=512)
        assert found["claim"] == expected.per_gpu
        assert found["terms"] == expected.terms
        assert sum(found["terms"].values()) == found["claim"]
        assert found["computed"] is None
        assert found["method"] == "Computed"
        assert found["kv_blocks"] == expected.estimate.kv_blocks
        assert found["max_concurrency_at_context"] == expected.estimate.max_concurrency_at_context
        small, large = found["cards"]
        assert (small["gpu"], small["usable"]) == ("L4", GPUS["L4"].usable)
        assert (large["gpu"], large["usable"]) == ("24Gi", 24 * GIB)
        there = estimate(folder, context_length=1024, concurrency=4, tokens_per_sequence=512, product="NVIDIA-L4")
        assert small["claim"] == there.per_gpu < large["claim"] == found["claim"], "CUDA takes less of a small GPU"
        assert small["free"] == GPUS["L4"].usable - small["claim"]
        assert small["largest_concurrency"]["value"] == there.largest_concurrency("L4").value
        assert small["longest_context"] == {"value": 4096, "limit": "refused"}

    def test_a_configuration_alone_has_the_same_figures(self, folder: str) -> None:
        alone = answer(f"{folder}/config.json", "-c", "1024", "-n", "4")
        assert alone["claim"] == answer(folder, "-c", "1024", "-n", "4")["claim"]

    def test_every_known_gpu_where_none_is_named(self, folder: str) -> None:
        assert [card["gpu"] for card in answer(folder)["cards"]] == list(GPUS)

    def test_the_default_context_is_no_longer_than_the_model_s(self, folder: str) -> None:
        assert answer(folder)["context_length"] == 4096

    def test_options_reach_the_estimate(self, folder: str) -> None:
        plain = answer(folder, "-g", "L4")
        assert answer(folder, "-g", "L4", "--kv-cache", "fp8")["terms"]["kv_cache"] < plain["terms"]["kv_cache"]
        assert answer(folder, "-g", "L4", "--no-cuda-graphs")["terms"]["cuda_graphs"] == 0
        assert answer(folder, "-g", "L4", "--headroom", "0%")["terms"]["headroom"] == 0
        assert answer(folder, "-g", "L4", "-t", "2")["gpus"] == 2
        fewer = answer(folder, "-g", "L4", "--max-batched-tokens", "512")
        assert fewer["terms"]["activations"] < plain["terms"]["activations"]

    def test_yaml_says_the_same(self, folder: str) -> None:
        code, out, _ = invoke(folder, "-o", "yaml")
        assert code == 0
        assert yaml.safe_load(out) == json.loads(invoke(folder, "-o", "json")[1])

    def test_exit_status_3_where_no_gpu_has_room(self, folder: str) -> None:
        assert invoke(folder, "-g", "500Mi")[0] == 3
        assert invoke(folder, "-g", "500Mi", "-g", "T4")[0] == 0

    def test_what_if(self, folder: str) -> None:
        needed = answer(folder, "-n", "64", "-g", "L40S")["claim"]
        small = str(needed - MIB)
        (card,) = answer(folder, "-n", "64", "-g", small, "--what-if")["cards"]
        assert not card["fits"]
        assert "concurrency ≤ 63" in card["would_fit_if"]
        assert answer(folder, "-n", "63", "-g", small)["fits"]
        assert f"would fit on {small} if concurrency ≤ 63" in invoke(folder, "-n", "64", "-g", small, "--what-if")[1]
        assert answer(folder, "-n", "64", "-g", small)["cards"][0]["would_fit_if"] == []

    def test_a_table(self, folder: str) -> None:
        code, out, err = invoke(folder, "-g", "T4", "-g", "500Mi")
        assert (code, err) == (0, "")
        for words in ("weights", "KV cache", "claim", "fits, 13.", "does not fit, ", "4096*"):
            assert words in out


class TestEngines:
    def test_a_gguf_file_is_served_by_llamacpp(self, tmp_path: Path) -> None:
        path = tmp_path / "m-Q4_0.gguf"
        path.write_bytes(gguf_file({**MINIMAL}, {**TENSORS}))
        found = answer(str(path), "-c", "128", "-n", "2", "-g", "T4")
        expected = estimate(path, context_length=128, concurrency=2, engine="llamacpp", product="Tesla-T4")
        assert (found["claim"], found["precision"]) == (expected.per_gpu, "gguf")
        assert found["cards"][0]["largest_concurrency"]["limit"] == "refused"

    @pytest.mark.parametrize("engine", ["sglang", "tgi"])
    def test_engines_beside_vllm(self, folder: str, engine: str) -> None:
        found = answer(folder, "-c", "1024", "-n", "4", "-g", "L40S", "--engine", engine)
        expected = estimate(folder, context_length=1024, concurrency=4, engine=engine)
        assert found["claim"] == expected.per_gpu
        assert found["notes"] == []
        small = str(found["claim"] - MIB)
        (card,) = answer(folder, "-n", "4", "-c", "1024", "-g", small, "--engine", engine, "--what-if")["cards"]
        assert "concurrency ≤ 3" in card["would_fit_if"]

    def test_what_they_refuse(self, folder: str) -> None:
        code, _, err = invoke(folder, "--engine", "tgi", "--kv-cache", "q4_0")
        assert code == 2
        assert "spec.precision.kvCache" in err

    def test_a_pipeline(self, folder: str) -> None:
        assert answer(folder, "-g", "T4", "--pipeline", "2")["gpus"] == 2


class TestFile:
    def test_a_manifest_with_its_profile(self, tmp_path: Path, folder: str) -> None:
        path = manifest(tmp_path / "all.yaml", deployment(), profile_of(folder))
        found = answer("-f", path, "-g", "T4")
        assert (found["name"], found["model"]) == ("tiny", "profile://tiny")
        assert found["claim"] == answer(folder, "-c", "1024", "-n", "4", "-g", "T4")["claim"]

    def test_a_cluster_claims_the_same(self, tmp_path: Path, folder: str) -> None:
        raw = deployment()
        spec = ModelProfileSpec.model_validate(profile_of(folder)["spec"])
        snapshot = world(
            estimated("tiny", **raw["spec"]),
            profiles=(ProfileView(name="tiny", generation=1, spec=spec),),
            gpu_nodes=[gpu_node("n1", gpu())],
        )
        status = status_of(decide(snapshot), "tiny")
        path = manifest(tmp_path / "all.yaml", raw, profile_of(folder))
        assert Quantity(status["estimate"]["perGPU"]).bytes == answer("-f", path, "-g", "L40S")["claim"]

    def test_several_deployments_fit_only_together(self, tmp_path: Path, folder: str) -> None:
        huge = deployment("huge", serving={"contextLength": 4096, "concurrency": 4096})
        path = manifest(tmp_path / "all.yaml", deployment(), huge, profile_of(folder))
        code, out, _ = invoke("-f", path, "-g", "2Gi", "-o", "json")
        assert code == 3
        found = json.loads(out)
        assert [each["fits"] for each in found["estimates"]] == [True, False]
        assert found["fits"] is False
        assert invoke("-f", path, "-g", "2Gi")[1].count("claim") == 2

    def test_options_are_laid_over_it(self, tmp_path: Path, folder: str) -> None:
        path = manifest(tmp_path / "all.yaml", deployment(), profile_of(folder))
        found = answer("-f", path, "-n", "9", "-g", "T4")
        assert (found["concurrency"], found["context_length"]) == (9, 1024)

    def test_the_pool_s_reserve_and_headroom_count(self, tmp_path: Path, folder: str) -> None:
        pool = {
            "apiVersion": "vrampack.dev/v1alpha1",
            "kind": "GPUPool",
            "metadata": {"name": "default"},
            "spec": {"reservePerGPU": "1Gi", "headroom": "10%"},
        }
        path = manifest(tmp_path / "all.yaml", deployment(), profile_of(folder), pool)
        found = answer("-f", path, "-g", "T4")
        assert found["cards"][0]["room"] == GPUS["T4"].usable - GIB
        plain = answer(folder, "-c", "1024", "-n", "4", "-g", "T4", "--headroom", "10%")
        assert found["claim"] == plain["claim"]

    def test_products_that_are_not_allowed_do_not_fit(self, tmp_path: Path, folder: str) -> None:
        picky = deployment(placement={"gpuProducts": ["NVIDIA-L40S"]})
        path = manifest(tmp_path / "all.yaml", picky, profile_of(folder))
        assert invoke("-f", path, "-g", "T4")[0] == 3
        assert "not among gpuProducts" in invoke("-f", path, "-g", "T4")[1]
        assert invoke("-f", path, "-g", "L40S")[0] == 0

    def test_a_declared_claim_stands(self, tmp_path: Path, folder: str) -> None:
        path = manifest(tmp_path / "all.yaml", deployment(memory={"perGPU": "5Gi"}), profile_of(folder))
        found = answer("-f", path, "-g", "T4")
        assert (found["claim"], found["method"]) == (5 * GIB, "Declared")
        assert found["computed"] == sum(found["terms"].values())
        assert "declared by memory.perGPU" in invoke("-f", path, "-g", "T4")[1]

    def test_a_custom_engine_is_what_it_says(self, tmp_path: Path) -> None:
        custom = deployment(
            model={"source": "hf://team/any"},
            engine={"name": "custom", "image": "registry.example.com/server:1"},
            memory={"perGPU": "5Gi"},
        )
        found = answer("-f", manifest(tmp_path / "all.yaml", custom), "-g", "T4")
        assert (found["claim"], found["terms"]) == (5 * GIB, {})
        assert found["cards"][0]["largest_concurrency"] is None
        assert invoke("-f", manifest(tmp_path / "all.yaml", custom), "-g", "T4")[0] == 0

    def test_what_kubectl_prints_of_several(self, tmp_path: Path, folder: str) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": [deployment(), profile_of(folder)]}
        assert answer("-f", manifest(tmp_path / "all.yaml", listed), "-g", "T4")["name"] == "tiny"

    def test_what_comes_in(self, tmp_path: Path, folder: str) -> None:
        text = Path(manifest(tmp_path / "all.yaml", deployment(), profile_of(folder))).read_text()
        result = CliRunner().invoke(command_line.app, ["estimate", "-f", "-", "-o", "json"], input=text)
        assert json.loads(result.stdout)["fits"]

    def test_several_files(self, tmp_path: Path, folder: str) -> None:
        files = [manifest(tmp_path / "a.yaml", deployment()), manifest(tmp_path / "b.yaml", profile_of(folder))]
        assert answer("-f", files[0], "-f", files[1], "-g", "T4")["fits"]


class TestHub:
    @pytest.fixture
    async def hub(self) -> AsyncIterator[HubDouble]:
        async with HubDouble(models=list(catalogue())) as double:
            yield double

    async def test_a_model_and_a_manifest_of_it(self, hub: HubDouble, tmp_path: Path) -> None:
        source = "hf://Qwen/Qwen3-0.6B"
        by_name = await asyncio.to_thread(answer, source, "-c", "1024", "-n", "4", "--endpoint", hub.url, "-g", "T4")
        assert by_name["revision"] == hub.commit("Qwen/Qwen3-0.6B")
        path = manifest(tmp_path / "all.yaml", deployment(model={"source": source}))
        by_file = await asyncio.to_thread(answer, "-f", path, "--endpoint", hub.url, "-g", "T4")
        assert by_file["claim"] == by_name["claim"]

    async def test_a_precision_that_is_not_the_checkpoint_s(self, hub: HubDouble, tmp_path: Path) -> None:
        wrong = deployment(model={"source": "hf://Qwen/Qwen3-0.6B"}, precision={"weights": "fp8"})
        path = manifest(tmp_path / "all.yaml", wrong)
        code, _, err = await asyncio.to_thread(invoke, "-f", path, "--endpoint", hub.url)
        assert code == 2
        assert "fp8" in err
        assert "bf16" in err


class TestWrong:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["-g", "X5"], "--gpu: 'X5' is not allowed; write one of T4, L4"),
            (["-g", "-5Gi"], "--gpu: '-5Gi' is not allowed; write one of T4, L4"),
            (["-g", "0"], "the memory of a GPU, at least 1Mi, such as 24Gi"),
            (["-g", "24"], "--gpu: '24' is not allowed"),
            (["--revision", "main"], "revision: 'main' is not allowed; only a model on the hub has one"),
            (["-c", "0"], "spec.serving.contextLength"),
            (["-c", "9999"], "at most 4096 tokens"),
            (["-n", "9", "--max-batched-tokens", "8"], "spec.engine.maxBatchedTokens"),
            (["-t", "3"], "spec.parallelism.tensor"),
            (["--kv-cache", "int3"], "spec.precision.kvCache"),
            (["--kv-cache", "q4_0"], "spec.precision.kvCache"),
            (["--headroom", "much"], "spec.memory.headroom"),
            (["--engine", "other"], "spec.engine.name"),
        ],
    )
    def test_options(self, folder: str, arguments: list[str], says: str) -> None:
        code, out, err = invoke(folder, *arguments)
        assert (code, out) == (2, "")
        assert says in err
        assert len(err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("model", "says"),
        [
            ("", "model: '' is not allowed; name the model"),
            ("pvc://models/tiny", "run: vrampack profile FOLDER --source pvc://models/tiny > profile.yaml"),
            ("profile://tiny", "give it with -f"),
            ("https://hub.example/org/name", "write hf://ORG/NAME"),
        ],
    )
    def test_models_that_are_no_place(self, model: str, says: str) -> None:
        code, out, err = invoke(model)
        assert (code, out) == (2, "")
        assert says in err
        assert len(err.splitlines()) == 1

    def test_a_file_of_a_file(self, folder: str) -> None:
        code, _, err = invoke(f"{folder}/config.json", "--model-file", "*.gguf")
        assert code == 2
        assert "file: '*.gguf' is not allowed" in err

    def test_a_manifest_without_its_profile_names_the_command(self, tmp_path: Path) -> None:
        found = deployment(model={"source": "pvc://models/tiny"})
        code, _, err = invoke("-f", manifest(tmp_path / "a.yaml", found))
        assert code == 2
        assert "vrampack profile FOLDER --source pvc://models/tiny writes one" in err

    def test_the_revision_of_a_manifest_is_in_it(self, folder: str, tmp_path: Path) -> None:
        code, _, err = invoke("-f", manifest(tmp_path / "a.yaml", deployment()), "--revision", "main")
        assert code == 2
        assert "spec.model.revision" in " ".join(err.split())

    def test_neither_or_both(self, folder: str, tmp_path: Path) -> None:
        assert invoke()[0] == 2
        assert invoke(folder, "-f", manifest(tmp_path / "a.yaml", deployment()))[0] == 2

    def test_a_model_that_is_not_known(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path, config={key: TINY[key] for key in TINY if key != "model_type"})
        code, _, err = invoke(str(folder))
        assert code == 2
        assert "model_type" in err

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "there is no ModelDeployment"),
            ("[", "write YAML"),
            ("- a\n- b", "there is no ModelDeployment"),
            ("kind: ModelDeployment", "there is no ModelDeployment"),
            ("apiVersion: vrampack.dev/v1alpha1\nkind: ModelDeployment", "ModelDeployment.metadata"),
            (yaml.safe_dump(deployment(serving={"concurrency": 4})), "tiny: spec.serving.contextLength"),
            (yaml.safe_dump(deployment(serving=7)), "spec.serving"),
            (yaml.safe_dump(deployment()), "its ModelProfile is needed: give the file that has it"),
            (yaml.safe_dump(deployment(model={"source": "pvc://a/b"})), "its ModelProfile is needed"),
            (yaml.safe_dump(deployment(model={"source": "s3://a"})), "write hf://ORG/NAME"),
        ],
    )
    def test_files(self, tmp_path: Path, text: str, says: str) -> None:
        path = tmp_path / "a.yaml"
        path.write_text(text)
        code, _, err = invoke("-f", str(path))
        assert code == 2
        assert says in err

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        code, _, err = invoke("-f", str(tmp_path / "absent.yaml"))
        assert code == 2
        assert "it can't be read: No such file" in err


def test_the_library_and_a_cluster_say_the_same(shared_data: Path) -> None:
    """By way of a ModelProfile or not: of every published configuration, to the byte."""
    same = 0
    for path in sorted((shared_data / "model-configs").glob("*.json")):
        try:
            facts = read_model(path)
            length = min(4096, facts.architecture.max_context or 4096)
            expected = estimate(path, context_length=length, concurrency=4, max_batched_tokens=2048, tensor=2)
        except VrampackError:
            continue
        spec = {
            "serving": {"contextLength": length, "concurrency": 4},
            "engine": {"maxBatchedTokens": 2048},
            "parallelism": {"tensor": 2},
        }
        sized = subject_of_options(str(path), facts, spec).sized()
        if isinstance(sized, Sized):
            assert sized.need.bytes == expected.per_gpu, path.name
            same += 1
    assert same > 150


def card(gpu_name: str, claim: int, *, allowed: bool = True, what_if: tuple[str, ...] = ()) -> CardView:
    (found,) = cards_of([gpu_name])
    room = found.usable
    return CardView(
        gpu=found.name,
        usable=found.usable,
        room=room,
        claim=claim,
        fits=allowed and claim <= room,
        allowed=allowed,
        free=room - claim,
        largest_concurrency=Reach(value=max(0, (room - 17 * GIB) // GIB), limit=Limit.MEMORY),
        longest_context=Reach(value=131072, limit=Limit.REFUSED)
        if claim < room
        else Reach(value=0, limit=Limit.MEMORY),
        would_fit_if=what_if,
    )


def test_the_picture() -> None:
    """Fixed figures: the layout is what is looked at here. Written anew by hand when it changes."""
    terms = {
        "weights": 15349 * MIB,
        "kv_cache": 4098 * MIB,
        "activations": 992 * MIB,
        "cuda_graphs": 80 * MIB,
        "communication": 0,
        "runtime_context": 861 * MIB,
        "headroom": 642 * MIB,
    }
    claim = sum(terms.values())
    view = EstimateView(
        name="llama-31-8b",
        model="hf://meta-llama/Llama-3.1-8B-Instruct",
        revision="0e9e39f249a16976918f6564b8830bc894c89659",
        model_type="llama",
        parameters=8_030_261_248,
        precision="bf16",
        kv_cache_precision="bf16",
        weights_known_by=WeightsMethod.TENSORS,
        method="Computed",
        assumptions=(),
        context_length=8192,
        concurrency=8,
        tokens_per_sequence=4096,
        max_batched_tokens=8192,
        gpus=1,
        terms=terms,
        claim=claim,
        computed=None,
        kv_bytes_per_token=131072,
        kv_cache_bytes=2049 * 2 * MIB,
        kv_blocks=2049,
        kv_tokens=32784,
        kv_why="eight sequences of 4096 tokens, and the null block",
        max_concurrency_at_context="4.00",
        host_memory=10 * GIB,
        shared_memory=GIB,
        cards=(
            card("T4", claim, what_if=("kvCache: fp8 and concurrency ≤ 1", "parallelism.tensor: 2")),
            card("L4", claim),
            card("L40S", claim),
            card("H200", claim, allowed=False),
        ),
    )
    console = Console(width=110, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(render_estimates([view], width=110))
    drawn = "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"
    assert drawn == GOLDEN.read_text()


def test_no_figure_is_cut_where_there_is_little_room(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(TINY))
    arguments = ["estimate", str(file), "--what-if", *(f"--gpu={name}" for name in GPUS)]
    for columns in ("110", "80", "72"):
        result = CliRunner(env={"COLUMNS": columns, "NO_COLOR": "1"}).invoke(command_line.app, arguments)
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert max(map(len, lines)) <= int(columns)
        assert "…" not in "".join(lines[lines.index("") + 10 :])
        words = " ".join(result.stdout.split())
        for name, product in GPUS.items():
            assert name in words
            assert human_bytes(product.usable) in words
        assert " left" in words


@pytest.mark.parametrize(
    ("config", "words"),
    [({}, "the tensors that config.json implies"), ({"model_type": "a_new_one"}, "the weights are not exact")],
)
def test_it_says_how_well_the_weights_are_known(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(TINY | config))
    code, out, _ = invoke(str(file))
    assert code == 0
    assert words in " ".join(out.split())
    assert answer(str(file))["weights_known_by"] == ("Parameters" if config else "Shapes")
    assert answer(str(write_model(tmp_path / "whole")))["weights_known_by"] == "Tensors"


def test_help_names_the_exit_statuses() -> None:
    code, out, _ = invoke("--help")
    assert code == 0
    assert "3 on none" in " ".join(out.split())


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
PARTS = ("model", "precision", "serving", "engine", "parallelism", "memory", "placement", "podTemplate", "replicas")


@given(part=st.sampled_from(PARTS), value=ANYTHING, where=st.sampled_from(["spec", "metadata", "part", "field"]))
def test_manifests_of_any_shape_are_an_answer_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, part: str, value: Any, where: str
) -> None:
    found = deployment(engine={"name": "custom", "image": "x/y:1"}, memory={"perGPU": "1Gi"})
    match where:
        case "spec" | "metadata":
            found[where] = value
        case "part":
            found["spec"][part] = value
        case _:
            found["spec"][part] = {
                "source": value,
                "perGPU": value,
                "contextLength": value,
                "spec": value,
                "pool": value,
            }
    path = tmp_path_factory.mktemp("manifest") / "a.yaml"
    path.write_text(yaml.safe_dump(found, allow_unicode=True))
    assert invoke("-f", str(path), "-g", "T4")[0] in (0, 2, 3)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "&a [*a, *a]",
        "spec: !!python/object/apply:os.system [id]",
        "\x00",
        "kind: List\nitems: 7",
        "{" * 5000,
        "- " * 5000 + "a",
        "- " * 300_000 + "a",
    ],
)
def test_hostile_manifests_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    code, _, err = invoke("-f", str(path))
    assert code == 2
    assert len(err.splitlines()) == 1


def test_a_deep_manifest_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """In a process of its own, since the command raises the limit of recursion."""
    (tmp_path / "a.yaml").write_text("- " * 60_000 + "a")
    command = [sys.executable, "-m", "vrampack", "estimate", "-f", str(tmp_path / "a.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no more than 200 levels" in done.stderr


def test_an_overlay_that_holds_itself_is_refused(tmp_path: Path) -> None:
    text = yaml.safe_dump(deployment(engine={"name": "custom", "image": "x/y:1"}, memory={"perGPU": "1Gi"}))
    path = tmp_path / "a.yaml"
    path.write_text(text + "  podTemplate: &self\n    spec: *self\n")
    assert invoke("-f", str(path), "-g", "T4")[0] == 2
