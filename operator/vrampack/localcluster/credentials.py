"""Who may sign in to one cluster, and the kubeconfig files with which they do."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

from vrampack.localcluster.certificates import Authority, Certificate, new_key, write_secret
from vrampack.localcluster.components import SERVICE_ADDRESS, Layout


def prepare(layout: Layout) -> None:
    """Writes the certificates and kubeconfig files of the admin and of the processes of the cluster."""
    for folder in (layout.pki(""), layout.kubeconfig("").parent):
        folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(name="vrampack-local")
    layout.pki("ca.crt").write_bytes(authority.certificate)
    write_secret(layout.pki("service-account.key"), new_key())
    authority.server(
        addresses=("127.0.0.1", SERVICE_ADDRESS),
        names=("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"),
    ).write(folder=layout.pki(""), name="server")
    admin = authority.client(user="admin", group="system:masters")
    admin.write(folder=layout.pki(""), name="admin")
    clients = {
        "admin": admin,
        "kube-controller-manager": authority.client(user="system:kube-controller-manager"),
        "kube-scheduler": authority.client(user="system:kube-scheduler"),
        # kwok stands for all kubelets at once, and there is no role for that: each kubelet is a user of its own.
        "kwok": authority.client(user="kwok", group="system:masters"),
    }
    for user, certificate in clients.items():
        _write_kubeconfig(layout, user=user, credentials=_by_certificate(certificate))


def write_token(layout: Layout, *, user: str, token: str) -> Path:
    """Writes a kubeconfig that signs in with a token, and returns its path."""
    return _write_kubeconfig(layout, user=user, credentials={"token": token})


def _by_certificate(certificate: Certificate) -> Mapping[str, str]:
    return {
        "client-certificate-data": base64.b64encode(certificate.certificate).decode(),
        "client-key-data": base64.b64encode(certificate.key).decode(),
    }


def _write_kubeconfig(layout: Layout, *, user: str, credentials: Mapping[str, str]) -> Path:
    authority = layout.pki("ca.crt").read_bytes()
    cluster = {"server": layout.server_url, "certificate-authority-data": base64.b64encode(authority).decode()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "vrampack", "cluster": cluster}],
        "users": [{"name": user, "user": dict(credentials)}],
        "contexts": [{"name": "vrampack", "context": {"cluster": "vrampack", "user": user}}],
        "current-context": "vrampack",
    }
    path = layout.kubeconfig(user)
    write_secret(path, json.dumps(content, indent=2).encode())  # JSON is YAML
    return path
