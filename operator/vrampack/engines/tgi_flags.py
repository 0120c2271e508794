"""The flags of ``text-generation-launcher`` (read from its reference of 3.3), by what they do to GPU memory."""

from typing import Final

from vrampack.api.ownedflags import TGI_FLAGS
from vrampack.engines.arguments import Flags

FLAGS: Final = Flags(
    engine="tgi",
    owned=TGI_FLAGS,
    memory=frozenset({"--rope-scaling", "--rope-factor", "--enable-prefill-logprobs", "--disable-custom-kernels"}),
    switches=frozenset(
        {
            "--json-output",
            "--trust-remote-code",
            "--disable-grammar-support",
        }
    ),
    values=frozenset(
        {
            "--api-key",
            "--cors-allow-origin",
            "--max-best-of",
            "--max-client-batch-size",
            "--max-stop-sequences",
            "--max-top-n-tokens",
            "--max-waiting-tokens",
            "--otlp-endpoint",
            "--otlp-service-name",
            "--payload-limit",
            "--prometheus-port",
            "--tokenizer-config-path",
            "--usage-stats",
            "--validation-workers",
            "--waiting-served-ratio",
        }
    ),
    lists=frozenset(),
)
