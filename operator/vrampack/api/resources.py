"""The four kinds: their models, and how kubectl names and shows them."""

from dataclasses import dataclass
from typing import Final

from vrampack.api.common import ApiModel, Rule
from vrampack.api.gpunode import GPUNodeSpec, GPUNodeStatus
from vrampack.api.gpupool import GPUPoolSpec, GPUPoolStatus
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modeldeploymentstatus import ModelDeploymentStatus
from vrampack.api.modelprofile import ModelProfileSpec, ModelProfileStatus
from vrampack.api.names import GROUP
from vrampack.api.texts import DEPLOYMENT_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of ``kubectl get``; ``wide``: only with ``-o wide``."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind: its models, and how kubectl names and shows it."""

    kind: str
    plural: str
    short: str
    namespaced: bool
    description: str
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    scaled: bool = False
    name_rule: Rule | None = None

    @property
    def name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


_AGE: Final = Column(name="Age", type="date", path=".metadata.creationTimestamp", description="Time since creation.")

RESOURCES: Final = (
    Resource(
        kind="ModelDeployment",
        plural="modeldeployments",
        short="mdep",
        namespaced=True,
        description="A language model, served: vrampack works out the GPU memory that it needs, and places its "
        "replicas on shares of GPUs.",
        spec=ModelDeploymentSpec,
        status=ModelDeploymentStatus,
        scaled=True,
        selectable=(".spec.model.source", ".spec.placement.pool"),
        name_rule=Rule(
            rule=f"self.metadata.name.matches('^{DEPLOYMENT_NAME.pattern}$')",
            message="the name becomes that of a Service and of pods: write at most 53 lower case letters, digits and "
            "'-', beginning with a letter",
            field_path=".metadata.name",
        ),
        columns=(
            Column(name="Ready", path=".status.summary.ready", description="Ready replicas of wanted ones."),
            Column(name="Model", path=".spec.model.source", description="Where the model comes from."),
            Column(name="Precision", path=".status.model.precision", description="Precision of the weights."),
            Column(name="VRAM/GPU", path=".status.estimate.perGPU", description="Memory claimed on each GPU."),
            Column(name="GPUs", type="integer", path=".status.summary.gpus", description="GPUs that hold a claim."),
            Column(
                name="Status",
                path='.status.conditions[?(@.type=="Ready")].reason',
                description="Why it is ready or not, in one word.",
            ),
            _AGE,
            Column(name="Nodes", path=".status.summary.nodes", description="Nodes of the replicas.", wide=True),
            Column(
                name="Concurrency",
                type="integer",
                path=".spec.serving.concurrency",
                description="Sequences that a replica serves at once.",
                wide=True,
            ),
            Column(name="Revision", path=".status.model.revision", description="Commit that is served.", wide=True),
        ),
    ),
    Resource(
        kind="ModelProfile",
        plural="modelprofiles",
        short="mprof",
        namespaced=False,
        description="The facts of one model at one revision, and what was measured of it. Written by vrampack, or by "
        "hand for clusters without a model hub.",
        spec=ModelProfileSpec,
        status=ModelProfileStatus,
        selectable=(".spec.source", ".spec.revision"),
        columns=(
            Column(name="Model", path=".spec.source", description="Where the weights are."),
            Column(name="Revision", path=".spec.revision", description="Commit of the source."),
            Column(name="Parameters", path=".status.summary.parameters", description="Parameters of the checkpoint."),
            Column(name="Precision", path=".spec.precision", description="Precision of the weights."),
            Column(name="Weights", path=".status.summary.weights", description="Bytes of the weights."),
            Column(name="KV/Token", path=".status.summary.kvPerToken", description="KV cache of one token."),
            _AGE,
        ),
    ),
    Resource(
        kind="GPUNode",
        plural="gpunodes",
        short="gpn",
        namespaced=False,
        description="The GPUs of the node of the same name: what the node's agent sees, and what is claimed on them.",
        spec=GPUNodeSpec,
        status=GPUNodeStatus,
        columns=(
            Column(name="GPUs", type="integer", path=".status.summary.gpus", description="GPUs of the node."),
            Column(name="Product", path=".status.summary.product", description="Their product."),
            Column(name="Memory", path=".status.summary.memory", description="Their usable memory."),
            Column(name="Claimed", path=".status.summary.claimed", description="Memory that is claimed on them."),
            Column(name="Used", path=".status.summary.used", description="Memory in use on them."),
            Column(name="Healthy", path=".status.summary.healthy", description="Healthy GPUs of all."),
            _AGE,
        ),
    ),
    Resource(
        kind="GPUPool",
        plural="gpupools",
        short="gpp",
        namespaced=False,
        description="How the GPUs of a set of nodes are shared. A pool named default with default values is there "
        "without an object, for every GPU node that no other pool selects.",
        spec=GPUPoolSpec,
        status=GPUPoolStatus,
        columns=(
            Column(name="Nodes", type="integer", path=".status.nodes", description="Nodes of the pool."),
            Column(name="GPUs", type="integer", path=".status.gpus", description="GPUs of the pool."),
            Column(name="Memory", path=".status.capacity", description="Usable memory of the GPUs."),
            Column(name="Claimed", path=".status.claimed", description="Memory that replicas have claimed."),
            Column(name="Stranded", path=".status.stranded", description="Free memory that no replica can use."),
            _AGE,
        ),
    ),
)
