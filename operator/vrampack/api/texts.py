"""The forms that names, sources and versions take: one expression each, for Python and for the API server."""

from vrampack.api.common import Rule, Text

DNS_SUBDOMAIN = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
GPU_UUID = Text(
    pattern=r"(GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]{0,90}",
    allowed="write a GPU's UUID as nvidia-smi -L prints it, such as GPU-5a1b2c3d-0000-1111-2222-333344445555",
    max_length=96,
)
OBJECT_NAME = Text(
    pattern=DNS_SUBDOMAIN,
    allowed="write the name of a Kubernetes object: lower case letters, digits, '-' and '.'",
    max_length=253,
)
HUB_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
HUB_SOURCE = rf"hf://{HUB_NAME}/{HUB_NAME}"
CLAIM_SOURCE = rf"pvc://{DNS_SUBDOMAIN}(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
PROFILE_SOURCE = rf"profile://{DNS_SUBDOMAIN}"

SOURCE = Text(
    pattern=f"{HUB_SOURCE}|{CLAIM_SOURCE}|{PROFILE_SOURCE}",
    allowed="write hf://ORG/NAME, pvc://CLAIM/PATH or profile://NAME",
    max_length=512,
)
DRAFT_SOURCE = Text(
    pattern=f"({HUB_SOURCE}|{CLAIM_SOURCE})?",
    allowed="write hf://ORG/NAME or pvc://CLAIM/PATH, or leave it out",
    max_length=512,
)
REVISION = Text(
    pattern=r"([A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*)?",
    allowed="write a branch, a tag or a commit: letters, digits, '.', '_', '-' and '/'",
    max_length=255,
)
FILE = Text(
    pattern=r"([A-Za-z0-9_*?\[\]][A-Za-z0-9_.*?\[\]-]*(/[A-Za-z0-9_*?\[\]][A-Za-z0-9_.*?\[\]-]*)*)?",
    allowed="write a file name or a pattern inside the source, such as *Q4_K_M.gguf, without a leading '/' or '..'",
    max_length=255,
)
VERSION = Text(
    pattern=r"[0-9A-Za-z][0-9A-Za-z._+-]*",
    allowed='write a version in quotes, such as "0.33.0"',
    max_length=64,
)
IMAGE = Text(
    pattern=r"[A-Za-z0-9][A-Za-z0-9._:/@-]*",
    allowed="write a container image without spaces, such as registry.example.com/vllm:1.0",
    max_length=512,
)
PRODUCT = Text(
    pattern=r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
    allowed="write a product as the node label nvidia.com/gpu.product has it, such as NVIDIA-L40S",
    max_length=63,
)
DEPLOYMENT_NAME = Text(
    pattern=r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?",
    allowed="write the name of a ModelDeployment of this namespace",
    max_length=53,
)
WEIGHTS_SOURCE = Text(
    pattern=f"{HUB_SOURCE}|{CLAIM_SOURCE}",
    allowed="write where the engine loads the weights from: hf://ORG/NAME or pvc://CLAIM/PATH",
    max_length=512,
)
DIGEST = Text(
    pattern=r"(sha256:[0-9a-f]{64})?",
    allowed="write sha256: and 64 hexadecimal digits, or leave it out",
    max_length=71,
)
OPTIONAL_NAME = Text(
    pattern=f"({DNS_SUBDOMAIN})?",
    allowed="write the name of a Kubernetes object, or an empty text for none",
    max_length=253,
)
RUNTIME_CLASS = Text(
    pattern=f"({DNS_SUBDOMAIN})?",
    allowed="write the name of a RuntimeClass, or an empty text for none",
    max_length=253,
)

QUALIFIED_NAME = "([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
LABEL_VALUE = "([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
LABEL_TEXT = Text(
    pattern=LABEL_VALUE,
    allowed="write the value of a label: at most 63 letters, digits, '-', '_' and '.'",
    max_length=63,
)
LABELS_ARE_VALID = Rule(
    rule=f"self.all(k, k.matches('^{QUALIFIED_NAME}$') && self[k].matches('^{LABEL_VALUE}$'))",
    message="write labels as Kubernetes has them, such as example.com/gpu-team: research",
)
ANNOTATIONS_ARE_VALID = Rule(
    rule=f"self.all(k, k.matches('^{QUALIFIED_NAME}$'))",
    message="write the names of annotations as Kubernetes has them, such as example.com/owner",
)
