"""From the files of a model to its facts: the configuration, the headers of the weight files, and never a weight."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

from vrampack.errors import InvalidInputError, UnsupportedModelError
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.tensorlayout import weights_from_file_sizes
from vrampack.models.config import architecture_of
from vrampack.models.facts import ModelFacts, WeightFile, digest_of
from vrampack.models.files import ModelFiles, invalid, missing, read_json
from vrampack.models.quantization import precision_of, quantization_of
from vrampack.models.safetensors import PREFIX_BYTES, Tensor, header_length, parse_header
from vrampack.models.tensorfacts import weights_of_config
from vrampack.models.tensornames import Role, parse_name
from vrampack.models.weights import bytes_by_dtype, matrix_types, stored_dtype, weights_of
from vrampack.units import counted

INDEX_FILE: Final = "model.safetensors.index.json"
SINGLE_FILE: Final = "model.safetensors"
PICKLE_INDEX_FILE: Final = "pytorch_model.bin.index.json"
PICKLE_FILE: Final = "pytorch_model.bin"
"""What older models have instead: engines load it, but nobody else should open it, so its size has to do."""
CONFIG_FILE: Final = "config.json"
SIDE_FILE: Final = "hf_quant_config.json"
"""What ModelOpt writes of its quantization, where config.json says nothing of it."""

_MAX_CONFIG_BYTES: Final = 16 * 1024**2
_MAX_INDEX_BYTES: Final = 64 * 1024**2
_MAX_SHARDS: Final = 2048
_AT_ONCE: Final = 8
_LEAST_SHARE, _MOST_SHARE = 0.1, 4.0
"""Of the bytes that config.json implies: one bit for each of 16 is less than any quantization keeps, and no tower or
side tensor makes a model four times as large."""
_WHOLE_SHARE: Final = 0.75
"""Of the same: with tensors of fewer layers than config.json says, less than this is a part of a model."""


def facts_of(files: ModelFiles) -> ModelFacts:
    """The facts of a model. Blocking.

    Raises ModelSourceError, UnsupportedModelError, and InvalidInputError for an impossible config.json.
    """
    if CONFIG_FILE not in files.listing:
        raise missing(files, CONFIG_FILE)
    config = read_json(files, CONFIG_FILE, most=_MAX_CONFIG_BYTES)
    side = read_json(files, SIDE_FILE, most=_MAX_CONFIG_BYTES) if SIDE_FILE in files.listing else None
    # Refuse what is not known before any weight file is touched.
    architecture_of(config, quant_config=side)
    quantization = quantization_of(config, quant_config=side)
    found = weight_files(files)
    if _are_pickles(files):
        return _pickled(files, config, side, found)
    tensors: dict[str, Tensor] = {}
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="files") as pool:
        for each in pool.map(lambda file: _tensors(files, file), found):
            tensors |= each
    architecture = architecture_of(config, stored_dtype=stored_dtype(tensors), quant_config=side)
    precision = precision_of(config, dtype=architecture.dtype, matrix_types=matrix_types(tensors), quant_config=side)
    weights = weights_of(tensors, architecture=architecture, precision=precision, quantization=quantization)
    if why := _of_another_model(tensors, weights, config, side, architecture):
        raise invalid(files, found[0].name, why)
    return ModelFacts(
        source=files.source,
        commit=files.commit,
        architecture=architecture,
        weights=weights,
        weights_digest=digest_of(found),
        by_dtype=bytes_by_dtype(tensors),
        files=found,
    )


def _of_another_model(
    tensors: Mapping[str, Tensor],
    weights: Weights,
    config: dict[str, Any],
    side: dict[str, Any] | None,
    architecture: Architecture,
) -> str:
    """Why these tensors can't be those of the model that config.json describes; empty: they may be, or nobody knows."""
    try:
        implied = weights_of_config(config, architecture=architecture, quant_config=side).total
    except (UnsupportedModelError, InvalidInputError):
        return ""
    share = weights.total / max(implied, 1)
    if not _LEAST_SHARE <= share <= _MOST_SHARE:
        return f"its tensors have {weights.total} bytes, and config.json implies {implied}"
    names = map(parse_name, tensors)
    layers = {name.layer for name in names if name.layer is not None and not (name.encoder or name.role is Role.TOWER)}
    if layers and share < _WHOLE_SHARE and max(layers) + 1 < architecture.layers:
        return f"it has tensors of {counted(max(layers) + 1, 'layer')}, and config.json says {architecture.layers}"
    return ""


def _pickled(
    files: ModelFiles, config: dict[str, Any], side: dict[str, Any] | None, found: tuple[WeightFile, ...]
) -> ModelFacts:
    """By the sizes of the files. What is in them has the computation type that the configuration names."""
    architecture = architecture_of(config, quant_config=side)
    precision = precision_of(config, dtype=architecture.dtype, matrix_types=frozenset(), quant_config=side)
    total = sum(file.bytes for file in found)
    weights = weights_from_file_sizes(architecture, total=total, precision=precision)
    implied = weights_of_config(config, architecture=architecture, quant_config=side).total
    if not 0.5 <= total / implied <= 2.5:
        raise invalid(files, found[0].name, f"it has {total} bytes, and config.json implies {implied}")
    if total > 1.5 * implied:  # stored in a wider type, which engines convert as they load
        weights = replace(weights, total=implied)
    return ModelFacts(
        source=files.source,
        commit=files.commit,
        architecture=architecture,
        weights=weights,
        weights_digest=digest_of(found),
        by_dtype={},
        files=found,
    )


def weight_files(files: ModelFiles) -> tuple[WeightFile, ...]:
    """Files that the engine loads, with size and digest. Raises ModelSourceError."""
    return tuple(_weight_file(files, name) for name in _weight_names(files))


def _are_pickles(files: ModelFiles) -> bool:
    return INDEX_FILE not in files.listing and SINGLE_FILE not in files.listing


def _weight_names(files: ModelFiles) -> list[str]:
    """Those of the index, else the single file. Other copies of the weights beside them (``original/``,
    ``consolidated.safetensors``, ``.bin``) are not loaded and do not count."""
    for index, single in ((INDEX_FILE, SINGLE_FILE), (PICKLE_INDEX_FILE, PICKLE_FILE)):
        if index in files.listing:
            return _indexed(files, index)
        if single in files.listing:
            return [single]
    raise missing(files, f"{INDEX_FILE} or {SINGLE_FILE}")


def _indexed(files: ModelFiles, index_file: str) -> list[str]:
    index = read_json(files, index_file, most=_MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
        raise invalid(files, index_file, "it maps no tensors to files")
    names = sorted(set(index.values()))
    if len(names) > _MAX_SHARDS:
        raise invalid(files, index_file, f"it names {len(names)} files, more than {_MAX_SHARDS}")
    for name in names:
        if name not in files.listing:
            raise missing(files, name[:200])
    return names


def _weight_file(files: ModelFiles, name: str) -> WeightFile:
    listed = files.listing[name]
    digest = listed.digest or files.digest(name)
    if listed.bytes is None or digest is None:
        raise invalid(files, name, "its size and digest are not told")
    return WeightFile(name=name, bytes=listed.bytes, sha256=digest)


def _tensors(files: ModelFiles, file: WeightFile) -> dict[str, Tensor]:
    length = header_length(files.read(file.name, length=PREFIX_BYTES), file=file.name)
    header = files.read(file.name, start=PREFIX_BYTES, length=length)
    return parse_header(header, file=file.name, file_bytes=file.bytes)
