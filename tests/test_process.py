"""The forward and the reverse process against Bayes' rule, composition and diffusers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.divergence import Gaussian
from genlab.process import (
    eps_from_v,
    eps_from_x0,
    grid_eps,
    p_reverse,
    q_marginal,
    q_posterior,
    q_step,
    reverse_log_var,
    v_from_eps,
    x0_from_eps,
    x0_from_v,
)
from genlab.schedule import Schedule, at, cosine_schedule, linear_schedule, mixed_schedule

SCHEDULES = [pytest.param(linear_schedule(30), id="linear"), pytest.param(cosine_schedule(30), id="cosine")]
SHAPE = (30, 2, 3)


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_t(schedule: Schedule) -> Tensor:
    return torch.arange(1, schedule.T + 1)


def leap(schedule: Schedule, x_s: Tensor, t: Tensor, s: Tensor) -> Gaussian:
    """q(x_t|x_s) for any s < t, from the definition: t − s steps of eq. 1, their noise added up."""
    scale, variance = torch.ones(len(t), dtype=torch.float64), torch.zeros(len(t), dtype=torch.float64)
    for i in range(1, schedule.T + 1):
        inside = (i > s) & (i <= t)
        alpha, beta = float(schedule.alpha[i]), float(schedule.beta[i])
        scale = torch.where(inside, scale * math.sqrt(alpha), scale)
        variance = torch.where(inside, variance * alpha + beta, variance)
    return Gaussian(scale[:, None, None] * x_s, variance.log()[:, None, None].expand_as(x_s))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_compose_to_the_marginal(schedule: Schedule) -> None:
    x0 = randn(0, 1, 4)
    mean, variance = x0, torch.zeros_like(x0)
    for step in range(1, schedule.T + 1):
        t = torch.tensor([step])
        one = q_step(schedule, mean, t)
        # A linear Gaussian step: the mean goes through, the old variance is scaled by the slope's square, the new one added.
        slope = q_step(schedule, torch.ones_like(x0), t).mean
        mean, variance = one.mean, slope**2 * variance + one.variance
        marginal = q_marginal(schedule, x0, t)
        torch.testing.assert_close(mean, marginal.mean, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(variance, marginal.variance, rtol=1e-12, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_step_is_not_the_marginal(schedule: Schedule) -> None:
    """The reading guide's correction 1: q(x_t|x_{t−1}) = q(x_t|x_0) holds for t = 1 alone."""
    x = torch.ones(schedule.T, 1, dtype=torch.float64)
    step, marginal = q_step(schedule, x, every_t(schedule)), q_marginal(schedule, x, every_t(schedule))
    torch.testing.assert_close(step.mean[:1], marginal.mean[:1], rtol=1e-13, atol=0)
    torch.testing.assert_close(step.variance[:1], marginal.variance[:1], rtol=1e-12, atol=0)
    assert bool((step.mean[1:] > marginal.mean[1:]).all())
    assert bool((step.variance[1:] < marginal.variance[1:]).all())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("gap", [1, 2, 7, 29])
def test_the_posterior_obeys_bayes_rule(schedule: Schedule, gap: int) -> None:
    """log q(x_s|x_t,x_0) = log q(x_t|x_s) + log q(x_s|x_0) − log q(x_t|x_0), normaliser included, at any x_s, x_t and x_0."""
    t = torch.arange(gap + 1, schedule.T + 1)
    s = t - gap
    x0, x_s, x_t = (randn(i, len(t), 2, 3) for i in range(3))
    expected = leap(schedule, x_s, t, s).log_prob(x_t) + q_marginal(schedule, x0, s).log_prob(x_s)
    expected = expected - q_marginal(schedule, x0, t).log_prob(x_t)
    posterior = q_posterior(schedule, x_t, x0, t, s)
    torch.testing.assert_close(posterior.log_prob(x_s), expected, rtol=1e-9, atol=1e-9)
    if gap == 1:
        torch.testing.assert_close(q_posterior(schedule, x_t, x0, t).log_prob(x_s), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(q_step(schedule, x_s, t).log_prob(x_t), leap(schedule, x_s, t, s).log_prob(x_t))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_posterior_of_clean_data_is_the_clean_data(schedule: Schedule) -> None:
    x0, x_t = randn(0, *SHAPE), randn(1, *SHAPE)
    posterior = q_posterior(schedule, x_t, x0, every_t(schedule), torch.zeros(schedule.T, dtype=torch.long))
    torch.testing.assert_close(posterior.mean, x0, rtol=1e-12, atol=1e-12)
    assert posterior.variance.abs().max() == 0
    start = q_marginal(schedule, x0, torch.zeros(schedule.T, dtype=torch.long))
    torch.testing.assert_close(start.sample(x_t), x0, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(
    ("ours", "theirs"), [("posterior", "fixed_small"), ("beta", "fixed_large"), ("learned", "learned_range")]
)
def test_reverse_variances_agree_with_diffusers(diffusers: Any, name: str, ours: str, theirs: str) -> None:
    schedule = linear_schedule(40) if name == "linear" else cosine_schedule(40)
    peer = diffusers.DDPMScheduler(40, trained_betas=schedule.beta[1:].numpy(), variance_type=theirs)
    peer.alphas_cumprod, peer.one = schedule.alpha_bar[1:], torch.tensor(1.0, dtype=torch.float64)
    place = randn(3, 2, 3)
    for t in range(2, 41):  # at t = 1 theirs is a clamped zero
        got = reverse_log_var(schedule, ours, torch.tensor([t]), fraction=((place + 1) / 2)[None])  # type: ignore[arg-type]
        expected = peer._get_variance(t - 1, predicted_variance=place)
        expected = expected if theirs == "learned_range" else expected.log()
        torch.testing.assert_close(got.squeeze(0), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learned_variance_lies_between_the_fixed_ones(schedule: Schedule) -> None:
    t = every_t(schedule)
    low, high = reverse_log_var(schedule, "posterior", t), reverse_log_var(schedule, "beta", t)
    torch.testing.assert_close(reverse_log_var(schedule, "learned", t, fraction=torch.zeros(len(t))), low)
    torch.testing.assert_close(reverse_log_var(schedule, "learned", t, fraction=torch.ones(len(t))), high)
    torch.testing.assert_close(reverse_log_var(schedule, "learned", t, fraction=torch.full((len(t),), 0.5)), (low + high) / 2)
    assert bool((low[1:] < high[1:]).all())
    # β̃_1 = 0 has no density: β̃_2 stands in its place (Nichol & Dhariwal 2021).
    assert float(low[0]) == pytest.approx(float(low[1]), abs=1e-12)


def test_p_reverse_is_the_posterior_at_the_prediction() -> None:
    schedule = linear_schedule(30)
    x_t, x0_hat, t = randn(0, *SHAPE), randn(1, *SHAPE), every_t(schedule)
    p = p_reverse(schedule, x_t, x0_hat, t)
    q = q_posterior(schedule, x_t, x0_hat, t)
    torch.testing.assert_close(p.mean, q.mean, rtol=0, atol=0)
    torch.testing.assert_close(p.variance[1:], q.variance[1:], rtol=1e-12, atol=0)
    assert p.log_var.shape == x_t.shape
    # Ho et al. 2020, eq. 11: μ = (x_t − β_t/√(1−ᾱ_t) ε̂)/√α_t, another way to write the same mean.
    eps_hat = eps_from_x0(schedule, x_t, x0_hat, t)
    beta, alpha, alpha_bar = (at(table, t, x_t) for table in (schedule.beta, schedule.alpha, schedule.alpha_bar))
    torch.testing.assert_close(p.mean, (x_t - beta / (1 - alpha_bar).sqrt() * eps_hat) / alpha.sqrt(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_x0_eps_and_v_say_the_same(schedule: Schedule) -> None:
    t, x0, eps = every_t(schedule), randn(0, *SHAPE), randn(1, *SHAPE)
    x_t = q_marginal(schedule, x0, t).sample(eps)
    v = v_from_eps(schedule, x0, eps, t)
    for got, expected in (
        (x0_from_eps(schedule, x_t, eps, t), x0),
        (eps_from_x0(schedule, x_t, x0, t), eps),
        (x0_from_v(schedule, x_t, v, t), x0),
        (eps_from_v(schedule, x_t, v, t), eps),
        (x_t**2 + v**2, x0**2 + eps**2),  # a rotation keeps lengths
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_float32_keeps_its_digits_near_clean_data() -> None:
    """The coefficients are float64 until the last moment: 1 − ᾱ_1 = 1e-4 in float32 would have three digits."""
    schedule = linear_schedule(1000)
    t, x0, x_t = torch.arange(1, 1001), randn(0, 1000, 5), randn(1, 1000, 5)
    for function in (eps_from_x0, x0_from_v, eps_from_v):
        torch.testing.assert_close(
            function(schedule, x_t.float(), x0.float(), t).double(), function(schedule, x_t, x0, t), rtol=1e-5, atol=1e-4
        )
    exact = p_reverse(schedule, x_t, x0, t)
    single = p_reverse(schedule, x_t.float(), x0.float(), t)
    assert single.mean.dtype == single.log_var.dtype == torch.float32
    torch.testing.assert_close(single.mean.double(), exact.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(single.log_var.double(), exact.log_var, rtol=1e-6, atol=1e-6)


def test_times_out_of_range_are_refused() -> None:
    schedule = cosine_schedule(10)
    x = torch.zeros(1, 2)
    for t in (0, -1, 11):
        with pytest.raises(ValueError, match="expected whole t from 1 to 10, got"):
            q_step(schedule, x, torch.tensor([t]))
        with pytest.raises(ValueError, match="expected whole t from 1 to 10, got"):
            p_reverse(schedule, x, x, torch.tensor([t]))
    with pytest.raises(ValueError, match="expected whole t from 0 to 10, got"):
        q_marginal(schedule, x, torch.tensor([-1]))
    for s in (5, 6, -1):
        with pytest.raises(ValueError, match=rf"expected 0 ≤ s < t, got s = \[{s}\] for t = \[5\]"):
            q_posterior(schedule, x, x, torch.tensor([5]), torch.tensor([s]))


def test_the_learned_variance_needs_its_fraction() -> None:
    with pytest.raises(ValueError, match="expected the network's fraction for the learned variance, got none"):
        reverse_log_var(cosine_schedule(10), "learned", torch.tensor([3]))


@pytest.mark.parametrize("spacing", [1, 5, 51])
def test_the_noise_that_a_grid_explains_is_its_posterior_mean(spacing: int) -> None:
    schedule, delta = mixed_schedule(1000), spacing * 2 / 255
    fineness = schedule.snr[1:] ** -0.5 / delta
    wanted = (
        0.03,
        0.12,
        0.13,
        0.14,
        0.148,
        0.152,
        0.16,
        0.2,
        0.5,
        1.2,
        5.0,
    )  # about where the formula changes, and far from it
    t = torch.tensor(sorted({int((fineness - value).abs().argmin()) + 1 for value in wanted}))
    x_t = 1.3 * randn(0, 200).clamp(-1.5, 1.5).expand(len(t), 200)
    points = -1 + delta * torch.arange(-1000, 1000, dtype=torch.float64)
    signal, noise = at(schedule.alpha_bar.sqrt(), t, x_t)[..., None], at((1 - schedule.alpha_bar).sqrt(), t, x_t)[..., None]
    eps = (x_t[..., None] - signal * points) / noise
    expected = ((-(eps**2) / 2).softmax(dim=-1) * eps).sum(dim=-1)
    found = grid_eps(schedule, x_t, t, [7, spacing])[:, 1]
    torch.testing.assert_close(found, expected.clamp(-4, 4), rtol=0, atol=1e-5)
    assert float(found[0].abs().max()) > 1


def test_the_noise_that_a_grid_explains_has_its_derivative() -> None:
    schedule, t = mixed_schedule(1000), torch.tensor([1, 20, 40, 60, 100, 400])
    for seed in range(5):
        x_t = randn(seed, 6, 4).clamp(-1, 1).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: grid_eps(schedule, x, t, (1, 5, 51)), x_t, eps=1e-7, atol=1e-3)


def test_the_noise_on_a_picture_of_gray_levels_is_known_where_it_is_finer_than_one() -> None:
    schedule = mixed_schedule(1000)
    x0, eps = torch.randint(0, 256, (4, 1000)) / 127.5 - 1, randn(0, 4, 1000).float()
    t = torch.full((4,), 3)
    found = grid_eps(schedule, q_marginal(schedule, x0, t).sample(eps), t, [1])[:, 0]
    inside = eps.abs() < 2.5
    torch.testing.assert_close(found[inside], eps[inside], rtol=0, atol=0.1)
