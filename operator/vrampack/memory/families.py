"""The model families whose memory is known."""

from typing import Final

KNOWN_FAMILIES: Final[frozenset[str]] = frozenset(
    {
        "cohere",
        "falcon",
        "gemma",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "gptj",
        "granite",
        "llama",
        "mistral",
        "mixtral",
        "mpt",
        "olmo",
        "olmo2",
        "olmoe",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "stablelm",
        "starcoder2",
    }
)
"""``model_type`` of config.json. Decoders with full attention in every layer, a KV cache of K and V heads (MHA, MQA or
GQA) and a dense or mixture-of-experts feed-forward part. Nothing else about a family is assumed from its name here;
reading its configuration is the business of whoever reads files."""
