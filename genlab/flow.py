"""Flow matching: the straight path from noise to data, and what a diffusion model says of it (docs/notes.md#n2-flow).

A straight path mixes a picture and noise ε ~ N(0, I), and moves at a speed that does not depend on the time s in [0, 1],

    x_s = (1 − s) x_0 + s ε,        dx_s/ds = ε − x_0                                                (1)

The velocity u(x,s) = E[ε − x_0 | x_s = x] moves all of q(x_s) along: a walk along

    dx = u(x,s) ds,  s from 1 to 0                                                                   (2)

that starts from N(0, I) has the density of (1) at every s (Lipman et al. 2023; Liu et al. 2023). It is learned as the score is:
for every û, with a C that does not depend on û,

    E ‖û(x_s,s) − (ε − x_0)‖² = E ‖û(x_s,s) − u(x_s,s)‖² + C                                         (3)

because u is the conditional mean of the target. The paths (1) are straight; those of (2) bend where they would cross.

A chain's x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε is (1) in another unit and at another time: with c_t = √ᾱ_t + √(1−ᾱ_t),

    x_t/c_t = x_s at s = √(1−ᾱ_t)/c_t,     u = E[ε|x_t] − E[x_0|x_t]                                 (4)

So one network predicts ε̂, x̂_0, v̂, the score and the velocity; by x_t they are linear in each other:

    û = ε̂ − x̂_0,    ε̂ = (x_t + √ᾱ_t û)/c_t,    x̂_0 = (x_t − √(1−ᾱ_t) û)/c_t                        (5)

The flow ODE of the chain (`score`, eq. 8) and (2) are the same curve, x(t)/c_t at s(t); Euler's step along (2) keeps ε̂ and x̂_0
and is the DDIM step (`sampler`, eq. 2 with η = 0). Flow matching differs from a diffusion model in the weight of the times in
its loss and in where a solver of few steps puts them, not in what it can represent. `straight_schedule` is a chain whose times
are evenly spaced in s.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genlab.divergence import sum_dims
from genlab.process import Denoised, x0_from_eps
from genlab.schedule import Schedule, at, spread
from genlab.score import eps_from_score

Velocity = Callable[[Tensor, Tensor], Tensor]
"""A model of u: x_s (B, …), s (B) in [0, 1] → û, of the shape of x_s."""
LAST = 0.999
"""The largest s of `straight_schedule`; at s = 1 nothing is left of the picture, and a chain has no such step."""


def straight_schedule(T: int) -> Schedule:
    """Return the chain whose times t = 0…T are evenly spaced in s, from 0 to 0.999: √ᾱ_t ∝ 1 − s, √(1−ᾱ_t) ∝ s."""
    s = torch.linspace(0, LAST, T + 1, dtype=torch.float64)
    alpha_bar = (1 - s) ** 2 / ((1 - s) ** 2 + s**2)
    return Schedule(torch.cat([torch.zeros(1, dtype=torch.float64), 1 - alpha_bar[1:] / alpha_bar[:-1]]))


def straight_time(schedule: Schedule, t: Tensor) -> Tensor:
    """Return s in [0, 1), (B) float64, of times t (B) in 0…T, eq. 4."""
    schedule.check(t, lowest=0)
    noise, scale = (1 - schedule.alpha_bar).sqrt(), _scale(schedule)
    return (noise / scale).to(t.device)[t]


def straight(schedule: Schedule, x_t: Tensor, t: Tensor) -> Tensor:
    """Return x_t (B, …) in the unit of the straight path, x_t/c_t, eq. 4."""
    return x_t / at(_scale(schedule), t, x_t)


def velocity(denoised: Denoised) -> Tensor:
    """Return û = ε̂ − x̂_0 of a prediction, eq. 4."""
    return denoised.eps_hat - denoised.x0_hat


def velocity_from_eps(schedule: Schedule, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Return u = ε − x_0, x_0 by `process.x0_from_eps`, for t (B) in 1…T."""
    return eps - x0_from_eps(schedule, x_t, eps, t)


def velocity_from_score(schedule: Schedule, x_t: Tensor, score: Tensor, t: Tensor) -> Tensor:
    """Return u of the score s(x_t,t), by its ε (`score`, eq. 2)."""
    return velocity_from_eps(schedule, x_t, eps_from_score(schedule, score, t), t)


def velocity_from_v(schedule: Schedule, x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """Return u = c_t v + (√(1−ᾱ_t) − √ᾱ_t) x_t, which divides by nothing."""
    difference = (1 - schedule.alpha_bar).sqrt() - schedule.alpha_bar.sqrt()
    return at(_scale(schedule), t, x_t) * v + at(difference, t, x_t) * x_t


def v_from_velocity(schedule: Schedule, x_t: Tensor, u: Tensor, t: Tensor) -> Tensor:
    """Return v of a velocity, the inverse of `velocity_from_v`."""
    difference = (1 - schedule.alpha_bar).sqrt() - schedule.alpha_bar.sqrt()
    return (u - at(difference, t, x_t) * x_t) / at(_scale(schedule), t, x_t)


def eps_from_velocity(schedule: Schedule, x_t: Tensor, u: Tensor, t: Tensor) -> Tensor:
    """Return ε = (x_t + √ᾱ_t u)/c_t, eq. 5."""
    return straight(schedule, x_t + at(schedule.alpha_bar.sqrt(), t, x_t) * u, t)


def x0_from_velocity(schedule: Schedule, x_t: Tensor, u: Tensor, t: Tensor) -> Tensor:
    """Return x_0 = (x_t − √(1−ᾱ_t) u)/c_t, eq. 5."""
    return straight(schedule, x_t - at((1 - schedule.alpha_bar).sqrt(), t, x_t) * u, t)


def flow_matching_loss(model: Velocity, x0: Tensor, s: Tensor, eps: Tensor) -> Tensor:
    """Return ‖û(x_s,s) − (ε − x_0)‖², (B), at x_s = (1 − s) x_0 + s ε: the left side of eq. 3.

    Args:
        x0, eps: (B, …); s: (B) in [0, 1].
    """
    share = spread(s, x0)
    return sum_dims((model((1 - share) * x0 + share * eps, s) - (eps - x0)) ** 2)


def detour(path: Tensor) -> Tensor:
    """Return the length of paths (K + 1, N, D), all together, by the distance of their ends: 1 where all are straight."""
    return path.diff(dim=0).norm(dim=2).sum() / (path[-1] - path[0]).norm(dim=1).sum()


def _scale(schedule: Schedule) -> Tensor:
    """Return c_t = √ᾱ_t + √(1−ᾱ_t), (T + 1)."""
    return schedule.alpha_bar.sqrt() + (1 - schedule.alpha_bar).sqrt()
