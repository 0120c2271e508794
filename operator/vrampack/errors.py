"""The one exception tree.

::

    VrampackError
    ├── InvalidInputError         a field holds what it must not: path, value, what is allowed
    ├── UnsupportedModelError     an architecture that the estimate does not know: never guessed
    ├── ModelSourceError          the facts of a model can't be had; says whether trying again can help
    ├── ClusterError              the API server answered no
    │   ├── ConflictError         the object changed meanwhile (409): read again
    │   ├── NotFoundError         404
    │   ├── DisruptionError       a PodDisruptionBudget does not let a pod be evicted now
    │   └── UnavailableError      no answer, 429 or 5xx: wait it out
    │       └── RestoredError     an answer older than one before: forget what was remembered, and begin anew
    ├── StaleLibraryError         this process has a library of the driver before
    └── LocalClusterError         the control plane on this machine can't be built or started
"""


class VrampackError(Exception):
    """Base of everything that vrampack raises on purpose."""


class InvalidInputError(VrampackError):
    """A field holds a value that it must not hold."""

    def __init__(self, *, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        super().__init__(f"{field}: {value!r} is not allowed; {allowed}")


class UnsupportedModelError(VrampackError):
    """The architecture has a part whose memory is not known. ``unknown`` names the field or the family."""

    def __init__(self, *, unknown: str, detail: str) -> None:
        self.unknown = unknown
        super().__init__(f"{unknown}: {detail}")


class ModelSourceError(VrampackError):
    """The facts of a model can't be had from where its source points.

    ``reason`` is a CamelCase word for a condition, ``retriable`` whether waiting can help, ``retry_after`` the seconds
    that the other side asked for (None: it did not say). The message says what to do.
    """

    def __init__(self, message: str, *, reason: str, retriable: bool, retry_after: float | None = None) -> None:
        self.reason = reason
        self.retriable = retriable
        self.retry_after = retry_after
        super().__init__(message)


class ClusterError(VrampackError):
    """The API server refused a request. ``status`` is the HTTP status, 0 where there was none."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


class ConflictError(ClusterError):
    """The object changed since it was read, or exists already."""


class NotFoundError(ClusterError):
    """There is no such object."""


class DisruptionError(ClusterError):
    """A PodDisruptionBudget does not let the pod be evicted now."""


class UnavailableError(ClusterError):
    """The API server gave no answer, or one that says to come back later."""


class RestoredError(UnavailableError):
    """The store behind the API server was restored from a backup: what was remembered of it is of another past."""


class StaleLibraryError(VrampackError):
    """The driver was exchanged, and the library that this process has loaded is of the one before: start it anew."""


class LocalClusterError(VrampackError):
    """The control plane on this machine can't be built or started; the message holds the last log lines."""
