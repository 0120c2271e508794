"""Facts from files, wherever they are: side files count, and what is hostile is said with its name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from vrampack.errors import ModelSourceError
from vrampack.localcluster.hubcatalogue import catalogue
from vrampack.localcluster.hubfiles import files_of
from vrampack.models.checkpoint import facts_of
from vrampack.models.files import Listed
from vrampack.models.safetensors import MAX_HEADER_BYTES

MODELS = {model.repository: model for model in catalogue()}


@dataclass(frozen=True, kw_only=True)
class Files:
    """A repository in memory: contents by name, and sizes where they are larger than what is there."""

    contents: Mapping[str, bytes]
    sizes: Mapping[str, int]
    source: str = "hf://org/model"
    commit: str = "c" * 40
    place: str = "memory"

    @property
    def listing(self) -> Mapping[str, Listed]:
        return {
            name: Listed(bytes=self.sizes.get(name, len(content)), digest=name)
            for name, content in self.contents.items()
        }

    def read(self, name: str, *, start: int = 0, length: int) -> bytes:
        assert length <= 64 * 1024**2 + 1, "bounded"
        return self.contents[name][start : start + length]

    def digest(self, name: str) -> str | None:
        return None


def repository(name: str, *, config: Mapping[str, Any] | None = None, **files: bytes) -> Files:
    stored = files_of(MODELS[name])
    contents = {each.name: each.head for each in stored.values()}
    if config is not None:
        contents["config.json"] = json.dumps(config).encode()
    contents |= {key.replace("__", "."): content for key, content in files.items()}
    return Files(contents=contents, sizes={each.name: each.size for each in stored.values() if each.large})


def modelopt(**quantization: Any) -> bytes:
    said = {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]} | quantization
    return json.dumps({"producer": {"name": "modelopt"}, "quantization": said}).encode()


def test_a_side_file_says_what_config_json_does_not() -> None:
    config = {key: value for key, value in MODELS["Qwen/Qwen3-8B-FP8"].config.items() if key != "quantization_config"}
    found = facts_of(repository("Qwen/Qwen3-8B-FP8", config=config, hf_quant_config__json=modelopt()))
    assert found.weights.precision == "fp8"
    assert found.architecture.kv_cache_dtype == ""
    side = modelopt(kv_cache_quant_algo="FP8")
    found = facts_of(repository("Qwen/Qwen3-8B-FP8", config=config, hf_quant_config__json=side))
    assert found.architecture.kv_cache_dtype == "fp8"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"hf_quant_config__json": b"[]"}, "hf_quant_config.json of memory can't be used: it is no JSON object"),
        ({"hf_quant_config__json": b"[" * 100_000}, "hf_quant_config.json of memory can't be used: it is no JSON"),
        ({"config__json": b" " * 32 * 1024**2}, "config.json of memory can't be used: it is larger than"),
        ({"config__json": b"\xff\xfe"}, "config.json of memory can't be used: it is no JSON"),
        ({"model__safetensors": (MAX_HEADER_BYTES + 1).to_bytes(8, "little")}, "model.safetensors"),
        ({"model__safetensors": (10 * 1024**3).to_bytes(8, "little")}, "model.safetensors"),
        ({"model__safetensors": b"\x00"}, "model.safetensors"),
        ({"model__safetensors": (64).to_bytes(8, "little") + b"{}"}, "model.safetensors"),
        ({"model__safetensors__index__json": b'{"weight_map": {"a": 7}}'}, "it maps no tensors to files"),
        ({"model__safetensors__index__json": b'{"weight_map": {"a": "../b"}}'}, "memory has no ../b"),
        (
            {
                "model__safetensors__index__json": json.dumps(
                    {"weight_map": {str(each): f"{each}.safetensors" for each in range(3000)}}
                ).encode()
            },
            "it names 3000 files, more than 2048",
        ),
    ],
)
def test_what_is_hostile_is_said_with_its_name(files: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelSourceError) as refusal:
        facts_of(repository("Qwen/Qwen3-0.6B", **files))
    assert words in str(refusal.value)
    assert not refusal.value.retriable
