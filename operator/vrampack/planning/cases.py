"""Each ModelDeployment with all that belongs to it: what it needs, its children, its pods."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from vrampack.api import names
from vrampack.errors import InvalidInputError
from vrampack.planning.inventory import Inventory
from vrampack.planning.moves import Moving
from vrampack.planning.need import Need
from vrampack.planning.sizing import size
from vrampack.planning.snapshot import ChildView, Json, ModelView, PodView, PoolView, Snapshot
from vrampack.planning.verdict import Blocked, Settings, Sized

_DEVICES: Final = "ResourceClaimTemplate"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One ModelDeployment. ``pods``: those of its own Deployment, ended ones left out."""

    model: ModelView
    pool: str
    sized: Sized | Blocked
    spec_hash: str
    children: Mapping[str, ChildView]
    """By kind; only those that this ModelDeployment owns."""
    taken: tuple[str, ...]
    """Kinds whose name another object has."""
    pods: tuple[PodView, ...]
    moving: tuple[Moving, ...] = ()
    """Moves of its replicas that are under way."""
    device_requests: tuple[ChildView, ...] = ()
    """Its ResourceClaimTemplates."""
    requests_in_use: frozenset[str] = frozenset()
    """Names of those that its Deployment or one of its ReplicaSets refers to."""

    @property
    def deployment(self) -> ChildView | None:
        """Its Deployment, where there is one."""
        return self.children.get("Deployment")

    @cached_property
    def annotations(self) -> Json:
        """Of the Deployment."""
        found = self.deployment
        return (found.object["metadata"].get("annotations") or {}) if found is not None else {}

    @property
    def in_force(self) -> bool:
        """Whether the Deployment's template was made from the present spec."""
        return self.deployment is not None and self.annotations.get(names.SPEC_HASH) == self.spec_hash

    @property
    def replicas(self) -> int:
        """Replicas that are wanted. Of a spec that can't be read: those that there were."""
        if self.model.spec is not None:
            return self.model.spec.replicas
        return int(self.deployment.object["spec"].get("replicas", 0)) if self.deployment is not None else 0

    @property
    def wanted(self) -> int:
        """Replicas that the Deployment is to have: one more for each that has not left its old place yet."""
        return self.replicas + sum(each.surges for each in self.moving) if self.replicas else 0

    @property
    def placed(self) -> tuple[PodView, ...]:
        """Pods that hold a claim and stay."""
        return tuple(pod for pod in self.pods if pod.claim is not None and not pod.deleting)

    @property
    def gated(self) -> tuple[PodView, ...]:
        """Pods that wait for a GPU."""
        return tuple(pod for pod in self.pods if pod.gated and not pod.deleting)

    @property
    def surplus(self) -> tuple[PodView, ...]:
        """Of these, those that are more than is wanted, the last by name: their Deployment takes them back. While it
        replaces pods there are more than usual."""
        gated = sorted(self.gated, key=lambda pod: pod.name)
        return () if self.rolling else tuple(gated[max(0, self.wanted - len(self.placed)) :])

    @property
    def ready(self) -> int:
        """Replicas that answer requests; of one that moves, the old and the new one count once."""
        twice = {each.new.uid for each in self.moving if each.surges and each.new is not None}
        return sum(pod.ready for pod in self.placed if pod.uid not in twice)

    @cached_property
    def apart(self) -> bool:
        """Whether one of its replicas was promised a node without another: that holds until it is gone, whatever the
        spec says by now."""
        return any(_apart(need) for need in {pod.need for pod in self.pods if pod.claim is not None})

    @cached_property
    def rolling(self) -> bool:
        """Whether pods of an older template are still there, or the Deployment has not been looked at yet."""
        if self.deployment is None:
            return False
        status = self.deployment.object.get("status") or {}
        if status.get("observedGeneration", 0) < self.deployment.object["metadata"].get("generation", 0):
            return True
        return bool(status.get("replicas", 0) != status.get("updatedReplicas", 0))

    @property
    def live_need(self) -> Need | None:
        """What the template in force asks for; None where there is none that can be read."""
        if self.deployment is None or not self.in_force:
            return None
        template = self.deployment.object["spec"]["template"].get("metadata") or {}
        try:
            return Need.from_json((template.get("annotations") or {}).get(names.NEED, ""))
        except InvalidInputError:
            return None


def cases(
    snapshot: Snapshot, settings: Settings, *, stock: Inventory, moving: Iterable[Moving] = ()
) -> tuple[Case, ...]:
    """A case for each ModelDeployment that is not being deleted, in the snapshot's order. ``moving``: under way."""
    moves: dict[str, list[Moving]] = defaultdict(list)
    for each in moving:
        moves[each.model].append(each)
    products: dict[str, set[str]] = defaultdict(set)
    for gpu in stock.gpus.values():
        if gpu.product:
            products[stock.pool_of[gpu.node]].add(gpu.product)
    pools: dict[str, PoolView] = {pool.name: pool for pool in snapshot.pools}
    profiles = {profile.name: profile for profile in snapshot.profiles}
    children: dict[tuple[str, str], list[ChildView]] = defaultdict(list)
    for child in snapshot.children:
        children[child.namespace, child.name].append(child)
    requests: dict[str, list[ChildView]] = defaultdict(list)
    for child in snapshot.children:
        if child.kind == _DEVICES and not child.deleting:
            requests[child.owner_uid].append(child)
    referred: dict[str, set[str]] = defaultdict(set)
    for replica_set in snapshot.replica_sets:
        referred[replica_set.owner_uid] |= replica_set.requests
    deployment_of = {each.uid: each.owner_uid for each in snapshot.replica_sets}
    pods: dict[str, list[PodView]] = defaultdict(list)
    for pod in snapshot.pods:
        if not pod.ended and (owner := deployment_of.get(pod.owner_uid)):
            pods[owner].append(pod)
    found = []
    for model in snapshot.models:
        if model.deleting:
            continue
        named = [each for each in children.get((model.namespace, model.name), []) if each.kind != _DEVICES]
        own = {child.kind: child for child in named if child.owner_uid == model.uid}
        foreign = {child.kind for child in named if child.owner_uid != model.uid}
        foreign |= {kind for key, kind in snapshot.memory.conflicts if key == model.key}
        spec_hash = hash_of(model)
        owned = own.get("Deployment")
        annotations = (owned.object["metadata"].get("annotations") or {}) if owned is not None else {}
        in_force = annotations if annotations.get(names.SPEC_HASH) == spec_hash else {}
        pool = model.spec.placement.pool if model.spec is not None else names.DEFAULT_POOL
        found.append(
            Case(
                model=model,
                pool=pool,
                sized=size(
                    model,
                    pool=pools.get(pool),
                    profiles=profiles,
                    resolutions=snapshot.resolutions,
                    commit=in_force.get(names.COMMIT, ""),
                    draft_commit=in_force.get(names.DRAFT_COMMIT, ""),
                    settings=settings,
                    products=products[pool],
                ),
                spec_hash=spec_hash,
                children=own,
                taken=tuple(sorted(foreign - own.keys())),
                pods=tuple(pods.get(owned.uid, ())) if owned is not None else (),
                moving=tuple(moves[model.key]),
                device_requests=tuple(requests.get(model.uid, ())),
                requests_in_use=_referred(owned) | referred[owned.uid] if owned is not None else frozenset(),
            )
        )
    return tuple(found)


def _apart(need: str) -> bool:
    try:
        return bool(Need.from_json(need).apart)
    except InvalidInputError:
        return False


def _referred(deployment: ChildView) -> frozenset[str]:
    """Names of the ResourceClaimTemplates of a Deployment's pods."""
    claims = deployment.object["spec"]["template"]["spec"].get("resourceClaims") or ()
    return frozenset(each.get("resourceClaimTemplateName", "") for each in claims)


def hash_of(model: ModelView) -> str:
    """Of what a user changes in order to get a new template. Scaling does not, and no default of a newer version.

    Empty, which is no hash, for a spec that can't be read: no template was ever made from that.
    """
    if model.spec is None:
        return ""
    try:
        chosen = model.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    except ValueError:  # an overlay of hundreds of levels; sizing says so
        return ""
    content = {key: value for key, value in chosen.items() if key not in ("replicas", "rollout")}
    text = json.dumps([content, model.refresh], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
