"""What changed in llama.cpp's cache, and with which build.

Its releases are builds by number (``b7917``); since 2026 there are versions too, which are newer than all that is told
apart here. Where the build of a change is not known exactly, the first one that surely has it stands: builds between
are taken for older ones, which keep more, never less.
"""

import re
from typing import Final

from vrampack.errors import InvalidInputError

NEWEST: Final = 10**6
"""What an empty version means."""

WINDOWS_OF_THE_STEP: Final = 5554
"""Sliding layers have as many cells as the window and a micro batch (pull request 13833, May 2025); shortly before that
they had more, and at first every token."""

LATENTS_WITHOUT_VALUES: Final = 7917
"""Latent attention keeps its vector once (pull request 19067, merged in January 2026; this build is of February);
before, the value's part lay beside it once more."""

_BUILD: Final = re.compile(r"b?(\d{3,6})(?:\D.*)?")
_VERSION: Final = re.compile(r"v?\d+\.\d+(?:\.\d+)?(?:\D.*)?")


def build_of(version: str) -> int:
    """The number of ``b7917``; empty, and any version with dots: the newest.

    Raises InvalidInputError for a text that is neither.
    """
    if not version or _VERSION.fullmatch(version):
        return NEWEST
    build = _BUILD.fullmatch(version)
    if build is None:
        raise InvalidInputError(
            field="spec.engine.version",
            value=version[:100],
            allowed="a build of llama.cpp, such as b7917, or a version",
        )
    return int(build[1])
