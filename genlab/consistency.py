"""Sample in one evaluation: the consistency function of a diffusion model's flow (Song et al. 2023), learned by distillation.

The flow ODE of a diffusion model (`score`, eq. 8) leads every x_t along one trajectory to one picture. The consistency function
f(x_t, t) is that picture: constant along a trajectory, and f(x, t) → x for t → 0. Given f, one evaluation samples,

    x_0 = f(x_T, T),   x_T ~ N(0, I)                                                                     (1)

and further evaluations reduce its error (Song et al. 2023, algorithm 1):

    x̂_0 = f(x_t, t),   x_s ~ q(x_s|x_0 = x̂_0),   x̂_0 = f(x_s, s), …                                     (2)

(2) leaves the distribution of the pictures as it is when f is exact: x̂_0 is a picture, and q takes pictures to q(x_s). For data
N(m, σ²I) f is known, since along the flow a point's distance from the mean stays the same in units of the standard deviation:

    f(x_t, t) = m + σ (x_t − √ᾱ_t m) / √(ᾱ_t σ² + 1 − ᾱ_t)                                              (3)

The network is that of a DDPM: its x̂_0 = √ᾱ_t x_t − √(1−ᾱ_t) v̂ tends to x_t for t → 0, as f must. A DDPM's x̂_0 is the mean of
the pictures that x_t may come from; here it is the end of one trajectory. A teacher's solver gives the trajectories, and f_θ is
fitted to their ends by the pseudo-Huber distance, quadratic near 0 and linear far away (Song & Dhariwal 2024, eq. 8):

    min E ρ(f_θ(x_t, t) − x_0),   ρ(d) = √(‖d‖² + c²) − c,   c = 0.00054 √D                              (4)

x_t is any point of the trajectory, x_T more often than the others, since all samples begin there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from genlab.config import ConsistencyConfig, DataSpec, Kind
from genlab.ddpm import DDPM
from genlab.divergence import sum_dims
from genlab.process import Denoised, q_marginal
from genlab.sampler import History, Noise, Step
from genlab.schedule import Schedule

HUBER = 0.00054
"""c of eq. 4 for one dimension (Song & Dhariwal 2024, section 3.3)."""


def pseudo_huber(difference: Tensor) -> Tensor:
    """Return ρ(d), eq. 4, of each difference (B, …), (B)."""
    c = HUBER * math.sqrt(difference[0].numel())
    return (sum_dims(difference**2) + c**2).sqrt() - c


def renoising(schedule: Schedule, noise: Noise) -> Step:
    """Return the step of eq. 2: x_s ~ q(x_s|x_0 = x̂_0); x̂_0 itself for s = 0."""

    def step(history: History, x_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> tuple[Tensor, History]:
        if int(s[0]) == 0:
            return denoised.x0_hat, history
        return q_marginal(schedule, denoised.x0_hat, s).sample(noise.draw().to(x_t)), history

    return step


def spread(times: Sequence[int]) -> tuple[int, ...]:
    """Return times in such an order that the first one, two, four, … of them are evenly spaced among all."""
    count = len(times)
    places = (i * count >> k for k in range(count.bit_length() + 1) for i in range(1 << k))
    return tuple(times[place] for place in dict.fromkeys(places))


def evaluation_times(order: Sequence[int], count: int) -> list[int]:
    """Return `count` + 1 times that fall to 0: the first `count` ones of `order`, then 0.

    Raises:
        ValueError: `count` is not from 1 to the number of those times.
    """
    if not 1 <= count <= len(order):
        raise ValueError(f"expected 1 to {len(order)} evaluations, got {count}")
    return [*sorted(order[:count], reverse=True), 0]


def chosen_order(times: Sequence[int], count: int, distance: Callable[[list[int]], float]) -> tuple[int, ...]:
    """Return times in an order in which each further evaluation brings the pictures nearest (Song et al. 2023, section 3).

    Like theirs the search is greedy, one time after another; only the times that the function was trained at are tried.

    Args:
        times: T first.
        count: number of evaluations for which times are chosen; the rest follow as they are.
        distance: of the pictures that a walk makes, given its times down to 0, from those wanted.
    """
    order = list(times[:1])
    while len(order) < count:
        left = [time for time in times if time not in order]
        order.append(min(left, key=lambda time: distance(evaluation_times([*order, time], len(order) + 1))))
    return (*order, *(time for time in times if time not in order))


class Consistency(nn.Module):
    """A consistency function of pictures in [−1, 1], with the network of a DDPM.

    Raises:
        ValueError: see `DDPM`.
    """

    kind: Kind = "consistency"

    def __init__(self, config: ConsistencyConfig, data: DataSpec) -> None:
        super().__init__()
        self.config = config
        self.data = data
        self.denoiser = DDPM(config.ddpm, data)

    @property
    def schedule(self) -> Schedule:
        """Return the chain whose flow it belongs to."""
        return self.denoiser.schedule

    def predict(
        self, x_t: Tensor, t: Tensor, label: Tensor | None = None, guidance: float = 1.0, clip: bool = True
    ) -> Denoised:
        """Return x̂_0 = f_θ(x_t, t) and the ε̂ that belongs to it, for x_t (B C H W) at t (B); see `DDPM.predict`."""
        return self.denoiser.predict(x_t, t, label, guidance, clip)

    def loss(self, points: Tensor, times: Sequence[int], place: Tensor, label: Tensor | None) -> Tensor:
        """Return ρ of eq. 4, (B).

        Args:
            points: (B K+1 C H W) of K points of each trajectory and its end.
            times: K times of the points.
            place: (B) index of x_t among the K points.
        """
        t = torch.tensor(times, device=points.device)[place]
        x_t = points[torch.arange(len(points), device=points.device), place].float()
        return pseudo_huber(self.predict(x_t, t, label, clip=False).x0_hat - points[:, -1].float())

    def forward(self, points: Tensor, times: Sequence[int], place: Tensor, label: Tensor | None) -> Tensor:
        """Return the training loss (`loss`): DistributedDataParallel wraps forward() alone."""
        return self.loss(points, times, place, label)

    def sampling_times(self, count: int) -> list[int]:
        """Return the times of `count` evaluations; see `evaluation_times`."""
        return evaluation_times(self.config.times, count)
