"""What a hub, or the cache of its answers, says of a repository: its commit and files, read as a stranger's words."""

import json
import re
from collections.abc import Mapping
from typing import Final

from vrampack.models.files import Listed

COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MAX_INFO_BYTES: Final = 64 * 1024**2
"""Of what a hub says about a repository; some with 10,000 files have 4 MB."""
_MAX_FILE_BYTES: Final = 2**53


def listing_of_answer(content: bytes) -> tuple[str, Mapping[str, Listed]]:
    """The commit, and its files by name. Raises ValueError, KeyError, TypeError, AttributeError or RecursionError for
    what is no answer of a hub."""
    if len(content) > MAX_INFO_BYTES:
        raise ValueError(f"more than {MAX_INFO_BYTES} bytes")
    said = json.loads(content)
    if COMMIT.fullmatch(said["sha"]) is None:
        raise ValueError("sha is no commit")
    listing = {
        str(each["rfilename"]): _listed(each.get("size"), (each.get("lfs") or {}).get("sha256") or each.get("blobId"))
        for each in said.get("siblings") or []
    }
    return said["sha"], listing


def written(listing: Mapping[str, Listed]) -> bytes:
    """For a cache."""
    return json.dumps({name: [each.bytes, each.digest] for name, each in listing.items()}).encode()


def listing_of_cache(content: bytes) -> Mapping[str, Listed] | None:
    """As it was `written`; None: it is something else."""
    try:
        said = {str(name): (size, digest) for name, (size, digest) in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    listing = {name: _listed(size, digest) for name, (size, digest) in said.items()}
    return listing if all((each.bytes, each.digest) == said[name] for name, each in listing.items()) else None


def _listed(size: object, digest: object) -> Listed:
    """What is impossible counts as not told."""
    return Listed(
        bytes=size if type(size) is int and 0 <= size <= _MAX_FILE_BYTES else None,
        digest=digest if isinstance(digest, str) and COMMIT.fullmatch(digest) else None,
    )
