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
    file: str = ""
    """Name or pattern of the one weight file that is meant; empty: all weights."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A model that is served, to be looked at from time to time. Equal ones are looked at once, however many serve."""

    source: str
    revision: str
    """Branch, tag or commit, as the user wrote it; empty: the default branch."""
    commit: str
    """What is served."""
    file: str = ""
    """Name or pattern of the one weight file that is served; empty: all weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the hub has now of a model that is served. Empty: it has no such revision any more."""

    head: str = ""
    """Commit of the branch or tag."""
    digest: str = ""
    """Over the weight files at ``head``."""
    pinned_digest: str = ""
    """Over those of the commit that is served."""
    reason: str = ""
    """Why the hub does not let us look, CamelCase; empty: it did."""
    message: str = ""


Token = tuple[str, str, str] | None
"""Namespace, name and key of a Secret; None: anonymous."""
