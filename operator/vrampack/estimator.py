"""The estimate as a library: one call from a model to the bytes that a replica of it needs on each GPU.

::

    from vrampack import estimate

    answer = estimate("hf://Qwen/Qwen3-8B", context_length=8192, concurrency=16)
    answer.per_gpu, answer.terms, answer.fits("L40S"), answer.largest_concurrency("L40S")

It needs no cluster and no client of one; the hub's client is loaded only for models that are on the hub.
"""

import asyncio
import os
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from vrampack.errors import InvalidInputError
from vrampack.memory.architecture import Architecture
from vrampack.memory.draft import Draft
from vrampack.memory.estimate import Estimate
from vrampack.memory.estimate import estimate as claim_of
from vrampack.memory.gpus import GPUS, gpu_named
from vrampack.memory.inverse import Reach, largest_concurrency, longest_context
from vrampack.memory.loading import quantized_online
from vrampack.memory.workload import Workload
from vrampack.models.facts import ModelFacts
from vrampack.units import MIB, parse_bytes

Model = Mapping[str, Any] | str | os.PathLike[str]

HUB: Final = "hf://"
LEAST_GPU: Final = MIB
"""Bytes: claims are whole MiB, and a GPU of 24 bytes is one of 24Gi whose unit was forgotten."""
DEFAULT_BATCHED_TOKENS: Final = 8192
"""Of spec.engine.maxBatchedTokens as well: always passed to the engine, so it is the same everywhere."""
AUTO: Final = "Auto"
CONFIG_ENDING: Final = ".json"
GGUF_ENDING: Final = ".gguf"
QUANT_FILE: Final = "hf_quant_config.json"
"""What ModelOpt writes beside config.json."""

KV_OF_DTYPE: Final[Mapping[str, str]] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
"""What Auto makes of the KV cache, by the computation type: never a smaller type than the model's own."""
_SUM: Final = "per_gpu"
TERMS: Final = tuple(field.name for field in fields(Estimate))[: [field.name for field in fields(Estimate)].index(_SUM)]
"""Names of the terms: the fields of Estimate that stand before their sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEstimate:
    """What one replica needs on each of its GPUs, and what it was computed from. Bytes are whole numbers."""

    model: ModelFacts
    workload: Workload
    estimate: Estimate

    @property
    def per_gpu(self) -> int:
        """The claim on each GPU: the exact sum of the terms."""
        return self.estimate.per_gpu

    @property
    def gpus(self) -> int:
        """GPUs of a replica."""
        return self.estimate.gpus

    @property
    def terms(self) -> dict[str, int]:
        """The terms of the claim by name, in the order in which they are told."""
        return {name: getattr(self.estimate, name) for name in TERMS}

    def fits(self, gpu: str | int) -> bool:
        """Whether an empty GPU has room. ``gpu``: a product's name, a quantity such as 24Gi, or bytes.

        Raises InvalidInputError for a name that is not known, here and below.
        """
        return self.per_gpu <= gpu_bytes(gpu)

    def largest_concurrency(self, gpu: str | int) -> Reach:
        """Most sequences at this context length on such GPUs."""
        return largest_concurrency(
            architecture=self.model.architecture,
            weights=self.model.weights,
            workload=self.workload,
            available=gpu_bytes(gpu),
        )

    def longest_context(self, gpu: str | int) -> Reach:
        """Most tokens of a sequence at this concurrency on such GPUs."""
        return longest_context(
            architecture=self.model.architecture,
            weights=self.model.weights,
            workload=self.workload,
            available=gpu_bytes(gpu),
        )

    def changed(self, **changes: Any) -> "ModelEstimate":
        """The same model under another workload: any fields of Workload.

        tokens_per_sequence follows context_length where it was equal to it. Raises InvalidInputError for a workload
        that the engine would refuse.
        """
        follows = self.workload.tokens_per_sequence == self.workload.context_length
        if follows and "context_length" in changes:
            changes.setdefault("tokens_per_sequence", changes["context_length"])
        return estimated(self.model, replace(self.workload, **changes))


def estimate(
    model: Model,
    *,
    context_length: int,
    concurrency: int,
    tokens_per_sequence: int | None = None,
    max_batched_tokens: int = DEFAULT_BATCHED_TOKENS,
    tensor: int = 1,
    pipeline: int = 1,
    data: int = 1,
    expert: bool = False,
    decode_context: int = 1,
    weights: str = AUTO,
    kv_cache: str = AUTO,
    cuda_graphs: bool = True,
    prefix_caching: bool | None = None,
    text_only: bool = False,
    videos: bool = False,
    headroom_percent: float = 3.0,
    product: str = "",
    engine: str = "vllm",
    engine_version: str = "",
    speculation: str = "",
    speculative_tokens: int = 0,
    draft_model: Model | None = None,
    lora_adapters: int = 0,
    lora_rank: int = 0,
    file: str = "",
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> ModelEstimate:
    """The bytes that one replica of ``model`` needs on each GPU.

    ``model``: ``hf://ORG/NAME``, the folder of a model, a GGUF file, the path of a config.json, or a config.json that
    was parsed already. Without weight files the weights are those that the configuration implies. The other arguments
    are what a ModelDeployment says under the same names; ``weights`` is the checkpoint's own precision, or fp8 that the
    engine makes of 16 bits while it loads; ``kv_cache`` is one of its precisions; ``text_only`` leaves out the towers
    for images and sound; ``videos`` lets them in, which no ModelDeployment does; ``prefix_caching`` None is what the
    engine does by default, and an empty ``engine_version`` the newest that is known. ``product`` is the GPU's, by the
    driver's name with dashes; without it what hangs on it is the most of any. ``speculation`` is mtp, eagle, eagle3,
    medusa, draft or ngram, and ``draft_model`` the model that drafts, given as ``model`` is. ``file`` is a GGUF file of
    a repository or folder that has several; on the hub also a pattern. ``revision``, ``token`` and ``endpoint`` are for
    models on the hub: a branch, tag or commit; an access token (None: HF_TOKEN); the hub's address (None: HF_ENDPOINT,
    else the public one).

    Raises UnsupportedModelError for an architecture whose memory is not known, InvalidInputError for a value that can't
    be or that the engine would refuse, ModelSourceError where the files can't be had.
    """
    facts = _served(read_model(model, file=file, revision=revision, token=token, endpoint=endpoint), weights)
    workload = Workload(
        context_length=context_length,
        concurrency=concurrency,
        tokens_per_sequence=context_length if tokens_per_sequence is None else tokens_per_sequence,
        max_batched_tokens=max_batched_tokens,
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        expert=expert,
        decode_context=decode_context,
        kv_cache_precision=_kv_precision(kv_cache, facts.architecture),
        cuda_graphs=cuda_graphs,
        prefix_caching=prefix_caching,
        text_only=text_only,
        videos=videos,
        headroom_percent=headroom_percent,
        product=product,
        engine=engine,
        engine_version=engine_version,
        speculation=speculation,
        speculative_tokens=speculative_tokens,
        draft=_draft(draft_model, token=token, endpoint=endpoint),
        lora_adapters=lora_adapters,
        lora_rank=lora_rank,
    )
    return estimated(facts, workload)


def _draft(model: Model | None, *, token: str | None, endpoint: str | None) -> Draft | None:
    if model is None:
        return None
    facts = read_model(model, token=token, endpoint=endpoint)
    return Draft(architecture=facts.architecture, weights=facts.weights)


def estimated(model: ModelFacts, workload: Workload) -> ModelEstimate:
    """The estimate of a model that was read already. Raises as `estimate` does."""
    computed = claim_of(architecture=model.architecture, weights=model.weights, workload=workload)
    return ModelEstimate(model=model, workload=workload, estimate=computed)


def read_model(
    model: Model,
    *,
    file: str = "",
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> ModelFacts:
    """The facts of a model, from wherever it is; its source is what it was asked by. Raises as `estimate` does."""
    if isinstance(model, Mapping):
        return _configured(model, source="")
    name = os.fspath(model)
    if name.startswith(HUB):
        return _from_hub(name, file=file, revision=revision, token=token, endpoint=endpoint)
    check_path(name)
    _check_said(name, file=file, revision=revision)
    from vrampack.models.ggufcheckpoint import read_gguf
    from vrampack.models.local import read_config, read_folder

    path = Path(name)
    if path.suffix == CONFIG_ENDING:
        side = path.with_name(QUANT_FILE)
        quant_config = read_config(side) if path.name != QUANT_FILE and side.is_file() else None
        return _configured(read_config(path), quant_config=quant_config, source=name)
    if path.suffix == GGUF_ENDING:
        return read_gguf(path, source=name)
    if file:
        return read_gguf(path / file, source=name)
    return read_folder(path, source=name)


def gpu_bytes(gpu: str | int, *, field: str = "gpu") -> int:
    """Bytes that an engine can have of a GPU: of a product by its name, else as written.

    Raises InvalidInputError, with ``field``, for what is neither, and for less than a MiB.
    """
    known = gpu_named(gpu) if isinstance(gpu, str) else None
    if known is not None:
        return known.usable
    try:
        amount = parse_bytes(gpu)
    except ValueError:
        amount = 0
    if amount < LEAST_GPU:
        allowed = (
            f"write one of {', '.join(GPUS)}, a value of the node label nvidia.com/gpu.product, or the memory of a "
            "GPU, at least 1Mi, such as 24Gi"
        )
        raise InvalidInputError(field=field, value=gpu, allowed=allowed)
    return amount


def check_path(name: str) -> None:
    """Raises InvalidInputError for what names no file or folder of this machine."""
    scheme, found, _ = name.partition("://")
    if not name.strip():
        allowed = "name the model: hf://ORG/NAME, a folder (. for this one), a GGUF file or a config.json"
    elif found and scheme == "pvc":
        allowed = (
            "nothing reads a volume from here; where its files are, run: vrampack profile FOLDER --source "
            f"{shlex.quote(name)} > profile.yaml, and give profile.yaml with -f beside the manifest, or the folder"
        )
    elif found and scheme == "profile":
        allowed = "a ModelProfile is read from a file: give it with -f, beside the ModelDeployment that names it"
    elif found:
        allowed = "write hf://ORG/NAME, or the path of a folder, of a GGUF file or of a config.json"
    else:
        return
    raise InvalidInputError(field="model", value=name, allowed=allowed)


def _check_said(name: str, *, file: str, revision: str | None) -> None:
    """Raises InvalidInputError for what picks among the files of a repository, beside a single file."""
    if revision is not None:
        raise InvalidInputError(
            field="revision", value=revision, allowed=f"only a model on the hub has one, not {name}"
        )
    if file and Path(name).suffix in (CONFIG_ENDING, GGUF_ENDING):
        raise InvalidInputError(field="file", value=file, allowed=f"{name} is a file itself: leave it out")


def _from_hub(source: str, *, file: str, revision: str | None, token: str | None, endpoint: str | None) -> ModelFacts:
    from vrampack.models.hub import read_facts
    from vrampack.models.readcache import default_cache

    reading = read_facts(
        source=source,
        revision=revision,
        token=token or os.environ.get("HF_TOKEN") or None,
        endpoint=endpoint,
        cache=default_cache(),
    )
    # In a thread of its own: a notebook has a running event loop already.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, reading).result()


def _configured(config: Mapping[str, Any], *, quant_config: Mapping[str, Any] | None = None, source: str) -> ModelFacts:
    """Without a weight file: the tensors that the configuration implies."""
    from vrampack.models.config import architecture_of
    from vrampack.models.tensorfacts import likely_dtype, weights_of_config

    likely = likely_dtype(config, quant_config=quant_config)
    architecture = architecture_of(config, stored_dtype=likely, quant_config=quant_config)
    weights = weights_of_config(config, architecture=architecture, quant_config=quant_config)
    return ModelFacts(
        source=source, commit="", architecture=architecture, weights=weights, weights_digest="", by_dtype={}, files=()
    )


def _served(facts: ModelFacts, asked: str) -> ModelFacts:
    """The model with its weights as they are served. Raises InvalidInputError for what no engine makes of them."""
    found = facts.weights.precision
    if asked.casefold() in (AUTO.casefold(), found):
        return facts
    if asked == "fp8" and found in ("bf16", "fp16"):
        return replace(facts, weights=quantized_online(facts.architecture, facts.weights))
    allowed = "; engines make fp8 of 16 bits, and of nothing else" if found in ("bf16", "fp16") else ""
    raise InvalidInputError(field="weights", value=asked, allowed=f"the checkpoint's own, {found}{allowed}")


def _kv_precision(asked: str, architecture: Architecture) -> str:
    return KV_OF_DTYPE[architecture.dtype] if asked.casefold() == AUTO.casefold() else asked
