"""Exact answers: data whose diffusion, and a VAE whose evidence, are known in closed form.

For data q(x_0) the forward process makes q(x_t) = ∫ q(x_0) N(x_t; √ᾱ_t x_0, (1 − ᾱ_t) I) dx_0. Where that integral is closed,
so is the score s = ∇ log q(x_t), and the predictions of a perfect network follow from it (Tweedie's formula; Efron 2011):

    E[ε|x_t]   = −√(1 − ᾱ_t) s                                                                   (1)
    E[x_0|x_t] = (x_t + (1 − ᾱ_t) s) / √ᾱ_t                                                      (2)

Three families of data are closed:

    Gaussian   q(x_0) = N(m, C)             q(x_t) = N(√ᾱ_t m, ᾱ_t C + (1 − ᾱ_t) I)               (3)
    mixture    q(x_0) = Σ_k w_k N(m_k, v_k)  q(x_t) = Σ_k w_k N(√ᾱ_t m_k, ᾱ_t v_k + 1 − ᾱ_t)       (4)
    data set   q(x_0) = 1/N Σ_i δ(x_0 − x_i) q(x_t) = 1/N Σ_i N(√ᾱ_t x_i, (1 − ᾱ_t) I)             (5)

(5) is what a network of unlimited capacity would learn from the pictures x_i: its E[x_0|x_t] is their mean, weighted by a
softmax over the distances from x_t to √ᾱ_t x_i, and its samples are the pictures themselves. The VAE is linear: its evidence
and its true posterior are Gaussian, so the ELBO can reach log p(x) (`LinearGaussianVAE`).

Everything is computed in float64 and returned in the type of the argument; log-densities are nats per sample, (B).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genlab.divergence import LOG_2PI, Gaussian, kl, standard_normal, sum_dims
from genlab.process import Denoised, q_posterior
from genlab.schedule import Schedule, at


@dataclass(frozen=True)
class Oracle(ABC):
    """Data with q(x_t) in closed form at every t of a schedule; `predict` replaces that of a model."""

    schedule: Schedule

    @abstractmethod
    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return log q(x_t) in nats, (B), for x_t (B, …) at t (B)."""

    @abstractmethod
    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return ∇ log q(x_t) with respect to x_t, of the shape of x_t (B, …), for t (B)."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` draws of x_0, (count, …) float64."""

    def predict(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return the prediction of a perfect network for x_t (B, …) at t (B) in 1…T: E[ε|x_t], eq. 1, and E[x_0|x_t], eq. 2."""
        x = x_t.double()
        score, alpha_bar = self.score(x, t), at(self.schedule.alpha_bar, t, x)
        eps_hat, x0_hat = -(1 - alpha_bar).sqrt() * score, (x + (1 - alpha_bar) * score) / alpha_bar.sqrt()
        return Denoised(eps_hat.to(x_t.dtype), x0_hat.to(x_t.dtype), None)


@dataclass(frozen=True)
class GaussianData(Oracle):
    """x_0 ~ N(m, C), eq. 3.

    Args:
        mean: (…) m.
        covariance: C; of the shape of the mean if diagonal, else (D, D) for the D values of the mean in order.

    Raises:
        ValueError: the covariance has another shape, or a negative eigenvalue.
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        if self.covariance.shape not in (self.mean.shape, (self.mean.numel(), self.mean.numel())):
            raise ValueError(
                f"expected a covariance of shape {tuple(self.mean.shape)} or D × D for D = {self.mean.numel()}, "
                f"got {tuple(self.covariance.shape)}"
            )
        if bool((self._axes[0] < -1e-12).any()):
            raise ValueError(f"expected a covariance with variances ≥ 0, got {float(self._axes[0].min()):g} in one direction")

    @classmethod
    def standard(cls, schedule: Schedule, shape: tuple[int, ...]) -> GaussianData:
        """Return N(0, I): every q(x_t) is N(0, I), the score is −x_t, and the exact reverse step is N(√α_t x_t, β_t I)."""
        return cls(schedule, torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64))

    @property
    def diagonal(self) -> bool:
        """Return True if the covariance is diagonal."""
        return self.covariance.shape == self.mean.shape

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """Return the eigenvalues (D) of C and its eigenvectors, the columns of (D, D)."""
        covariance = self.covariance.double()
        if self.diagonal:
            return covariance.flatten(), torch.eye(covariance.numel(), dtype=torch.float64)
        variance, axes = torch.linalg.eigh(covariance)
        return variance, axes

    def _along_axes(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_t − √ᾱ_t m and the variance of x_t, both (B, D), along the eigenvectors of C."""
        variance, axes = self._axes
        flat = x_t.double().flatten(1)
        alpha_bar = at(self.schedule.alpha_bar, t, flat)
        centred = flat - alpha_bar.sqrt() * self.mean.double().flatten()
        return centred if self.diagonal else centred @ axes, alpha_bar * variance + 1 - alpha_bar

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        centred, variance = self._along_axes(x_t, t)
        return Gaussian(torch.zeros_like(centred), variance.log()).log_prob(centred).to(x_t.dtype)

    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        centred, variance = self._along_axes(x_t, t)
        score = -centred / variance
        return (score if self.diagonal else score @ self._axes[1].T).reshape(x_t.shape).to(x_t.dtype)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        variance, axes = self._axes
        noise = torch.randn(count, self.mean.numel(), generator=generator, dtype=torch.float64) * variance.clamp(min=0).sqrt()
        return self.mean.double() + (noise if self.diagonal else noise @ axes.T).reshape(count, *self.mean.shape)

    def reverse(self, x_t: Tensor, t: Tensor, s: Tensor | None = None) -> Gaussian:
        """Return the exact q(x_s|x_t) for any s < t; by default s = t − 1.

        q(x_s|x_t,x_0) = N(a x_t + b x_0, σ² I) averaged over q(x_0|x_t) has the mean a x_t + b E[x_0|x_t] and the variance
        σ² + b² Var[x_0|x_t].

        Raises:
            ValueError: the covariance of the data is not diagonal, and so that of q(x_s|x_t) is not either.
        """
        if not self.diagonal:
            raise ValueError(f"expected data with a diagonal covariance, got one of shape {tuple(self.covariance.shape)}")
        x = x_t.double()
        posterior = q_posterior(self.schedule, x, self.predict(x, t).x0_hat, t, s)
        from_x0 = q_posterior(self.schedule, torch.zeros_like(x), torch.ones_like(x), t, s).mean
        alpha_bar, variance = at(self.schedule.alpha_bar, t, x), self.covariance.double()
        remaining = variance * (1 - alpha_bar) / (alpha_bar * variance + 1 - alpha_bar)
        return Gaussian(posterior.mean.to(x_t.dtype), (posterior.variance + from_x0**2 * remaining).log().to(x_t.dtype))


@dataclass(frozen=True)
class Mixture(Oracle):
    """x_0 from a mixture of K Gaussians, eq. 4.

    Args:
        weight: (K) w_k > 0 that sum to one.
        mean: (K, …) m_k.
        variance: v_k, (K, …) along each dimension, or (K, 1, …) the same along all.

    Raises:
        ValueError: the weights are not K positive numbers that sum to one within 1e-6, or a variance is negative.
    """

    weight: Tensor
    mean: Tensor
    variance: Tensor

    def __post_init__(self) -> None:
        K = len(self.mean)
        if self.weight.shape != (K,) or bool((self.weight <= 0).any()) or abs(float(self.weight.sum()) - 1) > 1e-6:
            raise ValueError(f"expected {K} weights > 0 that sum to 1, got {self.weight.tolist()[:8]}")
        if len(self.variance) != K or self.variance.ndim != self.mean.ndim or bool((self.variance < 0).any()):
            raise ValueError(f"expected {K} variances ≥ 0 that fit the means, got {tuple(self.variance.shape)}")

    def _components(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return log w_k N(x_t; …), (B, K), and its gradient with respect to x_t, (B, K, …)."""
        x = x_t.double()[:, None]
        alpha_bar = at(self.schedule.alpha_bar, t, x)
        away = alpha_bar.sqrt() * self.mean.double() - x
        variance = alpha_bar * self.variance.double() + 1 - alpha_bar
        gradient = away / variance
        log_density = -0.5 * (LOG_2PI + variance.log() + away * gradient)
        return self.weight.double().log() + log_density.flatten(2).sum(dim=2), gradient

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self._components(x_t, t)[0].logsumexp(dim=1).to(x_t.dtype)

    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        log_joint, gradient = self._components(x_t, t)
        return torch.einsum("bk,bk...->b...", log_joint.softmax(dim=1), gradient).to(x_t.dtype)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        k = torch.multinomial(self.weight.double(), count, replacement=True, generator=generator)
        noise = torch.randn(count, *self.mean.shape[1:], generator=generator, dtype=torch.float64)
        return self.mean.double()[k] + self.variance.double().sqrt()[k] * noise


@dataclass(frozen=True)
class DataSetOracle(Oracle):
    """x_0 is one of N given pictures, each as likely as the others, eq. 5.

    Args:
        pictures: (N, …) in the model's scale, [−1, 1].
    """

    pictures: Tensor

    def __post_init__(self) -> None:
        _ = self._energy  # computed here: tensors first made in inference mode could not be used in a gradient

    @cached_property
    def _flat(self) -> Tensor:
        """Return the pictures as (N, D) float64."""
        return self.pictures.double().flatten(1)

    @cached_property
    def _energy(self) -> Tensor:
        """Return ½ |x_i|², (N)."""
        return 0.5 * (self._flat**2).sum(dim=1)

    def _exponent(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return (√ᾱ x_t·x_i − ½ ᾱ |x_i|²)/(1 − ᾱ), (B, N): log N(x_t; √ᾱ_t x_i, (1 − ᾱ_t) I) up to terms without i."""
        flat = x_t.double().flatten(1)
        alpha_bar = at(self.schedule.alpha_bar, t, flat)
        return (alpha_bar.sqrt() * (flat @ self._flat.T) - alpha_bar * self._energy) / (1 - alpha_bar)

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        x = x_t.double()
        same = Gaussian(torch.zeros_like(x), at((1 - self.schedule.alpha_bar).log(), t, x)).log_prob(x)
        return (same + self._exponent(x, t).logsumexp(dim=1) - math.log(len(self.pictures))).to(x_t.dtype)

    def weights(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the probability that x_t came from each picture, (B, N); t in 1…T."""
        return self._exponent(x_t, t).softmax(dim=1).to(x_t.dtype)

    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        x = x_t.double()
        alpha_bar = at(self.schedule.alpha_bar, t, x)
        x0_hat = (self.weights(x, t) @ self._flat).reshape(x.shape)
        return ((alpha_bar.sqrt() * x0_hat - x) / (1 - alpha_bar)).to(x_t.dtype)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return self.pictures.double()[torch.randint(len(self.pictures), (count,), generator=generator)]


@dataclass(frozen=True)
class LinearGaussianVAE:
    """The VAE with a linear decoder (probabilistic PCA; Tipping & Bishop 1999), for x (B, D) and z (B, M).

        p(z) = N(0, I),  p(x|z) = N(W z + μ, σ² I)                                              (6)
        p(x) = N(μ, W Wᵀ + σ² I)                                                                (7)
        p(z_j|x) = N(w_j·(x − μ) / (|w_j|² + σ²), σ² / (|w_j|² + σ²)), the z_j independent        (8)

    (8) needs orthogonal columns w_j; any W can be brought to this form by a rotation of z, which does not change p(x).

    Args:
        weight: (D, M) W, M < D.
        mean: (D) μ.
        variance: σ² > 0.

    Raises:
        ValueError: the columns of W are not orthogonal, or not fewer than its rows; σ² is not positive.
    """

    weight: Tensor
    mean: Tensor
    variance: float

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.weight.shape[1] >= self.weight.shape[0]:
            raise ValueError(f"expected W with fewer columns than rows, got shape {tuple(self.weight.shape)}")
        gram = self.weight.T @ self.weight
        if float((gram - gram.diag().diag()).abs().max()) > 1e-8 * max(float(gram.abs().max()), 1.0):
            raise ValueError("expected W with orthogonal columns, got some that are not")
        if not self.variance > 0:
            raise ValueError(f"expected σ² > 0, got {self.variance}")
        _ = self._total  # see `DataSetOracle`

    @classmethod
    def fit(cls, x: Tensor, latent: int) -> LinearGaussianVAE:
        """Fit W, μ and σ² to samples x (N, D): the maximum of Σ log p(x).

        μ is their mean, σ² the mean of the D − M smallest eigenvalues of their covariance, and w_j = √(λ_j − σ²) u_j with the
        M largest eigenvalues and their eigenvectors (Tipping & Bishop 1999, section 3.2).
        """
        x = x.double()
        mean = x.mean(dim=0)
        eigenvalue, axes = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        variance = float(eigenvalue[: len(eigenvalue) - latent].mean())
        largest = slice(len(eigenvalue) - latent, None)
        return cls(axes[:, largest] * (eigenvalue[largest] - variance).clamp(min=0).sqrt(), mean, variance)

    @cached_property
    def _total(self) -> Tensor:
        """Return |w_j|² + σ², (M): the variances of x along the columns of W."""
        return (self.weight**2).sum(dim=0) + self.variance

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return log p(x), eq. 7, nats (B)."""
        D, M = self.weight.shape
        centred = x - self.mean
        log_det = self._total.log().sum() + (D - M) * math.log(self.variance)
        inside = ((centred @ self.weight) ** 2 / self._total).sum(dim=1)
        return -0.5 * (D * LOG_2PI + log_det + (sum_dims(centred**2) - inside) / self.variance)

    def posterior(self, x: Tensor) -> Gaussian:
        """Return p(z|x), eq. 8, (B, M)."""
        mean = (x - self.mean) @ self.weight / self._total
        return Gaussian(mean, (self.variance / self._total).log().expand_as(mean))

    def decode(self, z: Tensor) -> Gaussian:
        """Return p(x|z), eq. 6, (B, D)."""
        mean = z @ self.weight.T + self.mean
        return Gaussian(mean, torch.full_like(mean, math.log(self.variance)))

    def elbo(self, x: Tensor, q: Gaussian) -> Tensor:
        """Return E_q[log p(x|z)] − KL[q(z|x) ‖ p(z)] for any q (B, M), in closed form, nats (B)."""
        spread = (q.variance * (self._total - self.variance)).sum(dim=1) / self.variance
        return self.decode(q.mean).log_prob(x) - 0.5 * spread - kl(q, standard_normal(q.mean))
