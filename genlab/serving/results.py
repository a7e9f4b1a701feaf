"""Results: the files that a page writes for its visitors and serves from the server's own folder."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from gradio.processing_utils import hash_bytes
from gradio.utils import get_upload_folder

from genlab.serving.shares import SHARES
from genlab.serving.visitor import current


def save_result(content: bytes, name: str) -> str:
    """Write a result to the server's folder and return its path, which ends in the hash of the content and `name`.

    Visitors with the same result share a file. It is never written in place, where one of them may be reading it: an existing
    file is dated anew, so that the sweeper counts its age from now; a new one is written beside its place and renamed.
    It counts towards the share of the visitor it is for.
    """
    path = Path(get_upload_folder()) / hash_bytes(content) / Path(name).name
    while not _dated_anew(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the sweeper removed the folder, which was empty
            _write_beside(path, content)
    if visitor := current.get():
        SHARES.add(visitor, str(path), len(content))
    return str(path)


def _dated_anew(path: Path) -> bool:
    """Set the date of a file to now; return whether it exists."""
    with suppress(FileNotFoundError):
        os.utime(path)
        return True
    return False


def _write_beside(path: Path, content: bytes) -> None:
    """Write a file under another name in the same folder, then rename it: whoever opens `path` finds all of it."""
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(fresh, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.remove(fresh)
        raise
