"""What tests read off objects."""

from collections.abc import Iterable, Sequence

from tests.integration.manifests import Manifest
from vrampack.api import names


def condition(obj: Manifest, type_: str) -> Manifest:
    """A condition of an object; empty where it has none of that type."""
    conditions: Iterable[Manifest] = obj.get("status", {}).get("conditions", ())
    return next((each for each in conditions if each["type"] == type_), {})


def is_ready(deployment: Manifest) -> bool:
    """Whether a ModelDeployment's status is of its newest spec, and says Ready."""
    current = deployment.get("status", {}).get("observedGeneration") == deployment["metadata"]["generation"]
    return current and condition(deployment, "Ready").get("status") == "True"


def pod_ready(pod: Manifest) -> bool:
    return condition(pod, "Ready").get("status") == "True" and not pod["metadata"].get("deletionTimestamp")


def ended(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def lone(objects: Sequence[Manifest]) -> Manifest:
    """The one object that there is."""
    assert len(objects) == 1, f"{len(objects)} objects, not one"
    return objects[0]


def uids(objects: Sequence[Manifest]) -> set[str]:
    return {each["metadata"]["uid"] for each in objects}


def gpus_of(pod: Manifest) -> list[str]:
    """The GPUs that a pod has a claim on."""
    claimed = pod["metadata"]["annotations"].get(names.GPUS, "")
    return claimed.split(",") if claimed else []


def claim_of(pod: Manifest) -> int:
    return int(pod["metadata"]["annotations"].get(names.CLAIM, 0))
