"""Facts of ``hf://`` models: a few small requests to the model hub, and never a weight.

Of each weight file only the header is read, by ranged requests whose answers are cut off where the header ends, even
when the server ignores the range.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import tenacity
from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from vrampack.api.source import SourceKind, parse_source
from vrampack.errors import ModelSourceError
from vrampack.models.config import architecture_of
from vrampack.models.facts import ModelFacts, WeightFile, digest_of
from vrampack.models.huberrors import HUB_ERRORS, Asked, explain, no_hub
from vrampack.models.quantization import precision_of
from vrampack.models.safetensors import PREFIX_BYTES, Tensor, header_length, parse_header
from vrampack.models.weights import bytes_by_dtype, matrix_types, stored_dtype, weights_of

INDEX_FILE: Final = "model.safetensors.index.json"
SINGLE_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"

_MAX_CONFIG_BYTES: Final = 1024**2
_MAX_INDEX_BYTES: Final = 64 * 1024**2
_MAX_SHARDS: Final = 2048
_AT_ONCE: Final = 8
_COMMIT_DIGITS: Final = 40
_CHUNK: Final = 64 * 1024
_ENDPOINT: Final = re.compile(
    r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?"
)
_TOKEN: Final = re.compile(r"[!-~]{1,512}")

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to try. Seconds; the waits grow by two. A longer Retry-After is left to whoever called."""

    attempts: int = 4
    first_wait: float = 0.5
    longest_wait: float = 8.0
    timeout: float = 10.0
    """Of one connection, and between two parts of an answer."""
    deadline: float = 60.0
    """Of one answer in full."""


async def read_facts(
    *, source: str, revision: str | None, token: str | None, endpoint: str | None, patience: Patience | None = None
) -> ModelFacts:
    """The facts of ``hf://ORG/NAME`` at a branch, tag or commit (None: the default branch).

    ``endpoint`` None: ``HF_ENDPOINT`` as it is now, else the library's own. ``token`` None: anonymous, whatever tokens
    the machine has. Raises ModelSourceError, UnsupportedModelError, and InvalidInputError for an impossible
    config.json.
    """
    repository = _repository(source, token, endpoint, patience)
    return await asyncio.to_thread(repository.facts, revision or None)


async def resolve_commit(
    *, source: str, revision: str | None, token: str | None, endpoint: str | None, patience: Patience | None = None
) -> str:
    """The commit of a branch, a tag or the default branch. A commit is its own: it costs no request.

    Raises ModelSourceError.
    """
    if revision and len(revision) == _COMMIT_DIGITS and not set(revision) - set("0123456789abcdef"):
        return revision
    repository = _repository(source, token, endpoint, patience)
    return _commit(await asyncio.to_thread(repository.info, revision or None), repository.asked(revision))


def _repository(source: str, token: str | None, endpoint: str | None, patience: Patience | None) -> "_Repository":
    parsed = parse_source(source)
    if parsed.kind is not SourceKind.HUB:
        raise ValueError(f"{source} is not on a model hub")
    endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    if _ENDPOINT.fullmatch(endpoint) is None:
        message = f"HF_ENDPOINT is {endpoint[:100]!r}, which is no address: write https:// and a host."
        raise ModelSourceError(message, reason="HubUnreachable", retriable=False)
    token = (token or "").strip() or None  # files in Secrets tend to end with a line feed
    if token is not None and _TOKEN.fullmatch(token) is None:
        message = "What is in the Secret is no token of a model hub: write the token alone, such as hf_…, into it."
        raise ModelSourceError(message, reason="HubUnauthorized", retriable=False)
    return _Repository(source=source, name=parsed.name, token=token, endpoint=endpoint, patience=patience or Patience())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repository:
    """One repository as one reader sees it. Blocking: runs in a thread."""

    source: str
    name: str
    token: str | None
    endpoint: str
    patience: Patience

    def facts(self, revision: str | None) -> ModelFacts:
        info = self.info(revision)
        commit = _commit(info, self.asked(revision))
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        if CONFIG_FILE not in siblings:
            raise self._missing(CONFIG_FILE, siblings)
        config = self._json(commit, CONFIG_FILE, most=_MAX_CONFIG_BYTES)
        architecture_of(config)  # refuses what is not known before any weight file is touched
        files = tuple(self._weight_file(siblings, name) for name in self._weight_names(commit, siblings))
        tensors: dict[str, Tensor] = {}
        with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="hub") as pool:
            for found in pool.map(lambda file: self._tensors(commit, file), files):
                tensors |= found
        architecture = architecture_of(config, stored_dtype=stored_dtype(tensors))
        precision = precision_of(config, dtype=architecture.dtype, matrix_types=matrix_types(tensors))
        return ModelFacts(
            source=self.source,
            commit=commit,
            architecture=architecture,
            weights=weights_of(tensors, architecture=architecture, precision=precision),
            weights_digest=digest_of(files),
            by_dtype=bytes_by_dtype(tensors),
            files=files,
        )

    def asked(self, revision: str | None) -> Asked:
        return Asked(repository=self.name, revision=revision, endpoint=self.endpoint, with_token=self.token is not None)

    def info(self, revision: str | None) -> ModelInfo:
        api = HfApi(endpoint=self.endpoint, token=self.token or False)
        asked = self.asked(revision)

        def ask() -> ModelInfo:
            try:
                return api.model_info(self.name, revision=revision, files_metadata=True, timeout=self.patience.timeout)
            except HUB_ERRORS:
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:  # the library trusts the answer's form
                raise no_hub(error, asked) from error

        return self._patiently(ask, asked)

    def _weight_names(self, commit: str, siblings: Mapping[str, RepoSibling]) -> list[str]:
        """Files that the engine loads: those of the index, else the single file. Other copies of the weights beside
        them (``original/``, ``consolidated.safetensors``, ``.bin``) are not loaded and do not count."""
        if INDEX_FILE not in siblings:
            if SINGLE_FILE not in siblings:
                raise self._missing(f"{INDEX_FILE} or {SINGLE_FILE}", siblings)
            return [SINGLE_FILE]
        index = self._json(commit, INDEX_FILE, most=_MAX_INDEX_BYTES).get("weight_map")
        if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
            raise self._invalid(INDEX_FILE, "it maps no tensors to files")
        names = sorted(set(index.values()))
        if len(names) > _MAX_SHARDS:
            raise self._invalid(INDEX_FILE, f"it names {len(names)} files, more than {_MAX_SHARDS}")
        for name in names:
            if name not in siblings:
                raise self._missing(name[:200], siblings)
        return names

    def _weight_file(self, siblings: Mapping[str, RepoSibling], name: str) -> WeightFile:
        sibling = siblings[name]
        digest = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
        if sibling.size is None or digest is None:
            raise self._invalid(name, "the hub does not tell its size and digest")
        return WeightFile(name=name, bytes=sibling.size, sha256=digest)

    def _tensors(self, commit: str, file: WeightFile) -> dict[str, Tensor]:
        length = header_length(self._read(commit, file.name, length=PREFIX_BYTES), file=file.name)
        header = self._read(commit, file.name, start=PREFIX_BYTES, length=length)
        return parse_header(header, file=file.name, file_bytes=file.bytes)

    def _json(self, commit: str, name: str, *, most: int) -> dict[str, Any]:
        content = self._read(commit, name, length=most + 1)
        if len(content) > most:
            raise self._invalid(name, f"it is larger than {most} bytes")
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._invalid(name, "it is no JSON") from error
        if not isinstance(parsed, dict):
            raise self._invalid(name, "it is no JSON object")
        return parsed

    def _read(self, commit: str, name: str, *, start: int = 0, length: int) -> bytes:
        return self._patiently(lambda: self._read_once(commit, name, start, length), self.asked(commit))

    def _read_once(self, commit: str, name: str, start: int, length: int) -> bytes:
        """At most ``length`` bytes from ``start`` on; what follows is never taken from the wire."""
        url = hf_hub_url(self.name, name, revision=commit, endpoint=self.endpoint)
        headers = build_hf_headers(token=self.token or False, library_name="vrampack") | {
            "Range": f"bytes={start}-{start + length - 1}",
            "Accept-Encoding": "identity",
        }
        started = time.monotonic()
        content = bytearray()
        with get_session().stream("GET", url, headers=headers, timeout=self.patience.timeout) as response:
            hf_raise_for_status(response)
            skipped = 0 if response.status_code == 206 else start
            for chunk in response.iter_bytes(min(_CHUNK, skipped + length)):
                content += chunk
                if len(content) >= skipped + length:
                    break
                if time.monotonic() - started > self.patience.deadline:
                    raise TimeoutError(f"{name} took more than {self.patience.deadline:g} s")
        return bytes(content[skipped : skipped + length])

    def _patiently(self, call: Callable[[], _Answer], asked: Asked) -> _Answer:
        """Tries again what may pass: as long as the hub asks for, when that is not too long."""
        longest = self.patience.longest_wait

        def attempt() -> _Answer:
            try:
                return call()
            except HUB_ERRORS as error:
                raise explain(error, asked) from error

        def worth_it(error: BaseException) -> bool:
            return isinstance(error, ModelSourceError) and error.retriable and (error.retry_after or 0) <= longest

        backoff = tenacity.wait_exponential(multiplier=self.patience.first_wait, max=longest)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked_for = error.retry_after if isinstance(error, ModelSourceError) else None
            return max(backoff(state), asked_for or 0)

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.patience.attempts),
            retry=tenacity.retry_if_exception(worth_it),
            wait=wait,
            reraise=True,
        )
        return retrying(attempt)

    def _missing(self, name: str, siblings: Mapping[str, RepoSibling]) -> ModelSourceError:
        others = [other for other in siblings if other.endswith((".bin", ".gguf", ".pth", ".safetensors"))]
        found = f"; it has {', '.join(sorted(others)[:3])}" if others else ""
        return ModelSourceError(
            f"{self.endpoint}/{self.name} has no {name}{found}: use a repository with safetensors weights.",
            reason="ModelFilesMissing",
            retriable=False,
        )

    def _invalid(self, name: str, why: str) -> ModelSourceError:
        return ModelSourceError(
            f"{name} of {self.endpoint}/{self.name} can't be used: {why}. Use another revision or source.",
            reason="ModelFilesInvalid",
            retriable=False,
        )


def _commit(info: ModelInfo, asked: Asked) -> str:
    if not info.sha:
        raise no_hub(ValueError("no commit"), asked)
    return info.sha
