"""The examples: each is what the API takes, and each fits where its comments say."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from vrampack.agent.fleet import parse_fleet
from vrampack.agent.products import PRODUCTS
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.localcluster.hubdouble import HubDouble
from vrampack.memory.estimate import Estimate, Workload, estimate
from vrampack.models.hub import read_facts
from vrampack.units import MIB

USABLE = {product.label: product.usable for product in PRODUCTS.values()}


@pytest.fixture(scope="module")
def examples(repo_root: Path) -> dict[str, ModelDeploymentSpec]:
    return {
        document["metadata"]["name"]: ModelDeploymentSpec.model_validate(document["spec"])
        for path in sorted((repo_root / "examples").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if document["kind"] == "ModelDeployment"
    }


@pytest.fixture(scope="module")
async def hub() -> AsyncIterator[HubDouble]:
    async with HubDouble(open_terms=True) as hub:
        yield hub


async def sized(spec: ModelDeploymentSpec, hub: HubDouble) -> Estimate:
    facts = await read_facts(source=spec.model.source, revision=None, token=None, endpoint=hub.url)
    serving = spec.serving
    workload = Workload(
        context_length=serving.context_length,
        concurrency=serving.concurrency,
        tokens_per_sequence=serving.tokens_per_sequence or serving.context_length,
        max_batched_tokens=spec.engine.max_batched_tokens,
        tensor=spec.parallelism.tensor,
    )
    return estimate(architecture=facts.architecture, weights=facts.weights, workload=workload)


async def test_four_models_share_one_h100(
    examples: dict[str, ModelDeploymentSpec], hub: HubDouble, repo_root: Path
) -> None:
    (product,) = {p for spec in examples.values() for p in spec.placement.gpu_products if "H100" in p}
    four = [spec for spec in examples.values() if product in spec.placement.gpu_products]
    assert len(four) == 4
    total = sum([(await sized(spec, hub)).per_gpu for spec in four])
    assert total <= USABLE[product]
    comment = (repo_root / "examples/10-four-on-one-gpu.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert f"{total // MIB} MiB of its {USABLE[product] // MIB}" in comment


async def test_one_waits_for_a_notebook_on_its_card(
    examples: dict[str, ModelDeploymentSpec], hub: HubDouble, repo_root: Path
) -> None:
    spec = examples["qwen3-32b"]
    needed = (await sized(spec, hub)).per_gpu
    fleet = parse_fleet((repo_root / "examples/fleet/fleet.yaml").read_text(encoding="utf-8"))
    (gpu,) = (g for node in fleet.expand() for g in node.gpus if node.product.label in spec.placement.gpu_products)
    assert gpu.usable - gpu.foreign < needed <= gpu.usable


@pytest.mark.parametrize(("name", "product", "gpus"), [("qwen3-8b-fp8", "RTX-4090", 1), ("llama-33-70b", "L40S", 4)])
async def test_the_others_fit_their_cards(
    examples: dict[str, ModelDeploymentSpec], hub: HubDouble, name: str, product: str, gpus: int
) -> None:
    needed = await sized(examples[name], hub)
    assert needed.gpus == gpus
    assert needed.per_gpu <= PRODUCTS[product].usable
