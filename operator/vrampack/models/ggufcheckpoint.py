"""From the GGUF files of a model to its facts. All that is known of it is in their headers: no config.json is read."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Final

from vrampack.errors import ModelSourceError
from vrampack.models.facts import ModelFacts, WeightFile, digest_of
from vrampack.models.files import ModelFiles, invalid, missing
from vrampack.models.gguf import GgufHeader, GgufTensor, read_header
from vrampack.models.ggufarchitecture import gguf_architecture
from vrampack.models.ggufweights import bytes_by_type, gguf_weights
from vrampack.models.local import Folder
from vrampack.units import counted

_ENDING: Final = ".gguf"
_LAYER: Final = re.compile(r"(?:dec\.)?blk\.(\d{1,6})\.")
_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_PROJECTOR: Final = re.compile(r"(^|/)mmproj[^/]*$")
"""Vision and audio towers, in a file beside the model's."""
_MAX_SHARDS: Final = 512
_AT_ONCE: Final = 4
_NAMED: Final = 5


def gguf_facts(files: ModelFiles, *, file: str = "") -> ModelFacts:
    """The facts of the GGUF model that ``file`` names: a name or a pattern, empty where there is but one. Blocking.

    A model in parts is named by any of them. Raises ModelSourceError for files that are missing, broken or not told
    apart, UnsupportedModelError and InvalidInputError as `gguf_architecture` does.
    """
    found = gguf_files(files, file=file)
    names = [each.name for each in found]
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="files") as pool:
        headers = list(pool.map(lambda each: _header(files, each), found))
    if headers[0].metadata.get("split.count", 1) != len(headers):
        raise invalid(files, names[0], f"it says that it has {headers[0].metadata.get('split.count', 1)!r} parts")
    whole = _joined(files, names, headers)
    architecture = gguf_architecture(whole, file=names[0])
    layers = {int(layer[1]) for layer in map(_LAYER.match, whole.tensors) if layer is not None}
    if (there := max(layers, default=-1) + 1) < architecture.layers:
        why = f"it has tensors of {counted(there, 'layer')}, and its header says {architecture.layers}"
        raise invalid(files, names[0], why)
    return ModelFacts(
        source=files.source,
        commit=files.commit,
        architecture=architecture,
        weights=gguf_weights(whole.tensors, architecture=architecture),
        weights_digest=digest_of(found),
        by_dtype=bytes_by_type(whole.tensors),
        files=found,
    )


def gguf_files(files: ModelFiles, *, file: str = "") -> tuple[WeightFile, ...]:
    """The parts of the model that ``file`` names, with size and digest. Raises ModelSourceError."""
    return tuple(_weight_file(files, name) for name in _parts(files, _chosen(files, file)))


def read_gguf(path: Path, *, source: str = "", digest: bool = False) -> ModelFacts:
    """The facts of a GGUF file on this machine, its other parts beside it. ``digest``: read all of it for its digest,
    else that is empty. Raises as `gguf_facts` does."""
    folder = Folder(folder=path.parent, source=source, hashes=digest)
    facts = gguf_facts(folder, file=path.name)
    return facts if digest else replace(facts, weights_digest="")


def _chosen(files: ModelFiles, pattern: str) -> str:
    """The file that is meant, the first part where there are several."""
    every = [name for name in files.listing if name.endswith(_ENDING) and not _PROJECTOR.search(name)]
    if pattern in files.listing:
        return pattern
    matching = [name for name in every if not pattern or fnmatchcase(name, pattern)]
    models = sorted({_stem(name): name for name in sorted(matching, reverse=True)}.values())
    if not models:
        raise missing(files, pattern or f"file *{_ENDING}")
    if len(models) > 1:
        shown = ", ".join(models[:_NAMED])
        raise ModelSourceError(
            f"{files.place} has {len(models)} GGUF files for {pattern or 'the model'}: {shown}. "
            "Name one in spec.model.file.",
            reason="ModelFilesInvalid",
            retriable=False,
        )
    return models[0]


def _stem(name: str) -> str:
    shard = _SHARD.fullmatch(name)
    return shard["stem"] if shard else name


def _parts(files: ModelFiles, name: str) -> list[str]:
    shard = _SHARD.fullmatch(name)
    if shard is None:
        return [name]
    count = int(shard["count"])
    if not 1 <= count <= _MAX_SHARDS:
        raise invalid(files, name, f"its name says that it is one of {count} parts")
    names = [f"{shard['stem']}-{number:05}-of-{count:05}{_ENDING}" for number in range(1, count + 1)]
    for each in names:
        if each not in files.listing:
            raise missing(files, each)
    return names


def _weight_file(files: ModelFiles, name: str) -> WeightFile:
    listed = files.listing[name]
    digest = listed.digest or files.digest(name)
    if listed.bytes is None or digest is None:
        raise invalid(files, name, "its size and digest are not told")
    return WeightFile(name=name, bytes=listed.bytes, sha256=digest)


def _header(files: ModelFiles, file: WeightFile) -> GgufHeader:
    def fetch(start: int, length: int) -> bytes:
        return files.read(file.name, start=start, length=length)

    return read_header(fetch, file=file.name, file_bytes=file.bytes)


def _joined(files: ModelFiles, names: list[str], headers: list[GgufHeader]) -> GgufHeader:
    """The first header, with the tensors of all."""
    tensors: dict[str, GgufTensor] = {}
    for name, header in zip(names, headers, strict=True):
        twice = tensors.keys() & header.tensors.keys()
        if twice:
            raise invalid(files, name, f"tensor {min(twice)!r} is in another part too")
        tensors |= header.tensors
    return replace(headers[0], tensors=MappingProxyType(tensors))
