"""Entropy, cross entropy and KL against torch.distributions, numerical integration and the definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as peer

from genlab.divergence import (
    Categorical,
    Gaussian,
    bits_per_dim,
    bits_to_nats,
    cross_entropy,
    entropy,
    kl,
    nats_to_bits,
    standard_normal,
    sum_dims,
)


def gaussians(generator: torch.Generator, shape: tuple[int, ...] = (5, 3, 4)) -> tuple[Gaussian, Gaussian]:
    mean, log_var = (torch.randn(2, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return Gaussian(mean[0], log_var[0]), Gaussian(mean[1], log_var[1])


def categoricals(generator: torch.Generator) -> tuple[Categorical, Categorical]:
    p, q = torch.randn(2, 6, 7, generator=generator, dtype=torch.float64).mul(2).softmax(dim=2)
    return Categorical(p), Categorical(q)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_gaussians_agree_with_torch_distributions(generator: torch.Generator) -> None:
    p, q = gaussians(generator)
    theirs_p, theirs_q = (peer.Independent(peer.Normal(g.mean, g.std), 2) for g in (p, q))
    x = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(kl(p, q), peer.kl_divergence(theirs_p, theirs_q), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy(p), theirs_p.entropy(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.log_prob(x), theirs_p.log_prob(x), rtol=1e-12, atol=1e-12)
    assert kl(p, q).shape == entropy(p).shape == p.log_prob(x).shape == (5,)


def test_categoricals_agree_with_torch_distributions(generator: torch.Generator) -> None:
    p, q = categoricals(generator)
    theirs_p, theirs_q = peer.Categorical(probs=p.prob), peer.Categorical(probs=q.prob)
    torch.testing.assert_close(kl(p, q), peer.kl_divergence(theirs_p, theirs_q), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy(p), theirs_p.entropy(), rtol=1e-12, atol=1e-12)


def test_cross_entropy_is_entropy_plus_kl(generator: torch.Generator) -> None:
    for p, q in (gaussians(generator), categoricals(generator)):
        torch.testing.assert_close(cross_entropy(p, q), entropy(p) + kl(p, q), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(cross_entropy(p, p), entropy(p), rtol=1e-12, atol=1e-12)
        assert bool((kl(p, q) > 0).all())
        torch.testing.assert_close(kl(p, p), torch.zeros_like(kl(p, p)), rtol=0, atol=1e-15)


def test_gaussian_formulas_are_the_integrals_of_their_definitions() -> None:
    """E_p[−log p], E_p[−log q] and E_p[log p/q] by the trapezoidal rule, which converges geometrically for such integrands."""
    x = torch.linspace(-30, 30, 20001, dtype=torch.float64)[:, None]
    p = Gaussian(torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[-1.1]], dtype=torch.float64))
    q = Gaussian(torch.tensor([[-0.4]], dtype=torch.float64), torch.tensor([[0.6]], dtype=torch.float64))
    log_p, log_q = p.log_prob(x), q.log_prob(x)

    def expect(values: Tensor) -> float:
        return float(torch.trapezoid(log_p.exp() * values, x[:, 0]))

    assert expect(torch.ones_like(log_p)) == pytest.approx(1, abs=1e-12)
    assert float(entropy(p)) == pytest.approx(expect(-log_p), abs=1e-10)
    assert float(cross_entropy(p, q)) == pytest.approx(expect(-log_q), abs=1e-10)
    assert float(kl(p, q)) == pytest.approx(expect(log_p - log_q), abs=1e-10)


def test_forward_kl_is_smallest_at_the_moments_of_a_mixture() -> None:
    """Notes 1.3.2: the forward direction is mean-seeking. Its gradient vanishes where q has the mean and variance of p."""
    x = torch.linspace(-20, 20, 8001, dtype=torch.float64)
    left, right = Gaussian(x.new_tensor([-2.0]), x.new_tensor([-1.4])), Gaussian(x.new_tensor([1.5]), x.new_tensor([-0.4]))
    p = 0.3 * left.log_prob(x[:, None]).exp() + 0.7 * right.log_prob(x[:, None]).exp()
    mean = float(torch.trapezoid(p * x, x))
    variance = float(torch.trapezoid(p * (x - mean) ** 2, x))
    place = torch.tensor([[mean]], dtype=torch.float64, requires_grad=True)
    log_var = torch.tensor([[math.log(variance)]], dtype=torch.float64, requires_grad=True)
    torch.trapezoid(p * -Gaussian(place, log_var).log_prob(x[:, None]), x).backward()
    assert place.grad is not None
    assert log_var.grad is not None
    assert max(abs(place.grad.item()), abs(log_var.grad.item())) < 1e-9


def test_zero_probabilities() -> None:
    point = Categorical(torch.tensor([[1.0, 0.0, 0.0]]))
    half = Categorical(torch.tensor([[0.5, 0.5, 0.0]]))
    assert entropy(point).item() == 0
    assert entropy(half).item() == pytest.approx(math.log(2))
    assert kl(point, half).item() == pytest.approx(math.log(2))
    assert cross_entropy(point, half).item() == pytest.approx(math.log(2))
    assert kl(half, point).item() == cross_entropy(half, point).item() == math.inf
    assert kl(half, half).item() == 0


def test_kl_has_a_finite_gradient_at_zero_probabilities() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    prob = torch.tensor([[0.5, 0.5, 0.0]])
    kl(Categorical(prob), Categorical(logits.softmax(dim=1))).sum().backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad[:, :2]).all())


def test_kl_of_nearly_equal_gaussians_does_not_round_to_nothing() -> None:
    """For variances 1 and 1 + d, KL = d²/4 to leading order: here below the rounding error of each term of eq. 6 in float32."""
    d = 1e-4
    p = Gaussian(torch.zeros(1, 1), torch.zeros(1, 1))
    q = Gaussian(torch.zeros(1, 1), torch.full((1, 1), math.log1p(d)))
    assert kl(p, q).item() == pytest.approx(d**2 / 4, rel=0.01)


def test_point_mass() -> None:
    point = Gaussian(torch.tensor([[1.5, -2.0]]), torch.full((1, 2), -math.inf))
    torch.testing.assert_close(point.sample(torch.ones(1, 2)), point.mean)
    assert point.std.tolist() == [[0.0, 0.0]]
    assert entropy(point).item() == -math.inf
    assert kl(point, standard_normal(point.mean)).item() == math.inf


def test_values_are_summed_per_sample_and_broadcast() -> None:
    mean, log_var = torch.randn(4, 3, 2), torch.tensor(-0.5)
    narrow, full = Gaussian(mean, log_var), Gaussian(mean, log_var.expand(4, 3, 2))
    x = torch.randn(4, 3, 2)
    torch.testing.assert_close(narrow.log_prob(x), full.log_prob(x))
    torch.testing.assert_close(entropy(narrow), entropy(full))
    torch.testing.assert_close(kl(narrow, standard_normal(x)), kl(full, standard_normal(x)))
    torch.testing.assert_close(sum_dims(x), x[:, 0].sum(1) + x[:, 1].sum(1) + x[:, 2].sum(1))


def test_samples_have_the_entropy_that_is_claimed(generator: torch.Generator) -> None:
    p = Gaussian(torch.tensor([[2.0]]), torch.tensor([[1.3]]))
    surprise = -p.log_prob(p.sample(torch.randn(100_000, 1, generator=generator)))
    # −log p = const + z²/2, whose standard deviation is √½.
    assert float(surprise.mean()) == pytest.approx(entropy(p).item(), abs=5 * math.sqrt(0.5 / 100_000))


def test_bits() -> None:
    uniform = entropy(Categorical(torch.full((1, 256), 1 / 256, dtype=torch.float64)))
    assert nats_to_bits(uniform).item() == pytest.approx(8, abs=1e-12)
    assert bits_to_nats(nats_to_bits(uniform)).item() == pytest.approx(uniform.item(), abs=1e-15)
    assert bits_per_dim(784 * uniform, 784).item() == pytest.approx(8, abs=1e-12)


@pytest.mark.parametrize(
    ("prob", "message"),
    [
        (torch.tensor([0.5, 0.5]), r"expected probabilities of shape \(B, K\)"),
        (torch.tensor([[1.5, -0.5]]), "expected finite probabilities ≥ 0"),
        (torch.tensor([[math.nan, 1.0]]), "expected finite probabilities ≥ 0"),
        (torch.tensor([[0.5, 0.4]]), "expected probabilities that sum to 1, got a sum that is off by 0.1"),
    ],
)
def test_what_is_no_distribution_is_refused(prob: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Categorical(prob)


@pytest.mark.parametrize("function", [kl, cross_entropy])
def test_two_families_are_refused(function: object) -> None:
    categorical, gaussian = Categorical(torch.tensor([[1.0]])), Gaussian(torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(TypeError, match="expected two distributions of one family, got Categorical and Gaussian"):
        function(categorical, gaussian)  # type: ignore[operator]
