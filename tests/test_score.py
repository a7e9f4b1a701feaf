"""Scores, walks along them and the likelihood of the flow, against data whose every q(x_t) is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.config import DataSpec, DDPMConfig, UNetConfig
from genlab.ddpm import DDPM
from genlab.divergence import Gaussian, bits_per_dim, standard_normal
from genlab.oracle import DataSetOracle, GaussianData, Mixture, Oracle
from genlab.process import Denoised, Predict, q_marginal, x0_from_eps
from genlab.sampler import History, Noise, walk
from genlab.schedule import Schedule, at, cosine_schedule, linear_schedule, mixed_schedule
from genlab.score import (
    Flow,
    _evaluate,
    _probes,
    annealed_times,
    denoising_loss,
    eps_from_score,
    flow_times,
    langevin,
    ode_bound,
    ode_log_likelihood,
    reverse_sde,
    score_from_eps,
    walk_likelihood,
    x0_from_score,
)

LINEAR, COSINE, MIXED = linear_schedule(1000), cosine_schedule(1000), mixed_schedule(1000)
SCHEDULES = [pytest.param(LINEAR, id="linear"), pytest.param(COSINE, id="cosine"), pytest.param(MIXED, id="mixed")]


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ones(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.long)


def tilted(schedule: Schedule, D: int = 3) -> GaussianData:
    """Gaussian data with axes of quite different lengths, none along a dimension."""
    axes = torch.linalg.qr(randn(3, D, D)).Q
    return GaussianData(schedule, 0.2 * randn(4, D), axes @ torch.logspace(-3, 0.3, D, dtype=torch.float64).diag() @ axes.T)


def clover(schedule: Schedule) -> Mixture:
    """Three blobs in the plane with weights 0.2, 0.3 and 0.5."""
    mean = torch.tensor([[-0.9, -0.4], [0.8, -0.5], [0.1, 0.9]], dtype=torch.float64)
    return Mixture(schedule, f64(0.2, 0.3, 0.5), mean, f64(0.03, 0.03, 0.03)[:, None])


def noisy(oracle: Oracle, count: int, seed: int = 0) -> Tensor:
    """Draws of x_1."""
    x0 = oracle.sample(count, seeded(seed))
    return q_marginal(oracle.schedule, x0, ones(x0)).sample(randn(seed + 100, *x0.shape))


class Cloud(Noise):
    """Noise for all points of a cloud from one stream."""

    def __init__(self, seed: int, *shape: int) -> None:
        super().__init__((seeded(seed),), shape)

    def draw(self) -> Tensor:
        return super().draw()[0]


class Fixed(Noise):
    """Noise that is always the same."""

    def __init__(self, value: float) -> None:
        super().__init__((), ())
        object.__setattr__(self, "draw", lambda: torch.tensor(value, dtype=torch.float64))


# ---- the score itself


@pytest.mark.parametrize("make", [tilted, clover])
def test_the_score_is_the_gradient_of_the_log_density(make: Callable[[Schedule], Oracle]) -> None:
    oracle, times = make(LINEAR), torch.tensor([1, 50, 300, 1000])
    x_t = oracle.sample(4, seeded()).requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x_t, times).sum(), x_t)
    eps_hat = oracle.predict(x_t.detach(), times).eps_hat
    torch.testing.assert_close(score_from_eps(LINEAR, eps_hat, times), gradient, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(eps_from_score(LINEAR, gradient, times), eps_hat, rtol=1e-8, atol=1e-8)


def test_the_score_given_x0_is_the_gradient_of_its_gaussian() -> None:
    times, x0, eps = torch.tensor([1, 50, 300, 1000]), randn(0, 4, 1, 2, 2), randn(1, 4, 1, 2, 2)
    q = q_marginal(LINEAR, x0, times)
    x_t = q.sample(eps).requires_grad_()
    (gradient,) = torch.autograd.grad(q.log_prob(x_t).sum(), x_t)
    torch.testing.assert_close(score_from_eps(LINEAR, eps, times), gradient, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(x0_from_score(LINEAR, x_t.detach(), gradient, times), x0, rtol=1e-8, atol=1e-8)


def test_tweedie_gives_the_weighted_mean_of_a_data_set() -> None:
    oracle, times = DataSetOracle(LINEAR, randn(0, 6, 2)), torch.tensor([100, 300, 600])
    x_t = randn(1, 3, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x_t, times).sum(), x_t)
    mean = oracle.weights(x_t.detach(), times) @ oracle.pictures
    torch.testing.assert_close(x0_from_score(LINEAR, x_t.detach(), gradient, times), mean, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [20, 400])
def test_denoising_and_explicit_score_matching_differ_by_a_constant(t: int) -> None:
    """Eq. 4 and its C by Gauss–Hermite quadrature over x_0 ~ N(0.4, 0.3) and ε, for guesses at the score of any kind."""
    node, weight = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
    weight = weight / weight.sum()
    x0, eps = (0.4 + math.sqrt(0.3) * node).repeat_interleave(60)[:, None], node.repeat(60)[:, None]
    joint, times = torch.outer(weight, weight).flatten(), torch.full((3600,), t)
    data = GaussianData(LINEAR, f64(0.4), f64(0.3))
    alpha_bar = LINEAR.alpha_bar[t]
    spread = (alpha_bar * 0.3 + 1 - alpha_bar).sqrt()
    x_t = (alpha_bar.sqrt() * 0.4 + spread * node)[:, None]  # its own marginal, for the explicit side
    exact = data.score(x_t, torch.full((60,), t))
    C = 1 - (1 - alpha_bar) * (weight * exact[:, 0] ** 2).sum()
    for guess in (torch.sin, lambda x: -0.7 * x, lambda x: 0 * x, lambda x: data.predict(x, torch.full((len(x),), t)).eps_hat):

        def predict(x: Tensor, now: Tensor, guess: Callable[[Tensor], Tensor] = guess) -> Denoised:
            return Denoised(guess(x), x0_from_eps(LINEAR, x, guess(x), now), None)

        denoising = (joint * denoising_loss(LINEAR, predict, x0, times, eps)).sum()
        error = score_from_eps(LINEAR, guess(x_t), torch.full((60,), t)) - exact
        explicit = (1 - alpha_bar) * (weight * error[:, 0] ** 2).sum()
        assert float(denoising) == pytest.approx(float(explicit + C), rel=1e-9)


# ---- walks along it


def weights_and_moments(x: Tensor, oracle: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    """How a cloud is spread over the mixture's components: their shares, mean and variance."""
    nearest = torch.cdist(x, oracle.mean).argmin(dim=1)
    groups = [x[nearest == k] for k in range(len(oracle.mean))]
    shares = torch.tensor([len(group) / len(x) for group in groups], dtype=torch.float64)
    return shares, torch.stack([g.mean(0) for g in groups]), torch.stack([g.var(0) for g in groups])


def is_the_mixture(x: Tensor, oracle: Mixture, slack: float) -> None:
    """Shares, means and variances of the components, within 4 standard errors and the method's own `slack`."""
    shares, means, variances = weights_and_moments(x, oracle)
    n, v = len(x), float(oracle.variance[0, 0])
    assert float((shares - oracle.weight).abs().max()) < 4 * 0.5 / n**0.5 + slack
    assert float((means - oracle.mean).abs().max()) < 4 * (v / (0.2 * n)) ** 0.5 + slack * v**0.5
    assert float((variances / v - 1).abs().max()) < 4 * (2 / (0.2 * n)) ** 0.5 + slack


@pytest.mark.parametrize("t", [30, 500])
def test_langevin_has_the_bias_that_a_gaussian_shows(t: int) -> None:
    """A step is x ← a x + b z around the mean; it rests at the variance b²/(1 − a²)."""
    rate, data = 0.3, GaussianData(LINEAR, f64(0.0), f64(0.2))
    now = torch.tensor([t])
    at_one = data.predict(f64(1.0)[None], now)
    a, _ = langevin(LINEAR, Fixed(0.0), rate)(History(), f64(1.0)[None], at_one, now, now)
    at_zero = data.predict(f64(0.0)[None], now)
    b, _ = langevin(LINEAR, Fixed(1.0), rate)(History(), f64(0.0)[None], at_zero, now, now)
    V = float(LINEAR.alpha_bar[t] * 0.2 + 1 - LINEAR.alpha_bar[t])
    eta = rate * float(1 - LINEAR.alpha_bar[t])
    assert float(b**2 / (1 - a**2)) == pytest.approx(V / (1 - eta / (2 * V)), rel=1e-12)
    assert float(b**2) == pytest.approx(2 * eta, rel=1e-12)


def test_langevin_keeps_a_mixture_at_its_level() -> None:
    schedule = cosine_schedule(100)
    oracle, t, n = clover(schedule), 12, 4000
    x0 = oracle.sample(n, seeded())
    x = q_marginal(schedule, x0, torch.full((n,), t)).sample(randn(1, n, 2))
    *_, last = walk(oracle.predict, langevin(schedule, Cloud(2, n, 2), 0.1), x, [t] * 61)
    alpha_bar = schedule.alpha_bar[t]
    there = Mixture(schedule, oracle.weight, alpha_bar.sqrt() * oracle.mean, alpha_bar * oracle.variance + 1 - alpha_bar)
    is_the_mixture(last.x_s, there, slack=0.05)
    assert float((last.x_s - x).abs().mean()) > 0.1  # it did move


def test_annealed_langevin_makes_the_mixture_from_noise() -> None:
    schedule = cosine_schedule(100)
    oracle, n = clover(schedule), 2000
    times = annealed_times(100, 25, 8)
    *_, last = walk(oracle.predict, langevin(schedule, Cloud(2, n, 2), 0.2), randn(1, n, 2), times)
    is_the_mixture(last.x_s, oracle, slack=0.15)


def test_annealed_times_stay_and_go_down() -> None:
    assert annealed_times(100, 4, 2) == [100, 100, 75, 75, 50, 50, 25, 25, 0]
    with pytest.raises(ValueError, match="expected at least 1 step at each level, got 0"):
        annealed_times(100, 4, 0)
    with pytest.raises(ValueError, match="expected a step rate between 0 and 2, got 2"):
        langevin(LINEAR, Fixed(0.0), 2)


def test_the_reverse_sde_makes_the_mixture_from_noise() -> None:
    schedule = cosine_schedule(200)
    oracle, n = clover(schedule), 4000
    *_, last = walk(oracle.predict, reverse_sde(schedule, Cloud(2, n, 2)), randn(1, n, 2), list(range(200, -1, -1)))
    is_the_mixture(last.x_s, oracle, slack=0.05)


def test_short_steps_of_the_reverse_sde_have_its_drift_and_diffusion() -> None:
    """(x_s − x_t)/β → ½ x + s without noise, and the noise alone is √β z; from eq. 6 with β(τ)dτ = β."""
    errors = []
    for T in (1000, 10_000):
        schedule = linear_schedule(T)
        oracle, t = clover(schedule), torch.full((5,), T // 2)
        x_t = randn(0, 5, 2)
        predicted, beta = oracle.predict(x_t, t), schedule.beta[T // 2]
        still, _ = reverse_sde(schedule, Fixed(0.0))(History(), x_t, predicted, t, t - 1)
        drift = 0.5 * x_t + oracle.score(x_t, t)
        errors.append(float(((still - x_t) / beta - drift).abs().max()))
        kicked, _ = reverse_sde(schedule, Fixed(1.0))(History(), x_t, predicted, t, t - 1)
        torch.testing.assert_close(kicked - still, beta.sqrt().expand_as(x_t), rtol=1e-9, atol=1e-12)
    assert errors[0] < 0.01
    assert errors[1] < errors[0] / 8


# ---- the flow and its likelihood


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 10, 100, 999])
def test_the_times_of_the_flow_rise_evenly_in_u(schedule: Schedule, steps: int) -> None:
    times = flow_times(schedule, steps)
    assert times[0] == 1
    assert times[-1] == 1000
    assert all(s < t for s, t in pairwise(times))
    assert len(times) <= steps + 1
    u = torch.log(torch.tan(torch.acos(schedule.alpha_bar[1:].sqrt()) / 2))
    even, chain = float(u[-1] - u[0]) / steps, float((u[1:] - u[:-1]).max())
    assert max(float(u[t - 1] - u[s - 1]) for s, t in pairwise(times)) <= even + chain


def exactly(flow_end: Tensor, log_det: Tensor, oracle: Oracle) -> Tensor:
    """log q(x_1) as the flow has it with q(x_T) itself, not N(0, I), at its end."""
    T = torch.full((len(flow_end),), oracle.schedule.T)
    return oracle.log_prob(flow_end, T) + log_det.mean(dim=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("variance", [0.0, 1e-5, 3e-4, 0.01, 0.3, 4.0])
def test_the_likelihood_of_gaussian_data_is_exact(schedule: Schedule, variance: float) -> None:
    oracle = GaussianData(schedule, f64(0.3, -0.5), f64(variance, variance))
    x_1 = noisy(oracle, 200)
    flow = ode_log_likelihood(oracle.predict, schedule, x_1, seeded(), probes=None)
    exact = oracle.log_prob(x_1, ones(x_1))
    assert abs(float(bits_per_dim(flow.log_prob - exact, 2).mean())) < 1e-3
    # Sample by sample, up to what N(0, I) differs from q(x_T).
    error = bits_per_dim(exactly(flow.x_t, flow.log_det, oracle) - exact, 2)
    assert float(error.abs().max()) < (6e-3 if schedule is MIXED else 3e-3)  # a quarter of its times is for very little noise
    assert float(error.abs().mean()) < 1e-3
    assert bool((flow.error == 0).all())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_likelihood_of_tilted_gaussian_and_mixture_data_is_exact(schedule: Schedule) -> None:
    for oracle, dims in ((tilted(schedule), 3), (clover(schedule), 2)):
        x_1 = noisy(oracle, 200)
        flow = ode_log_likelihood(oracle.predict, schedule, x_1, seeded(), probes=None)
        exact = oracle.log_prob(x_1, ones(x_1))
        assert abs(float(bits_per_dim(flow.log_prob - exact, dims).mean())) < 1e-3
        assert float(bits_per_dim(exactly(flow.x_t, flow.log_det, oracle) - exact, dims).abs().mean()) < 1e-3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_flow_takes_gaussian_data_to_noise_by_its_closed_map(schedule: Schedule) -> None:
    """Along an axis of variance v, x_t − √ᾱ_t m grows like √(ᾱ_t v + 1 − ᾱ_t)."""
    oracle = tilted(schedule)
    variance, axes = torch.linalg.eigh(oracle.covariance)
    x_1 = noisy(oracle, 50)
    for flow in walk_likelihood(oracle.predict, schedule, x_1, seeded(), probes=None):
        alpha_bar = schedule.alpha_bar[[1, flow.t]][:, None]
        std = (alpha_bar * variance + 1 - alpha_bar).sqrt()
        mean = alpha_bar.sqrt() * oracle.mean
        expected = mean[1] + ((x_1 - mean[0]) @ axes * std[1] / std[0]) @ axes.T
        torch.testing.assert_close(flow.x_t, expected, rtol=0, atol=5e-3)
        det = (std[1] / std[0]).log().sum()
        torch.testing.assert_close(flow.log_det.mean(0), det.expand(50), rtol=0, atol=3e-3)
    assert flow.t == 1000


def test_twice_the_steps_leave_an_eighth_of_the_error() -> None:
    schedule = cosine_schedule(8000)
    oracle = GaussianData(schedule, f64(0.3), f64(2.0))
    x_1 = noisy(oracle, 50)
    exact, errors = oracle.log_prob(x_1, ones(x_1)), []
    for steps in (40, 80):
        flow = ode_log_likelihood(oracle.predict, schedule, x_1, seeded(), steps, probes=None)
        errors.append(float((exactly(flow.x_t, flow.log_det, oracle) - exact).abs().mean()))
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.35)


def bent(schedule: Schedule) -> Predict:
    """A smooth x̂_0 that is no distribution's, as a network's is."""
    mix = randn(8, 3, 3)

    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        x0_hat = 0.6 * torch.tanh(x_t @ mix.to(x_t)) + 0.2 * torch.sin(2 * x_t)
        alpha_bar = at(schedule.alpha_bar, t, x_t)
        return Denoised((x_t - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt(), x0_hat, None)

    return predict


def test_the_likelihood_is_that_of_the_map_itself() -> None:
    """log p(x_1) = log N(x_T) + log |det ∂x_T/∂x_1|, the Jacobian by central differences of the whole walk."""
    x_1, h = 0.02 * randn(0, 1, 3), 1e-6
    moved = torch.cat([x_1, x_1 + h * torch.eye(3), x_1 - h * torch.eye(3)])
    flow = ode_log_likelihood(bent(COSINE), COSINE, moved, seeded(), steps=400, probes=None)
    jacobian = (flow.x_t[1:4] - flow.x_t[4:]) / (2 * h)
    expected = standard_normal(flow.x_t[:1]).log_prob(flow.x_t[:1]) + jacobian.det().abs().log()
    assert float(flow.log_prob[0]) == pytest.approx(float(expected), abs=0.01)
    assert float(expected) - float(standard_normal(flow.x_t[:1]).log_prob(flow.x_t[:1])) > 5  # far from no change


def test_probes_estimate_the_trace_without_bias_and_know_their_error() -> None:
    x_1 = 0.02 * randn(0, 2, 3)

    def guess(probes: int | None, seed: int = 0) -> Flow:
        return ode_log_likelihood(bent(COSINE), COSINE, x_1, seeded(seed), steps=8, probes=probes)

    exact, many = guess(None), guess(150)
    assert bool((many.error > 0).all())
    assert bool(((many.log_prob - exact.log_prob).abs() < 4 * many.error).all())
    torch.testing.assert_close(many.x_t, exact.x_t)
    few = torch.stack([guess(6, seed).log_prob for seed in range(30)])
    # Estimates by 6 probes scatter by √25 times the error of one by 150.
    torch.testing.assert_close(few.std(dim=0), many.error * 5, rtol=0.45, atol=0)
    assert bool(guess(1).error.isnan().all())


def test_one_probe_is_exact_where_dimensions_do_not_mix() -> None:
    oracle = GaussianData(LINEAR, torch.zeros(1, 2, 2).double(), torch.rand(1, 2, 2, generator=seeded()).double() + 0.1)
    x_1 = noisy(oracle, 3)
    one, all_four = (ode_log_likelihood(oracle.predict, LINEAR, x_1, seeded(), 20, probes) for probes in (1, None))
    torch.testing.assert_close(one.log_prob, all_four.log_prob, rtol=1e-9, atol=1e-9)


# ---- the bound for pictures


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_bound_of_a_perfect_model_is_the_exact_likelihood(schedule: Schedule) -> None:
    """−log p(x_0|x_1) + log q(x_1|x_0) − log p(x_1) = −log q(x_0) for every x_1, by Bayes' rule."""
    oracle = GaussianData(schedule, f64(-0.2, -0.2), f64(0.05, 0.4))
    x0 = oracle.sample(200, seeded())
    bound = ode_bound(oracle.predict, oracle.reverse, schedule, x0, seeded(1), probes=None, decoder=Gaussian.log_prob)
    exact = -Gaussian(oracle.mean, oracle.covariance.log()).log_prob(x0)
    error = bits_per_dim(bound.total - exact, 2)
    assert abs(float(error.mean())) < 1e-3
    assert float(error.abs().max()) < 0.02
    assert float(bound.decoder.std()) > 0.1  # neither term alone is steady


def test_each_of_eight_pictures_has_the_probability_one_eighth() -> None:
    """Eight 8-bit pictures, far apart: x_1 tells them, so p(x_0|x_1) = 1, and the whole of log 8 lies in the flow."""
    levels = torch.tensor([[10, 30], [240, 20], [130, 140], [20, 220], [250, 250], [90, 70], [180, 60], [60, 160]])
    pictures = levels.double() / 127.5 - 1
    oracle = DataSetOracle(COSINE, pictures)

    def reverse(x_t: Tensor, t: Tensor) -> Gaussian:
        return Gaussian(oracle.predict(x_t, t).x0_hat, torch.full_like(x_t, -16.0))

    repeated = pictures.repeat(25, 1)
    bound = ode_bound(oracle.predict, reverse, COSINE, repeated, seeded(), steps=300, probes=None)
    assert float(bound.decoder.abs().max()) < 1e-6
    assert float(bound.total.mean()) == pytest.approx(math.log(8), abs=0.02)


def test_a_network_is_measured_as_it_is() -> None:
    """In float32, within inference mode, weights with gradients left alone, x_1 and probes from the generator."""
    torch.manual_seed(0)
    config = DDPMConfig(T=50, variance="learned", unet=UNetConfig(patch=1, width=8, multipliers=(1,)))
    model = DDPM(config, DataSpec("test", 1, 4)).eval()
    torch.nn.init.normal_(model.unet.leave[2].weight, std=0.05)
    x0 = torch.rand(3, 1, 4, 4, generator=seeded()) * 2 - 1
    arguments = (model.predict, model.reverse, model.schedule, x0)
    with torch.inference_mode():
        inside = ode_bound(*arguments, seeded(3), steps=10)
    again, other = ode_bound(*arguments, seeded(3), steps=10), ode_bound(*arguments, seeded(4), steps=10)
    assert torch.equal(inside.total, again.total)
    assert not torch.equal(other.total, again.total)
    assert all(parameter.grad is None for parameter in model.parameters())
    double, exact = model.double(), ode_bound(*arguments[:3], x0.double(), seeded(3), steps=10)
    assert double is model
    assert exact.total.shape == (3,)
    assert bool(torch.isfinite(exact.total).all())


def test_a_walk_can_be_watched_and_left() -> None:
    calls = []

    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        calls.append(int(t[0]))
        return bent(LINEAR)(x_t, t)

    frames = walk_likelihood(predict, LINEAR, randn(0, 2, 3), seeded(), steps=20)
    first = next(frames)
    before = len(calls)
    assert (first.index, first.count) == (1, len(flow_times(LINEAR, 20)) - 1)
    frames.close()
    assert len(calls) == before
    assert [frame.t for frame in walk_likelihood(predict, LINEAR, randn(0, 2, 3), seeded(), steps=20)] == flow_times(
        LINEAR, 20
    )[1:]


def test_what_is_not_possible_is_refused() -> None:
    for steps in (0, 1000):
        with pytest.raises(ValueError, match=f"expected 1 to 999 steps between t = 1 and t = 1000, got {steps}"):
            flow_times(LINEAR, steps)
    with pytest.raises(ValueError, match="expected at least 1 probe, or None for the exact trace, got 0"):
        ode_log_likelihood(bent(LINEAR), LINEAR, randn(0, 1, 3), seeded(), probes=0)


def test_the_likelihood_sees_the_derivative_of_all_that_the_network_is_shown() -> None:
    torch.manual_seed(0)
    unet = UNetConfig(width=8, patch=1, multipliers=(1,))
    model = DDPM(DDPMConfig(T=30, grids=(1, 51), variance="beta", unet=unet), DataSpec(size=4)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for t in (1, 5, 12):  # noise far below a gray level, about one, and beyond
        x = 0.5 * torch.rand(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(t))

        def predict(x_t: Tensor, times: Tensor) -> Denoised:
            return model.predict(x_t, times, clip=False)

        _, found = _evaluate(predict, x, t, _probes(x, torch.Generator(), None))
        expected, step = torch.zeros(2, dtype=torch.float64), 1e-8
        for i in range(16):
            moved = torch.zeros(16, dtype=torch.float64)
            moved[i] = step
            ahead, behind = (predict(x + s * moved.reshape(1, 1, 4, 4), torch.full((2,), t)).x0_hat for s in (1, -1))
            expected += ((ahead - behind) / (2 * step)).detach().flatten(1)[:, i]
        torch.testing.assert_close(found.mean(dim=0), expected, rtol=1e-4, atol=1e-4)
