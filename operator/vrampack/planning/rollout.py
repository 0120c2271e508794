"""How a change reaches the replicas: which children to write, and whether a new template may go out now."""

from dataclasses import dataclass

from vrampack.api import names
from vrampack.api.modeldeployment import Rollout
from vrampack.packing.firstfit import pack
from vrampack.packing.occupied import occupied
from vrampack.packing.problem import Host, Item
from vrampack.planning.actions import ApplyChild, ChildAction, CreateChild, DeleteChild, PatchChild
from vrampack.planning.candidates import Eligibility, item
from vrampack.planning.cases import Case
from vrampack.planning.children import covers, deployment, device_request, disruption_budget, service, strategy
from vrampack.planning.inventory import Inventory
from vrampack.planning.podtemplate import requested, template_hash
from vrampack.planning.released import released
from vrampack.planning.snapshot import Json, PodView, PoolView
from vrampack.planning.verdict import Sized
from vrampack.units import each_of, human_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """Writes to a model's children. ``waits``: why a new template is held back; ``hosts``: what is left after it."""

    actions: tuple[ChildAction, ...] = ()
    waits: str = ""
    hosts: tuple[Host, ...] = ()


def roll(
    case: Case,
    *,
    pool: PoolView | None,
    hosts: tuple[Host, ...],
    stock: Inventory,
    eligible: Eligibility,
    stuck: bool,
    placing: bool,
) -> Rolled:
    """What to write for one model. ``hosts``: of its pool, as they are once this pass's placements are in place.

    ``stuck``: whether a replica of it fits nowhere. ``placing``: whether some are placed in this pass.
    """
    actions: list[ChildAction] = []
    waits = ""
    if isinstance(case.sized, Sized) and pool is not None:
        actions += _device_request(case, case.sized)
        change, waits, hosts = _deployment(case, case.sized, pool, hosts, stock, eligible, stuck)
        actions += change
    elif (scaled := _scale(case, {})) is not None:
        actions.append(scaled)
    if case.deployment is not None or actions:
        actions += _others(case, placing=placing)
    return Rolled(actions=tuple(actions), waits=waits, hosts=hosts)


def _deployment(
    case: Case,
    sized: Sized,
    pool: PoolView,
    hosts: tuple[Host, ...],
    stock: Inventory,
    eligible: Eligibility,
    stuck: bool,
) -> tuple[list[ChildAction], str, tuple[Host, ...]]:
    live = case.deployment
    if live is None:
        if "Deployment" in case.taken:
            return [], "", hosts
        manifest = deployment(case.model, sized, spec_hash=case.spec_hash, replicas=case.wanted, surge=True)
        return [CreateChild(model=case.model.key, manifest=manifest)], "", hosts
    if live.deleting:
        return [], "", hosts
    same = case.annotations.get(names.TEMPLATE_HASH) == template_hash(sized.template)
    intact = covers(sized.template, live.object["spec"]["template"])
    if case.in_force and (intact or not same):
        # Settled; or the template would be another one only because the estimate or the operator is: that waits.
        return _settled(case, hosts, stock, eligible, pool, stuck), "", hosts
    surge: bool | None = _surging(case)
    if not (same and intact):
        surge, hosts, waits = _room(case, sized, pool, hosts, stock, eligible)
        if surge is None:
            scaled = _scale(case, {})
            return ([scaled] if scaled is not None else []), waits, hosts
    manifest = deployment(case.model, sized, spec_hash=case.spec_hash, replicas=case.wanted, surge=bool(surge))
    return [ApplyChild(model=case.model.key, manifest=manifest, resource_version=live.resource_version)], "", hosts


def _device_request(case: Case, sized: Sized) -> list[ChildAction]:
    """What the template refers to comes before it. One of an older template stays while its pods may still be made: a
    user may go back to it."""
    actions: list[ChildAction] = []
    needed = set(case.requests_in_use)
    if sized.device_request is not None:
        manifest = device_request(case.model, sized.device_request)
        needed.add(manifest["metadata"]["name"])
        if manifest["metadata"]["name"] not in {each.name for each in case.device_requests}:
            actions.append(CreateChild(model=case.model.key, manifest=manifest))
    actions += [
        DeleteChild(
            model=case.model.key,
            kind=each.kind,
            namespace=each.namespace,
            name=each.name,
            uid=each.uid,
            resource_version=each.resource_version,
        )
        for each in case.device_requests
        if each.name not in needed
    ]
    return actions


def _settled(
    case: Case, hosts: tuple[Host, ...], stock: Inventory, eligible: Eligibility, pool: PoolView, stuck: bool
) -> list[ChildAction]:
    """The template stays; replicas follow the spec, and a rollout under way may change how it goes on."""
    assert case.deployment is not None
    change: Json = {}
    # A new replica that fits nowhere beside the old ones may yet fit instead of one; and the other way round.
    if case.rolling and stuck is _surging(case) and isinstance(case.sized, Sized):
        surge, _, _ = _room(case, case.sized, pool, hosts, stock, eligible)
        if surge is not None and surge is not _surging(case):
            change["strategy"] = strategy(surge=surge)
    spec = case.model.spec
    lone = spec is not None and spec.rollout is Rollout.AUTO and case.replicas == 1 and case.ready > 0
    if lone and case.rolling and not _surging(case):
        change["strategy"] = strategy(surge=True)  # in place would take the last one
    scaled = _scale(case, change)
    return [scaled] if scaled is not None else []


def _scale(case: Case, change: Json) -> PatchChild | None:
    """A patch of replicas and ``change``; None where there is nothing to change."""
    live = case.deployment
    if live is None or live.deleting:
        return None
    if live.object["spec"].get("replicas") != case.wanted:
        change = change | {"replicas": case.wanted}
    if not change:
        return None
    return PatchChild(
        model=case.model.key,
        kind="Deployment",
        namespace=live.namespace,
        name=live.name,
        resource_version=live.resource_version,
        patch={"spec": change},
    )


def _others(case: Case, *, placing: bool) -> list[ChildAction]:
    """Service and PodDisruptionBudget."""
    without_gpu = max(0, case.replicas - len(case.placed))
    port = case.model.spec.service.port if case.model.spec is not None else None
    wanted = [disruption_budget(case.model, without_gpu=without_gpu)]
    if port is not None:
        wanted.append(service(case.model, port=port))
    actions: list[ChildAction] = []
    for manifest in wanted:
        kind = manifest["kind"]
        live = case.children.get(kind)
        if placing and live is not None and kind == "PodDisruptionBudget":
            continue  # it counts who has a GPU: out of date again at once, and no pod that starts can be disrupted
        if live is None and (case.deployment is None or (placing and not case.ready)):
            continue  # none that starts can be reached or disrupted: it would only be rewritten for each of them
        if live is None and kind not in case.taken:
            actions.append(CreateChild(model=case.model.key, manifest=manifest))
        elif live is not None and not live.deleting and not covers(manifest["spec"], live.object["spec"]):
            actions.append(ApplyChild(model=case.model.key, manifest=manifest, resource_version=live.resource_version))
    return actions


def _surging(case: Case) -> bool:
    assert case.deployment is not None
    rolling = case.deployment.object["spec"].get("strategy", {}).get("rollingUpdate") or {}
    return rolling.get("maxSurge") not in (0, "0", None)


def _room(
    case: Case, sized: Sized, pool: PoolView, hosts: tuple[Host, ...], stock: Inventory, eligible: Eligibility
) -> tuple[bool | None, tuple[Host, ...], str]:
    """Surge (True), in place (False) or wait (None); what is left if it goes ahead; and why it waits.

    Auto never lets a model go to zero ready: a lone replica is replaced in place only where the user says so.
    """
    spec = case.model.spec
    if spec is None:
        return None, hosts, ""
    serving = tuple(pod for pod in case.placed if pod.ready)
    if not serving or case.replicas == 0:
        return False, hosts, ""
    wanted = prospect(case, sized, pool, hosts, eligible)
    fits = pack(hosts=hosts, items=[wanted])
    if fits.placed and spec.rollout is not Rollout.IN_PLACE:
        return True, occupied(hosts, fits.placed), ""
    need = f"{human_bytes(sized.need.bytes)} on {each_of(sized.need.gpus, 'GPU')}"
    if spec.rollout is Rollout.SURGE:
        return None, hosts, f"a replica of the new revision needs {need}, and no GPU has that free; the old one serves"
    backed = all(pack(hosts=released(stock, hosts, [pod]), items=[wanted]).placed for pod in serving)
    if not backed and not fits.placed:
        return (
            None,
            hosts,
            (
                f"a replica of the new revision needs {need}, which is more than is free and an old replica gives "
                "back; the old revision keeps serving"
            ),
        )
    if spec.rollout is Rollout.AUTO and min(len(serving), case.replicas) < 2:
        return (
            None,
            hosts,
            (
                f"a replica of the new revision needs {need} beside the only one that serves; free that much, or set "
                "spec.rollout to InPlace to replace it with a pause"
            ),
        )
    return False, hosts, ""


def prospect(case: Case, sized: Sized, pool: PoolView, hosts: tuple[Host, ...], eligible: Eligibility) -> Item:
    """A replica of the new template, before there is one."""
    spec = sized.template["spec"]
    cpu, memory = requested(sized.template)
    pod = PodView(
        namespace=case.model.namespace,
        name=f"{case.model.name} (next revision)",
        uid="",
        resource_version="",
        model=case.model.name,
        owner_uid=f"next:{case.model.uid}",
        created=0,
        phase="Pending",
        cpu=cpu,
        memory=memory,
        node_selector=spec.get("nodeSelector") or {},
        affinity=spec.get("affinity"),
        tolerations=tuple(spec.get("tolerations") or ()),
        runtime_class=spec.get("runtimeClassName") or "",
    )
    refused = eligible.refused(pod, model=case.model.key, pool=pool, hosts=hosts)
    return item(pod, sized.need, case, refused=refused, rank=0)
