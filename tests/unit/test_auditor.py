"""The auditor finds each broken invariant, and nothing in what is allowed."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.integration.audit_ledger import Change, Kind, Ledger
from vrampack.api import names

A, B = "GPU-a", "GPU-b"


@dataclass
class World:
    """A cluster of one node with two GPUs of 100 bytes, told change by change, a tenth of a second apart."""

    ledger: Ledger = field(default_factory=Ledger)
    now: float = 1_000.0
    versions: Any = field(default_factory=lambda: itertools.count(1))

    def tell(self, kind: Kind, item: dict[str, Any], **how: Any) -> None:
        self.now += 0.1
        self.ledger.apply(Change(kind=kind, version=next(self.versions), object=item, seen=self.now, **how))

    def node(self, **gpus: dict[str, Any] | None) -> None:
        """The GPUNode: what differs from two healthy, empty GPUs, by ``a`` and ``b``; None leaves one out."""
        status, spec = [], []
        for letter, uuid in (("a", A), ("b", B)):
            change = gpus.get(letter, {})
            if change is not None:
                spec.append({"uuid": uuid} | {key: change[key] for key in ("cordoned", "reserve") if key in change})
                status.append({"uuid": uuid, "memory": "100", "health": "Healthy"} | change)
        item = {"metadata": {"name": "n"}, "spec": {"gpus": spec}, "status": {"gpus": status}}
        self.tell(Kind.GPU_NODE, item)

    def pod(self, name: str, *, deleted: bool = False, **how: Any) -> None:
        self.tell(Kind.POD, pod(name, **how), deleted=deleted)

    def place(self, name: str, *gpus: str, claim: str = "40", **how: Any) -> None:
        """As the operator does it: a gated pod, then claim, node and no gate in one change."""
        self.pod(name)
        self.pod(name, gpus=gpus or (A,), claim=claim, **how)

    @property
    def found(self) -> str:
        return "" if self.ledger.violation is None else self.ledger.violation.message


def pod(
    name: str,
    *,
    gpus: tuple[str, ...] = (),
    claim: str | None = None,
    gated: bool | None = None,
    pinned: str | None = "n",
    node: str = "",
    phase: str = "Pending",
    epoch: str = "1",
    managed: bool = True,
    **annotations: str,
) -> dict[str, Any]:
    """A pod with a claim where one is given, else one that waits behind its gate."""
    claimed = {names.GPUS: ",".join(gpus), names.CLAIM: claim, names.EPOCH: epoch} if claim is not None else {}
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [pinned]}]}, {}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {
        "metadata": {
            "namespace": "serving",
            "name": name,
            "uid": f"uid-{name}",
            "labels": {names.MANAGED_BY: names.MANAGER} if managed else {},
            "annotations": {**claimed, **{f"{names.GROUP}/{key}": value for key, value in annotations.items()}},
        },
        "spec": {
            "nodeName": node,
            "schedulingGates": [{"name": names.GATE}] if (claim is None if gated is None else gated) else [],
            "affinity": {"nodeAffinity": required} if claim is not None and pinned else {},
        },
        "status": {"phase": phase},
    }


@pytest.fixture
def world() -> World:
    world = World()
    world.node()
    return world


class TestClaims:
    """Claims, foreign use and reserves fit on every GPU whenever one is written."""

    def test_claims_that_fill_a_gpu_to_the_byte_are_fine(self, world: World) -> None:
        world.place("one", claim="60")
        world.place("two", claim="40")
        assert world.found == ""
        assert world.ledger.claims == 2

    def test_a_byte_too_many_is_found_and_said_with_the_history(self, world: World) -> None:
        world.place("one", claim="60")
        world.place("two", claim="41")
        assert "GPU-a of n, but it is overbooked by 1 bytes" in world.found
        with pytest.raises(AssertionError, match=r"(?s)pod serving/one .*claim=60.*pod serving/two .*claim=41"):
            world.ledger.check()

    @pytest.mark.parametrize(
        ("gpu", "fits"),
        [
            ({"foreign": [{"name": "x", "bytes": "59"}]}, True),
            ({"foreign": [{"name": "x", "bytes": "60"}]}, True),
            ({"foreign": [{"name": "x", "bytes": "30"}, {"name": "y", "bytes": "31"}]}, False),
            ({"reserve": "60"}, True),
            ({"reserve": "61"}, False),
            ({"processes": [{"podUID": "uid-gone", "bytes": "60"}]}, True),
            ({"processes": [{"podUID": "uid-gone", "bytes": "61"}]}, False),
            (
                {"processes": [{"podUID": "uid-gone", "bytes": "1"}], "claims": [{"uid": "uid-gone", "bytes": "61"}]},
                False,
            ),
            ({"claims": [{"uid": "uid-gone", "bytes": "61"}]}, True),
            ({"memory": "40"}, True),
            ({"memory": "39"}, False),
            ({"cordoned": True}, False),
            ({"health": "Unhealthy", "xid": 79}, False),
            (None, False),
        ],
    )
    def test_a_claim_of_40_on_a_gpu_of_100_with(self, gpu: dict[str, Any] | None, fits: bool) -> None:
        world = World()
        world.node(a=gpu)
        world.place("one", claim="40")
        assert (world.found == "") is fits

    def test_a_gpu_without_the_agents_fields_has_vanished(self) -> None:
        world = World()
        item = {"metadata": {"name": "n"}, "status": {"gpus": [{"uuid": A, "claimed": "0"}]}}
        world.tell(Kind.GPU_NODE, item)
        world.place("one")
        assert "it is not there" in world.found

    def test_what_a_pod_uses_beyond_its_claim_counts(self, world: World) -> None:
        world.place("one", claim="40")
        world.node(a={"processes": [{"podUID": "uid-one", "bytes": "70"}]})
        world.now += 5
        world.place("two", claim="31")
        assert "overbooked by 1 bytes" in world.found

    def test_what_a_pod_uses_within_its_claim_does_not_count_twice(self, world: World) -> None:
        world.place("one", claim="40")
        world.node(a={"processes": [{"podUID": "uid-one", "bytes": "39"}]})
        world.now += 5
        world.place("two", claim="60")
        assert world.found == ""

    def test_every_gpu_of_a_replica_is_checked(self, world: World) -> None:
        world.place("one", B, claim="70")
        world.place("two", A, B, claim="40")
        assert "GPU-b of n" in world.found

    def test_a_terminating_pod_holds_its_gpu(self, world: World) -> None:
        world.place("one", claim="70")
        going = pod("one", gpus=(A,), claim="70", node="n", phase="Running")
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        world.tell(Kind.POD, going)
        world.place("two", claim="40")
        assert "overbooked" in world.found

    @pytest.mark.parametrize("end", ["gone", "Succeeded", "Failed"])
    def test_a_pod_that_ended_holds_nothing(self, world: World, end: str) -> None:
        world.place("one", claim="70")
        phase = "Running" if end == "gone" else end
        world.pod("one", gpus=(A,), claim="70", node="n", phase=phase, deleted=end == "gone")
        world.place("two", claim="70")
        assert world.found == ""

    @pytest.mark.parametrize("end", ["gone", "Failed"])
    def test_but_its_processes_do_for_as_long_as_they_are_there(self, world: World, end: str) -> None:
        world.place("one", claim="70")
        world.node(a={"processes": [{"podUID": "uid-one", "bytes": "69"}]})
        world.now += 5
        phase = "Running" if end == "gone" else end
        world.pod("one", gpus=(A,), claim="70", node="n", phase=phase, deleted=end == "gone")
        world.place("two", claim="70")
        assert "processes without a claim 69" in world.found

    def test_a_gpu_may_shrink_below_its_claims(self, world: World) -> None:
        world.place("one", claim="70")
        world.node(a={"memory": "50"})
        assert world.found == ""

    def test_a_writer_may_not_know_yet_what_changed_a_moment_ago(self, world: World) -> None:
        world.node(a={"memory": "30"})
        world.now += world.ledger.grace - 0.5
        world.place("one", claim="40")
        assert world.found == ""

    def test_but_has_to_know_it_in_the_end(self, world: World) -> None:
        world.node(a={"memory": "30"})
        world.now += world.ledger.grace
        world.place("one", claim="40")
        assert "overbooked by 10 bytes" in world.found

    def test_a_gpu_of_another_node_is_none(self, world: World) -> None:
        world.place("one", pinned="m")
        assert "its node has no GPUNode" in world.found

    def test_a_claim_is_bound_to_one_node(self, world: World) -> None:
        world.place("one", pinned=None)
        assert "not bound to one node" in world.found

    @pytest.mark.parametrize(("gpus", "claim"), [((), "40"), ((A, A), "40"), ((A,), "0"), ((A,), "much")])
    def test_a_claim_is_an_amount_on_distinct_gpus(self, world: World, gpus: tuple[str, ...], claim: str) -> None:
        world.pod("one")
        world.pod("one", gpus=gpus, claim=claim)
        assert world.found

    @pytest.mark.parametrize(("age", "fits"), [(61.0, True), (63.0, False)])
    def test_a_silent_node_takes_nothing(self, world: World, age: float, fits: bool) -> None:
        renewed = "1970-01-01T00:16:40.000000Z"  # 1,000 s
        lease = {
            "metadata": {"name": f"{names.AGENT_LEASE_PREFIX}n"},
            "spec": {"renewTime": renewed, "leaseDurationSeconds": 60},
        }
        world.tell(Kind.LEASE, lease)
        world.now = 1_000 + age
        world.place("one")
        assert (world.found == "") is fits

    def test_the_epoch_never_goes_back(self, world: World) -> None:
        world.place("one", claim="10", epoch="7")
        world.place("two", claim="10", epoch="7")
        assert world.found == ""
        world.place("three", claim="10", epoch="6")
        assert "epoch 6 of pod serving/three is older than 7" in world.found


class TestPoolReserve:
    """What the pool of a node keeps free on each GPU."""

    def pool(self, world: World, name: str, reserve: str, **selector: str) -> None:
        spec = {"reservePerGPU": reserve, "nodeSelector": selector}
        world.tell(Kind.GPU_POOL, {"metadata": {"name": name}, "spec": spec})

    def test_the_first_pool_by_name_that_matches_has_the_node(self, world: World) -> None:
        world.tell(Kind.NODE, {"metadata": {"name": "n", "labels": {"zone": "a"}}})
        self.pool(world, "zz", "90", zone="a")
        self.pool(world, "mm", "30", zone="a")
        self.pool(world, "aa", "90", zone="b")
        self.pool(world, "default", "90")
        world.now += 5
        world.place("one", claim="70")
        assert world.found == ""
        world.place("two", claim="1")
        assert "reserve 30" in world.found

    def test_the_default_pool_has_what_no_other_has(self, world: World) -> None:
        self.pool(world, "default", "61")
        self.pool(world, "aa", "0", zone="a")
        world.now += 5
        world.place("one", claim="40")
        assert "reserve 61" in world.found

    def test_a_raised_reserve_need_not_be_known_at_once(self, world: World) -> None:
        self.pool(world, "default", "0")
        world.now += 5
        self.pool(world, "default", "90")
        world.place("one", claim="40")
        assert world.found == ""
        world.now += 5
        world.place("two", claim="40")
        assert "reserve 90" in world.found


class TestGate:
    """A pod loses its gate in the change that writes its claim, and the claim stays as it is."""

    def test_a_gate_without_a_claim_is_missed(self, world: World) -> None:
        world.pod("one")
        world.pod("one", gated=False)
        assert "lost its gate without" in world.found

    @pytest.mark.parametrize("absent", [names.GPUS, names.CLAIM, names.EPOCH])
    def test_a_claim_is_whole(self, world: World, absent: str) -> None:
        world.pod("one")
        half = pod("one", gpus=(A,), claim="40")
        del half["metadata"]["annotations"][absent]
        world.tell(Kind.POD, half)
        assert f"lost its gate without {absent}" in world.found

    def test_a_claim_behind_the_gate_is_half_a_placement(self, world: World) -> None:
        world.pod("one")
        world.pod("one", gpus=(A,), claim="40", gated=True)
        assert "has a claim and still its gate" in world.found

    def test_no_pod_is_born_without_its_gate(self, world: World) -> None:
        world.pod("one", gated=False)
        assert "has no gate without" in world.found

    def test_no_pod_is_born_with_a_claim(self, world: World) -> None:
        world.pod("one", gpus=(A,), claim="40")
        assert "was created with a claim" in world.found

    def test_no_pod_starts_without_a_claim(self, world: World) -> None:
        world.pod("one", gated=True, node="n")
        assert "is on n without" in world.found

    @pytest.mark.parametrize(
        "after",
        [
            {"gpus": (B,), "claim": "40"},
            {"gpus": (A,), "claim": "41"},
            {"gpus": (A,), "claim": "40", "epoch": "2"},
            {"gpus": (A,), "claim": "40", "utilization": "0.5"},
            {"gpus": (A,), "claim": "40", "mps-limit": "1G"},
            {"gpus": (A,), "claim": "40", "scope": "node"},
            {"gated": False},
        ],
        ids=["other GPU", "other amount", "other epoch", "more", "another limit", "another scope", "gone"],
    )
    def test_a_claim_never_changes(self, world: World, after: dict[str, Any]) -> None:
        world.place("one")
        world.pod("one", **after)
        assert "the claim of pod serving/one changed" in world.found

    def test_not_even_when_the_label_goes_first(self, world: World) -> None:
        world.place("one")
        world.pod("one", gpus=(A,), claim="40", managed=False)
        assert world.found == ""
        world.pod("one", gated=False, managed=False)
        assert "the claim of pod serving/one changed" in world.found

    def test_pods_of_others_are_left_alone(self, world: World) -> None:
        world.pod("one", gated=False, node="n", managed=False)
        world.pod("two", gpus=(A,), claim="90", managed=False)
        world.place("three", claim="90")
        assert world.found == ""

    def test_the_first_violation_is_kept(self, world: World) -> None:
        world.pod("one")
        world.pod("one", gated=False)
        world.pod("two", gated=False)
        assert "serving/one" in world.found


class TestGaps:
    """After changes were missed, what can't be known is not held against anyone."""

    def test_what_was_there_before_the_audit_is_taken_as_it_is(self, world: World) -> None:
        world.tell(Kind.POD, pod("one", gpus=(A,), claim="400", node="n"), listed=True)
        assert world.found == ""

    def test_a_placement_that_went_unseen_is_fine(self, world: World) -> None:
        world.pod("one")
        world.tell(Kind.POD, pod("one", gpus=(A,), claim="40"), listed=True, blind_since=world.now)
        assert world.found == ""

    def test_a_gate_that_went_unseen_without_a_claim_is_not(self, world: World) -> None:
        world.pod("one")
        world.tell(Kind.POD, pod("one", gated=False), listed=True, blind_since=world.now)
        assert "lost its gate without" in world.found

    def test_a_gpu_that_was_cordoned_meanwhile_may_have_taken_it_before(self, world: World) -> None:
        world.pod("one")
        blind = world.now
        world.node(a={"cordoned": True})
        world.now += 10
        world.tell(Kind.POD, pod("one", gpus=(A,), claim="40"), listed=True, blind_since=blind)
        assert world.found == ""

    def test_but_claims_that_never_fitted_together_are_found(self, world: World) -> None:
        world.place("one", claim="70")
        world.pod("two")
        world.tell(Kind.POD, pod("two", gpus=(A,), claim="40"), listed=True, blind_since=world.now)
        assert "claims of 110 exceed 100 usable bytes" in world.found


class TestModelDeployments:
    """A user's object carries nothing of ours but its status."""

    def told(self, *, allowed: frozenset[str] = frozenset(), **metadata: Any) -> str:
        world = World(ledger=Ledger(allowed_annotations=allowed))
        world.tell(Kind.MODEL_DEPLOYMENT, {"metadata": {"namespace": "serving", "name": "m", **metadata}})
        return world.found

    def test_a_finalizer_is_found(self) -> None:
        assert "finalizer" in self.told(finalizers=["kopf.zalando.org/KopfFinalizerMarker"])
        assert "finalizer" in self.told(finalizers=["vrampack.dev/cleanup"])

    def test_so_is_an_annotation(self) -> None:
        assert "annotation" in self.told(annotations={"kopf.zalando.org/last-handled-configuration": "{}"})
        assert "annotation" in self.told(annotations={names.SPEC_HASH: "1"})

    def test_so_is_a_write_to_its_spec(self) -> None:
        spec = {"manager": names.FIELD_MANAGER, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        assert "vrampack wrote f:spec" in self.told(managedFields=[spec])

    def test_what_the_user_writes_is_the_users(self) -> None:
        status = {"manager": names.STATUS_MANAGER, "subresource": "status", "fieldsV1": {"f:status": {}}}
        user = {"manager": "kubectl", "fieldsV1": {"f:spec": {}, "f:metadata": {}}}
        mine = frozenset({"vrampack.dev/mine"})
        annotations = {names.REFRESH: "1", "team": "a", "vrampack.dev/mine": "x"}
        found = self.told(allowed=mine, finalizers=["team/x"], annotations=annotations, managedFields=[status, user])
        assert found == ""
