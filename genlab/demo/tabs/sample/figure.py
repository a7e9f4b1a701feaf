"""The pictures of a run as frames for the player, and as a file."""

from __future__ import annotations

import numpy as np

from genlab.data import columns_of, grid
from genlab.demo.served import Models
from genlab.demo.tabs.animation import Animation
from genlab.demo.tabs.pictures import png
from genlab.demo.tabs.sample.request import SampleRequest
from genlab.demo.tabs.sample.text import TEXT
from genlab.draw import SampleFrame
from genlab.serving.results import save_result


def animation_of(models: Models, request: SampleRequest) -> Animation:
    """Return the animation that the frames of a request are added to."""
    offer = models[request.model].offer
    side = side_of(request.count, offer.data.size)
    return Animation(request.steps + 1 if offer.T else 1, [request.model], (side, side), colours=["p"])


def side_of(count: int, size: int) -> int:
    """Return the side in pixels of a square sheet of `count` pictures of size × size."""
    return columns_of(count) * (size + 2) + 2


def sheet(frame: SampleFrame) -> np.ndarray:
    """Return the pictures of a frame as one square picture, (side side [3])."""
    columns = columns_of(len(frame.pictures))
    picture = np.asarray(grid(frame.pictures, columns))
    missing = picture.shape[1] - picture.shape[0]
    return np.pad(picture, ((0, missing), *[(0, 0)] * (picture.ndim - 1)), constant_values=255)


def caption_of(frame: SampleFrame) -> str:
    """Return what is written below a frame."""
    if frame.count == 0:
        return TEXT["vae"]
    return TEXT["noise" if frame.index == 0 else "formed"].format(index=frame.index, count=frame.count, t=frame.t)


def png_file(frame: SampleFrame, request: SampleRequest) -> str:
    """Write the pictures of a frame to a PNG and return its path."""
    facts = {"Model": request.model, "Seed": request.seed, "Steps": request.steps, "Sampler": request.sampler}
    return save_result(png(frame.pictures, facts=facts), f"{request.model}-seed-{request.seed}.png")
