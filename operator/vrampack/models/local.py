"""Facts of a model in a folder of this machine: config.json, the headers of its weight files, and their digests.

Nothing in the folder is trusted: what is no plain file is not opened, and of a weight file only the header is read
unless its digest is wanted.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from vrampack.errors import ModelSourceError
from vrampack.models.checkpoint import facts_of
from vrampack.models.facts import ModelFacts
from vrampack.models.files import Listed, listed

_MAX_CONFIG_BYTES: Final = 16 * 1024**2
"""Those of mixed quantizations list every module: 2.8 MB for 57,000 of them."""
_CHUNK: Final = 8 * 1024**2

Hashed = Callable[[int], None]
"""Told of bytes as they are hashed."""


def read_folder(folder: Path, *, source: str = "", digest: bool = False, hashed: Hashed | None = None) -> ModelFacts:
    """The facts of the safetensors model in ``folder``. ``source``: where the engine will load it from.

    ``digest``: read all weights for the digest over their contents, which is the hub's own of the same files; without
    it that digest is empty. Raises ModelSourceError for files that are missing or broken, UnsupportedModelError and
    InvalidInputError as `architecture_of` does.
    """
    facts = facts_of(Folder(folder=folder, source=source, hashes=digest, hashed=hashed))
    return facts if digest else replace(facts, weights_digest="")


def read_config(path: Path) -> dict[str, Any]:
    """A config.json by itself. Raises ModelSourceError where it is none."""
    content = read_part(path, length=_MAX_CONFIG_BYTES + 1)
    if len(content) > _MAX_CONFIG_BYTES:
        raise _invalid(path, f"it is larger than {_MAX_CONFIG_BYTES} bytes")
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, "it is no JSON") from error
    if not isinstance(parsed, dict):
        raise _invalid(path, "it is no JSON object")
    return parsed


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The files of a folder, as `ModelFiles` has them. What lies deeper is not looked at."""

    folder: Path
    source: str
    hashes: bool
    hashed: Hashed | None = None
    commit: str = ""

    @property
    def place(self) -> str:
        return str(self.folder)

    @cached_property
    def listing(self) -> Mapping[str, Listed]:
        """Links that lead nowhere too: whoever reads one is told so. Raises ModelSourceError."""
        try:
            return listed(self.folder, size=_size)
        except OSError as error:
            raise _unreadable(self.folder, error) from error

    def read(self, name: str, *, start: int = 0, length: int) -> bytes:
        return read_part(self.folder / name, start=start, length=length)

    def digest(self, name: str) -> str:
        """Over the content; empty where it is not wanted."""
        if not self.hashes:
            return ""
        path = self.folder / name
        _check_plain(path)
        digest = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    if self.hashed is not None:
                        self.hashed(len(chunk))
        except OSError as error:
            raise _unreadable(path, error) from error
        return digest.hexdigest()


def read_part(path: Path, *, start: int = 0, length: int) -> bytes:
    """At most ``length`` bytes of a plain file, from ``start`` on. Raises ModelSourceError."""
    _check_plain(path)
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_plain(path: Path) -> None:
    """Raises ModelSourceError for anything but a plain file: a pipe would be read for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        raise _invalid(path, "it is no plain file")


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0


def _unreadable(path: Path, error: OSError) -> ModelSourceError:
    words = {
        errno.ENOENT: "it is not there" + (", its link leads nowhere" if path.is_symlink() else ""),
        errno.ELOOP: "its link leads in a circle",
        errno.EACCES: "this user may not read it",
        errno.ENOTDIR: "it is no folder",
    }
    why = words.get(error.errno or 0, error.strerror or type(error).__name__)
    missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
    return ModelSourceError(
        f"{path} can't be read: {why}.", reason="ModelFilesMissing" if missing else "ModelFilesInvalid", retriable=False
    )


def _invalid(path: Path, why: str) -> ModelSourceError:
    return ModelSourceError(f"{path} can't be used: {why}.", reason="ModelFilesInvalid", retriable=False)
