"""No flag of vLLM that changes GPU memory is passed on unread: by release, what there is and what became of it."""

import pytest

from tests.unit.planning_world import condition, decide, estimated, profile, status_of, world
from vrampack.engines.arguments import check
from vrampack.engines.vllm_flags import FLAGS
from vrampack.errors import InvalidInputError

BY_RELEASE = {
    "always": (
        "--dtype=half",
        "--quantization=fp8",
        "--kv-cache-dtype=fp8",
        "--max-model-len=1",
        "--max-num-seqs=1",
        "--max-num-batched-tokens=1",
        "--gpu-memory-utilization=0.5",
        "--num-gpu-blocks-override=10",
        "--block-size=32",
        "--enforce-eager",
        "--tensor-parallel-size=2",
        "--pipeline-parallel-size=2",
        "--cpu-offload-gb=1",
        "--load-format=dummy",
        "--enable-lora",
        "--max-loras=4",
        "--max-lora-rank=64",
        "--max-logprobs=1000",
        "--limit-mm-per-prompt={}",
        "--hf-overrides={}",
        "--enable-prefix-caching",
        "--no-enable-prefix-caching",
        "--disable-sliding-window",
        "--enable-chunked-prefill",
    ),
    "until 0.9": (
        "--swap-space=4",
        "--max-seq-len-to-capture=8192",
        "--num-scheduler-steps=8",
        "--num-lookahead-slots=4",
        "--use-v2-block-manager",
        "--preemption-mode=swap",
        "--speculative-model=x",
        "--num-speculative-tokens=3",
        "--speculative-draft-tensor-parallel-size=1",
        "--rope-scaling={}",
        "--enable-prompt-adapter",
        "--long-lora-scaling-factors=1",
        "--lora-extra-vocab-size=256",
        "--fully-sharded-loras",
        "--calculate-kv-scales",
        "--override-neuron-config={}",
    ),
    "since 0.8": (
        "--compilation-config={}",
        "--cuda-graph-sizes=8",
        "--speculative-config={}",
        "--kv-transfer-config={}",
        "--additional-config={}",
        "--mm-processor-kwargs={}",
        "--disable-mm-preprocessor-cache",
        "--data-parallel-size=2",
        "--data-parallel-size-local=1",
        "--enable-expert-parallel",
        "--worker-extension-cls=x",
        "--enable-sleep-mode",
        "-O3",
        "-O.cudagraph_mode=FULL",
        "-tp",
        "-dp",
    ),
    "since 0.10": (
        "--async-scheduling",
        "--no-async-scheduling",
        "--disable-hybrid-kv-cache-manager",
        "--no-disable-hybrid-kv-cache-manager",
        "--kv-cache-memory-bytes=1",
        "--kv-sharing-fast-prefill",
        "--decode-context-parallel-size=2",
        "--enable-dbo",
        "--enable-eplb",
        "--mamba-cache-dtype=float32",
        "--mamba-ssm-cache-dtype=float32",
        "--mamba-block-size=64",
        "--mm-encoder-tp-mode=data",
        "--skip-mm-profiling",
        "--logits-processors=x",
        "--logprobs-mode=raw_logits",
        "--max-cudagraph-capture-size=8",
        "--cudagraph-capture-sizes",
    ),
    "since 0.20": (
        "--kv-offloading-size=4",
        "--offload-backend=x",
        "--attention-backend=TRITON_ATTN",
        "--moe-backend=x",
        "--mamba-cache-mode=all",
        "--kv-cache-dtype-skip-layers=0",
        "--prefill-context-parallel-size=2",
        "--device-memory-utilization=0.5",
        "--language-model-only",
        "--optimization-level=3",
        "--watermark=0.1",
        "--enable-prompt-embeds",
        "--runner=pooling",
        "--convert=embed",
        "--config=engine.yaml",
    ),
}


@pytest.mark.parametrize(
    ("release", "argument"), [(name, flag) for name, flags in BY_RELEASE.items() for flag in flags]
)
def test_a_flag_that_changes_memory_is_refused(release: str, argument: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        check([argument], flags=FLAGS)
    assert refusal.value.field == "spec.engine.args[0]", release
    assert refusal.value.value == argument


@pytest.mark.parametrize("argument", [flag for flags in BY_RELEASE.values() for flag in flags if flag.startswith("--")])
def test_nor_under_another_spelling(argument: str) -> None:
    name, _, value = argument.removeprefix("--").partition("=")
    for spelling in (
        f"--{name.replace('-', '_')}={value or 1}",
        f"--no-{name}",
        f"--{name}.part=1",
        f"--{name[:-1]}=1",
    ):
        with pytest.raises(InvalidInputError):
            check([spelling], flags=FLAGS)


def test_what_is_passed_on_is_in_none_of_these_lists() -> None:
    harmless = FLAGS.switches | FLAGS.values | FLAGS.lists
    assert not harmless & FLAGS.memory
    named = {flag.partition("=")[0] for flags in BY_RELEASE.values() for flag in flags}
    assert not harmless & named


@pytest.mark.parametrize(
    "variable", ["VLLM_ATTENTION_BACKEND", "VLLM_PP_LAYER_PARTITION", "VLLM_USE_FLASHINFER_SAMPLER"]
)
def test_nor_a_variable_that_does_the_same(variable: str) -> None:
    env = {"spec": {"containers": [{"name": "engine", "env": [{"name": variable, "value": "1"}]}]}}
    found = decide(world(estimated(podTemplate=env), profiles=[profile()]))
    stalled = condition(status_of(found), "Stalled")
    assert f"env[0].name: '{variable}' is not allowed" in stalled["message"]
    harmless = {"spec": {"containers": [{"name": "engine", "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]}]}}
    assert decide(world(estimated(podTemplate=harmless), profiles=[profile()])).children
