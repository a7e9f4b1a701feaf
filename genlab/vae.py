"""The variational autoencoder (notes 1.4; Kingma & Welling 2014).

    p(x)       = ∫ p(z) p(x|z) dz,   p(z) = N(0, I),   p(x|z) = N(μ(z), σ²(z))                     (1)
    log p(x)   = E_q(z|x)[log p(x|z)] − KL[q(z|x) ‖ p(z)] + KL[q(z|x) ‖ p(z|x)]                    (2)
    ELBO       = E_q(z|x)[log p(x|z)] − KL[q(z|x) ‖ p(z)]  ≤  log p(x)                             (3)
    L_k        = E[log 1/k Σ_i p(x, z_i)/q(z_i|x)],  z_i ~ q(z|x);  ELBO = L_1 ≤ L_k ≤ log p(x)    (4)

(4) is Burda et al. 2016. The notes say that log p(x) may fall when KL[q(z|x)‖p(z|x)] falls while p(x|z) is being improved.
By (2) log p(x) changes by the change of the ELBO plus the change of that KL, and the latter is at least −(its old value).

Three distributions make a VAE: the encoder q(z|x), the prior p(z), and the decoder p(x|z), which is a Gaussian with one σ
learned for all pixels (the calibrated decoder of Rybkin et al. 2021), a Gaussian with σ(z) for every pixel, or, for binarised
pictures, Bernoulli. All results are nats per picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from genlab.config import DataSpec, VAEConfig
from genlab.divergence import Gaussian, kl, standard_normal, sum_dims
from genlab.nn import PictureDecoder, PictureEncoder
from genlab.vlb import discretised_log_prob

if TYPE_CHECKING:
    from pathlib import Path

LOWEST_LOG_VAR = -10.0
"""Floor of the decoder's log σ²: σ of a little under one gray level (2/255) in the [−1, 1] scale."""


def floored(log_var: Tensor) -> Tensor:
    """A learned log σ², not below the floor; its gradient goes on there, so that one step too far can be taken back."""
    return log_var + (log_var.clamp(min=LOWEST_LOG_VAR) - log_var).detach()


@dataclass(frozen=True)
class Bernoulli:
    """p(x|z) of a binarised picture: `logits` of the pixel being light (B C H W)."""

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """E[x] in the [−1, 1] scale, 2p − 1."""
        return torch.tanh(self.logits / 2)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (B), for x of −1 and 1."""
        return sum_dims(F.logsigmoid(x * self.logits))


@dataclass(frozen=True)
class ELBO:
    """The two terms of eq. 3 for a batch, nats (B) each."""

    reconstruction: Tensor
    """E_q[log p(x|z)], by one z."""
    kl: Tensor
    """KL[q(z|x) ‖ p(z)], exact."""

    @property
    def total(self) -> Tensor:
        """The ELBO, (B): larger is better."""
        return self.reconstruction - self.kl


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log 1/k Σ_i exp(w_i) along the first dimension, (k, …) → (…)."""
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))


class VAE(nn.Module):
    """A variational autoencoder of pictures in [−1, 1].

    Raises:
        ValueError: the picture side cannot be halved down to 8 or fewer pixels.
    """

    kind = "vae"

    def __init__(self, config: VAEConfig, data: DataSpec) -> None:
        super().__init__()
        self.config = config
        self.data = data
        per_pixel = config.likelihood == "gaussian-per-pixel"
        self.encoder = PictureEncoder(data.channels, data.size, config.width, config.hidden, 2 * config.latent)
        self.decoder = PictureDecoder(
            config.latent, config.hidden, config.width, data.size, data.channels * (2 if per_pixel else 1)
        )
        self.log_var = nn.Parameter(torch.tensor(-3.0)) if config.likelihood == "gaussian" else None

    @property
    def binary(self) -> bool:
        """Whether the model is one of binarised pictures."""
        return self.config.likelihood == "bernoulli"

    def encode(self, x: Tensor) -> Gaussian:
        """q(z|x), (B, latent), of x (B C H W)."""
        mean, log_var = self.encoder(x).to(x.dtype).chunk(2, dim=1)
        return Gaussian(mean, log_var.clamp(-20, 20))

    def decode(self, z: Tensor) -> Gaussian | Bernoulli:
        """p(x|z), (B C H W), of z (B, latent)."""
        output = self.decoder(z).to(z.dtype)
        if self.binary:
            return Bernoulli(output)
        if self.log_var is not None:
            return Gaussian(output, floored(self.log_var).expand_as(output))
        mean, log_var = output.chunk(2, dim=1)
        return Gaussian(mean, LOWEST_LOG_VAR + F.softplus(log_var - LOWEST_LOG_VAR - 3.0))

    def elbo(self, x: Tensor, noise: Tensor, discretised: bool = False) -> ELBO:
        """The two terms of the ELBO, eq. 3.

        Args:
            x: (B C H W) in [−1, 1]; −1 and 1 alone for the Bernoulli decoder.
            noise: (B, latent) standard normal; z = mean + σ·noise.
            discretised: the mass on x's gray level in the place of the density at x (`vlb.discretised_log_prob`), so that the
                ELBO bounds the log-probability of an 8-bit picture. No difference for Bernoulli.
        """
        q = self.encode(x)
        return ELBO(self._log_likelihood(q.sample(noise), x, discretised), kl(q, standard_normal(q.mean)))

    def log_weights(self, x: Tensor, noise: Tensor, discretised: bool = False, at_once: int = 512) -> Tensor:
        """log p(x, z_i)/q(z_i|x), nats (k, B), for z_i = mean + σ·noise_i; noise (k, B, latent).

        Args:
            at_once: how many z are decoded together; bounds the memory.
        """
        q, k = self.encode(x), len(noise)
        log_prior_ratio = 0.5 * (noise**2 - q.sample(noise) ** 2 + q.log_var).sum(dim=2)  # log p(z)/q(z|x): the 2π cancel
        rows = max(1, at_once // len(x))
        likelihood = []
        for some in noise.split(rows):
            z = rearrange(q.sample(some), "k b d -> (k b) d")
            pictures = repeat(x, "b ... -> (k b) ...", k=len(some))
            likelihood.append(rearrange(self._log_likelihood(z, pictures, discretised), "(k b) -> k b", k=len(some)))
        return torch.cat(likelihood).reshape(k, -1) + log_prior_ratio

    def importance_weighted_bound(self, x: Tensor, noise: Tensor, discretised: bool = False) -> Tensor:
        """L_k, eq. 4, nats (B); noise (k, B, latent)."""
        return log_mean_exp(self.log_weights(x, noise, discretised))

    def _log_likelihood(self, z: Tensor, x: Tensor, discretised: bool) -> Tensor:
        p = self.decode(z)
        if discretised and isinstance(p, Gaussian):
            return discretised_log_prob(p, x)
        return p.log_prob(x)

    def forward(self, x: Tensor, noise: Tensor) -> ELBO:
        """The ELBO, so that a wrapper for several processes sees the call."""
        return self.elbo(x, noise)

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None, token: str | None = None) -> VAE:
        """The model in a folder, one that ships, or, as `user/name`, on the Hub; see `hub.read`."""
        from genlab import hub

        return hub.load(source, cls, revision=revision, token=token)
