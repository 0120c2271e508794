"""The flags of each engine that vrampack sets, by the field that decides them."""

from dataclasses import dataclass
from typing import Final


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

SGLANG_FLAGS: Final = (
    OwnedFlags(
        flags=("--model-path", "--model", "--revision", "--decrypted-config-file", "--load-format"),
        reason="vrampack sets it from model.source and model.revision",
    ),
    OwnedFlags(
        flags=("--dtype", "--quantization", "--quantization-param-path", "--kv-cache-dtype", "--torchao-config"),
        families=("--modelopt-",),
        reason="vrampack sets it from precision.weights and precision.kvCache",
    ),
    OwnedFlags(
        flags=("--context-length", "--max-running-requests"),
        reason="vrampack sets it from serving.contextLength and serving.concurrency",
    ),
    OwnedFlags(
        flags=(
            "--mem-fraction-static",
            "--max-total-tokens",
            "--page-size",
            "--swa-full-tokens-ratio",
            "--swa-prefix-tails",
            "--max-mamba-cache-size",
            "--mamba-full-memory-ratio",
            "--base-gpu-id",
            "--gpu-id-step",
        ),
        reason="it follows from the claim on the GPU; set memory.perGPU to change that",
    ),
    OwnedFlags(
        flags=("--chunked-prefill-size", "--max-prefill-tokens", "--prefill-max-requests"),
        reason="vrampack sets it from engine.maxBatchedTokens",
    ),
    OwnedFlags(
        flags=("--disable-cuda-graph", "--enable-torch-compile"),
        families=("--cuda-graph-", "--enforce-piecewise-cuda-graph", "--enable-piecewise-cuda-graph", "--piecewise-"),
        reason="vrampack sets it from engine.cudaGraphs",
    ),
    OwnedFlags(flags=("--disable-radix-cache",), reason="vrampack sets it from engine.prefixCaching"),
    OwnedFlags(
        flags=("--limit-mm-data-per-request", "--language-only", "--language-model-only", "--enable-multimodal"),
        reason="vrampack sets it from engine.imagesPerPrompt",
    ),
    OwnedFlags(
        flags=(
            "--tp",
            "--tp-size",
            "--tensor-parallel-size",
            "--pp-size",
            "--pipeline-parallel-size",
            "--dp-size",
            "--data-parallel-size",
            "--ep",
            "--ep-size",
            "--expert-parallel-size",
            "--dcp-size",
            "--decode-context-parallel-size",
            "--enable-dp-attention",
            "--enable-dp-lm-head",
            "--nnodes",
            "--node-rank",
            "--dist-init-addr",
            "--nccl-init-addr",
        ),
        families=("--attn-", "--attention-data-", "--attention-context-", "--moe-dp", "--moe-data", "--moe-dense"),
        reason="vrampack sets it from parallelism",
    ),
    OwnedFlags(flags=(), families=("--speculative-",), reason="vrampack sets it from speculation"),
    OwnedFlags(
        flags=("--enable-lora", "--max-lora-rank", "--max-loras-per-batch", "--lora-target-modules"),
        reason="vrampack sets it from adapters",
    ),
    OwnedFlags(flags=("--host", "--port"), reason="vrampack sets it from service.port"),
    OwnedFlags(flags=("--served-model-name",), reason="requests name a model by the name of its ModelDeployment"),
    OwnedFlags(flags=("--gated-launch-port",), reason="vrampack decides when the engine may start"),
    OwnedFlags(
        flags=("--config",),
        reason="a file could hold flags that vrampack sets; write the arguments one by one",
    ),
)

LLAMACPP_FLAGS: Final = (
    OwnedFlags(
        flags=("-m", "--model", "-a", "--alias", "--offline"),
        families=("-mu", "--model-url", "-hf", "--hf-", "-dr", "--docker-repo", "--models-"),
        reason="vrampack sets it from model.source, model.file and model.tokenSecretRef",
    ),
    OwnedFlags(
        flags=("-ctk", "--cache-type-k", "-ctv", "--cache-type-v"), reason="vrampack sets it from precision.kvCache"
    ),
    OwnedFlags(
        flags=("-c", "--ctx-size", "-np", "--parallel", "-kvu", "--kv-unified", "-no-kvu", "--kv-unified-per-slot"),
        reason="vrampack sets it from serving and memory.perGPU",
    ),
    OwnedFlags(
        flags=(
            "-ngl",
            "--gpu-layers",
            "--n-gpu-layers",
            "-ncmoe",
            "-cmoe",
            "-ot",
            "--override-tensor",
            "-nkvo",
            "-kvo",
        ),
        families=("-fit", "--fit", "--n-cpu-", "--cpu-moe", "--no-kv-offload", "--kv-offload", "-ncffn"),
        reason="every layer is on the GPU that was claimed",
    ),
    OwnedFlags(
        flags=("-b", "--batch-size", "-ub", "--ubatch-size"), reason="vrampack sets it from engine.maxBatchedTokens"
    ),
    OwnedFlags(
        flags=("-sm", "--split-mode", "-ts", "--tensor-split", "-mg", "--main-gpu", "-dev", "--device", "--rpc"),
        reason="vrampack sets it from parallelism",
    ),
    OwnedFlags(flags=("--cache-prompt", "--no-cache-prompt"), reason="vrampack sets it from engine.prefixCaching"),
    OwnedFlags(flags=("-cram", "--cache-ram"), reason="prompts in RAM are beyond what the pod asks for"),
    OwnedFlags(
        flags=("-md", "--model-draft", "--mtp", "--eagle3", "--dflash"),
        families=("--spec-", "--draft", "-hfd", "-ngld", "-devd", "-ctkd", "-ctvd"),
        reason="llama.cpp is not told to draft",
    ),
    OwnedFlags(
        flags=("-mm", "-mmu"), families=("--mmproj", "--no-mmproj"), reason="images are not part of the estimate"
    ),
    OwnedFlags(flags=("--host", "--port"), reason="vrampack sets it from service.port"),
)

TGI_FLAGS: Final = (
    OwnedFlags(flags=("--model-id", "--revision"), reason="vrampack sets it from model.source and model.revision"),
    OwnedFlags(
        flags=("--dtype", "--quantize", "--kv-cache-dtype"),
        reason="vrampack sets it from precision.weights and precision.kvCache",
    ),
    OwnedFlags(
        flags=("--max-total-tokens", "--max-input-tokens", "--max-input-length", "--max-concurrent-requests"),
        reason="vrampack sets it from serving.contextLength and serving.concurrency",
    ),
    OwnedFlags(
        flags=("--cuda-memory-fraction", "--max-batch-total-tokens", "--max-batch-size"),
        reason="it follows from the claim on the GPU; set memory.perGPU to change that",
    ),
    OwnedFlags(flags=("--max-batch-prefill-tokens",), reason="vrampack sets it from engine.maxBatchedTokens"),
    OwnedFlags(flags=("--cuda-graphs",), reason="vrampack sets it from engine.cudaGraphs"),
    OwnedFlags(flags=("--sharded", "--num-shard"), reason="vrampack sets it from parallelism"),
    OwnedFlags(flags=("--speculate",), reason="TGI is not told to draft"),
    OwnedFlags(flags=("--lora-adapters",), reason="TGI is not told of adapters"),
    OwnedFlags(flags=("--port", "--hostname"), reason="vrampack sets it from service.port"),
)
