"""Versions of engines, as their releases and their logs name them."""

import re
from typing import Final

NEWEST: Final = (9999, 0, 0)
"""What an empty version means: the newest release whose rules are known."""

_RELEASE: Final = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


def release_of(version: str) -> tuple[int, int, int]:
    """Major, minor and patch of ``0.33.0``, ``v0.8.5.post1`` or ``0.14.0rc1.dev2+g7d9f``; empty: the newest.

    Raises ValueError, naming the version, for a text that is none.
    """
    if not version:
        return NEWEST
    match = _RELEASE.match(version)
    if match is None:
        raise ValueError(f"{version[:100]!r} is no version; write a release, such as 0.33.0")
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch or 0)
