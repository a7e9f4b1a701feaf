"""Computes the paths between two pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genlab import draw
from genlab.data import to_model, to_pixels
from genlab.ddpm import DDPM
from genlab.demo.served import Models, Served
from genlab.demo.tabs.interpolate.request import InterpolateRequest
from genlab.demo.tabs.interpolate.text import DDPM_SPHERICAL, VAE_LINEAR, VAE_SPHERICAL
from genlab.demo.tabs.pictures import vae_input
from genlab.demo.turns import Run, Runner
from genlab.interpolate import lerp, slerp
from genlab.sampler import Frame, Noise, ddim, invert, timesteps, walk
from genlab.vae import VAE


@dataclass(frozen=True)
class PathFrame:
    """The paths while they are computed, and, as the last frame, when they are done.

    Attributes:
        index, count: step `index` of `count`.
        stage: `ends` (the two pictures are led to their noise), `path` (noise is led to pictures), `done`.
        a, b: (C H W) uint8, the two ends at this step.
        t: where on its chain the DDPM is.
        rows: title → (N C H W) uint8, one row for each path. The row of the DDPM is x_t on the way to the noise, and x̂_0
            on the way back, until it is done.
    """

    index: int
    count: int
    stage: Literal["ends", "path", "done"]
    t: int
    a: Tensor
    b: Tensor
    rows: dict[str, Tensor]


def interpolate(models: Models, runner: Runner, request: InterpolateRequest) -> Iterator[PathFrame]:
    """Find the paths between two pictures: a VAE's latents, and a diffusion model's noise, found by DDIM run backwards.

    A picture from a seed is the one that the DDPM draws from that seed's noise (the VAE where there is no DDPM).

    Raises:
        DeadlineError: it took too long. TurnError: a turn did not come in time.
    """
    run = runner.begin()
    w = torch.linspace(0, 1, request.points)
    ends: list[Tensor | None] = [
        None if p.source == "seed" else models.picture(request.data, p) for p in (request.a, request.b)
    ]
    seeds = [pick.number for pick in (request.a, request.b)]
    vae, ddpm = models.of_data(request.data, "vae"), models.of_data(request.data, "ddpm")
    rows: dict[str, Tensor] = {}
    if ddpm is None:
        decoder: VAE = vae.model  # type: ignore[assignment,union-attr]
        sampled = to_pixels(run.once(lambda: draw.decoder_means(decoder, seeds)))
        ends = [sampled[i] if end is None else end for i, end in enumerate(ends)]
        rows = _vae_rows(run, vae, ends, w)
        yield PathFrame(1, 1, "done", 0, ends[0], ends[1], rows)  # type: ignore[arg-type]
        return

    model: DDPM = ddpm.model  # type: ignore[assignment]
    times = timesteps(model.schedule.T, request.steps)
    predict, count = run.predictor(ddpm, None, clip=False), 2 * request.steps
    rows = _vae_rows(run, vae, ends, w)
    walks: list[tuple[list[int], Iterator[Frame]]] = []
    given = [i for i in (0, 1) if ends[i] is not None]
    drawn = [i for i in (0, 1) if ends[i] is None]
    if given:
        pictures = torch.stack([to_model(p) for p in ends if p is not None])
        walks.append((given, invert(predict, model.schedule, pictures, request.steps)))
    x_T: dict[int, Tensor] = {}
    if drawn:
        noise = Noise.from_seeds([seeds[i] for i in drawn], ddpm.data.shape).draw()
        x_T = dict(zip(drawn, noise, strict=True))
        walks.append((drawn, walk(predict, ddim(model.schedule), noise, times)))
    for index, frames in enumerate(zip(*(steps for _, steps in walks), strict=True), start=1):
        now = {i: x for (who, _), frame in zip(walks, frames, strict=True) for i, x in zip(who, frame.x_s, strict=True)}
        if index == request.steps:
            x_T.update({i: now[i] for i in given})
            ends = [to_pixels(now[i]) if i in drawn else ends[i] for i in (0, 1)]
            rows = _vae_rows(run, vae, ends, w)
        rows = {**rows, DDPM_SPHERICAL: to_pixels(slerp(now[0], now[1], w))}
        yield PathFrame(index, count, "ends", frames[0].s, to_pixels(now[0]), to_pixels(now[1]), rows)

    for frame in walk(predict, ddim(model.schedule), slerp(x_T[0], x_T[1], w), times):
        finished = frame.s == 0
        rows = {**rows, DDPM_SPHERICAL: to_pixels(frame.x_s if finished else frame.x0_hat)}
        index = request.steps + frame.index
        yield PathFrame(index, count, "done" if finished else "path", frame.s, ends[0], ends[1], rows)  # type: ignore[arg-type]


def _vae_rows(run: Run, vae: Served | None, ends: Sequence[Tensor | None], w: Tensor) -> dict[str, Tensor]:
    """Return the VAE's two paths; gray pictures while an end is not known yet, nothing without a VAE."""
    if vae is None:
        return {}
    model: VAE = vae.model  # type: ignore[assignment]
    if ends[0] is None or ends[1] is None:
        blank = torch.full((len(w), *vae.data.shape), 128, dtype=torch.uint8)
        return {VAE_LINEAR: blank, VAE_SPHERICAL: blank}
    x = vae_input(model, to_model(torch.stack([ends[0], ends[1]])))

    def compute() -> dict[str, Tensor]:
        a, b = model.encode(x).mean
        return {
            name: to_pixels(model.decode(path(a, b, w)).mean) for name, path in ((VAE_LINEAR, lerp), (VAE_SPHERICAL, slerp))
        }

    return run.once(compute)
