"""Facts of ``hf://`` models: a few small requests to the model hub, and never a weight.

Of each weight file only the header is read, by ranged requests whose answers are cut off where the header ends, even
when the server ignores the range. Proxies are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``). Where
``HF_HUB_OFFLINE`` is set, nothing is asked: the hub's cache on this machine answers, or nobody does.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar
from urllib.parse import quote

import tenacity
from huggingface_hub import constants, get_session, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, validate_repo_id  # type: ignore[attr-defined]

from vrampack.api.source import SourceKind, parse_source
from vrampack.errors import ModelSourceError
from vrampack.models.checkpoint import facts_of, weight_files
from vrampack.models.facts import ModelFacts, digest_of
from vrampack.models.files import Listed, ModelFiles
from vrampack.models.ggufcheckpoint import gguf_facts, gguf_files
from vrampack.models.hubcache import cached_files, is_offline
from vrampack.models.huberrors import HUB_ERRORS, Asked, explain, no_hub
from vrampack.models.hublisting import COMMIT, MAX_INFO_BYTES, listing_of_answer, listing_of_cache, written
from vrampack.models.readcache import ReadCache

_CHUNK: Final = 64 * 1024
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-")
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
    if revision and COMMIT.fullmatch(revision):
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
        if self.cache is not None and revision is not None and COMMIT.fullmatch(revision):
            known = self.cache.get(self.endpoint, self.name, revision)
            if known is not None and (listing := listing_of_cache(known)) is not None:
                return _HubFiles(repository=self, listing=listing, commit=revision)
        commit, listing = self.info(revision)
        if self.cache is not None:
            self.cache.put(written(listing), self.endpoint, self.name, commit)
        return _HubFiles(repository=self, listing=listing, commit=commit)

    def asked(self, revision: str | None) -> Asked:
        return Asked(repository=self.name, revision=revision, endpoint=self.endpoint, with_token=self.token is not None)

    def info(self, revision: str | None) -> tuple[str, Mapping[str, Listed]]:
        """The commit of a branch, tag or the default branch, and its files."""
        asked = self.asked(revision)
        url = f"{self.endpoint}/api/models/{self.name}"
        if revision is not None:
            url += f"/revision/{quote(revision, safe='')}"

        def ask() -> tuple[str, Mapping[str, Listed]]:
            validate_repo_id(self.name)
            _, content = self._get(f"{url}?blobs=True", most=MAX_INFO_BYTES + 1)
            try:
                return listing_of_answer(content)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise no_hub(error, asked) from error

        return self._patiently(ask, asked)

    def read(self, commit: str, name: str, *, start: int, length: int, whole: int | None = None) -> bytes:
        """``whole``: bytes of the file, where they are known: an answer of another length is none of the hub's, such as
        a proxy's page."""
        if whole is not None:
            length = min(length, whole - start)
            if length <= 0:
                return b""
        asked = self.asked(commit)

        beyond = 1 if whole == start + length else 0  # an answer that is longer than the file shows

        def ask() -> bytes:
            content = self._read_once(commit, name, start, length + beyond)
            if whole is not None and len(content) != length:
                raise no_hub(ValueError(f"{len(content)} bytes instead of {length}"), asked)
            return content

        return self._patiently(ask, asked)

    def _read_once(self, commit: str, name: str, start: int, length: int) -> bytes:
        """At most ``length`` bytes from ``start`` on."""
        url = hf_hub_url(self.name, name, revision=commit, endpoint=self.endpoint)
        wanted = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        first, content = self._get(url, most=start + length, start=start, headers=wanted)
        if first > start:
            raise no_hub(ValueError(f"bytes from {first} on instead of {start}"), self.asked(commit))
        return content[start - first : start - first + length]

    def _get(
        self, url: str, *, most: int, start: int = 0, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Where in the file the answer begins, and its bytes up to the file's first ``most``: what follows is never
        taken from the wire. A part that does not say where it begins is taken to begin at ``start``."""
        sent = build_hf_headers(token=self.token or False, library_name="vrampack") | dict(headers or {})
        started = time.monotonic()
        content = bytearray()
        with get_session().stream("GET", url, headers=sent, timeout=self.patience.timeout) as response:
            hf_raise_for_status(response)
            part = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            first = 0 if response.status_code != 206 else int(part[1]) if part is not None else start
            wanted = most - first
            for chunk in response.iter_bytes(max(1, min(_CHUNK, wanted))):
                content += chunk
                if len(content) >= wanted:
                    break
                if time.monotonic() - started > self.patience.deadline:
                    raise TimeoutError(f"{url} took more than {self.patience.deadline:g} s")
        return first, bytes(content[: max(0, wanted)])

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
        whole = self.listing[name].bytes
        if cache is None:
            return self.repository.read(self.commit, name, start=start, length=length, whole=whole)
        if (content := cache.get(place, self.commit, name, start, length)) is None:
            content = self.repository.read(self.commit, name, start=start, length=length, whole=whole)
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
