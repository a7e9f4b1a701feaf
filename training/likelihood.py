"""Measure the likelihood of held-out pictures: a DDPM's bound, also by the flow ODE; a VAE's ELBO and importance-weighted
bound.

Each function adds batches of pictures to sums that a `Partial` saves, so that an interrupted run can continue.

The error of the stratified bound (`vlb` eq. 5). The estimates L̂(x_i) of N pictures are independent and identically distributed,
since the pictures are and each has its own t and noise. So s/√N is the standard error of their mean, from all sources:
pictures, t and noise. The draw of t contributes to its square

    1/N Σ_k |S_k|² V_k,   V_k = Var_{t∈S_k}[E ℓ_t] = Var[ℓ_t] − E_t Var[ℓ_t|t],                     (1)

the first variance over all draws of stratum k, the second within those with the same t; it is reported beside the total.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from genlab.card import SIGMA
from genlab.colours import COLOURS
from genlab.config import DataSpec, DDPMConfig, Sampling, Variance
from genlab.data import as_model, binarise, to_model
from genlab.divergence import Gaussian, bits_per_dim, entropy, kl, standard_normal, sum_dims
from genlab.draw import draw
from genlab.likelihood import discretised_log_prob
from genlab.measurements import ODE, Continuous, DiffusionBound, LatentBound, Strata, Sums, VAEBound, Weighted, to_json
from genlab.models import Decoding
from genlab.process import p_reverse, q_marginal
from genlab.schedule import Schedule
from genlab.score import ODEBound, flow_times, ode_bound
from genlab.vae import log_mean_exp
from genlab.vlb import Decoder, denoising_term, draw_times, prior_term, step_term, strata
from training.partial import Partial, Progress, generator
from training.sample_quality import SEEDS_APART

if TYPE_CHECKING:
    from genlab.latent import LatentDDPM
    from genlab.mixture import MixtureVAE
    from genlab.models import Model
    from genlab.process import Denoised
    from genlab.vae import VAE

ACTIVE_VARIANCE = 0.01
"""A latent is active if the variance of its posterior mean over the pictures exceeds this (Burda et al. 2016)."""
CONTINUOUS_PARTS = 100
"""Steps in the place of each step of a chain for its bound in continuous time."""
ODE_STEPS = 100
"""Largest number of steps of the flow ODE; a shorter chain has fewer."""
DIGITS = 6
"""Significant digits of the columns of a ledger in metrics.json."""


SIGMA_COLOURS: dict[str, str] = {"learned": COLOURS["p"], "posterior": COLOURS["q"], "beta": COLOURS["x_t"]}


class Denoiser(Protocol):
    """The interface for measuring a diffusion model: a `DDPM`, or an oracle with a schedule and a configuration."""

    config: DDPMConfig
    data: DataSpec
    schedule: Schedule

    def predict(self, x_t: Tensor, t: Tensor) -> Denoised: ...


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return the mean of (N) values and its standard error, s/√N."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _rows(index: int, batch_size: int, count: int) -> slice:
    return slice(index * batch_size, min((index + 1) * batch_size, count))


def _size(batch_size: int, count: int, times: int = 1) -> Callable[[int], int]:
    return lambda index: times * max(0, min((index + 1) * batch_size, count) - index * batch_size)


# The bound of a diffusion model


def diffusion_bound(
    model: Denoiser,
    pictures: Tensor,
    count: int,
    seed: int,
    batch_size: int,
    partial: Partial,
    progress: Progress,
    device: torch.device | str = "cpu",
    decoder: Decoder = discretised_log_prob,
) -> dict[str, Any]:
    """Return the bound L_T + Σ L_{t−1} + L_0 on −log p of pictures for each Σ the model supports, from the same evaluations.

    Args:
        pictures: (N C H W), uint8, or floating point in the model's scale.
        count: K, number of evaluations of each picture, one in each stratum of `vlb.strata`; T for every t.
        decoder: log p_θ(x_0|x_1); see `vlb.step_term`.

    Returns:
        The section `likelihood` of metrics.json.
    """
    sums = diffusion_sums(model, pictures, count, seed, batch_size, partial, progress, device, decoder)
    return to_json(_diffusion_section(model, strata(model.schedule.T, count), sums))


def diffusion_sums(
    model: Denoiser,
    pictures: Tensor,
    count: int,
    seed: int,
    batch_size: int,
    partial: Partial,
    progress: Progress,
    device: torch.device | str,
    decoder: Decoder,
) -> dict[str, Tensor]:
    """Return the sums for `diffusion_bound`, nats.

    For each picture: `prior` (N), and for each of the V Σ `decoder` and `transitions` (V, N). For each t: the number of `draws`
    (T + 1), the sums of `terms` and their `squares` (V, T + 1), and of the network's squared `errors` (2, T + 1).
    """
    N, T, variances = len(pictures), model.schedule.T, variances_of(model)
    last, V = strata(T, count), len(variances)
    sums = {
        "prior": torch.zeros(N, dtype=torch.float64),
        "decoder": torch.zeros(V, N, dtype=torch.float64),
        "transitions": torch.zeros(V, N, dtype=torch.float64),
        "draws": torch.zeros(T + 1, dtype=torch.float64),
        "terms": torch.zeros(V, T + 1, dtype=torch.float64),
        "squares": torch.zeros(V, T + 1, dtype=torch.float64),
        "errors": torch.zeros(2, T + 1, dtype=torch.float64),
    }
    length = torch.tensor([0, *last]).diff()
    batches = -(-N // batch_size)
    for index in partial.batches("bound", sums, batches, progress, _size(batch_size, N, count)):
        rows, noise_of = _rows(index, batch_size, N), generator(seed, 0, index)
        x0 = as_model(pictures[rows]).to(device)
        times = draw_times(last, len(x0), noise_of)
        with torch.inference_mode():
            sums["prior"][rows] = prior_term(model.schedule, x0).double().cpu()
            for k, t_k in enumerate(times.unbind(dim=1)):
                t, eps = t_k.to(device), torch.randn(x0.shape, generator=noise_of, dtype=x0.dtype).to(device)
                terms, errors = _evaluate(model, variances, x0, eps, t, decoder)
                sums["decoder" if k == 0 else "transitions"][:, rows] += length[k] * terms
                sums["draws"].index_add_(0, t_k, torch.ones(len(x0), dtype=torch.float64))
                sums["terms"].index_add_(1, t_k, terms)
                sums["squares"].index_add_(1, t_k, terms**2)
                sums["errors"].index_add_(1, t_k, errors)
    return sums


def variances_of(model: Denoiser) -> tuple[Variance, ...]:
    """Return every Σ that the model supports: β̃, β, and its own if it is learned."""
    return ("posterior", "beta", "learned") if model.config.variance == "learned" else ("posterior", "beta")


def _evaluate(
    model: Denoiser, variances: tuple[Variance, ...], x0: Tensor, eps: Tensor, t: Tensor, decoder: Decoder
) -> tuple[Tensor, Tensor]:
    """Return the terms of step t, nats (V, B), and the mean squared errors of ε̂ and x̂_0, (2, B), from one evaluation."""
    x_t = q_marginal(model.schedule, x0, t).sample(eps)
    denoised = model.predict(x_t, t)
    terms = [
        step_term(
            model.schedule,
            lambda *_, v=variance: p_reverse(model.schedule, x_t, denoised.x0_hat, t, None, v, denoised.fraction),
            x0,
            x_t,
            t,
            decoder,
        )
        for variance in variances
    ]
    differences = (denoised.eps_hat - eps, denoised.x0_hat - x0)
    errors = [sum_dims(difference**2) / model.data.dims for difference in differences]
    return torch.stack(terms).double().cpu(), torch.stack(errors).double().cpu()


def _diffusion_section(model: Denoiser, last: tuple[int, ...], sums: dict[str, Tensor]) -> DiffusionBound:
    variances = variances_of(model)
    N, T, dims, own = len(sums["prior"]), model.schedule.T, model.data.dims, model.config.variance
    prior = bits_per_dim(sums["prior"], dims)
    by_variance, ledger_terms, ledger_errors = {}, {}, {}
    for v, name in enumerate(variances):
        decoder, transitions = (bits_per_dim(sums[part][v], dims) for part in ("decoder", "transitions"))
        terms, squares = bits_per_dim(sums["terms"][v], dims), bits_per_dim(bits_per_dim(sums["squares"][v], dims), dims)
        mean, variance, from_t = per_stratum(last, sums["draws"], terms, squares)
        length = torch.tensor([0, *last]).diff()
        total, error = mean_and_error(prior + decoder + transitions)
        by_variance[name] = Sums(
            bound_bits_per_dim=total,
            bound_standard_error_bits_per_dim=error,
            bound_standard_error_from_draw_of_t_bits_per_dim=float((length**2 * from_t).sum() / N) ** 0.5,
            transition_terms_sum_bits_per_dim=float(transitions.mean()),
            transition_terms_sum_standard_error_bits_per_dim=mean_and_error(transitions)[1],
            decoder_term_L_0_bits_per_dim=float(decoder.mean()),
            decoder_term_L_0_standard_error_bits_per_dim=mean_and_error(decoder)[1],
        )
        ledger_terms[name], ledger_errors[name] = _digits(mean), _digits((variance / N).sqrt())
    eps_error, x0_error = (_stratum_means(last, sums["draws"], errors) for errors in sums["errors"])
    return DiffusionBound(
        bound_bits_per_dim=by_variance[own].bound_bits_per_dim,
        bound_standard_error_bits_per_dim=by_variance[own].bound_standard_error_bits_per_dim,
        mode="every t" if len(last) == T else "stratified",
        images=N,
        T=T,
        looks_per_image=len(last),
        variance=own,
        prior_term_L_T_bits_per_dim=float(prior.mean()),
        prior_term_L_T_standard_error_bits_per_dim=mean_and_error(prior)[1],
        by_variance=by_variance,
        ledger=Strata(
            first_t=[e + 1 for e in (0, *last[:-1])],
            last_t=list(last),
            mean_term_bits_per_dim=ledger_terms,
            standard_error_bits_per_dim=ledger_errors,
            eps_hat_mean_squared_error=_digits(eps_error),
            x0_hat_mean_squared_error=_digits(x0_error),
        ),
    )


def per_stratum(last: tuple[int, ...], draws: Tensor, terms: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance and V (eq. 1) of the terms in each stratum, (K) each, from their sums at each t, (T + 1) each.

    V is an upper bound if no t of a stratum was drawn twice: the variances over t and over pictures cannot be separated then.
    """
    mean = _stratum_means(last, draws, terms)
    count, square = _stratum_sums(last, draws), _stratum_sums(last, squares)
    variance = (square - count * mean**2).clamp(min=0) / (count - 1)
    distinct = _stratum_sums(last, (draws > 0).double())
    within = (square - _stratum_sums(last, terms**2 / draws.clamp(min=1))).clamp(min=0) / (count - distinct).clamp(min=1)
    single = torch.tensor([0, *last]).diff() == 1
    return mean, variance, (variance - within).clamp(min=0).masked_fill(single, 0)


def _stratum_sums(last: tuple[int, ...], at_t: Tensor) -> Tensor:
    """Return the sums over each stratum, (K), of values at each t, (T + 1)."""
    return torch.stack([part.sum() for part in at_t[1:].split(torch.tensor([0, *last]).diff().tolist())])


def _stratum_means(last: tuple[int, ...], draws: Tensor, at_t: Tensor) -> Tensor:
    return _stratum_sums(last, at_t) / _stratum_sums(last, draws)


def _digits(values: Tensor) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


# The bound in continuous time


def continuous_bound(
    model: Denoiser,
    parts: int,
    pictures: Tensor,
    count: int,
    seed: int,
    batch_size: int,
    partial: Partial,
    progress: Progress,
    device: torch.device | str = "cpu",
    decoder: Decoder = discretised_log_prob,
) -> dict[str, Any]:
    """Return the bound on −log p of pictures on a chain so fine that it is that of continuous time (`vlb`, eq. 7).

    Args:
        model: on a chain refined into `parts` steps for each step of the model's own (`schedule.refined_schedule`).
        pictures, count, decoder: see `diffusion_bound`; the strata are those of the model's own chain.

    Returns:
        The section `continuous` of metrics.json.
    """
    N, schedule = len(pictures), model.schedule
    last = tuple((end - 1) * parts + 1 for end in strata((schedule.T - 1) // parts + 1, count))
    length = torch.tensor([0, *last]).diff()
    sums = {name: torch.zeros(N, dtype=torch.float64) for name in ("prior", "decoder", "transitions")}
    batches = -(-N // batch_size)
    for index in partial.batches("continuous time", sums, batches, progress, _size(batch_size, N, count)):
        rows, noise_of = _rows(index, batch_size, N), generator(seed, 6, index)
        x0 = as_model(pictures[rows]).to(device)
        times = draw_times(last, len(x0), noise_of)
        with torch.inference_mode():
            sums["prior"][rows] = prior_term(schedule, x0).double().cpu()
            for k, t_k in enumerate(times.unbind(dim=1)):
                t, eps = t_k.to(device), torch.randn(x0.shape, generator=noise_of, dtype=x0.dtype).to(device)
                if k == 0:
                    terms, _ = _evaluate(model, (model.config.variance,), x0, eps, t, decoder)
                    sums["decoder"][rows] = terms[0]
                else:
                    x0_hat = model.predict(q_marginal(schedule, x0, t).sample(eps), t).x0_hat
                    sums["transitions"][rows] += length[k] * denoising_term(schedule, x0, x0_hat, t).double().cpu()
    total, error = mean_and_error(bits_per_dim(torch.stack([*sums.values()]).sum(dim=0), model.data.dims))
    return to_json(
        Continuous(
            bound_bits_per_dim=total,
            bound_standard_error_bits_per_dim=error,
            images=N,
            looks_per_image=count,
            steps=schedule.T,
        )
    )


# The likelihood by the flow ODE


def ode_work(model: Denoiser, images: int, batch_size: int, probes: int | None, index: int | None = None) -> int:
    """Return the network evaluations of the ODE for `images` pictures, or one batch of them; a derivative counts as two."""
    each = 1 + 2 * (model.data.dims if probes is None else probes)
    most, here = min(ODE_STEPS, model.schedule.T - 1), _size(batch_size, images)
    walks = [len(flow_times(model.schedule, steps)) - 1 for steps in (most, max(1, most // 2))]
    fine, coarse = (1 + steps + 2 * min(2, steps) for steps in walks)  # the first two steps take three evaluations each
    again = here(0) * each * coarse if index in (0, None) else 0
    return (images if index is None else here(index)) * each * fine + again


def ode_likelihood(
    model: Denoiser,
    pictures: Tensor,
    seed: int,
    batch_size: int,
    partial: Partial,
    progress: Progress,
    device: torch.device | str = "cpu",
    decoder: Decoder = discretised_log_prob,
    probes: int | None = 1,
) -> dict[str, Any]:
    """Return the bound on −log p of pictures by the probability-flow ODE (`score` eq. 12).

    Each picture has one x_1 and one set of probes; as above, s/√N of the estimates includes the variance from all of these. The
    first batch is computed again with half the steps, the same x_1 and the same probes, to show the error of the solver.

    Args:
        pictures, decoder: see `diffusion_bound`.
        probes: random probes of the trace; None for the exact trace, one derivative for each dimension.

    Returns:
        The section `ode` of metrics.json.
    """
    N, steps = len(pictures), min(ODE_STEPS, model.schedule.T - 1)
    sums = {
        "decoder": torch.zeros(N, dtype=torch.float64),
        "flow": torch.zeros(N, dtype=torch.float64),
        "coarse": torch.zeros(min(N, batch_size), dtype=torch.float64),
    }

    def reverse(x_t: Tensor, t: Tensor) -> Gaussian:
        denoised = model.predict(x_t, t)
        return p_reverse(model.schedule, x_t, denoised.x0_hat, t, None, model.config.variance, denoised.fraction)

    def walk(index: int, count: int) -> ODEBound:
        x0 = as_model(pictures[_rows(index, batch_size, N)]).to(device)
        return ode_bound(model.predict, reverse, model.schedule, x0, generator(seed, 3, index), count, probes, decoder)

    batches = -(-N // batch_size)
    for index in partial.batches("ODE", sums, batches, progress, lambda i: ode_work(model, N, batch_size, probes, i)):
        rows, terms = _rows(index, batch_size, N), walk(index, steps)
        sums["decoder"][rows], sums["flow"][rows] = terms.decoder.cpu(), terms.flow.cpu()
        if index == 0:
            sums["coarse"][:] = walk(0, max(1, steps // 2)).total.cpu()
    decoder_bits, flow_bits, coarse = (bits_per_dim(sums[part], model.data.dims) for part in ("decoder", "flow", "coarse"))
    total, error = mean_and_error(decoder_bits + flow_bits)
    found = ODE(
        bound_bits_per_dim=total,
        bound_standard_error_bits_per_dim=error,
        images=N,
        steps=len(flow_times(model.schedule, steps)) - 1,
        probes="exact trace" if probes is None else probes,
        decoder_term_L_0_bits_per_dim=float(decoder_bits.mean()),
        flow_term_bits_per_dim=float(flow_bits.mean()),
        half_the_steps_change_bits_per_dim=float((coarse - (decoder_bits + flow_bits)[: len(coarse)]).mean()),
    )
    return to_json(found)


# The VAE


def vae_bound(
    model: VAE,
    pictures: Tensor,
    k: int,
    many: int,
    many_pictures: int,
    seed: int,
    batch_size: int,
    partial: Partial,
    progress: Progress,
    device: torch.device | str = "cpu",
    discretised: bool = True,
) -> dict[str, Any]:
    """Return the ELBO of pictures, its two terms, the KL of each latent, and the importance-weighted bounds.

    The ELBO is the mean of the log-weights of k draws of z, the importance-weighted bound their log-mean-exp: both use the same
    decodings. For a Bernoulli model, 8-bit pictures are binarised dynamically, once each: a pixel is 1 with its gray level as
    the probability.

    Args:
        pictures: (N C H W), uint8, or floating point in the model's scale.
        k: draws of z for every picture.
        many, many_pictures: draws of z for each of the first `many_pictures`; 0 pictures skip this bound.
        discretised: True for the mass on each gray level, False for the density.

    Returns:
        The section `likelihood` of metrics.json.
    """
    N, D = len(pictures), model.config.latents
    sums = {
        "elbo": torch.zeros(N, dtype=torch.float64),
        "kl": torch.zeros(N, dtype=torch.float64),
        "importance": torch.zeros(N, dtype=torch.float64),
        "latent_kl": torch.zeros(D, dtype=torch.float64),
        "latent_mean": torch.zeros(D, dtype=torch.float64),
        "latent_square": torch.zeros(D, dtype=torch.float64),
    }

    if model.binary and pictures.dtype == torch.uint8:
        pictures = binarise(to_model(pictures), generator(seed, 2, 0))

    def evaluate(rows: slice, noise_of: torch.Generator, draws: int) -> tuple[Tensor, Tensor]:
        x = as_model(pictures[rows]).to(device)
        noise = torch.randn(draws, len(x), D, generator=noise_of, dtype=x.dtype).to(device)
        return x, model.log_weights(x, noise, discretised).double().cpu()

    batches = -(-N // batch_size)
    for index in partial.batches("ELBO", sums, batches, progress, _size(batch_size, N, k)):
        rows = _rows(index, batch_size, N)
        with torch.inference_mode():
            x, weights = evaluate(rows, generator(seed, 0, index), k)
            q = model.encode(x)
            latent = Gaussian(q.mean.double().reshape(-1, 1), q.log_var.double().reshape(-1, 1))
            divergence = kl(latent, standard_normal(latent.mean)).reshape(-1, D).cpu()
            means = q.mean.double().cpu()
        # At the exact posterior every log-weight is log p(x): their mean varies less than with the KL in closed form.
        sums["elbo"][rows] = weights.mean(dim=0)
        sums["importance"][rows] = log_mean_exp(weights)
        sums["kl"][rows] = divergence.sum(dim=1)
        sums["latent_kl"] += divergence.sum(dim=0)
        sums["latent_mean"] += means.sum(dim=0)
        sums["latent_square"] += (means**2).sum(dim=0)
    subset = {"importance": torch.zeros(many_pictures, dtype=torch.float64)}
    small = max(1, batch_size // 8)
    for index in partial.batches(
        "importance weights", subset, -(-many_pictures // small), progress, _size(small, many_pictures, many)
    ):
        rows = _rows(index, small, many_pictures)
        with torch.inference_mode():
            subset["importance"][rows] = log_mean_exp(evaluate(rows, generator(seed, 1, index), many)[1])
    return _vae_section(model, sums, subset["importance"], k, many, discretised)


def _vae_section(model: VAE, sums: dict[str, Tensor], subset: Tensor, k: int, many: int, discretised: bool) -> dict[str, Any]:
    N = len(sums["elbo"])
    spread = (sums["latent_square"] - sums["latent_mean"] ** 2 / N) / (N - 1)
    elbo, error = mean_and_error(sums["elbo"])
    rows = [(1, sums["elbo"]), (k, sums["importance"])]
    if len(subset) > 1:  # fewer draws on the same pictures too, to compare with
        rows += [(draws, values[: len(subset)]) for draws, values in rows] + [(many, subset)]

    def in_bits(values: Tensor) -> dict[str, float]:
        """Return the bound on −log p in bits/dim for one on log p; nothing for binarised pictures."""
        if model.binary:
            return {}
        bound, error = mean_and_error(bits_per_dim(-values, model.data.dims))
        return {"bound_bits_per_dim": bound, "bound_standard_error_bits_per_dim": error}

    of_pixels = f"{'discretised' if discretised else 'density of'} {model.config.likelihood}"
    found = VAEBound(
        **in_bits(sums["elbo"]),
        images=N,
        likelihood="bernoulli" if model.binary else of_pixels,
        elbo_nats=elbo,
        elbo_standard_error_nats=error,
        draws_of_z_per_image=k,
        reconstruction_nats=float((sums["elbo"] + sums["kl"]).mean()),
        reconstruction_standard_error_nats=mean_and_error(sums["elbo"] + sums["kl"])[1],
        kl_nats=float(sums["kl"].mean()),
        kl_standard_error_nats=mean_and_error(sums["kl"])[1],
        kl_per_latent_nats=_digits(sums["latent_kl"] / N),
        posterior_mean_variance_per_latent=_digits(spread),
        latents=model.config.latents,
        active_latents=int((spread > ACTIVE_VARIANCE).sum()),
        binarisation="dynamic" if model.binary else None,
        importance_weighted=[
            Weighted(draws, len(values), *mean_and_error(values), **in_bits(values)) for draws, values in rows
        ],
    )
    return to_json(found)


# A VAE with a fitted prior


class Codes:
    """The DDPM of a `LatentDDPM` as a `Denoiser` of codes u; û_0 is not clipped, since codes are unbounded."""

    def __init__(self, model: LatentDDPM) -> None:
        self.config, self.schedule = model.config.ddpm, model.schedule
        self.data: DataSpec = model.latents
        self._model = model

    def predict(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Return û_0 and ε̂ for codes x_t (B, latent, side, side)."""
        return self._model.predict(x_t, t)


@dataclass(frozen=True)
class Encoded:
    """One z for each of N pictures, and what its ELBO needs but the prior, nats (N)."""

    z: Tensor
    reconstruction: Tensor
    entropy_of_q: Tensor
    standard_normal: Tensor

    def bound(self, vae: VAE, log_prior: Tensor, discretised: bool, codes: DiffusionBound | None = None) -> dict[str, Any]:
        """Return the section `likelihood` of metrics.json for log p(z), nats (N), by a fitted prior."""

        def bits(log_prior: Tensor) -> tuple[float, float]:
            return mean_and_error(bits_per_dim(-(self.reconstruction + self.entropy_of_q + log_prior), vae.data.dims))

        bound, error = bits(log_prior)
        return to_json(
            LatentBound(
                bound_bits_per_dim=bound,
                bound_standard_error_bits_per_dim=error,
                images=len(self.z),
                likelihood=f"{'discretised' if discretised else 'density of'} {vae.config.likelihood}",
                reconstruction_nats=float(self.reconstruction.mean()),
                entropy_of_q_nats=float(self.entropy_of_q.mean()),
                prior_nats=float(-log_prior.mean()),
                prior_standard_error_nats=mean_and_error(log_prior)[1],
                standard_normal_prior_bound_bits_per_dim=bits(self.standard_normal)[0],
                latents=vae.config.latents,
                codes=codes,
            )
        )


def encode(
    vae: VAE, pictures: Tensor, seed: int, batch_size: int, device: torch.device | str = "cpu", discretised: bool = True
) -> Encoded:
    """Draw one z ~ q(z|x) for each picture (N C H W), uint8 or in the model's scale; discretised: see `VAE.elbo`."""
    noise_of, found = generator(seed, 5, 0), []
    for some in pictures.split(batch_size):
        x = as_model(some).to(device)
        with torch.inference_mode():
            q = vae.encode(x)
            z = q.sample(torch.randn(q.mean.shape, generator=noise_of, dtype=x.dtype).to(device))
            terms = (vae.log_likelihood(z, x, discretised), entropy(q), standard_normal(z).log_prob(z))
            found.append((z, *(term.double().cpu() for term in terms)))
    return Encoded(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def latent_bound(
    model: LatentDDPM,
    pictures: Tensor,
    count: int,
    seed: int,
    batch_size: int,
    partial: Partial,
    progress: Progress,
    device: torch.device | str = "cpu",
    discretised: bool = True,
) -> dict[str, Any]:
    """Return the ELBO of pictures with the DDPM's bound for the prior (`latent`, eqs. 2 and 3), with one z for each picture.

    Args:
        pictures, count: see `diffusion_bound`; discretised: see `VAE.elbo`.

    Returns:
        The section `likelihood` of metrics.json.
    """
    encoded, codes = encode(model.vae, pictures, seed, batch_size, device, discretised), Codes(model)
    u = model.to_codes(encoded.z)
    sums = diffusion_sums(codes, u, count, seed, batch_size, partial, progress, device, Gaussian.log_prob)
    own = variances_of(codes).index(codes.config.variance)
    prior = sums["prior"] + sums["decoder"][own] + sums["transitions"][own] + float(model.log_scale)
    of_codes = _diffusion_section(codes, strata(codes.schedule.T, count), sums)
    return encoded.bound(model.vae, -prior, discretised, of_codes)


def mixture_bound(
    model: MixtureVAE,
    pictures: Tensor,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    discretised: bool = True,
) -> dict[str, Any]:
    """Return the ELBO of pictures with the mixture as prior (`mixture`, eq. 1), with one z for each picture.

    Returns:
        The section `likelihood` of metrics.json.
    """
    encoded = encode(model.vae, pictures, seed, batch_size, device, discretised)
    with torch.inference_mode():
        log_prior = torch.cat([model.prior.log_prob(z).double().cpu() for z in encoded.z.split(1024)])
    return encoded.bound(model.vae, log_prior, discretised)


# The samples


def draw_samples(
    model: Model, count: int, seed: int, batch_size: int, sampling: Sampling, partial: Partial, progress: Progress
) -> Tensor:
    """Draw the `count` samples of an evaluation with this seed, (count C H W) uint8."""
    sums = {"pictures": torch.zeros(count, *model.data.shape, dtype=torch.uint8)}
    work = _size(batch_size, count, 1 if isinstance(model, Decoding) else sampling.steps)
    part = f"samples-{count}-{sampling.sampler}-{sampling.variance}-{sampling.steps}"
    for index in partial.batches(part, sums, -(-count // batch_size), progress, work):
        rows = _rows(index, batch_size, count)
        first = seed * SEEDS_APART + rows.start
        sums["pictures"][rows] = torch.cat(list(draw(model, rows.stop - rows.start, first, sampling, batch_size)))
    return sums["pictures"]


# The plot


def plot_ledger(likelihood: dict[str, Any], path: Path) -> None:
    """Plot the terms of a DDPM's bound and its errors by t, or a VAE's KL by latent.

    For a VAE with a DDPM as its prior, plot the terms of that DDPM's bound on the codes.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    likelihood = likelihood.get("codes", likelihood)
    if "ledger" in likelihood:
        figure, panels = plt.subplots(1, 3, figsize=(13, 3.8), dpi=120, layout="constrained")
        _plot_terms(likelihood, *panels[:2])
        _plot_errors(likelihood["ledger"], panels[2])
    else:
        figure, axes = plt.subplots(figsize=(6, 3.5), dpi=120, layout="constrained")
        _plot_latents(likelihood, axes)
    figure.savefig(path)
    plt.close(figure)


def _plot_terms(likelihood: dict[str, Any], each: Any, together: Any) -> None:
    ledger, own, edges = likelihood["ledger"], likelihood["variance"], _edges(likelihood["ledger"])
    for name in sorted(likelihood["by_variance"], key=lambda name: name != own):
        mean, errors = (np.array(ledger[key][name]) for key in ("mean_term_bits_per_dim", "standard_error_bits_per_dim"))
        numbers = likelihood["by_variance"][name]
        total = f"{numbers['bound_bits_per_dim']:.3f} ± {numbers['bound_standard_error_bits_per_dim']:.3f}"
        style = {"linewidth": 1.8, "zorder": 3} if name == own else {"zorder": 2}
        each.stairs(mean, edges, baseline=None, label=SIGMA[name], color=SIGMA_COLOURS[name], **style)
        low, high = (np.append(v, v[-1]) for v in (mean - 2 * errors, mean + 2 * errors))
        each.fill_between(edges, low, high, step="post", color=SIGMA_COLOURS[name], alpha=0.2, linewidth=0)
        so_far = np.cumsum(np.append(likelihood["prior_term_L_T_bits_per_dim"], mean * np.diff(edges)))[1:]
        together.plot(
            ledger["last_t"],
            so_far,
            label=f"{SIGMA[name]}: {total}",
            marker=".",
            markersize=4 if len(mean) < 100 else 0,
            **style,
        )
    _along_t(each, edges, "bits/dim of one step", r"The terms of the bound: $L_0$ at $t=1$, then $L_{t-1}$")
    _along_t(together, edges, "bits/dim up to step t", "Their sum, from the clean end", yscale="linear")
    together.set_ylim(bottom=0)


def _plot_errors(ledger: dict[str, Any], axes: Any) -> None:
    for name, label, colour in (
        ("eps_hat", r"noise, $\hat\epsilon$", COLOURS["eps"]),
        ("x0_hat", r"picture, $\hat x_0$", COLOURS["x0_hat"]),
    ):
        values = ledger[f"{name}_mean_squared_error"]
        axes.stairs(values, _edges(ledger), baseline=None, label=label, color=colour, linewidth=1.8)
    _along_t(axes, _edges(ledger), "mean squared error", "How far off the network is")


def _along_t(axes: Any, edges: list[float], quantity: str, title: str, yscale: str = "log") -> None:
    axes.set(xscale="log", yscale=yscale, xlim=(edges[0], edges[-1]), xlabel="step t", ylabel=quantity)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _edges(ledger: dict[str, Any]) -> list[float]:
    return [0.5, *(last + 0.5 for last in ledger["last_t"])]


def _plot_latents(likelihood: dict[str, Any], axes: Any) -> None:
    pairs = zip(likelihood["kl_per_latent_nats"], likelihood["posterior_mean_variance_per_latent"], strict=True)
    ranked = sorted(pairs, reverse=True)
    colours = [COLOURS["kl"] if spread > ACTIVE_VARIANCE else "#999999" for _, spread in ranked]
    axes.bar(range(1, len(ranked) + 1), [divergence for divergence, _ in ranked], color=colours)
    active = f"{likelihood['active_latents']} of {likelihood['latents']} latents are active"
    axes.set(xlabel="latent, by its KL", ylabel="KL[q(z_j|x) ‖ p(z_j)], nats")
    axes.set_title(f"{active}, {likelihood['kl_nats']:.1f} nats in all", fontsize=10)
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
