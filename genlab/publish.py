"""Push models to the Hub, after checking what that would do.

A push is one commit. It replaces only what genlab wrote: the parts of the card that are the owner's stay, and a repository with
the files of another format is refused. Nothing is sent before all is known: `plan` is the whole push but for the commit.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub as client
from huggingface_hub import errors as client_errors

from genlab import __version__
from genlab.card import REPO_ID, installation, merged
from genlab.hub import HUB_ID, digests, sentences
from genlab.package import MAX_BYTES, ModelError, read_json, read_package, refresh_card

WRITERS = ("admin", "write", "contributor")
"""Roles in an organisation that may write."""
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{1,40}")


@dataclass(frozen=True)
class Plan:
    """What a push would do.

    Attributes:
        head: the repository as it is, or None if it is to be created.
        content: file → content that the commit must have.
    """

    repo_id: str
    private: bool
    head: client.ModelInfo | None
    content: dict[str, bytes]

    @property
    def changes(self) -> dict[str, str]:
        """Return file → "new", "changed", "unchanged" or "removed"."""
        there = _hashes(self.head)
        now = {
            name: "new" if name not in there else "unchanged" if there[name] in digests(value) else "changed"
            for name, value in self.content.items()
        }
        return {**now, **{name: "removed" for name in there if name not in self.content}}

    def __str__(self) -> str:
        visibility = "private" if (self.head.private if self.head else self.private) else "public"
        sizes = {name: f"{len(value):,} bytes" for name, value in self.content.items()}
        state = "exists" if self.head else "is created"
        lines = [f"  {name}: {what}{f', {sizes[name]}' if name in sizes else ''}" for name, what in self.changes.items()]
        return "\n".join([f"{self.repo_id} ({state}, {visibility})", *lines])


def authorise(kind: str, dataset: str, repo_id: str | None = None, private: bool = False, overwrite: bool = False) -> str:
    """Return the repository to push to, by default `<you>/genlab-<kind>-<dataset>`, after checking that a push may succeed.

    Nothing is written to the Hub.

    Args:
        private, overwrite: as for `push`.

    Raises:
        ModelError: there is no token, it is not valid, it may not write, the namespace belongs to somebody else, or what is in
            the repository does not allow the push.
    """
    who = account()
    name = re.sub(r"-{2,}|\.{2,}", "-", re.sub(r"[^A-Za-z0-9._-]+", "-", f"genlab-{kind}-{dataset}")).strip("-.")[:96]
    repo_id = f"{who['name']}/{name}" if repo_id is None else repo_id
    may_write(who, repo_id, "--repo-id")
    with sentences(repo_id, None, push=True):
        _target(repo_id, private, overwrite)
    return repo_id


def account() -> dict[str, Any]:
    """Return what the Hub says of the account that the token belongs to.

    Raises:
        ModelError: there is no token, or it is not valid.
    """
    with sentences("your account", None, push=True):
        token = client.get_token()
        if token is None:
            raise ModelError(
                "you are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN, to a token that may write"
            )
        return client.HfApi().whoami(token=token)


def may_write(who: dict[str, Any], repo_id: str, option: str) -> None:
    """Check that an account and its token may write to a repository.

    Args:
        who: from `account`; option: of the command line, which gives the repository, for messages.

    Raises:
        ModelError: it is no repository, the token may not write, or the namespace belongs to somebody else.
    """
    try:
        client.utils.validate_repo_id(repo_id)
        valid = HUB_ID.fullmatch(repo_id) and "@" not in repo_id
    except client_errors.HFValidationError:
        valid = None
    if not valid:
        raise ModelError(f"{option}: expected you/name (letters, digits, '_', single '-' and '.', at most 96), got {repo_id!r}")
    user, namespace = who["name"], repo_id.split("/")[0]
    roles = {org["name"]: org.get("roleInOrg") for org in who.get("orgs", [])}
    if namespace != user and namespace not in roles:
        mine = ", ".join([user, *roles])
        raise ModelError(
            f"you cannot push to {repo_id}: {namespace} is neither you nor an organisation of yours ({mine}); change {option}"
        )
    role = roles.get(namespace)
    if role not in (None, *WRITERS):
        raise ModelError(
            f"you cannot push to {repo_id}: your role in {namespace} is {role}; ask for the right to write, or change {option}"
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


def plan(folder: Path, repo_id: str, private: bool = False, license: str | None = None, overwrite: bool = False) -> Plan:
    """Return what a push would do; nothing is written to the Hub. See `push`."""
    read_package(folder)
    if license is not None and not LICENSE.fullmatch(license):
        raise ModelError(f"--license: expected the Hub's name of a licence (apache-2.0, mit, cc-by-4.0, …), got {license!r}")
    if not (folder / "README.md").exists():
        refresh_card(folder)
    content = {name: (folder / name).read_bytes() for name in MAX_BYTES if (folder / name).exists()}
    card = content["README.md"].decode().replace(REPO_ID, repo_id)
    with sentences(repo_id, None, push=True):
        head = _target(repo_id, private, overwrite)
        theirs = ""
        if head is not None and any(file.rfilename == "README.md" for file in head.siblings or []):
            theirs = Path(client.hf_hub_download(repo_id, "README.md", revision=head.sha)).read_text(encoding="utf-8")
    content["README.md"] = merged(installation(card, source_address()), theirs, license).encode()
    return Plan(repo_id, private, head, content)


def push(folder: Path, repo_id: str, private: bool = False, license: str | None = None, overwrite: bool = False) -> str:
    """Push a model folder to the Hub as one commit, verify it, tag it v1, v2, …; return the commit's URL.

    Pushing again completes an interrupted push; content that is there already is not sent again.

    Args:
        private: make the repository private when it is created; one that is public is refused.
        license: of the model, as the Hub names it; by default that of the card that is there, else Apache-2.0.
        overwrite: replace the files of another format.

    Raises:
        ModelError: the folder is not a valid model, or the Hub refused it; the message says what to do.
    """
    plan(folder, repo_id, private, license, overwrite)
    with sentences(repo_id, None, push=True):
        api = client.HfApi(library_name="genlab", library_version=__version__)
        api.create_repo(repo_id, private=private, exist_ok=True)
    planned = plan(folder, repo_id, private, license, overwrite)
    assert planned.head is not None, "the repository has just been created"
    with sentences(repo_id, None, push=True):
        commit, content = planned.head.sha or "", planned.content
        if set(planned.changes.values()) != {"unchanged"}:
            changes: list[client.CommitOperationAdd | client.CommitOperationDelete] = [
                client.CommitOperationAdd(name, value) for name, value in content.items()
            ]
            changes += [client.CommitOperationDelete(name) for name, what in planned.changes.items() if what == "removed"]
            message = f"Push {read_json(folder / 'config.json')['kind']} with genlab {__version__}"
            commit = api.create_commit(repo_id, changes, commit_message=message, parent_commit=commit).oid
            sent = Plan(repo_id, private, api.model_info(repo_id, revision=commit, files_metadata=True), content)
            if set(sent.changes.values()) != {"unchanged"}:
                raise ModelError(f"{repo_id}: the Hub holds other content than was sent: push again")
        tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id).tags}
        if commit not in tags.values():
            number = next(i for i in range(1, len(tags) + 2) if f"v{i}" not in tags)
            api.create_tag(repo_id, tag=f"v{number}", revision=commit)
        return f"{client.constants.ENDPOINT}/{repo_id}/commit/{commit}"


def _target(repo_id: str, private: bool, overwrite: bool) -> client.ModelInfo | None:
    """Return the repository to push to, None if there is none, after checking that what it has may be replaced."""
    try:
        head = client.HfApi().model_info(repo_id, files_metadata=True)
    except client_errors.RepositoryNotFoundError:
        return None
    if private and not head.private:
        raise ModelError(f"{repo_id} exists and is public: make it private in its settings, or push to another with --repo-id")
    names = [file.rfilename for file in head.siblings or []]
    foreign = [name for name in names if name in MAX_BYTES.keys() - {"README.md"} or name == "model_index.json"]
    if foreign and not overwrite and not _is_genlab(head, names):
        raise ModelError(
            f"{repo_id} holds files of another format ({', '.join(foreign)}): push to another repository with --repo-id, "
            "or replace them with --overwrite"
        )
    return head


def _is_genlab(head: client.ModelInfo, names: list[str]) -> bool:
    if "config.json" not in names:
        return False
    try:
        path = Path(client.hf_hub_download(head.id, "config.json", revision=head.sha))
        return "genlab" in json.loads(path.read_bytes()[: MAX_BYTES["config.json"]])
    except (ValueError, TypeError):
        return False


def _hashes(info: client.ModelInfo | None) -> dict[str, str]:
    """Return file of a model → the hash that the Hub states for it."""
    files = [file for file in (info.siblings if info else None) or [] if file.rfilename in MAX_BYTES]
    return {file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or "" for file in files}


def source_address() -> str | None:
    """Return where others get genlab from by git: GENLAB_SOURCE, else the clone's origin, else the package's address."""
    given = os.environ.get("GENLAB_SOURCE")
    if given:
        return given
    asked = ["git", "-C", str(Path(__file__).parent), "remote", "get-url", "origin"]
    try:
        address = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        try:
            urls = importlib.metadata.metadata("genlab").get_all("Project-URL") or []
        except importlib.metadata.PackageNotFoundError:
            urls = []
        address = next((url.partition(", ")[2] for url in urls if url.startswith("Source, ")), "")
    address = re.sub(r"^git@([\w.-]+):", r"https://\1/", address)
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname:  # a folder of this machine: nobody else can use it
        return None
    return f"https://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
