"""Facts of ``hf://`` models: a few small requests to the model hub, and never a weight.

Of each weight file only the header is read, by ranged requests whose answers are cut off where the header ends, even
when the server ignores the range. Proxies are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``). Where
``HF_HUB_OFFLINE`` is set, nothing is asked: the hub's cache on this machine answers, or nobody does.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import tenacity
from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from vrampack.api.source import SourceKind, parse_source
from vrampack.errors import ModelSourceError
from vrampack.models.checkpoint import facts_of, weight_files
from vrampack.models.facts import ModelFacts, digest_of
from vrampack.models.files import Listed, ModelFiles
from vrampack.models.ggufcheckpoint import gguf_facts, gguf_files
from vrampack.models.hubcache import cached_files, is_offline
from vrampack.models.huberrors import HUB_ERRORS, Asked, explain, no_hub
from vrampack.models.readcache import ReadCache

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a source has now. ``head``: the commit of the branch or tag; ``digest``: over its weight files, and
    ``pinned_digest`` over those of the commit that was asked about. Empty: it has no such revision any more."""

    head: str
    digest: str
    pinned_digest: str


async def read_facts(
    *,
    source: str,
    revision: str | None,
    token: str | None,
    endpoint: str | None,
    patience: Patience | None = None,
    cache: ReadCache | None = None,
    file: str = "",
) -> ModelFacts:
    """The facts of ``hf://ORG/NAME`` at a branch, tag or commit (None: the default branch).

    ``endpoint`` None: ``HF_ENDPOINT`` as it is now, else the library's own. ``token`` None: anonymous, whatever tokens
    the machine has. ``cache``: what is known of commits on this machine; a commit that is there in full is asked for
    with no request. ``file``: a GGUF file of the repository, by name or pattern; left out where there is but one, and
    no safetensors. Raises ModelSourceError, UnsupportedModelError, and InvalidInputError for an impossible
    config.json.
    """
    repository = replace(_repository(source, token, endpoint, patience), cache=cache)
    return await asyncio.to_thread(lambda: _facts(repository.at(revision or None), file))


async def resolve_commit(
    *, source: str, revision: str | None, token: str | None, endpoint: str | None, patience: Patience | None = None
) -> str:
    """The commit of a branch, a tag or the default branch. A commit is its own: it costs no request.

    Raises ModelSourceError.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    repository = _repository(source, token, endpoint, patience)
    return (await asyncio.to_thread(repository.at, revision or None)).commit


async def look(
    *,
    source: str,
    revision: str | None,
    commit: str,
    token: str | None,
    endpoint: str | None,
    patience: Patience | None = None,
    file: str = "",
) -> Seen:
    """Where a branch or tag is now, and whether the files at ``commit`` are still what they were.

    ``file`` as for `read_facts`: then only that file's digest counts. Two to four small requests, and no weight file is
    touched. Raises ModelSourceError; a revision that is gone is no error, and neither is a newer one in which such
    weights are not.
    """
    repository = _repository(source, token, endpoint, patience)

    def digest_at(wanted: str | None) -> tuple[str, str]:
        try:
            files = repository.at(wanted)
        except ModelSourceError as error:
            if error.reason == "RevisionNotFound":
                return "", ""
            raise
        try:
            found = gguf_files(files, file=file) if _is_gguf(files, file) else weight_files(files)
        except ModelSourceError as error:
            if error.retriable or files.commit == commit:
                raise
            return files.commit, ""
        return files.commit, digest_of(found)

    def both() -> Seen:
        head, digest = digest_at(revision or None)
        pinned = digest if head == commit else digest_at(commit)[1]
        return Seen(head=head, digest=digest, pinned_digest=pinned)

    return await asyncio.to_thread(both)


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
    cache: ReadCache | None = None

    def at(self, revision: str | None) -> ModelFiles:
        """The files at a branch, tag or commit. Raises ModelSourceError."""
        if is_offline():
            return cached_files(source=self.source, repository=self.name, revision=revision)
        if self.cache is not None and revision is not None and _COMMIT.fullmatch(revision):
            known = self.cache.get(self.endpoint, self.name, revision)
            if known is not None and (listing := _listing(known)) is not None:
                return _HubFiles(repository=self, listing=listing, commit=revision)
        info = self.info(revision)
        if not info.sha:
            raise no_hub(ValueError("no commit"), self.asked(revision))
        listing = {
            each.rfilename: Listed(bytes=each.size, digest=each.lfs.sha256 if each.lfs is not None else each.blob_id)
            for each in info.siblings or ()
        }
        if self.cache is not None:
            said = {name: [each.bytes, each.digest] for name, each in listing.items()}
            self.cache.put(json.dumps(said).encode(), self.endpoint, self.name, info.sha)
        return _HubFiles(repository=self, listing=listing, commit=info.sha)

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

    def read(self, commit: str, name: str, *, start: int, length: int) -> bytes:
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


@dataclass(frozen=True, kw_only=True)
class _HubFiles:
    """A repository at one commit."""

    repository: _Repository
    listing: Mapping[str, Listed]
    commit: str

    @property
    def source(self) -> str:
        return self.repository.source

    @property
    def place(self) -> str:
        return f"{self.repository.endpoint}/{self.repository.name}"

    def read(self, name: str, *, start: int = 0, length: int) -> bytes:
        cache, place = self.repository.cache, self.place
        if cache is None:
            return self.repository.read(self.commit, name, start=start, length=length)
        if (content := cache.get(place, self.commit, name, start, length)) is None:
            content = self.repository.read(self.commit, name, start=start, length=length)
            cache.put(content, place, self.commit, name, start, length)
        return content

    def digest(self, name: str) -> str | None:
        """The hub's own, or none: no weight is taken in order to compute it."""
        return self.listing[name].digest


def _facts(files: ModelFiles, file: str) -> ModelFacts:
    return gguf_facts(files, file=file) if _is_gguf(files, file) else facts_of(files)


def _is_gguf(files: ModelFiles, file: str) -> bool:
    endings = {name.rpartition(".")[2] for name in files.listing}
    return bool(file) or ("gguf" in endings and "safetensors" not in endings)


def _listing(content: bytes) -> Mapping[str, Listed] | None:
    """A listing as it was written into the cache; None: it is something else."""
    try:
        return {
            str(name): Listed(bytes=None if size is None else int(size), digest=None if digest is None else str(digest))
            for name, (size, digest) in json.loads(content).items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
