"""Entropy, cross entropy and KL against torch.distributions, numerical integration and the definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as peer

from genlab.divergence import (
    Categorical,
    Direction,
    Gaussian,
    Tabulated,
    bits_per_dim,
    bits_to_nats,
    code_length,
    cross_entropy,
    entropy,
    fit,
    forward_kl,
    kl,
    kl_integrand,
    kl_terms,
    mixture,
    nats_to_bits,
    reverse_kl,
    standard_normal,
    sum_dims,
    tabulate,
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


def test_terms_and_code_lengths_of_outcomes(scipy: Any, generator: torch.Generator) -> None:
    """Each term by scipy, zeros included; a code of powers of one half has whole bits, and its mean length is the entropy."""
    p, q = categoricals(generator)
    p = Categorical(torch.cat([torch.eye(1, p.prob.shape[1], dtype=torch.float64), p.prob[1:]]))
    expected = scipy.special.rel_entr(p.prob.numpy(), q.prob.numpy())
    np.testing.assert_allclose(kl_terms(p, q).numpy(), expected, rtol=1e-12, atol=1e-15)
    assert bool((kl_terms(p, q) < 0).any())
    back = kl_terms(q, p)
    assert bool(back[0, 1:].isinf().all())
    assert bool(back[1:].isfinite().all())
    halves = Categorical(torch.tensor([[0.5, 0.25, 0.125, 0.125, 0.0]], dtype=torch.float64))
    assert nats_to_bits(code_length(halves))[0].tolist() == pytest.approx([1, 2, 3, 3, math.inf])
    assert nats_to_bits(entropy(halves)).item() == pytest.approx(1.75)


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


# ---- densities on the line, and one Gaussian fitted to them (notes 1.3.2, figure 1) ----

X = torch.linspace(-40, 40, 2001, dtype=torch.float64)
FORWARD_AND_REVERSE = pytest.mark.parametrize("direction", [forward_kl, reverse_kl])


def rows(*pairs: tuple[float, float]) -> Gaussian:
    """N(m, s²) for every pair (m, s), as rows."""
    mean, std = torch.tensor(pairs, dtype=torch.float64).T[:, :, None]
    return Gaussian(mean, 2 * std.log())


def bimodal(weight: float, *pairs: tuple[float, float], x: Tensor = X) -> Tabulated:
    return mixture(torch.tensor([weight, 1 - weight], dtype=torch.float64), rows(*pairs), x)


SEPARATED = bimodal(0.4, (-2.5, 0.7), (2.5, 1.0))


def divergence(p: Tabulated, q: Gaussian, direction: Direction) -> Tensor:
    """What the walk by that gradient goes down."""
    table = tabulate(q, p.x)
    return kl(p, table) if direction is forward_kl else kl(table, p)


def test_tabulated_gaussians_agree_with_the_closed_forms() -> None:
    p, q = rows((0.7, 0.5), (-3, 2), (0, 0.3)), rows((-0.4, 1.4), (1, 1), (0.1, 0.3))
    table_p, table_q = tabulate(p, X), tabulate(q, X)
    torch.testing.assert_close(entropy(table_p), entropy(p), rtol=0, atol=1e-11)
    torch.testing.assert_close(cross_entropy(table_p, table_q), cross_entropy(p, q), rtol=0, atol=1e-11)
    torch.testing.assert_close(kl(table_p, table_q), kl(p, q), rtol=0, atol=1e-11)
    torch.testing.assert_close(table_p.moments.mean, p.mean, rtol=0, atol=1e-11)
    torch.testing.assert_close(table_p.moments.log_var, p.log_var, rtol=0, atol=1e-11)


def test_a_mixture_is_that_of_torch_distributions_and_its_integrals_are_gauss_hermites() -> None:
    """E_N(m,s²)[f] = Σ_i w_i f(m + √2 s y_i)/√π: another quadrature, on other points."""
    weight, mean, std = torch.tensor([[0.3, 0.7], [-1, 1.5], [0.6, 0.9]], dtype=torch.float64)
    p = mixture(weight, Gaussian(mean[:, None], 2 * std.log()[:, None]), X)
    theirs = peer.MixtureSameFamily(peer.Categorical(probs=weight), peer.Normal(mean, std))
    torch.testing.assert_close(p.log_density[0], theirs.log_prob(X), rtol=1e-12, atol=1e-12)

    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.hermite.hermgauss(180))
    weights = weights / math.sqrt(math.pi)

    places = mean[:, None] + math.sqrt(2) * std[:, None] * nodes

    def under_p(f: Callable[[Tensor], Tensor]) -> float:
        return float((weight[:, None] * weights * f(places)).sum())

    q = peer.Normal(torch.tensor(0.2, dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64))
    table = tabulate(rows((0.2, 1.1)), X)
    assert float(entropy(p)) == pytest.approx(under_p(lambda x: -theirs.log_prob(x)), abs=1e-8)
    assert float(cross_entropy(p, table)) == pytest.approx(under_p(lambda x: -q.log_prob(x)), abs=1e-8)
    assert float(kl(p, table)) == pytest.approx(under_p(lambda x: theirs.log_prob(x) - q.log_prob(x)), abs=1e-8)
    at = 0.2 + math.sqrt(2) * 1.1 * nodes
    assert float(kl(table, p)) == pytest.approx(float((weights * (q.log_prob(at) - theirs.log_prob(at))).sum()), abs=1e-7)
    assert float(cross_entropy(p, table)) == pytest.approx(float(entropy(p) + kl(p, table)), abs=1e-12)


def test_the_moments_are_those_of_the_components_and_the_best_gaussian() -> None:
    """E[x] = Σ w m and E[x²] = Σ w (s² + m²); no other Gaussian has a smaller KL[p‖q]."""
    moments = SEPARATED.moments
    mean = 0.4 * -2.5 + 0.6 * 2.5
    assert float(moments.mean) == pytest.approx(mean, abs=1e-11)
    second = 0.4 * (0.7**2 + 2.5**2) + 0.6 * (1 + 2.5**2)
    assert float(moments.variance) == pytest.approx(second - mean**2, abs=1e-10)
    best = float(kl(SEPARATED, tabulate(moments, X)))
    for change in ((0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05), (1, 1), (-2, 0.5)):
        other = Gaussian(moments.mean + change[0], moments.log_var + change[1])
        assert float(kl(SEPARATED, tabulate(other, X))) > best


@FORWARD_AND_REVERSE
@pytest.mark.parametrize("place", [(0.3, 0.8), (-2.4, 0.5), (5, 3)])
def test_the_gradients_are_those_of_autograd(direction: Direction, place: tuple[float, float]) -> None:
    mean = torch.tensor([[place[0]]], dtype=torch.float64, requires_grad=True)
    log_std = torch.tensor([[math.log(place[1])]], dtype=torch.float64, requires_grad=True)
    q = Gaussian(mean, 2 * log_std)
    value = divergence(SEPARATED, q, direction)
    slope = direction(SEPARATED, q)
    torch.testing.assert_close(slope.value[:, 0], value, rtol=1e-10, atol=1e-10)
    expected = torch.autograd.grad(value.sum(), [mean, log_std])
    for ours, theirs in zip((slope.mean, slope.log_std), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@FORWARD_AND_REVERSE
@pytest.mark.parametrize("p", [SEPARATED, bimodal(0.5, (-5, 0.3), (5, 0.3))], ids=["near", "far"])
@pytest.mark.parametrize("start", [(-6, 0.3), (0.01, 0.2), (6, 3)])
def test_a_walk_goes_down_in_short_steps_to_where_the_gradient_is_zero(
    direction: Direction, p: Tabulated, start: tuple[float, float]
) -> None:
    path = list(fit(p, rows(start), direction))
    assert (float(path[0].mean), float(path[0].std)) == pytest.approx(start)
    mean, log_var = (torch.cat([getattr(q, key) for q in path]).detach() for key in ("mean", "log_var"))
    values = divergence(p, Gaussian(mean, log_var), direction)
    assert float(values.diff().max()) < 1e-9
    length = (mean.diff(dim=0) ** 2 * (-log_var[:-1]).exp() + 0.5 * log_var.diff(dim=0) ** 2).sqrt()
    assert float(length.max()) <= 0.3 + 1e-9

    place = [path[-1].mean.clone().requires_grad_(), path[-1].log_var.clone().requires_grad_()]
    slope = torch.autograd.grad(divergence(p, Gaussian(*place), direction).sum(), place)
    assert max(float(g.abs()) for g in slope) < 1e-5


@FORWARD_AND_REVERSE
@pytest.mark.parametrize("start", [(-6, 3), (5, 0.3)])
def test_a_single_gaussian_is_found_exactly(direction: Direction, start: tuple[float, float]) -> None:
    *_, q = fit(tabulate(rows((1.2, 0.8)), X), rows(start), direction, tolerance=1e-10)
    assert float(q.mean) == pytest.approx(1.2, abs=1e-9)
    assert float(q.std) == pytest.approx(0.8, abs=1e-9)


def test_forward_finds_the_moments_from_everywhere_and_reverse_one_mode_or_the_other() -> None:
    """Notes 1.3.2: mean-seeking and mode-seeking. A mode that q covers alone costs −log of its weight."""
    ends = {side: {} for side in (-4.0, 4.0)}
    for side, found in ends.items():
        for direction in (forward_kl, reverse_kl):
            *_, found[direction] = fit(SEPARATED, rows((side, 0.5)), direction)
    for found in ends.values():
        torch.testing.assert_close(found[forward_kl].mean, SEPARATED.moments.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(found[forward_kl].log_var, SEPARATED.moments.log_var, rtol=0, atol=1e-5)
    left, right = (ends[side][reverse_kl] for side in (-4.0, 4.0))
    assert float(left.mean) == pytest.approx(-2.5, abs=0.15)
    assert float(right.mean) == pytest.approx(2.5, abs=0.15)
    apart = bimodal(0.4, (-6, 0.5), (6, 1.0))
    for side, weight, std in ((-6, 0.4, 0.5), (6, 0.6, 1.0)):
        *_, q = fit(apart, rows((side + 1, 0.7)), reverse_kl)
        assert float(kl(tabulate(q, X), apart)) == pytest.approx(-math.log(weight), abs=1e-6)
        assert float(q.std) == pytest.approx(std, abs=1e-3)


@FORWARD_AND_REVERSE
def test_a_walk_does_not_depend_on_the_unit_of_x(direction: Direction) -> None:
    wide = bimodal(0.4, (-5, 1.4), (5, 2.0), x=2 * X)
    pairs = list(zip(fit(SEPARATED, rows((1, 0.5)), direction), fit(wide, rows((2, 1.0)), direction), strict=True))
    for q, doubled in pairs[:: len(pairs) // 5]:
        torch.testing.assert_close(2 * q.mean, doubled.mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(q.log_var + math.log(4), doubled.log_var, rtol=1e-6, atol=1e-6)


@FORWARD_AND_REVERSE
def test_near_the_end_every_step_comes_nearer_by_the_same_factor(direction: Direction) -> None:
    *_, end = fit(SEPARATED, rows((2, 1)), direction, tolerance=1e-12)
    path = list(fit(SEPARATED, Gaussian(end.mean + 1e-3, end.log_var), direction, rate=0.25))
    assert float((path[1].mean - end.mean) / (path[0].mean - end.mean)) == pytest.approx(0.75, abs=1e-3)


def test_the_integrand_adds_up_to_the_divergence_and_shows_what_each_direction_avoids() -> None:
    p = bimodal(0.5, (-4, 0.4), (4, 0.4))
    q = tabulate(rows((4, 0.4)), X)
    forward, reverse = kl_integrand(p, q)[0], kl_integrand(q, p)[0]
    assert float(p.integrate(forward)) == pytest.approx(float(kl(p, q)), rel=1e-12)
    near = (X + 4).abs() < 1  # where p is and q is not
    assert float(forward[near].max()) > 10, "forward: q must not be zero there"
    assert float(reverse[near].abs().max()) < 1e-9, "reverse: it may"


def test_points_of_no_density_do_not_spoil_the_integrals() -> None:
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    left = torch.where(x < 0.5, torch.zeros_like(x), x.new_tensor(-math.inf))[None] - math.log(0.4995)  # of the trapezoid
    half = Tabulated(x, left)
    flat = Tabulated(x, torch.zeros(1, 1001, dtype=torch.float64))
    assert float(kl(half, flat)) == pytest.approx(math.log(2), abs=2e-3)
    assert float(entropy(half)) == pytest.approx(-math.log(2), abs=2e-3)
    assert float(kl(flat, half)) == float(cross_entropy(flat, half)) == math.inf
    narrow = Gaussian(torch.tensor([[0.25]]).double(), torch.tensor([[2 * math.log(0.005)]]).double())  # 0 where p is
    assert float(reverse_kl(half, narrow).value) == pytest.approx(-float(entropy(tabulate(narrow, x))) - math.log(2), abs=2e-3)
    walk = list(fit(half, narrow, reverse_kl))
    assert all(bool(q.mean.isfinite()) and bool(q.log_var.isfinite()) for q in walk)


@pytest.mark.parametrize(
    ("x", "log_density", "message"),
    [
        (X, torch.zeros(2001).double(), r"expected N points and logarithms \(B, N\), got \(2001,\) and \(2001,\)"),
        (X, torch.zeros(1, 2000).double(), "expected N points"),
        (X.flip(0), torch.zeros(1, 2001).double(), "expected evenly spaced, rising points"),
        (X**3, torch.zeros(1, 2001).double(), "expected evenly spaced, rising points"),
        (X, torch.full((1, 2001), math.nan).double(), "expected logarithms below infinity"),
        (X, torch.zeros(1, 2001).double(), "expected densities that integrate to 1, got an integral that is off by 79"),
    ],
)
def test_what_is_no_density_on_the_line_is_refused(x: Tensor, log_density: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tabulated(x, log_density)


def test_densities_at_different_points_are_refused() -> None:
    with pytest.raises(ValueError, match="expected two densities tabulated at the same points"):
        kl(SEPARATED, tabulate(rows((0, 1)), X / 2))
