"""Runs that the player shows: live frames while they are computed, all of them at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from genlab.demo.components.player import PlayerData, Segment, frames_to_webp, new_run, player_frame, player_sheet

PACE = 0.04
"""Least seconds between two live frames."""
SHEET_PIXELS = 6_000_000
"""Pixels that the sprite sheet of a run should not exceed; longer runs leave frames out, evenly."""


class Pace:
    """Limits how often live frames are sent."""

    def __init__(self) -> None:
        self._last = -1.0

    def frame_due(self) -> bool:
        """Return True if `PACE` has passed since the last time it did."""
        now = time.monotonic()
        if now - self._last < PACE:
            return False
        self._last = now
        return True


class Animation:
    """One run for a player: live frames while it is computed, and all of them as a sheet at the end.

    Args:
        count: number of frames that will be added.
        names, colours: of the panes, as in `PlayerData`.
        shape: (H, W) of a pane.
        segments: first frame and name of each stretch of the timeline.
        fps: frames a second at speed 1×.
    """

    def __init__(
        self,
        count: int,
        names: Sequence[str],
        shape: tuple[int, int],
        *,
        colours: Sequence[str] | None = None,
        segments: Sequence[tuple[int, str]] = (),
        fps: float = 10,
    ) -> None:
        chosen = frames_shown(count, len(names) * shape[0] * shape[1])
        self._place = {index: i for i, index in enumerate(chosen)}
        self._names = list(names)
        starts = [(sum(index < start for index in chosen), label) for start, label in segments]
        self._options: dict[str, Any] = {
            "colours": colours,
            "segments": [Segment(start=start, label=label) for start, label in starts],
            "fps": fps,
        }
        self._run, self._pace = new_run(), Pace()
        self._frames: list[np.ndarray] = []
        self._captions: list[str] = []

    def add(self, index: int, panes: Sequence[np.ndarray], caption: str) -> PlayerData | None:
        """Add frame `index`, from 0. Return it as a live frame, or None if it is too early for another one."""
        place = self._place.get(index)
        if place is None:
            return None
        self._frames.append(np.stack(panes))
        self._captions.append(caption)
        if not self._pace.frame_due():
            return None
        return player_frame(self._run, place, len(self._place), self._frames[-1], self._names, caption, **self._options)

    def sheet(self, **options: Any) -> PlayerData:
        """Return all frames; `options` as in `player_sheet`."""
        return player_sheet(self._run, np.stack(self._frames), self._names, self._captions, **self._options, **options)

    def webp(self) -> bytes:
        """Return all frames as a lossless animation."""
        return frames_to_webp(np.stack(self._frames), fps=self._options["fps"])


def frames_shown(count: int, frame_pixels: int) -> list[int]:
    """Return which of the frames 0 … count − 1 are shown, ends included, so that the sheet stays within `SHEET_PIXELS`."""
    most = max(2, min(count, SHEET_PIXELS // frame_pixels))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
