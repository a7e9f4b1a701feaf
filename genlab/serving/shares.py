"""What each visitor has on the disk: uploads, and results that were written for it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, defaultdict
from contextlib import suppress

from genlab.serving.sweeper import MAX_BYTES

SHARE = MAX_BYTES // 4
"""Bytes of one visitor's files: beyond that, its own oldest make room for its new ones."""


class Shares:
    """The files of every visitor, oldest first.

    Args:
        share: largest size of one visitor's files together.
        total: the same of all visitors; beyond it, who has the most loses the oldest.
    """

    def __init__(self, share: int = SHARE, total: int = MAX_BYTES) -> None:
        self.share, self.total = share, total
        self._files: defaultdict[str, OrderedDict[str, int]] = defaultdict(OrderedDict)
        self._lock = threading.Lock()

    def add(self, visitor: str, path: str, size: int) -> None:
        """Count a file, or space that is to be filled, for a visitor, and remove files until all are within the limits."""
        with self._lock:
            self._files[visitor][path] = size
            self._files[visitor].move_to_end(path)
            for each in (visitor,) if self._size() <= self.total else tuple(self._files):
                self._forget_removed(each)
            while len(self._files[visitor]) > 1 and sum(self._files[visitor].values()) > self.share:
                self._remove_oldest(visitor)
            while self._size() > self.total and (others := [each for each in self._files if len(self._files[each]) > 1]):
                self._remove_oldest(max(others, key=lambda each: sum(self._files[each].values())))

    def discard(self, visitor: str, path: str) -> None:
        """Count a file of a visitor no longer."""
        with self._lock:
            self._files[visitor].pop(path, None)
            if not self._files[visitor]:
                del self._files[visitor]

    def _size(self) -> int:
        return sum(sum(files.values()) for files in self._files.values())

    def _forget_removed(self, visitor: str) -> None:
        files = self._files[visitor]
        for path in [path for path in files if os.path.isabs(path) and not os.path.exists(path)]:
            del files[path]
        if not files:
            del self._files[visitor]

    def _remove_oldest(self, visitor: str) -> None:
        path, _ = self._files[visitor].popitem(last=False)
        if not any(path in files for files in self._files.values()):  # another visitor may have the same content
            with suppress(OSError):
                os.remove(path)


SHARES = Shares()
"""Those of this process's folder."""
