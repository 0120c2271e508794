"""Every number of the estimate that is not read from the model, with where it comes from and how well it fits.

Three kinds, and each constant says which it is: *read* from an engine's or library's source, *fitted* to what engines
printed at start (with the error over the runs it was fitted to), and *chosen*, where neither exists.
Sizes are bytes.
"""

from typing import Final

from vrampack.units import GIB, MIB

KV_BLOCK_TOKENS: Final = 16
"""Read: vLLM's default block size for full attention on NVIDIA GPUs."""

NULL_BLOCKS: Final = 1
"""Read: vLLM's block pool keeps one block that no sequence gets; since 0.29 the start check counts it too."""

VOCABULARY_PADDING: Final = 64
"""Read: vLLM pads the vocabulary to a multiple of this before it splits it (``DEFAULT_VOCAB_PADDING_SIZE``)."""

DTYPE_BYTES: Final[dict[str, int]] = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Read: bytes of one element, by the computation type's name in config.json."""

KV_ELEMENT_BYTES: Final[dict[str, int]] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}
"""Read: bytes of one element of a K or V vector, by ``--kv-cache-dtype``."""

WEIGHT_BITS: Final[dict[str, int]] = {
    "fp32": 32,
    "bf16": 16,
    "fp16": 16,
    "fp8": 8,
    "int8": 8,
    "int4": 4,
    "awq": 4,
    "gptq": 4,
    "bitsandbytes": 4,
    "mxfp4": 4,
    "nvfp4": 4,
}
"""Read: bits of one element of a matrix, without its scales. It only shapes the rests of the allocator's segments and
the copies of KV projections; the weights themselves are the bytes of the files."""

ALLOCATOR_SEGMENT: Final = 2 * MIB
"""Read: PyTorch's caching allocator asks CUDA for multiples of this (``kRoundLarge``) …"""

ALLOCATOR_LARGE: Final = 10 * MIB
"""Read: … for a tensor of at least this size (``kMinLargeAlloc``); smaller ones share segments …"""

ALLOCATOR_UNSPLIT: Final = 1 * MIB
"""Read: … and counts a rest of up to this as part of the tensor (``kSmallSize``). With it, printed weights are
reproduced to the printed digit, 50 MiB that no tensor explains included (Qwen3-4B, Qwen2.5-14B, Qwen3-32B TP 8)."""

SAMPLER_PROGRAMS: Final = 148
"""Read: vLLM's kernel for top-k and top-p runs one program per multiprocessor, each with a row of logits as scratch.
132 on H100 and H200, 148 on B200, fewer elsewhere."""

LIBRARY_WORKSPACE: Final = 36 * MIB
"""Read: PyTorch's workspace for cuBLAS on Hopper, 32 MiB (8 elsewhere), and the rests of a few segments. With it, and
nothing fitted, the peak of nine printed start-up runs that sort is reproduced within 1 %."""

GRAPH_BASE: Final = 32 * MIB
"""Fitted: what capturing costs with the fewest sizes (Qwen3-8B with two sequences: 61 MiB in all)."""

GRAPH_PER_LAYER_AND_SIZE: Final = int(0.30 * MIB)
"""Fitted: per layer and captured batch size of a dense model, besides the base. Ten runs of 0.6B to 32B, TP 1 to 8,
vLLM 0.8 to 0.22, print 0.20 to 0.29 MiB; the estimate is never under, and 2 to 48 % (9 to 280 MiB) over."""

GRAPH_PER_LAYER_AND_SIZE_MOE: Final = int(0.45 * MIB)
"""Fitted: the same for a mixture of experts; Qwen3-235B-A22B at TP 8 prints 0.42 MiB. One run."""

GRAPH_LARGEST_BATCH: Final = 512
"""Read: vLLM captures batch sizes up to the smaller of this and twice ``max_num_seqs``."""

COMMUNICATION: Final = 604 * MIB
"""Fitted: NCCL and custom all-reduce buffers per rank under tensor parallelism. H100: the non-torch growth rises by
0.40 GiB from TP 1 to TP 2, the snapshot that includes NCCL by 0.55 GiB; the larger one with 7 % on top."""

CUDA_CONTEXT: Final = int(0.61 * GIB)
"""Fitted: context and driver before anything is allocated. H100 and H200 print 0.53 to 0.61 GiB; smaller GPUs have
less (0.1 to 0.5 GiB), so this is the upper end."""

NON_TORCH: Final = int(0.23 * GIB)
"""Fitted: what libraries allocate beside PyTorch at TP 1 (cuBLAS and attention workspaces): 0.02 to 0.23 GiB in eleven
of twelve runs. The upper end."""

HOST_BASE: Final = 4 * GIB
"""Chosen: RAM of the API server and the scheduler process."""

HOST_PER_RANK: Final = 6 * GIB
"""Chosen: RAM of one worker with its libraries and one shard of weights (5 GB is the usual largest) on its way."""

SHARED_MEMORY_PER_RANK: Final = 1 * GIB
"""Chosen: /dev/shm for NCCL and the workers' message queue; a limit, charged only as far as it is used."""
