"""The distributions of pixel values against sums over all levels, 60-digit arithmetic, autograd and torch.distributions."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from torch import distributions as peer

from genlab.divergence import Gaussian
from genlab.likelihood import Bernoulli, Logistic, discretised_log_prob, level_log_probs

LEVELS = torch.arange(256) / 127.5 - 1


def gaussian_cdf(z: mpmath.mpf) -> mpmath.mpf:
    return mpmath.ncdf(z)


def logistic_cdf(z: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-z))


def exact_log_mass(cdf: Callable[[mpmath.mpf], mpmath.mpf], level: int, mean: float, log_scale: float) -> float:
    """Return the log of the mass on a gray level of a symmetric distribution, `cdf` of (x − mean)/scale, with 60 digits."""
    with mpmath.workdps(60):
        std = mpmath.exp(mpmath.mpf(log_scale))
        x = (mpmath.mpf(level) * 2 - 255) / 255
        low = mpmath.mpf("-inf") if level == 0 else (x - mpmath.mpf(1) / 255 - mpmath.mpf(mean)) / std
        high = mpmath.mpf("inf") if level == 255 else (x + mpmath.mpf(1) / 255 - mpmath.mpf(mean)) / std
        if low + high > 0:  # keep to the tail that is small
            low, high = -high, -low
        return float(mpmath.log(cdf(high) - cdf(low)))


@pytest.mark.parametrize("std", [1e-3, 0.0067, 0.05, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("mean", [0.0, 0.301, -1.0, 0.999, 2.5, -20.0])
def test_masses_of_all_levels_sum_to_one(std: float, mean: float) -> None:
    p = Gaussian(torch.full((256, 1), mean), torch.full((256, 1), 2 * math.log(std)))
    log_mass = discretised_log_prob(p, LEVELS[:, None])
    assert bool((log_mass <= 0).all())
    # At σ = 0.001 a float32 rounding of x_0 − μ is 1e-4 of σ.
    assert float(log_mass.double().exp().sum()) == pytest.approx(1, abs=1e-6 + 6e-8 / std)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("std", [0.0067, 0.05, 0.5, 3.0])
def test_masses_agree_with_high_precision(std: float, dtype: torch.dtype) -> None:
    log_var = 2 * math.log(std)
    for mean in (-1.0, -0.25, 0.0, 0.875, 1.5):
        chosen = [0, 1, 2, 40, 100, 127, 128, 200, 253, 254, 255]
        # Means and levels of few binary digits: the argument itself has no rounding error but for x_0's own.
        p = Gaussian(torch.full((len(chosen), 1), mean, dtype=dtype), torch.full((len(chosen), 1), log_var, dtype=dtype))
        x0 = (torch.tensor(chosen, dtype=torch.float64) / 127.5 - 1).to(dtype)[:, None]
        got = discretised_log_prob(p, x0).double()
        expected = torch.tensor(
            [exact_log_mass(gaussian_cdf, level, mean, log_var / 2) for level in chosen], dtype=torch.float64
        )
        tolerance = 1e-10 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_discretised_gradients_are_finite_and_point_home() -> None:
    means = torch.tensor([-1e4, -50.0, -1.0, 0.0, 0.5, 1.0, 50.0, 1e4])
    log_vars = torch.tensor([-12.0, -10.0, -5.0, 0.0, 10.0])
    combined = torch.cartesian_prod(means, log_vars, LEVELS[[0, 1, 127, 254, 255]])
    mean, log_var, x0 = (column.clone().requires_grad_() for column in combined.split(1, dim=1))
    log_mass = discretised_log_prob(Gaussian(mean, log_var), x0)
    by_mean, by_log_var = torch.autograd.grad(log_mass.sum(), (mean, log_var))
    for values in (log_mass, by_mean, by_log_var):
        assert values.dtype == torch.float32
        assert bool(torch.isfinite(values).all())
    # Far from μ the mass is that beside the level's nearer edge e: log mass ≈ −½ (e − μ)²/σ², with the slope (e − μ)/σ² in μ.
    # (Not so for the outermost levels with μ beyond them: there the mass is 1.)
    with torch.no_grad():
        edge = x0 - torch.sign(x0 - mean) / 255
        far = ((edge - mean) / (log_var / 2).exp()).abs() > 1000
        far &= ~((x0 < -0.999) & (mean < 0)) & ~((x0 > 0.999) & (mean > 0))
        assert int(far.sum()) > 20
        torch.testing.assert_close(by_mean[far], ((edge - mean) / log_var.exp())[far], rtol=1e-2, atol=0)


def test_discretised_gradient_is_that_of_the_exact_mass() -> None:
    mean = torch.tensor([[0.1], [0.3], [-0.99]], dtype=torch.float64, requires_grad=True)
    log_var = torch.tensor([[-6.0], [-9.0], [-3.0]], dtype=torch.float64, requires_grad=True)
    x0 = LEVELS.double()[[140, 100, 0]][:, None]
    assert torch.autograd.gradcheck(lambda m, v: discretised_log_prob(Gaussian(m, v), x0), (mean, log_var))


@pytest.mark.parametrize("scale", [1e-3, 0.0067, 0.05, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("mean", [0.0, 0.301, -1.0, 0.999, 2.5, -20.0])
def test_logistic_masses_of_all_levels_sum_to_one(scale: float, mean: float) -> None:
    p = Logistic(torch.full((256, 1), mean, dtype=torch.float64), torch.tensor(math.log(scale), dtype=torch.float64))
    log_mass = p.log_prob((torch.arange(256, dtype=torch.float64) / 127.5 - 1)[:, None])
    assert bool((log_mass <= 0).all())
    assert float(log_mass.exp().sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.001, 0.0067, 0.05, 0.5, 3.0])
def test_logistic_masses_agree_with_high_precision(scale: float, dtype: torch.dtype) -> None:
    chosen = [0, 1, 2, 40, 100, 127, 128, 200, 253, 254, 255]
    x = (torch.tensor(chosen, dtype=torch.float64) / 127.5 - 1).to(dtype)[:, None]
    for mean in (-1.0, -0.25, 0.0, 0.875, 1.5):
        p = Logistic(torch.full_like(x, mean), torch.full_like(x, math.log(scale)))
        expected = [[exact_log_mass(logistic_cdf, level, mean, math.log(scale))] for level in chosen]
        # In float32, x − μ has an absolute rounding error of up to 1.2e-7, which is divided by the scale.
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5 + 3e-7 / scale
        torch.testing.assert_close(
            p.log_prob_values(x).double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance
        )


def test_logistic_gradients_are_finite_and_those_of_the_exact_mass() -> None:
    means, scales = torch.tensor([-1e4, -50.0, -1.0, 0.0, 0.5, 1.0, 50.0, 1e4]), torch.tensor([-7.0, -5.0, 0.0, 10.0])
    combined = torch.cartesian_prod(means, scales, LEVELS[[0, 1, 127, 254, 255]])
    mean, log_scale, x = (column.clone().requires_grad_() for column in combined.split(1, dim=1))
    log_mass = Logistic(mean, log_scale).log_prob(x)
    for values in (log_mass, *torch.autograd.grad(log_mass.sum(), (mean, log_scale))):
        assert bool(torch.isfinite(values).all())
    exact = torch.tensor([[0.1], [0.3], [-0.99]], dtype=torch.float64, requires_grad=True)
    log_scale = torch.tensor([[-3.0], [-4.5], [-1.5]], dtype=torch.float64, requires_grad=True)
    levels = LEVELS.double()[[140, 100, 0]][:, None]
    assert torch.autograd.gradcheck(lambda m, s: Logistic(m, s).log_prob(levels), (exact, log_scale))


def test_the_standard_deviation_of_a_logistic_is_that_of_its_samples() -> None:
    logistic = peer.TransformedDistribution(
        peer.Uniform(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)),
        [peer.SigmoidTransform().inv, peer.AffineTransform(0.2, 0.3)],
    )
    torch.manual_seed(0)
    samples = logistic.sample((400_000,))
    p = Logistic(torch.full((1, 1), 0.2), torch.tensor([[math.log(0.3)]]))
    assert float(p.std) == pytest.approx(float(samples.std()), rel=5e-3)


def test_bernoulli_moments_are_those_of_two_levels() -> None:
    logits = torch.tensor([[-2.0, 0.0, 3.0]], dtype=torch.float64)
    light = torch.sigmoid(logits)
    p = Bernoulli(logits)
    torch.testing.assert_close(p.mean, 2 * light - 1)
    torch.testing.assert_close(p.std, 2 * (light * (1 - light)).sqrt())


def test_all_levels_of_a_gaussian_are_those_asked_one_by_one() -> None:
    p = Gaussian(torch.tensor([0.1, -3.0]), torch.tensor([-4.0, 1.0]))
    each = [discretised_log_prob(Gaussian(p.mean[:, None], p.log_var[:, None]), level.expand(2, 1)) for level in LEVELS]
    torch.testing.assert_close(level_log_probs(p), torch.stack(each, dim=1))
