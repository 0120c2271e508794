"""Builds the control plane's binaries from the pinned Go modules that this package brings."""

import hashlib
import importlib.resources
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from vrampack.errors import LocalClusterError
from vrampack.localcluster import toolchain
from vrampack.localcluster.process import Guard
from vrampack.localcluster.progress import INTRODUCTION, BuildProgress
from vrampack.localcluster.toolchain import Toolchain

MODULES = ("controlplane", "helm")
_GOFLAGS = "-mod=readonly -trimpath -buildvcs=false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """A command of one of the modules."""

    name: str
    module: str
    package: str


# The longest first: the others share most of what it compiles.
BINARIES = (
    Binary(name="kube-apiserver", module="controlplane", package="k8s.io/kubernetes/cmd/kube-apiserver"),
    Binary(
        name="kube-controller-manager", module="controlplane", package="k8s.io/kubernetes/cmd/kube-controller-manager"
    ),
    Binary(name="kube-scheduler", module="controlplane", package="k8s.io/kubernetes/cmd/kube-scheduler"),
    Binary(name="kwok", module="controlplane", package="sigs.k8s.io/kwok/cmd/kwok"),
    Binary(name="etcd", module="controlplane", package="go.etcd.io/etcd/server/v3"),
    Binary(name="helm", module="helm", package="helm.sh/helm/v4/cmd/helm"),
)


def pinned(module: str, dependency: str) -> str:
    """The version of a dependency in the go.mod of one of the modules."""
    found = re.search(rf"^\s*(?:require )?{re.escape(dependency)} (v\S+)$", _source(module, "go.mod"), re.MULTILINE)
    assert found is not None, f"{module}/go.mod does not require {dependency}"
    return found.group(1)


def key() -> str:
    """Names what would be built here: the same sources for the same platform give the same key."""
    digest = hashlib.sha256()
    for part in (
        *(_source(module, file) for module in MODULES for file in ("go.mod", "go.sum")),
        *(f"{binary.name} {binary.package} {_ldflags(binary)}" for binary in BINARIES),
        _GOFLAGS,
        sys.platform,
        platform.machine(),
    ):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:12]


def build(names: Sequence[str], *, folder: Path, progress: BuildProgress) -> None:
    """Builds the binaries that ``folder`` does not hold yet.

    One process at a time builds in a folder; a second one waits for the first. A binary appears in the folder when it
    is finished, so that a build which is killed loses one binary at most.

    Raises LocalClusterError with the last lines of the compiler.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.with_suffix(".lock"))
    with progress:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            progress.note(f"Another process builds the local control plane in {folder}: waiting for it.")
            lock.acquire(poll_interval=0.2)
        try:
            _build_missing(names, folder=folder, progress=progress)
        finally:
            lock.release()


def _build_missing(names: Sequence[str], *, folder: Path, progress: BuildProgress) -> None:
    missing = [binary for binary in BINARIES if binary.name in names and not (folder / binary.name).exists()]
    if not missing:
        return
    progress.note(INTRODUCTION)
    work = folder / "work"
    sources = _copy_sources(work)
    needed = max(toolchain.needed_by(_source(module, "go.mod")) for module in MODULES)
    go = toolchain.find(needed=needed, caches=work)
    for number, binary in enumerate(missing, start=1):
        progress.begin(binary.name, number=number, of=len(missing))
        unfinished = work / binary.name
        unfinished.unlink(missing_ok=True)  # of a build that was killed
        _go_build(binary, go=go, source=sources / binary.module, output=unfinished, progress=progress)
        unfinished.rename(folder / binary.name)
        progress.end()
    shutil.rmtree(work)  # with the caches of a wheel's toolchain: gigabytes that nothing else would use


def _copy_sources(work: Path) -> Path:
    """A copy of the modules outside of site-packages, where Go may write beside them."""
    target = work / "modules-to-build"
    for module in MODULES:
        (target / module).mkdir(parents=True, exist_ok=True)
        for file in ("go.mod", "go.sum", "tools.go"):
            (target / module / file).write_text(_source(module, file), encoding="utf-8")
    return target


def _go_build(binary: Binary, *, go: Toolchain, source: Path, output: Path, progress: BuildProgress) -> None:
    command = [str(go.go), "build", "-v", "-ldflags", _ldflags(binary), "-o", str(output), binary.package]
    lines: deque[str] = deque(maxlen=25)
    with Guard() as guard:  # a build whose owner is killed must not go on
        popen = subprocess.Popen(
            command,
            cwd=source,
            env=_environment(go),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=guard.group,
        )
        reader = threading.Thread(target=_read, args=(popen, lines), daemon=True)
        reader.start()
        while True:
            try:
                popen.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                progress.tick(lines[-1] if lines else "")
        reader.join()
    if popen.returncode != 0:
        raise LocalClusterError(
            f"{binary.name} can't be built with {go.go} (exit status {popen.returncode}):\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nIt needs the network (or a GOPROXY that reaches the Go modules) and 4 GiB of disk. What is finished "
            "is kept, so try again; or set VRAMPACK_ASSETS to a folder of prebuilt binaries."
        )


def _read(popen: subprocess.Popen[str], lines: deque[str]) -> None:
    assert popen.stderr is not None
    with popen.stderr:
        for line in popen.stderr:
            lines.append(line.rstrip())


def _environment(go: Toolchain) -> Mapping[str, str]:
    """Of the user's environment all but what would change the result: proxies and credentials must go through."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH", "GOROOT")}
    flags = _GOFLAGS
    if "GOMODCACHE" in go.environment:
        flags += " -modcacherw"  # else a module cache of our own could not be removed
    own = {"CGO_ENABLED": "0", "GOFLAGS": flags, "GOTOOLCHAIN": "local", "GOWORK": "off"}
    return {**inherited, **own, **go.environment}


def _ldflags(binary: Binary) -> str:
    kubernetes = pinned("controlplane", "k8s.io/kubernetes")
    major, minor = kubernetes.removeprefix("v").split(".")[:2]
    versions = {
        "k8s.io/component-base/version.gitVersion": kubernetes,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
    }
    if binary.module == "helm":
        versions = {"helm.sh/helm/v4/internal/version.version": pinned("helm", "helm.sh/helm/v4")}
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in versions.items())])


def _source(module: str, file: str) -> str:
    return (importlib.resources.files("vrampack.localcluster") / "gomodules" / module / file).read_text("utf-8")
