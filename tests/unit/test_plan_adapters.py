"""Adapters: the claim has room for as many as the engine is told, and only then."""

from typing import Any

from tests.unit.planning_world import decide, estimated, of_kind, profile, status_of, world
from vrampack.planning.actions import CreateChild
from vrampack.units import MIB, parse_bytes


def served(**fields: Any) -> tuple[dict[str, Any], list[str]]:
    """The estimate of a model, and its engine's arguments."""
    found = decide(world(estimated(**fields), profiles=[profile()]))
    estimate = status_of(found)["estimate"]
    (deployment,) = (each.manifest for each in of_kind(found, CreateChild) if each.manifest["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return estimate, container["args"]


def test_the_claim_has_room_for_the_adapters_that_the_engine_is_told() -> None:
    without, plain = served()
    with_four, arguments = served(adapters={"max": 4, "maxRank": 64})
    assert parse_bytes(with_four["weights"]) - parse_bytes(without["weights"]) > 500 * MIB
    assert {"--enable-lora", "--max-loras=4", "--max-lora-rank=64"} <= set(arguments)
    assert not any("lora" in argument for argument in plain)
