"""A kubeconfig for a server of a test."""

from pathlib import Path

import yaml


def write_kubeconfig(folder: Path, server: str, *, token: str = "none") -> Path:
    """With one context, signed in by ``token``; written over the one of before."""
    path = folder / "kubeconfig"
    named = {"name": "it"}
    content = {
        "current-context": "it",
        "contexts": [named | {"context": {"cluster": "it", "user": "it"}}],
        "clusters": [named | {"cluster": {"server": server}}],
        "users": [named | {"user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path
