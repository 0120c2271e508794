"""The chart as Kubernetes sees it: what its accounts and users may do, what upgrade and uninstall leave."""

import json
from collections.abc import AsyncIterator

import pytest
import yaml

from tests.integration.claims import CHART, RELEASE, in_force, install, lease, placement, replica
from tests.integration.kubectl import Kubectl, until
from vrampack.localcluster.assets import Assets
from vrampack.localcluster.cluster import LocalCluster

pytestmark = pytest.mark.cluster

OPERATOR = "system:serviceaccount:vrampack-system:vrampack"
AGENT = "system:serviceaccount:vrampack-system:vrampack-agent"


@pytest.fixture(scope="module")
async def cluster(assets: Assets) -> AsyncIterator[LocalCluster]:
    """One of its own: what is taken away here, such as the operator's account, other modules need."""
    async with LocalCluster(assets) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def admin(cluster: LocalCluster) -> Kubectl:
    await install(cluster)
    return Kubectl(cluster=cluster)


async def allowed(admin: Kubectl, user: str, *questions: str) -> list[bool]:
    """Asks the authorizer all at once; a question is ``verb group/resource[/subresource][=name] [namespace]``."""
    reviews = []
    for question in questions:
        verb, what, *namespace = question.split()
        path, _, name = what.partition("=")
        group, resource, *subresource = path.split("/")
        attributes = {
            "verb": verb,
            "group": "" if group == "core" else group,
            "resource": resource,
            "subresource": "".join(subresource),
            "name": name,
            "namespace": "".join(namespace),
        }
        groups = ["system:authenticated", "system:serviceaccounts"]
        reviews.append(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
            }
        )
    documents = "\n---\n".join(json.dumps(review) for review in reviews)
    answers = await admin("create", "-f", "-", "-o", "jsonpath={.status.allowed}{'\\n'}", stdin=documents)
    return [line == "true" for line in answers.split()]


OPERATOR_MAY = """
    list vrampack.dev/modeldeployments | watch vrampack.dev/gpunodes | list vrampack.dev/gpupools
    get vrampack.dev/modelprofiles | create vrampack.dev/modelprofiles | patch vrampack.dev/modelprofiles/status
    patch vrampack.dev/modeldeployments/status team | patch vrampack.dev/gpunodes/status
    patch vrampack.dev/gpupools/status | update vrampack.dev/modeldeployments/finalizers team
    list core/pods | watch core/pods | patch core/pods team | delete core/pods team | create core/pods/eviction team
    list core/nodes | watch core/nodes | list apps/replicasets | list apps/deployments | watch apps/deployments
    list core/services | list policy/poddisruptionbudgets | create apps/deployments team | patch apps/deployments team
    create core/services team | patch core/services team
    create policy/poddisruptionbudgets team | patch policy/poddisruptionbudgets team
    create events.k8s.io/events team
    list resource.k8s.io/resourceclaims | create resource.k8s.io/resourceclaimtemplates team
    delete resource.k8s.io/resourceclaimtemplates team
    create coordination.k8s.io/leases vrampack-system | patch coordination.k8s.io/leases=vrampack vrampack-system
    get coordination.k8s.io/leases=vrampack vrampack-system | list coordination.k8s.io/leases vrampack-system
"""
OPERATOR_MAY_NOT = """
    patch vrampack.dev/modeldeployments team | update vrampack.dev/modeldeployments team
    delete vrampack.dev/modeldeployments team | delete vrampack.dev/modelprofiles
    patch vrampack.dev/gpupools | patch vrampack.dev/gpunodes
    patch vrampack.dev/modelprofiles | delete apps/deployments team | delete core/services team
    delete policy/poddisruptionbudgets team | list core/events | list scheduling.k8s.io/priorityclasses
    patch resource.k8s.io/resourceclaimtemplates team | delete resource.k8s.io/resourceclaims team
    create core/pods vrampack-system
    create core/pods team | create core/pods/exec team | patch core/pods/status team | create core/pods/binding team
    get core/secrets team | list core/secrets vrampack-system | get core/configmaps team | list core/namespaces
    patch core/nodes | patch apps/replicasets team | create rbac.authorization.k8s.io/clusterroles
    patch admissionregistration.k8s.io/validatingadmissionpolicies | create core/serviceaccounts/token vrampack-system
    patch coordination.k8s.io/leases=vrampack-agent-gpu-1 vrampack-system | list coordination.k8s.io/leases team
    delete coordination.k8s.io/leases=vrampack vrampack-system | patch coordination.k8s.io/leases=vrampack team
"""
AGENT_MAY = """
    create vrampack.dev/gpunodes | patch vrampack.dev/gpunodes | watch vrampack.dev/gpunodes
    patch vrampack.dev/gpunodes/status | list core/nodes | list core/pods | watch core/pods
    list resource.k8s.io/resourceslices | create coordination.k8s.io/leases vrampack-system
    patch coordination.k8s.io/leases=vrampack-agent-gpu-1 vrampack-system
"""
AGENT_MAY_NOT = """
    delete vrampack.dev/gpunodes | list vrampack.dev/modeldeployments | patch core/pods team | delete core/pods team
    patch core/nodes | get core/secrets team | patch coordination.k8s.io/leases team
    update vrampack.dev/gpunodes | delete coordination.k8s.io/leases=vrampack-agent-gpu-1 vrampack-system
"""
VIEW = """
    list vrampack.dev/modeldeployments team | get vrampack.dev/modeldeployments/scale team
    list vrampack.dev/gpunodes | list vrampack.dev/gpupools | list vrampack.dev/modelprofiles
"""
EDIT = """
    create vrampack.dev/modeldeployments team | patch vrampack.dev/modeldeployments team
    delete vrampack.dev/modeldeployments team | patch vrampack.dev/modeldeployments/scale team
"""
ADMIN = "create vrampack.dev/gpupools | patch vrampack.dev/gpunodes | create vrampack.dev/modelprofiles"
NOBODY = """
    patch vrampack.dev/modeldeployments/status team | patch vrampack.dev/gpunodes/status
    patch core/pods/status team | update core/pods/status team
"""


def questions(text: str) -> list[str]:
    return [question.strip() for line in text.splitlines() if line for question in line.split("|")]


@pytest.mark.parametrize(
    ("user", "may", "may_not"),
    [
        pytest.param(OPERATOR, OPERATOR_MAY, OPERATOR_MAY_NOT, id="operator"),
        pytest.param(AGENT, AGENT_MAY, AGENT_MAY_NOT, id="agent"),
    ],
)
async def test_the_accounts_may_do_what_they_need_and_no_more(
    admin: Kubectl, user: str, may: str, may_not: str
) -> None:
    expected = dict.fromkeys(questions(may), True) | dict.fromkeys(questions(may_not), False)
    answers = await allowed(admin, user, *expected)
    assert dict(zip(expected, answers, strict=True)) == expected


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        pytest.param("view", VIEW, f"{EDIT}\n{ADMIN}", id="view"),
        pytest.param("edit", f"{VIEW}\n{EDIT}", f"{ADMIN}\n{NOBODY}", id="edit"),
        pytest.param("admin", f"{VIEW}\n{EDIT}\n{ADMIN}", NOBODY, id="admin"),
    ],
)
async def test_the_roles_of_users_include_the_resource_kinds(admin: Kubectl, role: str, may: str, may_not: str) -> None:
    user = f"{role}-user"
    await admin("create", "clusterrolebinding", user, f"--clusterrole={role}", f"--user={user}")
    expected = dict.fromkeys(questions(may), True) | dict.fromkeys(questions(may_not), False)

    async def answered() -> bool:
        answers = await allowed(admin, user, *expected)
        return dict(zip(expected, answers, strict=True)) == expected

    await until(f"role {role} is aggregated", answered)
    await admin("delete", "clusterrolebinding", user)


async def test_secrets_are_read_only_in_the_namespaces_listed(admin: Kubectl, cluster: LocalCluster) -> None:
    await admin("create", "namespace", "serving")
    await install(cluster, "hubTokens.namespaces={serving}")
    asked = [
        "get core/secrets serving",
        "list core/secrets serving",
        "patch core/secrets serving",
        "get core/secrets team",
    ]
    assert await allowed(admin, OPERATOR, *asked) == [True, False, False, False]

    await install(cluster)
    assert await allowed(admin, OPERATOR, "get core/secrets serving") == [False]
    await admin("delete", "namespace", "serving", "--wait=false")


async def test_the_operators_pod_meets_the_restricted_standard(admin: Kubectl, cluster: LocalCluster) -> None:
    await admin("create", "namespace", "hardened")
    await admin("label", "namespace", "hardened", "pod-security.kubernetes.io/enforce=restricted")
    rendered = yaml.safe_load_all((await cluster.helm("template", *CHART)).stdout)
    deployment = next(document for document in rendered if document["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": template["spec"]}
    await admin("-n", "hardened", "create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))

    del pod["spec"]["securityContext"]
    complaint = await admin.refused("-n", "hardened", "create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    assert "violates PodSecurity" in complaint
    await admin("delete", "namespace", "hardened", "--wait=false")


async def test_the_operators_requests_wait_among_those_of_controllers(admin: Kubectl, cluster: LocalCluster) -> None:
    operator = admin.signed_in(await cluster.token_for("vrampack", RELEASE))
    ours = 'flow_schema="vrampack",priority_level="workload-high"'

    async def served() -> bool:
        await operator("get", "pods", "--all-namespaces")
        return ours in await admin("get", "--raw", "/metrics")

    await until("the API server knows the chart's FlowSchema", served)


async def test_upgrade_and_uninstall_leave_the_resource_kinds(admin: Kubectl, cluster: LocalCluster) -> None:
    kinds = ("get", "customresourcedefinitions", "-o", "name")
    ours = {line for line in (await admin(*kinds)).split() if line.endswith(".vrampack.dev")}
    assert len(ours) == 4
    await install(cluster, "defaults.tolerationSeconds=30")
    await uninstall(cluster)
    assert ours <= set((await admin(*kinds)).split())
    for kind in ("clusterroles", "validatingadmissionpolicies", "validatingadmissionpolicybindings"):
        left = [line for line in (await admin("get", kind, "-o", "name")).split() if "/vrampack" in line]
        assert [line.partition("/")[2] for line in left] == (["vrampack-lease-watch"] if "validating" in kind else [])
    await install(cluster)


async def test_a_chart_installed_again_reads_the_lease_of_today(admin: Kubectl, cluster: LocalCluster) -> None:
    leases = admin.within(RELEASE)
    await leases.apply(lease(epoch=1))
    await uninstall(cluster)
    await leases.apply(lease(epoch=2))
    await install(cluster)
    await admin.apply(replica("waiting"))
    operator = admin.signed_in(await cluster.token_for("vrampack", RELEASE))
    claim = ("patch", "pod", "waiting", "--type=json", "--dry-run=server", "-p", json.dumps(placement(1)))

    async def follows() -> bool:
        return "epoch 2 is in force" in await operator.refused(*claim)

    await until("the fence follows the Lease", follows)


async def uninstall(cluster: LocalCluster) -> None:
    """Returns when the API server has noticed, and with it what it lets go of."""
    await cluster.helm("uninstall", "vrampack", f"--namespace={RELEASE}", "--wait")

    async def gone() -> bool:
        return not await in_force(cluster)

    await until("the policies are gone", gone)
