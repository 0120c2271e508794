"""Where a model comes from, and the name of the profile that keeps its facts."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from vrampack.errors import InvalidInputError

MAX_SOURCE_LENGTH = 512

_HUB_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_OBJECT_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_PATH = r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
_SOURCE = re.compile(
    rf"hf://(?P<hf>{_HUB_NAME}/{_HUB_NAME})"
    rf"|pvc://(?P<pvc>{_OBJECT_NAME})(/(?P<path>{_PATH}))?"
    rf"|profile://(?P<profile>{_OBJECT_NAME})"
)
_SLUG_LENGTH = 52  # with '-' and ten digits, 63: short enough for a label too
_DIGEST_LENGTH = 10


class SourceKind(StrEnum):
    """The scheme of a source."""

    HUB = "hf"
    CLAIM = "pvc"
    PROFILE = "profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A parsed ``spec.model.source``."""

    kind: SourceKind
    name: str
    """``ORG/NAME`` of a repository, the name of a PersistentVolumeClaim or of a ModelProfile."""
    path: str = ""
    """Folder in the claim; empty: its root."""


def parse_source(source: str) -> ModelSource:
    """``hf://ORG/NAME``, ``pvc://CLAIM/PATH`` or ``profile://NAME``.

    Raises InvalidInputError with the field of a ModelDeployment.
    """
    match = _SOURCE.fullmatch(source) if len(source) <= MAX_SOURCE_LENGTH else None
    if match is None:
        raise InvalidInputError(
            field="spec.model.source",
            value=source[:MAX_SOURCE_LENGTH],
            allowed="write hf://ORG/NAME, pvc://CLAIM/PATH or profile://NAME",
        )
    kind = next(kind for kind in SourceKind if match[kind.value] is not None)
    return ModelSource(kind=kind, name=match[kind.value], path=match["path"] or "")


def profile_name(source: str, commit: str, file: str = "") -> str:
    """Name of the ModelProfile of a source at a commit: words that a person knows, and digits that make it unique.

    ``file``: the file or pattern that a ModelDeployment names, empty for all weights. Always a DNS label. The same
    source, commit and file give the same name, in every cluster.
    """
    words = re.sub(r"[^a-z0-9]+", "-", source.partition("://")[2].lower())[:_SLUG_LENGTH].strip("-")
    named = f"{source}@{commit}" + (f"#{file}" if file else "")
    digest = hashlib.sha256(named.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{words or 'model'}-{digest}"
