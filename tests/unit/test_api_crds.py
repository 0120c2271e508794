"""The generated definitions: the same as in crds/, described everywhere, and bounded everywhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from vrampack.api.reserved import VLLM_FLAGS
from vrampack.api.resources import RESOURCES
from vrampack.api.schema import definition, definitions
from vrampack.cli.crds import crds
from vrampack.engines.vllm_flags import FLAGS

CRDS = Path(__file__).parents[2] / "crds"

Schema = dict[str, Any]


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(crds)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every schema below this one, with its path."""
    for name, value in schema.get("properties", {}).items():
        yield f"{path}.{name}", value
        yield from fields(value, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield path + mark, schema[key]
            yield from fields(schema[key], path + mark)


def all_fields() -> Iterator[tuple[str, Schema]]:
    for resource in RESOURCES:
        schema = definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for part in ("spec", "status"):
            root = schema["properties"][part]
            yield f"{resource.kind}.{part}", root
            yield from fields(root, f"{resource.kind}.{part}")


def test_the_folder_holds_what_is_generated() -> None:
    assert run("--check", str(CRDS)) == (0, "")


def test_a_changed_file_is_shown_as_a_diff(tmp_path: Path) -> None:
    run("--output-dir", str(tmp_path))
    changed = tmp_path / "gpupools.vrampack.dev.yaml"
    changed.write_text(changed.read_text().replace("maximum: 600", "maximum: 60"))
    code, output = run("--check", str(tmp_path))
    assert code == 1
    assert "maximum: 60\n" in output.replace("-  ", "")
    assert "maximum: 600\n" in output


def test_a_file_too_many_is_a_difference(tmp_path: Path) -> None:
    run("--output-dir", str(tmp_path))
    (tmp_path / "old.yaml").write_text("kind: Old\n")
    assert run("--check", str(tmp_path))[0] == 1


def test_printed_they_are_one_stream_of_manifests() -> None:
    code, output = run()
    assert code == 0
    assert list(yaml.safe_load_all(output)) == [each for _, each in definitions()]


def test_every_field_has_a_description() -> None:
    named = [(path, schema) for path, schema in all_fields() if not path.endswith(("[]", "{}"))]
    assert [path for path, schema in named if len(schema.get("description", "")) < 10] == []


def test_everything_is_bounded() -> None:
    """The API server's budget for rules needs it, and an object must stay small."""

    def unbounded(schema: Schema) -> bool:
        match schema.get("type"):
            case "string":
                return "enum" not in schema and "maxLength" not in schema
            case "array":
                return "maxItems" not in schema
            case "object":
                return "additionalProperties" in schema and "maxProperties" not in schema
            case "integer":
                return "minimum" not in schema
            case None:
                return "maxLength" not in schema
        return False

    assert [path for path, schema in all_fields() if unbounded(schema)] == []


def test_a_status_has_neither_defaults_nor_rules() -> None:
    inside = [(path, schema) for path, schema in all_fields() if ".status." in path]
    assert [path for path, schema in inside if schema.keys() & {"default", "x-kubernetes-validations"}] == []


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_a_new_object_is_not_ready_for_whoever_waits(resource: Any) -> None:
    schema = definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["properties"]["status"]["default"] == {"observedGeneration": -1}


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("ModelDeployment", "Ready Model Precision VRAM/GPU GPUs Status Age Nodes* Concurrency* Revision*"),
        ("ModelProfile", "Model Revision Parameters Precision Weights KV/Token Age"),
        ("GPUNode", "GPUs Product Memory Claimed Used Healthy Age"),
        ("GPUPool", "Nodes GPUs Memory Claimed Stranded Age"),
    ],
)
def test_columns(kind: str, columns: str) -> None:
    resource = next(each for each in RESOURCES if each.kind == kind)
    entries = definition(resource)["spec"]["versions"][0]["additionalPrinterColumns"]
    assert " ".join(each["name"] + "*" * each.get("priority", 0) for each in entries) == columns


def test_columns_read_fields_that_exist() -> None:
    paths = {path for path, _ in all_fields()}
    for resource in RESOURCES:
        for column in resource.columns:
            field = column.path.split("[")[0]
            assert field.startswith(".metadata.") or resource.kind + field in paths


def test_a_harmless_engine_flag_is_no_abbreviation_of_ours() -> None:
    """The API server refuses abbreviations too, so it must not take a flag of its own for one."""
    harmless = FLAGS.switches | FLAGS.values | FLAGS.lists
    exact = [flag for owned in VLLM_FLAGS for flag in owned.flags]
    families = tuple(family for owned in VLLM_FLAGS for family in owned.families)
    refused = [each for each in harmless if each.startswith(families) or any(flag.startswith(each) for flag in exact)]
    assert refused == []
