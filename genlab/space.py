"""Deploy the page to a Space of the Hub: one commit of exactly the files that it needs.

The files are an allow-list: nothing else of a clone, no run, no environment, is ever sent. Every commit makes the Hub build the
Space anew, so there is one, and none where nothing has changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub as client
import yaml
from huggingface_hub import errors as client_errors

from genlab import __version__
from genlab.card import card_parts
from genlab.hub import digests, sentences, split_id
from genlab.package import ModelError
from genlab.publish import account, may_write

FILES = ("app.py", "requirements.txt", "LICENSE", "docs/notes.md", "docs/notes.zh.md")
SUFFIXES = (".py", ".js", ".css", ".html", ".json", ".safetensors", ".png", ".tsv")
"""Kinds of files in the package `genlab` that the page needs."""
ZERO, CPU = "zero-a10g", "cpu-basic"
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu\n"
"""First line of a CPU Space's requirements: without it pip installs torch with CUDA, gigabytes."""
OURS = ("sdk", "sdk_version", "python_version", "app_file", "models")
"""Entries of the Space's metadata that every deployment sets; the others stay as their owner left them."""
BUILD_SECONDS = 1800.0
"""How long a build is waited for; the Hub's own limit."""


def tree(root: Path, models: Sequence[str], hardware: str) -> dict[str, bytes]:
    """Return the files of a Space that serves models, by path.

    Args:
        root: a clone of genlab; models: ids on the Hub; hardware: the Hub's name of it.

    Raises:
        ModelError: it is no clone.
    """
    package = [p for p in sorted((root / "genlab").rglob("*")) if p.is_file() and p.suffix in SUFFIXES]
    paths = [*(root / name for name in (*FILES, "Space.md")), *package]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ModelError(f"{root} is no clone of genlab: expected {', '.join(missing)} in it")
    hidden = re.compile(r"(^|/)(\.|__pycache__/)")
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    files = {name: content for name, content in files.items() if not hidden.search(name)}
    if hardware != ZERO:
        files["requirements.txt"] = CPU_WHEELS.encode() + files["requirements.txt"]
    data, text = card_parts(files.pop("Space.md").decode())
    data["models"] = [split_id(model)[0] for model in models]
    files["README.md"] = _card(data, text)
    return files


def _card(data: dict[str, Any], text: str) -> bytes:
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10**6)}---\n{text}".encode()


def deploy(
    root: Path,
    repo_id: str,
    models: Sequence[str],
    hardware: str | None = None,
    private: bool = False,
    report: Callable[[str], object] = print,
    poll_seconds: float = 5.0,
) -> str:
    """Make or update a Space that serves models, wait until it runs, and return its address.

    Args:
        root: a clone of genlab.
        models: ids on the Hub, `user/name` or `user/name@revision`.
        hardware: the Hub's name of it; by default what the account may have: ZeroGPU for a free one, else cpu-basic.
        private: make the Space private when it is created.
        report: called with what was decided, and what is waited for.

    Raises:
        ModelError: the Hub refused, a model cannot be read, or the Space does not run; the message says what to do.
    """
    known = [each.value for each in client.SpaceHardware]
    if hardware is not None and hardware not in known:
        raise ModelError(f"--hardware: expected one of {', '.join(known)}, got {hardware!r}")
    with sentences(repo_id, None, push=True):
        who = account()
        may_write(who, repo_id, "--space")
        api = client.HfApi(library_name="genlab", library_version=__version__)
        for model in models:
            _check_model(api, model, report)
        free = repo_id.split("/")[0] == who["name"] and not who.get("isPro")
        if hardware is None:
            hardware = ZERO if free else CPU
            kind = "a free account may have it" if free else "the smallest"
            report(f"hardware: {hardware}, {kind}; --hardware chooses another")
        files = tree(root, models, hardware)
        variables = {"GENLAB_MODELS": ",".join(models)}
        exists = _make(api, repo_id, hardware, private, variables)
        head = api.space_info(repo_id, files_metadata=True)
        there = {file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or "" for file in head.siblings or []}
        if exists and "app.py" in there and "genlab/__init__.py" not in there:
            raise ModelError(f"{repo_id} is a Space of another app: give another name with --space")
        if exists and "README.md" in there:
            path = client.hf_hub_download(repo_id, "README.md", repo_type="space", revision=head.sha)
            theirs, text = card_parts(Path(path).read_text(encoding="utf-8"))
            data, own = card_parts(files["README.md"].decode())
            if "genlab/__init__.py" in there:
                files["README.md"] = _card({**data, **theirs, **{key: data[key] for key in OURS}}, text or own)
        old = [name for name in there if name.startswith("genlab/") and name not in files]
        changed = {name: value for name, value in files.items() if there.get(name) not in digests(value)}
        if changed or old:
            changes: list[client.CommitOperationAdd | client.CommitOperationDelete] = [
                client.CommitOperationAdd(name, value) for name, value in changed.items()
            ]
            changes += [client.CommitOperationDelete(name) for name in old]
            message = f"Deploy genlab {__version__}"
            api.create_commit(repo_id, changes, repo_type="space", commit_message=message, parent_commit=head.sha)
        report(f"{repo_id}: {len(changed)} files sent, {len(old)} removed, {len(files) - len(changed)} unchanged")
        return _wait(api, repo_id, report, poll_seconds)


def _check_model(api: client.HfApi, model: str, report: Callable[[str], object]) -> None:
    name, revision = split_id(model)
    with sentences(name, revision):
        private = api.model_info(name, revision=revision).private
    if private:
        report(f"{name} is private: add the secret HF_TOKEN, a token that may read it, in the settings of the Space")


def _make(api: client.HfApi, repo_id: str, hardware: str, private: bool, variables: dict[str, str]) -> bool:
    """Make the Space if there is none, else set its variables and hardware; return whether it was there."""
    try:
        here = api.space_info(repo_id)
    except client_errors.RepositoryNotFoundError:
        listed = [{"key": key, "value": value} for key, value in variables.items()]
        api.create_repo(
            repo_id,
            repo_type="space",
            space_sdk="gradio",
            space_hardware=client.SpaceHardware(hardware),
            space_variables=listed,
            private=private,
        )
        return False
    if private and not here.private:
        raise ModelError(f"{repo_id} exists and is public: make it private in its settings, or choose another with --space")
    now = {key: variable.value for key, variable in api.get_space_variables(repo_id).items()}
    for key, value in variables.items():
        if now.get(key) != value:
            api.add_space_variable(repo_id, key, value)
    if api.get_space_runtime(repo_id).requested_hardware != hardware:
        api.request_space_hardware(repo_id, client.SpaceHardware(hardware))
    return True


def _wait(api: client.HfApi, repo_id: str, report: Callable[[str], object], poll_seconds: float) -> str:
    """Wait until the Space runs, and return its address."""
    address = f"{client.constants.ENDPOINT}/spaces/{repo_id}"
    report(f"{address}: the Hub builds it, which takes some minutes")
    try:
        runtime = api.wait_for_space(repo_id, timeout=BUILD_SECONDS, poll_interval=poll_seconds)
    except TimeoutError as error:
        raise ModelError(f"{repo_id} was sent, but does not run after {BUILD_SECONDS:g} seconds: see {address}") from error
    if runtime.stage != "RUNNING":
        raise ModelError(f"{repo_id} was sent, but does not run ({runtime.stage}): its log is at {address}?logs=container")
    return address
