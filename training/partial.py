"""Long sums that survive a kill: how far they are, and how long the rest takes.

All noise of batch i of a part is drawn from a generator seeded by (seed, part, i), and a file keeps the sums over the batches
that are done. A run that was cut short goes on from there, and gives bit for bit the numbers of one that was never stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

SAVE_EVERY = 20.0
"""Seconds between two writes of what has been summed so far."""
LINE_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""


class Progress:
    """How much of the planned work is done, and how long the rest takes: a bar in a terminal, lines elsewhere.

    Args:
        total: planned work, in units of `unit`.
    """

    def __init__(self, total: int, unit: str) -> None:
        self._bar = tqdm(total=total, unit=unit, unit_scale=True, mininterval=1.0, smoothing=0.1, disable=None)
        self._total, self._unit, self._done, self._skipped = total, unit, 0, 0
        self._start = self._line = time.monotonic()

    def part(self, name: str) -> None:
        """Say what is being measured now."""
        self._bar.set_description(name, refresh=False)
        self._name = name

    def skip(self, amount: int) -> None:
        """Work that an earlier run has done: it counts as done, not as fast."""
        self._skipped += amount
        if not self._bar.disable:
            self._bar.initial += amount
            self._bar.n += amount

    def update(self, amount: int) -> None:
        """Work done just now."""
        self._done += amount
        self._bar.update(amount)
        now = time.monotonic()
        if self._bar.disable and now - self._line > LINE_EVERY:
            self._line = now
            left = round((self._total - self._skipped - self._done) / self._done * (now - self._start))
            clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
            done = f"{self._skipped + self._done:,} of {self._total:,} {self._unit}s"
            print(f"{self._name}: {done}, {clock} left", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()


@dataclass(frozen=True)
class Partial:
    """Sums over the batches that are done, one file for each part of an evaluation.

    Args:
        folder: where the files lie; None to keep nothing.
        facts: all that the numbers depend on; sums that were made of other facts are not used.
    """

    folder: Path | None
    facts: dict[str, Any]

    def batches(
        self, part: str, sums: dict[str, Tensor], count: int, progress: Progress, work: Callable[[int], int]
    ) -> Iterator[int]:
        """Yield the numbers of the batches that are left, 0…count − 1; the caller adds each to `sums`, in place.

        Args:
            work: the work in a batch, for the progress.
        """
        progress.part(part)
        done = self._load(part, sums)
        progress.skip(sum(map(work, range(done))))
        saved = time.monotonic()
        for index in range(done, count):
            yield index
            progress.update(work(index))
            if index + 1 == count or time.monotonic() - saved > SAVE_EVERY:
                self._save(part, sums, index + 1)
                saved = time.monotonic()

    def remove(self) -> None:
        """Drop the files: all is measured."""
        for path in self.folder.glob(".evaluation-*.safetensors*") if self.folder else ():
            path.unlink()

    @property
    def _key(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    def _path(self, part: str) -> Path | None:
        return self.folder / f".evaluation-{part.replace(' ', '-')}.safetensors" if self.folder else None

    def _load(self, part: str, sums: dict[str, Tensor]) -> int:
        path = self._path(part)
        if path is None or not path.is_file():
            return 0
        try:
            with safe_open(path, "pt") as file:
                notes, found = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return 0
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()}
        if notes.get("key") != self._key or shapes != {name: (tensor.shape, tensor.dtype) for name, tensor in sums.items()}:
            return 0
        for name, tensor in sums.items():
            tensor.copy_(found[name])
        return int(notes["batches"])

    def _save(self, part: str, sums: dict[str, Tensor], batches: int) -> None:
        path = self._path(part)
        if path is not None:
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            save_file(sums, fresh, metadata={"key": self._key, "batches": str(batches)})
            fresh.replace(path)


def generator(seed: int, part: int, batch: int) -> torch.Generator:
    """The noise of one batch of one part."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, part, batch)).generate_state(1, np.uint64)[0] >> 1))
