"""Computes a picture's way through a VAE, the terms of its evidence, and the density of one pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genlab.config import DataSpec
from genlab.data import to_model, to_pixels
from genlab.demo.limits import PIXELS_AT_ONCE, REFERENCE_PIXELS
from genlab.demo.served import Models
from genlab.demo.tabs.pictures import vae_input
from genlab.demo.tabs.vae.request import COMPONENTS, PixelDensityRequest, VAERequest
from genlab.demo.turns import Runner
from genlab.divergence import Gaussian, kl, standard_normal
from genlab.likelihood import Bernoulli, Logistic
from genlab.sampler import Noise
from genlab.vae import VAE, log_mean_exp

Family = Literal["gaussian", "logistic", "bernoulli"]
SIGMA_WHITE = 0.5
"""The σ′ of a Gaussian pixel, in the [−1, 1] scale, that is drawn white; 0 is black. Of a Bernoulli pixel it is 1, the most."""
Z_AT_ONCE = 64
"""z of 28×28 pictures that are decoded in one turn."""
ELBO_SEED = 0
"""Seed of the k samples of an importance-weighted bound: the same for every picture, so that pictures can be compared."""


@dataclass(frozen=True)
class Encoded:
    """A picture's way through a VAE (docs/notes.md#fig-2): x → μ, σ → z → μ′, σ′ → x̂.

    Attributes:
        x: (C H W) uint8, the model's input: in black and white if it models binarised pictures.
        q: q(z|x), mean and log σ² (D).
        z: (D), drawn from q or set by the request.
        kl: (D) nats, of KL[q(z|x)‖p(z)], whose sum it is.
        mean, std, sample: (C H W) uint8: μ′, σ′ (`SIGMA_WHITE`) and x̂, drawn from p(x|z).
        sigma: (C H W) σ′ in the [−1, 1] scale.
        log_likelihood: log p(x|z) of this z, nats.
        family: the distribution that p(x|z) is of.
    """

    x: Tensor
    q: Gaussian
    z: Tensor
    kl: Tensor
    mean: Tensor
    std: Tensor
    sample: Tensor
    sigma: Tensor
    log_likelihood: float
    family: Family


@dataclass(frozen=True)
class ELBOTerms:
    """The terms of log p(x) for one picture, nats, by the `samples` of `count` samples of z that are drawn so far.

    Attributes:
        reconstruction: E_q[log p(x|z)]; kl: KL[q(z|x)‖p(z)], exact; elbo: their difference.
        log_px: L_k, the importance-weighted bound by k = `samples`, which rises towards log p(x).
        gap: log_px − elbo, which rises towards KL[q(z|x)‖p(z|x)].
        curve: (k, L_k) for k = 1, 2, 4, … and `samples`; L_k is the mean of as many disjoint groups of k as there are.
    """

    samples: int
    count: int
    reconstruction: float
    kl: float
    elbo: float
    log_px: float
    curve: tuple[tuple[int, float], ...]

    @property
    def gap(self) -> float:
        """Return log_px − elbo, nats."""
        return self.log_px - self.elbo


@dataclass(frozen=True)
class PixelDensity:
    """One pixel under a VAE, as a mixture (docs/notes.md#fig-3): P(x) ≈ 1/N Σ_i p(x|z_i), z_i ~ N(0, I).

    Attributes:
        mean, std: (N) of p(x|z_i); z_i is the one that seed i of the Sample tab draws.
        data: (M) the pixel in the test pictures. All in the [−1, 1] scale, of the first channel.
        family: the distribution that p(x|z_i) is of.
    """

    mean: Tensor
    std: Tensor
    data: Tensor
    family: Family

    def components(self, x: Tensor) -> Tensor:
        """Return the densities p(x|z_i) at the values x, (G) or for each z its own (N, G): (N, G)."""
        x = x.expand(len(self.mean), x.shape[-1])
        if self.family == "logistic":
            log_scale = (self.std * (math.sqrt(3) / math.pi)).log()
            return Logistic(self.mean[:, None], log_scale[:, None]).density(x)
        mean, std = (each[:, None].expand_as(x).flatten() for each in (self.mean, self.std))
        return Gaussian(mean, 2 * std.log()).log_prob(x.flatten()).exp().reshape(x.shape)

    def mixtures(self, x: Tensor) -> Tensor:
        """Return P(x) at the values x (G) as the mean over the first 1, 2, … N of the z: (N, G)."""
        return self.components(x).cumsum(dim=0) / torch.arange(1, len(self.mean) + 1)[:, None]


def encode(models: Models, runner: Runner, request: VAERequest) -> Encoded:
    """Return a picture's way through encoder and decoder, computed in one turn.

    Raises:
        DeadlineError: it took too long. TurnError: the turn did not come in time.
    """
    model, x = _model_and_input(models, request)
    generator = torch.Generator().manual_seed(request.seed)
    noise, picture_noise = (torch.randn(shape, generator=generator) for shape in ((1, len(request.z)), x.shape))

    def compute() -> Encoded:
        q = model.encode(x)
        by_chance = q.sample(noise)[0]
        z = torch.tensor([[float(drawn) if v is None else v for drawn, v in zip(by_chance, request.z, strict=True)]])
        p = model.decode(z)
        sigma, white = p.std, 1.0 if isinstance(p, Bernoulli) else SIGMA_WHITE
        if isinstance(p, Gaussian):
            sample = p.sample(picture_noise)
        elif isinstance(p, Logistic):
            sample = p.sample(torch.special.ndtr(picture_noise))
        else:
            sample = torch.bernoulli((p.mean + 1) / 2, generator=generator) * 2 - 1
        of_latent = Gaussian(q.mean[0], q.log_var[0])
        mean, std, drawn = (to_pixels(v[0]) for v in (p.mean, 2 * sigma / white - 1, sample))
        divergence = kl(of_latent, standard_normal(of_latent.mean))
        return Encoded(
            x=to_pixels(x[0]),
            q=of_latent,
            z=z[0],
            kl=divergence,
            mean=mean,
            std=std,
            sample=drawn,
            sigma=sigma[0],
            log_likelihood=float(model.log_likelihood(z, x, discretised=True)),
            family=family_of(model),
        )

    return runner.begin().once(compute)


def elbo(models: Models, runner: Runner, request: VAERequest) -> Iterator[ELBOTerms]:
    """Yield the terms of log p(x), of the mass on 8-bit pixels, by more and more samples of z; one turn for each.

    Raises:
        DeadlineError: it took too long. TurnError: a turn did not come in time.
    """
    run = runner.begin()
    model, x = _model_and_input(models, request)
    noise = torch.randn(request.samples, 1, len(request.z), generator=torch.Generator().manual_seed(ELBO_SEED))
    weights = torch.empty(0)
    ratios = torch.empty(0)

    def compute(some: Tensor) -> tuple[Gaussian, Tensor, Tensor]:
        q = model.encode(x)
        z = q.sample(some)[:, 0]
        return q, model.log_weights(x, some, discretised=True)[:, 0], standard_normal(z).log_prob(z) - q.log_prob(z)

    for some in noise.split(_at_once(model.data, Z_AT_ONCE)):
        q, weight, ratio = run.once(lambda some=some: compute(some))  # type: ignore[misc]
        weights, ratios = torch.cat([weights, weight]), torch.cat([ratios, ratio])
        reconstruction = float((weights - ratios).mean())  # log w = log p(x|z) + log p(z)/q(z|x)
        divergence = float(kl(q, standard_normal(q.mean)))
        curve = importance_weighted_curve(weights)
        yield ELBOTerms(
            len(weights), request.samples, reconstruction, divergence, reconstruction - divergence, curve[-1][1], curve
        )


def activity(models: Models, runner: Runner, model_id: str) -> Tensor:
    """Return the activity of each latent of a VAE: the variance of q's mean over the test pictures, (D); 0 without any.

    Raises:
        DeadlineError: it took too long. TurnError: a turn did not come in time.
    """
    model, package = models.vae(model_id), models.examples(models[model_id].data.name)
    if package is None:
        return torch.zeros(model.config.latents)
    run, x = runner.begin(), vae_input(model, to_model(package.examples))
    parts = x.split(_at_once(model.data, len(x)))
    means = [run.once(lambda part=part: model.encode(part).mean) for part in parts]  # type: ignore[misc]
    return torch.cat(means).var(dim=0, correction=0)


class PixelDensities:
    """Densities of single pixels under VAEs. What was decoded for one pixel serves all others of that model."""

    def __init__(self, models: Models, runner: Runner) -> None:
        self._models, self._runner = models, runner
        self._decoded: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def density(self, request: PixelDensityRequest) -> PixelDensity:
        """Return the density of one pixel, and its values in the test pictures.

        Raises:
            DeadlineError: it took too long. TurnError: a turn did not come in time.
        """
        model, run = self._models.vae(request.model), self._runner.begin()
        z = Noise.from_seeds(list(range(int(COMPONENTS.high))), (model.config.latents,)).draw()
        parts = z.split(_at_once(model.data, Z_AT_ONCE))
        done = self._decoded.setdefault(request.model, [])

        def decode_next() -> None:
            if len(done) == len(parts):  # another request has decoded the last part meanwhile
                return
            p = model.decode(parts[len(done)])
            done.append((p.mean[:, 0], p.std[:, 0]))

        while sum(len(mean) for mean, _ in done) < request.count:
            run.once(decode_next)
        place = (slice(None), request.row, request.column)
        mean, std = (torch.cat([pair[i][place] for pair in done])[: request.count] for i in (0, 1))
        package = self._models.examples(model.data.name)
        data = torch.empty(0) if package is None else to_model(package.examples)[:, 0, request.row, request.column]
        return PixelDensity(mean, std, data, family_of(model))


def family_of(model: VAE) -> Family:
    """Return the distribution that a VAE's p(x|z) is of."""
    return model.config.likelihood.removesuffix("-per-pixel")  # type: ignore[return-value]


def most_varied_pixel(models: Models, model_id: str) -> tuple[int, int]:
    """Return row and column of the pixel that varies most between the test pictures; the middle without any."""
    data = models[model_id].data
    package = models.examples(data.name)
    if package is None:
        return data.size // 2, data.size // 2
    place = int(package.examples[:, 0].float().var(dim=0, correction=0).argmax())
    return place // data.size, place % data.size


def importance_weighted_curve(log_weights: Tensor) -> tuple[tuple[int, float], ...]:
    """Return (k, L_k) of log-weights (n) for k = 1, 2, 4, … < n and n; L_k is the mean over the n // k disjoint groups of k."""
    n = len(log_weights)
    sizes = [2**i for i in range(n.bit_length()) if 2**i < n] + [n]
    return tuple((k, float(log_mean_exp(log_weights[: n // k * k].reshape(-1, k).T).mean())) for k in sizes)


def _model_and_input(models: Models, request: VAERequest) -> tuple[VAE, Tensor]:
    """Return the VAE, and the picture as its input, (1 C H W)."""
    model = models.vae(request.model)
    return model, vae_input(model, to_model(models.picture(model.data.name, request.picture)))[None]


def _at_once(data: DataSpec, most: int) -> int:
    """Return how many pictures go through a network in one turn: `most` of 28×28, fewer of larger ones."""
    return max(1, min(most * REFERENCE_PIXELS, PIXELS_AT_ONCE) // data.size**2)
