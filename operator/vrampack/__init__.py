"""vrampack: serves language models on shared GPUs, byte by byte.

``from vrampack import estimate`` is the memory estimate as a library; it is loaded when it is asked for, so that the
package itself costs nothing to import.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrampack.estimator import ModelEstimate, estimate

__version__ = "0.1.0"

__all__ = ["ModelEstimate", "__version__", "estimate"]


def __getattr__(name: str) -> Any:
    if name in ("estimate", "ModelEstimate"):
        from vrampack import estimator

        return getattr(estimator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
