"""Pull models from the Hub.

A commit on the Hub is read like a folder on disk (`package`). Every file that is pulled is compared with the hash that the Hub
states for it. The newest version of a branch that loaded is remembered in the client's cache as the reference genlab/BRANCH. It
serves whenever a newer one cannot be had, whatever the reason.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import huggingface_hub as client
from huggingface_hub import errors as client_errors
from huggingface_hub.utils import httpx

from genlab import __version__
from genlab.config import expanded
from genlab.package import (
    MAX_BYTES,
    REQUIRED,
    ModelError,
    Package,
    check_config,
    find_package,
    missing,
    read_package,
    shipped_packages,
)

log = logging.getLogger("genlab.hub")
T = TypeVar("T")
Token = str | bool | None
"""A token, None for that of the Hub client, False for none."""

PATIENCE = 10.0
"""Timeout of a question to the Hub, seconds."""
GOOD = "genlab/"
"""Prefix of the references in the client's cache to the newest version of a branch that loaded."""
REFUSALS = {
    401: "the Hub does not accept your token: run `hf auth login` with a valid one (HF_TOKEN, where set, goes first)",
    403: "your Hub token may not read {repo_id}: give it the right to, or use another (`hf auth login`, HF_TOKEN)",
    402: "the Hub asks for a paid plan for this hardware: a free account may host two Spaces on ZeroGPU (--hardware "
    "zero-a10g), PRO and organisations with a plan also on cpu-basic and more; or serve the page yourself (python app.py)",
    409: "{repo_id} was changed by somebody else at the same moment: push again",
    412: "{repo_id} was changed by somebody else at the same moment: push again",
    413: "the Hub refuses files of this size for {repo_id}",
    429: "the Hub asks for patience (too many requests): try again in some minutes",
}
"""HTTP status of the Hub → error message, with the place of the repository's id."""
FORBIDDEN = "your Hub token does not allow this for {repo_id}: use one that may write, or another repository"
"""Error message of status 403 to a push."""
ADDRESS = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)


class HubError(ModelError):
    """The Hub did not deliver, or refused; a model's content is not at fault. `status` is that of its answer, if any."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


def read(source: str | Path, revision: str | None = None, token: str | None = None) -> Package:
    """Read a model and the files published with it.

    Where the newest version on the Hub cannot be had or does not load, the last one that did is read from the cache. A warning
    is logged, and the package says why in `stale`.

    Args:
        source: a model's folder, or a run's; the name of a model that ships (`ddpm-mnist`); or a model on the Hub, `user/name`
            or `user/name@revision`. A folder of that name takes precedence.
        revision: branch, tag or commit on the Hub. A full commit that was pulled before needs no connection.
        token: Hub token; by default that of the Hub client (`hf auth login`, HF_TOKEN).

    Raises:
        ModelError: the model is not found, or a part of it is missing or invalid.
    """
    folder = find_package(source) or expanded(source)
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"{source} is a folder: expected no revision, got {revision}")
        return read_package(folder, str(source))
    repo_id, wanted = split_id(source, revision)
    if COMMIT.fullmatch(wanted) and (cached := _in_cache(repo_id, wanted, whole=True)):
        return read_package(cached, repo_id, wanted)
    try:
        folder = _asked(lambda token: _download(repo_id, wanted, token), repo_id, wanted, token)
        package = read_package(folder, repo_id, folder.name)
    except ModelError as error:
        last = last_good(repo_id, wanted)
        if last is None:
            raise
        log.warning("%s; %s", error, serving_instead(last))
        return replace(last, stale=str(error))
    remember(package, wanted)
    return package


def split_id(source: str | Path, revision: str | None = None) -> tuple[str, str]:
    """Return the repository and the revision of `user/name` or `user/name@revision`; main where none is given.

    Raises:
        ModelError: it is none, or two revisions are given.
    """
    found = HUB_ID.fullmatch(str(source)) if isinstance(source, str) else None
    if found is None:
        shipped = ", ".join(folder.name for folder in shipped_packages())
        raise ModelError(
            f"no model {str(source)!r}: expected an existing folder, one of {shipped}, or user/name or user/name@revision "
            "on the Hub"
        )
    if found[2] and revision and found[2] != revision:
        raise ModelError(f"{source}: expected one revision, got {found[2]} and {revision}")
    wanted = revision or found[2] or "main"
    if not re.fullmatch(r"\w[\w./-]*", wanted, re.ASCII) or ".." in wanted:
        raise ModelError(f"{found[1]}: expected a branch, tag or commit, got {wanted!r:.100}")
    return found[1], wanted


def serving_instead(package: Package) -> str:
    """Return the words that say which version serves in the place of a newer one."""
    return f"the last good version serves instead, commit {(package.revision or '')[:12]}"


# From the Hub


def head(repo_id: str, revision: str, token: str | None = None) -> str:
    """Return the commit that a branch or tag is at now, by one request.

    Raises:
        HubError: the Hub cannot be asked.
    """
    return _asked(lambda token: _info(repo_id, revision, token, files_metadata=False), repo_id, revision, token).sha or ""


def _asked(ask: Callable[[Token], T], repo_id: str, revision: str, token: Token) -> T:
    """Return what the Hub answers with a token; where it does not accept it, without one: a public model needs none.

    Raises:
        HubError: see `sentences`.
    """
    try:
        with sentences(repo_id, revision):
            return ask(token)
    except HubError as refused:
        if refused.status != 401 or not (token or client.get_token()):
            raise
        try:
            with sentences(repo_id, revision):
                answer = ask(False)
        except HubError:
            raise refused from None
        log.warning("%s. %s is public: it is read without one", refused, repo_id)
        return answer


def last_good(repo_id: str, revision: str) -> Package | None:
    """Return the newest version of a branch in the cache that loads, or that commit, if there is one; sends no request."""
    for reference in [revision] if COMMIT.fullmatch(revision) else [GOOD + revision, revision]:
        folder = _in_cache(repo_id, reference)
        if folder is not None:
            with suppress(ModelError):
                return read_package(folder, repo_id, folder.name)
    return None


def remember(package: Package, revision: str) -> None:
    """Record that this is the newest version of a branch that loaded; a cache that cannot be written is left as it is."""
    reference = package.folder.parent.parent / "refs" / (GOOD + revision)
    if not COMMIT.fullmatch(revision):
        with suppress(OSError):
            reference.parent.mkdir(parents=True, exist_ok=True)
            fresh = reference.with_name(f".{reference.name}")
            fresh.write_text(package.folder.name)
            fresh.replace(reference)


def _info(repo_id: str, revision: str, token: Token, files_metadata: bool) -> client.ModelInfo:
    api = client.HfApi(token=token, library_name="genlab", library_version=__version__)
    return api.model_info(repo_id, revision=revision, files_metadata=files_metadata, timeout=PATIENCE)


def _download(repo_id: str, revision: str, token: Token) -> Path:
    """Fetch the commit that a revision is at now; return its folder in the client's cache, every file checked.

    The configuration is fetched and checked first.
    """
    info = _info(repo_id, revision, token, files_metadata=True)
    names = [file.rfilename for file in info.siblings or []]
    files = {file.rfilename: file for file in info.siblings or [] if file.rfilename in MAX_BYTES}
    for name in REQUIRED:
        if name not in files:
            raise ModelError(f"{repo_id} is no genlab model: {missing(name, names)}")
    for name, file in files.items():
        if (file.size or 0) > MAX_BYTES[name]:
            raise ModelError(f"{repo_id}: {name}: expected at most {MAX_BYTES[name]:,} bytes, got {file.size:,}")
    commit = info.sha or ""
    stated = {name: file.lfs.sha256 if file.lfs else file.blob_id or "" for name, file in files.items()}
    folder = _fetch(repo_id, commit, {"config.json": stated["config.json"]}, token)
    try:
        check_config(folder)
    except ModelError as error:
        raise ModelError(f"{repo_id}@{commit}: {error}") from error
    return _fetch(repo_id, commit, stated, token)


def _fetch(repo_id: str, commit: str, stated: dict[str, str], token: Token) -> Path:
    """Return the folder of a commit in the client's cache with these files; damaged ones are dropped and fetched once more.

    Whether the Hub answers for files is tried with one of them first: the client itself asks for six minutes.

    Args:
        stated: file → the hash that the Hub states for it.
    """
    for name in stated:
        if not isinstance(client.try_to_load_from_cache(repo_id, name, revision=commit), str):
            client.get_hf_file_metadata(client.hf_hub_url(repo_id, name, revision=commit), token=token, timeout=PATIENCE)
            break
    for _ in range(2):
        folder = Path(client.snapshot_download(repo_id, revision=commit, allow_patterns=list(stated), token=token))
        damaged = _damaged(folder, stated)
        if not damaged:
            return folder
        for name in damaged:
            blob = (folder / name).resolve()
            (folder / name).unlink(missing_ok=True)
            blob.unlink(missing_ok=True)
    raise HubError(
        f"{repo_id}@{commit[:12]}: {damaged[0]} arrived damaged twice: its content is not what the Hub states. "
        "Try again later, or from another network"
    )


def _in_cache(repo_id: str, revision: str, whole: bool = False) -> Path | None:
    """Return the folder of a revision in the client's cache if no file in it is damaged; sends no request.

    Args:
        whole: all files of the commit must be there, where the cache lists them; else those that a model needs.
    """
    found = client.try_to_load_from_cache(repo_id, "config.json", revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    there = [name for name in MAX_BYTES if (folder / name).exists()]
    try:
        entries = client.get_cached_repo_tree(repo_id, revision=folder.name)
        stated = {entry.path: entry.blob_id for entry in entries if entry.path in MAX_BYTES and (whole or entry.path in there)}
    except (OSError, ValueError, client_errors.CachedRepoTreeNotFoundError):
        # the cache was filled file by file: it names the content of a file by the hash that the Hub states
        stated = {name: (folder / name).resolve().name for name in there if (folder / name).is_symlink()}
    return None if not set(REQUIRED) <= set(there) or _damaged(folder, stated) else folder


def _damaged(folder: Path, stated: dict[str, str]) -> list[str]:
    """Return the files that are missing or whose content does not have the hash that the Hub states for it."""
    return [name for name, digest in stated.items() if not _holds(folder / name, digest)]


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and digest in digests(path.read_bytes())


def digests(content: bytes) -> tuple[str, ...]:
    """Return the hashes by which the Hub may list a file: SHA-256 (large files), Git id, Git id of its LFS pointer."""
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    return sha256, *(hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest() for stored in (content, pointer))


# Error messages


class _WithoutQueries(logging.Filter):
    """Cuts the query off the addresses in the client's messages: those of its storage are signed there."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = ADDRESS.sub(r"\1", record.getMessage()), ()
        return True


WITHOUT_QUERIES = _WithoutQueries()


@contextmanager
def sentences(repo_id: str, revision: str | None, push: bool = False) -> Iterator[None]:
    """Turn exceptions of the client into HubErrors that say what to do, without the client's own message."""
    for name in ("file_download", "utils._http", "_snapshot_download"):
        logging.getLogger(f"huggingface_hub.{name}").addFilter(WITHOUT_QUERIES)
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # whatever the client raises, there may be an older version to serve
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise HubError(_explained(error, repo_id, revision, push), status) from error


def _explained(error: BaseException, repo_id: str, revision: str | None, push: bool) -> str:
    hub, cause = client.constants.ENDPOINT, error.__cause__
    if isinstance(error, client_errors.LocalEntryNotFoundError) and isinstance(cause, client_errors.HfHubHTTPError):
        return _explained(cause, repo_id, revision, push)
    if isinstance(error, client_errors.GatedRepoError):
        return f"{repo_id} is gated: accept its conditions at {hub}/{repo_id}, then run `hf auth login`"
    if isinstance(error, client_errors.RepositoryNotFoundError):
        return (
            f"no folder and no model {repo_id} on the Hub, or it is private: check the name, "
            "or run `hf auth login` with a token that sees it"
        )
    if isinstance(error, client_errors.RevisionNotFoundError):
        return f"{repo_id} has no revision {revision}: look at {hub}/{repo_id}/commits/main"
    if isinstance(error, client_errors.EntryNotFoundError) and isinstance(error, client_errors.HfHubHTTPError):
        return f"{repo_id}: a file of the model is gone from the Hub: try again"
    if isinstance(error, client_errors.HfHubHTTPError):
        status = error.response.status_code
        refusal = FORBIDDEN if push and status == 403 else REFUSALS.get(status)
        return (refusal or f"the Hub at {hub} answered with error {status}: try again later").format(repo_id=repo_id)
    if isinstance(error, client_errors.HFValidationError):
        return f"expected user/name, got {repo_id!r}"
    if isinstance(error, client_errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set: unset it to ask the Hub for {repo_id}"
    if isinstance(error, json.JSONDecodeError) or isinstance(cause, client_errors.FileMetadataError):
        return f"something else answers at {hub} (the login page of a network?): {repo_id} cannot be read from the Hub"
    if isinstance(error, (client_errors.LocalEntryNotFoundError, httpx.HTTPError)):
        return f"the Hub at {hub} cannot be reached: check the connection"
    if isinstance(error, OSError) and error.strerror:
        return f"{repo_id}: {error.strerror}"
    if cause is not None:
        return _explained(cause, repo_id, revision, push)
    return f"{repo_id}: the Hub could not be used ({type(error).__name__}): try again"
