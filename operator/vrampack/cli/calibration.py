"""From start-up logs to measurements, and from a manifest to the start that prints one."""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from vrampack.api.engine import EngineName
from vrampack.api.modelprofile import Measurement
from vrampack.api.names import API_VERSION, ENGINE_CONTAINER
from vrampack.api.source import SourceKind, parse_source
from vrampack.cli.estimatesubject import Subject
from vrampack.cli.estimateview import StalledError
from vrampack.engines.base import is_reserved
from vrampack.engines.serving import CACHE
from vrampack.errors import InvalidInputError
from vrampack.memory.calibration import Observation, Setup, merged, release
from vrampack.models.enginelogs import Start, figures
from vrampack.planning.measurements import MAX_MEASUREMENTS, measurement_of, most_of, observation_of, setup_of
from vrampack.planning.verdict import Blocked, Sized

_KV_NAMES: Final = {"bfloat16": "bf16", "float16": "fp16", "f16": "fp16", "float32": "fp32", "f32": "fp32"}
_FP8: Final = "fp8"
_PRINTING: Final = (EngineName.VLLM, EngineName.SGLANG, EngineName.LLAMACPP)
"""Engines whose logs are read."""
_HUB_NAME: Final = re.compile(r"[\w.-]+/[\w.-]+")
"""As engines are told a model on the hub; a folder of theirs begins with a slash, and llama.cpp prints free words."""
_DRIVERS: Final = ("max_sequences", "max_batched_tokens", "context_length")
_OPTIONS: Final = {
    "version": "--engine-version",
    "product": "--gpu-product",
    "max_sequences": "--max-sequences",
    "max_batched_tokens": "--max-batched-tokens",
    "context_length": "--context-length",
    "kv_cache": "--kv-cache",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the user says of the runs beside the logs. None or empty: nothing."""

    version: str = ""
    product: str = ""
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    context_length: int | None = None
    kv_cache: str = ""


def _setup(subject: Subject) -> Setup:
    """How the ModelDeployment would be run. Raises StalledError where it can't be served."""
    sized = _sized(subject)
    draft = sized.draft.commit if sized.draft is not None else ""
    return setup_of(subject.spec, product="", kv_cache=sized.facts.kv_cache_precision, draft_commit=draft)


def observation(start: Start, *, known: Known, subject: Subject | None) -> Observation:
    """What one start shows. ``subject``: the ModelDeployment that was run, for what the log does not say.

    Raises InvalidInputError for what nobody says, and where log and manifest contradict each other, StalledError for a
    ModelDeployment that can't be served.
    """
    asked = _setup(subject) if subject is not None else None
    if asked is not None and asked.engine != start.engine:
        raise _contradiction("engine", start.engine, asked.engine)
    if subject is not None and (other := _other_model(start, subject)):
        raise _contradiction("model", start.model, other)
    split = {name: getattr(start, name) for name in ("tensor", "pipeline", "data", "expert", "cuda_graphs")}
    if asked is not None:
        for name, printed in split.items():
            if printed is not None and printed != getattr(asked, name):
                raise _contradiction(name, printed, getattr(asked, name))
        split = {name: getattr(asked, name) for name in split}
    found: dict[str, Any] = {name: value for name, value in split.items() if value is not None}
    found["version"] = _same("version", start.version or known.version, asked.version if asked else "", release)
    found["product"] = known.product or start.product.replace(" ", "-") or _only_product(subject)
    found["kv_cache"] = _same("kv_cache", _kv_cache(start) or known.kv_cache, asked.kv_cache if asked else "", str)
    for name in _DRIVERS:
        value = getattr(start, name)
        value = getattr(known, name) if value is None else value
        found[name] = value if value is not None or asked is None else getattr(asked, name)
    for name, option in _OPTIONS.items():
        if not found[name]:
            raise InvalidInputError(
                field=option, value=None, allowed="the log does not say it: name it, or the manifest with --file"
            )
    args = asked.args if asked is not None else ()
    ran = replace(start, **{each: found.get(each, 1) for each in ("tensor", "pipeline", "data")})
    return Observation(setup=Setup(engine=start.engine, args=args, **found), **figures(ran))


def observations(found: Iterable[Observation]) -> list[Observation]:
    """One for each setup: starts of one setup are samples of one measurement."""
    by_setup: dict[Setup, list[Observation]] = {}
    for each in found:
        by_setup.setdefault(each.setup, []).append(each)
    return [merged(runs) for runs in by_setup.values()]


def recorded(found: Observation, *, at: float) -> Measurement:
    """As `measurement_of`. Raises InvalidInputError for settings that no engine runs with, whatever a log says."""
    try:
        return measurement_of(found, at=at)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(("LOGFILE", *(str(part) for part in first["loc"])))
        raise InvalidInputError(field=field, value=first["input"], allowed=first["msg"]) from error


def joined(former: Sequence[Measurement], newer: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Both, the newest last; of one setup the most that was ever seen. Beyond 64 the oldest go."""
    kept = {observation_of(each).setup: each for each in former}
    for each in newer:
        seen = observation_of(each)
        if (before := kept.pop(seen.setup, None)) is not None:
            earlier = observation_of(before)
            both = replace(most_of(earlier, seen), samples=earlier.samples + seen.samples)
            kept[seen.setup] = measurement_of(both, at=datetime.fromisoformat(each.observed_at).timestamp())
        else:
            kept[seen.setup] = each
    return tuple(kept.values())[-MAX_MEASUREMENTS:]


def patch(profile: str, found: Sequence[Measurement]) -> dict[str, Any]:
    """For ``kubectl apply --server-side --subresource=status``."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelProfile",
        "metadata": {"name": profile},
        "status": {"measurements": [each.wire() for each in found]},
    }


def command(subject: Subject) -> str:
    """The start to run on an idle GPU: the operator's own, without the figures that it takes from a claim, so that the
    engine measures what is left and prints what it found. Raises StalledError for what can't be served, and
    InvalidInputError for an engine whose log says nothing of its memory."""
    sized = _sized(subject)
    if (engine := subject.spec.engine.name) not in _PRINTING:
        names = ", ".join(_PRINTING)
        raise InvalidInputError(
            field=f"{subject.name}: spec.engine.name",
            value=engine.value,
            allowed=f"the start-up log of {names} says what they use, and that of {engine.value} does not",
        )
    spec = sized.template["spec"]
    container = next(each for each in spec["containers"] if each["name"] == ENGINE_CONTAINER)
    devices = ",".join(str(index) for index in range(sized.need.gpus))
    lines = ["docker run --rm --ipc=host", f"--gpus '\"device={devices}\"'"]
    wanted = {
        each["name"]: each["value"]
        for each in container.get("env", ())
        if "value" in each and not is_reserved(each["name"]) and not each["value"].startswith(CACHE)
    }
    secrets = [each["name"] for each in container.get("env", ()) if "secretKeyRef" in (each.get("valueFrom") or {})]
    if engine is EngineName.VLLM:
        wanted["VLLM_LOGGING_LEVEL"] = "DEBUG"  # several releases print the breakdown at no other level
    lines += [f"-e {name}={shlex.quote(value)}" for name, value in wanted.items()]
    lines += [f"-e {name}" for name in secrets]
    volumes = {each["name"] for each in spec.get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        if mount["name"] == "model" and mount["name"] in volumes:
            lines.append(f'-v "$MODEL_FOLDER":{mount["mountPath"]}:ro')
    first, *others = container.get("command") or [""]
    lines += [f"--entrypoint {shlex.quote(first)}"] if first else []
    lines += [shlex.quote(each) for each in (container["image"], *others)]
    # What refers to the environment is a figure of the claim.
    lines += [shlex.quote(each) for each in container.get("args", ()) if "$(" not in each]
    return " \\\n  ".join(lines) + " 2>&1 | tee start.log"


def _sized(subject: Subject) -> Sized:
    sized = subject.sized()
    if isinstance(sized, Blocked):
        raise StalledError(f"{subject.name}: {sized.message}")
    return sized


def _other_model(start: Start, subject: Subject) -> str:
    """The manifest's model on the hub, where the log names another one; empty: the same, or not to be told."""
    source = parse_source(subject.spec.model.source)
    told = source.kind is SourceKind.HUB and _HUB_NAME.fullmatch(start.model) is not None
    return source.name if told and start.model.casefold() != source.name.casefold() else ""


def _kv_cache(start: Start) -> str:
    """Resolved; empty where the log does not say it."""
    name = start.dtype if start.kv_cache in ("auto", "") else start.kv_cache
    return _FP8 if name.startswith(_FP8) else _KV_NAMES.get(name, name)


def _only_product(subject: Subject | None) -> str:
    products = subject.spec.placement.gpu_products if subject is not None else ()
    return products[0] if len(products) == 1 else ""


def _same(name: str, printed: str, asked: str, form: Any) -> str:
    if printed and asked and form(printed) != form(asked):
        raise _contradiction(name, printed, asked)
    return asked or printed


def _contradiction(name: str, printed: object, asked: object) -> InvalidInputError:
    return InvalidInputError(
        field=name,
        value=printed,
        allowed=f"the manifest says {asked!r}: name the one that was run, or run what it says",
    )
