"""Put files in place so that they are whole even after a loss of power: their content reaches the disk before their name."""

from __future__ import annotations

import os
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def put(source: Path, target: Path) -> None:
    """Rename a file that is complete, in place of the one that has the name; call `sync_folder` after the last."""
    with open(source, "rb+") as file:
        os.fsync(file.fileno())
    source.replace(target)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows has no way to, and does not reorder them."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
