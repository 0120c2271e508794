"""What a ModelDeployment says of its split reaches the estimate, the need and the engine alike."""

import pytest

from tests.unit.planning_world import Json, children, deployment, estimated, profile, world
from vrampack.planning.need import Need
from vrampack.planning.plan import plan
from vrampack.planning.verdict import Settings

SERVING = {"contextLength": 4096, "concurrency": 4}


def made(**spec: object) -> tuple[Need, list[str]]:
    view = estimated(serving=SERVING, **spec)
    profiles = [profile()]
    assert plan(world(view, profiles=profiles), Settings()).children
    template = deployment(children(view, profiles=profiles)).object["spec"]["template"]
    need = Need.from_json(template["metadata"]["annotations"]["vrampack.dev/need"])
    return need, template["spec"]["containers"][0]["args"]


@pytest.mark.parametrize(
    ("parallelism", "gpus", "flags"),
    [
        ({"tensor": 2}, 2, ["--tensor-parallel-size=2"]),
        ({"pipeline": 2}, 2, ["--pipeline-parallel-size=2"]),
        ({"tensor": 2, "pipeline": 2}, 4, ["--tensor-parallel-size=2", "--pipeline-parallel-size=2"]),
    ],
)
def test_a_split(parallelism: Json, gpus: int, flags: list[str]) -> None:
    whole, _ = made()
    need, args = made(parallelism=parallelism)
    assert need.gpus == gpus
    assert need.bytes < whole.bytes
    assert set(flags) <= set(args)


def test_prefix_caching_is_passed_on() -> None:
    assert "--no-enable-prefix-caching" in made(engine={"prefixCaching": "Disabled"})[1]
