"""What running replicas were seen to use, as measurements of their ModelProfiles.

The agents say what the processes of a pod held at most. The KV cache of that is what the engine was told; the rest is
one figure for all that the estimate adds up. Where an engine itself tells terms apart, these are recorded as well.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from vrampack.api import names
from vrampack.api.common import Quantity
from vrampack.api.engine import EngineName
from vrampack.api.modelprofile import Measurement
from vrampack.memory.calibration import Observation, Setup, merged
from vrampack.planning.actions import WriteStatus
from vrampack.planning.cases import Case
from vrampack.planning.inventory import Inventory
from vrampack.planning.measurements import (
    MAX_MEASUREMENTS,
    TERMS,
    measurement_of,
    most_of,
    observation_of,
    recordable,
    setup_of,
)
from vrampack.planning.snapshot import Json, PodView, ProfileView, Snapshot
from vrampack.planning.verdict import Sized

_NEWS: Final = 0.01
"""Share by which a figure has to grow to be written again: peaks creep."""
_FILLS: Final = (EngineName.TGI, EngineName.CUSTOM)
"""Engines whose KV cache is what they find free, or what nobody knows: of their whole nothing can be told apart."""


def measured(snapshot: Snapshot, given: Iterable[Case], stock: Inventory) -> list[WriteStatus]:
    """Of each profile whose replicas were seen to use more than is recorded, all measurements."""
    runs: dict[str, dict[Setup, list[Observation]]] = defaultdict(lambda: defaultdict(list))
    told = _told(snapshot)
    for case in given:
        if isinstance(case.sized, Sized):
            for run in filter(recordable, _runs(case, case.sized, stock, told)):
                runs[case.sized.facts.profile][run.setup].append(run)
    return [
        WriteStatus(
            kind="ModelProfile",
            namespace="",
            name=profile.name,
            resource_version=profile.resource_version,
            status={"measurements": [each.wire() for each in found]},
        )
        for profile in snapshot.profiles
        if profile.resource_version and (found := _recorded(profile, runs.get(profile.name, {}), now=snapshot.now))
    ]


def _told(snapshot: Snapshot) -> dict[str, tuple[int | None, int | None]]:
    """Weights and graphs by pod UID, where engines themselves say so."""
    found: dict[str, tuple[int | None, int | None]] = {}
    for view in snapshot.gpu_nodes:
        for gpu in view.status.gpus or ():
            for each in gpu.processes or ():
                if each.weights is not None or each.graphs is not None:
                    found[each.pod_uid] = (_bytes(each.weights), _bytes(each.graphs))
    return found


def _bytes(size: Quantity | None) -> int | None:
    return size.bytes if size is not None else None


def _runs(
    case: Case, sized: Sized, stock: Inventory, told: Mapping[str, tuple[int | None, int | None]]
) -> Iterator[Observation]:
    """One for each replica that is ready, runs the template in force, and was seen on all of its GPUs."""
    spec, need = case.model.spec, case.live_need
    if spec is None or need is None or case.deployment is None or spec.engine.name in _FILLS:
        return
    if spec.memory.per_gpu is not None:
        return  # what a user declares may be anything, and so is what an engine makes of it
    live = case.deployment.object["spec"]["template"]
    if _command(live) != _command(sized.template):
        return  # an older vrampack started it with other flags
    template = live["metadata"]["annotations"][names.NEED]
    for pod in case.placed:
        if not pod.ready or pod.need != template or (seen := _peaks(pod, stock)) is None:
            continue
        product, most = seen
        if most > need.kv:
            draft = sized.draft.commit if sized.draft is not None else ""
            setup = setup_of(spec, product=product, kv_cache=sized.facts.kv_cache_precision, draft_commit=draft)
            weights, graphs = told.get(pod.uid, (None, None))
            if spec.speculation is not None or spec.adapters is not None or spec.parallelism.pipeline > 1:
                weights = None  # what is loaded beside the model, or by another stage, is not in that figure
            yield Observation(setup=setup, weights=weights, cuda_graphs=graphs, besides_cache=most - need.kv)


def _command(template: Json) -> list[Json]:
    """What runs in the engine's container."""
    return [
        {
            part: container.get(part) or None for part in ("image", "command", "args")
        }  # the API server keeps no empty list
        for container in template["spec"]["containers"]
        if container["name"] == names.ENGINE_CONTAINER
    ]


def _peaks(pod: PodView, stock: Inventory) -> tuple[str, int] | None:
    """Product, and bytes of the GPU that it used the most of; None where some was not seen."""
    gpus = [stock.gpus.get(uuid) for uuid in (pod.claim.gpus if pod.claim is not None else ())]
    peaks = [gpu.peaks.get(pod.uid, 0) if gpu is not None else 0 for gpu in gpus]
    products = {gpu.product for gpu in gpus if gpu is not None}
    return (products.pop(), max(peaks)) if len(products) == 1 and all(peaks) and "" not in products else None


def _recorded(
    profile: ProfileView, runs: Mapping[Setup, Sequence[Observation]], *, now: float
) -> tuple[Measurement, ...]:
    """All that is to stand there; nothing where nothing new was seen. No record makes room for another: what went
    would come back in the next pass."""
    kept: dict[Setup, Measurement] = {}
    for each in profile.measurements:
        setup, other = observation_of(each).setup, each
        if (same := kept.get(setup)) is not None:  # by hand, or with other arguments that are harmless
            pair = sorted((observation_of(same), observation_of(each)), key=lambda one: one.samples)
            other = measurement_of(most_of(*pair), at=now)
        kept[setup] = other
    news = False
    for seen in map(merged, runs.values()):
        # Where it is not found as it is, as it will be read again.
        run = seen if seen.setup in kept else observation_of(measurement_of(seen, at=now))
        record = kept.get(run.setup)
        if record is None and len(kept) >= MAX_MEASUREMENTS:
            continue
        former = observation_of(record) if record is not None else None
        most = run if former is None else replace(most_of(former, run), samples=_samples(former, run))
        if former is None or _is_news(most, former):
            kept[run.setup] = measurement_of(most, at=now)
            news = True
    return tuple(kept.values()) if news else ()


def _samples(former: Observation, run: Observation) -> int:
    """A replica that still runs is no further sample, and none of terms that it did not tell apart."""
    lacking = any(getattr(former, term) is not None and getattr(run, term) is None for term in TERMS)
    return former.samples if lacking else max(former.samples, run.samples)


def _is_news(run: Observation, former: Observation) -> bool:
    pairs = [(getattr(former, term) or 0, getattr(run, term) or 0) for term in (*TERMS, "besides_cache")]
    return run.samples > former.samples or any(seen > known * (1 + _NEWS) for known, seen in pairs)
