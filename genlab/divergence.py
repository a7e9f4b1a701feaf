"""Entropy, cross entropy and the Kullback–Leibler divergence (docs/notes.md#n1-2 and #n1-3).

For distributions p and q over the same variable x:

    H(p)      = −E_p[log p(x)]                                        (1)
    H(p, q)   = −E_p[log q(x)]                        notes 1.2.1      (2)
    KL[p‖q]   = E_p[log p(x) − log q(x)] ≥ 0          notes 1.3.1      (3)
    H(p, q)   = H(p) + KL[p‖q]                                        (4)

For outcomes i the logarithm to base 2 counts bits: a code made for q spends −log₂ q_i of them on outcome i (whole numbers where
every q_i is a power of ½, else to within one bit; Shannon 1948). So H(p) is the mean length of the best code for p, H(p, q)
that of the code for q, and KL[p‖q] the difference, Σ_i p_i log(p_i/q_i): infinite as soon as q_i = 0 < p_i.

When q is fitted to p, KL[p‖q] is the forward KL (mean-seeking, zero-avoiding) and KL[q‖p] the reverse KL (mode-seeking,
zero-forcing; notes 1.3.2). For diagonal Gaussians p = N(m₁, s₁²), q = N(m₂, s₂²) every term is closed, per dimension:

    H(p)      = ½ log(2πe s₁²)                                        (5)
    KL[p‖q]   = ½ [log(s₂²/s₁²) + (s₁² + (m₁ − m₂)²)/s₂² − 1]          (6)

Densities on the line that have no closed form are tabulated at evenly spaced points and integrated by the trapezoidal rule,

    ∫ f(x) dx ≈ h Σ_i f(x_i)                                           (7)

which for smooth f that vanish at both ends is as good as exact (Trefethen & Weideman 2014). One Gaussian
q = N(m, s²) is fitted to such a p by descent on one of the two divergences, r = log q − log p:

    KL[p‖q]   ∂/∂m = (m − E_p[x])/s²         ∂/∂log s = 1 − E_p[(x − m)²]/s²                  (8)
    KL[q‖p]   ∂/∂m = E_q[r (x − m)]/s²       ∂/∂log s = E_q[r ((x − m)²/s² − 1)]              (9)

(8) vanishes only where q has the mean and the variance of p, so the result does not depend on the start. (9) may vanish near
every mode of p, and the start decides which of them q converges to. The descent follows the natural gradient (Amari 1998): the
Fisher information of N(m, s²) in (m, log s) is diag(1/s², 2), so that

    m ← m − c s² ∂/∂m,   log s ← log s − ½ c ∂/∂log s                                         (10)

does not depend on the unit of x, and near any optimum, wide or narrow, each step reduces the error of m by the factor 1 − c:
where (9) vanishes, E_q[−(log p)''] = 1/s² (integrate by parts), and that is the curvature along m. Far from it c is smaller, so
that no step exceeds a fixed length of the Fisher metric, √(Δm²/s² + 2 (Δlog s)²), or increases the divergence.

Everything is in nats, one value per sample, summed over the dimensions of x; bits only through `nats_to_bits`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def nats_to_bits(nats: Tensor) -> Tensor:
    """Return bits for nats: 1 nat = 1/ln 2 bits."""
    return nats / math.log(2)


def bits_to_nats(bits: Tensor) -> Tensor:
    """Return nats for bits: 1 bit = ln 2 nats."""
    return bits * math.log(2)


def bits_per_dim(nats: Tensor, dims: int) -> Tensor:
    """Return bits per dimension for nats per sample of `dims` values."""
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

    A log-variance of −∞ is the point mass at the mean, for which only `mean`, `std` and `sample` are defined.
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
        """Return mean + σ·noise, for standard normal noise of the shape of the sample."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log N(x; mean, σ²) in nats, (B), for x (B, …)."""
        return sum_dims(self._log_density(x))

    def _log_density(self, x: Tensor) -> Tensor:
        """Return the log-density of each value in nats, of the shape that x, mean and variance broadcast to."""
        return -0.5 * (LOG_2PI + self.log_var + (x - self.mean) ** 2 * (-self.log_var).exp())


@dataclass(frozen=True)
class Tabulated:
    """Densities on the line by their logarithms `log_density` (B, N) at N evenly spaced, rising points `x` (N); eq. 7.

    The points must cover all of the densities' mass, at distances below their scale.

    Raises:
        ValueError: the points are not evenly spaced, a logarithm is NaN or +∞, or a row does not integrate to one within 1e-4.
    """

    x: Tensor
    log_density: Tensor

    def __post_init__(self) -> None:
        if self.x.ndim != 1 or len(self.x) < 2 or self.log_density.ndim != 2 or self.log_density.shape[1] != len(self.x):
            raise ValueError(
                f"expected N points and logarithms (B, N), got {tuple(self.x.shape)} and {tuple(self.log_density.shape)}"
            )
        steps = self.x.diff()
        if not bool((steps > 0).all()) or float(steps.max() - steps.min()) > 1e-6 * float(self.x[-1] - self.x[0]):
            raise ValueError("expected evenly spaced, rising points, got others")
        if not bool((self.log_density < math.inf).all()):
            raise ValueError("expected logarithms below infinity, got some that are not")
        off = float((self.integrate(self.density.detach()) - 1).abs().max())
        if off > 1e-4:
            raise ValueError(f"expected densities that integrate to 1, got an integral that is off by {off:.2g}")

    @cached_property
    def density(self) -> Tensor:
        """Return p(x_i), (B, N)."""
        return self.log_density.exp()

    def integrate(self, values: Tensor) -> Tensor:
        """Return ∫ f dx for f (…, N) at the points, (…); eq. 7."""
        return values @ self._weights

    @cached_property
    def _weights(self) -> Tensor:
        weights = torch.full_like(self.x, float(self.x[-1] - self.x[0]) / (len(self.x) - 1))
        weights[[0, -1]] *= 0.5
        return weights

    @cached_property
    def entropy(self) -> Tensor:
        """Return H(p) in nats, (B); eq. 1."""
        return self.integrate(_times(self.density, -self.log_density))

    @cached_property
    def moments(self) -> Gaussian:
        """Return the Gaussian of the same mean and variance, (B, 1): the only minimum of KL[p‖q] over Gaussians q, eq. 8."""
        mean = self.integrate(self.density * self.x)[:, None]
        return Gaussian(mean, self.integrate(self.density * (self.x - mean) ** 2)[:, None].log())


def tabulate(q: Gaussian, x: Tensor) -> Tabulated:
    """Return Gaussians on the line, `mean` and `log_var` (B, 1), tabulated at the points x (N)."""
    return Tabulated(x, q._log_density(x))


def mixture(weight: Tensor, components: Gaussian, x: Tensor) -> Tabulated:
    """Return Σ_k w_k N(m_k, s_k²) at the points x (N), one row; weight (K) sums to one, mean and log_var are (K, 1)."""
    return Tabulated(x, (weight.log()[:, None] + components._log_density(x)).logsumexp(dim=0, keepdim=True))


Distribution = Categorical | Gaussian | Tabulated


def entropy(p: Distribution) -> Tensor:
    """Return H(p) = −E_p[log p] in nats, (B); eq. 1. For a Gaussian it is the differential entropy, eq. 5."""
    if isinstance(p, Categorical):
        return -torch.special.xlogy(p.prob, p.prob).sum(dim=1)
    if isinstance(p, Tabulated):
        return p.entropy
    return sum_dims(0.5 * (LOG_2PI + 1 + p.log_var.expand(torch.broadcast_shapes(p.mean.shape, p.log_var.shape))))


def cross_entropy(p: Distribution, q: Distribution) -> Tensor:
    """Return H(p, q) = −E_p[log q] in nats, (B); notes 1.2.1, eq. 2. Infinite where q is 0 and p is not.

    Raises:
        TypeError: p and q are not of the same family.
    """
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        return -torch.special.xlogy(p.prob, q.prob).sum(dim=1)
    if isinstance(p, Gaussian) and isinstance(q, Gaussian):
        return sum_dims(0.5 * (LOG_2PI + q.log_var + (p.variance + (p.mean - q.mean) ** 2) * (-q.log_var).exp()))
    if isinstance(p, Tabulated) and isinstance(q, Tabulated):
        return p.integrate(_times(p.density, -_at_points_of(p, q)))
    raise TypeError(f"expected two distributions of one family, got {type(p).__name__} and {type(q).__name__}")


def kl(p: Distribution, q: Distribution) -> Tensor:
    """Return KL[p‖q] in nats, (B); notes 1.3.1, eq. 3 and, for Gaussians, eq. 6. Infinite where q is 0 and p is not.

    Raises:
        TypeError: p and q are not of the same family.
    """
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        return kl_terms(p, q).sum(dim=1)
    if isinstance(p, Gaussian) and isinstance(q, Gaussian):
        gap = p.log_var - q.log_var
        return sum_dims(0.5 * (torch.expm1(gap) - gap + (p.mean - q.mean) ** 2 * (-q.log_var).exp()))
    if isinstance(p, Tabulated) and isinstance(q, Tabulated):
        return p.integrate(kl_integrand(p, q))
    raise TypeError(f"expected two distributions of one family, got {type(p).__name__} and {type(q).__name__}")


def kl_terms(p: Categorical, q: Categorical) -> Tensor:
    """Return p_i (log p_i − log q_i) of each outcome in nats, (B, K): the terms of KL[p‖q], some of which may be negative.

    0 where p_i is, infinite where q_i is 0 and p_i is not.
    """
    positive = p.prob > 0
    ratio = torch.where(positive, p.prob, 1.0).log() - torch.where(positive, q.prob, 1.0).log()
    return p.prob * ratio


def code_length(q: Categorical) -> Tensor:
    """Return −log q_i of each outcome in nats, (B, K), its length in the best code for q; infinite where q_i is 0."""
    return -q.prob.log()


def kl_integrand(p: Tabulated, q: Tabulated) -> Tensor:
    """Return p(x) [log p(x) − log q(x)] at each point, (B, N): the integrand of KL[p‖q], negative in places.

    Large where p is and q is not, 0 where p is not: KL[p‖q] makes q cover p (zero-avoiding). For KL[q‖p], with the roles
    exchanged, q must vanish where p does (zero-forcing; notes 1.3.2).
    """
    return _times(p.density, p.log_density - _at_points_of(p, q))


@dataclass(frozen=True)
class Slope:
    """The divergence between p and q = N(m, s²) and its derivatives, (B, 1) each.

    Attributes:
        value: KL[p‖q] or KL[q‖p] in nats.
        mean, log_std: its derivatives with respect to m and log s.
    """

    value: Tensor
    mean: Tensor
    log_std: Tensor


Direction = Callable[[Tabulated, Gaussian], Slope]


def forward_kl(p: Tabulated, q: Gaussian) -> Slope:
    """Return KL[p‖q] and its derivatives for q = N(m, s²), mean and log_var (B, 1); eq. 8."""
    off = q.mean - p.moments.mean
    ratio = (p.moments.variance + off**2) / q.variance
    value = 0.5 * (LOG_2PI + q.log_var + ratio) - p.entropy[:, None]
    return Slope(value, off / q.variance, 1 - ratio)


def reverse_kl(p: Tabulated, q: Gaussian) -> Slope:
    """Return KL[q‖p] and its derivatives for q = N(m, s²), mean and log_var (B, 1); eq. 9."""
    z = (p.x - q.mean) / q.std
    square = z * z
    log_q = -0.5 * (square + (LOG_2PI + q.log_var))
    r = _times(log_q.exp(), log_q - p.log_density)
    value, first, second = (p.integrate(values)[:, None] for values in (r, r * z, r * square))
    return Slope(value, first / q.std, second - value)


def fit(
    p: Tabulated,
    start: Gaussian,
    direction: Direction,
    *,
    rate: float = 0.25,
    reach: float = 0.3,
    tolerance: float = 1e-6,
    most: int = 300,
) -> Iterator[Gaussian]:
    """Fit a Gaussian q to p by descent on KL[p‖q] or KL[q‖p], eq. 10; yields the start, then q after each step.

    Args:
        p: the density to fit, one row.
        start: initial q, mean and log_var (1, 1).
        direction: `forward_kl` for KL[p‖q], `reverse_kl` for KL[q‖p].
        rate: c near the optimum, 0 < c < 2; reach: largest Fisher length of a step. Steps that would increase the divergence
            are halved.
        tolerance: the fit ends when a step at c = 1 would have a smaller Fisher length; most: maximum number of evaluations.
    """
    q, slope = start, direction(p, start)
    yield q
    shrink = 1.0
    for _ in range(most):
        length = float((q.variance * slope.mean**2 + 0.5 * slope.log_std**2).sqrt())
        if length < tolerance:
            return
        c = shrink * min(rate, reach / length)
        trial = Gaussian(q.mean - c * q.variance * slope.mean, q.log_var - c * slope.log_std)
        ahead = direction(p, trial)
        if not float(ahead.value - slope.value) <= 1e-12:  # NaN counts as an increase
            shrink *= 0.5
            continue
        q, slope, shrink = trial, ahead, 1.0
        yield q


def _times(density: Tensor, values: Tensor) -> Tensor:
    """Return density · values, 0 where the density is 0, even if the value is infinite or NaN."""
    return torch.where(density > 0, density * values, 0.0)


def _at_points_of(p: Tabulated, q: Tabulated) -> Tensor:
    """Return log q at its points, which must be those of p.

    Raises:
        ValueError: the points differ.
    """
    if not torch.equal(p.x, q.x):
        raise ValueError("expected two densities tabulated at the same points, got different ones")
    return q.log_density


def standard_normal(x: Tensor) -> Gaussian:
    """Return N(0, I) with the shape, type and device of x."""
    return Gaussian(torch.zeros_like(x), torch.zeros_like(x))
