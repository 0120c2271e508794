"""The chart and the examples, in a checkout and in an installed wheel alike."""

from pathlib import Path
from typing import Final

from vrampack.errors import LocalClusterError

_WHEEL: Final = Path(__file__).parent / "bundle"
_CHECKOUT: Final = Path(__file__).parents[3]


def chart() -> Path:
    """The Helm chart; its folder ``crds`` holds the CustomResourceDefinitions. Raises LocalClusterError."""
    return _folder(_WHEEL / "chart", _CHECKOUT / "charts" / "vrampack")


def examples() -> Path:
    """What ``kubectl apply -f`` takes; its folder ``fleet`` holds the simulated fleets. Raises LocalClusterError."""
    return _folder(_WHEEL / "examples", _CHECKOUT / "examples")


def _folder(*places: Path) -> Path:
    for place in places:
        if place.is_dir():
            return place
    raise LocalClusterError(f"this installation is incomplete: there is none of {', '.join(map(str, places))}")
