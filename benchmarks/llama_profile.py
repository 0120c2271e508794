"""The ModelProfile of Llama-3.1-8B-Instruct, for benchmarks and tests: from its config.json and safetensors headers."""

from collections.abc import Mapping
from typing import Any, Final

LLAMA_PROFILE: Final[Mapping[str, Any]] = {
    "source": "hf://meta-llama/Llama-3.1-8B-Instruct",
    "revision": "0e9e39f249a16976918f6564b8830bc894c89659",
    "architecture": {
        "modelType": "llama",
        "className": "LlamaForCausalLM",
        "layers": 32,
        "hiddenSize": 4096,
        "intermediateSize": 14336,
        "vocabSize": 128256,
        "attentionHeads": 32,
        "kvHeads": 8,
        "headDim": 128,
        "dtype": "bfloat16",
        "maxContext": 131072,
        "rotaryPositions": 131072,
        "rotaryDim": 128,
    },
    "parameters": 8030261248,
    "weightFiles": {"bytes": "16060522496", "embeddingBytes": "2101346304", "replicatedBytes": "532480"},
    "precision": "bf16",
}
