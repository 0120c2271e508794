"""The files of a repository as the hub stores them: small ones in full, weights as a header and a size."""

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from vrampack.localcluster.hubcatalogue import CatalogueModel
from vrampack.localcluster.hubshapes import TensorShape

MAX_SHARD_BYTES: Final = 5 * 10**9
"""As ``save_pretrained`` splits."""

_DTYPE_BYTES: Final[dict[str, int]] = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "F8_E4M3": 1, "I8": 1, "U8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file: ``head`` is its beginning, the rest up to ``size`` is zeros that are never stored."""

    name: str
    size: int
    head: bytes
    large: bool
    """Whether the hub keeps it in its large file storage, with a digest, and answers from another address."""

    def digest(self, commit: str) -> str:
        """Of the content at a commit. Weights have none to compute: every commit is taken to change them."""
        version = commit if self.size > len(self.head) else ""
        return hashlib.sha256(f"{self.name} {self.size} {version}".encode() + self.head).hexdigest()


def files_of(model: CatalogueModel) -> dict[str, StoredFile]:
    """All files by name."""
    shards = list(_shards(model.tensors))
    files = [
        _small(".gitattributes", b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"),
        _small("README.md", f"# {model.repository}\n".encode()),
        _small("config.json", json.dumps(model.config, indent=2).encode()),
        _small("tokenizer_config.json", b"{}"),
        *(StoredFile(name=name, size=size, head=b"", large=True) for name, size in model.copies.items()),
    ]
    if len(shards) == 1:
        files.append(_weights("model.safetensors", shards[0]))
        return {file.name: file for file in files}
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        files.append(_weights(name, shard))
        weight_map |= dict.fromkeys(shard, name)
    total = sum(_tensor_bytes(tensor) for tensor in model.tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    files.append(_small("model.safetensors.index.json", json.dumps(index, indent=2).encode()))
    return {file.name: file for file in files}


def _small(name: str, content: bytes) -> StoredFile:
    return StoredFile(name=name, size=len(content), head=content, large=False)


def _weights(name: str, tensors: Mapping[str, TensorShape]) -> StoredFile:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor, (dtype, shape) in tensors.items():
        begin, end = end, end + _tensor_bytes((dtype, shape))
        header[tensor] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the format aligns the tensors
    head = struct.pack("<Q", len(encoded)) + encoded
    return StoredFile(name=name, size=len(head) + end, head=head, large=True)


def _shards(tensors: Mapping[str, TensorShape]) -> Iterator[dict[str, TensorShape]]:
    shard: dict[str, TensorShape] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + _tensor_bytes(tensor) > MAX_SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += _tensor_bytes(tensor)
    yield shard


def _tensor_bytes(tensor: TensorShape) -> int:
    dtype, shape = tensor
    return math.prod(shape) * _DTYPE_BYTES[dtype]
