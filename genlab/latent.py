"""Latent diffusion: a DDPM as the prior of a VAE (docs/notes.md#n1-4 and #n1-5; Vahdat et al. 2021).

A VAE with the prior N(0, I) also decodes z that are unlike any code of its encoder. Here the prior is a diffusion model of the
codes,

    z = m + s u,   u ~ p_θ(u) the DDPM,   x ~ p(x|z) the decoder                                       (1)

with m and s the mean and standard deviation of the codes over the training pictures, one each per channel of z, so that u
has about unit variance. Encoder and decoder are those of a trained VAE, whose weights stay fixed. The ELBO of (1) is that of
the VAE with another prior, and −log p_θ(u) has the variational bound of notes 1.5:

    log p(x) ≥ E_q(z|x) [log p(x|z) − log q(z|x) + log p(z)]                                           (2)
    log p(z) = log p_θ(u) − Σ log s  ≥  −(L_T + Σ_t L_{t−1} + L_0)(u) − Σ log s                        (3)

where L_0 is the negative log of a density, since u is continuous. In (2), E[−log q] = H[q(z|x)] is known in closed form.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from genlab.config import DataSpec, Kind, LatentConfig, LatentSpec
from genlab.ddpm import DDPM, DDPMLoss
from genlab.divergence import Gaussian, entropy
from genlab.process import Denoised, p_reverse
from genlab.schedule import Schedule
from genlab.vae import ELBO, VAE
from genlab.vlb import bound


class LatentDDPM(nn.Module):
    """A VAE of pictures in [−1, 1] with a diffusion model as its prior.

    Raises:
        ValueError: the size of the pictures does not suit the VAE, or that of its latent map the network (see `UNet`).
    """

    kind: Kind = "latent-ddpm"

    def __init__(self, config: LatentConfig, data: DataSpec) -> None:
        super().__init__()
        self.data = data
        self.vae = VAE(config.vae, data)
        self.latents = LatentSpec(data.name, config.vae.latent, config.vae.side, data.classes)
        self.ddpm = DDPM(config.ddpm, self.latents)
        self.config = replace(config, ddpm=self.ddpm.config)
        self.mean = nn.Parameter(torch.zeros(config.vae.latent), requires_grad=False)
        self.std = nn.Parameter(torch.ones(config.vae.latent), requires_grad=False)

    def train(self, mode: bool = True) -> LatentDDPM:
        """Set the mode of the DDPM; the VAE is trained already and stays in evaluation mode, without dropout."""
        super().train(mode)
        self.vae.eval()
        return self

    def to_codes(self, z: Tensor) -> Tensor:
        """Return u (B, latent, side, side) of eq. 1 for z (B, D)."""
        maps = z.reshape(-1, *self.latents.shape)
        return (maps - self.mean[:, None, None]) / self.std[:, None, None]

    def to_latents(self, u: Tensor) -> Tensor:
        """Return z (B, D) of eq. 1 for u (B, latent, side, side)."""
        return (u * self.std[:, None, None] + self.mean[:, None, None]).flatten(1)

    def decode(self, u: Tensor) -> Tensor:
        """Return the decoder's mean, (B C H W), for u (B, latent, side, side)."""
        return self.vae.decode(self.to_latents(u)).mean

    @torch.no_grad()
    def measure_codes(self, pictures: Tensor, at_once: int = 500) -> None:
        """Set m and s of eq. 1 from the codes of pictures (N C H W) in [−1, 1].

        The variance of a code is that of q's mean over the pictures plus the mean of q's own variance.
        """
        count, total, square = 0, torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        for some in pictures.split(at_once):
            q = self.vae.encode(some.to(self.mean.device))
            mean, variance = (values.reshape(-1, *self.latents.shape) for values in (q.mean, q.variance))
            count += mean[:, 0].numel()
            total += mean.sum(dim=(0, 2, 3))
            square += (mean**2 + variance).sum(dim=(0, 2, 3))
        self.mean.copy_(total / count)
        self.std.copy_((square / count - self.mean**2).sqrt())

    def elbo(self, x: Tensor, noise: Tensor, generator: torch.Generator, discretised: bool = False) -> ELBO:
        """Return the terms of eq. 2, with one draw of z and of every x_t of the chain: T evaluations of the network.

        Args:
            x: (B C H W); noise: (B, D) standard normal, z = mean + σ·noise; generator: of the chain's noise, on the CPU.
            discretised: as in `VAE.elbo`.

        Returns:
            ELBO whose `kl` is −H[q] − log p(z) at the drawn z, with the bound of eq. 3 for log p(z).
        """
        q = self.vae.encode(x)
        z = q.sample(noise)
        prior = bound(self.ddpm.schedule, self.reverse, self.to_codes(z), generator, Gaussian.log_prob).total
        return ELBO(self.vae.log_likelihood(z, x, discretised), prior + self.log_scale - entropy(q))

    @property
    def log_scale(self) -> Tensor:
        """Return Σ log s of eq. 3, over all values of z, ()."""
        return self.std.log().sum() * self.latents.size**2

    @property
    def schedule(self) -> Schedule:
        """Return the chain of the DDPM."""
        return self.ddpm.schedule

    def predict(
        self, u_t: Tensor, t: Tensor, label: Tensor | None = None, guidance: float = 1.0, clip: bool = True
    ) -> Denoised:
        """Return the DDPM's prediction for u_t (B, latent, side, side); `clip` has no effect, since codes are unbounded."""
        return self.ddpm.predict(u_t, t, label, guidance, clip=False)

    def reverse(self, u_t: Tensor, t: Tensor) -> Gaussian:
        """Return p_θ(u_{t−1}|u_t) without a label."""
        denoised = self.predict(u_t, t)
        return p_reverse(self.ddpm.schedule, u_t, denoised.x0_hat, t, None, self.config.ddpm.variance, denoised.fraction)

    def forward(self, x: Tensor, t: Tensor, eps: Tensor, label: Tensor | None = None, whole_bound: bool = False) -> DDPMLoss:
        """Return the DDPM's training loss for pictures x (B C H W), with u drawn from q(z|x) by torch's global generator.

        Args:
            eps: ε of eq. 2 of `process`, of the shape of u, (B, latent, side, side); the others as in `DDPM.loss`.
        """
        with torch.no_grad():
            q = self.vae.encode(x)
            u = self.to_codes(q.sample(torch.randn_like(q.mean)))
        return self.ddpm.loss(u, t, eps, label, whole_bound, Gaussian.log_prob)
