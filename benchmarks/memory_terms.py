"""What the estimate says of a measured run, term by term, to be held against what the engine printed.

Only what the row itself gives is taken: its model's configuration, its arguments, and its GPU where the engine's
defaults hang on it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.measurements import LLAMA_CPP, QUANTIZATION_KEYS, Printed, Row, UnusableError
from benchmarks.memory_cache import kv_tokens, max_concurrency
from benchmarks.memory_runs import Compared, asked, graph_batch, only_vllm, workload_of
from vrampack.memory.activations import activation_bytes
from vrampack.memory.architecture import Weights
from vrampack.memory.batchdefaults import BatchDefaults
from vrampack.memory.layers import RecurrentState
from vrampack.memory.loading import quantized_online
from vrampack.memory.overheads import cuda_graph_bytes
from vrampack.memory.overheads import non_torch_bytes as _non_torch
from vrampack.memory.releases import release_of
from vrampack.memory.tensorlayout import weights_from_architecture
from vrampack.memory.weights import loaded_bytes, reserved_bytes
from vrampack.models.tensorfacts import tensor_facts_of, weights_of_config
from vrampack.units import GIB

GRAPHS_IN_PEAK = (0, 21, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A term of the report. ``compare`` raises UnusableError, with the reason, for a row that says nothing about it."""

    name: str
    unit: str
    compare: Callable[[Row], Compared]


def terms() -> tuple[Term, ...]:
    """In the order of the report."""
    return (
        Term(name="kv_tokens", unit="tokens", compare=kv_tokens),
        Term(name="weights", unit="GiB", compare=_gib("weights_gib", weights_bytes)),
        Term(name="activations", unit="GiB", compare=_activations),
        Term(name="cuda_graphs", unit="GiB", compare=_gib("cuda_graph_gib", graphs_bytes)),
        Term(name="non_torch", unit="GiB", compare=_gib("non_torch_gib", non_torch_bytes)),
        Term(name="non_kv", unit="GiB", compare=_non_kv),
        Term(name="max_concurrency", unit="requests", compare=max_concurrency),
    )


def _gib(column: str, estimated: Callable[[Row], int]) -> Callable[[Row], Compared]:
    def compare(row: Row) -> Compared:
        printed = row.printed(column)
        return _compared(row, estimated=asked(row, estimated) / GIB, printed=printed)

    return compare


def _activations(row: Row) -> Compared:
    printed = row.peak()
    return _compared(row, estimated=asked(row, activations_bytes) / GIB, printed=printed)


def _compared(row: Row, *, estimated: float, printed: Printed) -> Compared:
    """Growth that was measured as negative is memory that the allocator gave back: nothing is needed then."""
    target = max(0.0, printed.value)
    return Compared(
        row=row.number,
        engine=row.engine,
        estimated=estimated,
        printed=target,
        within_rounding=abs(estimated - target) <= printed.half_digit * (1 + 1e-9),
    )


def _only_nvidia(row: Row) -> None:
    if row.amd:
        raise UnusableError("an AMD GPU: what its kernels and libraries take is not modelled")


_PRECISIONS = {
    "awq": "awq",
    "awq_marlin": "awq",
    "gptq": "gptq",
    "gptq_marlin": "gptq",
    "fp8": "fp8",
    "mxfp4": "mxfp4",
    "bitsandbytes": "bitsandbytes",
}
"""Quantizations of an engine's log, for models whose configuration at hand is that of the unquantized one."""


def weights_of(row: Row) -> Weights:
    """The tensors that the configuration implies, as the row's run loaded them."""
    architecture, config = row.architecture(), row.served_config()
    named = row.cells.get("quantization", "").strip().lower()
    if re.search(r"\b(ascend|npu)\b", f"{row.gpu} {row.note}".lower()):
        raise UnusableError("no GPU: its checkpoints are quantized in a way that the configuration does not say")
    if named.startswith("gguf") or row.engine in LLAMA_CPP:
        raise UnusableError("types of the tensors of a GGUF file are not known from the configuration")
    method = next(
        (config[key].get("quant_method") for key in QUANTIZATION_KEYS if isinstance(config.get(key), dict)), ""
    )
    if method and named and not named.startswith(str(method).replace("_", "-").split("-")[0]):
        raise UnusableError(f"quantization is {named[:40]!r}, the configuration is that of a checkpoint in {method}")
    if not named or method:
        return weights_of_config(config, architecture=architecture)
    if named not in _PRECISIONS:
        raise UnusableError(f"quantization is {named[:40]!r}, of which the configuration says nothing")
    if named == "fp8":  # of a checkpoint that is not quantized: made while it loads
        return quantized_online(architecture, weights_of_config(config, architecture=architecture))
    facts = tensor_facts_of(config, architecture=architecture)
    return weights_from_architecture(architecture, precision=_PRECISIONS[named], facts=facts)


def weights_bytes(row: Row) -> int:
    """Per GPU. vLLM prints tensors; on AMD's GPUs it prints by how much free memory fell, as SGLang does everywhere."""
    weights = weights_of(row)
    workload = workload_of(row, BatchDefaults(max_sequences=1, max_batched_tokens=2048))
    measure = reserved_bytes if row.amd or row.engine == "sglang" else loaded_bytes
    return measure(row.architecture(), weights, workload)


def activations_bytes(row: Row) -> int:
    """Per GPU. Since 0.21 the engine adds its estimate of the graphs to what it prints as the peak."""
    only_vllm(row, "the activation peak")
    _only_nvidia(row)
    if row.first_core and row.architecture().multimodal:
        raise UnusableError("the first engine core encoded images for all sequences at once, which is not modelled")
    _check_default_sequences(row)
    peak = activation_bytes(row.architecture(), workload_of(row, row.batch()))
    return peak + (graphs_bytes(row) if release_of(row.version) >= GRAPHS_IN_PEAK else 0)


def _check_default_sequences(row: Row) -> None:
    """Where a row leaves out max_num_seqs the engine's default is taken, unless the row itself shows that it was
    another: no rank that samples has a peak below the logits alone, once in 16 and once in 32 bit."""
    if row.cells.get("max_num_seqs", "").strip() or row.architecture().pooling:
        return
    peak = row.peak().value
    if release_of(row.version) >= GRAPHS_IN_PEAK and row.cells.get("cuda_graph_gib", "").strip():
        peak -= max(0.0, row.printed("cuda_graph_gib").value)
    sequences = row.batch().max_sequences
    if peak * GIB < sequences * row.architecture().vocab_size * 6:
        raise UnusableError(
            f"max_num_seqs is not in the row, and the peak is below the logits of its default, {sequences} sequences"
        )


def graphs_bytes(row: Row) -> int:
    """Per GPU."""
    only_vllm(row, "graph memory")
    batch = graph_batch(row)
    if row.eager:
        return 0
    _only_nvidia(row)
    precision = _PRECISIONS.get(row.cells.get("quantization", "").strip().lower(), "bf16")
    return cuda_graph_bytes(row.architecture(), workload_of(row, batch), precision=precision)


def graph_kind(row: Row) -> str:
    """What the layers of the row's model are to CUDA graphs. Raises UnusableError as `graphs_bytes` does."""
    graphs_bytes(row)
    architecture = row.architecture()
    if any(run.feed_forward is not None and run.feed_forward.experts for run in architecture.layer_runs):
        return "experts"
    states = any(isinstance(mixer, RecurrentState) for run in architecture.layer_runs for mixer in run.mixers)
    quantization = row.cells.get("quantization", "").strip().lower()
    if architecture.multimodal or states or _PRECISIONS.get(quantization, "bf16") in ("awq", "gptq", "bitsandbytes"):
        return "many kernels"
    return "plain, until 0.11" if release_of(row.version) < (0, 12, 0) else "plain, since 0.12"


def non_torch_bytes(row: Row) -> int:
    """Per GPU."""
    only_vllm(row, "non-torch memory")
    _only_nvidia(row)
    if row.first_core and not row.cells.get("version", "").strip():
        raise UnusableError("the row names no version, and until 0.6.5 this figure was all that is not PyTorch's")
    return _non_torch(workload_of(row, graph_batch(row)))


_PARTS: Mapping[str, Callable[[Row], int]] = {
    "weights_gib": weights_bytes,
    "activation_peak_gib": activations_bytes,
    "cuda_graph_gib": graphs_bytes,
    "non_torch_gib": non_torch_bytes,
}


def _non_kv(row: Row) -> Compared:
    """All that the row prints besides the KV cache, against the estimate of just these terms."""
    asked(row, lambda row: only_vllm(row, "what is there besides the cache"))
    found = {column: row.printed(column) for column in _PARTS if row.cells.get(column, "").strip()}
    if "activation_peak_gib" in found and release_of(row.version) >= GRAPHS_IN_PEAK:
        found.pop("cuda_graph_gib", None)  # the printed peak has them
    if "weights_gib" not in found or len(found) < 2:
        raise UnusableError("the weights and a second term were not printed")
    estimated = sum(asked(row, _PARTS[column]) for column in found)
    printed = Printed(
        value=sum(max(0.0, one.value) for one in found.values()),
        half_digit=sum(one.half_digit for one in found.values()),
    )
    return _compared(row, estimated=estimated / GIB, printed=printed)
