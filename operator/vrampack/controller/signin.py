"""kopf signs in as the operator's own client does: by a kubeconfig, or as the pod's ServiceAccount."""

import kopf
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config


async def sign_in(kubeconfig: str | None) -> kopf.ConnectionInfo:
    """Reads the credentials afresh: they rotate, and kopf asks again when the API server refuses the old ones.

    Raises kopf.LoginError where there are none.
    """
    configuration = Configuration()
    try:
        await _load(configuration, kubeconfig)
    except (ConfigException, OSError, ValueError) as error:
        raise kopf.LoginError(f"{kubeconfig or 'the default kubeconfig'} can't be used: {error}") from error
    header = await configuration.get_api_key_with_prefix("BearerToken") or ""
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        username=configuration.username or None,
        password=configuration.password or None,
        token=header.removeprefix("Bearer ") or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )


async def _load(configuration: Configuration, kubeconfig: str | None) -> None:
    if kubeconfig is None:
        try:
            load_incluster_config(configuration)
        except ConfigException:  # not in a pod
            pass
        else:
            return
    await load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
