"""The variational bound against data whose likelihood is known, and against its published definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genlab.config import DataSpec, DDPMConfig, UNetConfig
from genlab.ddpm import DDPM
from genlab.divergence import Gaussian, bits_per_dim, cross_entropy, standard_normal
from genlab.oracle import GaussianData
from genlab.process import p_reverse, q_marginal, q_posterior, q_step
from genlab.schedule import Schedule, cosine_schedule, linear_schedule
from genlab.vlb import (
    Ledger,
    Reverse,
    bound,
    denoising_term,
    draw_times,
    prior_term,
    step_term,
    strata,
    walk_bound,
)
from training.likelihood import diffusion_bound
from training.partial import Partial, Progress, generator

SCHEDULES = [
    pytest.param(schedule(T), id=f"{schedule.__name__}-{T}")
    for schedule in (linear_schedule, cosine_schedule)
    for T in (2, 3, 21, 100)
    if T > 20 or schedule is cosine_schedule
]


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def expected_bound(monkeypatch: pytest.MonkeyPatch) -> Callable[[Schedule, Reverse, Tensor], Ledger]:
    """The bound's exact expectation over x_1 … x_T, through `bound` itself, where μ_θ is linear in x_t and Σ is free of it.

    Each term is then a sum over dimensions of polynomials of degree 2 in that dimension's noise ε. Such a polynomial has the
    same mean under ε = ±1 with equal odds as under N(0, 1): all it sees is E[ε] = 0 and E[ε²] = 1. So two "draws" are enough,
    one all +1 and one all −1.
    """

    def expect(schedule: Schedule, reverse: Reverse, x0: Tensor) -> Ledger:
        draws = []
        for sign in (1.0, -1.0):
            monkeypatch.setattr(torch, "randn", lambda shape, sign=sign, **how: torch.full(shape, sign, dtype=how["dtype"]))
            draws.append(bound(schedule, reverse, x0, torch.Generator(), Gaussian.log_prob))
        monkeypatch.undo()
        return Ledger((draws[0].prior + draws[1].prior) / 2, (draws[0].steps + draws[1].steps) / 2)

    return expect


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_bound_of_standard_normal_data_is_its_negative_log_likelihood(
    schedule: Schedule, expected_bound: Callable[[Schedule, Reverse, Tensor], Ledger]
) -> None:
    """For data N(0, I) every q(x_t) is N(0, I), and p_θ(x_{t−1}|x_t) = N(√α_t x_t, β_t I) is q(x_{t−1}|x_t) itself.

    The chains of q and p_θ then have one joint distribution, so q(x_{1:T}|x_0) = p_θ(x_{1:T}|x_0) and the bound is tight: L_T +
    Σ L_{t−1} + L_0 = −log N(x_0; 0, I) for every x_0. A single term depends on its draw of x_t; the equality is one of means.
    """
    oracle = GaussianData.standard(schedule, (2, 3))

    def reverse(x_t: Tensor, t: Tensor) -> Gaussian:
        return p_reverse(schedule, x_t, oracle.predict(x_t, t).x0_hat, t, variance="beta")

    x0 = 2 * randn(0, 5, 2, 3)
    ledger = expected_bound(schedule, reverse, x0)
    assert ledger.steps.shape == (5, schedule.T)
    torch.testing.assert_close(ledger.total, -standard_normal(x0).log_prob(x0), rtol=1e-11, atol=1e-11)
    x_t, t = randn(1, 5, 2, 3), torch.full((5,), schedule.T)
    torch.testing.assert_close(reverse(x_t, t).mean, schedule.alpha[-1].sqrt() * x_t, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_along_one_chain_the_log_ratio_is_exact(schedule: Schedule) -> None:
    """log q(x_{1:T}|x_0) − log p_θ(x_{0:T}) = −log N(x_0; 0, I) for every single chain, since the two joints are one."""
    x = x0 = randn(0, 4, 3)
    ratio = torch.zeros(4, dtype=torch.float64)
    oracle = GaussianData.standard(schedule, (3,))
    for step in range(1, schedule.T + 1):
        t = torch.full((4,), step)
        forward = q_step(schedule, x, t)
        after = forward.sample(randn(step, 4, 3))
        backward = p_reverse(schedule, after, oracle.predict(after, t).x0_hat, t, variance="beta")
        ratio += forward.log_prob(after) - backward.log_prob(x)
        x = after
    ratio -= standard_normal(x).log_prob(x)
    torch.testing.assert_close(ratio, -standard_normal(x0).log_prob(x0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_bound_of_gaussian_data_is_loose_by_the_prior_alone(
    schedule: Schedule, expected_bound: Callable[[Schedule, Reverse, Tensor], Ledger]
) -> None:
    """With the exact reverse step, p_θ(x_{0:T−1}|x_T) = q(x_{0:T−1}|x_T), so that for every x_0

    L_VLB = −log q(x_0) + E_q(x_T|x_0) [log q(x_T) − log N(x_T; 0, I)].
    """
    mean, variance = torch.tensor([[0.5, -1.0]], dtype=torch.float64), torch.tensor([[0.3, 2.0]], dtype=torch.float64)
    oracle = GaussianData(schedule, mean[0], variance[0])
    x0 = mean + 1.5 * randn(0, 6, 2)
    end = q_marginal(schedule, x0, torch.full((6,), schedule.T))
    alpha_bar = schedule.alpha_bar[-1]
    q_T = Gaussian(alpha_bar.sqrt() * mean, (alpha_bar * variance + 1 - alpha_bar).log())
    loose = cross_entropy(end, standard_normal(end.mean)) - cross_entropy(end, q_T)
    expected = loose - Gaussian(mean, variance.log()).log_prob(x0)
    torch.testing.assert_close(expected_bound(schedule, oracle.reverse, x0).total, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_the_posterior_variance_a_term_is_an_error_of_x0(schedule: Schedule) -> None:
    oracle, x0 = GaussianData.standard(schedule, (2,)), randn(0, 7, 2)
    for step in range(2, schedule.T + 1):
        t = torch.full((7,), step)
        x_t = q_marginal(schedule, x0, t).sample(randn(step, 7, 2))
        x0_hat = oracle.predict(x_t, t).x0_hat

        def reverse(x_t: Tensor, t: Tensor, x0_hat: Tensor = x0_hat) -> Gaussian:
            return p_reverse(schedule, x_t, x0_hat, t, variance="posterior")

        expected = step_term(schedule, reverse, x0, x_t, t, Gaussian.log_prob)
        torch.testing.assert_close(denoising_term(schedule, x0, x0_hat, t), expected, rtol=1e-7, atol=1e-12)


def test_a_worse_reverse_process_has_a_larger_bound(expected_bound: Callable[[Schedule, Reverse, Tensor], Ledger]) -> None:
    """Averaged over the data, no Σ and no x̂_0 beats the exact one; here E over x_0 is again exact by x_0 = ±1."""
    schedule = cosine_schedule(20)
    oracle = GaussianData.standard(schedule, (1,))
    x0 = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    best = float(expected_bound(schedule, oracle.reverse, x0).total.mean())
    assert best == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=1e-10)
    for scale, variance in ((1.0, "posterior"), (0.9, "beta"), (1.1, "beta")):

        def reverse(x_t: Tensor, t: Tensor, scale: float = scale, variance: str = variance) -> Gaussian:
            return p_reverse(schedule, x_t, scale * oracle.predict(x_t, t).x0_hat, t, variance=variance)  # type: ignore[arg-type]

        assert float(expected_bound(schedule, reverse, x0).total.mean()) > best + 1e-4


def test_the_best_step_term_is_not_zero() -> None:
    """Correction 3: p_θ does not see x_0, so even the exact reverse step leaves L_{t−1} = ½ log(β_t/β̃_t) on average."""
    schedule = cosine_schedule(10)
    oracle = GaussianData.standard(schedule, (1,))
    for step in range(2, 11):
        t = torch.full((4,), step)
        x0 = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
        x_t = q_marginal(schedule, x0, t).sample(torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64))
        term = step_term(schedule, oracle.reverse, x0, x_t, t, Gaussian.log_prob).mean()
        gap = 0.5 * (schedule.beta[step].log() - q_posterior(schedule, x0, x0, t).log_var[0, 0])
        assert float(term) == pytest.approx(float(gap), rel=1e-10)
        assert float(term) > 0


def test_random_draws_have_the_mean_that_the_oracle_says() -> None:
    schedule = linear_schedule(50)
    oracle = GaussianData.standard(schedule, (4,))
    x0 = randn(0, 1, 4)
    total = bound(schedule, oracle.reverse, x0.expand(4000, 4), torch.Generator().manual_seed(1), Gaussian.log_prob).total
    expected = -float(standard_normal(x0).log_prob(x0))
    assert float(total.mean()) == pytest.approx(expected, abs=5 * float(total.std()) / 4000**0.5)


def test_the_ledger_has_every_term_once_in_its_place() -> None:
    schedule = cosine_schedule(6)
    oracle = GaussianData.standard(schedule, (3,))
    x0 = randn(0, 2, 3)
    ledger = bound(schedule, oracle.reverse, x0, torch.Generator().manual_seed(3), Gaussian.log_prob)
    walked = list(walk_bound(schedule, oracle.reverse, x0, torch.Generator().manual_seed(3), Gaussian.log_prob))
    assert [t for t, _ in walked] == [6, 5, 4, 3, 2, 1]
    for t, term in walked:
        torch.testing.assert_close(ledger.steps[:, t - 1], term, rtol=0, atol=0)
    torch.testing.assert_close(ledger.total, ledger.prior + sum(term for _, term in walked))
    torch.testing.assert_close(ledger.prior, prior_term(schedule, x0))
    assert bool((ledger.prior > 0).all())
    assert bool((ledger.steps[:, 1:] >= 0).all())  # correction 2: each is a KL divergence


# ---- the published definition


def calc_bpd_loop(
    betas: Tensor, x_start: Tensor, noise: dict[int, Tensor], network: Callable[[Tensor, Tensor], Tensor], variance: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The bound as Nichol & Dhariwal 2021 define it (section 2.1, eqs. 4–7, and 3.1, eq. 15), in bits per dimension.

    Their t runs from 0 to T − 1. Their fixed Σ = β ("beta") is β̃_2 at t = 0, for a better decoder. x̂_0 is held within
    [−1, 1], as their calc_bpd_loop does by default. Returns the total (B), the prior's (B) and the terms (B, T), t = 0 first.

    Args:
        network: gives ε̂, then v.
    """
    betas, x_start = betas.double(), x_start.double()
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
    posterior_variance = betas * (1 - alphas_cumprod_prev) / (1 - alphas_cumprod)
    posterior_log_variance_clipped = torch.cat([posterior_variance[1:2], posterior_variance[1:]]).log()
    coefficient_x_start = betas * alphas_cumprod_prev.sqrt() / (1 - alphas_cumprod)
    coefficient_x_t = (1 - alphas_cumprod_prev) * (1 - betas).sqrt() / (1 - alphas_cumprod)

    def mean_flat(values: Tensor) -> Tensor:
        return values.flatten(1).mean(1) / math.log(2.0)

    def normal_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
        return 0.5 * (-1.0 + logvar2 - logvar1 + torch.exp(logvar1 - logvar2) + (mean1 - mean2) ** 2 * torch.exp(-logvar2))

    def cdf(values: Tensor) -> Tensor:
        return 0.5 * torch.erfc(-values / math.sqrt(2.0))

    terms = []
    for t in range(len(betas)):
        x_t = alphas_cumprod[t].sqrt() * x_start + (1 - alphas_cumprod[t]).sqrt() * noise[t].double()
        output = network(x_t, torch.full((len(x_start),), t)).double()
        eps = output[:, : x_start.shape[1]]
        pred_xstart = (x_t / alphas_cumprod[t].sqrt() - (1 / alphas_cumprod[t] - 1).sqrt() * eps).clamp(-1, 1)
        model_mean = coefficient_x_start[t] * pred_xstart + coefficient_x_t[t] * x_t
        model_log_variance = posterior_log_variance_clipped[t].expand_as(x_t)
        if variance == "beta":
            model_log_variance = torch.cat([posterior_variance[1:2], betas[1:]]).log()[t].expand_as(x_t)
        if variance == "learned":
            frac = (output[:, x_start.shape[1] :] + 1) / 2
            model_log_variance = frac * betas[t].log() + (1 - frac) * posterior_log_variance_clipped[t]
        if t > 0:
            true_mean = coefficient_x_start[t] * x_start + coefficient_x_t[t] * x_t
            true_log_variance = posterior_log_variance_clipped[t]
            terms.append(mean_flat(normal_kl(true_mean, true_log_variance, model_mean, model_log_variance)))
        else:
            inv_stdv = torch.exp(-0.5 * model_log_variance)
            plus = (x_start - model_mean + 1.0 / 255) * inv_stdv
            minus = (x_start - model_mean - 1.0 / 255) * inv_stdv
            mass = torch.where(x_start < -0.999, cdf(plus), torch.where(x_start > 0.999, cdf(-minus), cdf(plus) - cdf(minus)))
            terms.append(mean_flat(-mass.log()))
    qt_mean, qt_log_variance = alphas_cumprod[-1].sqrt() * x_start, (1 - alphas_cumprod[-1]).log()
    zero = torch.zeros((), dtype=torch.float64)
    prior = mean_flat(normal_kl(qt_mean, qt_log_variance, zero, zero))
    stacked = torch.stack(terms, dim=1)
    return stacked.sum(dim=1) + prior, prior, stacked


def random_model(variance: str, schedule: str) -> tuple[DDPM, Tensor]:
    """A network whose answer depends on everything, and three pictures, uint8."""
    unet = UNetConfig(width=8, patch=2, multipliers=(1,))
    config = DDPMConfig(T=21, schedule=schedule, variance=variance, prediction="eps", unet=unet)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = DDPM(config, DataSpec(size=8)).eval()
    torch.nn.init.normal_(model.unet.leave[-1].weight, std=0.05)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=generator)
    pixels[0] = torch.tensor([0, 255], dtype=torch.uint8).repeat(32).reshape(1, 8, 8)
    return model, pixels


@pytest.mark.parametrize("variance", ["posterior", "learned"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_agrees_with_the_published_definition(variance: str, schedule: str) -> None:
    model, pixels = random_model(variance, schedule)
    x0 = pixels / 127.5 - 1
    with torch.no_grad():
        ledger = bound(model.schedule, model.reverse, x0, torch.Generator().manual_seed(2))
        again = torch.Generator().manual_seed(2)
        noise = {t: torch.randn(x0.shape, generator=again) for t in reversed(range(21))}

        def network(x_t: Tensor, t: Tensor) -> Tensor:
            return model.network(x_t.float(), t + 1)

        total, prior, terms = calc_bpd_loop(model.schedule.beta[1:], x0, noise, network, variance)
    bits = bits_per_dim(torch.cat([ledger.prior[:, None], ledger.steps, ledger.total[:, None]], dim=1).double(), 64)
    torch.testing.assert_close(bits, torch.cat([prior[:, None], terms, total[:, None]], dim=1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_what_is_measured_agrees_with_the_published_definition_for_every_variance(schedule: str) -> None:
    """training/evaluate.py's way: all three Σ from the same looks, every t, the noise of each batch from its own generator."""
    model, pixels = random_model("learned", schedule)
    T, progress = model.schedule.T, Progress(1, "evaluation")
    section = diffusion_bound(model, pixels, T, 4, 2, Partial(None, {}), progress)
    progress.close()
    noise: dict[int, list[Tensor]] = {t: [] for t in range(T)}
    for index, size in enumerate((2, 1)):
        again = generator(4, 0, index)
        draw_times(strata(T, T), size, again)
        for t in range(T):
            noise[t].append(torch.randn((size, 1, 8, 8), generator=again))
    all_noise = {t: torch.cat(parts) for t, parts in noise.items()}

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        return model.network(x_t.float(), t + 1)

    for variance in ("posterior", "beta", "learned"):
        with torch.no_grad():
            total, prior, terms = calc_bpd_loop(model.schedule.beta[1:], pixels / 127.5 - 1, all_noise, network, variance)
        ours, ledger = section["by_variance"][variance], section["ledger"]["mean_term_bits_per_dim"][variance]
        decoder = ours["decoder_term_L_0_bits_per_dim"]
        if variance == "beta":  # ours takes Σ = β_1 at its word; theirs β̃_2, which is that of "posterior"
            theirs = section["by_variance"]["posterior"]["decoder_term_L_0_bits_per_dim"]
            assert abs(theirs - decoder) > 1e-3
            ours["bound_bits_per_dim"] += theirs - decoder
            decoder = theirs
        assert ours["bound_bits_per_dim"] == pytest.approx(float(total.mean()), abs=1e-4)
        assert decoder == pytest.approx(float(terms[:, 0].mean()), abs=1e-4)
        assert section["prior_term_L_T_bits_per_dim"] == pytest.approx(float(prior.mean()), abs=1e-6)
        torch.testing.assert_close(torch.tensor(ledger[1:]).double(), terms.mean(dim=0)[1:], rtol=1e-4, atol=1e-4)
