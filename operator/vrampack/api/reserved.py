"""What vrampack sets itself on a replica, so that a user can't set it too: flags, variables, annotations.

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
    reason: str
    """Why, and what to set instead: ends the sentence "leave out this flag: …"."""

    @property
    def names(self) -> str:
        """The flags for a message, a family with a star."""
        return ", ".join((*self.flags, *(f"{family}*" for family in self.families)))


VLLM_FLAGS: Final = (
    OwnedFlags(
        flags=("--model", "--revision", "--hf-token"),
        reason="vrampack sets it from model.source, model.revision and model.tokenSecretRef",
    ),
    OwnedFlags(
        flags=("--dtype", "--quantization", "--kv-cache-dtype"),
        families=("-q",),
        reason="vrampack sets it from precision.weights and precision.kvCache",
    ),
    OwnedFlags(
        flags=("--max-model-len", "--max-num-seqs"),
        reason="vrampack sets it from serving.contextLength and serving.concurrency",
    ),
    OwnedFlags(
        flags=(
            "--gpu-memory-utilization",
            "--device-memory-utilization",
            "--kv-cache-memory-bytes",
            "--num-gpu-blocks-override",
            "--device-ids",
        ),
        reason="it follows from the claim on the GPU; set memory.perGPU to change that",
    ),
    OwnedFlags(flags=("--max-num-batched-tokens",), reason="vrampack sets it from engine.maxBatchedTokens"),
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
        reason="vrampack sets it from engine.cudaGraphs",
    ),
    OwnedFlags(flags=("--enable-prefix-caching",), reason="vrampack sets it from engine.prefixCaching"),
    OwnedFlags(
        flags=("--limit-mm-per-prompt", "--language-model-only"), reason="vrampack sets it from engine.imagesPerPrompt"
    ),
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
        reason="vrampack sets it from parallelism",
    ),
    OwnedFlags(
        flags=("--speculative-config", "-sc", "--spec-method", "--spec-model", "--spec-tokens"),
        reason="vrampack sets it from speculation",
    ),
    OwnedFlags(flags=("--enable-lora", "--max-loras", "--max-lora-rank"), reason="vrampack sets it from adapters"),
    OwnedFlags(flags=("--host", "--port"), reason="vrampack sets it from service.port"),
    OwnedFlags(
        flags=("--served-model-name",),
        reason="requests name a model by the name of its ModelDeployment",
    ),
    OwnedFlags(
        flags=("--shutdown-timeout",),
        reason="it follows from the time that a pod has to end",
    ),
    OwnedFlags(
        flags=("--config",),
        reason="a file could hold flags that vrampack sets; write the arguments one by one",
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

DEVICE_ANNOTATIONS: Final = ("nvidia.cdi.k8s.io/", "cdi.k8s.io/")
"""Beginnings of annotations by which a container gets devices on its own: NVIDIA's NRI plugin, and CDI's first form."""

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
            message=f"leave out {owned.names}: {owned.reason}",
            message_expression=f"'leave out ' + {_NAMES_OF_ARGS}.filter(n, {_owned(owned)})[0] + ': {owned.reason}'",
            field_path=".args",
        )
        for owned in VLLM_FLAGS
    )


def _owned(owned: OwnedFlags) -> str:
    abbreviated = f"n.startsWith('-') && {text_list(owned.flags)}.exists(f, f.startsWith(n))"
    families = [f"n.startsWith('{family}')" for family in owned.families]
    return " || ".join([abbreviated, *families])
