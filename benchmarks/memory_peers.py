"""Formulas that other tools use for the memory of a language model, as their sources have them, on the same rows.

``parameters``: parameters times bytes, the rule of thumb (accelerate's estimate and many calculators).
``uniform``: every layer keeps every token, K and V heads divided by the ranks (llm-d's planner, inference-sim).
``llm-d``: 5.5 GiB of activations of a dense model, 8 of a mixture of experts, 2.5 of a multimodal one; 0.15 GiB besides
PyTorch on one GPU, 0.6 on several.
``aiconfigurator``: activations by tokens and hidden size, 0.33 or 0.38 GiB for NCCL.
``KAITO``: weights times 1.02, and 2.3 GiB with 5 % of the weights for all the rest.
``GPUStack``: 1.2 times the weights and 2 GiB for all, the KV cache included.
"""

from collections.abc import Callable, Mapping

from benchmarks.measurements import Row, UnusableError
from benchmarks.memory_runs import Compared
from vrampack.units import GIB, MIB

Compare = Callable[[Row], Compared]


def peers_of(term: str) -> Mapping[str, Compare]:
    """Formulas for a term, by the name of who uses them."""
    formulas: dict[str, dict[str, Callable[[Row], float]]] = {
        "kv_tokens": {"uniform": _uniform_tokens},
        "weights": {"parameters": _parameters_gib, "KAITO": lambda row: 1.02 * _parameters_gib(row)},
        "activations": {"llm-d": _llmd_activations, "aiconfigurator": _aiconfigurator_activations},
        "cuda_graphs": {},
        "non_torch": {"llm-d": _llmd_non_torch, "aiconfigurator": _aiconfigurator_nccl},
        "non_kv": {
            "llm-d": lambda row: _parameters_gib(row) + _llmd_activations(row) + _llmd_non_torch(row),
            "KAITO": lambda row: 1.07 * _parameters_gib(row) + 2.3,
            "GPUStack": lambda row: 1.2 * _parameters_gib(row) + 2,
        },
        "max_concurrency": {"uniform": _uniform_concurrency},
    }
    return {name: _comparing(term, formula) for name, formula in formulas[term].items()}


def _comparing(term: str, formula: Callable[[Row], float]) -> Compare:
    columns = {
        "kv_tokens": ("kv_cache_tokens",),
        "weights": ("weights_gib",),
        "activations": ("activation_peak_gib",),
        "non_torch": ("non_torch_gib",),
        "non_kv": ("weights_gib", "activation_peak_gib", "cuda_graph_gib", "non_torch_gib"),
        "max_concurrency": ("max_concurrency",),
    }[term]

    def compare(row: Row) -> Compared:
        found = [row.printed(column) for column in columns if row.cells.get(column, "").strip()]
        if term == "activations":
            found = [row.peak()]
        printed = sum(max(0.0, one.value) for one in found)
        estimated = formula(row)
        rounding = sum(one.half_digit for one in found)
        within = abs(estimated - printed) <= rounding
        return Compared(row=row.number, engine=row.engine, estimated=estimated, printed=printed, within_rounding=within)

    return compare


def _parameters_gib(row: Row) -> float:
    """Parameters of a decoder as the calculators count them, times the bytes of the precision, over the ranks."""
    model = row.architecture()
    heads = (model.attention_heads * 2 + model.kv_heads * 2) * model.head_dim
    width = model.experts * model.expert_intermediate_size or model.intermediate_size
    layer = model.hidden_size * (heads + (3 if model.gated_mlp else 2) * width)
    tables = (1 if model.tied_embeddings else 2) * model.vocab_size * model.hidden_size
    return (model.layers * layer + tables) * _bytes_each(row) / (row.tensor * row.pipeline) / GIB


def _bytes_each(row: Row) -> float:
    named = row.cells.get("quantization", "").lower()
    if any(word in named for word in ("awq", "gptq", "fp4", "int4", "q4", "iq4", "w4")):
        return 0.5
    return 1.0 if any(word in named for word in ("fp8", "int8", "q8", "w8")) else 2.0


def _per_token(row: Row) -> float:
    model = row.architecture()
    each = 1 if row.kv_precision == "fp8" else 2
    return 2 * model.layers * model.kv_heads * model.head_dim * each / (row.tensor * row.pipeline)


def _uniform_tokens(row: Row) -> float:
    return row.printed("kv_cache_gib").value * GIB / _per_token(row)


def _uniform_concurrency(row: Row) -> float:
    return _uniform_tokens(row) / row.whole("max_model_len")


def _llmd_activations(row: Row) -> float:
    model = row.architecture()
    return 2.5 if model.multimodal else 8.0 if model.experts else 5.5


def _llmd_non_torch(row: Row) -> float:
    return 0.15 if row.tensor == 1 else 0.6


def _aiconfigurator_activations(row: Row) -> float:
    """Its least factor for a dense model at one or two ranks, 10, and 5 from four ranks on; never below 70 MiB."""
    factor = 10 if row.tensor < 4 else 5
    tokens = row.batch().max_batched_tokens
    return max(2 * tokens * row.architecture().hidden_size * factor, 70 * MIB) / GIB


def _aiconfigurator_nccl(row: Row) -> float:
    if row.tensor > 8:
        raise UnusableError("its constants end at 8 ranks")
    return 0.0 if row.tensor == 1 else 0.33 if row.tensor == 2 else 0.38
