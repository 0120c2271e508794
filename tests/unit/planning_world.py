"""Small worlds for tests of the plan: a snapshot from a few objects, and what the API server makes of a plan.

Models are custom engines with a declared claim, so that a test names its bytes; `estimated` is one that is computed.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.unit.known_models import LLAMA_8B, LLAMA_8B_WEIGHTS
from vrampack.api import names
from vrampack.api.gpunode import GPUNodeSpec, GPUNodeStatus
from vrampack.api.gpupool import GPUPoolSpec
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.planning.actions import ApplyChild, CreateChild, PatchChild, Plan
from vrampack.planning.need import Need
from vrampack.planning.plan import plan
from vrampack.planning.snapshot import (
    ChildView,
    Claim,
    GPUNodeView,
    Memory,
    ModelView,
    NodeView,
    PodView,
    PoolView,
    ProfileView,
    ReplicaSetView,
    Snapshot,
)
from vrampack.planning.verdict import Settings
from vrampack.units import GIB, parse_bytes

Json = dict[str, Any]

NAMESPACE = "serving"
NOW = 1_800_000_000.0
STARTED = NOW - 3600
H100 = "NVIDIA-H100-80GB-HBM3"


def model(
    name: str = "llama",
    *,
    per_gpu: str = "20Gi",
    replicas: int = 1,
    gpus: int = 1,
    refresh: str = "",
    status: Json | None = None,
    **fields: Any,
) -> ModelView:
    """A custom engine that declares its memory."""
    raw = {
        "model": {"source": "hf://org/model"},
        "serving": {"contextLength": 4096, "concurrency": 4},
        "engine": {"name": "custom", "image": "registry.example.com/server:1"},
        "memory": {"perGPU": per_gpu},
        "replicas": replicas,
        "parallelism": {"tensor": gpus},
    } | fields
    return ModelView(
        namespace=NAMESPACE,
        name=name,
        uid=f"model-{name}",
        resource_version="7",
        generation=1,
        deleting=False,
        refresh=refresh,
        spec=ModelDeploymentSpec.model_validate(raw),
        raw_spec=raw,
        status=status or {},
    )


def estimated(name: str = "llama", *, source: str = "profile://llama-8b", **fields: Any) -> ModelView:
    """vLLM, sized by the estimate."""
    return model(name, **({"model": {"source": source}, "engine": {}, "memory": {}} | fields))


def unreadable(found: ModelView, problem: str) -> ModelView:
    """The same object with a spec that nobody can read."""
    return replace(found, spec=None, problem=problem, generation=found.generation + 1)


def profile(name: str = "llama-8b", *, source: str = "hf://meta/llama", **fields: Any) -> ProfileView:
    """Llama 3.1 8B in bf16."""
    shape = {field: getattr(LLAMA_8B, field) for field in ("model_type", "layers", "hidden_size", "intermediate_size")}
    shape |= {field: getattr(LLAMA_8B, field) for field in ("vocab_size", "attention_heads", "kv_heads", "head_dim")}
    raw = {
        "source": source,
        "revision": "a" * 40,
        "architecture": shape | {"dtype": "bfloat16", "max_context": 131072},
        "parameters": LLAMA_8B_WEIGHTS.parameters,
        "weight_files": {"bytes": LLAMA_8B_WEIGHTS.total, "embedding_bytes": LLAMA_8B_WEIGHTS.embedding},
        "precision": "bf16",
    } | fields
    return ProfileView(name=name, generation=1, spec=ModelProfileSpec.model_validate(raw))


def gpu(uuid: str = "GPU-1", *, memory: str | None = "80Gi", index: int | None = 0, **fields: Any) -> Json:
    """One GPU as the agent reports it; without memory it has vanished from the report."""
    seen = {"product": H100, "health": "Healthy", "memory": memory, "index": index} if memory is not None else {}
    return {"uuid": uuid} | seen | fields


def gpus(count: int, *, first: str = "GPU", **fields: Any) -> list[Json]:
    """Several equal ones: GPU-1, GPU-2, …"""
    return [gpu(f"{first}-{index + 1}", index=index, **fields) for index in range(count)]


def gpu_node(
    name: str = "n1", *found: Json, alive: bool = True, spec: Sequence[Json] = (), **status: Any
) -> GPUNodeView:
    """A GPUNode; ``found``: its GPUs."""
    raw = {"gpus": list(found) or [gpu()]} | status
    return GPUNodeView(
        name=name,
        generation=1,
        spec=GPUNodeSpec.model_validate({"gpus": list(spec)}),
        status=GPUNodeStatus.model_validate(raw),
        raw_status=raw,
        agent_alive=alive,
    )


def node(name: str = "n1", *, ready: bool = True, unschedulable: bool = False, **fields: Any) -> NodeView:
    """A Node with room for everything but GPUs."""
    room = {"labels": {}, "taints": (), "cpu": 256_000, "memory": 2048 * GIB, "pods": 110} | fields
    return NodeView(name=name, ready=ready, unschedulable=unschedulable, **room)


def pool(name: str = "default", *, generation: int = 1, status: Json | None = None, **spec: Any) -> PoolView:
    return PoolView(name=name, generation=generation, spec=GPUPoolSpec.model_validate(spec), status=status or {})


PARALLEL = pool(generation=0, startup="Parallel")


def pod(name: str = "llama-0", *, of: str = "llama", need: str = "20Gi", tensor: int = 1, **fields: Any) -> PodView:
    """A gated pod of the model ``of``."""
    wanted = Need(gpus=tensor, bytes=parse_bytes(need), kv=0, context=0, comm=0)
    usual: Json = {
        "uid": f"uid-{name}",
        "resource_version": "1",
        "owner_uid": f"rs-{of}",
        "created": NOW - 60,
        "phase": "Pending",
        "gated": True,
        "gates": (names.GATE,),
        "annotated": True,
        "need": wanted.to_json(),
    }
    return PodView(namespace=NAMESPACE, name=name, model=of, **(usual | fields))


def placed(name: str = "llama-0", *, on: str = "GPU-1", claim: str = "20Gi", **fields: Any) -> PodView:
    """A pod with a claim; ``on``: GPUs, joined by commas. It is bound and ready unless told otherwise."""
    usual: Json = {
        "gated": False,
        "gates": (),
        "ready": True,
        "node": "n1",
        "phase": "Running",
        "claim": Claim(gpus=tuple(on.split(",")), bytes=parse_bytes(claim), epoch=1),
    }
    return pod(name, need=claim, **(usual | fields))


def child(manifest: Json, owner: str, *, status: Json | None = None) -> ChildView:
    """A child as the API server has it."""
    meta = manifest["metadata"]
    found = copy.deepcopy(manifest)
    found["metadata"] |= {"generation": 1}
    found["status"] = status or {}
    return ChildView(
        kind=manifest["kind"],
        namespace=meta["namespace"],
        name=meta["name"],
        uid=f"{manifest['kind'].lower()}-{meta['name']}",
        resource_version="3",
        owner_uid=owner,
        deleting=False,
        object=found,
    )


def children(
    of: ModelView, *, pools: Sequence[PoolView] = (), profiles: Sequence[ProfileView] = (), rolling: bool = False
) -> tuple[ChildView, ...]:
    """The children that the operator makes for a model; ``rolling``: pods of an older template are still there."""
    snapshot = world(of, pools=pools, profiles=profiles)
    first = plan(snapshot, Settings())
    made = (*first.children, *plan(told(snapshot, first), Settings()).children)  # the Service follows the Deployment
    count = of.spec.replicas if of.spec is not None else 0
    status = {"observedGeneration": 1, "replicas": count, "updatedReplicas": 0 if rolling else count}
    return tuple(child(each.manifest, of.uid, status=status) for each in made if isinstance(each, CreateChild))


def deployment(found: Iterable[ChildView]) -> ChildView:
    return next(each for each in found if each.kind == "Deployment")


def changed(found: Iterable[ChildView], kind: str, **spec: Any) -> tuple[ChildView, ...]:
    """The children with other values in the spec of one of them."""
    return tuple(
        replace(each, object=each.object | {"spec": each.object["spec"] | spec}) if each.kind == kind else each
        for each in found
    )


def annotated(found: Iterable[ChildView], **annotations: str) -> tuple[ChildView, ...]:
    """The children with other annotations of ours on the Deployment: ``template_hash="…"``."""
    result = []
    for each in found:
        if each.kind == "Deployment":
            meta = dict(each.object["metadata"])
            ours = {f"{names.GROUP}/{key.replace('_', '-')}": value for key, value in annotations.items()}
            meta["annotations"] = meta["annotations"] | ours
            each = replace(each, object=each.object | {"metadata": meta})  # noqa: PLW2901
        result.append(each)
    return tuple(result)


def spec_hash(of: ModelView) -> str:
    """What the operator writes on the Deployment of a model with this spec."""
    found: str = deployment(children(of)).object["metadata"]["annotations"][names.SPEC_HASH]
    return found


def world(
    *models: ModelView,
    pods: Sequence[PodView] = (),
    gpu_nodes: Sequence[GPUNodeView] | None = None,
    nodes: Sequence[NodeView] | None = None,
    pools: Sequence[PoolView] = (),
    made: Sequence[ChildView] | None = None,
    now: float = NOW,
    memory: Memory | None = None,
    **others: Any,
) -> Snapshot:
    """A snapshot. Left out: one node with one GPU of 80 GiB; the children of each model that has pods."""
    fleet = (gpu_node(),) if gpu_nodes is None else tuple(gpu_nodes)
    if made is None:
        owned = {each.model for each in pods}
        facts = others.get("profiles", ())
        made = [part for each in models if each.name in owned for part in children(each, pools=pools, profiles=facts)]
    if not any(each.name == names.DEFAULT_POOL for each in pools):
        pools = (*pools, pool(generation=0))
    return Snapshot(
        now=now,
        models=tuple(sorted(models, key=lambda each: each.name)),
        gpu_nodes=fleet,
        nodes=tuple(node(each.name) for each in fleet) if nodes is None else tuple(nodes),
        pods=tuple(pods),
        pools=tuple(sorted(pools, key=lambda each: each.name)),
        replica_sets=tuple(
            ReplicaSetView(
                namespace=NAMESPACE,
                name=each.name,
                uid=f"rs-{each.name}",
                owner_uid=f"deployment-{each.name}",
                replicas=1,
            )
            for each in models
        ),
        children=tuple(made),
        memory=memory or Memory(started=STARTED),
        **others,
    )


def decide(snapshot: Snapshot, **settings: Any) -> Plan:
    return plan(snapshot, Settings(**settings))


def where(found: Plan) -> dict[str, tuple[str, ...]]:
    """GPUs by pod."""
    return {each.pod.name: each.gpus for each in found.placements}


def status_of(found: Plan, name: str = "llama", *, kind: str = "ModelDeployment") -> Json:
    return next(each.status for each in found.statuses if (each.kind, each.name) == (kind, name))


def condition(status: Json, type_: str) -> Json:
    return next((each for each in status["conditions"] if each["type"] == type_), {})


def waiting(found: Plan, name: str = "llama") -> Json:
    """The first entry of what waits."""
    entry: Json = status_of(found, name)["waiting"][0]
    return entry


def of_kind(found: Plan, kind: type[Any]) -> list[Any]:
    return [each for each in found.children if isinstance(each, kind)]


def told(snapshot: Snapshot, found: Plan) -> Snapshot:
    """The snapshot after the plan's writes: claims, children and statuses as they would be read back."""
    claims = {each.pod.uid: each for each in found.placements}
    pods = tuple(
        replace(
            each,
            gated=False,
            gates=(),
            claim=Claim(gpus=mine.gpus, bytes=int(mine.annotations[names.CLAIM]), epoch=1),
        )
        if (mine := claims.get(each.uid)) is not None
        else each
        for each in snapshot.pods
    )
    statuses = {(each.kind, each.name): each.status for each in found.statuses}
    owners = {each.key: each.uid for each in snapshot.models}
    made = {(each.kind, each.name): each for each in snapshot.children}
    for action in found.children:
        match action:
            case CreateChild(manifest=manifest) | ApplyChild(manifest=manifest):
                key = (manifest["kind"], manifest["metadata"]["name"])
                before = made.get(key)
                made[key] = child(manifest, owners[action.model], status=before.object["status"] if before else None)
            case PatchChild(kind=kind, name=name, patch=patch):
                before = made[kind, name]
                made[kind, name] = changed([before], kind, **patch["spec"])[0]
    return replace(
        snapshot,
        pods=pods,
        children=tuple(made.values()),
        models=tuple(
            replace(each, status=statuses.get(("ModelDeployment", each.name), each.status)) for each in snapshot.models
        ),
        pools=tuple(replace(each, status=statuses.get(("GPUPool", each.name), each.status)) for each in snapshot.pools),
        gpu_nodes=tuple(_reported(each, statuses.get(("GPUNode", each.name))) for each in snapshot.gpu_nodes),
    )


def _reported(view: GPUNodeView, mine: Mapping[str, Any] | None) -> GPUNodeView:
    """The agent's fields beside the operator's, merged as the API server merges them."""
    if mine is None:
        return view
    ours = {each["uuid"]: each for each in mine["gpus"]}
    merged = [each | ours.pop(each["uuid"], {}) for each in view.raw_status["gpus"]]
    raw = view.raw_status | dict(mine) | {"gpus": [*merged, *ours.values()]}
    return replace(view, raw_status=raw, status=GPUNodeStatus.model_validate(raw))
