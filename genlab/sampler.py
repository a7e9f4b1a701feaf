"""Walking the reverse process: from noise to a picture, over all steps or a subsequence (notes 1.5, figure 5 right to left).

    ancestral   x_s ~ p_θ(x_s|x_t)                                                           (Ho et al. 2020)    (1)
    DDIM        x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z,   z ~ N(0, I)                      (Song et al. 2021)  (2)
                σ² = η² (1 − ᾱ_s)/(1 − ᾱ_t) · (1 − ᾱ_t/ᾱ_s)

η = 0 makes (2) deterministic and lets it run backwards, from a picture to its noise (`invert`). A sampler is a generator: it
yields a `Frame` for every step, so that a progress bar, a live picture and an endpoint can share it, and it stops when closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from genlab.config import Variance
from genlab.ddpm import Denoised
from genlab.process import p_reverse
from genlab.schedule import Schedule, spread

Predict = Callable[[Tensor, Tensor], Denoised]
"""x_t (B C H W), t (B) → what the model sees in it."""


@dataclass(frozen=True)
class Frame:
    """One moment of the reverse process.

    Attributes:
        index, count: this is step `index` of `count`, from 1.
        t, s: the step leads from time t to time s.
        x_t: (B C H W) the state before the step; x0_hat, eps_hat: what the model sees in it.
        x_s: (B C H W) the state after the step.
    """

    index: int
    count: int
    t: int
    s: int
    x_t: Tensor
    x0_hat: Tensor
    eps_hat: Tensor
    x_s: Tensor


class Step(Protocol):
    """x_t at t, what the model sees in it, and s < t → x_s."""

    def __call__(self, x_t: Tensor, seen: Denoised, t: Tensor, s: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Noise:
    """Standard normal noise, one independent stream for each picture.

    The stream of picture i depends on its seed alone, so that a picture is the same whether it is drawn alone or among others.
    """

    generators: tuple[torch.Generator, ...]
    shape: tuple[int, ...]

    @classmethod
    def from_seeds(cls, seeds: list[int], shape: tuple[int, ...]) -> Noise:
        """One stream for each seed; `shape` is that of one picture."""
        return cls(tuple(torch.Generator().manual_seed(seed) for seed in seeds), shape)

    def draw(self) -> Tensor:
        """The next noise of every stream, (B, *shape), on the CPU."""
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators])


def timesteps(T: int, count: int) -> list[int]:
    """`count` + 1 times from T down to 0, as evenly spaced as whole numbers allow.

    Raises:
        ValueError: `count` is not from 1 to T.
    """
    if not 1 <= count <= T:
        raise ValueError(f"expected 1 to {T} steps, got {count}")
    return [round(T * (count - i) / count) for i in range(count + 1)]


def ancestral(schedule: Schedule, noise: Noise, variance: Variance = "posterior") -> Step:
    """Eq. 1: draw from p_θ(x_s|x_t). The last step, to s = 0, takes the mean."""

    def step(x_t: Tensor, seen: Denoised, t: Tensor, s: Tensor) -> Tensor:
        p = p_reverse(schedule, x_t, seen.x0_hat, t, s, variance, seen.fraction)
        if int(s[0]) == 0:
            return p.mean
        return p.sample(noise.draw().to(x_t))

    return step


def ddim(schedule: Schedule, noise: Noise | None = None, eta: float = 0.0) -> Step:
    """Eq. 2. η = 0 is deterministic; η = 1 has the variance β̃ of the ancestral step. Takes s > t as well for η = 0.

    Raises:
        ValueError: η outside [0, 1], or η > 0 without noise.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"expected η from 0 to 1, got {eta}")
    if eta > 0 and noise is None:
        raise ValueError(f"expected a source of noise for η = {eta}, got none")

    def step(x_t: Tensor, seen: Denoised, t: Tensor, s: Tensor) -> Tensor:
        # The coefficients are float64 and cast last: in float32, 1 − ᾱ near t = 0 would keep three digits.
        alpha_bar_t, alpha_bar_s = (schedule.alpha_bar.to(time.device)[time] for time in (t, s))
        mean = spread(alpha_bar_s.sqrt(), x_t) * seen.x0_hat
        if noise is None or eta == 0 or int(s[0]) == 0:
            return mean + spread((1 - alpha_bar_s).sqrt(), x_t) * seen.eps_hat
        variance = eta**2 * (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)
        mean = mean + spread((1 - alpha_bar_s - variance).sqrt(), x_t) * seen.eps_hat
        return mean + spread(variance.sqrt(), x_t) * noise.draw().to(x_t)

    return step


def walk(predict: Predict, step: Step, x: Tensor, times: list[int]) -> Iterator[Frame]:
    """Walk x (B C H W) along `times`, yielding a frame after each step.

    The times fall from T (or a lower start) to 0 to make pictures; they rise, with the deterministic `ddim`, to undo that.
    Time 0 has no noise to predict: a walk that rises from it asks the network at t = 1.
    """
    count = len(times) - 1
    for index, (t, s) in enumerate(pairwise(times), start=1):
        t_now = torch.full((len(x),), t, device=x.device)
        s_next = torch.full_like(t_now, s)
        with torch.inference_mode():
            seen = predict(x, t_now.clamp(min=1))
            after = step(x, seen, t_now, s_next)
        yield Frame(index, count, t, s, x, seen.x0_hat, seen.eps_hat, after)
        x = after


def invert(predict: Predict, schedule: Schedule, x0: Tensor, count: int) -> Iterator[Frame]:
    """DDIM backwards: the walk from pictures x0 to the noise x_T that DDIM turns into them (Song et al. 2021, section 4.3)."""
    return walk(predict, ddim(schedule), x0, timesteps(schedule.T, count)[::-1])
