"""The forward and the reverse process of a diffusion model, step by step (docs/notes.md#n1-5).

    q(x_t|x_{t−1})     = N(√α_t x_{t−1}, β_t I)                                                     (1)
    q(x_t|x_0)         = N(√ᾱ_t x_0, (1 − ᾱ_t) I)                                                   (2)
    q(x_{t−1}|x_t,x_0) = N(μ̃_t, β̃_t I)                                                             (3)
        μ̃_t = √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) x_t + √ᾱ_{t−1} β_t/(1 − ᾱ_t) x_0
        β̃_t = (1 − ᾱ_{t−1})/(1 − ᾱ_t) β_t
    p_θ(x_{t−1}|x_t)   = N(μ_θ(x_t,t), Σ_θ(x_t,t)),  μ_θ = μ̃_t(x_t, x̂_0)                            (4)
    Σ_θ: β̃_t, β_t, or exp(w log β_t + (1 − w) log β̃_t) with w from the network                      (5)

(5) is Nichol & Dhariwal 2021, eq. 15. The notes write q(x_t|x_{t−1}) = q(x_t|x_{0:t−1}) = q(x_t|x_0); the first equality is the
Markov property, the second does not hold: (1) and (2) have different means and variances, and are two functions here.

(3) is the product of two Gaussians in x_{t−1}, one from (1) and one from (2), a shorter way than the notes' ratio of densities:
precisions add, α_t/β_t + 1/(1 − ᾱ_{t−1}) = 1/β̃_t, and the mean is the precision-weighted one. The same holds between any two
times s < t with α_{t|s} = ᾱ_t/ᾱ_s and β_{t|s} = 1 − α_{t|s} in the place of α_t and β_t, which gives the
steps along a subsequence of the times. Functions take s, by default t − 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.config import Variance
from genlab.divergence import Gaussian
from genlab.schedule import Schedule, any_true, at, spread


@dataclass(frozen=True)
class Denoised:
    """What a model predicts from x_t, each (B C H W).

    Attributes:
        eps_hat, x0_hat: the noise ε̂ and the picture x̂_0.
        fraction: w of eq. 5, where log Σ lies between log β̃ (0) and log β (1); None where Σ is not learned.
    """

    eps_hat: Tensor
    x0_hat: Tensor
    fraction: Tensor | None


Predict = Callable[[Tensor, Tensor], Denoised]
"""The prediction function of a model with its options fixed: x_t (B C H W), t (B) → prediction."""


def q_step(schedule: Schedule, x_s: Tensor, t: Tensor, s: Tensor | None = None) -> Gaussian:
    """Return q(x_t|x_s), eq. 1 with α_{t|s} and β_{t|s}: from s to t > s along the forward chain, by default from t − 1.

    x_s (B, …), t (B) in 1…T, s (B) in 0…t − 1.
    """
    alpha_bar_t, alpha_bar_s, beta = _between(schedule, t, t - 1 if s is None else s)
    root = spread((alpha_bar_t / alpha_bar_s).sqrt(), x_s)
    return Gaussian(root * x_s, spread(beta.log(), x_s).expand_as(x_s))


def q_marginal(schedule: Schedule, x0: Tensor, t: Tensor) -> Gaussian:
    """Return q(x_t|x_0), eq. 2: any number of forward steps at once. x0 (B, …), t (B) in 0…T; a point mass at t = 0."""
    schedule.check(t, lowest=0)
    log_var = at((1 - schedule.alpha_bar).log(), t, x0)
    return Gaussian(at(schedule.alpha_bar.sqrt(), t, x0) * x0, log_var.expand_as(x0))


def q_posterior(schedule: Schedule, x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor | None = None) -> Gaussian:
    """Return q(x_s|x_t,x_0), eq. 3, for 0 ≤ s < t; s = t − 1 by default. A point mass at x_0 for s = 0."""
    s = t - 1 if s is None else s
    alpha_bar_t, alpha_bar_s, beta = _between(schedule, t, s)
    from_x_t = (alpha_bar_t / alpha_bar_s).sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    from_x0 = alpha_bar_s.sqrt() * beta / (1 - alpha_bar_t)
    mean = spread(from_x_t, x_t) * x_t + spread(from_x0, x_t) * x0
    log_var = (beta * (1 - alpha_bar_s) / (1 - alpha_bar_t)).log()
    return Gaussian(mean, spread(log_var, x_t).expand_as(x_t))


def reverse_log_var(
    schedule: Schedule, variance: Variance, t: Tensor, s: Tensor | None = None, fraction: Tensor | None = None
) -> Tensor:
    """Return log Σ of the reverse step from t to s, eq. 5, float64.

    β̃ vanishes for s = 0, where p_θ still needs a density: β̃_2 replaces it there (Nichol & Dhariwal 2021).

    Args:
        t, s: (B), 0 ≤ s < t; s = t − 1 by default.
        fraction: (B, …) the network's w in [0, 1], for the learned variance.

    Returns:
        (B) for the fixed variances, the shape of `fraction` for the learned one.

    Raises:
        ValueError: the learned variance without `fraction`.
    """
    s = t - 1 if s is None else s
    alpha_bar_t, alpha_bar_s, beta = _between(schedule, t, s)
    if variance == "beta":
        return beta.log()
    beta_tilde_2 = schedule.beta[2] * (1 - schedule.alpha_bar[1]) / (1 - schedule.alpha_bar[2])
    posterior = torch.where(
        s == 0, beta_tilde_2.to(t.device, non_blocking=True), beta * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    ).log()
    if variance == "posterior":
        return posterior
    if fraction is None:
        raise ValueError("expected the network's fraction for the learned variance, got none: the model has no Σ output")
    w = fraction.double()
    return w * spread(beta.log(), w) + (1 - w) * spread(posterior, w)


def p_reverse(
    schedule: Schedule,
    x_t: Tensor,
    x0_hat: Tensor,
    t: Tensor,
    s: Tensor | None = None,
    variance: Variance = "posterior",
    fraction: Tensor | None = None,
) -> Gaussian:
    """Return p_θ(x_s|x_t), eq. 4, from the prediction x̂_0 (B, …); s = t − 1 by default."""
    log_var = reverse_log_var(schedule, variance, t, s, fraction)
    return Gaussian(q_posterior(schedule, x_t, x0_hat, t, s).mean, spread(log_var, x_t).expand_as(x_t))


def x0_from_eps(schedule: Schedule, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Return x_0 = (x_t − √(1−ᾱ_t) ε) / √ᾱ_t, from eq. 2."""
    return (x_t - at((1 - schedule.alpha_bar).sqrt(), t, x_t) * eps) / at(schedule.alpha_bar.sqrt(), t, x_t)


def eps_from_x0(schedule: Schedule, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """Return ε = (x_t − √ᾱ_t x_0) / √(1−ᾱ_t), from eq. 2."""
    return (x_t - at(schedule.alpha_bar.sqrt(), t, x_t) * x0) / at((1 - schedule.alpha_bar).sqrt(), t, x_t)


def v_from_eps(schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Return v = √ᾱ_t ε − √(1−ᾱ_t) x_0 (Salimans & Ho 2022, section 4)."""
    return at(schedule.alpha_bar.sqrt(), t, x0) * eps - at((1 - schedule.alpha_bar).sqrt(), t, x0) * x0


def eps_from_v(schedule: Schedule, x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """Return ε = √(1−ᾱ_t) x_t + √ᾱ_t v: (√ᾱ_t, √(1−ᾱ_t)) is a rotation that takes (x_0, ε) to (x_t, v)."""
    return at((1 - schedule.alpha_bar).sqrt(), t, x_t) * x_t + at(schedule.alpha_bar.sqrt(), t, x_t) * v


def x0_from_v(schedule: Schedule, x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """Return x_0 = √ᾱ_t x_t − √(1−ᾱ_t) v, the other half of the rotation."""
    return at(schedule.alpha_bar.sqrt(), t, x_t) * x_t - at((1 - schedule.alpha_bar).sqrt(), t, x_t) * v


def grid_eps(schedule: Schedule, x_t: Tensor, t: Tensor, spacings: Sequence[int]) -> Tensor:
    """Return E[ε|x_t] for x_0 whose values are independent and uniform on −1 + kΔ; Δ = spacing · 2/255, for K spacings.

    The result is (B, K, …) for x_t (B, …), differentiable in x_t except where it is clamped.

    In units where x_0 is on the grid, y = x_t/√ᾱ_t + 1 has noise √ν ε, ν = (1 − ᾱ_t)/ᾱ_t. By Tweedie's formula and Poisson
    summation of Σ_k N(y; kΔ, ν), with z = 2πy/Δ and r = exp(−2π²ν/Δ²),

        E[ε|x_t] = −√ν ∂_y log Σ_k N(y; kΔ, ν) = 4π (√ν/Δ) Σ_m m r^{m²} sin(mz) / (1 + 2 Σ_m r^{m²} cos(mz)),  m = 1, 2, …

    Six terms are enough, to 1e-6, from √ν = 0.15 Δ on; below, only the two nearest points count. Clamped to ±4: if a
    value is not on the grid, the noise that would move it there is unbounded.
    """
    delta = torch.tensor(spacings, dtype=torch.float64) * 2 / 255
    delta = spread(delta.to(x_t.device, non_blocking=True), x_t)
    x_t = x_t[:, None]
    root = at(schedule.snr**-0.5, t, x_t)
    y = x_t / at(schedule.alpha_bar.sqrt(), t, x_t) + 1
    y = y - delta * (y / delta).round()
    z, r = 2 * math.pi / delta * y, (-2 * (math.pi / delta * root) ** 2).exp()
    sine, cosine = z.sin(), z.cos()
    above, below = r * sine, 1 + 2 * r * cosine
    sines, cosines = (torch.zeros_like(z), sine), (torch.ones_like(z), cosine)  # of (m − 1)z and mz
    for m in range(2, 7):
        sines = sines[1], 2 * cosine * sines[1] - sines[0]
        cosines = cosines[1], 2 * cosine * cosines[1] - cosines[0]
        above, below = above + m * r**m**2 * sines[1], below + 2 * r**m**2 * cosines[1]
    other = delta * y.sign() * torch.sigmoid(delta * (y.abs() - delta / 2) / root**2)
    fine = root < 0.15 * delta
    below = torch.where(fine, 1, below)  # avoids a NaN gradient from a zero in the unused branch
    return torch.where(fine, (y - other) / root, 4 * math.pi / delta * root * above / below).clamp(-4, 4)


def _between(schedule: Schedule, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ᾱ_t, ᾱ_s and β_{t|s} = 1 − ᾱ_t/ᾱ_s, (B) float64 each; β_t itself, unrounded, for s = t − 1.

    Raises:
        ValueError: a t is outside 1…T, or an s outside 0…t − 1.
    """
    schedule.check(t)
    if any_true(s < 0) or any_true(s >= t):
        raise ValueError(f"expected 0 ≤ s < t, got s = {s.tolist()[:8]} for t = {t.tolist()[:8]}")
    alpha_bar, betas = (table.to(t.device, non_blocking=True) for table in (schedule.alpha_bar, schedule.beta))
    ratio = 1 - alpha_bar[t] / alpha_bar[s]
    return alpha_bar[t], alpha_bar[s], torch.where(s == t - 1, betas[t], ratio)
