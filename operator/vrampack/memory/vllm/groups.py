"""Groups: layers that share a table of blocks, and the one size of page that all groups of a pool have."""

from dataclasses import dataclass, replace
from functools import lru_cache

from vrampack.errors import UnsupportedModelError
from vrampack.memory.vllm.pages import Keeps, LayerCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tables of blocks of layers that need the same blocks. ``pools`` tables share the layers evenly."""

    keeps: Keeps
    block_size: int
    window: int
    pools: int
    parts: tuple[tuple[LayerCache, int], ...]
    """Kinds of cache with their layers, over all pools. Members of a pool of several kinds are of one shape each."""

    @property
    def bytes(self) -> int:
        """Bytes of one block of the widest pool, over all its layers."""
        return sum(cache.page * -(-layers // self.pools) for cache, layers in self.parts)


def block_bytes(groups: tuple[Group, ...], *, dense: bool) -> int:
    """Bytes of one block. ``dense``: those of the largest group; else as many pages of every size as any group has."""
    if dense:
        return max((group.bytes for group in groups), default=0)
    sizes = {cache.page for group in groups if group.keeps is Keeps.ALL for cache, _ in group.parts}
    slots = max(-(-layers // group.pools) for group in groups for layers in _by_page(dict(group.parts)).values())
    return sum(sizes) * slots


def groups_of(caches: dict[LayerCache, int], *, packed: bool, nearly_alike: float) -> tuple[Group, ...]:
    """Groups of layers, as vLLM forms them. ``packed``: pages of several sizes lie side by side in a block.
    ``nearly_alike``: kinds whose layer counts differ by less than this factor are padded to the larger count.

    Raises UnsupportedModelError for pages that can't be brought to one size.
    """
    if not caches:
        return ()
    if _is_uniform(caches):
        return (_group(caches, pools=1),)
    if packed:
        return _packed_groups(caches)
    unified = _unified(caches)
    if len(unified) == 1:
        return (_group(unified, pools=1),)
    fewest, most = min(unified.values()), max(unified.values())
    size = most if most < fewest * nearly_alike else fewest
    return tuple(_group({cache: layers}, pools=-(-layers // size)) for cache, layers in unified.items())


def _group(caches: dict[LayerCache, int], *, pools: int) -> Group:
    first = next(iter(caches))
    return Group(
        keeps=first.keeps,
        block_size=first.block_size,
        window=first.window,
        pools=pools,
        parts=tuple(caches.items()),
    )


def _is_uniform(caches: dict[LayerCache, int]) -> bool:
    """Whether all layers need blocks for the same tokens; their pages may differ, but for states."""
    first = next(iter(caches))
    return all(
        cache.keeps is first.keeps
        and cache.block_size == first.block_size
        and cache.window == first.window
        and (cache.keeps is not Keeps.STATE or cache.page == first.page)
        for cache in caches
    )


def _unified(caches: dict[LayerCache, int]) -> dict[LayerCache, int]:
    """All pages as large as the largest: states are padded, attention gets larger blocks, or padding."""
    page = max(cache.page for cache in caches)
    unified: dict[LayerCache, int] = {}
    for cache, layers in caches.items():
        same = cache if cache.page == page else _enlarged(cache, page)
        unified[same] = unified.get(same, 0) + layers
    return unified


def _enlarged(cache: LayerCache, page: int) -> LayerCache:
    if cache.keeps is Keeps.STATE:
        return replace(cache, page=page)
    times, rest = divmod(page, cache.page)
    if not rest:
        return replace(cache, page=page, block_size=cache.block_size * times)
    if cache.latent:
        raise UnsupportedModelError(
            unknown=f"KV pages of {cache.page} and {page} bytes",
            detail="the engine can't share one pool between them: latent attention has no padded pages",
        )
    return replace(cache, page=page)


def _packed_groups(caches: dict[LayerCache, int]) -> tuple[Group, ...]:
    """Layers by the tokens they need; a kind with several page sizes sets how many layers a group repeats.

    Source: ``_get_packed_kv_cache_groups`` of vLLM 0.33.0.
    """
    buckets: dict[tuple[Keeps, int, int], dict[LayerCache, int]] = {}
    for cache, layers in caches.items():
        buckets.setdefault((cache.keeps, cache.block_size, cache.window), {})[cache] = layers
    # Layers of each page size; as many of each: a pattern that repeats, which can be split between its repeats.
    pages = [_by_page(bucket) for bucket in buckets.values()]
    repeats = [max(sizes.values()) if len(set(sizes.values())) == 1 else 0 for sizes in pages]
    mixed = [count for count, sizes in zip(repeats, pages, strict=True) if len(sizes) > 1]
    size = least_padding(tuple(count for count in repeats if count), at_least=max(mixed)) if any(mixed) else 0
    return tuple(
        _group(bucket, pools=-(-count // size) if size and count else 1)
        for bucket, count in zip(buckets.values(), repeats, strict=True)
    )


def _by_page(bucket: dict[LayerCache, int]) -> dict[int, int]:
    pages: dict[int, int] = {}
    for cache, layers in bucket.items():
        pages[cache.page] = pages.get(cache.page, 0) + layers
    return pages


@lru_cache(maxsize=64)
def least_padding(counts: tuple[int, ...], *, at_least: int) -> int:
    """The group size that pads ``counts`` least when each is rounded up to a multiple of it; of equals the largest."""
    best, least = at_least, -1
    for size in range(at_least, max(counts) + 1):
        padding = sum([-count % size for count in counts])
        if least < 0 or padding <= least:
            best, least = size, padding
    return best
