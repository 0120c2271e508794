"""What sizing a ModelDeployment comes to: a need with a template, or why there is none."""

from dataclasses import dataclass

from vrampack.api.modeldeploymentstatus import EstimateStatus, ModelFacts
from vrampack.engines.startgate import StartGate
from vrampack.memory.architecture import Architecture, Weights
from vrampack.memory.workload import Workload
from vrampack.planning.need import Need
from vrampack.planning.podtemplate import UNREACHABLE_SECONDS
from vrampack.planning.precision import Verdict
from vrampack.planning.resolution import ResolveRequest
from vrampack.planning.snapshot import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """The pods that find out how a node hands out GPUs. ``image``: any with a shell; the runtime brings nvidia-smi."""

    image: str
    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the admin set for the whole operator."""

    hub_endpoint: str | None = None
    hub_token_namespaces: frozenset[str] = frozenset()
    unreachable_seconds: int = UNREACHABLE_SECONDS
    refusal_seconds: float = 30
    deletion_interval_seconds: float = 60
    probing: Probing | None = None
    """None: injection styles are what agents and pools say."""
    start_gate: StartGate | None = None
    """Where the agents say whose turn it is to start; None: nowhere."""
    patience_seconds: int = 600
    """After so long a replica that waits goes by its age, and the oldest that fits nowhere has a place kept for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What was estimated."""

    architecture: Architecture
    weights: Weights
    workload: Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedDraft:
    """The model that drafts for another one, as it is served until the spec changes."""

    profile: str
    source: str
    commit: str
    """Empty: there are none where it is from."""
    digest: str
    """Over its weight files, as its profile has it; empty: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A model whose need is known."""

    need: Need
    template: Json
    estimate: EstimateStatus
    facts: ModelFacts
    commit: str
    precision: Verdict | None = None
    """On the precision contract; where it does not hold, it is served all the same, because onMismatch says Warn. None:
    a custom engine, whose checkpoint nobody has read."""
    device_request: Json | None = None
    """Spec of the ResourceClaimTemplate that the template refers to; None: it refers to none."""
    resolve: ResolveRequest | None = None
    """What the commit was resolved by, while no template is in force that keeps it."""
    draft: PinnedDraft | None = None
    """None: no other model drafts for it."""
    draft_resolve: ResolveRequest | None = None
    basis: Basis | None = None
    """None: a custom engine, of which only the user knows the memory."""

    @property
    def resolves(self) -> tuple[ResolveRequest, ...]:
        """What has to stay resolved for it."""
        return tuple(each for each in (self.resolve, self.draft_resolve) if each is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A model whose need is not known. ``stalled``: only a change by a person helps; else it is under way."""

    stalled: bool
    reason: str
    message: str
    resolve: ResolveRequest | None = None
    draft_resolve: ResolveRequest | None = None

    @property
    def resolves(self) -> tuple[ResolveRequest, ...]:
        """What has to be, or to stay, resolved for it."""
        return tuple(each for each in (self.resolve, self.draft_resolve) if each is not None)
