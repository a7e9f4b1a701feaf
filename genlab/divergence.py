"""Entropy, cross entropy and the Kullback–Leibler divergence (notes 1.2 and 1.3).

For distributions p and q over the same variable x:

    H(p)      = −E_p[log p(x)]                                        (1)
    H(p, q)   = −E_p[log q(x)]                        notes 1.2.1      (2)
    KL[p‖q]   = E_p[log p(x) − log q(x)] ≥ 0          notes 1.3.1      (3)
    H(p, q)   = H(p) + KL[p‖q]                                        (4)

Fitting q to p, KL[p‖q] is the forward direction (mean-seeking, zero-avoiding) and KL[q‖p] the reverse one (mode-seeking,
zero-forcing; notes 1.3.2). For diagonal Gaussians p = N(m₁, s₁²), q = N(m₂, s₂²) every term is closed, per dimension:

    H(p)      = ½ log(2πe s₁²)                                        (5)
    KL[p‖q]   = ½ [log(s₂²/s₁²) + (s₁² + (m₁ − m₂)²)/s₂² − 1]          (6)

Everything is in nats, one value per sample, summed over the dimensions of x; bits only through `nats_to_bits`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def nats_to_bits(nats: Tensor) -> Tensor:
    """1 nat = 1/ln 2 bits."""
    return nats / math.log(2)


def bits_to_nats(bits: Tensor) -> Tensor:
    """1 bit = ln 2 nats."""
    return bits * math.log(2)


def bits_per_dim(nats: Tensor, dims: int) -> Tensor:
    """Nats per sample as bits per dimension, for samples of `dims` values each."""
    return nats_to_bits(nats) / dims


def sum_dims(values: Tensor) -> Tensor:
    """Sum over every dimension but the first: (B, …) → (B)."""
    return values.reshape(values.shape[0], -1).sum(dim=1)


@dataclass(frozen=True)
class Categorical:
    """A distribution over K outcomes, `prob` (B, K) ≥ 0 with rows that sum to one.

    Raises:
        ValueError: a probability is negative or not finite, or a row does not sum to one within 1e-4.
    """

    prob: Tensor

    def __post_init__(self) -> None:
        if self.prob.ndim != 2:
            raise ValueError(f"expected probabilities of shape (B, K), got {tuple(self.prob.shape)}")
        if not bool(torch.isfinite(self.prob).all()) or bool((self.prob < 0).any()):
            raise ValueError("expected finite probabilities ≥ 0, got some that are negative or not finite")
        off = float((self.prob.detach().sum(dim=1) - 1).abs().max())
        if off > 1e-4:
            raise ValueError(f"expected probabilities that sum to 1, got a sum that is off by {off:.2g}")


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian with diagonal covariance: `mean` and `log_var` = log σ², broadcastable to one shape (B, …).

    A log-variance of −∞ is the point mass at the mean; only `mean`, `std` and `sample` mean something for it.
    """

    mean: Tensor
    log_var: Tensor

    @property
    def variance(self) -> Tensor:
        return self.log_var.exp()

    @property
    def std(self) -> Tensor:
        return (0.5 * self.log_var).exp()

    def sample(self, noise: Tensor) -> Tensor:
        """mean + σ·noise, for standard normal noise of the shape of the sample."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mean, σ²) in nats, (B, …) → (B)."""
        return sum_dims(-0.5 * (LOG_2PI + self.log_var + (x - self.mean) ** 2 * (-self.log_var).exp()))


Distribution = Categorical | Gaussian


def entropy(p: Distribution) -> Tensor:
    """H(p) = −E_p[log p] in nats, (B); eq. 1. For a Gaussian it is the differential entropy, eq. 5."""
    if isinstance(p, Categorical):
        return -torch.special.xlogy(p.prob, p.prob).sum(dim=1)
    return sum_dims(0.5 * (LOG_2PI + 1 + p.log_var.expand(torch.broadcast_shapes(p.mean.shape, p.log_var.shape))))


def cross_entropy(p: Distribution, q: Distribution) -> Tensor:
    """H(p, q) = −E_p[log q] in nats, (B); notes 1.2.1, eq. 2. Infinite where q is 0 and p is not.

    Raises:
        TypeError: p and q are not of the same family.
    """
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        return -torch.special.xlogy(p.prob, q.prob).sum(dim=1)
    if isinstance(p, Gaussian) and isinstance(q, Gaussian):
        return sum_dims(0.5 * (LOG_2PI + q.log_var + (p.variance + (p.mean - q.mean) ** 2) * (-q.log_var).exp()))
    raise TypeError(f"expected two distributions of one family, got {type(p).__name__} and {type(q).__name__}")


def kl(p: Distribution, q: Distribution) -> Tensor:
    """KL[p‖q] in nats, (B); notes 1.3.1, eq. 3 and, for Gaussians, eq. 6. Infinite where q is 0 and p is not.

    Raises:
        TypeError: p and q are not of the same family.
    """
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        positive = p.prob > 0
        ratio = torch.where(positive, p.prob, 1.0).log() - torch.where(positive, q.prob, 1.0).log()
        return (p.prob * ratio).sum(dim=1)
    if isinstance(p, Gaussian) and isinstance(q, Gaussian):
        gap = p.log_var - q.log_var
        return sum_dims(0.5 * (torch.expm1(gap) - gap + (p.mean - q.mean) ** 2 * (-q.log_var).exp()))
    raise TypeError(f"expected two distributions of one family, got {type(p).__name__} and {type(q).__name__}")


def standard_normal(x: Tensor) -> Gaussian:
    """N(0, I) of the shape, type and device of x."""
    return Gaussian(torch.zeros_like(x), torch.zeros_like(x))
