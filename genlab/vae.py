"""The variational autoencoder (docs/notes.md#n1-4; Kingma & Welling 2014).

    p(x)       = ∫ p(z) p(x|z) dz,   p(z) = N(0, I),   p(x|z) = N(μ(z), σ²(z))                     (1)
    log p(x)   = E_q(z|x)[log p(x|z)] − KL[q(z|x) ‖ p(z)] + KL[q(z|x) ‖ p(z|x)]                    (2)
    ELBO       = E_q(z|x)[log p(x|z)] − KL[q(z|x) ‖ p(z)]  ≤  log p(x)                             (3)
    L_k        = E[log 1/k Σ_i p(x, z_i)/q(z_i|x)],  z_i ~ q(z|x);  ELBO = L_1 ≤ L_k ≤ log p(x)    (4)

(4) is Burda et al. 2016. The notes say that log p(x) may fall when KL[q(z|x)‖p(z|x)] falls while p(x|z) is being improved.
By (2) log p(x) changes by the change of the ELBO plus the change of that KL, and the latter is at least −(its old value).

A VAE consists of three distributions: the encoder q(z|x), the prior p(z), and the decoder p(x|z). The decoder is a Gaussian
with one σ learned for all pixels (the calibrated decoder of Rybkin et al. 2021) or with σ(z) for every pixel (the notes); a
discretised logistic distribution (`likelihood`, eq. 2) with one learned scale for each pixel position (Kingma, F. et al. 2019)
or a scale from z for every pixel; or, for binarised pictures, Bernoulli. z is a vector, or a map of side × side positions,
passed around as its flattened values, (B, D). All results are nats per picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from genlab.config import DataSpec, Kind, VAEConfig
from genlab.divergence import Gaussian, kl, standard_normal
from genlab.likelihood import HALF_LEVEL, Bernoulli, Logistic, discretised_log_prob
from genlab.nn import MapDecoder, MapEncoder, PictureDecoder, PictureEncoder

LOWEST_LOG_VAR = -10.0
"""Lower limit of the decoder's log σ²: σ a little below one gray level (2/255) in the [−1, 1] scale."""


LOWEST_LOG_SCALE = math.log(2 * HALF_LEVEL / 8)
"""Lower limit of the logistic decoder's log s: an eighth of the distance between two gray levels."""


def floored(values: Tensor, lowest: float) -> Tensor:
    """Return values clamped from below with the gradient of the identity, so that a value below the limit can rise again."""
    return values + (values.clamp(min=lowest) - values).detach()


@dataclass(frozen=True)
class ELBO:
    """The two terms of eq. 3 for a batch, nats (B) each."""

    reconstruction: Tensor
    """E_q[log p(x|z)], estimated with one z."""
    kl: Tensor
    """KL[q(z|x) ‖ p(z)], exact."""

    @property
    def total(self) -> Tensor:
        """Return the ELBO, (B): larger is better."""
        return self.reconstruction - self.kl


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Return log 1/k Σ_i exp(w_i) over the first dimension, (…), for w (k, …)."""
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))


class VAE(nn.Module):
    """A variational autoencoder of pictures in [−1, 1].

    Raises:
        ValueError: the picture side cannot be halved to 8 or fewer pixels, or to `config.side` for a map.
    """

    kind: Kind = "vae"

    def __init__(self, config: VAEConfig, data: DataSpec) -> None:
        super().__init__()
        self.config = config
        self.data = data
        outputs = data.channels * (2 if config.likelihood.endswith("-per-pixel") else 1)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.side == 1:
            self.encoder = PictureEncoder(data.channels, data.size, config.width, config.hidden, 2 * config.latent)
            self.decoder = PictureDecoder(config.latent, config.hidden, config.width, data.size, outputs)
        else:
            shape = (config.width, config.side, config.blocks, config.dropout)
            self.encoder = MapEncoder(data.channels, data.size, *shape, 2 * config.latent)
            self.decoder = MapDecoder(config.latent, *shape, data.size, outputs)
        self.log_var = nn.Parameter(torch.tensor(-3.0)) if config.likelihood == "gaussian" else None
        self.log_scale = nn.Parameter(torch.full(data.shape, -3.0)) if config.likelihood == "logistic" else None

    @property
    def binary(self) -> bool:
        """Return True if the decoder is Bernoulli, for binarised pictures."""
        return self.config.likelihood == "bernoulli"

    def encode(self, x: Tensor) -> Gaussian:
        """Return q(z|x), (B, D), of x (B C H W)."""
        mean, log_var = self.encoder(x).to(x.dtype).chunk(2, dim=1)
        return Gaussian(mean, log_var.clamp(-20, 20))

    def decode(self, z: Tensor) -> Gaussian | Logistic | Bernoulli:
        """Return p(x|z), (B C H W), of z (B, D)."""
        output = self.decoder(z).to(z.dtype)
        if self.binary:
            return Bernoulli(output)
        if self.log_var is not None:
            return Gaussian(output, floored(self.log_var, LOWEST_LOG_VAR).expand_as(output))
        if self.log_scale is not None:
            return Logistic(output, floored(self.log_scale, LOWEST_LOG_SCALE).expand_as(output))
        mean, spread = output.chunk(2, dim=1)
        if self.config.likelihood == "logistic-per-pixel":
            return Logistic(mean, LOWEST_LOG_SCALE + F.softplus(spread - LOWEST_LOG_SCALE - 3.0))
        return Gaussian(mean, LOWEST_LOG_VAR + F.softplus(spread - LOWEST_LOG_VAR - 3.0))

    def elbo(self, x: Tensor, noise: Tensor, discretised: bool = False) -> ELBO:
        """Return the two terms of the ELBO, eq. 3.

        Args:
            x: (B C H W) in [−1, 1]; −1 and 1 alone for the Bernoulli decoder.
            noise: (B, D) standard normal; z = mean + σ·noise.
            discretised: for a Gaussian decoder, use the mass on x's gray level instead of the density at x, so that the ELBO
                bounds the log-probability of an 8-bit picture. The other decoders are discrete already.
        """
        q = self.encode(x)
        return ELBO(self.log_likelihood(q.sample(noise), x, discretised), kl(q, standard_normal(q.mean)))

    def log_weights(self, x: Tensor, noise: Tensor, discretised: bool = False, at_once: int = 512) -> Tensor:
        """Return log p(x, z_i)/q(z_i|x), nats (k, B), for z_i = mean + σ·noise_i; noise (k, B, D).

        Args:
            at_once: number of z decoded at once, to limit the memory.
        """
        q, k = self.encode(x), len(noise)
        log_prior_ratio = 0.5 * (noise**2 - q.sample(noise) ** 2 + q.log_var).sum(dim=2)  # log p(z)/q(z|x): the 2π cancel
        rows = max(1, at_once // len(x))
        likelihood = []
        for some in noise.split(rows):
            z = rearrange(q.sample(some), "k b d -> (k b) d")
            pictures = repeat(x, "b ... -> (k b) ...", k=len(some))
            likelihood.append(rearrange(self.log_likelihood(z, pictures, discretised), "(k b) -> k b", k=len(some)))
        return torch.cat(likelihood).reshape(k, -1) + log_prior_ratio

    def importance_weighted_bound(self, x: Tensor, noise: Tensor, discretised: bool = False) -> Tensor:
        """Return L_k, eq. 4, nats (B); noise (k, B, D)."""
        return log_mean_exp(self.log_weights(x, noise, discretised))

    def log_likelihood(self, z: Tensor, x: Tensor, discretised: bool) -> Tensor:
        """Return log p(x|z), nats (B); `discretised` as in `elbo`."""
        p = self.decode(z)
        if discretised and isinstance(p, Gaussian):
            return discretised_log_prob(p, x)
        return p.log_prob(x)

    def forward(self, x: Tensor, noise: Tensor) -> ELBO:
        """Return the ELBO (`elbo`): DistributedDataParallel wraps forward() alone."""
        return self.elbo(x, noise)
