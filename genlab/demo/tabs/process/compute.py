"""Computes the forward and the reverse process on one picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genlab import draw
from genlab.config import Sampling
from genlab.data import to_model, to_pixels
from genlab.demo.served import Models
from genlab.demo.tabs.process.request import ProcessRequest
from genlab.demo.turns import Runner
from genlab.process import eps_from_x0, q_step
from genlab.sampler import Noise, timesteps, walk
from genlab.schedule import Schedule

EPS_SCALE = 3.0
"""Standard deviations of noise that are shown black and white; 0 is middle gray."""


@dataclass(frozen=True)
class ChainFrame:
    """One moment of the forward or the reverse process, (C H W) uint8 each.

    Attributes:
        index, count: frame `index` of `count`, from 0.
        direction: `forward` or `reverse`.
        t, alpha_bar, snr: the time, ᾱ_t and ᾱ_t/(1 − ᾱ_t).
        x_t: the state; x0: the picture (forward) or x̂_0 (reverse); eps: the noise in x_t, ε (forward) or ε̂ (reverse).
        rms, correlation: how far `x0` is from the picture that the forward process started from, as the root of the mean square
            of the difference of 8-bit pixels, and as the correlation of the pixels (NaN for a picture of one colour).
    """

    index: int
    count: int
    direction: Literal["forward", "reverse"]
    t: int
    alpha_bar: float
    snr: float
    x_t: Tensor
    x0: Tensor
    eps: Tensor
    rms: float
    correlation: float


def diffuse(models: Models, runner: Runner, request: ProcessRequest) -> Iterator[ChainFrame]:
    """Run the forward chain on one picture up to t = `until`, then the reverse chain from there.

    Forward is one path of the Markov chain: every x_t is drawn by q(x_t|x_{t−1}), all of them, and `steps` + 1 are shown.
    From a middle t, where part of the picture is left, the way back is not led to a class unless the request names one.

    Raises:
        DeadlineError: it took too long. TurnError: a turn did not come in time.
    """
    run, served, model = runner.begin(), models[request.model], models.ddpm(request.model)
    schedule, count = model.schedule, 2 * (request.steps + 1)
    noise = Noise.from_seeds([request.seed], served.data.shape)
    times = timesteps(request.until, request.steps)
    x0 = to_model(models.picture(served.data.name, request.picture))[None]

    def frame(
        index: int, direction: Literal["forward", "reverse"], t: int, x_t: Tensor, x0_hat: Tensor, eps: Tensor
    ) -> ChainFrame:
        alpha_bar, snr = float(schedule.alpha_bar[t]), float(schedule.snr[t])
        shown = (to_pixels(x_t[0]), to_pixels(x0_hat[0]), to_pixels(eps[0] / EPS_SCALE))
        return ChainFrame(index, count, direction, t, alpha_bar, snr, *shown, *_likeness(shown[1], to_pixels(x0[0])))

    x_t = x0
    yield frame(0, "forward", 0, x0, x0, torch.zeros_like(x0))
    for index, (s, t) in enumerate(zip(times[::-1], times[::-1][1:], strict=False), start=1):
        run.check()
        x_t = _forward(schedule, noise, x_t, s, t)
        yield frame(index, "forward", t, x_t, x0, eps_from_x0(schedule, x_t, x0, torch.tensor([t])))

    start = noise.draw() if request.fresh_noise else x_t
    free = request.label is None and request.until < schedule.T
    labels = draw.class_labels(model, "none" if free else draw.class_of(model, request.label), [request.seed])
    predict = run.predictor(served, labels)
    for step in walk(predict, draw.make_step(model, Sampling(request.sampler), noise), start, times):
        index = request.steps + step.index
        yield frame(index, "reverse", step.t, step.x_t, step.x0_hat, step.eps_hat)
        if step.s == 0:
            yield frame(index + 1, "reverse", 0, step.x_s, step.x_s, step.eps_hat)


def _forward(schedule: Schedule, noise: Noise, x: Tensor, s: int, t: int) -> Tensor:
    """Return x_t from x_s by every step of the chain between them."""
    for now in range(s + 1, t + 1):
        x = q_step(schedule, x, torch.tensor([now])).sample(noise.draw())
    return x


def _likeness(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Return the root mean square difference and the correlation of two pictures' pixels."""
    a, b = a.double().flatten(), b.double().flatten()
    return float((a - b).square().mean().sqrt()), float(torch.corrcoef(torch.stack([a, b]))[0, 1])
