"""Fixtures of the unit tests: the stand-in driver in the test process, where the real nvidia-ml-py finds it."""

import ctypes
from pathlib import Path

import pytest

from vrampack.localcluster.standin.driver import StandinDriver, build, compiler


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled, and loaded under the name that nvidia-ml-py asks for."""
    if compiler() is None:
        pytest.skip("the stand-in driver needs a C compiler")
    path = build(tmp_path_factory.mktemp("standin"))
    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return path


@pytest.fixture
def standin(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandinDriver:
    """A driver that is not loaded yet: show something, and it is."""
    driver = StandinDriver(library=library, state=tmp_path / "driver")
    monkeypatch.setenv("STANDIN_NVML", driver.environment["STANDIN_NVML"])
    return driver
