"""What was read of commits before, on this machine: a commit never changes, so neither does a part of one of its files.

For people at a command line, who ask again and again; the operator has ModelProfiles. It holds configurations and the
headers of weight files, never weights, and forgets what was not used for the longest time.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vrampack.units import MIB

_MOST_BYTES: Final = 256 * MIB
_PART: Final = 0.75
"""Of what it may hold, what is left when it is cleaned, so that it is not cleaned at every write."""


@dataclass(frozen=True, kw_only=True)
class ReadCache:
    """Contents by key, as files of a folder that only this user reads. One that can't be written holds nothing."""

    folder: Path
    most_bytes: int = _MOST_BYTES

    def get(self, *key: str | int) -> bytes | None:
        """None: it is not there."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def put(self, content: bytes, *key: str | int) -> None:
        """Whole or not at all, whoever writes beside us."""
        if len(content) > self.most_bytes:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(len(content))
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                Path(name).replace(self._path(key))
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise

    def _make_room(self, size: int) -> None:
        with os.scandir(self.folder) as entries:
            held = [(status.st_mtime, status.st_size, entry.path) for entry in entries for status in (entry.stat(),)]
        total = sum(each for _, each, _ in held)
        if total + size <= self.most_bytes:
            return
        for _, each, path in sorted(held):
            if total + size <= _PART * self.most_bytes:
                break
            Path(path).unlink(missing_ok=True)
            total -= each

    def _path(self, key: tuple[str | int, ...]) -> Path:
        return self.folder / hashlib.sha256(json.dumps(key).encode()).hexdigest()


def default_cache() -> ReadCache | None:
    """In ``$VRAMPACK_HUB_CACHE``, else ``$XDG_CACHE_HOME/vrampack/hub``, else below ``~/.cache``. None: the first is
    set and empty, so nothing is to be kept."""
    if (named := os.environ.get("VRAMPACK_HUB_CACHE")) is not None:
        return ReadCache(folder=Path(named).expanduser()) if named else None
    return ReadCache(folder=Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vrampack" / "hub")
