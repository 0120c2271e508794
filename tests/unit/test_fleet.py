"""Fleet files: what they say, what they refuse, and how they change under the agent's hands."""

import logging
import os
from pathlib import Path

import pytest

from vrampack.agent.fleet import Fleet, FleetFile, SimulatedNode, gpu_uuid, kwok_nodes, parse_fleet
from vrampack.agent.products import PRODUCTS
from vrampack.errors import InvalidInputError
from vrampack.localcluster.nodes import NodeSpec, manifest
from vrampack.units import GIB, MIB


def only(fleet: Fleet) -> SimulatedNode:
    (node,) = fleet.expand()
    return node


class TestProducts:
    @pytest.mark.parametrize(
        ("name", "label", "cuda_gib", "catalogue_gb"),
        [
            ("T4", "Tesla-T4", 14.56, 16),
            ("L4", "NVIDIA-L4", 22.03, 24),
            ("A10", "NVIDIA-A10", 22.06, 24),
            ("RTX-4090", "NVIDIA-GeForce-RTX-4090", 23.52, 24),
            ("A100-40", "NVIDIA-A100-SXM4-40GB", 39.39, 40),
            ("A100-80", "NVIDIA-A100-SXM4-80GB", 79.26, 80),
            ("L40S", "NVIDIA-L40S", 44.39, 48),
            ("H100-80", "NVIDIA-H100-80GB-HBM3", 79.18, 80),
            ("H200", "NVIDIA-H200", 139.81, 141),
            ("B200", "NVIDIA-B200", 178.35, 192),
        ],
    )
    def test_memory_is_what_cuda_sees_and_never_the_catalogue(
        self, name: str, label: str, cuda_gib: float, catalogue_gb: int
    ) -> None:
        product = PRODUCTS[name]
        assert product.label == label
        assert product.usable / GIB == pytest.approx(cuda_gib, abs=0.01)
        assert product.usable < catalogue_gb * GIB
        assert 200 * MIB < product.reserved < 1100 * MIB


class TestExpansion:
    def test_a_node_has_the_products_usual_machine_around_it(self) -> None:
        node = only(parse_fleet("nodes: [{name: big, product: H100-80, gpus: 8}]"))
        assert node.name == "big"
        assert [gpu.index for gpu in node.gpus] == list(range(8))
        assert {gpu.usable for gpu in node.gpus} == {PRODUCTS["H100-80"].usable}
        assert (node.cpu, node.memory, node.pods) == (192_000, 2048 * GIB, 110)

    def test_alike_nodes_are_numbered_and_their_gpus_have_uuids_of_their_own(self) -> None:
        fleet = parse_fleet("nodes: [{name: gpu, count: 3, product: L4, gpus: 4}, {name: alone, product: T4}]")
        nodes = list(fleet.expand())
        assert [node.name for node in nodes] == ["gpu-0", "gpu-1", "gpu-2", "alone"]
        uuids = [gpu.uuid for node in nodes for gpu in node.gpus]
        assert len(set(uuids)) == len(uuids) == 13

    def test_uuids_are_the_same_at_every_start(self) -> None:
        assert gpu_uuid("gpu-0", 1) == "GPU-05b5ce3f-53a3-55ee-9648-00ae26358ec8"

    def test_what_is_wrong_with_a_gpu(self) -> None:
        node = only(
            parse_fleet(
                """
                nodes:
                - name: sick
                  product: H100-80
                  gpus: 4
                  foreign: [{gpu: 0, memory: 2Gi}]
                  failed: [{gpu: 1}, {gpu: 2, xid: 48}]
                  usable: [{gpu: 0, memory: 70Gi}]
                  missing: [3]
                """
            )
        )
        assert [(gpu.index, gpu.foreign, gpu.xid) for gpu in node.gpus] == [(0, 2 * GIB, None), (1, 0, 79), (2, 0, 48)]
        assert node.gpus[0].usable == 70 * GIB

    def test_node_objects_for_kwok(self) -> None:
        fleet = parse_fleet(
            """
            nodes:
            - name: box
              product: RTX-4090
              gpus: 2
              missing: [1]
              cpu: 6500m
              memory: 62Gi
              pods: 20
              labels: {zone: a}
              taints: [{key: nvidia.com/gpu, effect: NoSchedule}]
            """
        )
        (node,) = (manifest(NodeSpec(**fields)) for fields in kwok_nodes(fleet))
        labels = {"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4090", "nvidia.com/gpu.count": "2", "zone": "a"}
        assert node["metadata"]["labels"].items() >= {"kubernetes.io/hostname": "box", **labels}.items()
        assert node["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "", "effect": "NoSchedule"}]
        assert node["status"]["allocatable"] == {"cpu": "6500m", "memory": "62Gi", "pods": "20"}


def test_the_example_is_a_fleet(repo_root: Path) -> None:
    fleet = parse_fleet((repo_root / "examples/fleet/fleet.yaml").read_text(encoding="utf-8"))
    assert len(list(fleet.expand())) >= 4


NODE = "name: a, product: L4"


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("nodes: [", "fleet", "YAML"),
        ("", "fleet", ""),
        ("nodes: []", "nodes", "at least 1"),
        ("{}", "nodes", "it is required"),
        ("nodes: [{name: a}]", "nodes[0].product", "it is required"),
        ("nodes: [{name: a, product: H1000}]", "nodes[0].product", "it is one of T4, L4, A10"),
        ("nodes: [{name: A_b, product: L4}]", "nodes[0].name", "pattern"),
        (f"nodes: [{{{NODE}}}, {{{NODE}}}]", "nodes[1].name", "two nodes"),
        ("nodes: [{name: a, count: 2, product: L4}, {name: a-1, product: L4}]", "nodes[1].name", "two nodes"),
        (f"nodes: [{{{NODE}, gpu: 2}}]", "nodes[0].gpu", "there is no such field"),
        (f"nodes: [{{{NODE}, gpus: 0}}]", "nodes[0].gpus", "greater than or equal to 1"),
        (f"nodes: [{{{NODE}, count: many}}]", "nodes[0].count", "valid integer"),
        (f"nodes: [{{{NODE}, memory: 64Gb}}]", "nodes[0].memory", "such as 24Gi"),
        (f"nodes: [{{{NODE}, cpu: -1}}]", "nodes[0].cpu", "greater than or equal to 0"),
        (f"nodes: [{{{NODE}, foreign: [{{gpu: 0}}]}}]", "nodes[0].foreign[0].memory", "it is required"),
        (f"nodes: [{{{NODE}, foreign: [{{gpu: 1, memory: 1Gi}}]}}]", "nodes[0].foreign", "GPUs are 0 to 0"),
        (f"nodes: [{{{NODE}, failed: [{{gpu: 0}}, {{gpu: 0}}]}}]", "nodes[0].failed", "at most once"),
        (f"nodes: [{{{NODE}, failed: [{{gpu: 0, xid: 0}}]}}]", "nodes[0].failed[0].xid", "greater than or equal to 1"),
        (f"nodes: [{{{NODE}, missing: [4]}}]", "nodes[0].missing", "GPUs are 0 to 0"),
        (f"nodes: [{{{NODE}, injectionStyle: env}}]", "nodes[0].injectionStyle", "'CDIRuntime'"),
        (f"nodes: [{{{NODE}, injectionStyle: Auto}}]", "nodes[0].injectionStyle", "one of Bare, CDIRuntime"),
        (f"nodes: [{{{NODE}, taints: [{{key: a, effect: No}}]}}]", "nodes[0].taints[0].effect", "'NoSchedule'"),
        (f"nodes: [{{{NODE}}}]\nloading: {{seconds: -1}}", "loading.seconds", "greater than or equal to 0"),
    ],
)
def test_a_bad_fleet_is_refused_with_the_path_of_the_field(text: str, field: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_fleet(text)
    assert caught.value.field == field
    assert says in str(caught.value)


class TestFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "fleet.yaml"
        path.write_text("nodes: [{name: a, product: L4}]")
        return path

    def test_an_edit_is_seen(self, path: Path) -> None:
        file = FleetFile(path)
        assert only(file.read()).name == "a"
        path.write_text("nodes: [{name: b, product: L4}]")
        os.utime(path, ns=(1, 1))
        assert only(file.read()).name == "b"

    def test_without_one_nothing_is_parsed_again(self, path: Path) -> None:
        file = FleetFile(path)
        assert file.read() is file.read()

    def test_a_broken_edit_keeps_the_last_good_state_and_is_said_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = FleetFile(path)
        good = file.read()
        path.write_text("nodes: [{name: a, product: L4, gpus: none}]")
        with caplog.at_level(logging.WARNING):
            assert file.read() is good
            assert file.read() is good
        (record,) = caplog.records
        assert "nodes[0].gpus: 'none' is not allowed" in record.message
        path.write_text("nodes: [{name: repaired, product: L4}]")
        assert only(file.read()).name == "repaired"

    def test_a_file_that_goes_away_is_said_once(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        file = FleetFile(path)
        good = file.read()
        path.unlink()
        with caplog.at_level(logging.WARNING):
            assert file.read() is good
            assert file.read() is good
        assert len(caplog.records) == 1

    def test_at_the_start_it_has_to_be_good(self, path: Path) -> None:
        path.write_text("nodes: 1")
        with pytest.raises(InvalidInputError):
            FleetFile(path).read()
        path.unlink()
        with pytest.raises(FileNotFoundError):
            FleetFile(path).read()
