"""The openb benchmark: its protocol, and that nobody gets what is not there."""

import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.openb import POLICIES, PUBLISHED, Cluster, compare, main, simulate
from benchmarks.openb_policies import FGD, Classes, State, Vrampack
from benchmarks.openb_trace import GPU_MILLI, Node, Pod, Shape, arrivals, frequencies, nodes, pods, trace_name
from vrampack.packing.moves import make_room
from vrampack.packing.problem import Resident


def shape(milli: int, *, gpus: int = 1, cpu: int = 1000, models: tuple[str, ...] | None = None) -> Shape:
    return Shape(cpu=cpu, ram=1024, gpus=gpus, milli=milli, models=models)


SHAPES = [shape(470), shape(320), shape(810), shape(1000), shape(1000, gpus=2), shape(0, gpus=0, cpu=4000)]
SHAPES.append(shape(500, models=("T4",)))


def small_cluster() -> list[Node]:
    return [
        Node(name=f"node-{number}", cpu=16_000, ram=65_536, gpus=1 + number % 4, model="T4" if number % 3 else "G2")
        for number in range(12)
    ]


def small_trace(count: int = 80) -> list[Pod]:
    draw = random.Random(7)
    return [Pod(name=f"pod-{number:03d}", shape=draw.choice(SHAPES)) for number in range(count)]


def test_files_of_either_format_are_read(tmp_path: Path) -> None:
    plain = tmp_path / "openb_pod_list_multigpu20.csv"
    plain.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli\nb,1,2,2,1000\na,1,2,0,0\n")
    assert pods(plain) == [
        Pod(name="a", shape=Shape(cpu=1, ram=2, gpus=0, milli=0, models=None)),
        Pod(name="b", shape=Shape(cpu=1, ram=2, gpus=2, milli=1000, models=None)),
    ]
    rich = tmp_path / "mine.csv"
    header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time\n"
    rich.write_text(header + "a,1,2,1,500,V100M32|T4|V100M32,LS,Running,3,9\n")
    assert pods(rich) == [
        Pod(
            name="a",
            shape=Shape(cpu=1, ram=2, gpus=1, milli=500, models=("T4", "V100M32")),
            created=3,
            deleted=9,
        )
    ]
    assert [trace_name(plain), trace_name(rich)] == ["multigpu20", "mine"]


def test_nodes_without_gpus_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "nodes.csv"
    path.write_text("sn,cpu_milli,memory_mib,gpu,model\nn2,8,9,2,T4\nn1,8,9,0,\n")
    assert nodes(path) == [Node(name="n2", cpu=8, ram=9, gpus=2, model="T4")]


@pytest.mark.parametrize("load", [0.4, 1.3])
def test_arrivals_are_inflated_or_thinned_to_the_load(load: float) -> None:
    trace = small_trace()
    total = 30 * GPU_MILLI
    order = arrivals(trace, milli=total, seed=42, load=load)
    demand = sum(pod.shape.demand for pod in order)
    assert load * total - 2 * GPU_MILLI < demand <= load * total
    assert set(order) <= set(trace)
    assert order == arrivals(trace, milli=total, seed=42, load=load)
    assert order != arrivals(trace, milli=total, seed=43, load=load)


def test_fragments_are_counted_as_published() -> None:
    """Half the pods need 500 milli, half a whole GPU: of 300 + 600 + 1000 free milli, the first can't use 300, the
    second 900."""
    classes = Classes({shape(500): 0.5, shape(1000): 0.5}, ["T4"])
    free = np.array([[300, 600, 1000]])
    fragments = FGD(classes)._fragments(0, np.array([9000]), np.array([9000]), free)
    assert fragments.tolist() == [0.5 * 300 + 0.5 * 900]
    # No CPU: nobody can use anything.
    assert FGD(classes)._fragments(0, np.array([0]), np.array([9000]), free).tolist() == [1900]


@pytest.mark.parametrize("moves", [0, 2])
def test_nobody_gets_what_is_not_there(moves: int) -> None:
    cluster_nodes = small_cluster()
    trace = small_trace()
    classes = Classes(frequencies(trace), ["G2", "T4"])
    policy = Vrampack(classes)
    order = arrivals(trace, milli=GPU_MILLI * sum(node.gpus for node in cluster_nodes), seed=1, load=1.3)
    cluster = Cluster(cluster_nodes, classes, policy)
    tenants = _run(cluster, classes, order, moves)
    taken: dict[tuple[str, str], int] = defaultdict(int)
    cpu: dict[str, int] = defaultdict(int)
    model = {node.name: node for node in cluster_nodes}
    for resident in tenants:
        item = resident.item
        assert len(resident.devices) == item.gpus
        assert item.products is None or model[resident.host].model in item.products
        cpu[resident.host] += item.cpu
        for device in resident.devices:
            taken[resident.host, device] += item.memory
    assert tenants
    assert max(taken.values()) <= GPU_MILLI
    assert all(used <= model[name].cpu for name, used in cpu.items())


def _run(cluster: Cluster, classes: Classes, order: list[Pod], moves: int) -> list[Resident]:
    for turn, pod in enumerate(order):
        number = classes.shapes.index(pod.shape)
        place = cluster.choose(number, None)
        if place is None and moves:
            found = make_room(cluster.tenancy, item=cluster.item(number, str(turn)), limit=moves) or ()
            for move in found:
                cluster.refresh(cluster.tenancy.board.place_of[move.host])
                cluster.refresh(cluster.tenancy.board.place_of[move.resident.host])
            place = cluster.choose(number, None)
        if place is not None:
            cluster.admit(number, place, str(turn))
    return list(cluster.tenancy.residents.values())


def test_all_policies_are_compared_and_moves_only_help() -> None:
    results = compare(nodes=small_cluster(), pods=small_trace(), seeds=3, random_ties=False)
    assert tuple(results) == POLICIES
    assert all(50 < each.allocation_percent <= 100 for each in results.values())
    assert all(not each.moves for name, each in results.items() if name != "vrampack")
    again = compare(nodes=small_cluster(), pods=small_trace(), seeds=3, random_ties=False)
    assert {name: each.allocation_percent for name, each in again.items()} == {
        name: each.allocation_percent for name, each in results.items()
    }


def test_the_output_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nodes.csv").write_text("sn,cpu_milli,memory_mib,gpu,model\nn1,64000,65536,4,T4\n")
    rows = "".join(f"p{number},1000,1024,1,{milli}\n" for number, milli in enumerate([470, 320, 1000, 810, 160] * 3))
    trace = tmp_path / "openb_pod_list_tiny.csv"
    trace.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli\n" + rows)
    main(["--nodes", str(tmp_path / "nodes.csv"), "--pods", str(trace), "--seeds", "1", "--random-ties", "-o", "json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"tiny"}
    assert set(found["tiny"]) == set(POLICIES)
    assert set(found["tiny"]["fgd"]) == {"allocation_percent", "moves", "admissions", "seconds"}


def test_the_published_figures_are_those_of_seventeen_traces() -> None:
    assert len(PUBLISHED) == 17
    assert sum(fgd for _, fgd in PUBLISHED.values()) / 17 == pytest.approx(93.61, abs=0.01)
    assert sum(best_fit for best_fit, _ in PUBLISHED.values()) / 17 == pytest.approx(90.67, abs=0.01)


def test_the_default_trace_without_moves(shared_data: Path) -> None:
    """One seed of the real trace: clearly above what FGD reaches (95.2), with a proof that it is not luck of ties."""
    cluster = nodes(shared_data / "openb" / "openb_node_list_gpu_node.csv")
    trace = pods(shared_data / "openb" / "openb_pod_list_default.csv")
    classes = Classes(frequencies(trace), sorted({node.model for node in cluster}))
    order = arrivals(trace, milli=GPU_MILLI * sum(node.gpus for node in cluster), seed=42)
    for draw in (None, np.random.default_rng(42)):
        result = simulate(nodes=cluster, classes=classes, policy=Vrampack(classes), order=order, draw=draw)
        assert result.allocation_percent > 95.6


def test_states_of_equal_nodes_have_equal_scores() -> None:
    classes = Classes(frequencies(small_trace()), ["G2", "T4"])
    policy = Vrampack(classes)
    one = policy.column(State(model=1, cpu=9000, ram=9000, free=np.array([500, 1000])))
    two = policy.column(State(model=1, cpu=9000, ram=9000, free=np.array([1000, 500])))
    assert one[0].tolist() == two[0].tolist()
