"""The files of one model at one commit, wherever they are: on the hub, in its cache on this machine, in a folder."""

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from vrampack.errors import ModelSourceError

_NAMED: Final = 3
_MAX_FILES: Final = 10_000
_WEIGHT_ENDINGS: Final = (".bin", ".gguf", ".pth", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A file without its content. None: the place that lists it does not say."""

    bytes: int | None
    digest: str | None
    """Of its content: sha256, or the blob's where it lies in git itself. None too where it has yet to be computed."""


class ModelFiles(Protocol):
    """What is read of a model. Every answer is of the same commit."""

    @property
    def source(self) -> str: ...
    @property
    def commit(self) -> str:
        """Empty where there are no commits."""

    @property
    def place(self) -> str:
        """Where the files are, as a person would look for them."""

    @property
    def listing(self) -> Mapping[str, Listed]:
        """All files by name."""

    def read(self, name: str, *, start: int = 0, length: int) -> bytes:
        """At most ``length`` bytes from ``start`` on. Raises ModelSourceError."""

    def digest(self, name: str) -> str | None:
        """Of a file whose listing has none. Raises ModelSourceError."""


def read_json(files: ModelFiles, name: str, *, most: int) -> dict[str, Any]:
    """A file that holds one JSON object of at most ``most`` bytes. Raises ModelSourceError."""
    content = files.read(name, length=most + 1)
    if len(content) > most:
        raise invalid(files, name, f"it is larger than {most} bytes")
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise invalid(files, name, "it is no JSON") from error
    if not isinstance(parsed, dict):
        raise invalid(files, name, "it is no JSON object")
    return parsed


def missing(files: ModelFiles, name: str) -> ModelSourceError:
    """The error for a file that is not there."""
    others = [other for other in files.listing if other.endswith(_WEIGHT_ENDINGS)]
    found = f"; it has {', '.join(sorted(others)[:_NAMED])}" if others else ""
    return ModelSourceError(
        f"{files.place} has no {name}{found}: use a repository with safetensors weights.",
        reason="ModelFilesMissing",
        retriable=False,
    )


def listed(
    folder: Path,
    *,
    size: Callable[[os.DirEntry[str]], int | None],
    digest: Callable[[str], str | None] = lambda _: None,
) -> dict[str, Listed]:
    """What lies in a folder of this machine, and not deeper. ``size``: None leaves an entry out.

    Raises OSError where the folder can't be read, or holds more than anybody's model does.
    """
    found: dict[str, Listed] = {}
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= _MAX_FILES:
                raise OSError(errno.E2BIG, f"it holds more than {_MAX_FILES} files")
            if (length := size(entry)) is not None:
                found[entry.name] = Listed(bytes=length, digest=digest(entry.name))
    return found


def invalid(files: ModelFiles, name: str, why: str) -> ModelSourceError:
    """The error for a file that can't be used."""
    return ModelSourceError(
        f"{name} of {files.place} can't be used: {why}. Use another revision or source.",
        reason="ModelFilesInvalid",
        retriable=False,
    )
