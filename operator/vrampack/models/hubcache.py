"""The hub's cache on this machine: what ``hf download`` left there, for clusters without a way out."""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from vrampack.errors import ModelSourceError
from vrampack.models.files import Listed, invalid, listed

_TRUE: Final = frozenset({"1", "ON", "YES", "TRUE"})
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DIGEST: Final = _COMMIT
"""A blob is named by the digest that the hub tells for it."""
_DEFAULT_BRANCH: Final = "main"
_MAX_REF_BYTES: Final = 256


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids to ask the hub: as it is now, not as it was at import."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def cache_folder() -> Path:
    """Where the hub's own tools keep their files: ``HF_HUB_CACHE``, else ``HF_HOME``/hub, else the user's cache."""
    if folder := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" if not home else Path(home)
    return base.expanduser() / "hub"


def cached_files(*, source: str, repository: str, revision: str | None) -> "CachedFiles":
    """A repository's files at a branch, tag or commit, as they were downloaded. Raises ModelSourceError."""
    folder = cache_folder() / f"models--{repository.replace('/', '--')}"
    wanted = revision or _DEFAULT_BRANCH
    commit = wanted if _COMMIT.fullmatch(wanted) else _commit_of(folder, wanted)
    snapshot = folder / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        raise ModelSourceError(
            f"HF_HUB_OFFLINE is set, and {cache_folder()} has no {repository} at {wanted}: run `hf download "
            f"{repository} --revision {wanted}` where the hub can be reached, unset HF_HUB_OFFLINE, or write a "
            "ModelProfile by hand.",
            reason="ModelNotCached",
            retriable=False,
        )
    return CachedFiles(folder=snapshot, source=source, commit=commit)


@dataclass(frozen=True, kw_only=True)
class CachedFiles:
    """A snapshot: a folder of links to blobs, whose names are the digests that the hub tells. So the digest over the
    weight files is the same as when the hub was asked."""

    folder: Path
    source: str
    commit: str

    @property
    def place(self) -> str:
        return str(self.folder)

    @cached_property
    def listing(self) -> Mapping[str, Listed]:
        """The regular files, and links to such. Raises ModelSourceError where the folder can't be read."""
        try:
            return listed(self.folder, size=_size, digest=self._blob)
        except OSError as error:
            raise invalid(self, "the folder", error.strerror or type(error).__name__) from error

    def read(self, name: str, *, start: int = 0, length: int) -> bytes:
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise invalid(self, name, error.strerror or type(error).__name__) from error

    def digest(self, name: str) -> str | None:
        """Over the content, where the cache holds a copy instead of a link: as long as the disk takes to read it."""
        try:
            with (self.folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise invalid(self, name, error.strerror or type(error).__name__) from error

    def _blob(self, name: str) -> str | None:
        try:
            blob = (self.folder / name).readlink().name
        except OSError:  # where links are not to be had, the cache holds copies
            return None
        return blob if _DIGEST.fullmatch(blob) else None


def _commit_of(folder: Path, name: str) -> str:
    """Where a branch or tag was when it was downloaded; empty: it never was."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        return ""
    try:
        with (folder / "refs" / name).open("rb") as file:
            commit = file.read(_MAX_REF_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""
    return commit if _COMMIT.fullmatch(commit) else ""


def _size(entry: os.DirEntry[str]) -> int | None:
    """None for what is no regular file: a folder, a pipe, a device, a link that leads nowhere or in a circle."""
    try:
        status = entry.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
