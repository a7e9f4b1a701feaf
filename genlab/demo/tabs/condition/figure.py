"""The pictures of a run as frames for the player, and the canvas."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from genlab.data import grid
from genlab.demo.components.canvas import CanvasData, canvas_data
from genlab.demo.limits import Pick
from genlab.demo.served import Models
from genlab.demo.tabs.animation import Animation
from genlab.demo.tabs.condition.compute import GuideFrame, RepairFrame
from genlab.demo.tabs.condition.request import COUNT, REPAIR, GuideRequest, RepairRequest
from genlab.demo.tabs.condition.text import PANES, TEXT, WAYS
from genlab.demo.tabs.pictures import pane
from genlab.demo.tabs.sample.figure import side_of
from genlab.serving.language import both

REACH = both("{percent} %", "{percent}%")


def first_cover(size: int) -> np.ndarray:
    """Return what is painted over at first: the upper half, (size size) bool."""
    cover = np.zeros((size, size), dtype=bool)
    cover[: size // 2] = True
    return cover


def canvas_of(models: Models, model: str, pick: Pick, mode: str, token: str, cover: np.ndarray | None = None) -> CanvasData:
    """Return a canvas with a picture; `token` as in `CanvasData`.

    Where a repair is chosen, it is painted over where `cover` (size size) is true, at first in its upper half.
    """
    data = models[model].data
    picture = pane(models.picture(data.name, pick))
    hidden = first_cover(data.size) if cover is None else cover
    return canvas_data(token, [picture], ["x"], ["p"], cover=hidden if mode == REPAIR else None)


def animation_of(models: Models, request: RepairRequest | GuideRequest) -> Animation:
    """Return the animation that the frames of a request are added to."""
    side = side_of(COUNT, models[request.model].data.size)
    if isinstance(request, GuideRequest):
        return Animation(request.steps + 1, WAYS, (side, side), colours=["q", "p", "x_t"])
    return Animation(request.steps * request.rounds + 1, PANES, (side, side), fps=20)


def panes_of(frame: RepairFrame | GuideFrame) -> list[np.ndarray]:
    """Return the panes of a frame, each a sheet of the pictures, (side side [3])."""
    parts: Tensor | tuple[Tensor, ...] = frame.pictures if isinstance(frame, GuideFrame) else (frame.x_t, frame.x0_hat)
    return [np.asarray(grid(part)) for part in parts]


def caption_of(frame: RepairFrame | GuideFrame, request: RepairRequest | GuideRequest) -> str:
    """Return what is written below a frame."""
    if frame.index < frame.count:
        return TEXT["formed" if frame.index else "start"].format(index=frame.index, count=frame.count, t=frame.t)
    if isinstance(frame, GuideFrame):
        assert frame.probabilities is not None
        shares = [REACH.format(percent=f"{100 * float(p):.0f}") for p in frame.probabilities.mean(dim=1)]
        return TEXT["guided"].format(gradient=shares[0], free=shares[1], none=shares[2])
    assert isinstance(request, RepairRequest)
    return TEXT["drawn" if request.cover is None else "repaired"].format(until=request.until)
