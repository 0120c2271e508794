"""Makes llama.cpp contexts of models that exist as metadata alone, and hands back what llama.cpp logs.

Runs in a process of its own (an engine that aborts must not take the benchmark with it), with the Python package of
llama.cpp in its path. Standard input: {"file": PATH, "contexts": [{...}]}; one line of JSON per context on standard
output: {"made": bool, "log": [...]}. No weight is allocated; caches and graphs are sized as they would be.
"""

import ctypes
import json
import re
import sys
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as engine


def main() -> None:
    asked = json.loads(sys.stdin.read())
    log: list[str] = []

    @engine.llama_log_callback
    def collect(level: int, text: bytes, data: Any) -> None:
        log.append(text.decode(errors="replace"))

    engine.llama_log_set(collect, ctypes.c_void_p(0))
    model = load(asked["file"])
    for wanted in asked["contexts"]:
        if model:
            log.clear()
        context = make(model, wanted) if model else None
        lines = [line for line in "".join(log).splitlines() if _TELLING.search(line)]
        print(json.dumps({"made": bool(context), "log": lines}), flush=True)
        if context:
            engine.llama_free(context)


def load(path: str) -> Any:
    """The model, without the memory of its weights."""
    library = engine._lib
    folder = Path(engine.__file__).parent / "lib"
    base = ctypes.CDLL(str(folder / "libggml-base.so"))
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = [ctypes.c_char_p, _GgufParameters]
    metadata = base.gguf_init_from_file(path.encode(), _GgufParameters(True, None))
    parameters = engine.llama_model_default_params()
    parameters.no_alloc = True
    parameters.load_mtp = True  # such layers are there, whether they are used or not
    fill = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    _KEPT.append(fill(lambda tensor, data: None))
    library.llama_model_init_from_user.restype = ctypes.c_void_p
    library.llama_model_init_from_user.argtypes = [ctypes.c_void_p, fill, ctypes.c_void_p, type(parameters)]
    return library.llama_model_init_from_user(metadata, _KEPT[0], None, parameters)


def make(model: Any, wanted: dict[str, Any]) -> Any:
    parameters = engine.llama_context_default_params()
    for name, value in wanted.items():
        setattr(parameters, name, value)
    return engine.llama_init_from_model(model, parameters)


_TELLING = re.compile("size =|error|failed|invalid|not support")


class _GgufParameters(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


_KEPT: list[Any] = []
"""Callbacks must outlive the calls that were given them."""

if __name__ == "__main__":
    main()
