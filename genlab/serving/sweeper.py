"""Keeps the folder of uploads and results small."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from genlab.serving.operations import FILES

log = logging.getLogger("genlab.serving")

MAX_BYTES = 256 * 1024 * 1024
MAX_AGE_SECONDS = 3600.0
INTERVAL_SECONDS = 15.0
BLOCK = 4096
"""Bytes in which the size of a file is counted, as file systems do."""


class Sweeper:
    """Removes files of a folder, oldest first, that exceed a total size or an age, whatever wrote them.

    Args:
        folder: the folder.
        exempt: returns the paths of files that must stay.
        max_bytes: largest size of all files together, each rounded up to `BLOCK`.
        max_seconds: largest age of a file.
    """

    def __init__(
        self,
        folder: str,
        exempt: Callable[[], set[str]],
        max_bytes: int = MAX_BYTES,
        max_seconds: float = MAX_AGE_SECONDS,
    ) -> None:
        self.folder, self.exempt, self.max_bytes, self.max_seconds = folder, exempt, max_bytes, max_seconds

    def sweep(self) -> None:
        """Remove the files that exceed a limit, and folders that have been empty for a minute."""
        exempt, now = self.exempt(), time.time()
        files = []
        for folder, _, names in os.walk(self.folder, topdown=False):
            for name in names:
                path = os.path.join(folder, name)
                with suppress(FileNotFoundError):
                    status = os.lstat(path)
                    files.append((status.st_mtime, -(-max(status.st_size, 1) // BLOCK) * BLOCK, path))
            with suppress(OSError):
                if folder != self.folder and now - os.stat(folder).st_mtime > 60:
                    os.rmdir(folder)
        total = sum(size for _, size, _ in files)
        for modified, size, path in sorted(files):
            if path in exempt or (total <= self.max_bytes and now - modified <= self.max_seconds):
                continue
            with suppress(FileNotFoundError):
                os.remove(path)
            total -= size
        FILES.set(total)

    @contextmanager
    def running(self, interval: float = INTERVAL_SECONDS) -> Iterator[None]:
        """Sweep every `interval` seconds in a thread while the context lasts."""
        stop = threading.Event()

        def loop() -> None:
            while not stop.wait(interval):
                try:
                    self.sweep()
                except Exception:
                    log.exception("sweeping %s failed", self.folder)

        thread = threading.Thread(target=loop, name="sweeper", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
