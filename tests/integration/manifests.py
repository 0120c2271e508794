"""Objects that the tests of the operator apply: models of exact sizes, and the facts of a model too small to matter."""

from typing import Any

from vrampack.api import names

Manifest = dict[str, Any]

TINY = "tiny"
LOADS_FAST = {"metadata": {"annotations": {"sim.vrampack.dev/load-seconds": "0.3"}}}


def profile(name: str, *, weights: str = "64Mi", family: str = "llama") -> Manifest:
    """Facts by hand of a model with 4096 tokens of context, whose estimate is little more than its weights."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "ModelProfile",
        "metadata": {"name": name},
        "spec": {
            "source": f"hf://example/{name}",
            "revision": "0123456789abcdef0123456789abcdef01234567",
            "architecture": {
                "modelType": family,
                "layers": 2,
                "hiddenSize": 256,
                "intermediateSize": 1024,
                "vocabSize": 32000,
                "attentionHeads": 8,
                "kvHeads": 8,
                "headDim": 32,
                "dtype": "bfloat16",
                "maxContext": 4096,
            },
            "parameters": 18_000_000,
            "weightFiles": {"bytes": weights, "embeddingBytes": "32Mi"},
            "precision": "bf16",
        },
    }


def model(name: str, *, claim: str | None = "10Gi", source: str = f"profile://{TINY}", **spec: Any) -> Manifest:
    """A ModelDeployment that loads fast. ``claim``: its memory on each GPU; None leaves that to the estimate."""
    declared = {} if claim is None else {"memory": {"perGPU": claim}}
    fields = {
        "model": {"source": source},
        "serving": {"contextLength": 1024, "concurrency": 4},
        "podTemplate": LOADS_FAST,
        **declared,
        **spec,
    }
    return {"apiVersion": names.API_VERSION, "kind": "ModelDeployment", "metadata": {"name": name}, "spec": fields}


def overlay(**pod_spec: Any) -> Manifest:
    """A podTemplate that loads fast, with these fields of the pod."""
    return {**LOADS_FAST, "spec": pod_spec}


def group(name: str, *, product: str = "L40S", gpus: int = 1, **faults: Any) -> Manifest:
    """An entry of a fleet file. An L40S has 44.39 GiB for engines, an H100-80 79.18."""
    return {"name": name, "product": product, "gpus": gpus, **faults}
