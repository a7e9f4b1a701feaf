"""The paths as frames for the player, and as a strip."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from genlab.demo.films import FOLDER
from genlab.demo.limits import data_choices, data_offers
from genlab.demo.served import Models
from genlab.demo.tabs.animation import Animation
from genlab.demo.tabs.interpolate.compute import PathFrame
from genlab.demo.tabs.interpolate.request import POINTS, InterpolateRequest
from genlab.demo.tabs.interpolate.text import DDPM_SPHERICAL, TEXT, VAE_LINEAR, VAE_SPHERICAL
from genlab.demo.tabs.pictures import pane, png
from genlab.serving.results import save_result

STRIP_WIDTH = 1000
"""Least width of the strip on the page, pixels."""


def first_data(models: Models) -> str:
    """Return the data set that is chosen at first: one with both kinds of models, if there is one."""
    names = data_choices(models.offers)
    return next((d for d in names if models.of_data(d, "vae") and models.of_data(d, "ddpm")), names[0])


def animation_of(models: Models, frame: PathFrame, data: str) -> Animation:
    """Return the animation of the run while it is computed: the middle of each path, one frame for each step."""
    size = data_offers(models.offers, data)[0].data.size
    return Animation(frame.count, list(frame.rows), (size, size), colours=["p"] * len(frame.rows))


def path_animation(frame: PathFrame) -> Animation:
    """Return the finished paths: one frame for each point."""
    rows = list(frame.rows.values())
    count = len(rows[0])
    animation = Animation(count, list(frame.rows), tuple(rows[0].shape[-2:]), colours=["p"] * len(rows), fps=6)  # type: ignore[arg-type]
    for i in range(count):
        caption = TEXT["point"].format(index=i + 1, count=count, percent=round(100 * i / (count - 1)))
        animation.add(i, [pane(row[i]) for row in rows], caption)
    return animation


def strip(frame: PathFrame, request: InterpolateRequest, scale: int | None = None) -> str:
    """Write one row for each path to a PNG, by default large enough for the page, and return its path."""
    return _strip_file(torch.cat(list(frame.rows.values())), request.points, request.data, scale)


def film_strip() -> str:
    """Write the strip of the film, large enough for the page, and return its path."""
    with Image.open(FOLDER / "interpolate-strip.png") as strip:
        scale = -(-STRIP_WIDTH // strip.width)
        large = strip.resize((strip.width * scale, strip.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    return save_result(buffer.getvalue(), "paths.png")


def _strip_file(pictures: Tensor, points: int, data: str, scale: int | None = None) -> str:
    scale = scale or -(-STRIP_WIDTH // ((pictures.shape[-1] + 2) * points + 2))
    return save_result(png(pictures, columns=points, scale=scale), f"{data}-paths.png")


def blank_strip(models: Models, data: str) -> str:
    """Write a strip of empty places, so that nothing moves when the paths arrive, and return its path."""
    rows = 2 * bool(models.of_data(data, "vae")) + bool(models.of_data(data, "ddpm"))
    points, spec = int(POINTS.default), data_offers(models.offers, data)[0].data
    return _strip_file(torch.full((rows * points, *spec.shape), 200, dtype=torch.uint8), points, data)


def legend(models: Models, data: str) -> str:
    """Return what the rows are, and which are missing."""
    names = {"vae": (VAE_LINEAR, VAE_SPHERICAL), "ddpm": (DDPM_SPHERICAL,)}
    rows = [name for kind, row in names.items() if models.of_data(data, kind) for name in row]
    missing = [TEXT["missing"].format(kind=kind.upper()) for kind in names if not models.of_data(data, kind)]
    return " ".join([TEXT["rows"].format(rows=TEXT["and"].join(rows)), *missing])
