"""``vrampack plan`` on a fleet that exists only on paper: what is said, and with which exit status."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from vrampack.cli import main as command_line
from vrampack.errors import InvalidInputError, VrampackError

FLEET = {"nodes": [{"name": "a", "product": "L40S", "gpus": 2}, {"name": "b", "product": "H100-80"}]}
"""Two GPUs of 44.39 GiB on one node, one of 79.18 on the other."""


def model(name: str, claim: str, **spec: Any) -> dict[str, Any]:
    """A custom engine, so that its memory is what the test says."""
    fields = {
        "model": {"source": f"hf://example/{name}"},
        "serving": {"contextLength": 4096, "concurrency": 4},
        "engine": {"name": "custom", "image": "registry.example.com/server:1"},
        "memory": {"perGPU": claim},
        **spec,
    }
    return {
        "apiVersion": "vrampack.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "chat"},
        "spec": fields,
    }


def write(path: Path, *documents: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return path


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    return f"--fleet={write(tmp_path / 'fleet.yml.txt', FLEET)}"


def invoke(*arguments: object, stdin: str | None = None) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1"}).invoke(
        command_line.app, ["plan", *map(str, arguments)], input=stdin
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def answer(*arguments: object, code: int = 0, stdin: str | None = None) -> dict[str, Any]:
    status, out = invoke(*arguments, "-o", "json", stdin=stdin)
    found: dict[str, Any] = json.loads(out)
    assert status == code
    assert found["fits"] is (code == 0)
    return found


def where(found: dict[str, Any]) -> dict[str, list[tuple[str, list[int]]]]:
    places: dict[str, list[tuple[str, list[int]]]] = {}
    for row in found["placements"]:
        places.setdefault(row["model"], []).append((row["node"], row["gpus"]))
    return places


def test_what_fits_has_its_places_and_the_reason_for_each(tmp_path: Path, fleet: str) -> None:
    manifest = write(tmp_path / "m.yaml", model("wide", "40Gi", parallelism={"tensor": 2}), model("large", "60Gi"))
    found = answer(manifest, fleet)
    assert where(found) == {"chat/large": [("b", [0])], "chat/wide": [("a", [0, 1])]}
    assert all(row["new"] and "of" in row["because"] for row in found["placements"])
    assert found["saving"] == {"gpus": 3, "gpusBefore": 0, "gpusWithoutSharing": 3, "fleet": 3}
    (bound,) = found["bounds"]
    assert bound["pool"] == "default"
    assert bound["words"].startswith("3 GPUs with 167.96 GiB")
    assert bound["least"] <= bound["used"]


def test_sharing_is_counted_against_one_model_a_gpu_and_the_optimum_is_proven(tmp_path: Path) -> None:
    alike = write(tmp_path / "fleet.txt", {"nodes": [{"name": "a", "product": "L40S", "gpus": 4}]})
    manifest = write(tmp_path / "m.yaml", *(model(f"m{number}", "20Gi") for number in range(4)))
    found = answer(manifest, f"--fleet={alike}")
    assert found["saving"] == {"gpus": 2, "gpusBefore": 0, "gpusWithoutSharing": 4, "fleet": 4}
    (bound,) = found["bounds"]
    assert bound["words"] == "2 GPUs with 88.78 GiB, proven optimal: no packing has fewer"


def test_on_gpus_of_several_sizes_the_memory_is_proven_and_not_their_number(tmp_path: Path, fleet: str) -> None:
    """Both together are too large for the H100 by 330 MiB."""
    manifest = write(tmp_path / "m.yaml", model("a", "39Gi"), model("b", "40.5Gi"))
    (bound,) = answer(manifest, fleet)["bounds"]
    assert bound["words"] == "2 GPUs with 88.78 GiB, proven optimal: no packing opens less memory"


def test_nothing_is_proven_of_a_plan_that_leaves_out_what_could_be_placed(tmp_path: Path) -> None:
    fleet = write(tmp_path / "fleet.yml.txt", {"nodes": [{"name": "a", "product": "L40S", "gpus": 4}]})
    sizes = (20, 14, 10, 17, 13, 14, 21, 12, 11, 20, 13, 11)  # triplets of 44, which no greedy plan puts together
    manifest = write(tmp_path / "m.yaml", *(model(f"m{number:02}", f"{size}Gi") for number, size in enumerate(sizes)))
    (bound,) = answer(manifest, f"--fleet={fleet}", code=2)["bounds"]
    assert bound["words"].startswith("4 GPUs with 177.56 GiB, nothing proven; packed anew as a whole, 1 more of those")


def test_what_does_not_fit_says_why_and_what_would_help(tmp_path: Path, fleet: str) -> None:
    pinned = {"gpuProducts": ["NVIDIA-L40S"]}
    manifest = write(tmp_path / "m.yaml", model("many", "40Gi", replicas=4, placement=pinned))
    found = answer(manifest, fleet, code=2)
    (row,) = found["waiting"]
    assert (row["model"], row["replicas"], row["reason"]) == ("chat/many", 2, "InsufficientGPUMemory")
    assert "gpuProducts: NVIDIA-H100-80GB-HBM3" in row["wouldFitIf"]
    status, out = invoke(manifest, fleet, "--refine", 0)
    assert status == 2
    assert "waits: 2 of chat/many: InsufficientGPUMemory" in out
    assert "it does not fit" in out


def test_a_model_larger_than_any_gpu_is_named_with_its_bytes(tmp_path: Path, fleet: str) -> None:
    manifest = write(tmp_path / "m.yaml", model("huge", "90Gi"))
    found = answer(manifest, fleet, code=2)
    assert [row["status"] for row in found["models"]] == ["LargerThanAnyGPU"]


def test_other_kinds_are_left_out_and_counted_and_lists_are_read(tmp_path: Path, fleet: str) -> None:
    """As kustomize and helm print them: one stream of everything."""
    stream = yaml.safe_dump_all(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "chat"}},
            None,
            {"apiVersion": "v1", "kind": "List", "items": [model("a", "10Gi"), model("b", "10Gi")]},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "y"}},
        ]
    )
    found = answer("-", fleet, stdin=stream)
    assert found["ignored"] == {"ConfigMap": 2, "Namespace": 1}
    assert len(found["placements"]) == 2


def test_folders_are_read_to_the_bottom(tmp_path: Path, fleet: str) -> None:
    (tmp_path / "models" / "team").mkdir(parents=True)
    write(tmp_path / "models" / "a.yaml", model("a", "10Gi"))
    write(tmp_path / "models" / "team" / "b.yml", model("b", "10Gi"))
    (tmp_path / "models" / "README.md").write_text("not a manifest")
    assert set(where(answer(tmp_path / "models", fleet))) == {"chat/a", "chat/b"}


def test_priorities_count_and_who_would_lose_its_place_is_said(tmp_path: Path) -> None:
    small = write(tmp_path / "fleet.txt", {"nodes": [{"name": "a", "product": "L40S"}]})
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 9}
    manifest = write(
        tmp_path / "m.yaml", model("low", "40Gi"), model("high", "40Gi", priorityClassName="urgent"), urgent
    )
    found = answer(manifest, f"--fleet={small}", code=2)
    assert set(where(found)) == {"chat/high"}
    with pytest.raises(InvalidInputError, match="there is no such PriorityClass"):
        invoke(write(tmp_path / "n.yaml", model("high", "40Gi", priorityClassName="urgent")), f"--fleet={small}")


def test_pools_and_profiles_beside_the_models_count(tmp_path: Path, fleet: str) -> None:
    pool = {
        "apiVersion": "vrampack.dev/v1alpha1",
        "kind": "GPUPool",
        "metadata": {"name": "default"},
        "spec": {"reservePerGPU": "40Gi"},
    }
    manifest = write(tmp_path / "m.yaml", model("a", "10Gi"), pool)
    assert where(answer(manifest, fleet)) == {"chat/a": [("b", [0])]}


def test_facts_that_nobody_has_are_an_error_that_says_what_to_do(tmp_path: Path, fleet: str) -> None:
    raw = model("a", "10Gi", engine={})
    manifest = write(tmp_path / "m.yaml", raw)
    with pytest.raises(InvalidInputError, match="vrampack profile hf://example/a writes one"):
        invoke(manifest, fleet, "--endpoint", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: ConfigMap\n", "there is no ModelDeployment"),
        ("{{ .Values.x }}\n", "write YAML"),
        (yaml.safe_dump(model("a", "much")), "memory.perGPU"),
        (yaml.safe_dump_all([model("a", "1Gi"), model("a", "2Gi")]), "more than once"),
        (yaml.safe_dump({**model("a", "1Gi"), "spec": 7}), "write an object"),
        (yaml.safe_dump(model("a", "1Gi", pool="b")), "a: spec.pool: 'b' is not allowed; there is no such field"),
        (yaml.safe_dump(model("a", "1Gi", memory={"perGpu": "1Gi"})), "spec.memory.perGpu"),
        (yaml.safe_dump({**model("a", "1Gi"), "apiVersion": "vrampack.dev/v9"}), "write vrampack.dev/v1alpha1"),
    ],
    ids=[
        "nothing of ours",
        "a template that is not rendered",
        "a bad quantity",
        "twice",
        "no spec",
        "an unknown field",
        "a field misspelt",
        "another version",
    ],
)
def test_bad_input_is_told_with_its_place(tmp_path: Path, fleet: str, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(VrampackError, match=says):
        invoke(path, fleet)


def named(**metadata: Any) -> dict[str, Any]:
    found = model("a", "1Gi")
    return {**found, "metadata": {**found["metadata"], **metadata}}


def pool_with(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "vrampack.dev/v1alpha1", "kind": "GPUPool", "metadata": {"name": "default"}, "spec": spec}


def urgent(**fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "u"},
        "value": 9,
        **fields,
    }


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (named(name="Qwen_3"), "ModelDeployment.metadata.name: 'Qwen_3'"),
        (named(name="3b"), "the name becomes that of a Service and of pods"),
        (named(name="a" * 54), "at most 53"),
        (named(namespace="Chat"), "a: metadata.namespace: 'Chat'"),
        (named(namespace="a.b"), "at most 63"),
        (named(labels={"a b": "c"}), "metadata.labels: 'a b'"),
        (named(labels={"a": "b c"}), "metadata.labels.a: 'b c'"),
        (named(labels={"a": 1}), "it is a text: write it in quotes"),
        (named(labels=["a"]), "write an object"),
        (named(annotations={"Example.com/a": "b"}), "metadata.annotations: 'Example.com/a'"),
        (named(annotations={"a": "b" * 2**18}), "262144 bytes"),
        (named(namspace="chat"), "there is no such field"),
        ({**model("a", "1Gi"), "specs": {}}, "there is no such field"),
        (pool_with(prices=[{"product": "L4", "price": 1}] * 2), "default: spec.prices.1"),
        (pool_with(prices=[{"product": "L4", "price": "1E"}]), "spec.prices.0.price: '1E'"),
        (urgent(value=2_000_000_000), "to 1000000000"),
        (urgent(value="9"), "PriorityClass u: value"),
        (urgent(preemptionPolicy="Sometimes"), "PreemptLowerPriority, Never"),
        (urgent(metadata={"name": "system-mine"}), "system- is for"),
        (urgent(metadata={"name": "U"}), "PriorityClass.metadata.name"),
    ],
)
def test_what_the_api_server_would_refuse_is_refused(
    tmp_path: Path, fleet: str, found: dict[str, Any], says: str
) -> None:
    manifest = write(tmp_path / "m.yaml", found, model("other", "1Gi"))
    with pytest.raises(InvalidInputError, match=says):
        invoke(manifest, fleet, "--refine", 0)


def test_a_namespace_that_cannot_be_is_refused(tmp_path: Path, fleet: str) -> None:
    with pytest.raises(InvalidInputError, match="--namespace: 'Chat'"):
        invoke(write(tmp_path / "m.yaml", model("a", "1Gi")), fleet, "-n", "Chat")


def test_markdown_is_a_comment_for_a_pull_request(tmp_path: Path, fleet: str) -> None:
    manifest = write(tmp_path / "m.yaml", model("a", "10Gi", replicas=2), model("b", "70Gi", replicas=2))
    status, out = invoke(manifest, fleet, "-o", "markdown", "--refine", 0)
    assert status == 2
    assert out.startswith("### vrampack plan: it does not fit")
    assert "| `chat/b` | 1 | InsufficientGPUMemory" in out
    assert "| model | replicas | node | GPUs | each |" in out


def test_the_same_question_has_the_same_answer(tmp_path: Path, fleet: str) -> None:
    manifest = write(tmp_path / "m.yaml", *(model(f"m{number}", f"{8 + number}Gi") for number in range(9)))
    first, again = (invoke(manifest, fleet, "-o", "yaml", "--refine", 0) for _ in range(2))
    assert first == again
    assert yaml.safe_load(first[1])["fits"] is True


PRICES = {
    "unit": "EUR/h",
    "nodes": [
        {"name": "one-l40s", "product": "L40S", "price": 2},
        {"name": "one-h100", "product": "H100-80", "price": 4.5},
        {"name": "eight-h100", "product": "H100-80", "gpus": 8, "price": 30, "most": 2},
    ],
}


def test_the_cheapest_fleet_is_bought_from_a_price_list(tmp_path: Path) -> None:
    prices = f"--prices={write(tmp_path / 'prices.txt', PRICES)}"
    manifest = write(tmp_path / "m.yaml", *(model(f"m{number}", "20Gi") for number in range(4)))
    found = answer(manifest, "--fleet-for", prices)
    assert (found["nodes"], found["price"], found["unit"]) == ({"one-l40s": 2}, 4.0, "EUR/h")
    wide = write(tmp_path / "w.yaml", model("w", "70Gi", parallelism={"tensor": 4}))
    assert answer(wide, "--fleet-for", prices)["nodes"] == {"eight-h100": 1}
    status, out = invoke(write(tmp_path / "x.yaml", model("x", "100Gi")), "--fleet-for", prices)
    assert (status, out.strip()) == (2, "no set of these nodes holds all of the models")


def test_prices_may_be_small(tmp_path: Path) -> None:
    """Those of a second, say: they are not rounded to nothing."""
    nodes = [{"name": "a", "product": "L40S", "price": 0.000014}, {"name": "b", "product": "L40S", "price": 0.000013}]
    prices = f"--prices={write(tmp_path / 'prices.txt', {'nodes': nodes})}"
    found = answer(write(tmp_path / "m.yaml", model("m", "20Gi")), "--fleet-for", prices)
    assert (found["nodes"], found["price"], found["least"]) == ({"b": 1}, 0.000013, 0.000013)


def test_prices_that_differ_in_the_last_digit_differ(tmp_path: Path) -> None:
    """What is proven is proven of the prices as they are written."""
    nodes = [{"name": "a", "product": "L40S", "price": 1.860004}, {"name": "b", "product": "L40S", "price": 1.860001}]
    prices = f"--prices={write(tmp_path / 'prices.txt', {'nodes': nodes})}"
    found = answer(write(tmp_path / "m.yaml", model("m", "20Gi")), "--fleet-for", prices)
    assert (found["nodes"], found["price"], found["least"]) == ({"b": 1}, 1.860001, 1.860001)


def test_prices_that_no_number_holds_together_are_refused(tmp_path: Path) -> None:
    nodes = [{"name": "a", "product": "L4", "price": 1e-6}, {"name": "b", "product": "H100-80", "price": 1e9}]
    prices = f"--prices={write(tmp_path / 'prices.txt', {'nodes': nodes})}"
    manifest = write(tmp_path / "m.yaml", model("m", "60Gi", replicas=9))
    with pytest.raises(InvalidInputError, match="beside a price of 1e-06"):
        invoke(manifest, "--fleet-for", prices)


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([{"name": "a", "product": "Voodoo", "price": 1}], "product"),
        ([{"name": "a", "product": "L4", "price": 0}], "price"),
        ([{"name": "a", "product": "L4", "price": 1}] * 2, "listed once"),
        ([], "nodes"),
    ],
)
def test_a_price_list_that_is_wrong_is_told_where(tmp_path: Path, nodes: list[Any], says: str) -> None:
    prices = write(tmp_path / "prices.txt", {"nodes": nodes})
    with pytest.raises(InvalidInputError, match=says):
        invoke(write(tmp_path / "m.yaml", model("a", "1Gi")), "--fleet-for", f"--prices={prices}")
