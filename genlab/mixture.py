"""A VAE with a fitted prior: a mixture of Gaussians instead of N(0, I) (docs/notes.md#n1-4; Ghosh et al. 2020, section 4).

Training brings the codes z ~ q(z|x) of all pictures near the prior N(0, I), but not onto it, so samples from it decode to
pictures unlike any in the data. The ELBO (`vae`, eq. 3) with another prior,

    log p(x) ≥ E_q(z|x) [log p(x|z) + log p(z)] + H[q(z|x)],                                             (1)

depends on the prior through E[log p(z)] over the codes alone. With encoder and decoder fixed, the prior with the largest ELBO
is thus the one with the largest likelihood of the codes. Here it is a mixture, fitted by expectation maximisation (Dempster,
Laird & Rubin 1977):

    p(z) = Σ_k w_k N(z; m_k, C_k)                                                                        (2)
    r_ik ∝ w_k N(z_i; m_k, C_k),   w_k = mean_i r_ik,   m_k = mean of z_i,   C_k = covariance of z_i, weighted by r_ik   (3)

The two lines of (3) never lower the likelihood of the codes. A covariance is at least FLOOR · I.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genlab.config import DataSpec, Kind, MixtureConfig
from genlab.divergence import LOG_2PI, entropy
from genlab.vae import ELBO, VAE

FLOOR = 1e-4
"""Least variance of a component in any direction."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of K Gaussians of D numbers, eq. 2.

    Attributes:
        log_weight: (K) log w_k; mean: (K, D); factor: (K, D, D) lower triangular, C_k = factor · factorᵀ.
    """

    log_weight: Tensor
    mean: Tensor
    factor: Tensor

    def joint(self, z: Tensor) -> Tensor:
        """Return log w_k + log N(z; m_k, C_k), nats (B, K), for z (B, D)."""
        terms = []
        for log_weight, mean, factor in zip(self.log_weight, self.mean, self.factor, strict=True):
            scaled = torch.linalg.solve_triangular(factor, (z - mean).T, upper=False)
            log_scale = factor.diagonal().log().sum()
            terms.append(log_weight - 0.5 * ((scaled**2).sum(dim=0) + len(mean) * LOG_2PI) - log_scale)
        return torch.stack(terms, dim=1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z), nats (B), for z (B, D)."""
        return self.joint(z).logsumexp(dim=1)

    def sample(self, noise: Tensor) -> Tensor:
        """Return z (B, D) of standard normal noise (B, 1 + D): the first number chooses the component."""
        upper = self.log_weight.exp().cumsum(0) / self.log_weight.exp().sum()
        component = torch.searchsorted(upper, torch.special.ndtr(noise[:, 0])).clamp(max=len(upper) - 1)
        return self.mean[component] + (self.factor[component] @ noise[:, 1:, None]).squeeze(2)


def fit_mixture(
    z: Tensor,
    components: int,
    generator: torch.Generator,
    rounds: int = 100,
    tolerance: float = 1e-4,
    on_round: Callable[[float], object] = lambda log_likelihood: None,
) -> Mixture:
    """Return the mixture of `components` Gaussians fitted to z (N, D) by eq. 3, float64.

    It begins with every z in the component of the nearest of `components` random z, and ends when a round raises the mean
    log-likelihood by less than `tolerance` nats, or after `rounds`.

    Args:
        on_round: called after each round with the mean log-likelihood, nats.

    Raises:
        ValueError: fewer than two z for each component.
    """
    z = z.double()
    if len(z) < 2 * components:
        raise ValueError(f"expected at least {2 * components} codes for {components} components, got {len(z)}")
    centres = z[torch.randperm(len(z), generator=generator)[:components]]
    share = nn.functional.one_hot(torch.cdist(z, centres).argmin(dim=1), components).double()
    before = -math.inf
    for _ in range(rounds):
        mixture = _maximise(z, share)
        joint = mixture.joint(z)
        total = joint.logsumexp(dim=1)
        share, mean = (joint - total[:, None]).exp(), float(total.mean())
        on_round(mean)
        if mean - before < tolerance:
            break
        before = mean
    return mixture


def _maximise(z: Tensor, share: Tensor) -> Mixture:
    """Return the mixture with the largest expected likelihood of z (N, D), given r_ik (N, K)."""
    weight = share.sum(dim=0).clamp(min=1e-9)
    mean = share.T @ z / weight[:, None]
    floor = FLOOR * torch.eye(z.shape[1], dtype=z.dtype)
    factors = []
    for k in range(len(weight)):
        centred = z - mean[k]
        factors.append(torch.linalg.cholesky((share[:, k, None] * centred).T @ centred / weight[k] + floor))
    return Mixture((weight / len(z)).log(), mean, torch.stack(factors))


class MixtureVAE(nn.Module):
    """A VAE of pictures in [−1, 1] whose prior is a mixture of Gaussians.

    Raises:
        ValueError: see `VAE`.
    """

    kind: Kind = "mixture-vae"

    def __init__(self, config: MixtureConfig, data: DataSpec) -> None:
        super().__init__()
        self.config = config
        self.data = data
        self.vae = VAE(config.vae, data)
        K, D = config.components, config.vae.latents
        self.log_weight = nn.Parameter(torch.full((K,), -math.log(K)), requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(K, D), requires_grad=False)
        self.factor = nn.Parameter(torch.eye(D).repeat(K, 1, 1), requires_grad=False)

    @property
    def prior(self) -> Mixture:
        """Return p(z)."""
        return Mixture(self.log_weight, self.mean, self.factor)

    def set_prior(self, mixture: Mixture) -> None:
        """Set p(z)."""
        for name in ("log_weight", "mean", "factor"):
            getattr(self, name).data.copy_(getattr(mixture, name))

    def elbo(self, x: Tensor, noise: Tensor, discretised: bool = False) -> ELBO:
        """Return the terms of eq. 1 with one z = mean + σ·noise of each picture; `kl` is −H[q] − log p(z).

        Args:
            x: (B C H W); noise: (B, D) standard normal; discretised: as in `VAE.elbo`.
        """
        q = self.vae.encode(x)
        z = q.sample(noise)
        return ELBO(self.vae.log_likelihood(z, x, discretised), -entropy(q) - self.prior.log_prob(z))
