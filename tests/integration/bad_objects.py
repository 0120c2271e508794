"""Objects that the API server refuses, each with the field that it names, and good ones that it takes.

Each bad object is a good one with one thing changed, by a JSON merge patch: None takes a field away.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.llama_profile import LLAMA_PROFILE

Manifest = dict[str, Any]

COMMIT = LLAMA_PROFILE["revision"]
UUID = "GPU-5a1b2c3d-0000-1111-2222-333344445555"

DEPLOYMENT: Manifest = {
    "apiVersion": "vrampack.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "good", "namespace": "default"},
    "spec": {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "serving": {"contextLength": 8192, "concurrency": 16},
    },
}
PROFILE: Manifest = {
    "apiVersion": "vrampack.dev/v1alpha1",
    "kind": "ModelProfile",
    "metadata": {"name": "good"},
    "spec": dict(LLAMA_PROFILE),
}
NODE: Manifest = {
    "apiVersion": "vrampack.dev/v1alpha1",
    "kind": "GPUNode",
    "metadata": {"name": "good"},
    "spec": {"gpus": [{"uuid": UUID, "cordoned": True, "reserve": "512Mi"}]},
}
POOL: Manifest = {
    "apiVersion": "vrampack.dev/v1alpha1",
    "kind": "GPUPool",
    "metadata": {"name": "good"},
    "spec": {
        "nodeSelector": {"example.com/gpu-team": "research"},
        "limits": [{"namespaceSelector": {"matchLabels": {"team": "research"}}, "memory": "160Gi"}],
    },
}
GOOD: Mapping[str, Manifest] = {each["kind"]: each for each in (DEPLOYMENT, PROFILE, NODE, POOL)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BadObject:
    """``path``: the field that the API server must name; ``says``: words of the advice that must come with it."""

    name: str
    kind: str = "ModelDeployment"
    patch: Mapping[str, Any]
    path: str
    says: str = ""

    def manifest(self) -> Manifest:
        """The good object of this kind, with the patch."""
        return merged(GOOD[self.kind], self.patch)


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Manifest:
    """A JSON merge patch (RFC 7386) on a copy."""
    result = copy.deepcopy(dict(base))
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            inner = result.get(key)
            result[key] = merged(inner if isinstance(inner, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def spec(**fields: Any) -> Manifest:
    """A patch of spec."""
    return {"spec": fields}


def pod(**fields: Any) -> Manifest:
    """A patch of the overlay's pod spec."""
    return spec(podTemplate={"spec": fields})


def engine_container(**fields: Any) -> Manifest:
    """A patch of the engine's container in the overlay."""
    return pod(containers=[{"name": "engine", **fields}])


def engine_args(*args: str) -> Manifest:
    """A patch of the engine's arguments."""
    return spec(engine={"args": list(args)})


ENGINE_ARGS = "spec.engine.args"
CONTAINER = "spec.podTemplate.spec.containers[0]"

NAMES = (
    BadObject(
        name="a name with a dot",
        patch={"metadata": {"name": "llama-3.1"}},
        path="metadata.name",
        says="beginning with a letter",
    ),
    BadObject(
        name="a name that begins with a digit",
        patch={"metadata": {"name": "8b"}},
        path="metadata.name",
        says="beginning with a letter",
    ),
    BadObject(name="a name of 54 characters", patch={"metadata": {"name": "a" * 54}}, path="metadata.name"),
)

MODEL = (
    BadObject(name="no spec", patch={"spec": None}, path="spec", says="Required value"),
    BadObject(name="no model", patch=spec(model=None), path="spec.model", says="Required value"),
    BadObject(name="no source", patch=spec(model={"source": None}), path="spec.model.source", says="Required value"),
    BadObject(
        name="a source without a scheme",
        patch=spec(model={"source": "meta-llama/Llama-3.1-8B-Instruct"}),
        path="spec.model.source",
        says="hf://ORG/NAME",
    ),
    BadObject(
        name="a hub source without an organisation", patch=spec(model={"source": "hf://gpt2"}), path="spec.model.source"
    ),
    BadObject(
        name="a source of a scheme that is not known",
        patch=spec(model={"source": "s3://bucket/llama"}),
        path="spec.model.source",
        says="pvc://CLAIM/PATH",
    ),
    BadObject(
        name="a claim's path that leaves the claim",
        patch=spec(model={"source": "pvc://models/../secrets"}),
        path="spec.model.source",
    ),
    BadObject(
        name="a profile with capitals in its name",
        patch=spec(model={"source": "profile://Llama"}),
        path="spec.model.source",
    ),
    BadObject(
        name="an endless source",
        patch=spec(model={"source": "pvc://models/" + "a" * 600}),
        path="spec.model.source",
        says="512",
    ),
    BadObject(
        name="a revision with a space", patch=spec(model={"revision": "main branch"}), path="spec.model.revision"
    ),
    BadObject(name="a revision that climbs", patch=spec(model={"revision": "../main"}), path="spec.model.revision"),
    BadObject(
        name="a revision of a profile",
        patch=spec(model={"source": "profile://llama", "revision": "main"}),
        path="spec.model.revision",
        says="only a hf:// source",
    ),
    BadObject(
        name="a token for a claim",
        patch=spec(model={"source": "pvc://models/llama", "tokenSecretRef": {"name": "hub"}}),
        path="spec.model.tokenSecretRef",
        says="leave tokenSecretRef out",
    ),
    BadObject(
        name="a token without a Secret",
        patch=spec(model={"tokenSecretRef": {"key": "token"}}),
        path="spec.model.tokenSecretRef.name",
        says="Required value",
    ),
    BadObject(name="a file above the source", patch=spec(model={"file": "../x.gguf"}), path="spec.model.file"),
)

PRECISION = (
    BadObject(
        name="a precision in other words",
        patch=spec(precision={"weights": "bfloat16"}),
        path="spec.precision.weights",
        says="Unsupported value",
    ),
    BadObject(
        name="a KV cache in other words", patch=spec(precision={"kvCache": "fp8_e4m3"}), path="spec.precision.kvCache"
    ),
    BadObject(
        name="a KV cache that only llamacpp has",
        patch=spec(precision={"kvCache": "q8_0"}),
        path="spec.precision.kvCache",
        says="only llamacpp",
    ),
    BadObject(
        name="a mismatch that is ignored",
        patch=spec(precision={"onMismatch": "Ignore"}),
        path="spec.precision.onMismatch",
    ),
)

SERVING = (
    BadObject(name="no serving", patch=spec(serving=None), path="spec.serving", says="Required value"),
    BadObject(
        name="no context length",
        patch=spec(serving={"contextLength": None}),
        path="spec.serving.contextLength",
        says="Required value",
    ),
    BadObject(
        name="no concurrency",
        patch=spec(serving={"concurrency": None}),
        path="spec.serving.concurrency",
        says="Required value",
    ),
    BadObject(name="concurrency 0", patch=spec(serving={"concurrency": 0}), path="spec.serving.concurrency"),
    BadObject(
        name="concurrency beyond all engines",
        patch=spec(serving={"concurrency": 8193}),
        path="spec.serving.concurrency",
    ),
    BadObject(
        name="concurrency as a text",
        patch=spec(serving={"concurrency": "16"}),
        path="spec.serving.concurrency",
        says="must be of type integer",
    ),
    BadObject(
        name="a negative context length", patch=spec(serving={"contextLength": -1}), path="spec.serving.contextLength"
    ),
    BadObject(
        name="a sequence that is longer than the context",
        patch=spec(serving={"tokensPerSequence": 8193}),
        path="spec.serving.tokensPerSequence",
        says="no sequence is longer than contextLength",
    ),
    BadObject(
        name="fewer batched tokens than sequences",
        patch=spec(serving={"concurrency": 64}, engine={"maxBatchedTokens": 63}),
        path="spec.engine.maxBatchedTokens",
        says="raise maxBatchedTokens, or lower serving.concurrency",
    ),
    BadObject(
        name="a field with a small letter too many",
        patch=spec(serving={"contextlength": 8192}),
        path="spec.serving.contextlength",
        says="unknown field",
    ),
)

ENGINE = (
    BadObject(name="an engine that is not known", patch=spec(engine={"name": "ollama"}), path="spec.engine.name"),
    BadObject(
        name="a version that YAML reads as a number",
        patch=spec(engine={"version": 0.33}),
        path="spec.engine.version",
        says="must be of type string",
    ),
    BadObject(name="a version of nothing", patch=spec(engine={"version": "latest!"}), path="spec.engine.version"),
    BadObject(
        name="another engine without a version",
        patch=spec(engine={"name": "sglang"}),
        path="spec.engine.version",
        says="name the version of this engine",
    ),
    BadObject(name="an image with a space", patch=spec(engine={"image": "vllm latest"}), path="spec.engine.image"),
    BadObject(
        name="a custom engine without an image",
        patch=spec(engine={"name": "custom"}, memory={"perGPU": "20Gi"}),
        path="spec.engine.image",
        says="name one",
    ),
    BadObject(
        name="a custom engine without its memory",
        patch=spec(engine={"name": "custom", "image": "example.com/engine:1"}),
        path="spec.memory.perGPU",
        says="can't be estimated",
    ),
    BadObject(
        name="CUDA graphs off, which YAML reads as false",
        patch=spec(engine={"cudaGraphs": False}),
        path="spec.engine.cudaGraphs",
    ),
    BadObject(
        name="a negative number of images",
        patch=spec(engine={"imagesPerPrompt": -1}),
        path="spec.engine.imagesPerPrompt",
    ),
    BadObject(
        name="no batched tokens", patch=spec(engine={"maxBatchedTokens": 0}), path="spec.engine.maxBatchedTokens"
    ),
    BadObject(name="arguments in one text", patch=spec(engine={"args": "--seed 1"}), path=ENGINE_ARGS),
    BadObject(
        name="too many arguments", patch=engine_args(*(f"--seed={each}" for each in range(65))), path=ENGINE_ARGS
    ),
)

ARGUMENTS = (
    BadObject(
        name="the share of the GPU",
        patch=engine_args("--gpu-memory-utilization", "0.9"),
        path=ENGINE_ARGS,
        says="set memory.perGPU",
    ),
    BadObject(
        name="the size of the KV cache, after a good argument",
        patch=engine_args("--trust-remote-code", "--kv-cache-memory-bytes=1000000000"),
        path=ENGINE_ARGS,
    ),
    BadObject(
        name="the context length with underscores",
        patch=engine_args("--max_model_len=4096"),
        path=ENGINE_ARGS,
        says="leave out --max-model-len: vrampack sets it from serving.contextLength",
    ),
    BadObject(name="the context length, abbreviated", patch=engine_args("--max-model", "4096"), path=ENGINE_ARGS),
    BadObject(name="the concurrency", patch=engine_args("--max-num-seqs=256"), path=ENGINE_ARGS),
    BadObject(
        name="the tensor parallel size in short",
        patch=engine_args("-tp", "4"),
        path=ENGINE_ARGS,
        says="vrampack sets it from parallelism",
    ),
    BadObject(name="the quantization in short", patch=engine_args("-q=fp8"), path=ENGINE_ARGS),
    BadObject(
        name="the precision of the KV cache",
        patch=engine_args("--kv-cache-dtype=fp8"),
        path=ENGINE_ARGS,
        says="vrampack sets it from precision.weights and precision.kvCache",
    ),
    BadObject(
        name="CUDA graphs, negated",
        patch=engine_args("--no-enforce-eager"),
        path=ENGINE_ARGS,
        says="vrampack sets it from engine.cudaGraphs",
    ),
    BadObject(name="the compilation level", patch=engine_args("-O0"), path=ENGINE_ARGS),
    BadObject(
        name="one value of the compilation", patch=engine_args("--compilation-config.mode", "0"), path=ENGINE_ARGS
    ),
    BadObject(
        name="prefix caching by its other name",
        patch=engine_args("--disable-prefix-caching"),
        path=ENGINE_ARGS,
        says="vrampack sets it from engine.prefixCaching",
    ),
    BadObject(name="another model", patch=engine_args("--model=other/model"), path=ENGINE_ARGS),
    BadObject(
        name="another port",
        patch=engine_args("--port=9000"),
        path=ENGINE_ARGS,
        says="vrampack sets it from service.port",
    ),
    BadObject(name="a file of arguments", patch=engine_args("--config", "/tmp/args.yaml"), path=ENGINE_ARGS),
    BadObject(
        name="speculation", patch=engine_args("-sc", "{}"), path=ENGINE_ARGS, says="vrampack sets it from speculation"
    ),
    BadObject(
        name="adapters", patch=engine_args("--enable-lora"), path=ENGINE_ARGS, says="vrampack sets it from adapters"
    ),
)

REPLICAS = (
    BadObject(name="a negative number of replicas", patch=spec(replicas=-1), path="spec.replicas"),
    BadObject(
        name="more GPUs than a node has",
        patch=spec(parallelism={"tensor": 16, "pipeline": 8}),
        path="spec.parallelism",
        says="64 GPUs or fewer",
    ),
    BadObject(
        name="context parallelism that does not divide",
        patch=spec(parallelism={"tensor": 4, "decodeContext": 3}),
        path="spec.parallelism.decodeContext",
        says="a divisor of tensor",
    ),
    BadObject(name="tensor 0", patch=spec(parallelism={"tensor": 0}), path="spec.parallelism.tensor"),
    BadObject(
        name="eagle without a draft model",
        patch=spec(speculation={"method": "eagle3", "tokens": 3}),
        path="spec.speculation.draftModel",
        says="name its source",
    ),
    BadObject(
        name="mtp with a draft model",
        patch=spec(speculation={"method": "mtp", "tokens": 1, "draftModel": "hf://org/draft"}),
        path="spec.speculation.draftModel",
        says="leave draftModel out",
    ),
    BadObject(
        name="33 drafted tokens",
        patch=spec(speculation={"method": "ngram", "tokens": 33}),
        path="spec.speculation.tokens",
    ),
    BadObject(name="no adapters", patch=spec(adapters={"max": 0}), path="spec.adapters.max"),
    BadObject(
        name="a rank between two",
        patch=spec(adapters={"max": 4, "maxRank": 24}),
        path="spec.adapters.maxRank",
        says="the next higher one",
    ),
    BadObject(
        name="memory that is no quantity",
        patch=spec(memory={"perGPU": "20 GiB"}),
        path="spec.memory.perGPU",
        says="such as 24Gi",
    ),
    BadObject(
        name="memory without its suffix",
        patch=spec(memory={"perGPU": 20}),
        path="spec.memory.perGPU",
        says="without a suffix it is bytes",
    ),
    BadObject(name="negative memory", patch=spec(memory={"perGPU": "-1Gi"}), path="spec.memory.perGPU"),
    BadObject(
        name="headroom without its sign",
        patch=spec(memory={"headroom": "3"}),
        path="spec.memory.headroom",
        says="such as 3%",
    ),
    BadObject(name="headroom of everything", patch=spec(memory={"headroom": "100%"}), path="spec.memory.headroom"),
    BadObject(name="a rollout in small letters", patch=spec(rollout="surge"), path="spec.rollout"),
    BadObject(name="port 0", patch=spec(service={"port": 0}), path="spec.service.port"),
    BadObject(
        name="a priority class with capitals", patch=spec(priorityClassName="High"), path="spec.priorityClassName"
    ),
)

PLACEMENT = (
    BadObject(name="a pool with a space", patch=spec(placement={"pool": "my pool"}), path="spec.placement.pool"),
    BadObject(
        name="a product as people say it",
        patch=spec(placement={"gpuProducts": ["NVIDIA L40S"]}),
        path="spec.placement.gpuProducts[0]",
        says="nvidia.com/gpu.product",
    ),
    BadObject(
        name="a product twice",
        patch=spec(placement={"gpuProducts": ["NVIDIA-L40S", "NVIDIA-L40S"]}),
        path="spec.placement.gpuProducts[1]",
        says="Duplicate value",
    ),
    BadObject(
        name="sharing in small letters", patch=spec(placement={"sharing": "exclusive"}), path="spec.placement.sharing"
    ),
    BadObject(
        name="spread that is not known", patch=spec(placement={"spread": "Always"}), path="spec.placement.spread"
    ),
    BadObject(
        name="a neighbour of another namespace",
        patch=spec(placement={"avoidModels": ["other/llama"]}),
        path="spec.placement.avoidModels[0]",
        says="of this namespace",
    ),
)

OVERLAY = (
    BadObject(name="a node", patch=pod(nodeName="gpu-1"), path="spec.podTemplate.spec.nodeName", says="nodeSelector"),
    BadObject(
        name="a scheduler",
        patch=pod(schedulerName="mine"),
        path="spec.podTemplate.spec.schedulerName",
        says="leave it out",
    ),
    BadObject(
        name="a runtime class",
        patch=pod(runtimeClassName="gvisor"),
        path="spec.podTemplate.spec.runtimeClassName",
        says="GPUPool",
    ),
    BadObject(
        name="a priority class below",
        patch=pod(priorityClassName="high"),
        path="spec.podTemplate.spec.priorityClassName",
        says="set spec.priorityClassName",
    ),
    BadObject(
        name="the host's network", patch=pod(hostNetwork=True), path="spec.podTemplate.spec.hostNetwork", says="collide"
    ),
    BadObject(
        name="the gate",
        patch=pod(schedulingGates=[{"name": "vrampack.dev/placement"}]),
        path="spec.podTemplate.spec.schedulingGates[0].name",
    ),
    BadObject(
        name="a label of vrampack's",
        patch=spec(podTemplate={"metadata": {"labels": {"vrampack.dev/model-deployment": "other"}}}),
        path="spec.podTemplate.metadata.labels",
        says="leave them out",
    ),
    BadObject(
        name="the label of who manages it",
        patch=spec(podTemplate={"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}),
        path="spec.podTemplate.metadata.labels",
    ),
    BadObject(
        name="a claim as an annotation",
        patch=spec(podTemplate={"metadata": {"annotations": {"vrampack.dev/gpus": UUID}}}),
        path="spec.podTemplate.metadata.annotations",
    ),
    BadObject(
        name="a GPU by an annotation for NRI",
        patch=spec(podTemplate={"metadata": {"annotations": {"nvidia.cdi.k8s.io/container.sidecar": UUID}}}),
        path="spec.podTemplate.metadata.annotations",
        says="GPUs that vrampack did not hand out",
    ),
    BadObject(
        name="a GPU by an annotation for CDI",
        patch=spec(podTemplate={"metadata": {"annotations": {"cdi.k8s.io/sidecar": f"nvidia.com/gpu={UUID}"}}}),
        path="spec.podTemplate.metadata.annotations",
        says="GPUs that vrampack did not hand out",
    ),
    BadObject(
        name="a label with a space",
        patch=spec(podTemplate={"metadata": {"labels": {"team": "a b"}}}),
        path="spec.podTemplate.metadata.labels",
        says="as Kubernetes has them",
    ),
    BadObject(
        name="an annotation with a space",
        patch=spec(podTemplate={"metadata": {"annotations": {"my team": "a b"}}}),
        path="spec.podTemplate.metadata.annotations",
        says="as Kubernetes has them",
    ),
    BadObject(
        name="pods that end",
        patch=pod(restartPolicy="Never"),
        path="spec.podTemplate.spec.restartPolicy",
        says="leave it out",
    ),
    BadObject(
        name="the visible devices",
        patch=engine_container(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]),
        path=f"{CONTAINER}.env[0].name",
        says="which GPU a container sees",
    ),
    BadObject(
        name="the visible devices of a sidecar",
        patch=pod(containers=[{"name": "exporter", "env": [{"name": "A"}, {"name": "CUDA_VISIBLE_DEVICES"}]}]),
        path=f"{CONTAINER}.env[1].name",
    ),
    BadObject(
        name="the memory limit of an init container",
        patch=pod(initContainers=[{"name": "load", "env": [{"name": "NVIDIA_GPU_MEMORY_LIMIT", "value": "1"}]}]),
        path="spec.podTemplate.spec.initContainers[0].env[0].name",
    ),
    BadObject(
        name="a variable of vrampack's",
        patch=engine_container(env=[{"name": "VRAMPACK_UTILIZATION", "value": "1"}]),
        path=f"{CONTAINER}.env[0].name",
    ),
    BadObject(
        name="the engine's command",
        patch=engine_container(command=["sleep", "1"]),
        path="spec.podTemplate.spec.containers",
        says="spec.engine.name custom",
    ),
    BadObject(
        name="the engine's arguments",
        patch=engine_container(args=["--seed=1"]),
        path=f"{CONTAINER}.args",
        says="use spec.engine.args",
    ),
    BadObject(
        name="a GPU as a limit",
        patch=engine_container(resources={"limits": {"nvidia.com/gpu": 1}}),
        path=f"{CONTAINER}.resources.limits",
        says="leave nvidia.com/* out",
    ),
    BadObject(
        name="a slice of a GPU as a request",
        patch=pod(containers=[{"name": "exporter", "resources": {"requests": {"nvidia.com/mig-1g.10gb": "1"}}}]),
        path=f"{CONTAINER}.resources.requests",
    ),
    BadObject(
        name="a privileged container",
        patch=engine_container(securityContext={"privileged": True}),
        path=f"{CONTAINER}.securityContext.privileged",
        says="every GPU of its node",
    ),
    BadObject(name="a container without a name", patch=pod(containers=[{"image": "x"}]), path=f"{CONTAINER}.name"),
    BadObject(
        name="a field that pods' metadata has and replicas don't",
        patch=spec(podTemplate={"metadata": {"name": "mine"}}),
        path="spec.podTemplate.metadata.name",
        says="unknown field",
    ),
)

PROFILES = tuple(
    BadObject(name=name, kind="ModelProfile", patch=spec(**patch), path=path, says=says)
    for name, patch, path, says in (
        ("facts of a branch", {"revision": "main"}, "spec.revision", "40 hexadecimal digits"),
        ("facts without a commit", {"revision": None}, "spec.revision", "40 hexadecimal digits"),
        ("a profile of a profile", {"source": "profile://other"}, "spec.source", "where the engine loads"),
        ("no architecture", {"architecture": None}, "spec.architecture", "Required value"),
        ("no layers", {"architecture": {"layers": None}}, "spec.architecture.layers", "Required value"),
        (
            "towers larger than all weights",
            {"weightFiles": {"towerBytes": "900Gi"}},
            "spec.weightFiles.bytes",
            "are parts of bytes",
        ),
        (
            "a tensor that is split in a way of its own",
            {"weightFiles": {"layout": {"kinds": {"k0": ["8 halves"]}, "order": []}}},
            "spec.weightFiles.layout.kinds.k0[0]",
            "should match",
        ),
        ("KV heads that do not divide", {"architecture": {"kvHeads": 5}}, "spec.architecture.kvHeads", "a divisor"),
        ("a type in short", {"architecture": {"dtype": "bf16"}}, "spec.architecture.dtype", "Unsupported value"),
        (
            "a dense model without a feed-forward layer",
            {"architecture": {"intermediateSize": 0}},
            "spec.architecture.intermediateSize",
            "",
        ),
        (
            "a model without attention and without layers",
            {"architecture": {"attentionHeads": 0, "kvHeads": 0, "headDim": 0}},
            "spec.architecture.attentionHeads",
            "layerKinds",
        ),
        (
            "an order of layers that ends early",
            {"architecture": {"layerKinds": [{"name": "full"}], "layerOrder": [{"kind": "full", "count": 2}]}},
            "spec.architecture.layerOrder",
            "add up to layers",
        ),
        (
            "a layer of a kind that is not described",
            {"architecture": {"layerKinds": [{"name": "full"}], "layerOrder": [{"kind": "fool", "count": 32}]}},
            "spec.architecture.layerOrder",
            "layerKinds describes",
        ),
        (
            "a mixer that is two",
            {
                "architecture": {
                    "layerKinds": [
                        {
                            "name": "both",
                            "mixers": [
                                {
                                    "attention": {"heads": 8, "kvHeads": 8, "keyDim": 64, "valueDim": 64},
                                    "state": {"kind": "Mamba2", "convKernel": 4},
                                }
                            ],
                        }
                    ],
                    "layerOrder": [{"kind": "both", "count": 32}],
                }
            },
            "spec.architecture.layerKinds[0].mixers[0]",
            "exactly one",
        ),
        (
            "a window that nothing slides over",
            {
                "architecture": {
                    "layerKinds": [
                        {
                            "name": "full",
                            "mixers": [
                                {
                                    "attention": {
                                        "heads": 8,
                                        "kvHeads": 8,
                                        "keyDim": 64,
                                        "valueDim": 64,
                                        "window": 512,
                                    }
                                }
                            ],
                        }
                    ],
                    "layerOrder": [{"kind": "full", "count": 32}],
                }
            },
            "spec.architecture.layerKinds[0].mixers[0].attention.window",
            "slide",
        ),
        (
            "more experts for a token than there are",
            {"architecture": {"experts": 8, "expertsPerToken": 9, "expertIntermediateSize": 1}},
            "spec.architecture.expertsPerToken",
            "at most all of them",
        ),
        (
            "experts without a width",
            {"architecture": {"experts": 8, "expertsPerToken": 2}},
            "spec.architecture.expertIntermediateSize",
            "",
        ),
        ("no parameters", {"parameters": 0}, "spec.parameters", ""),
        ("no bytes", {"weightFiles": {"bytes": 0}}, "spec.weightFiles.bytes", ""),
        (
            "parts that are more than the whole",
            {"weightFiles": {"embeddingBytes": "16Gi"}},
            "spec.weightFiles.bytes",
            "together",
        ),
        ("a precision that is no fact", {"precision": "Auto"}, "spec.precision", "name the precision"),
        ("a digest in short", {"weightsDigest": "sha256:abc"}, "spec.weightsDigest", "64 hexadecimal digits"),
    )
)

NODES = tuple(
    BadObject(name=name, kind="GPUNode", patch=spec(gpus=gpus), path=path, says=says)
    for name, gpus, path, says in (
        ("an index for a UUID", [{"uuid": "0"}], "spec.gpus[0].uuid", "nvidia-smi -L"),
        ("a GPU without a UUID", [{"cordoned": True}], "spec.gpus[0].uuid", "Required value"),
        ("a GPU twice", [{"uuid": UUID}, {"uuid": UUID}], "spec.gpus[1]", "Duplicate value"),
        ("a negative reserve", [{"uuid": UUID, "reserve": "-1Gi"}], "spec.gpus[0].reserve", "at least 0"),
    )
)

POOLS = tuple(
    BadObject(name=name, kind="GPUPool", patch=spec(**patch), path=path, says=says)
    for name, patch, path, says in (
        ("a mechanism that is not known", {"mechanism": "TimeSlicing"}, "spec.mechanism", "Unsupported value"),
        ("an objective that is not known", {"objective": "Fastest"}, "spec.objective", "Unsupported value"),
        ("NRI with a runtime class", {"injectionStyle": "NRI"}, "spec.runtimeClassName", 'write runtimeClassName: ""'),
        ("a reserve that is no quantity", {"reservePerGPU": "half"}, "spec.reservePerGPU", "such as 24Gi"),
        ("headroom as a number", {"headroom": 3}, "spec.headroom", "must be of type string"),
        ("a quota without memory", {"limits": [{"namespaceSelector": {}}]}, "spec.limits[0].memory", "Required value"),
        (
            "a requirement without values",
            {
                "limits": [
                    {"memory": "1Gi", "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}
                ]
            },
            "spec.limits[0].namespaceSelector.matchExpressions[0].values",
            "In and NotIn need values",
        ),
        ("a node label with a space", {"nodeSelector": {"team": "a b"}}, "spec.nodeSelector", "example.com/gpu-team"),
        ("refinement without end", {"refineSeconds": 601}, "spec.refineSeconds", ""),
        ("no moves in an hour", {"moves": {"mode": "Evict", "perHour": 0}}, "spec.moves.perHour", ""),
        ("moves of a mode that is not known", {"moves": {"mode": "Always"}}, "spec.moves.mode", "Unsupported value"),
    )
)

BAD_OBJECTS: tuple[BadObject, ...] = (
    *NAMES,
    *MODEL,
    *PRECISION,
    *SERVING,
    *ENGINE,
    *ARGUMENTS,
    *REPLICAS,
    *PLACEMENT,
    *OVERLAY,
    *PROFILES,
    *NODES,
    *POOLS,
)


def good_objects() -> Iterator[Manifest]:
    """Objects that the API server takes, with every field of a spec in use once."""
    yield from GOOD.values()
    yield merged(
        DEPLOYMENT,
        {
            "metadata": {"name": "everything"},
            "spec": {
                "model": {
                    "file": "*.safetensors",
                    "revision": COMMIT,
                    "tokenSecretRef": {"name": "hf-token", "key": "token"},
                },
                "precision": {"weights": "bf16", "kvCache": "fp8", "onMismatch": "Warn"},
                "serving": {"tokensPerSequence": 4096},
                "engine": {
                    "name": "vllm",
                    "version": "0.33.0",
                    "image": "registry.example.com:5000/vllm@sha256:" + "0" * 64,
                    "args": [
                        "--trust-remote-code",
                        "--quantization-config={}",
                        "--seed",
                        "-1",
                        "--no-enable-log-requests",
                    ],
                    "maxBatchedTokens": 4096,
                    "cudaGraphs": "Disabled",
                    "prefixCaching": "Enabled",
                    "imagesPerPrompt": 0,
                },
                "parallelism": {"tensor": 4, "pipeline": 2, "data": 2, "expert": True, "decodeContext": 2},
                "speculation": {"method": "eagle3", "draftModel": "hf://org/draft", "tokens": 3},
                "adapters": {"max": 4, "maxRank": 16},
                "replicas": 0,
                "memory": {"perGPU": 21474836480, "headroom": "2.5%"},
                "placement": {
                    "pool": "research",
                    "gpuProducts": ["NVIDIA-L40S", "NVIDIA-H100-80GB-HBM3"],
                    "sharing": "Exclusive",
                    "spread": "Require",
                    "avoidModels": ["llama-70b"],
                },
                "priorityClassName": "high",
                "rollout": "InPlace",
                "service": {"port": 9000},
                "podTemplate": {
                    "metadata": {"labels": {"team": "research"}, "annotations": {"example.com/owner": "me"}},
                    "spec": {
                        "nodeSelector": {"zone": "a"},
                        "tolerations": [{"operator": "Exists"}],
                        "imagePullSecrets": [{"name": "registry"}],
                        "schedulingGates": [{"name": "example.com/quota"}],
                        "containers": [
                            {
                                "name": "engine",
                                "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
                                "resources": {"requests": {"cpu": 4, "memory": "32Gi"}},
                            },
                            {"name": "exporter", "image": "example.com/exporter:1", "command": ["run"], "args": ["-v"]},
                        ],
                    },
                },
            },
        },
    )
    yield merged(
        DEPLOYMENT,
        {
            "metadata": {"name": "custom"},
            "spec": {
                "model": {"source": "profile://llama"},
                "engine": {"name": "custom", "image": "example.com/engine:1", "args": ["--port=9000"]},
                "memory": {"perGPU": "20Gi"},
                "podTemplate": {"spec": {"containers": [{"name": "engine", "command": ["serve"]}]}},
            },
        },
    )
    yield merged(
        DEPLOYMENT,
        {
            "metadata": {"name": "llamacpp"},
            "spec": {
                "model": {"source": "pvc://models/llama/8b", "file": "*Q4_K_M.gguf"},
                "precision": {"weights": "gguf", "kvCache": "q8_0"},
                "engine": {"name": "llamacpp", "version": "b6000"},
            },
        },
    )
    yield merged(
        PROFILE,
        {
            "metadata": {"name": "mixture"},
            "spec": {
                "source": "pvc://models/mixtral",
                "revision": None,
                "file": "*.safetensors",
                "architecture": {
                    "intermediateSize": 0,
                    "tiedEmbeddings": True,
                    "experts": 8,
                    "expertsPerToken": 2,
                    "expertIntermediateSize": 14336,
                    "sharedExpertIntermediateSize": 1024,
                },
                "weightFiles": {
                    "replicatedBytes": "1Mi",
                    "towerBytes": "1Mi",
                    "predictBytes": "1Gi",
                    "knownBy": "Shapes",
                    "layout": {
                        "kinds": {"k0": ["33554432 tensor + 8388608 heads/8", "~ 8192 whole"]},
                        "order": [{"kind": "k0", "count": 32}],
                        "towers": ["1048576 whole"],
                    },
                },
                "weightsDigest": "sha256:" + "0" * 64,
            },
        },
    )
    yield merged(NODE, {"metadata": {"name": "without-a-spec"}, "spec": None})
    yield merged(POOL, {"metadata": {"name": "without-a-spec"}, "spec": None})
    yield merged(
        POOL,
        {
            "metadata": {"name": "everything"},
            "spec": {
                "runtimeClassName": "",
                "limits": [
                    {
                        "namespaceSelector": {
                            "matchExpressions": [
                                {"key": "team", "operator": "In", "values": ["a", "b"]},
                                {"key": "gpu", "operator": "Exists"},
                            ]
                        },
                        "memory": "0",
                    }
                ],
                "mechanism": "MPS",
                "injectionStyle": "NRI",
                "reservePerGPU": "512Mi",
                "headroom": "0%",
                "startup": "Parallel",
                "objective": "Balanced",
                "refineSeconds": 60,
                "moves": {"mode": "Evict", "perPlacement": 1, "perHour": 1},
            },
        },
    )
