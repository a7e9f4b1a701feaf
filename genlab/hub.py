"""Pull models from the Hub, push them to it, and check beforehand that the token may push.

A commit on the Hub is read like a folder on disk (`package`). Every file that is pulled is compared with the hash that the Hub
states for it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub as client
from huggingface_hub import errors as client_errors
from huggingface_hub.utils import httpx

from genlab import __version__
from genlab.card import REPO_ID
from genlab.config import expanded
from genlab.package import (
    MAX_BYTES,
    REQUIRED,
    ModelError,
    Package,
    find_package,
    read_json,
    read_package,
    refresh_card,
    shipped_packages,
)

PATIENCE = 10.0
"""Timeout of the first request to the Hub, seconds."""
REFUSALS = {
    401: "the Hub does not accept your token: run `hf auth login` with a valid one (HF_TOKEN, where set, goes first)",
    403: "your Hub token does not allow this for {repo_id}: use one that may write, or change --repo-id",
    409: "{repo_id} was changed by somebody else at the same moment: push again",
    412: "{repo_id} was changed by somebody else at the same moment: push again",
    413: "the Hub refuses files of this size for {repo_id}",
    429: "the Hub asks for patience (too many requests): try again in some minutes",
}
"""HTTP status of the Hub → error message, with the place of the repository's id."""
HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)


def read(source: str | Path, revision: str | None = None, token: str | None = None) -> Package:
    """Read a model and the files published with it.

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
    found = HUB_ID.fullmatch(str(source)) if isinstance(source, str) else None
    if found is None:
        shipped = ", ".join(folder.name for folder in shipped_packages())
        raise ModelError(
            f"no model {str(source)!r}: expected an existing folder, one of {shipped}, "
            "or user/name or user/name@revision on the Hub"
        )
    if found[2] and revision and found[2] != revision:
        raise ModelError(f"{source}: expected one revision, got {found[2]} and {revision}")
    wanted = revision or found[2]
    if wanted and (not re.fullmatch(r"\w[\w./-]*", wanted, re.ASCII) or ".." in wanted):
        raise ModelError(f"{found[1]}: expected a branch, tag or commit, got {wanted!r:.100}")
    folder, commit = _pull(found[1], wanted, token)
    return read_package(folder, found[1], commit)


# From the Hub


def _pull(repo_id: str, revision: str | None, token: str | None) -> tuple[Path, str]:
    """Return the folder of a model in the client's cache, every file checked against the Hub's hash, and its commit."""
    with _sentences(repo_id, revision):
        if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
            cached = _cached(repo_id, revision)
            if cached is not None:
                return cached
        api = client.HfApi(token=token, library_name="genlab", library_version=__version__)
        try:
            info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=PATIENCE)
        except (httpx.HTTPError, OSError) as error:
            if _answered(error) or (cached := _cached(repo_id, revision)) is None:
                raise
            return cached
        files = {file.rfilename: file for file in info.siblings or [] if file.rfilename in MAX_BYTES}
        for name in REQUIRED:
            if name not in files:
                raise ModelError(f"{repo_id} is no genlab model: expected config.json and model.safetensors, got no {name}")
        for name, file in files.items():
            if (file.size or 0) > MAX_BYTES[name]:
                raise ModelError(f"{repo_id}: {name}: expected at most {MAX_BYTES[name]:,} bytes, got {file.size:,}")
        commit = info.sha or ""
        stated = {name: file.lfs.sha256 if file.lfs else file.blob_id or "" for name, file in files.items()}
        for again in (False, True):
            folder = Path(
                client.snapshot_download(
                    repo_id, revision=commit, allow_patterns=list(files), token=token, force_download=again
                )
            )
            damaged = _damaged(folder, stated)
            if damaged is None:
                _remember(folder, revision or "main")
                return folder, commit
        raise ModelError(
            f"{repo_id}: {damaged} arrived damaged twice: its content is not what the Hub states. "
            "Try again later, or from another network"
        )


def _remember(folder: Path, revision: str) -> None:
    """Record in the client's cache that a branch or tag points to this snapshot, whose files have been checked."""
    ref = folder.parent.parent / "refs" / revision
    if revision != folder.name:
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(folder.name)


def _cached(repo_id: str, revision: str | None) -> tuple[Path, str] | None:
    """Return the cached files of a revision, if complete and undamaged, and its commit; sends no request."""
    try:
        folder = Path(
            client.snapshot_download(repo_id, revision=revision, allow_patterns=list(MAX_BYTES), local_files_only=True)
        )
        entries = client.get_cached_repo_tree(repo_id, revision=folder.name)
    except (OSError, ValueError, client_errors.CachedRepoTreeNotFoundError):
        return None
    stated = {entry.path: entry.blob_id for entry in entries if entry.path in MAX_BYTES}
    return None if _damaged(folder, stated) or not set(REQUIRED) <= stated.keys() else (folder, folder.name)


def _damaged(folder: Path, stated: dict[str, str]) -> str | None:
    """Return the first file whose content does not have the hash that the Hub states for it, or None."""
    return next((name for name, digest in stated.items() if not _holds(folder / name, digest)), None)


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and digest in _digests(path.read_bytes())


def _digests(content: bytes) -> tuple[str, ...]:
    """Return the hashes by which the Hub may list a file: SHA-256 (large files), Git id, Git id of its LFS pointer."""
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    return sha256, *(hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest() for stored in (content, pointer))


# To the Hub


def authorise(kind: str, dataset: str, repo_id: str | None = None) -> str:
    """Return the repository to push to, by default `<you>/genlab-<kind>-<dataset>`, after checking that the token may write.

    Nothing is written to the Hub.

    Raises:
        ModelError: there is no token, it is not valid, it may not write, or the namespace belongs to somebody else.
    """
    if repo_id is not None:
        try:
            client.utils.validate_repo_id(repo_id)
            valid = HUB_ID.fullmatch(repo_id) and "@" not in repo_id
        except client_errors.HFValidationError:
            valid = None
        if not valid:
            raise ModelError(
                f"--repo-id: expected you/name (letters, digits, '_', single '-' and '.', at most 96), got {repo_id!r}"
            )
    with _sentences(repo_id or "your account", None):
        token = client.get_token()
        if token is None:
            raise ModelError(
                "you are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN, to a token that may write"
            )
        who = client.HfApi().whoami(token=token)
    user = who["name"]
    name = re.sub(r"-{2,}|\.{2,}", "-", re.sub(r"[^A-Za-z0-9._-]+", "-", f"genlab-{kind}-{dataset}")).strip("-.")[:96]
    repo_id = repo_id or f"{user}/{name}"
    namespace = repo_id.split("/")[0]
    roles = {org["name"]: org.get("roleInOrg") for org in who.get("orgs", [])}
    if namespace != user and namespace not in roles:
        mine = ", ".join([user, *roles])
        raise ModelError(
            f"you cannot push to {repo_id}: {namespace} is neither you nor an organisation of yours ({mine}); change --repo-id"
        )
    if roles.get(namespace) == "read":
        raise ModelError(
            f"you cannot push to {repo_id}: you may only read in {namespace}; ask for the right to write, or change --repo-id"
        )
    access = who.get("auth", {}).get("accessToken", {})
    writable = any(
        scope.get("entity", {}).get("name") in (namespace, repo_id) and "repo.write" in scope.get("permissions", [])
        for scope in access.get("fineGrained", {}).get("scoped", [])
    )
    if access.get("role") == "read" or (access.get("role") == "fineGrained" and not writable):
        raise ModelError(
            f"your Hub token cannot push to {repo_id}, it may only read there: make one that may write at "
            f"{client.constants.ENDPOINT}/settings/tokens, then run `hf auth login`"
        )
    return repo_id


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    """Push a model folder to the Hub as one commit, verify it, tag it v1, v2, …; return the commit's URL.

    Pushing again completes an interrupted push; content that is there already is not sent again.

    Raises:
        ModelError: the folder is not a valid model, or the Hub refused it; the message says what to do.
    """
    read_package(folder)
    if not (folder / "README.md").exists():
        refresh_card(folder)
    content = {name: (folder / name).read_bytes() for name in MAX_BYTES if (folder / name).exists()}
    content["README.md"] = content["README.md"].replace(REPO_ID.encode(), repo_id.encode())
    with _sentences(repo_id, None):
        api = client.HfApi(library_name="genlab", library_version=__version__)
        api.create_repo(repo_id, private=private, exist_ok=True)
        head = api.model_info(repo_id, files_metadata=True)
        if private and not head.private:
            raise ModelError(
                f"{repo_id} exists and is public: make it private in its settings, or push to another with --repo-id"
            )
        commit = head.sha or ""
        if not _same(head, content):
            here = {file.rfilename for file in head.siblings or []}
            changes: list[client.CommitOperationAdd | client.CommitOperationDelete] = [
                client.CommitOperationAdd(name, value) for name, value in content.items()
            ]
            changes += [client.CommitOperationDelete(name) for name in MAX_BYTES if name in here - content.keys()]
            message = f"Push {read_json(folder / 'config.json')['kind']} with genlab {__version__}"
            commit = api.create_commit(repo_id, changes, commit_message=message, parent_commit=commit).oid
            if not _same(api.model_info(repo_id, revision=commit, files_metadata=True), content):
                raise ModelError(f"{repo_id}: the Hub holds other content than was sent: push again")
        tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id).tags}
        if commit not in tags.values():
            number = next(i for i in range(1, len(tags) + 2) if f"v{i}" not in tags)
            api.create_tag(repo_id, tag=f"v{number}", revision=commit)
        return f"{client.constants.ENDPOINT}/{repo_id}/commit/{commit}"


def _same(info: client.ModelInfo, content: dict[str, bytes]) -> bool:
    """Return True if a commit has exactly these files, among the files of a model."""
    there = {file.rfilename: file for file in info.siblings or [] if file.rfilename in MAX_BYTES}
    if there.keys() != content.keys():
        return False
    return all((file.lfs.sha256 if file.lfs else file.blob_id) in _digests(content[name]) for name, file in there.items())


# Error messages


def _answered(error: Exception) -> bool:
    """Return True if the Hub itself refused the request: then an older copy in the cache must not be used."""
    response = getattr(error, "response", None)
    return response is not None and response.status_code < 500 and response.status_code != 429


@contextmanager
def _sentences(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turn exceptions of the client into ModelErrors that say what to do, without the client's own message."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, httpx.HTTPError, client_errors.HFValidationError, RuntimeError, ValueError, LookupError) as error:
        raise _explained(error, repo_id, revision) from error


def _explained(error: BaseException, repo_id: str, revision: str | None) -> ModelError:
    hub = client.constants.ENDPOINT
    if isinstance(error, client_errors.GatedRepoError):
        return ModelError(f"{repo_id} is gated: accept its conditions at {hub}/{repo_id}, then run `hf auth login`")
    if isinstance(error, client_errors.RepositoryNotFoundError):
        return ModelError(
            f"no folder and no model {repo_id} on the Hub, or it is private: check the name, "
            "or run `hf auth login` with a token that can read it"
        )
    if isinstance(error, client_errors.RevisionNotFoundError):
        return ModelError(f"{repo_id} has no revision {revision}: look at {hub}/{repo_id}/commits/main")
    if isinstance(error, client_errors.EntryNotFoundError) and isinstance(error, client_errors.HfHubHTTPError):
        return ModelError(f"{repo_id}: a file of the model is gone from the Hub: try again")
    if isinstance(error, client_errors.HfHubHTTPError):
        status = error.response.status_code
        if status in REFUSALS:
            return ModelError(REFUSALS[status].format(repo_id=repo_id))
        return ModelError(f"the Hub at {hub} answered with error {status}: try again later")
    if isinstance(error, client_errors.HFValidationError):
        return ModelError(f"expected user/name, got {repo_id!r}")
    if isinstance(error, client_errors.OfflineModeIsEnabled):
        return ModelError(f"{repo_id} is not in the cache and HF_HUB_OFFLINE is set: unset it")
    if isinstance(error, (client_errors.LocalEntryNotFoundError, httpx.HTTPError)):
        return ModelError(f"the Hub at {hub} cannot be reached, and {repo_id} is not in the cache: check the connection")
    if isinstance(error, OSError) and error.strerror:
        return ModelError(f"{repo_id}: {error.strerror}")
    if error.__cause__ is not None:
        return _explained(error.__cause__, repo_id, revision)
    return ModelError(f"{repo_id}: the Hub could not be used ({type(error).__name__}): try again")
