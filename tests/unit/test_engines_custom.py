"""A custom engine: the user's image and arguments, with the share in the environment and nothing else."""

from dataclasses import replace

import pytest

from tests.unit.replicas import LLAMA_70B, TRITON
from vrampack.engines.custom import container
from vrampack.errors import InvalidInputError


def test_image_and_arguments_are_the_users() -> None:
    built = container(replace(TRITON, args=("--gpu-memory-utilization=0.9", "anything")))
    assert built.image == "registry.example.com/whisper:2.1"
    assert built.args == ("--gpu-memory-utilization=0.9", "anything")
    assert not built.owns_command


def test_share_and_token_are_in_the_environment() -> None:
    built = container(replace(LLAMA_70B, image="x:1"))
    found = [each["name"] for each in built.env]
    assert "VRAMPACK_CLAIM_BYTES" in found
    assert "NVIDIA_VISIBLE_DEVICES" in found
    assert found[-2:] == ["HF_TOKEN", "HF_ENDPOINT"]
    assert built.shared_memory == LLAMA_70B.shared_memory


def test_only_the_user_knows_when_it_is_ready() -> None:
    built = container(TRITON)
    assert (built.probes.startup, built.probes.readiness, built.probes.liveness) == (None, None, None)


def test_an_image_is_needed() -> None:
    with pytest.raises(InvalidInputError) as refused:
        container(replace(TRITON, image=None))
    assert refused.value.field == "spec.engine.image"
