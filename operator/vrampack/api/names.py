"""Names that vrampack puts on objects: one place, so that the operator, the chart's policies and the tests agree."""

from typing import Final

GROUP: Final = "vrampack.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

GATE: Final = f"{GROUP}/placement"

# On pods. NEED comes with the template; all others are written once, in the patch that removes the gate.
NEED: Final = f"{GROUP}/need"
GPUS: Final = f"{GROUP}/gpus"
CLAIM: Final = f"{GROUP}/claim"
EPOCH: Final = f"{GROUP}/epoch"
VISIBLE_DEVICES: Final = f"{GROUP}/visible-devices"
UTILIZATION: Final = f"{GROUP}/utilization"
KV_CACHE_BYTES: Final = f"{GROUP}/kv-cache-bytes"
MEMORY_LIMIT_MIB: Final = f"{GROUP}/memory-limit-mib"
BECAUSE: Final = f"{GROUP}/because"  # why these GPUs, in words; written with the claim, and no part of it
SCOPE: Final = f"{GROUP}/scope"  # where another scheduler chooses the GPU: the claim is one on the node until then
NODE_SCOPE: Final = "node"
MPS_LIMIT: Final = f"{GROUP}/mps-limit"
CLAIM_ANNOTATIONS: Final = (GPUS, CLAIM, EPOCH, VISIBLE_DEVICES, UTILIZATION, KV_CACHE_BYTES, MEMORY_LIMIT_MIB)
MECHANISM_ANNOTATIONS: Final = (SCOPE, MPS_LIMIT)
"""Of a claim too, with some mechanisms."""

# On the pods that find out how a node hands out GPUs, and on nodes, by the admin: whatever names the node's software.
PROBE: Final = f"{GROUP}/probe"
PROBE_NODE: Final = f"{GROUP}/probe-node"
PROBE_SETUP: Final = f"{GROUP}/probe-setup"
PROBE_STYLE: Final = f"{GROUP}/probe-style"
NODE_STACK: Final = f"{GROUP}/node-stack"

# On children.
SPEC_HASH: Final = f"{GROUP}/spec-hash"  # of the user's spec that the template was made from
TEMPLATE_HASH: Final = f"{GROUP}/template-hash"  # of the template as it was rendered: tells drift from a new version
ESTIMATE: Final = f"{GROUP}/estimate"  # the estimate in force, JSON
COMMIT: Final = f"{GROUP}/commit"  # the model's revision in force
DRAFT_COMMIT: Final = f"{GROUP}/draft-commit"  # that of the model that drafts
DRAFT_DIGEST: Final = f"{GROUP}/draft-weights-digest"  # the next one, of the model that drafts
DIGEST: Final = f"{GROUP}/weights-digest"  # over the weight files of that revision, when the template was made

# On a ModelDeployment, by the user: any new value adopts the newest estimate and template.
REFRESH: Final = f"{GROUP}/refresh"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "vrampack"
MODEL_DEPLOYMENT: Final = f"{GROUP}/model-deployment"
RESERVATION: Final = f"{GROUP}/reservation"  # on a pod of the operator's namespace: its GPUs are held for vrampack
ENGINE_CONTAINER: Final = "engine"

FIELD_MANAGER: Final = "vrampack"
STATUS_MANAGER: Final = "vrampack-status"
MEASUREMENT_MANAGER: Final = "vrampack-measurements"
PLACEMENT_MANAGER: Final = "vrampack-placement"
AGENT_MANAGER: Final = "vrampack-agent"

LEADER_LEASE: Final = "vrampack"
AGENT_LEASE_PREFIX: Final = "vrampack-agent-"
"""The agent of node N renews the Lease named prefix + N in the operator's namespace."""

DEFAULT_POOL: Final = "default"
PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
