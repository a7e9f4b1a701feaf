"""Computes the bound of a diffusion model at one step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.config import Variance
from genlab.data import to_model
from genlab.ddpm import DDPM
from genlab.demo.served import Models
from genlab.demo.tabs.bound.request import BoundRequest
from genlab.demo.turns import Runner
from genlab.divergence import Gaussian
from genlab.likelihood import level_log_probs
from genlab.process import p_reverse, q_marginal, q_posterior, reverse_log_var
from genlab.sampler import Noise
from genlab.schedule import Schedule
from genlab.vlb import prior_term, step_terms

VISIBLE_SNR = 100.0
"""ᾱ_t/(1 − ᾱ_t) at which a picture's noise begins to show: a standard deviation of a twentieth of black to white."""


@dataclass(frozen=True)
class BoundStep:
    """A diffusion model's bound at step t for one picture (docs/notes.md#n1-5-bound), from one evaluation of the network.

    Attributes:
        T, alpha_bar: length of the chain, ᾱ_t.
        x0, x_t, x0_hat: (C H W), in the [−1, 1] scale.
        q: q(x_{t−1}|x_t,x_0), (C H W); None at t = 1, where it is a point mass at x_0.
        p: p_θ(x_{t−1}|x_t) with the model's own Σ, `variance`, (C H W).
        terms: (C H W) nats, whose sum is the picture's L_{t−1} = KL[q‖p], or, at t = 1, L_0 = −log p(x_0|x_1).
        fraction: (C H W) where log Σ lies between log β̃ (0) and log β (1).
        beta_tilde, beta: β̃_t and β_t; at t = 1 β̃_2 stands for β̃_1 = 0.
        by_variance: the sum of `terms` with each Σ that the model can have, nats.
        prior: L_T of the picture, nats.
    """

    t: int
    T: int
    alpha_bar: float
    x0: Tensor
    x_t: Tensor
    x0_hat: Tensor
    q: Gaussian | None
    p: Gaussian
    variance: Variance
    terms: Tensor
    fraction: Tensor
    beta_tilde: float
    beta: float
    by_variance: dict[Variance, float]
    prior: float

    @property
    def per_pixel(self) -> Tensor:
        """Return the sum of the terms of each pixel's channels, (H W) nats."""
        return self.terms.sum(dim=0)

    @property
    def largest(self) -> tuple[int, int]:
        """Return row and column of the pixel with the largest term."""
        row, column = divmod(int(self.per_pixel.argmax()), self.terms.shape[-1])
        return row, column

    def densities(self, row: int, column: int, x: Tensor) -> list[Tensor]:
        """Return the densities of q (from t = 2) and p of a pixel's first channel at the values x (G), (G) each."""
        pixels = [_pixel(each, row, column) for each in (self.q, self.p) if each is not None]
        return [pixel.log_prob(x[:, None]).exp() for pixel in pixels]

    def levels(self, row: int, column: int) -> Tensor:
        """Return the mass of p on each gray level of a pixel's first channel, (256)."""
        return level_log_probs(_pixel(self.p, row, column))[0].exp()


def bound(models: Models, runner: Runner, request: BoundRequest) -> BoundStep:
    """Return the bound of a diffusion model at one step, classes hidden, computed in one turn.

    Raises:
        DeadlineError: it took too long. TurnError: the turn did not come in time.
    """
    data = models[request.model].data
    x0 = to_model(models.picture(data.name, request.picture))[None]
    noise = Noise.from_seeds([request.seed], data.shape).draw()
    return runner.begin().once(lambda: bound_step(models.ddpm(request.model), request.t, x0, noise))


def first_visible_noise(schedule: Schedule) -> int:
    """Return the first t ≥ 2 of a chain at which noise can be seen: x_t has an SNR of `VISIBLE_SNR` at most."""
    return 2 + int((schedule.snr[2:-1] > VISIBLE_SNR).sum())


def bound_step(model: DDPM, at: int, x0: Tensor, eps: Tensor) -> BoundStep:
    """Return the bound at step `at` for a picture (1 C H W) and the noise (1 C H W) in its x_t; classes hidden."""
    schedule, own, t = model.schedule, model.config.variance, torch.tensor([at])
    x_t = q_marginal(schedule, x0, t).sample(eps)
    predicted = model.predict(x_t, t)

    variances: tuple[Variance, ...] = ("posterior", "beta", "learned") if own == "learned" else ("posterior", "beta")
    p = [p_reverse(schedule, x_t, predicted.x0_hat, t, None, variance, predicted.fraction) for variance in variances]
    every_p = Gaussian(torch.cat([each.mean for each in p]), torch.cat([each.log_var for each in p]))
    same = [x.expand(len(p), *x.shape[1:]) for x in (x0, x_t)]
    terms = dict(zip(variances, step_terms(schedule, every_p, same[0], same[1], t.expand(len(p))), strict=True))
    fixed = torch.full_like(x0, 1.0 if own == "beta" else 0.0)
    return BoundStep(
        t=at,
        T=schedule.T,
        alpha_bar=float(schedule.alpha_bar[at]),
        x0=x0[0],
        x_t=x_t[0],
        x0_hat=predicted.x0_hat[0],
        q=_first(q_posterior(schedule, x_t, x0, t)) if at > 1 else None,
        p=_first(p[variances.index(own)]),
        variance=own,
        terms=terms[own],
        fraction=(fixed if predicted.fraction is None else predicted.fraction)[0],
        beta_tilde=float(reverse_log_var(schedule, "posterior", t).exp()),
        beta=float(schedule.beta[at]),
        by_variance={variance: float(each.double().sum()) for variance, each in terms.items()},
        prior=float(prior_term(schedule, x0)),
    )


def _first(batch: Gaussian) -> Gaussian:
    """Return the first of a batch."""
    return Gaussian(batch.mean[0], batch.log_var[0])


def _pixel(picture: Gaussian, row: int, column: int) -> Gaussian:
    """Return the first channel of one pixel of a picture (C H W), (1)."""
    return Gaussian(picture.mean[:1, row, column], picture.log_var[:1, row, column])
