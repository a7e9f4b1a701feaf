"""The chain as frames for the player, and its numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from genlab.demo.served import Models
from genlab.demo.tabs.animation import Animation
from genlab.demo.tabs.measurements import small
from genlab.demo.tabs.pictures import pane
from genlab.demo.tabs.process.compute import ChainFrame
from genlab.demo.tabs.process.request import ProcessRequest
from genlab.demo.tabs.process.text import PANES, TEXT


def animation_of(models: Models, request: ProcessRequest) -> Animation:
    """Return the animation that the frames of a request are added to."""
    size = models[request.model].data.size
    segments = [(0, TEXT["forward"]), (request.steps + 1, TEXT["reverse"])]
    return Animation(2 * (request.steps + 1), PANES, (size, size), segments=segments)


def panes_of(frame: ChainFrame) -> list[np.ndarray]:
    """Return x_t, x̂_0 and ε̂ of a frame, (H W C) each."""
    return [pane(picture) for picture in (frame.x_t, frame.x0, frame.eps)]


def caption_of(frame: ChainFrame, request: ProcessRequest) -> str:
    """Return what is written below a frame."""
    if frame.direction == "forward":
        formula = TEXT["start_formula" if frame.t == 0 else "forward_formula"]
    else:
        formula = TEXT["end_formula" if frame.t == 0 else f"{request.sampler}_formula"]
        correlation = "–" if math.isnan(frame.correlation) else f"{frame.correlation:.2f}".replace("-", "−")
        formula = formula.format(rms=f"{frame.rms:.0f}", correlation=correlation)
    snr = "∞"
    if not math.isinf(frame.snr):
        decibels = f"{10 * math.log10(frame.snr):+.1f}".replace("-", "−")
        snr = f"{small(frame.snr)} ({decibels} dB)"
    return TEXT["caption"].format(
        direction=TEXT[frame.direction], t=frame.t, alpha_bar=small(frame.alpha_bar), snr=snr, formula=formula
    )


def numbers(frame: ChainFrame) -> dict[str, Any]:
    """Return the numbers of a frame, for `/diffuse`."""
    snr = None if math.isinf(frame.snr) else frame.snr
    found: dict[str, Any] = {"direction": frame.direction, "t": frame.t, "alpha_bar": frame.alpha_bar, "snr": snr}
    if frame.direction == "reverse":
        found.update(rms=frame.rms, correlation=None if math.isnan(frame.correlation) else frame.correlation)
    return found
