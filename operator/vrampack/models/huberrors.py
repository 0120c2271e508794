"""What the model hub's refusals mean to an admin: one condition reason each, and what to do."""

from dataclasses import dataclass

from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # of the library's own client
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from vrampack.errors import ModelSourceError

HUB_ERRORS = (TransportError, OSError, HFValidationError)
"""What a request of huggingface_hub raises when the hub refuses, or is away."""

_NAMED = "the Secret that spec.model.tokenSecretRef names"
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for, and as whom: the message names it."""

    repository: str
    revision: str | None
    endpoint: str
    with_token: bool

    @property
    def page(self) -> str:
        return f"{self.endpoint}/{self.repository}"


def explain(error: Exception, asked: Asked) -> ModelSourceError:
    """The typed error for one of HUB_ERRORS."""
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, asked)
    if isinstance(error, HFValidationError):
        message = f"{asked.repository} is no name of a repository: write hf://ORG/NAME."
        return ModelSourceError(message, reason="ModelNotFound", retriable=False)
    if isinstance(error, OfflineModeIsEnabled):
        message = "The library's offline mode is on: unset HF_HUB_OFFLINE, or write a ModelProfile by hand."
        return ModelSourceError(message, reason="HubUnreachable", retriable=False)
    message = (
        f"The model hub {asked.endpoint} gives no answer ({type(error).__name__}): check network policies, proxies and "
        "HF_ENDPOINT, or write a ModelProfile by hand."
    )
    return ModelSourceError(message, reason="HubUnreachable", retriable=True)


def no_hub(error: Exception, asked: Asked) -> ModelSourceError:
    """An answer that came, but from something that is no model hub: a proxy's page, half a document."""
    return ModelSourceError(
        f"{asked.endpoint} answers, but not as a model hub ({type(error).__name__}): check HF_ENDPOINT and proxies.",
        reason="HubUnreachable",
        retriable=True,
    )


def _refusal(error: HfHubHTTPError, asked: Asked) -> ModelSourceError:
    status = error.response.status_code
    match error, status:
        case RevisionNotFoundError(), _:
            reason = "RevisionNotFound"
            message = f"{asked.repository} has no revision {asked.revision}: write a branch, a tag or a full commit."
        case RemoteEntryNotFoundError(), _:
            reason = "ModelFilesMissing"
            message = f"A file of {asked.page} is gone: write a commit into spec.model.revision."
        case DisabledRepoError(), _:
            reason = "HubForbidden"
            message = f"{asked.page} was disabled by the hub: use another source."
        case _, 401:
            reason, message = "HubUnauthorized", _unauthorized(error, asked)
        case _, 403:
            reason, message = "HubForbidden", _forbidden(error, asked)
        case _, 404:
            reason = "ModelNotFound"
            whose = f" and whose token is in {_NAMED}" if asked.with_token else ""
            message = f"There is no repository {asked.page}, or it is private: check spec.model.source{whose}."
        case _, 429:
            reason = "HubRateLimited"
            message = f"{asked.endpoint} limits our requests: vrampack tries again; a token in {_NAMED} helps."
        case _ if status in _PASSING:
            reason, message = "HubUnreachable", f"{asked.endpoint} is not well (HTTP {status}): vrampack tries again."
        case _:
            reason, message = "HubUnreachable", f"{asked.endpoint} refuses (HTTP {status}): check HF_ENDPOINT."
    passing = status in _PASSING
    return ModelSourceError(
        message, reason=reason, retriable=passing, retry_after=_retry_after(error) if passing else None
    )


def _unauthorized(error: HfHubHTTPError, asked: Asked) -> str:
    if asked.with_token:
        return f"The hub does not accept the token: write a valid one into {_NAMED}."
    if isinstance(error, GatedRepoError):
        return (
            f"{asked.repository} is gated: accept its terms at {asked.page}, write a token of that account into a "
            "Secret and name it in spec.model.tokenSecretRef."
        )
    return (
        f"There is no public repository {asked.page}: check spec.model.source; for a private one write a token into a "
        "Secret and name it in spec.model.tokenSecretRef."
    )


def _forbidden(error: HfHubHTTPError, asked: Asked) -> str:
    if isinstance(error, GatedRepoError):
        return (
            f"{asked.repository} is gated and the token's account has no access: accept its terms at {asked.page}, "
            f"or write the token of an account with access into {_NAMED}."
        )
    return f"The token may not read {asked.page}: give it read access to gated and private repositories in {_NAMED}."


def _retry_after(error: HfHubHTTPError) -> float | None:
    headers = error.response.headers
    seconds = headers.get("Retry-After", "")
    if seconds.isascii() and seconds.isdigit():
        return float(seconds[:9])
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None else None
