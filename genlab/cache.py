"""Store decoded pictures on disk, so that they need no memory, a second start takes seconds, and several processes share them.

An entry is a folder with the pixels, one file that is mapped into memory, and facts.json. It is written under a temporary name
and renamed when it is complete; a lock lets one process write it while others wait. The entries used least recently are deleted
beyond `MAX_BYTES`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from genlab.config import expanded
from genlab.listing import DataError

MAX_BYTES = 50_000_000_000
"""Size that the cache is cut down to, bytes; the newest entry is never deleted for it."""
PIXELS, FACTS = "pixels", "facts.json"


def folder(given: str | None) -> Path | None:
    """Return the folder of the cache, from --cache, GENLAB_CACHE or the user's cache folder; None if it is off or not writable.

    Raises:
        DataError: the folder was given, and cannot be written.
    """
    named = given or os.environ.get("GENLAB_CACHE")
    if named == "off":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    root = expanded(named or Path(home) / "genlab")
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError(13, "permission denied")
    except OSError as error:
        if named is None:
            return None
        raise DataError(f"--cache {named}: cannot be written ({error.strerror}); give another folder, or off") from error
    return root


@contextmanager
def locked(root: Path, key: str) -> Iterator[Path]:
    """Yield the folder of an entry, existing or not, while no other process has it."""
    with FileLock(root / f"{key}.lock"):
        yield root / key


def read(entry: Path) -> tuple[dict[str, Any], Tensor] | None:
    """Return the facts of an entry and its pixels, (values) uint8, mapped; None if there is no complete one."""
    try:
        facts = json.loads((entry / FACTS).read_text(encoding="utf-8"))
        count = (entry / PIXELS).stat().st_size
        if count != facts["bytes"]:
            return None
        os.utime(entry / FACTS)
        return facts, torch.from_file(str(entry / PIXELS), shared=False, size=count, dtype=torch.uint8)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(entry: Path, make: Callable[[Path], dict[str, Any]]) -> None:
    """Write an entry, which must be locked.

    Args:
        make: writes the pixels to a file and returns the facts.

    Raises:
        DataError: the disk is full.
    """
    fresh = entry.with_name(f".{entry.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        facts = make(fresh / PIXELS)
        facts["bytes"] = (fresh / PIXELS).stat().st_size
        (fresh / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        fresh.rename(entry)
    except OSError as error:
        raise DataError(
            f"the decoded pictures could not be written to {entry.parent} ({error.strerror}): give a folder with more room by "
            "--cache, or --cache off to hold them in memory"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _trim(entry)


@contextmanager
def table(root: Path | None, name: str) -> Iterator[dict[str, str]]:
    """Yield a table that is stored under a name: what is added to it is there the next time; `root` None stores nothing."""
    path = None if root is None else root / f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()}.table"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        found = {}
    before = len(found)
    yield found
    if path and len(found) > before:
        fresh = path.with_name(f".{path.name}-{os.getpid()}")
        try:
            fresh.write_text(json.dumps(found), encoding="utf-8")
            fresh.replace(path)
        except OSError:  # a full disk: it is computed again the next time
            fresh.unlink(missing_ok=True)


def _trim(newest: Path) -> None:
    """Delete the entries used least recently, until all take at most `MAX_BYTES`."""
    found = []
    for facts in newest.parent.glob(f"*/{FACTS}"):
        try:
            found.append((facts.stat().st_mtime, facts.parent, (facts.parent / PIXELS).stat().st_size))
        except OSError:  # deleted by another process
            continue
    total = sum(size for _, _, size in found)
    for _, entry, size in sorted(found):
        if total <= MAX_BYTES:
            break
        if entry != newest:
            shutil.rmtree(entry, ignore_errors=True)
            total -= size
