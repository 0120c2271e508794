"""What vrampack sets itself on a replica, so that a user can't set it too: engine flags and environment variables.

The estimate holds only while these are what vrampack says. The API server refuses them when an object is applied, with
the field to use instead; the engine modules refuse whatever else may change GPU memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vrampack.api.common import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedFlags:
    """Flags of one concern, and the field that decides them."""

    flags: tuple[str, ...]
    """Refused in full and abbreviated, since argparse takes ``--max-model`` for ``--max-model-len``."""
    families: tuple[str, ...] = ()
    """Beginnings: every flag that begins like this is refused."""
    instead: str
    """What to do: ends the sentence "vrampack sets this flag: …"."""

    @property
    def names(self) -> str:
        """The flags for a message, a family with a star."""
        return ", ".join((*self.flags, *(f"{family}*" for family in self.families)))


VLLM_FLAGS: Final = (
    OwnedFlags(
        flags=("--model", "--revision", "--hf-token"),
        instead="set model.source, model.revision and model.tokenSecretRef",
    ),
    OwnedFlags(
        flags=("--dtype", "--quantization", "--kv-cache-dtype"),
        families=("-q",),
        instead="set precision.weights and precision.kvCache",
    ),
    OwnedFlags(
        flags=("--max-model-len", "--max-num-seqs"),
        instead="set serving.contextLength and serving.concurrency",
    ),
    OwnedFlags(
        flags=(
            "--gpu-memory-utilization",
            "--device-memory-utilization",
            "--kv-cache-memory-bytes",
            "--num-gpu-blocks-override",
            "--device-ids",
        ),
        instead="it follows from the claim on the GPU; set memory.perGPU to change that",
    ),
    OwnedFlags(flags=("--max-num-batched-tokens",), instead="set engine.maxBatchedTokens"),
    OwnedFlags(
        flags=(
            "--enforce-eager",
            "--max-cudagraph-capture-size",
            "--cudagraph-capture-sizes",
            "--compilation-config",
            "-cc",
            "--optimization-level",
        ),
        families=("-O",),
        instead="set engine.cudaGraphs",
    ),
    OwnedFlags(flags=("--enable-prefix-caching",), instead="set engine.prefixCaching"),
    OwnedFlags(flags=("--limit-mm-per-prompt", "--language-model-only"), instead="set engine.imagesPerPrompt"),
    OwnedFlags(
        flags=(
            "--tensor-parallel-size",
            "-tp",
            "--pipeline-parallel-size",
            "-pp",
            "--enable-expert-parallel",
            "-ep",
            "--decode-context-parallel-size",
            "-dcp",
            "--prefill-context-parallel-size",
            "-pcp",
            "--nnodes",
            "--node-rank",
        ),
        families=("--data-parallel-", "-dp", "-n", "-r"),
        instead="set parallelism",
    ),
    OwnedFlags(
        flags=("--speculative-config", "-sc", "--spec-method", "--spec-model", "--spec-tokens"),
        instead="set speculation",
    ),
    OwnedFlags(flags=("--enable-lora", "--max-loras", "--max-lora-rank"), instead="set adapters"),
    OwnedFlags(flags=("--host", "--port"), instead="set service.port"),
    OwnedFlags(
        flags=("--served-model-name",),
        instead="requests name the model by the name of its ModelDeployment; leave the flag out",
    ),
    OwnedFlags(
        flags=("--shutdown-timeout",),
        instead="it follows from the time that a pod has to end; leave the flag out",
    ),
    OwnedFlags(
        flags=("--config",),
        instead="a file could hold any of the others; write the arguments one by one",
    ),
)

ENVIRONMENT: Final = (
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_GPU_MEMORY_REQUEST",
    "NVIDIA_GPU_MEMORY_LIMIT",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
)
ENVIRONMENT_PREFIX: Final = "VRAMPACK_"

# As argparse of vLLM reads an argument: the name ends at '=' or '.', '_' is '-', and --no-x and --disable-x are --x.
_NAMES_OF_ARGS: Final = (
    "self.args.map(a, a.split('=')[0].split('.')[0].replace('_', '-')"
    ".replace('--no-', '--').replace('--disable-', '--enable-'))"
)


def text_list(values: Iterable[str]) -> str:
    """A CEL list of texts without quotes in them."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def vllm_argument_rules() -> tuple[Rule, ...]:
    """One rule for each concern, for an object with the fields name and args."""
    return tuple(
        Rule(
            rule=f"self.name != 'vllm' || !has(self.args) || !{_NAMES_OF_ARGS}.exists(n, {_owned(owned)})",
            message=f"vrampack sets {owned.names}: {owned.instead}",
            field_path=".args",
        )
        for owned in VLLM_FLAGS
    )


def _owned(owned: OwnedFlags) -> str:
    abbreviated = f"n.startsWith('-') && {text_list(owned.flags)}.exists(f, f.startsWith(n))"
    families = [f"n.startsWith('{family}')" for family in owned.families]
    return " || ".join([abbreviated, *families])
