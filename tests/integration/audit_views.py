"""Pods and GPUs as the auditor reads them: what matters for claims, and nothing of the operator's own reading."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vrampack.api import names
from vrampack.units import parse_bytes


@dataclass(frozen=True, kw_only=True)
class AuditedPod:
    uid: str
    name: str
    managed: bool
    live: bool
    terminating: bool
    gated: bool
    node: str
    pinned: str | None
    annotations: Mapping[str, str]
    gpus: tuple[str, ...]
    claim: int
    """Bytes on each GPU; 0 where there is no claim that can be read."""
    on_node: bool = False
    """Whether another scheduler chooses the GPUs, so that the bytes are claimed of the node."""

    @property
    def claimed(self) -> bool:
        return bool(self.annotations)

    def __str__(self) -> str:
        state = ["gated" if self.gated else "ungated"]
        state += [f"on {self.node}"] if self.node else []
        state += ["terminating"] if self.terminating else []
        state += [] if self.live else ["ended"]
        claim = ", ".join(f"{key.split('/')[1]}={value}" for key, value in sorted(self.annotations.items()))
        return f"pod {self.name} ({self.uid}) {', '.join(state)}; {claim or 'no claim'}"


@dataclass(frozen=True, kw_only=True)
class AuditedGPU:
    usable: int | None
    foreign: int
    processes: Mapping[str, int]
    claims: Mapping[str, int]
    """As the operator has written them there, by the UID of the pod."""
    reserve: int
    cordoned: bool
    healthy: bool

    def __str__(self) -> str:
        words = [
            "vanished" if self.usable is None else f"usable {self.usable}",
            f"foreign {self.foreign}",
            f"reserve {self.reserve}",
            *(["cordoned"] if self.cordoned else []),
            *([] if self.healthy else ["failed"]),
            *(f"{uid} uses {held}" for uid, held in sorted(self.processes.items())),
        ]
        return ", ".join(words)


def read_pod(pod: Mapping[str, Any]) -> AuditedPod:
    metadata, spec = pod["metadata"], pod["spec"]
    annotations = metadata.get("annotations", {})
    try:
        claim = parse_bytes(annotations.get(names.CLAIM, "0"))
    except ValueError:
        claim = 0
    return AuditedPod(
        uid=metadata["uid"],
        name=f"{metadata['namespace']}/{metadata['name']}",
        managed=metadata.get("labels", {}).get(names.MANAGED_BY) == names.MANAGER,
        live=pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"),
        terminating="deletionTimestamp" in metadata,
        gated=any(gate["name"] == names.GATE for gate in spec.get("schedulingGates", ())),
        node=spec.get("nodeName", ""),
        pinned=_pinned(spec),
        annotations={key: value for key, value in annotations.items() if _of_a_claim(key)},
        gpus=tuple(uuid for uuid in annotations.get(names.GPUS, "").split(",") if uuid),
        claim=claim,
        on_node=annotations.get(names.SCOPE) == names.NODE_SCOPE,
    )


def _of_a_claim(key: str) -> bool:
    """Whether an annotation comes with the claim and stays as it is: all that are ours but the need, which the template
    brings, and those by which others hand out GPUs."""
    return (key.startswith(f"{names.GROUP}/") and key != names.NEED) or key.startswith("nvidia.cdi.k8s.io/")


def _pinned(spec: Mapping[str, Any]) -> str | None:
    """The one node that every required term names; a term without expressions matches nothing and does not count."""
    affinity = spec.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = [term for term in required.get("nodeSelectorTerms", ()) if term]
    nodes = {tuple(_named(term)) for term in terms}
    match list(nodes):
        case [(node,)]:
            return node
        case _:
            return None


def _named(term: Mapping[str, Any]) -> Iterator[str]:
    for field_ in term.get("matchFields", ()):
        if field_["key"] == "metadata.name" and field_["operator"] == "In":
            yield from field_["values"]


def read_gpus(node: Mapping[str, Any]) -> dict[str, AuditedGPU]:
    wishes = {entry["uuid"]: entry for entry in node.get("spec", {}).get("gpus", ())}
    gpus = {}
    for gpu in node.get("status", {}).get("gpus", ()):
        wish = wishes.get(gpu["uuid"], {})
        gpus[gpu["uuid"]] = AuditedGPU(
            usable=parse_bytes(gpu["memory"]) if "memory" in gpu else None,
            foreign=sum(parse_bytes(entry["bytes"]) for entry in gpu.get("foreign", ())),
            processes={entry["podUID"]: parse_bytes(entry["bytes"]) for entry in gpu.get("processes", ())},
            claims={entry["uid"]: parse_bytes(entry["bytes"]) for entry in gpu.get("claims", ())},
            reserve=parse_bytes(wish.get("reserve", "0")),
            cordoned=wish.get("cordoned", False),
            healthy=gpu.get("health") != "Unhealthy",
        )
    return gpus
