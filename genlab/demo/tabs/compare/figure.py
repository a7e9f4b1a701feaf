"""The two sides as frames for the player."""

from __future__ import annotations

import math

import numpy as np

from genlab.data import grid
from genlab.demo.served import Models
from genlab.demo.tabs.animation import Animation
from genlab.demo.tabs.compare.compute import CompareFrame, moments, same_noise
from genlab.demo.tabs.compare.request import COUNT, CompareRequest
from genlab.demo.tabs.compare.text import PANES, TEXT
from genlab.demo.tabs.sample.figure import side_of

COLOURS = ("p", "q", "gap")


def animation_of(models: Models, request: CompareRequest) -> Animation:
    """Return the animation that the frames of a request are added to."""
    side = side_of(COUNT, models[request.a.model].data.size)
    count = len({*moments(models, request.a), *moments(models, request.b)})
    return Animation(count, PANES, (side, side), colours=COLOURS)


def panes_of(frame: CompareFrame) -> list[np.ndarray]:
    """Return both sides and their difference, each a sheet of the pictures, (side side [3])."""
    return [np.asarray(grid(part)) for part in (frame.a, frame.b, frame.difference)]


def caption_of(models: Models, frame: CompareFrame, request: CompareRequest) -> str:
    """Return what is written below a frame."""
    rms = float(frame.rms.square().mean().sqrt())
    caption = TEXT["caption"].format(percent=f"{100 * frame.time:.0f}", rms=f"{rms:.1f}")
    if frame.index < frame.count:
        return caption
    same, a, b = same_noise(models, request)
    return caption + "\n" + (TEXT["same"] if same else TEXT["other"].format(a=math.prod(a), b=math.prod(b)))
