"""Facts of a model in a folder of this machine: config.json, the headers of its weight files, and their digests.

Nothing in the folder is trusted: what is no plain file is not opened, and of a weight file only the header is read
unless its digest is wanted.
"""

import errno
import hashlib
import json
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Final

from vrampack.errors import ModelSourceError
from vrampack.models.config import architecture_of
from vrampack.models.facts import ModelFacts, WeightFile, digest_of
from vrampack.models.quantization import precision_of
from vrampack.models.safetensors import PREFIX_BYTES, Tensor, header_length, parse_header
from vrampack.models.weights import bytes_by_dtype, matrix_types, stored_dtype, weights_of

CONFIG_FILE: Final = "config.json"
INDEX_FILE: Final = "model.safetensors.index.json"
SINGLE_FILE: Final = "model.safetensors"

_MAX_CONFIG_BYTES: Final = 1024**2
_MAX_INDEX_BYTES: Final = 64 * 1024**2
_MAX_FILES: Final = 2048
_CHUNK: Final = 8 * 1024**2
_AT_ONCE: Final = 4

Hashed = Callable[[int], None]
"""Told of bytes as they are hashed, from several threads."""


def read_folder(folder: Path, *, source: str = "", digest: bool = False, hashed: Hashed | None = None) -> ModelFacts:
    """The facts of the safetensors model in ``folder``. ``source``: where the engine will load it from.

    ``digest``: read all weights for the digest over their contents, which is the hub's own of the same files; without
    it that digest is empty. Raises ModelSourceError for files that are missing or broken, UnsupportedModelError and
    InvalidInputError as `architecture_of` does.
    """
    config = read_config(folder / CONFIG_FILE)
    architecture_of(config)  # refuses what is not known before any weight file is touched
    paths = weight_paths(folder)
    sizes = {name: _file_size(path) for name, path in paths.items()}
    tensors: dict[str, Tensor] = {}
    for name, path in paths.items():
        tensors |= _tensors(path, name=name, size=sizes[name])
    architecture = architecture_of(config, stored_dtype=stored_dtype(tensors))
    precision = precision_of(config, dtype=architecture.dtype, matrix_types=matrix_types(tensors))
    digests = _digests(paths, hashed) if digest else dict.fromkeys(paths, "")
    files = tuple(WeightFile(name=name, bytes=sizes[name], sha256=digests[name]) for name in paths)
    return ModelFacts(
        source=source,
        commit="",
        architecture=architecture,
        weights=weights_of(tensors, architecture=architecture, precision=precision),
        weights_digest=digest_of(files) if digest else "",
        by_dtype=bytes_by_dtype(tensors),
        files=files,
    )


def read_config(path: Path) -> dict[str, Any]:
    """A config.json. Raises ModelSourceError where it is none."""
    return _json(path, most=_MAX_CONFIG_BYTES)


def weight_paths(folder: Path) -> dict[str, Path]:
    """The safetensors files that an engine loads, by name: those of the index, else the single file, else all of them.

    Raises ModelSourceError where there are none, or the index names what is no file of the folder.
    """
    if _is_there(folder / INDEX_FILE):
        names = _index_names(folder / INDEX_FILE)
    elif _is_there(folder / SINGLE_FILE):
        names = [SINGLE_FILE]
    else:
        try:
            found = [path.name for path in folder.glob("*.safetensors")]
        except OSError as error:
            raise _unreadable(folder, error) from error
        # Mistral's own format lies beside the one that engines load by default; a copy of it is loaded only alone.
        names = sorted(name for name in found if not name.startswith("consolidated")) or sorted(found)
    if not names:
        raise _invalid(folder, "it has no *.safetensors: copy the weights there, or name another folder")
    if len(names) > _MAX_FILES:
        raise _invalid(folder, f"it has {len(names)} weight files, more than {_MAX_FILES}")
    return {name: folder / name for name in names}


def _index_names(index: Path) -> list[str]:
    names = _json(index, most=_MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise _invalid(index, "it maps no tensors to files: copy it again")
    found = sorted(set(names.values()))
    for name in found:
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts or "\0" in name:
            raise _invalid(index, f"it names {name[:100]!r}, which is no file of this folder")
    return found


def _tensors(path: Path, *, name: str, size: int) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            length = header_length(file.read(PREFIX_BYTES), file=name)
            header = file.read(length)
    except OSError as error:
        raise _unreadable(path, error) from error
    return parse_header(header, file=name, file_bytes=size)


def _digests(paths: Mapping[str, Path], hashed: Hashed | None) -> dict[str, str]:
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="digest") as pool:
        return dict(zip(paths, pool.map(lambda path: _sha256(path, hashed), paths.values()), strict=True))


def _sha256(path: Path, hashed: Hashed | None) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                if hashed is not None:
                    hashed(len(chunk))
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _json(path: Path, *, most: int) -> dict[str, Any]:
    if _file_size(path) > most:
        raise _invalid(path, f"it is larger than {most} bytes")
    try:
        with path.open("rb") as file:
            content = file.read(most)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, "it is no JSON: copy it again") from error
    if not isinstance(parsed, dict):
        raise _invalid(path, "it is no JSON object")
    return parsed


def _is_there(path: Path) -> bool:
    """Also for a link that leads nowhere: that is a mistake to tell, not a file to do without."""
    return path.is_symlink() or path.exists()


def _file_size(path: Path) -> int:
    """Raises ModelSourceError for what is no plain file: a pipe would be read for ever."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise _invalid(path, "it is no plain file")
    return found.st_size


def _unreadable(path: Path, error: OSError) -> ModelSourceError:
    words = {
        errno.ENOENT: "it is not there" + (", its link leads nowhere" if path.is_symlink() else ""),
        errno.ELOOP: "its link leads in a circle",
        errno.EACCES: "this user may not read it",
        errno.ENOTDIR: "it is not there: a folder on its way is a file",
    }
    why = words.get(error.errno or 0, error.strerror or type(error).__name__)
    missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
    return ModelSourceError(
        f"{path} can't be read: {why}.",
        reason="ModelFilesMissing" if missing else "ModelFilesInvalid",
        retriable=False,
    )


def _invalid(path: Path, why: str) -> ModelSourceError:
    return ModelSourceError(f"{path} can't be used: {why}.", reason="ModelFilesInvalid", retriable=False)
