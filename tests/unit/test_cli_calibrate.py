"""The command calibrate: logs become measurements, and a manifest becomes the start that prints one."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.unit.planning_world import profile
from tests.unit.test_enginelogs import BREAKDOWN, CONSUMED, LLAMACPP_NEW, SGLANG_LOG
from vrampack.api.modelprofile import Measurement, ModelProfileStatus
from vrampack.api.source import profile_name
from vrampack.cli.calibration import joined
from vrampack.cli.main import app
from vrampack.memory.calibration import Observation, Setup
from vrampack.models.enginelogs import gib
from vrampack.planning.measurements import measurement_of
from vrampack.units import GIB

NAME = "llama-8b-0123456789"
H100 = "NVIDIA-H100-80GB-HBM3"
PROFILE = {
    "apiVersion": "vrampack.dev/v1alpha1",
    "kind": "ModelProfile",
    "metadata": {"name": NAME},
    "spec": profile(source="pvc://models/llama", revision="").spec.wire(),  # type: ignore[union-attr]
}


def deployment(**spec: Any) -> dict[str, Any]:
    usual = {
        "model": {"source": f"profile://{NAME}"},
        "serving": {"contextLength": 16000, "concurrency": 256, "tokensPerSequence": 100},
        "engine": {"version": "0.12.0"},
    }
    return {
        "apiVersion": "vrampack.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "llama", "namespace": "serving"},
        "spec": usual | spec,
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, name: str, *content: Any) -> str:
    text = content[0] if isinstance(content[0], str) else yaml.safe_dump_all(content)
    (folder / name).write_text(text)
    return name


def calibrate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["calibrate", *arguments])


def measurements(result: Result) -> list[Measurement]:
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout) if result.stdout.startswith("{") else yaml.safe_load(result.stdout)
    assert (found["kind"], found["metadata"]["name"]) == ("ModelProfile", NAME)
    return list(ModelProfileStatus.model_validate(found["status"]).measurements)


def test_a_log_and_what_the_user_says_are_a_measurement(folder: Path) -> None:
    log = written(folder, "start.log", BREAKDOWN)
    result = calibrate(log, "--profile", NAME, "--gpu-product", H100, "--kv-cache", "bf16", "-o", "json")
    [found] = measurements(result)
    assert (found.engine, found.version, found.gpu_product) == ("vllm", "0.10.2", H100)
    assert (found.max_sequences, found.max_batched_tokens, found.context_length) == (256, 8192, 16000)
    assert (found.kv_cache, found.cuda_graphs, found.samples) == ("bf16", "Auto", 1)
    assert found.weights is not None
    assert found.weights.bytes == gib("14.99")
    assert found.graphs is None, "-0.45 GiB is no measure of them"
    assert found.communication is None
    assert "left out: cuda graphs: -0.45 was printed" in result.stderr
    assert "1 start; not measured: cuda graphs, communication" in result.stderr


def test_a_log_comes_through_a_pipe_too() -> None:
    arguments = ["calibrate", "-", "--profile", NAME, "--gpu-product", H100, "--kv-cache", "bf16"]
    assert len(measurements(CliRunner().invoke(app, arguments, input=BREAKDOWN))) == 1


def test_starts_of_one_setup_are_samples_of_one_measurement(folder: Path) -> None:
    one = written(folder, "one.log", BREAKDOWN + BREAKDOWN.replace("4.76", "4.9"))
    two = written(folder, "two.log", BREAKDOWN)
    other = written(folder, "other.log", BREAKDOWN.replace("'max_num_seqs': 256", "'max_num_seqs': 16"))
    found = measurements(calibrate(one, two, other, "--profile", NAME, "--gpu-product", H100, "--kv-cache", "bf16"))
    assert [(each.max_sequences, each.samples) for each in found] == [(256, 3), (16, 1)]
    assert found[0].activations is not None
    assert found[0].activations.bytes == gib("4.90")


def test_the_manifest_says_what_the_log_leaves_out(folder: Path) -> None:
    log = written(folder, "start.log", CONSUMED.replace("v0.29.0", "v0.12.0"))
    manifest = written(
        folder,
        "m.yaml",
        deployment(
            precision={"kvCache": "fp8"},
            engine={"version": "0.12.0", "cudaGraphs": "Disabled"},
            placement={"gpuProducts": [H100]},
        ),
        PROFILE,
    )
    [found] = measurements(calibrate(log, "-f", manifest))
    assert (found.gpu_product, found.max_sequences, found.max_batched_tokens) == (H100, 256, 8192)
    assert found.context_length == 8192, "the log says how it ran"
    assert (found.kv_cache, found.cuda_graphs) == ("fp8", "Disabled")


def test_the_next_estimate_is_measured(folder: Path) -> None:
    log = written(folder, "start.log", BREAKDOWN.replace("0.10.2", "0.12.0"))
    manifest = written(folder, "m.yaml", deployment(placement={"gpuProducts": [H100]}), PROFILE)
    before = CliRunner().invoke(app, ["estimate", "-f", manifest, "-o", "json"])
    result = calibrate(log, "-f", manifest, "-o", "json")
    measured = PROFILE | {"status": json.loads(result.stdout)["status"]}
    again = written(folder, "again.yaml", deployment(placement={"gpuProducts": [H100]}), measured)
    after = CliRunner().invoke(app, ["estimate", "-f", again, "-o", "json"])
    assert before.exit_code in (0, 3), before.output
    assert '"Measured"' in after.stdout
    assert '"Measured"' not in before.stdout


def test_sglang_and_llama_cpp(folder: Path) -> None:
    sglang = written(folder, "sglang.log", SGLANG_LOG)
    said = ["--profile", NAME, "--gpu-product", H100]
    [found] = measurements(calibrate(sglang, *said, "--engine-version", "0.5.6"))
    assert (found.engine, found.parallelism.tensor, found.max_sequences, found.kv_cache) == ("sglang", 8, 4096, "bf16")
    llamacpp = written(folder, "llamacpp.log", LLAMACPP_NEW)
    [found] = measurements(calibrate(llamacpp, *said))
    assert (found.engine, found.version, found.kv_cache) == ("llamacpp", "b6123", "q8_0")


@pytest.mark.parametrize(
    ("log", "arguments", "words"),
    [
        (BREAKDOWN, ["--profile", NAME, "--kv-cache", "bf16"], "--gpu-product: None is not allowed; the log does not"),
        (BREAKDOWN, ["--profile", NAME, "--gpu-product", H100], "--kv-cache: None"),
        (BREAKDOWN, ["--gpu-product", H100, "--kv-cache", "bf16"], "--profile: None is not allowed; name the Model"),
        (CONSUMED, ["--profile", NAME, "--gpu-product", H100], "--max-sequences: None"),
        ("nothing", ["--profile", NAME], "vrampack calibrate --command"),
    ],
)
def test_what_nobody_says_is_asked_for(folder: Path, log: str, arguments: list[str], words: str) -> None:
    result = calibrate(written(folder, "start.log", log), *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "version: '0.10.2' is not allowed; the manifest says '0.12.0'"),
        (
            {"engine": {"name": "custom", "image": "x", "version": "0.10.2"}, "memory": {"perGPU": "1Gi"}},
            "engine: 'vllm'",
        ),
    ],
)
def test_a_log_of_something_else_is_refused(folder: Path, spec: dict[str, Any], words: str) -> None:
    log = written(folder, "start.log", BREAKDOWN)
    result = calibrate(log, "-f", written(folder, "m.yaml", deployment(**spec), PROFILE), "--gpu-product", H100)
    assert result.exit_code == 2
    assert words in result.stderr


def test_the_start_to_run_measures_what_it_finds(folder: Path) -> None:
    manifest = written(folder, "m.yaml", deployment(parallelism={"tensor": 2}), PROFILE)
    result = calibrate("--command", manifest)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if not line.startswith("#")]
    words = shlex.split(" ".join(line.rstrip("\\") for line in lines))
    assert words[:2] == ["docker", "run"]
    assert words[words.index("--gpus") + 1] == '"device=0,1"'
    assert "VLLM_LOGGING_LEVEL=DEBUG" in words
    assert "$MODEL_FOLDER:/models:ro" in words
    assert {"--max-num-seqs=256", "--max-model-len=16000", "--tensor-parallel-size=2", "--model=/models/llama"} <= set(
        words
    )
    assert not [word for word in words if "kv-cache-memory" in word or "gpu-memory-utilization" in word]
    assert "vrampack calibrate start.log -f m.yaml" in result.stdout


def test_a_log_of_another_model_is_refused(folder: Path) -> None:
    log = written(folder, "start.log", BREAKDOWN.replace("0.10.2", "0.12.0"))
    facts = profile(source="hf://meta-llama/Llama-3.1-8B", revision="a" * 40).spec
    assert facts is not None
    for name, code in (("meta-llama/Llama-3.1-8B", 0), ("Qwen/Qwen3-8B", 2)):
        source = f"hf://{name}"
        spec = deployment(model={"source": source, "revision": "a" * 40})
        named = PROFILE | {"metadata": {"name": profile_name(source, "a" * 40)}, "spec": facts.wire()}
        result = calibrate(log, "-f", written(folder, "m.yaml", spec, named), "--gpu-product", H100)
        assert result.exit_code == code, result.output
    assert "model: 'meta-llama/Llama-3.1-8B' is not allowed; the manifest says 'Qwen/Qwen3-8B'" in result.stderr


def test_more_ways_to_run_than_a_profile_holds_are_refused(folder: Path) -> None:
    logs = (BREAKDOWN.replace("'max_num_seqs': 256", f"'max_num_seqs': {count}") for count in range(1, 66))
    result = calibrate(
        written(folder, "all.log", "".join(logs)), "--profile", NAME, "--gpu-product", H100, "--kv-cache", "bf16"
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert "LOGFILE: 65 is not allowed; at most 64" in result.stderr


@pytest.mark.parametrize("manifest", ["kind: Nothing", "{", "", "a: [", PROFILE])
def test_a_command_is_printed_whole_or_not_at_all(folder: Path, manifest: Any) -> None:
    result = calibrate("--command", written(folder, "m.yaml", manifest))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("vrampack: ")


def test_of_what_is_stalled_the_reason_is_printed(folder: Path) -> None:
    manifest = written(folder, "m.yaml", deployment(parallelism={"tensor": 3}), PROFILE)
    result = calibrate("--command", manifest)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "vrampack: llama: spec.parallelism.tensor: 3 is not allowed" in result.stderr


@pytest.mark.parametrize("setting", ["tensor", "pipeline", "data"])
def test_settings_that_no_engine_runs_with(folder: Path, setting: str) -> None:
    printed = f"'{setting}_parallel_size': 99999, 'max_num_seqs'"
    log = written(folder, "start.log", BREAKDOWN.replace("'max_num_seqs'", printed))
    result = calibrate(log, "--profile", NAME, "--gpu-product", H100, "--kv-cache", "bf16")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"vrampack: LOGFILE.{setting}: 99999 is not allowed; Input should be" in result.stderr


def test_a_log_in_which_no_figure_counts(folder: Path) -> None:
    log = written(folder, "start.log", "Graph capturing finished in 20 secs, took -0.97 GiB\n")
    result = calibrate(log, "--profile", NAME)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no figure in it can be used (cuda graphs: -0.97 was printed" in result.stderr


@pytest.mark.parametrize(
    ("engine", "version", "wanted", "facts"),
    [
        ("sglang", "0.5.23", ["--entrypoint python3", "lmsysorg/sglang:v0.5.23 -m sglang.launch_server --model"], {}),
        (
            "llamacpp",
            "b10107",
            ["-e LLAMA_ARG_FIT=off", "-e LLAMA_ARG_KV_UNIFIED=true", "-e LLAMA_ARG_FLASH_ATTN=1"],
            {"precision": "gguf", "file": "m-Q4_K_M.gguf"},
        ),
        ("vllm", "0.33.0", ["-e NCCL_DEBUG=INFO", "vllm/vllm-openai:v0.33.0 --model=/models/llama"], {}),
    ],
)
def test_the_start_is_the_operator_s_own(
    folder: Path, engine: str, version: str, wanted: list[str], facts: dict[str, Any]
) -> None:
    """Its command, and the variables that say what flags do not."""
    env = {"containers": [{"name": "engine", "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}]}
    asked = deployment(
        engine={"name": engine, "version": version},
        serving={"contextLength": 4096, "concurrency": 4},
        podTemplate={"spec": env},
    )
    named = PROFILE | {"spec": {**PROFILE["spec"], **facts}}  # type: ignore[dict-item]
    result = calibrate("--command", written(folder, "m.yaml", asked, named))
    assert result.exit_code == 0, result.output
    printed = " ".join(line.strip(" \\") for line in result.stdout.splitlines() if not line.startswith("#"))
    for each in wanted:
        assert each in printed
    assert "VRAMPACK" not in printed
    assert "NVIDIA" not in printed
    assert "/var/cache" not in printed


def test_an_engine_that_prints_nothing_of_its_memory_has_no_such_start(folder: Path) -> None:
    asked = deployment(engine={"name": "tgi", "version": "3.3.6"}, placement={"sharing": "Exclusive"})
    result = calibrate("--command", written(folder, "m.yaml", asked, PROFILE))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "llama: spec.engine.name: 'tgi' is not allowed; the start-up log of vllm, sglang, llamacpp" in result.stderr


def test_either_logs_or_a_command(folder: Path) -> None:
    assert calibrate().exit_code == 2
    assert calibrate("a.log", "--command", "m.yaml").exit_code == 2


# What is there already.


def seen(sequences: int, weights: int, samples: int = 1) -> Measurement:
    setup = Setup(
        engine="vllm",
        version="0.33.0",
        product=H100,
        max_sequences=sequences,
        max_batched_tokens=8192,
        context_length=4096,
        kv_cache="bf16",
    )
    return measurement_of(Observation(setup=setup, weights=weights, samples=samples), at=1_798_761_600)


def test_new_measurements_stand_beside_the_former_ones() -> None:
    found = joined([seen(1, 5 * GIB, 2), seen(2, GIB)], [seen(1, 4 * GIB), seen(3, GIB)])
    assert [(each.max_sequences, each.samples) for each in found] == [(2, 1), (1, 3), (3, 1)]
    assert found[1].weights is not None
    assert found[1].weights.bytes == 5 * GIB, "never below what was seen"
    assert len(joined([seen(each, GIB) for each in range(1, 65)], [seen(100, GIB)])) == 64
