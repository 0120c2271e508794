"""The border to NVML: the real nvidia-ml-py against the stand-in driver, product by product and error by error."""

import pynvml
import pytest

from vrampack.agent.devices import ComputeMode, Device, Memory
from vrampack.agent.driver import Driver, Sight
from vrampack.agent.inventory import Inventory
from vrampack.agent.nvml import NVML, Failure, Trouble, Xid, XidWatch
from vrampack.errors import InvalidInputError, StaleLibraryError
from vrampack.localcluster.standin import state
from vrampack.localcluster.standin.driver import StandinDriver
from vrampack.localcluster.standin.state import GPU, Event, MigSlice, Process, parse_driver
from vrampack.memory.gpus import GPUS
from vrampack.units import GIB

CALLS = (
    "nvmlInitWithFlags",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetNumaNodeId",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetRepairStatus",
    "nvmlDeviceGetP2PStatus",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetGpuInstanceProfileInfoV",
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
    "nvmlEventSetCreate",
    "nvmlDeviceRegisterEvents",
    "nvmlEventSetWait_v2",
)
CODES = sorted(code for name, code in vars(pynvml).items() if name.startswith("NVML_ERROR_"))
NO_DRIVER = (pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
MIG = MigSlice(uuid="MIG-0", profile="3g.40gb", instance=1, memory=39 * GIB)


def two_h100(*, version: str = "580.126.09", errors: dict[str, int] | None = None) -> state.Driver:
    """Two GPUs; on the first a process of 20 GiB and one whose size the driver does not know."""
    processes = [Process(pid=42, bytes=20 * GIB), Process(pid=43, bytes=None)]
    first = GPU(product="H100-80", uuid="GPU-0", processes=processes, nvlink=[1], numa=0)
    second = GPU(product="H100-80", uuid="GPU-1", nvlink=[0], numa=1)
    return state.Driver(version=version, gpus=[first, second], errors=errors or {})


def see(driver: Driver, now: float = 0.0, *, release: bool = False) -> Sight:
    return driver.see(now=now, release=release)


def devices(standin: StandinDriver, shown: state.Driver) -> tuple[Device, ...]:
    standin.show(shown)
    driver = Driver(NVML(), patience=1)
    try:
        sight = see(driver)
        assert sight.silence is None
        return sight.devices
    finally:
        driver.close()


@pytest.mark.parametrize("product", ["T4", "RTX-4090", "A100-80", "H100-80", "H200", "B200"])
@pytest.mark.parametrize("count", [1, 8, 16])
def test_the_inventory_of_a_product(standin: StandinDriver, product: str, count: int) -> None:
    shown = state.Driver(gpus=[GPU(product=product, uuid=f"GPU-{index}", idle=GIB) for index in range(count)])
    found = devices(standin, shown)
    assert [each.identity.uuid for each in found] == [f"GPU-{index}" for index in range(count)]
    first = found[0]
    assert first.identity.product == GPUS[product].label
    assert first.memory == Memory(total=GPUS[product].total, reserved=GPUS[product].reserved, used=GIB)
    assert first.memory.usable == GPUS[product].usable
    assert first.traits.compute_mode is ComputeMode.DEFAULT
    assert (first.traits.ecc is None) == (product == "RTX-4090")
    assert (first.traits.mig is None) == (product in ("T4", "RTX-4090"))
    assert (first.traits.retiring is None) == (product != "T4")
    assert (first.traits.rows is None) == (product == "T4")


def test_a_node_with_a_driver_and_no_gpu(standin: StandinDriver) -> None:
    assert devices(standin, state.Driver()) == ()


def test_topology(standin: StandinDriver) -> None:
    first, second = devices(standin, two_h100())
    assert (first.identity.nvlink, second.identity.nvlink) == (("GPU-1",), ("GPU-0",))
    assert (first.identity.numa, second.identity.numa) == (0, 1)
    assert first.identity.bus == "00000000:10:00.0"


def test_processes_of_all_kinds_count_once(standin: StandinDriver) -> None:
    shown = two_h100()
    shown.gpus[0].mps = [Process(pid=43, bytes=GIB), Process(pid=44, bytes=2 * GIB)]
    first, second = devices(standin, shown)
    assert [(each.pid, each.bytes) for each in first.processes] == [(42, 20 * GIB), (43, None), (44, 2 * GIB)]
    assert second.processes == ()


def test_mig_devices_and_where_others_could_be(standin: StandinDriver) -> None:
    shown = state.Driver(
        gpus=[GPU(product="A100-80", uuid="GPU-0", mig=[MIG], processes=[Process(pid=7, bytes=GIB, instance=1)])]
    )
    (device,) = devices(standin, shown)
    mig = device.traits.mig
    assert mig is not None
    assert [(each.uuid, each.profile, each.instance) for each in mig.devices] == [("MIG-0", "3g.40gb", 1)]
    placements = {each.name: each.placements for each in mig.profiles}
    assert placements["3g.40gb"] == ((0, 4), (4, 4))
    assert placements["4g.40gb"] == ((0, 4),)
    assert placements["1g.10gb"] == tuple((start, 1) for start in range(7))
    assert device.processes[0].instance == 1


OLD = {
    "before 510": ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3"),
    "before 450": (
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetComputeRunningProcesses_v2",
        "nvmlDeviceGetGpuInstanceProfileInfoV",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetRemappedRows",
        "nvmlSystemGetCudaDriverVersion_v2",
        "nvmlDeviceGetNumaNodeId",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    ),
}


@pytest.mark.parametrize("missing", OLD.values(), ids=OLD.keys())
def test_old_drivers_are_asked_by_older_calls(standin: StandinDriver, missing: tuple[str, ...]) -> None:
    shown = two_h100(errors=dict.fromkeys(missing, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND))
    first, _ = devices(standin, shown)
    product = GPUS["H100-80"]
    # What the driver keeps counts as used there, so that what is free is the same.
    assert first.memory == Memory(total=product.total, reserved=0, used=20 * GIB + product.reserved)
    assert [(each.pid, each.bytes) for each in first.processes] == [(42, 20 * GIB), (43, None)]


def test_profiles_without_names_are_named_by_their_size(standin: StandinDriver) -> None:
    shown = state.Driver(
        gpus=[GPU(product="A100-80", uuid="GPU-0", mig=[])],
        errors={"nvmlDeviceGetGpuInstanceProfileInfoV": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND},
    )
    (device,) = devices(standin, shown)
    assert device.traits.mig is not None
    assert "3g.38gb" in {each.name for each in device.traits.mig.profiles}


@pytest.mark.parametrize("call", CALLS)
def test_no_error_of_any_call_is_a_crash(standin: StandinDriver, call: str) -> None:
    """Whatever a call says on a node that was well: what stays is a reading, or a silence with its reason."""
    well = two_h100()
    well.gpus[1] = GPU(product="A100-80", uuid="GPU-1", mig=[MIG])
    for code in CODES:
        standin.show(well)
        driver = Driver(NVML(), patience=1)
        assert see(driver).silence is None
        standin.show(state.Driver(gpus=well.gpus, errors={call: code}))
        for now in (1.0, 11.0, 22.0):
            try:
                sight = see(driver, now)
            except StaleLibraryError:
                assert code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
                break
            if sight.silence is not None:
                assert sight.silence.reason == "NoDriver"
                assert f"(NVML error {code})" in sight.silence.message
                assert code in NO_DRIVER or call == "nvmlDeviceGetCount_v2"
            assert [each.identity.uuid for each in sight.devices] == ["GPU-0", "GPU-1"], (code, now)
        standin.show(well)
        driver.close()
        after = see(driver, 60.0)
        assert after.silence is None
        assert not any(each.lost for each in after.devices)
        driver.close()


@pytest.mark.parametrize("call", CALLS[4:12])
def test_no_error_of_one_gpu_touches_another(standin: StandinDriver, call: str) -> None:
    for code in CODES:
        if code in (*NO_DRIVER, pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH):
            continue  # those are of the driver, not of a GPU
        shown = two_h100()
        standin.show(shown)
        driver = Driver(NVML(), patience=1)
        see(driver)
        shown.gpus[0].errors = {call: code}
        standin.show(shown)
        sights = [see(driver, now) for now in (11.0, 12.0, 13.0)]
        assert sights[-1].devices[1].lost == "", code
        assert sights[-1].silence is None
        driver.close()


class TestDriver:
    @pytest.fixture
    def driver(self) -> Driver:
        return Driver(NVML(), patience=1)

    def test_a_node_without_one_says_so_and_tries_again(self, standin: StandinDriver, driver: Driver) -> None:
        silent = see(driver).silence
        assert silent is not None
        assert silent.reason == "NoDriver"
        standin.show(two_h100())
        assert see(driver, 4.9).silence is not None
        assert see(driver, 5.1).silence is None
        driver.close()

    def test_one_that_restarts_is_a_silence_with_the_last_that_was_seen(
        self, standin: StandinDriver, driver: Driver
    ) -> None:
        standin.show(two_h100())
        assert see(driver).fresh
        standin.unload()
        silent = see(driver, 1.0)
        assert silent.silence is not None
        assert len(silent.devices) == 2
        standin.show(two_h100(version="590.10"))
        back = see(driver, 7.0)
        assert (back.silence, back.fresh, back.versions.driver) == (None, True, "590.10")
        driver.close()

    def test_it_lets_go_when_it_is_told_to(self, standin: StandinDriver, driver: Driver) -> None:
        standin.show(two_h100())
        see(driver)
        released = see(driver, 1.0, release=True)
        assert released.silence is not None
        assert released.silence.reason == "DriverReleased"
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()
        assert see(driver, 2.0).fresh
        driver.close()

    def test_a_gpu_that_fell_off_the_bus_keeps_its_name(self, standin: StandinDriver, driver: Driver) -> None:
        shown = two_h100()
        standin.show(shown)
        see(driver)
        shown.gpus[1].error = pynvml.NVML_ERROR_GPU_IS_LOST
        standin.show(shown)
        for now in (1.0, 11.0, 22.0):
            first, second = see(driver, now).devices
            assert first.lost == ""
            assert "GPU is lost" in second.lost
            assert second.identity.uuid == "GPU-1"
            assert second.memory.total == GPUS["H100-80"].total
        driver.close()

    def test_a_gpu_that_is_not_counted_any_more_is_gone(self, standin: StandinDriver, driver: Driver) -> None:
        shown = two_h100()
        standin.show(shown)
        see(driver)
        del shown.gpus[1]
        standin.show(shown)
        assert [each.identity.uuid for each in see(driver, 11.0).devices] == ["GPU-0"]
        driver.close()

    def test_a_reading_that_fails_once_is_not_a_lost_gpu(self, standin: StandinDriver, driver: Driver) -> None:
        shown = two_h100()
        standin.show(shown)
        see(driver)
        shown.gpus[0].errors = {"nvmlDeviceGetMemoryInfo_v2": pynvml.NVML_ERROR_TIMEOUT}
        standin.show(shown)
        lost = [see(driver, float(now)).devices[0].lost for now in (1, 2, 3)]
        assert lost[:2] == ["", ""]
        assert "Timeout" in lost[2]
        shown.gpus[0].errors = {}
        standin.show(shown)
        assert see(driver, 4.0).devices[0].lost == ""
        driver.close()

    def test_a_driver_of_another_version_than_the_library_needs_a_new_process(
        self, standin: StandinDriver, driver: Driver
    ) -> None:
        standin.show(two_h100(errors={"nvmlInitWithFlags": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}))
        with pytest.raises(StaleLibraryError, match="only a new one can reach it"):
            see(driver)


def test_critical_errors_are_told_by_gpu(standin: StandinDriver) -> None:
    shown = two_h100()
    shown.events.append(Event(gpu=0, xid=31))
    standin.show(shown)
    nvml = NVML()
    assert nvml.open() is None
    inventory = Inventory.open(nvml)
    assert isinstance(inventory, Inventory)
    watch = nvml.watch_xids(inventory.handles)
    assert isinstance(watch, XidWatch)
    shown.events.append(Event(gpu=1, xid=79))
    shown.gpus[1].error = pynvml.NVML_ERROR_GPU_IS_LOST  # so that it can't be asked who it is
    standin.show(shown)
    assert watch.wait(milliseconds=2000) == Xid(uuid="GPU-1", number=79)
    assert watch.wait(milliseconds=0) is None
    watch.close()
    nvml.close()


def test_without_a_library_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    failure = NVML().open()
    assert isinstance(failure, Failure)
    assert failure.trouble is Trouble.NO_DRIVER


class TestState:
    """The YAML behind the stand-in driver."""

    def test_bytes_may_be_quantities(self) -> None:
        shown = parse_driver("gpus: [{product: T4, uuid: GPU-0, processes: [{pid: 1, bytes: 2Gi}]}]")
        assert shown.gpus[0].used == 2 * GIB

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("gpus: [{product: T5, uuid: GPU-0}]", "gpus[0].product: 'T5' is not allowed; it is one of T4"),
            ("gpus: [{product: T4}]", "missing required field `uuid`"),
            ("gpus: [{product: T4, uuid: a, memory: 1}]", "unknown field `memory`"),
        ],
    )
    def test_a_mistake_is_told(self, text: str, says: str) -> None:
        with pytest.raises(InvalidInputError) as caught:
            parse_driver(text)
        assert says in str(caught.value)
