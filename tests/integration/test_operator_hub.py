"""What the model hub refuses is said with what to do, and ends as soon as that is done."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.integration.harness import World
from tests.integration.looks import condition, lone
from tests.integration.machinery import TOKEN_NAMESPACE
from tests.integration.manifests import Manifest, group, model
from vrampack.localcluster.hubdouble import Fault

pytestmark = pytest.mark.cluster

GATED = "mistralai/Mistral-7B-Instruct-v0.3"
LIMITED = "Qwen/Qwen3-4B"
TOKENS = {"member": "hf_member", "stranger": "hf_stranger", "expired": "hf_expired"}
SECRETS = f"/api/v1/namespaces/{TOKEN_NAMESPACE}/secrets"


@pytest.fixture
async def tenant(world: World) -> AsyncIterator[World]:
    """The world in the namespace where Secrets may be read, while the hub asks for consent to the terms of models."""
    hub = world.machinery.hub
    hub.open_terms, hub.tokens = False, {TOKENS["member"]: [GATED], TOKENS["stranger"]: []}
    tenant = replace(world, namespace=TOKEN_NAMESPACE)
    for name, token in TOKENS.items():
        data = {"token": base64.b64encode(token.encode()).decode()}
        await world.kube.create(SECRETS, {"metadata": {"name": name}, "data": data})
    yield tenant
    hub.open_terms, hub.tokens = True, {}
    for deployment in await tenant.every("ModelDeployment"):
        await tenant.delete("ModelDeployment", deployment["metadata"]["name"])
    for name in TOKENS:
        await world.kube.delete(f"{SECRETS}/{name}")

    async def gone() -> None:
        assert not await tenant.every("Pod")

    await world.eventually(gone)


def gated(secret: str | None) -> Manifest:
    token = {} if secret is None else {"tokenSecretRef": {"name": secret, "key": "token"}}
    return model("m", claim=None, model={"source": f"hf://{GATED}", **token})


REFUSALS = {
    None: ("HubUnauthorized", ("is gated: accept its terms at {hub}/" + GATED, "name it in spec.model.tokenSecretRef")),
    "absent": ("SecretNotFound", (f"no Secret {TOKEN_NAMESPACE}/absent", "create it")),
    "expired": ("HubUnauthorized", ("does not accept the token", "write a valid one into the Secret")),
    "stranger": ("HubForbidden", ("the token's account has no access", "accept its terms at {hub}/" + GATED)),
}


async def test_a_gated_model_waits_for_the_token_of_an_account_with_access(world: World, tenant: World) -> None:
    await world.fleet(group("a", product="H100-80"))
    for secret, (reason, says) in REFUSALS.items():
        await tenant.apply(gated(secret))
        found = await tenant.condition("ModelDeployment", "m", "Stalled", "True", reason)
        for words in says:
            assert words.format(hub=tenant.machinery.hub.url) in condition(found, "Stalled")["message"]
        assert condition(found, "Ready")["status"] == "False"
        assert not await tenant.pods("m")
    await tenant.apply(gated("member"))
    (found,) = await tenant.ready("m")
    assert "Stalled" not in {each["type"] for each in found["status"]["conditions"] if each["status"] == "True"}
    (container,) = lone(await tenant.pods("m"))["spec"]["containers"]
    (token,) = (each for each in container["env"] if each["name"] == "HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"]["name"] == "member"


async def test_a_model_that_is_not_there_says_where_to_look(world: World, tenant: World) -> None:
    await world.fleet(group("a"))
    absent = {"source": "hf://Qwen/Qwen-none", "tokenSecretRef": {"name": "stranger", "key": "token"}}
    await tenant.apply(model("m", claim=None, model=absent), model("beside"))
    await tenant.ready("beside")
    found = await tenant.condition("ModelDeployment", "m", "Stalled", "True", "ModelNotFound")
    message = condition(found, "Stalled")["message"]
    assert f"no repository {tenant.machinery.hub.url}/Qwen/Qwen-none" in message
    assert "check spec.model.source" in message
    await tenant.apply(model("m", claim=None, source="hf://Qwen/Qwen3-0.6B"))
    await tenant.ready("m")


async def test_a_hub_that_limits_requests_is_asked_again_when_it_says(world: World) -> None:
    await world.fleet(group("a"))
    hub = world.machinery.hub
    hub.set_fault(LIMITED, Fault.RATE_LIMITED, retry_after=10)  # longer than a request waits by itself
    try:
        await world.apply(model("m", claim=None, source=f"hf://{LIMITED}"))
        found = await world.condition("ModelDeployment", "m", "Reconciling", "True", "HubRateLimited")
        assert "vrampack tries again; a token in the Secret" in condition(found, "Reconciling")["message"]
        assert condition(found, "Stalled").get("status", "False") == "False"
    finally:
        hub.set_fault(LIMITED, None)
    await world.ready("m")


async def test_the_hub_is_down_and_comes_back(world: World) -> None:
    await world.fleet(group("a"))
    hub = world.machinery.hub
    await hub.offline()
    try:
        await world.apply(model("m", claim=None, source="hf://Qwen/Qwen3-1.7B"), model("beside"))
        await world.ready("beside")
        found = await world.condition("ModelDeployment", "m", "Reconciling", "True", "HubUnreachable")
        assert hub.url in condition(found, "Reconciling")["message"]
        assert condition(found, "Stalled").get("status", "False") == "False"
        assert condition(found, "Ready")["status"] == "False"
    finally:
        await hub.online()
    await world.ready("m", within=90)
