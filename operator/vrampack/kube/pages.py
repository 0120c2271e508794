"""Lists, page by page."""

from collections.abc import AsyncGenerator

import msgspec

from vrampack.errors import ClusterError
from vrampack.kube import wire
from vrampack.kube.client import Kube


async def pages(kube: Kube, path: str, **query: object) -> AsyncGenerator[wire.Page]:
    """One list at one resourceVersion, in pages of ``limit``. Raises as every request does: 410 where it expired
    between two pages, and ClusterError where the answer is no list at all."""
    following: str | None = None
    while following != "":
        try:
            page = wire.decode_page(await kube.list_raw(path, **query, **{"continue": following}))
        except msgspec.DecodeError as error:
            raise ClusterError(f"{path}: the answer is no list: {error}") from error
        yield page
        following = page.following
