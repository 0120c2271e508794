"""Rows of measurements: what engines printed about their memory when they started, read so that no row is lost.

A cell may be empty, a number may be none, a model may have no configuration file: each of these is a reason that the
report gives for the row, never an exception and never a row that is gone.
"""

import csv
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from vrampack.errors import VrampackError
from vrampack.memory.architecture import Architecture
from vrampack.memory.batchdefaults import LARGE_GPU, SECOND_CORE, BatchDefaults, vllm_batch_defaults
from vrampack.memory.releases import release_of
from vrampack.models.config import architecture_of
from vrampack.units import GIB

LLAMA_CPP = frozenset({"llama.cpp", "ik_llama.cpp"})
KNOWN_ENGINES = frozenset({"vllm", "sglang", "tgi"}) | LLAMA_CPP

LARGEST = 10**12
"""No count of tokens and no GiB is beyond it."""

QUANTIZATION_KEYS = frozenset({"quantization_config", "compression_config"})

UNVERSIONED = "0.10.0"
"""Taken for rows of vLLM that name no version: the breakdown that they print left the log soon after it."""
FIRST_CORE = "0.6.0"
"""Taken for rows without a version whose note says V0, the first engine core."""

_PRODUCT_GIB = {
    "b200": 179,
    "b300": 268,
    "gb10": 119,
    "gb200": 185,
    "h100": 79,
    "h200": 139,
    "gh200": 95,
    "h20": 95,
    "mi300x": 191,
    "mi325x": 255,
    "a100-sxm4-40gb": 39,
    "a100-sxm4-80gb": 79,
    "l40s": 44,
    "l40": 44,
    "l4": 22,
    "a10g": 22,
    "a10": 22,
    "t4": 14,
    "3090": 23,
    "4090": 23,
    "5090": 31,
    "v100": 31,
}
"""What the driver gives of products that a row names without their memory; enough to tell which defaults they get."""


_IRRELEVANT = {"intermediate_size": 1024, "vocab_size": 1024}
_ON_THE_GPU = ("weights_gib", "kv_cache_gib", "activation_peak_gib")


class UnusableError(Exception):
    """Why a row says nothing about a term."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """A number as it was printed: its value, and half of its last digit."""

    value: float
    half_digit: float

    def scaled(self, factor: float) -> "Printed":
        return Printed(value=self.value * factor, half_digit=self.half_digit * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run. ``number``: of the row in the file, the first after the header is 1."""

    number: int
    cells: Mapping[str, str]
    config: Mapping[str, Any] | None
    config_problem: str = ""
    cache: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        return self.cells.get("engine", "").strip().lower() or "unknown"

    @property
    def model(self) -> str:
        return self.cells.get("model", "")

    @property
    def note(self) -> str:
        return self.cells.get("note", "")

    @property
    def gpu(self) -> str:
        return self.cells.get("gpu", "")

    def printed(self, column: str) -> Printed:
        """Raises UnusableError where the cell is empty or holds no number."""
        text = self.cells.get(column, "").strip()
        if not text:
            raise UnusableError(f"{column} was not printed")
        try:
            number = Decimal(text)
        except InvalidOperation:
            number = Decimal("nan")
        if not number.is_finite() or not -LARGEST < number < LARGEST:
            raise UnusableError(f"{column} is {text[:40]!r}, which is no number")
        exponent = int(number.as_tuple().exponent)
        return Printed(value=float(number), half_digit=0.5 * 10.0**exponent)

    def peak(self) -> Printed:
        """Of the activations. Some logs print PyTorch's peak with the weights in it, and a note says so."""
        with_weights = re.search(r"(\d+\.\d+) peak torch", self.note)
        if self.cells.get("activation_peak_gib", "").strip() or with_weights is None:
            return self.printed("activation_peak_gib")
        digits = len(with_weights[1].split(".")[1])
        return Printed(value=float(with_weights[1]) - self.printed("weights_gib").value, half_digit=0.5 * 10.0**-digits)

    def whole(self, column: str, default: int | None = None) -> int:
        """A whole number of at least 1. Raises UnusableError where it is none, or absent without a default."""
        if default is not None and not self.cells.get(column, "").strip():
            return default
        value = self.printed(column).value
        if value < 1 or value != int(value):
            raise UnusableError(
                f"{column} is {self.cells[column].strip()[:40]!r}, which is no whole number of at least 1"
            )
        return int(value)

    def architecture(self) -> Architecture:
        """Raises UnusableError without a configuration that the estimate can read."""
        if "architecture" not in self.cache:
            self.cache["architecture"] = self._architecture()
        found = self.cache["architecture"]
        if isinstance(found, UnusableError):
            raise found
        return found  # type: ignore[no-any-return]

    def for_cache(self) -> "Row":
        """The same run where only its cache is asked for: some configurations are excerpts without the width of the
        feed-forward layers or the vocabulary, which the cache does not depend on."""
        if self.config is None:
            return self
        config = _filled(self.config)
        if isinstance(text := config.get("text_config"), dict):
            config["text_config"] = _filled(text)
        return replace(self, config=config, cache={})

    def served_config(self) -> Mapping[str, Any]:
        """The configuration, as far as it is that of the run: an engine that names a computation type and no
        quantization had none, whatever the configuration at hand says. Raises UnusableError without one."""
        if self.config is None:
            raise UnusableError(self.config_problem)
        if self.cells.get("dtype", "").strip() and not self.cells.get("quantization", "").strip():
            return {key: value for key, value in self.config.items() if key not in QUANTIZATION_KEYS}
        return self.config

    def _architecture(self) -> Architecture | UnusableError:
        try:
            stored = self.cells.get("dtype", "").strip() or None  # counts where the configuration names none
            return architecture_of(self.served_config(), stored_dtype=stored)
        except UnusableError as error:
            return error
        except VrampackError as error:
            return UnusableError(f"{self.cells.get('config', '')}: {error}")

    @property
    def tensor(self) -> int:
        return self.whole("tp", 1)

    @property
    def pipeline(self) -> int:
        return self.whole("pp", 1)

    @property
    def decode_context(self) -> int:
        """There is no column for it; a note says so."""
        match = re.search(r"decode context parallel (\d+)|\bDCP ?=? ?(\d+)", self.note)
        return int(match[1] or match[2]) if match else 1

    @property
    def eager(self) -> bool:
        return "eager" in self.note.lower()

    @property
    def amd(self) -> bool:
        """Whether the GPU is one of AMD's."""
        return re.search(r"\b(amd|rocm|mi\d{3}x?|gfx\d+)", f"{self.gpu} {self.note}".lower()) is not None

    @property
    def first_core(self) -> bool:
        """Whether vLLM ran its first engine core."""
        return release_of(self.version) < SECOND_CORE

    @property
    def version(self) -> str:
        """Of the engine. Raises UnusableError where the cell holds none."""
        text = self.cells.get("version", "").strip()
        if not text or text.upper() in ("V0", "V1"):
            return FIRST_CORE if re.search(r"\bV0\b", f"{text} {self.note}") else UNVERSIONED
        try:
            release_of(text)
        except ValueError as error:
            raise UnusableError(str(error)) from None
        return text

    @property
    def kv_precision(self) -> str:
        """As the estimate names it. Raises UnusableError for a name that it does not know."""
        named = self.cells.get("kv_cache_dtype", "").strip().lower()
        if named in ("", "auto", "bfloat16", "float16", "bf16", "fp16", "f16"):
            return "fp8" if named in ("", "auto") and self.architecture().kv_cache_dtype == "fp8" else "bf16"
        if named.startswith("fp8"):
            return "fp8"
        if named.startswith("int8"):
            return "int8"
        if named in ("q8_0", "q4_0", "nvfp4"):
            return named
        if named in ("float32", "fp32", "f32"):
            return "fp32"
        raise UnusableError(f"kv_cache_dtype is {named[:40]!r}, which is not known")

    def total_memory(self) -> int:
        """Bytes of the GPU. Raises UnusableError where the row tells neither them nor a product that is known."""
        if self.cells.get("gpu_mem_gib", "").strip():
            return int(self.printed("gpu_mem_gib").value * GIB)
        name = self.gpu.lower().replace(" ", "-")
        for product, gib in sorted(_PRODUCT_GIB.items(), key=lambda item: -len(item[0])):
            if product in name:
                return gib * GIB
        used = sum(self.printed(name).value for name in _ON_THE_GPU if self.cells.get(name, "").strip())
        if used * GIB >= LARGE_GPU:
            return LARGE_GPU  # whatever it is, it is not a small one
        raise UnusableError("neither gpu_mem_gib nor a known gpu tells which defaults the engine took")

    def batch(self) -> BatchDefaults:
        """Sequences and tokens of a step: what the row says, else the engine's defaults for its version and GPU.

        Raises UnusableError where they depend on a GPU that the row does not tell.
        """
        sequences, tokens = self.cells.get("max_num_seqs", ""), self.cells.get("max_num_batched_tokens", "")
        if sequences.strip() and tokens.strip():
            return BatchDefaults(
                max_sequences=self.whole("max_num_seqs"), max_batched_tokens=self.whole("max_num_batched_tokens")
            )
        context = self.whole("max_model_len", self.architecture().max_context or 1)
        memory = GIB if self.first_core else self.total_memory()
        defaults = vllm_batch_defaults(
            version=self.version, total_memory=memory, product=self.gpu, context_length=context
        )
        return BatchDefaults(
            max_sequences=self.whole("max_num_seqs", defaults.max_sequences),
            max_batched_tokens=self.whole("max_num_batched_tokens", defaults.max_batched_tokens),
        )


def _filled(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, **{key: value for key, value in _IRRELEVANT.items() if config.get(key) is None}}


def read_rows(table: Path, configs: Path) -> list[Row]:
    """All rows of the file. Raises OSError where the file itself can't be read."""
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        table_rows = [
            {key: value or "" for key, value in cells.items() if isinstance(key, str)}
            for cells in csv.DictReader(lines)
        ]
    for former, cells in itertools.pairwise(table_rows):
        if cells.get("note", "").strip().lower() == "as above":
            cells["note"] = former["note"]
    return [_row(number, cells, configs) for number, cells in enumerate(table_rows, start=1)]


def _row(number: int, cells: Mapping[str, str], configs: Path) -> Row:
    name = cells.get("config", "").strip()
    if not name:
        return Row(number=number, cells=cells, config=None, config_problem="no configuration of the model is at hand")
    if Path(name).name != name:
        return Row(number=number, cells=cells, config=None, config_problem=f"config {name[:100]!r} is no file name")
    try:
        config = json.loads((configs / name).read_text(encoding="utf-8"))
    except OSError as error:
        return Row(number=number, cells=cells, config=None, config_problem=f"{name}: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return Row(number=number, cells=cells, config=None, config_problem=f"{name} is no JSON: {str(error)[:100]}")
    if not isinstance(config, dict):
        return Row(number=number, cells=cells, config=None, config_problem=f"{name} holds no object")
    return Row(number=number, cells=cells, config=config)
