"""Write and read checkpoints, safely against a kill at any moment, and lock the run folder.

A checkpoint is written into a folder with a temporary name: each file is flushed to disk, last a manifest with every file's
SHA-256. Then the folder is renamed, and only then are older checkpoints deleted. Loading takes the newest checkpoint whose
files match its manifest. Everything is safetensors and JSON: loading runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from genlab.durable import sync_folder, write_file

KEEP = 2


class RunError(RuntimeError):
    """A run folder cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(root: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint below `root` and delete all but the newest two.

    Raises:
        RunError: the disk is full or not writable; earlier checkpoints are unchanged.
    """
    temporary = root / f".tmp-{os.getpid()}-{checkpoint.step}"
    final = root / f"step-{checkpoint.step:08d}"
    files = {
        "state.safetensors": save({k: v.contiguous() for k, v in checkpoint.tensors.items()}),
        "facts.json": json.dumps(checkpoint.facts).encode(),
    }
    manifest = {"step": checkpoint.step, "sha256": {k: hashlib.sha256(v).hexdigest() for k, v in files.items()}}
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        for name, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            write_file(temporary / name, content)
        sync_folder(temporary)
        if final.exists():  # a damaged checkpoint: a complete one would have been loaded
            _drop(final)
        temporary.rename(final)
        sync_folder(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        size = sum(map(len, files.values()))
        raise RunError(
            f"could not write checkpoint {final} ({size:,} bytes): {error}. Free some space, then continue with --resume"
        ) from error
    for old in _newest_first(root)[KEEP:]:
        if old != final:
            _drop(old)
    return final


def load_checkpoint(root: Path, damaged: list[str] | None = None) -> Checkpoint | None:
    """Return the newest complete checkpoint below `root`, or None if there is none; add newer ones to `damaged`."""
    for folder in _newest_first(root):
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            files = {name: (folder / name).read_bytes() for name in ("state.safetensors", "facts.json")}
            if {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == manifest["sha256"]:
                return Checkpoint(manifest["step"], load(files["state.safetensors"]), json.loads(files["facts.json"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            pass
        if damaged is not None:
            damaged.append(folder.name)
    return None


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process; the lock is released when the process ends, however it ends.

    Raises:
        RunError: another process has the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / ".lock", blocking=False), folder / ".lock-holder"
    try:
        lock.acquire()
    except Timeout as error:
        name = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise RunError(f"{folder} is in use by {name}; wait for it, or choose another folder with --run") from error
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        for leftover in [*folder.glob("checkpoints/.tmp-*"), *folder.glob("checkpoints/.del-*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        lock.release()


def _newest_first(root: Path) -> list[Path]:
    return sorted(root.glob("step-*"), key=lambda folder: (len(folder.name), folder.name), reverse=True)


def _drop(folder: Path) -> None:
    """Delete a checkpoint; it is renamed first, so that a partly deleted one is never loaded."""
    deleted = folder.with_name(f".del-{folder.name}")
    shutil.rmtree(deleted, ignore_errors=True)
    folder.rename(deleted)
    shutil.rmtree(deleted, ignore_errors=True)
