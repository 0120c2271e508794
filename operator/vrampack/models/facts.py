"""The facts of one model at one commit."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vrampack.memory.architecture import Architecture, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """A file that the engine loads."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """All that a ModelProfile says of a model before anything was measured."""

    source: str
    commit: str
    architecture: Architecture
    weights: Weights
    weights_digest: str
    by_dtype: Mapping[str, int]
    """Bytes of the files' tensors by their type, loaded or not."""
    files: tuple[WeightFile, ...]

    @property
    def max_context(self) -> int | None:
        """Longest sequence that the checkpoint allows, tokens; None: it does not say."""
        return self.architecture.max_context


def digest_of(files: Iterable[WeightFile]) -> str:
    """One digest over the weight files: changes when a file is changed, added, renamed or removed."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        digest.update(f"{file.name} {file.sha256}\n".encode())
    return f"sha256:{digest.hexdigest()}"
