"""The columns of a ModelProfile: what a token costs, also where layers differ."""

from typing import Any

import pytest

from tests.unit.planning_world import profile
from vrampack.api.modelprofile import ModelProfileSpec
from vrampack.memory.architecture import Architecture
from vrampack.memory.layers import (
    FeedForward,
    LatentAttention,
    LayerRun,
    PagedAttention,
    RecurrentState,
    Span,
    StateKind,
)
from vrampack.models.profile import architecture_spec
from vrampack.planning.profilestatus import profile_status

MLP = FeedForward(width=8192)
FULL = PagedAttention(heads=32, kv_heads=8, key_dim=128, value_dim=128)


def model(*layers: tuple[int, Any], **changes: Any) -> Architecture:
    runs = tuple(LayerRun(count=count, mixers=(mixer,), feed_forward=MLP) for count, mixer in layers)
    fields: dict[str, Any] = {
        "model_type": "llama",
        "layers": sum(run.count for run in runs),
        "hidden_size": 4096,
        "intermediate_size": 8192,
        "vocab_size": 32000,
        "attention_heads": 32,
        "kv_heads": 8,
        "head_dim": 128,
        "dtype": "bfloat16",
        "max_context": 32768,
    }
    return Architecture(**fields | changes, runs=runs)


def kv_per_token(architecture: Architecture) -> str:
    seen = profile()
    assert seen.spec is not None
    spec: ModelProfileSpec = seen.spec.model_copy(update={"architecture": architecture_spec(architecture)})
    status = profile_status(spec, generation=3)
    assert status.observed_generation == 3
    assert status.summary is not None
    return status.summary.kv_per_token


STATE = RecurrentState(kind=StateKind.MAMBA2, conv_kernel=4, key_heads=8, key_dim=128, value_heads=128, value_dim=64)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (model((32, FULL)), "128 KiB"),
        (model((32, FULL), kv_cache_dtype="fp8"), "64 KiB"),
        (model((32, FULL), dtype="float32"), "128 KiB"),  # served in 16 bit
        (
            model(
                (8, FULL),
                (24, PagedAttention(heads=32, kv_heads=8, key_dim=128, value_dim=128, span=Span.SLIDING, window=1024)),
            ),
            "35 KiB",
        ),
        (model((61, LatentAttention(heads=128, rank=512, rope_dim=64, nope_dim=128, value_dim=128))), "69 KiB"),
    ],
)
def test_what_a_token_of_a_long_sequence_costs(architecture: Architecture, words: str) -> None:
    assert kv_per_token(architecture) == words


def test_states_cost_a_token_the_less_the_longer_the_sequence_is() -> None:
    short, long = (model((28, STATE), (4, FULL), max_context=context) for context in (4096, 131072))
    assert kv_per_token(short) == "30 KiB"  # 4 layers of 4 KiB, and 28 states of 2,162,688 bytes over 4096 tokens
    assert kv_per_token(long) == "16 KiB"


def test_a_model_that_could_not_be_cached_still_has_a_status() -> None:
    latent = LatentAttention(heads=128, rank=512, rope_dim=64, nope_dim=128, value_dim=128)
    assert kv_per_token(model((61, latent), kv_cache_dtype="nvfp4")) == ""
