"""GGUF metadata by its kinds: what files of real models say of heads, windows, experts and states."""

from collections.abc import Mapping
from typing import Final

Value = bool | int | float | str | list[int] | list[bool] | list[float]

_EVERYWHERE: Final[dict[str, Value]] = {
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
    "context_length": 131072,
}


def model(
    architecture: str,
    *,
    layers: int,
    hidden: int,
    heads: int | list[int],
    kv: int | list[int],
    width: int | list[int],
    vocabulary: int,
    more: Mapping[str, Value] | None = None,
) -> dict[str, Value]:
    own: dict[str, Value] = {
        **_EVERYWHERE,
        "block_count": layers,
        "embedding_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv,
        "feed_forward_length": width,
        "vocab_size": vocabulary,
        **(more or {}),
    }
    return {
        "general.architecture": architecture,
        "tokenizer.ggml.model": "none",
        **{f"{architecture}.{key}": value for key, value in own.items()},
    }


def heads(key: int, value: int | None = None) -> dict[str, Value]:
    return {"attention.key_length": key, "attention.value_length": key if value is None else value}


def window(tokens: int, pattern: int | list[bool] | None = None) -> dict[str, Value]:
    given: dict[str, Value] = {"attention.sliding_window": tokens, "rope.freq_base_swa": 10000.0}
    return given if pattern is None else given | {"attention.sliding_window_pattern": pattern}


def moe(count: int, used: int, width: int, *, shared: int = 0, dense: int = 0) -> dict[str, Value]:
    return {
        "expert_count": count,
        "expert_used_count": used,
        "expert_feed_forward_length": width,
        "expert_shared_feed_forward_length": shared * width,
        "expert_shared_count": shared,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
        "leading_dense_block_count": dense,
    }


def mla(rank: int, rope: int, nope: int, value: int, query: int = 0) -> dict[str, Value]:
    return {
        **heads(rank + rope, rank),
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": value,
        "attention.kv_lora_rank": rank,
        "rope.dimension_count": rope,
        **({"attention.q_lora_rank": query} if query else {}),
    }


def ssm(kernel: int, inner: int, state: int, rank: int, groups: int) -> dict[str, Value]:
    return {
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
        "ssm.group_count": groups,
    }


def every(layers: int, period: int, value: int, *, at: int = -1) -> list[int]:
    """``value`` at one layer of each ``period``, else 0."""
    return [value if layer % period == at % period else 0 for layer in range(layers)]


def slides(layers: int, period: int) -> list[bool]:
    return [layer % period != period - 1 for layer in range(layers)]
