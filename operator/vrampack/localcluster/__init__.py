"""A real control plane on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok."""

import importlib.util

from vrampack.errors import LocalClusterError

_EXTRA = ("cryptography", "filelock", "platformdirs")


def check_installed() -> None:
    """Raises LocalClusterError where the extra ``local``, which the other modules of this package need, is missing."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalClusterError(f"not installed: {', '.join(missing)}; run: pip install 'vrampack[local]'")
