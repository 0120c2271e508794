"""What is asked of the model hub, and what came of it: planning asks, the controller answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveRequest:
    """A model as one reader may see it. Equal requests are asked once, however many models make them."""

    source: str
    """``hf://ORG/NAME``."""
    revision: str
    """Branch, tag or commit; empty: the default branch."""
    token_secret: tuple[str, str, str] | None
    """Namespace, name and key of the Secret with the hub's token; None: anonymous."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Either the commit, whose ModelProfile exists, or why there is none. A request without one is under way."""

    commit: str | None = None
    reason: str | None = None
    """CamelCase, for a condition."""
    message: str | None = None
    """What happened and what to do, in whole words."""
    retriable: bool = False
    """Whether waiting can help; False: somebody has to change something."""
