"""Limits that the driver keeps for pods: the real nvidia-ml-py against the stand-in driver."""

from pathlib import Path

import pynvml
import pytest

from vrampack.agent.driver import Driver
from vrampack.agent.memorylimits import MemoryLimits, control_group
from vrampack.agent.nvml import NVML, Failure
from vrampack.localcluster.standin import state
from vrampack.localcluster.standin.driver import StandinDriver
from vrampack.localcluster.standin.state import GPU
from vrampack.units import GIB

UID = "3f0c2b1a-9d8e-4c7b-a6f5-0123456789ab"
OTHER = "11111111-9d8e-4c7b-a6f5-0123456789ab"
CODES = sorted({code for name, code in vars(pynvml).items() if name.startswith("NVML_ERROR_")})
NO_LIMIT = pynvml.NVML_DEVICE_MEMORY_LIMIT_MAX
KUBELETS = {
    "systemd": "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice",
    "systemd, guaranteed": "kubepods.slice/kubepods-pod{under}.slice",
    "cgroupfs": "kubepods/besteffort/pod{uid}",
    "cgroupfs, guaranteed": "kubepods/pod{uid}",
    "in a container": "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
    "kubelet-kubepods-burstable-pod{under}.slice",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The host's control groups, of version 2."""
    found = tmp_path / "cgroup"
    found.mkdir()
    (found / "cgroup.controllers").write_text("cpu memory dmem\n")
    return found


def pod_group(folder: Path, kubelet: str = "systemd", uid: str = UID) -> Path:
    found = folder / KUBELETS[kubelet].format(uid=uid, under=uid.replace("-", "_"))
    (found / "cri-containerd-abc.scope").mkdir(parents=True)
    return found


def shown(*, limits: bool = True, errors: dict[str, int] | None = None) -> state.Driver:
    gpus = [GPU(product="H100-80", uuid=f"GPU-{index}") for index in range(2)]
    return state.Driver(version="615.71", gpus=gpus, limits=limits, errors=errors or {})


@pytest.mark.parametrize("kubelet", KUBELETS)
def test_a_pods_control_group_is_found_as_any_kubelet_names_it(folder: Path, kubelet: str) -> None:
    pod_group(folder, kubelet, uid=OTHER)
    assert control_group(folder, UID) is None
    mine = pod_group(folder, kubelet)
    assert control_group(folder, UID) == mine


def test_control_groups_of_version_1_are_none(tmp_path: Path) -> None:
    pod_group(tmp_path, "cgroupfs")
    assert control_group(tmp_path, UID) is None


def test_limits_are_set_once_and_again_where_somebody_took_them_back(standin: StandinDriver, folder: Path) -> None:
    group = str(pod_group(folder))
    standin.show(shown())
    nvml, limits = NVML(), MemoryLimits(folder=folder)
    driver = Driver(nvml, patience=1, limits=limits)
    try:
        assert driver.see(now=0.0, release=False).unlimited == {}
        handles = [nvml.handle(index) for index in range(2)]
        assert [nvml.memory_limit(handle, group) for handle in handles] == [NO_LIMIT, NO_LIMIT]
        limits.wanted = {(UID, "GPU-0"): 20 * GIB, (UID, "GPU-9"): GIB}
        assert driver.see(now=1.0, release=False).unlimited == {}
        assert [nvml.memory_limit(handle, group) for handle in handles] == [20 * GIB, NO_LIMIT]
        assert nvml.limit_memory(handles[0], group, most=30 * GIB) is None
        driver.see(now=2.0, release=False)
        assert nvml.memory_limit(handles[0], group) == 30 * GIB, "not asked in each pass"
        driver.see(now=20.0, release=False)
        assert nvml.memory_limit(handles[0], group) == 20 * GIB
    finally:
        driver.close()


def test_what_can_not_be_set_is_said_and_tried_again(standin: StandinDriver, folder: Path) -> None:
    limits = MemoryLimits(folder=folder, wanted={(UID, "GPU-1"): 20 * GIB})
    driver = Driver(NVML(), patience=1, limits=limits)
    standin.show(shown())
    try:
        found = driver.see(now=0.0, release=False).unlimited
        assert found is not None
        assert "no control group" in found[UID, "GPU-1"]
        pod_group(folder)
        assert driver.see(now=1.0, release=False).unlimited == found
        assert driver.see(now=11.0, release=False).unlimited == {}
    finally:
        driver.close()


@pytest.mark.parametrize("call", ["nvmlDeviceGetMemoryLimits_v1", "nvmlDeviceSetMemoryLimits_v1"])
def test_no_error_is_a_crash_or_a_limit(standin: StandinDriver, folder: Path, call: str) -> None:
    """An old driver lacks the calls (13), a kernel or product may (3), and who is not root may not (4)."""
    pod_group(folder)
    for code in CODES:
        standin.show(shown(errors={call: code}))
        limits = MemoryLimits(folder=folder, wanted={(UID, "GPU-0"): 20 * GIB + code})
        driver = Driver(NVML(), patience=1, limits=limits)
        sight = driver.see(now=0.0, release=False)
        driver.close()
        assert sight.silence is None
        assert sight.unlimited is not None
        assert f"(NVML error {code})" in sight.unlimited[UID, "GPU-0"]


def test_a_driver_without_limits_says_so(standin: StandinDriver, folder: Path) -> None:
    standin.show(shown(limits=False))
    nvml = NVML()
    assert nvml.open() is None
    handle = nvml.handle(0)
    found, failure = nvml.memory_limit(handle, str(folder)), nvml.limit_memory(handle, str(folder), most=GIB)
    nvml.close()
    assert isinstance(found, Failure)
    assert isinstance(failure, Failure)
    assert found.code == failure.code == pynvml.NVML_ERROR_NOT_SUPPORTED
