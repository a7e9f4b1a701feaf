"""The numbers of the forward chain (docs/notes.md#n1-5-forward): how much noise each step adds.

    α_t = 1 − β_t,    ᾱ_t = α_1 α_2 … α_t,    SNR_t = ᾱ_t / (1 − ᾱ_t),    λ_t = ½ log SNR_t

Tables are float64 and have T + 1 entries: entry t belongs to step t, entry 0 is clean data (β_0 = 0, ᾱ_0 = 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genlab.config import ScheduleName


@dataclass(frozen=True)
class Schedule:
    """β_0…β_T and what follows from it.

    Args:
        beta: (T + 1) float64, T ≥ 2, β_0 = 0 and 0 < β_t < 1 for every t ≥ 1.

    Raises:
        ValueError: β is of another type or length, or a β_t is outside that range.
    """

    beta: Tensor

    def __post_init__(self) -> None:
        beta = self.beta
        if beta.ndim != 1 or beta.dtype != torch.float64 or len(beta) < 3:
            raise ValueError(f"expected β as at least 3 float64 values, got {beta.dtype} of shape {tuple(beta.shape)}")
        if beta[0] != 0 or not bool(((beta[1:] > 0) & (beta[1:] < 1)).all()):
            raise ValueError("expected β_0 = 0 and 0 < β_t < 1 for every t ≥ 1")

    @property
    def T(self) -> int:
        """Return the number of steps of the chain."""
        return len(self.beta) - 1

    @cached_property
    def alpha(self) -> Tensor:
        """Return α_t = 1 − β_t, (T + 1)."""
        return 1 - self.beta

    @cached_property
    def alpha_bar(self) -> Tensor:
        """Return ᾱ_t = Π α_i, (T + 1): the share of the signal's power that is left at t."""
        return self.alpha.cumprod(dim=0)

    @cached_property
    def snr(self) -> Tensor:
        """Return ᾱ_t / (1 − ᾱ_t), (T + 1): signal-to-noise ratio, infinite at t = 0."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @cached_property
    def half_log_snr(self) -> Tensor:
        """Return λ_t = log √ᾱ_t − log √(1 − ᾱ_t), (T + 1), nats: falls with t, infinite at t = 0."""
        return self.snr.log() / 2

    def check(self, t: Tensor, lowest: int = 1) -> None:
        """Raise ValueError unless every t is a whole number from `lowest` to T; on a GPU only the type is checked."""
        if t.is_floating_point() or any_true(t < lowest) or any_true(t > self.T):
            raise ValueError(f"expected whole t from {lowest} to {self.T}, got {t.tolist()[:8]}")


def linear_schedule(T: int) -> Schedule:
    """Return β_t rising linearly from 1e-4 to 0.02 for T = 1000, as in the notes (Ho et al. 2020, section 4).

    For another T the ends are scaled by 1000/T, so that ᾱ has about the same shape (Nichol & Dhariwal 2021, appendix A).

    Raises:
        ValueError: T is so small that β_T would not be below 1 (T ≤ 20).
    """
    if T <= 20:
        raise ValueError(f"expected T > 20 for the linear schedule, got {T}; use the cosine schedule for short chains")
    scale = 1000 / T
    beta = torch.linspace(scale * 1e-4, scale * 0.02, T, dtype=torch.float64)
    return Schedule(torch.cat([torch.zeros(1, dtype=torch.float64), beta]))


def cosine_schedule(T: int) -> Schedule:
    """Return ᾱ_t = f(t)/f(0), f(t) = cos²((t/T + 0.008)/1.008 · π/2), β_t ≤ 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
    t = torch.arange(T + 1, dtype=torch.float64)
    f = torch.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return Schedule(torch.cat([torch.zeros(1, dtype=torch.float64), beta]))


FINEST_NOISE = 1e-3
"""√((1−ᾱ_1)/ᾱ_1) of the mixed schedule: an eighth of the distance between two gray levels, 2/255."""
EVEN_SHARE = 0.25
"""Share of the steps of the mixed schedule that are spread evenly over log-SNR."""


def mixed_schedule(T: int) -> Schedule:
    """Return the linear schedule's noise levels from FINEST_NOISE on, with a share of the steps evenly spaced in λ.

    Over continuous time τ in [0, 1] the linear schedule is −log ᾱ = a τ + b τ², a = 0.1, b = 9.95 (Song et al. 2021, eq. 32).
    With κ = EVEN_SHARE, λ_t solves

        (1 − κ) (τ(λ_t) − τ(λ_1))/(1 − τ(λ_1)) + κ (λ_1 − λ_t)/(λ_1 − λ_T) = (t − 1)/(T − 1).

    L_simple weighs noise levels by the density of the steps, the bound weighs them uniformly in λ (Kingma et al. 2021, eq. 15):
    training with uniform t is thus an average of both. The first steps are also finer than those of the linear schedule, whose
    β_1 alone has a standard deviation above one gray level.
    """
    a, b = 0.1, 9.95

    def place(half_log_snr: Tensor) -> Tensor:
        decay = torch.nn.functional.softplus(-2 * half_log_snr)  # −log ᾱ
        return ((a**2 + 4 * b * decay).sqrt() - a) / (2 * b)

    top = -math.log(FINEST_NOISE)
    bottom = -math.log(math.expm1(a + b)) / 2
    low, high = torch.full((T,), bottom, dtype=torch.float64), torch.full((T,), top, dtype=torch.float64)
    start, wanted = place(high[:1]), torch.linspace(0, 1, T, dtype=torch.float64)
    for _ in range(60):  # the left side falls with λ: bisection to float64 precision
        middle = (low + high) / 2
        reached = (1 - EVEN_SHARE) * (place(middle) - start) / (1 - start) + EVEN_SHARE * (top - middle) / (top - bottom)
        low, high = torch.where(reached > wanted, middle, low), torch.where(reached > wanted, high, middle)
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), torch.sigmoid(low + high)])
    return Schedule(torch.cat([torch.zeros(1, dtype=torch.float64), 1 - alpha_bar[1:] / alpha_bar[:-1]]))


def make_schedule(name: ScheduleName, T: int) -> Schedule:
    """Return the schedule of that name with T steps."""
    return {"mixed": mixed_schedule, "linear": linear_schedule, "cosine": cosine_schedule}[name](T)


def refined_schedule(schedule: Schedule, parts: int) -> Schedule:
    """Return the chain with `parts` steps in the place of each step t ≥ 2, λ linear between t − 1 and t; ᾱ_1 stays.

    Its step i is at time 1 + (i − 1)/parts of the given chain, and it has (T − 1)·parts + 1 steps.

    Raises:
        ValueError: `parts` is below 1.
    """
    if parts < 1:
        raise ValueError(f"expected 1 part or more, got {parts}")
    known = schedule.half_log_snr[1:]
    share = torch.arange(parts, dtype=torch.float64) / parts
    between = (known[:-1, None] + share * known.diff()[:, None]).flatten()
    alpha_bar = torch.sigmoid(2 * torch.cat([torch.full((1,), math.inf, dtype=torch.float64), between, known[-1:]]))
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    return Schedule(torch.cat([torch.zeros(1, dtype=torch.float64), beta]))


def any_true(condition: Tensor, on_gpu: bool = False) -> bool:
    """Return True if any element is true; on a GPU return `on_gpu` without reading it back, to avoid a device sync."""
    return bool(condition.any()) if condition.device.type == "cpu" else on_gpu


def at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Return table[t] in the type of `like`, of shape (B, 1, …) to broadcast against it."""
    return spread(table.to(t.device, non_blocking=True)[t], like)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """Return values (B, …) in the type of `like`, with trailing dimensions appended to broadcast against it."""
    return values.to(like.dtype).reshape(*values.shape, *[1] * (like.ndim - values.ndim))
