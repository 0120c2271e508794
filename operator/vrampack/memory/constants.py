"""Every number of the estimate that is not read from the model, with where it comes from and how well it fits.

Three kinds, and each constant says which it is: *read* from an engine's or library's source, *fitted* to what engines
printed at start (with the error over the runs it was fitted to), and *chosen*, where neither exists.
Sizes are bytes.
"""

from typing import Final

from vrampack.units import GIB, MIB

NULL_BLOCKS: Final = 1
"""Read: vLLM's block pool keeps one block that no sequence gets; since 0.29 the start check counts it too."""

VOCABULARY_PADDING: Final = 64
"""Read: vLLM pads the vocabulary to a multiple of this before it splits it (``DEFAULT_VOCAB_PADDING_SIZE``)."""

DTYPE_BYTES: Final[dict[str, int]] = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Read: bytes of one element, by the computation type's name in config.json."""

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
nothing fitted, eight printed peaks of runs that sort are reproduced: five within 0.1 %, the worst, which does not say
its context length, 3.5 % under."""

GRAPH_BASE: Final = 32 * MIB
"""Fitted: what capturing costs with the fewest sizes (Qwen3-8B with two sequences: 61 MiB in all)."""

GRAPH_PLAIN: Final = int(0.23 * MIB)
"""Fitted (``python -m benchmarks.fit_overheads``): bytes of a dense layer in 16 bit in the graph of one batch size. The
median of eight runs, 28 to 64 layers, of releases before 0.12. Leaving out each family in turn, the worst are 0.23 GiB
under (Qwen3-32B with eight ranks) and 0.08 over."""

GRAPH_PLAIN_FULL: Final = int(0.28 * MIB)
"""Fitted: the same since 0.12, which captures whole decode steps beside the pieces. Two runs of two families: each from
the other is 0.05 GiB off at most."""

GRAPH_EXPERTS: Final = int(0.75 * MIB)
"""Fitted: a layer with a mixture of experts. The larger of two runs of two families, 0.69 (gpt-oss) and 0.75
(Qwen3-Next): from the other family it is 0.16 GiB under at most. An upper end: runs not at hand print 0.42 (Qwen3-235B)
and less."""

GRAPH_MANY_KERNELS: Final = int(0.5 * MIB)
"""Chosen, as one run is no fit: a layer with recurrent states, with weights that are unpacked as they are used (AWQ,
GPTQ, bitsandbytes), or of a model that takes images or sound. Qwen3.6 prints 0.31; two runs without a configuration
print about 0.46 (Nemotron-H) and 0.54 (Gemma 3 in AWQ)."""

GRAPH_LARGEST_BATCH: Final = 512
"""Read: vLLM captures batch sizes up to the smaller of this and twice ``max_num_seqs``."""

COMMUNICATION: Final = 1178 * MIB
"""Fitted (``python -m benchmarks.fit_overheads``): NCCL, custom all-reduce and symmetric memory per rank under tensor
parallelism, beyond what one GPU prints. The larger of two runs, 0.31 GiB (H100) and 1.15 (H200, Qwen3-Next): each from
the other is 0.84 GiB off, so this is an upper end and no more. The snapshot that includes NCCL rises by 0.55 GiB."""

CUDA_CONTEXT: Final = int(0.61 * GIB)
"""Measured: context and driver before anything is allocated; H100 and H200 print 0.53 to 0.61 GiB. For GPUs that were
not measured it is the upper end, by the name of this constant."""

CUDA_CONTEXT_OF_SMALL_GPUS: Final = int(0.51 * GIB)
"""Measured: GPUs of 16 to 24 GB print 0.17 to 0.51 GiB, what a desktop uses of some of them included: again the upper
end."""

NON_TORCH: Final = int(0.23 * GIB)
"""Fitted: what libraries allocate beside PyTorch on one GPU (kernels, handles): 0.13 to 0.23 GiB in four runs, 0.02 to
0.23 in eleven of twelve of a larger collection. The upper end; leaving out each family, 0.10 GiB off at most."""

ALLOWANCE: Final = int(0.3 * GIB)
"""Chosen: how far graphs and non-torch memory may be above what is computed for them. No formula was found that is
nearer: two runs of one command differ by more than the formulas do, as the allocator gives segments back or not."""

HOST_BASE: Final = 4 * GIB
"""Chosen: RAM of the API server and the scheduler process, with their libraries."""

HOST_PER_RANK: Final = 6 * GIB
"""Chosen: RAM of one worker with its libraries, and one file of weights (5 GB is the usual largest) on its way: files
that are not safetensors are read as a whole."""

HOST_TOKEN_BYTES: Final = 5
"""Read: bytes that a worker keeps in RAM for each token that a sequence may have, whether it is there or not: its
number in 32 bit and a flag (``InputBatch.token_ids_cpu``, ``is_token_ids``; the second runner has such a table too)."""

HOST_INPUT_CACHE: Final = 4 * GIB
"""Read: ``mm_processor_cache_gb``, images and sound that were processed before; one in the API server and one in each
scheduler."""

SHARED_MEMORY_PER_RANK: Final = 1 * GIB
"""Read: a worker's queue of answers takes 240 MiB of /dev/shm (ten slots of 24), the queue of its orders 160, those
of its groups 24 each (``MessageQueue``). Chosen: the rest, half a GiB, is for NCCL where GPUs can't reach each other
directly. A limit, charged only as far as it is used."""
