"""Sums over many batches that can be interrupted and continued, and their progress.

All noise of batch i of a part is drawn from a generator seeded by (seed, part, i), and the sums over finished batches are saved
to a file. An interrupted evaluation continues from there, and its numbers are bit for bit those of an uninterrupted one.
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
"""Seconds between two writes of the sums."""
LINE_EVERY = 30.0
"""Seconds between two lines of progress without a terminal."""


class Progress:
    """Reports the finished share of the work and the remaining time: a bar in a terminal, otherwise lines.

    Args:
        total: planned work, in units of `unit`.
        shown: False to report nothing, within work that has a bar of its own.
    """

    def __init__(self, total: int, unit: str, shown: bool = True) -> None:
        disable = None if shown else True
        self._bar = tqdm(total=total, unit=unit, unit_scale=True, mininterval=1.0, smoothing=0.1, disable=disable)
        self._shown = shown
        self._total, self._unit, self._done, self._skipped = total, unit, 0, 0
        self._start = self._line = time.monotonic()

    def part(self, name: str) -> None:
        """Set the name of the part that is being measured."""
        self._bar.set_description(name, refresh=False)
        self._name = name

    def skip(self, amount: int) -> None:
        """Add work done by an earlier run, which does not count towards the speed."""
        self._skipped += amount
        if not self._bar.disable:
            self._bar.initial += amount
            self._bar.n += amount

    def update(self, amount: int) -> None:
        """Add work done now, and report."""
        self._done += amount
        self._bar.update(amount)
        now = time.monotonic()
        if self._shown and self._bar.disable and now - self._line > LINE_EVERY:
            self._line = now
            seconds = round((self._total - self._skipped - self._done) / self._done * (now - self._start))
            clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
            done = f"{self._skipped + self._done:,} of {self._total:,} {self._unit}s"
            print(f"{self._name}: {done}, {clock} left", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()


@dataclass(frozen=True)
class Partial:
    """Saved sums over finished batches, one file for each part of an evaluation.

    Args:
        folder: folder of the files; None to save nothing.
        facts: everything that the numbers depend on; saved sums with other facts are ignored.
    """

    folder: Path | None
    facts: dict[str, Any]

    def batches(
        self, part: str, sums: dict[str, Tensor], count: int, progress: Progress, work: Callable[[int], int]
    ) -> Iterator[int]:
        """Yield the numbers of the remaining batches of 0…count − 1; the caller adds each batch to `sums` in place.

        Args:
            work: work of a batch by its number, for the progress.
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
        """Delete the files, when everything is measured."""
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
                metadata, found = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return 0
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()}
        if metadata.get("key") != self._key or shapes != {name: (tensor.shape, tensor.dtype) for name, tensor in sums.items()}:
            return 0
        for name, tensor in sums.items():
            tensor.copy_(found[name])
        return int(metadata["batches"])

    def _save(self, part: str, sums: dict[str, Tensor], batches: int) -> None:
        path = self._path(part)
        if path is not None:
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            try:
                save_file(sums, fresh, metadata={"key": self._key, "batches": str(batches)})
            except SafetensorError as error:  # a full disk
                raise OSError(
                    f"{path}: the sums could not be written ({error}); free some space, or give another --out"
                ) from error
            fresh.replace(path)


def generator(seed: int, part: int, batch: int) -> torch.Generator:
    """Return the generator of the noise of one batch of one part."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, part, batch)).generate_state(1, np.uint64)[0] >> 1))
