"""Fixtures of the whole test suite: the local cluster, built once and started once."""

from collections.abc import AsyncIterator
from pathlib import Path

import hypothesis
import pytest

from vrampack.localcluster.assets import Assets, ensure_assets
from vrampack.localcluster.cluster import LocalCluster
from vrampack.localcluster.progress import PlainProgress

hypothesis.settings.register_profile("vrampack", deadline=None)  # a slow moment of the machine is no failure
hypothesis.settings.load_profile("vrampack")

ASSETS = pytest.StashKey[Assets | Exception]()


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "assets" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds the control plane before the first test: it takes longer than any test may."""
    if session.config.option.collectonly or not any(item.get_closest_marker("cluster") for item in session.items):
        return
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    capture = session.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            session.config.stash[ASSETS] = ensure_assets(progress=PlainProgress(terminal.write_line))
        except Exception as error:
            session.config.stash[ASSETS] = error


@pytest.fixture(scope="session")
def assets(request: pytest.FixtureRequest) -> Assets:
    """The binaries of the local control plane."""
    assets = request.config.stash[ASSETS]
    if isinstance(assets, Exception):
        raise assets
    return assets


@pytest.fixture(scope="session")
async def cluster(assets: Assets) -> AsyncIterator[LocalCluster]:
    """One cluster without nodes, for the whole session. A lost node is noticed after 12 s."""
    async with LocalCluster(assets, node_grace_seconds=12) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def no_cache_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of models before must not answer in place of a test's own hub."""
    monkeypatch.setenv("VRAMPACK_HUB_CACHE", "")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data(repo_root: Path) -> Path:
    """Published models, measurements and packing instances: too large for the repository, so a folder beside it."""
    path = repo_root.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"{path} is absent")
    return path
