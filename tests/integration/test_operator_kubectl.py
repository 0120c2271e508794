"""An admin's day with the real kubectl: explain, apply, wait, get, describe, scale."""

import json
import re

import pytest

from tests.integration.harness import World
from tests.integration.manifests import group, model

pytestmark = pytest.mark.cluster

COLUMNS = ["NAME", "READY", "MODEL", "PRECISION", "VRAM/GPU", "GPUS", "STATUS", "AGE"]
WIDE = ["NODES", "CONCURRENCY", "REVISION"]


async def test_explain_is_enough_to_write_a_manifest_from(world: World) -> None:
    said = await world.kubectl("explain", "modeldeployment.spec.serving")
    assert re.search(r"^KIND:\s+ModelDeployment$", said, re.MULTILINE)
    for field, kind in (
        ("contextLength", "<integer> -required-"),
        ("concurrency", "<integer> -required-"),
        ("tokensPerSequence", "<integer>"),
    ):
        # Each field is followed by words of its own.
        assert re.search(rf"^  {field}\s+{kind}\n    \w.+", said, re.MULTILINE), said
    assert "longest sequence" in said
    fields = await world.kubectl("explain", "mdep.spec", "--recursive")
    for field in ("source", "kvCache", "maxBatchedTokens", "perGPU", "gpuProducts", "podTemplate", "rollout"):
        assert re.search(rf"^\s+{field}\s+<", fields, re.MULTILINE), field


async def test_an_admin_applies_waits_looks_and_scales(world: World) -> None:
    await world.fleet(group("a"))
    labelled = {"labels": {"demo": "fits"}}
    fits = [model(name, claim=None) for name in ("first", "second")]
    large = model("large", claim="43Gi")
    for each in fits:
        each["metadata"] |= labelled
    await world.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": fits}))
    waited = await world.kubectl("wait", "--for=condition=Ready", "mdep", "-l", "demo=fits", "--timeout=60s")
    assert sorted(line.split()[0] for line in waited.splitlines()) == [
        f"modeldeployment.vrampack.dev/{name}" for name in ("first", "second")
    ]
    await world.kubectl.apply(large)
    await world.kubectl("wait", "--for=condition=Scheduled=False", "mdep/large", "--timeout=60s")
    assert "timed out" in await world.kubectl.refused("wait", "--for=condition=Ready", "mdep/large", "--timeout=1s")

    header, *lines = (await world.kubectl("get", "mdep")).splitlines()
    assert header.split() == COLUMNS
    cells = {line.split()[0]: line.split() for line in lines}
    assert cells["first"][1:4] == ["1/1", "profile://tiny", "bf16"]
    assert re.fullmatch(r"\d+Mi", cells["first"][4])
    assert cells["first"][5:7] == ["1", "AllReplicasReady"]
    assert (cells["large"][1], cells["large"][4:7]) == ("0/1", ["43Gi", "0", "WaitingForRoom"])
    header, *_ = (await world.kubectl("get", "modeldeployments", "-A", "-o", "wide")).splitlines()
    assert header.split() == ["NAMESPACE", *COLUMNS, *WIDE]

    described = await world.kubectl("describe", "mdep", "large")
    for word in ("InsufficientGPUMemory", "Closest:", "Short:", "Rejected:", "43.00 GiB", world.node("a"), "Events:"):
        assert word in described, described

    assert "scaled" in await world.kubectl("scale", "mdep/first", "--replicas=3")
    await world.kubectl("wait", "--for=jsonpath={.status.readyReplicas}=3", "mdep/first", "--timeout=60s")
    assert (
        await world.kubectl("get", "mdep", "first", "--subresource=scale", "-o", "jsonpath={.status.replicas}") == "3"
    )
