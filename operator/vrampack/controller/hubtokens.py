"""Tokens of the model hub, from the Secrets that users name."""

import base64
from collections.abc import Container, Mapping
from typing import Any, Final, Protocol

from vrampack.errors import ClusterError, ModelSourceError, NotFoundError
from vrampack.planning.resolution import Token

_FORBIDDEN: Final = 403
_NAMED_KEYS: Final = 5


class Readable(Protocol):
    """The part of the API server's client that is used here."""

    async def get(self, path: str) -> dict[str, Any]: ...


class SecretError(ModelSourceError):
    """The token can't be read."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason, retriable=False)


async def read_token(kube: Readable, secret: Token, *, namespaces: Container[str] | None) -> str | None:
    """``namespaces``: where Secrets may be read, None: wherever the API server lets us.

    Raises SecretError, and ClusterError where the API server can't say.
    """
    if secret is None:
        return None
    namespace, name, key = secret
    if namespaces is not None and namespace not in namespaces:
        raise _forbidden(namespace, name)
    try:
        found = await kube.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
    except NotFoundError as error:
        message = f"There is no Secret {namespace}/{name}: create it, or correct spec.model.tokenSecretRef."
        raise SecretError(message, reason="SecretNotFound") from error
    except ClusterError as error:
        if error.status != _FORBIDDEN:
            raise
        raise _forbidden(namespace, name) from error
    data: Mapping[str, str] = found.get("data") or {}
    if key not in data:
        keys = ", ".join(sorted(data)[:_NAMED_KEYS]) or "none"
        message = f"Secret {namespace}/{name} has no key {key} (its keys: {keys}): write the token there."
        raise SecretError(message, reason="SecretKeyNotFound")
    return base64.b64decode(data[key]).decode(errors="replace")


def _forbidden(namespace: str, name: str) -> SecretError:
    message = (
        f"vrampack may not read Secret {namespace}/{name}: add {namespace} to the chart value hubTokens.namespaces."
    )
    return SecretError(message, reason="SecretForbidden")
