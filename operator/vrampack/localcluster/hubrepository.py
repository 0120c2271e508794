"""One repository of the hub double: its files at every commit, who may see it, and what it is made to do wrong."""

import hashlib
from collections.abc import Collection, Mapping
from enum import StrEnum

from vrampack.localcluster.hubcatalogue import CatalogueModel
from vrampack.localcluster.hubfiles import StoredFile, files_of


class Fault(StrEnum):
    """What a repository can be made to do."""

    RATE_LIMITED = "RateLimited"
    UNAVAILABLE = "Unavailable"
    FORBIDDEN = "Forbidden"
    DISABLED = "Disabled"
    HANGS = "Hangs"
    NO_HUB = "NoHub"
    """A page of a proxy instead of an answer."""
    NO_CONFIG = "NoConfig"
    NO_WEIGHTS = "NoWeights"
    BROKEN_HEADER = "BrokenHeader"
    IGNORES_RANGES = "IgnoresRanges"


class Refusal(Exception):  # noqa: N818  # an answer of the hub, no error of ours
    """Status, message and headers as the hub writes them."""

    def __init__(self, status: int, message: str, *, code: str | None = None, retry_after: int | None = None) -> None:
        self.status = status
        self.message = message
        self.headers: Mapping[str, str] = {
            "X-Error-Message": message,
            **({} if code is None else {"X-Error-Code": code}),
            **({} if retry_after is None else {"Retry-After": str(retry_after)}),
        }
        super().__init__(message)


class Repository:
    """A model of the catalogue with branches and commits."""

    def __init__(self, model: CatalogueModel) -> None:
        self.model = model
        self.fault: Fault | None = None
        self._times: int | None = None
        self._retry_after = 1
        self._files = files_of(model)
        self._commits: dict[str, frozenset[str]] = {}
        """With the files that each of them lacks."""
        self.branches: dict[str, str] = {}
        self.move("main")

    def move(self, branch: str, *, without: Collection[str] = ()) -> str:
        """A new commit on the branch, which lacks some of the files. Old ones stay."""
        text = f"{self.model.repository} {branch} {len(self._commits)}"
        commit = hashlib.sha256(text.encode()).hexdigest()[:40]
        self._commits[commit] = frozenset(without)
        self.branches[branch] = commit
        return commit

    def commit_of(self, revision: str) -> str:
        """Raises Refusal for a revision that there is not."""
        commit = self.branches.get(revision, revision)
        if commit not in self._commits:
            raise Refusal(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        return commit

    def set_fault(self, fault: Fault | None, *, times: int | None, retry_after: int) -> None:
        """For ``times`` requests, or for good."""
        self.fault, self._times, self._retry_after = fault, times, retry_after

    def take_fault(self) -> Fault | None:
        """The fault that one request meets. Raises Refusal where it is one."""
        fault = self.fault
        if fault is not None and self._times is not None:
            self._times -= 1
            if self._times <= 0:
                self.fault, self._times = None, None
        match fault:
            case Fault.RATE_LIMITED:
                raise Refusal(429, "Too many requests", retry_after=self._retry_after)
            case Fault.UNAVAILABLE:
                raise Refusal(503, "Service unavailable")
            case Fault.FORBIDDEN:
                raise Refusal(403, "The token may not read this repository")
            case Fault.DISABLED:
                raise Refusal(403, "Access to this resource is disabled.")
            case _:
                return fault

    def files_at(self, commit: str) -> Mapping[str, StoredFile]:
        """By name, less what the commit lacks and a fault takes away."""
        return {name: file for name, file in self._present.items() if name not in self._commits.get(commit, ())}

    @property
    def _present(self) -> Mapping[str, StoredFile]:
        """By name, less what a fault takes away."""
        match self.fault:
            case Fault.NO_CONFIG:
                return {name: file for name, file in self._files.items() if name != "config.json"}
            case Fault.NO_WEIGHTS:
                kept = {name: file for name, file in self._files.items() if not name.startswith("model")}
                return kept | {"tf_model.h5": StoredFile(name="tf_model.h5", size=1, head=b"", large=True)}
            case Fault.BROKEN_HEADER:
                return {name: _broken(file) for name, file in self._files.items()}
            case _:
                return self._files


def _broken(file: StoredFile) -> StoredFile:
    head = b"\xff" * len(file.head) if file.large else file.head
    return StoredFile(name=file.name, size=file.size, head=head, large=file.large)
