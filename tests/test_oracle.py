"""The oracles against autograd, brute force and one another."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch import distributions as peer

from genlab.divergence import Gaussian
from genlab.oracle import DataSetOracle, GaussianData, LinearGaussianVAE, Mixture, Oracle
from genlab.process import eps_from_v, p_reverse, q_marginal, q_posterior, v_from_eps, x0_from_eps, x0_from_v
from genlab.sampler import Noise, ancestral, ddim, timesteps, walk
from genlab.schedule import at, cosine_schedule, linear_schedule

SCHEDULE = linear_schedule(50)
TIMES = torch.tensor([1, 2, 10, 30, 50])


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def full() -> GaussianData:
    root = randn(1, 3, 3)
    return GaussianData(SCHEDULE, randn(0, 3), root @ root.T + 0.05 * torch.eye(3, dtype=torch.float64))


def diagonal() -> GaussianData:
    return GaussianData(SCHEDULE, randn(0, 3), torch.tensor([0.0, 0.3, 4.0], dtype=torch.float64))


def mixture() -> Mixture:
    weight = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    return Mixture(SCHEDULE, weight, 1.5 * randn(0, 3, 3), randn(1, 3, 3).abs())


def dataset() -> DataSetOracle:
    return DataSetOracle(SCHEDULE, randn(0, 7, 3))


ORACLES = [pytest.param(make(), id=make.__name__) for make in (full, diagonal, mixture, dataset)]


@pytest.mark.parametrize("oracle", ORACLES)
def test_the_score_is_the_gradient_of_the_log_density(oracle: Oracle) -> None:
    x_t = 1.5 * randn(5, 5, 3)
    x_t.requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x_t, TIMES).sum(), x_t)
    torch.testing.assert_close(oracle.score(x_t.detach(), TIMES), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("oracle", ORACLES)
def test_eps_x0_v_and_score_say_the_same(oracle: Oracle) -> None:
    x_t = randn(5, 5, 3)
    predicted, score = oracle.predict(x_t, TIMES), oracle.score(x_t, TIMES)
    noise = at((1 - SCHEDULE.alpha_bar).sqrt(), TIMES, x_t)
    torch.testing.assert_close(-predicted.eps_hat / noise, score, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(x0_from_eps(SCHEDULE, x_t, predicted.eps_hat, TIMES), predicted.x0_hat, rtol=1e-9, atol=1e-9)
    v = v_from_eps(SCHEDULE, predicted.x0_hat, predicted.eps_hat, TIMES)
    torch.testing.assert_close(x0_from_v(SCHEDULE, x_t, v, TIMES), predicted.x0_hat, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps_from_v(SCHEDULE, x_t, v, TIMES), predicted.eps_hat, rtol=1e-9, atol=1e-9)
    assert predicted.fraction is None


@pytest.mark.parametrize("oracle", ORACLES)
def test_the_posterior_mean_is_the_average_over_the_data(oracle: Oracle) -> None:
    """E[x_0|x_t] and q(x_t) from their definitions: draws of x_0, weighted by q(x_t|x_0)."""
    t = torch.full((3,), 30)
    x_t = 0.7 * randn(5, 3, 3)
    x0 = oracle.sample(200_000, torch.Generator().manual_seed(3))
    for i in range(3):
        weight = q_marginal(SCHEDULE, x0, torch.full((len(x0),), 30)).log_prob(x_t[i]).exp()
        mean = (weight[:, None] * x0).mean(0) / weight.mean()
        error = ((weight[:, None] * (x0 - mean)) ** 2).mean(0).sqrt() / weight.mean() / len(x0) ** 0.5
        assert bool(((oracle.predict(x_t, t).x0_hat[i] - mean).abs() < 5 * error + 1e-9).all())
        assert oracle.log_prob(x_t, t)[i].exp().item() == pytest.approx(
            weight.mean().item(), abs=5 * float(weight.std()) / len(x0) ** 0.5
        )


@pytest.mark.parametrize("oracle", [full(), diagonal(), mixture()], ids=["full", "diagonal", "mixture"])
def test_samples_have_the_moments_of_the_data(oracle: Oracle) -> None:
    x0 = oracle.sample(100_000, torch.Generator().manual_seed(4))
    if isinstance(oracle, GaussianData):
        mean, covariance = oracle.mean, oracle.covariance.diag() if oracle.diagonal else oracle.covariance
    else:
        assert isinstance(oracle, Mixture)
        mean = (oracle.weight[:, None] * oracle.mean).sum(0)
        second = torch.einsum("k,ki,kj->ij", oracle.weight, oracle.mean, oracle.mean)
        covariance = second + (oracle.weight[:, None] * oracle.variance).sum(0).diag() - mean.outer(mean)
    scale = float(covariance.diag().max())
    torch.testing.assert_close(x0.mean(0), mean, rtol=0, atol=5 * (scale / 100_000) ** 0.5)
    torch.testing.assert_close(x0.T.cov(), covariance, rtol=0, atol=10 * scale / 100_000**0.5)


def test_gaussian_densities_agree_with_torch_distributions() -> None:
    oracle, x_t = full(), randn(5, 5, 3)
    for i, t in enumerate(TIMES.tolist()):
        alpha_bar = SCHEDULE.alpha_bar[t]
        covariance = alpha_bar * oracle.covariance + (1 - alpha_bar) * torch.eye(3, dtype=torch.float64)
        theirs = peer.MultivariateNormal(alpha_bar.sqrt() * oracle.mean, covariance).log_prob(x_t[i])
        torch.testing.assert_close(oracle.log_prob(x_t, TIMES)[i], theirs, rtol=1e-10, atol=1e-10)


def test_mixture_densities_agree_with_torch_distributions() -> None:
    oracle, x_t = mixture(), randn(5, 5, 3)
    for i, t in enumerate(TIMES.tolist()):
        alpha_bar = SCHEDULE.alpha_bar[t]
        std = (alpha_bar * oracle.variance + 1 - alpha_bar).sqrt()
        parts = peer.Independent(peer.Normal(alpha_bar.sqrt() * oracle.mean, std), 1)
        theirs = peer.MixtureSameFamily(peer.Categorical(oracle.weight), parts).log_prob(x_t[i])
        torch.testing.assert_close(oracle.log_prob(x_t, TIMES)[i], theirs, rtol=1e-10, atol=1e-10)


def test_a_mixture_of_points_is_a_data_set_and_of_one_a_gaussian() -> None:
    points, x_t = dataset(), randn(5, 5, 3)
    weight = torch.full((7,), 1 / 7, dtype=torch.float64)
    same = Mixture(SCHEDULE, weight, points.pictures, torch.zeros(7, 1, dtype=torch.float64))
    torch.testing.assert_close(same.log_prob(x_t, TIMES), points.log_prob(x_t, TIMES), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(same.score(x_t, TIMES), points.score(x_t, TIMES), rtol=1e-8, atol=1e-8)
    one = diagonal()
    alone = Mixture(SCHEDULE, torch.ones(1), one.mean[None], one.covariance[None])
    torch.testing.assert_close(alone.log_prob(x_t, TIMES), one.log_prob(x_t, TIMES), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(alone.score(x_t, TIMES), one.score(x_t, TIMES), rtol=1e-10, atol=1e-10)


def test_full_and_diagonal_covariances_agree() -> None:
    one, x_t = diagonal(), randn(5, 5, 3)
    other = GaussianData(SCHEDULE, one.mean, one.covariance.diag())
    torch.testing.assert_close(other.log_prob(x_t, TIMES), one.log_prob(x_t, TIMES), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other.score(x_t, TIMES), one.score(x_t, TIMES), rtol=1e-10, atol=1e-10)


def test_standard_normal_data() -> None:
    oracle, x_t = GaussianData.standard(SCHEDULE, (1, 2, 2)), randn(5, 5, 1, 2, 2)
    torch.testing.assert_close(oracle.score(x_t, TIMES), -x_t, rtol=1e-12, atol=1e-12)
    exact = oracle.reverse(x_t, TIMES)
    fixed = p_reverse(SCHEDULE, x_t, oracle.predict(x_t, TIMES).x0_hat, TIMES, variance="beta")
    for got in (exact, fixed):
        torch.testing.assert_close(got.mean, at(SCHEDULE.alpha.sqrt(), TIMES, x_t) * x_t, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(got.variance, at(SCHEDULE.beta, TIMES, x_t).expand_as(x_t), rtol=1e-11, atol=0)


@pytest.mark.parametrize(("t", "s"), [(1, 0), (10, 9), (50, 1), (30, 12)])
def test_the_exact_reverse_step_obeys_bayes_rule(t: int, s: int) -> None:
    """q(x_s|x_t) q(x_t) = q(x_t|x_s) q(x_s), with q(x_t|x_s) from q(x_t|x_0) and q(x_s|x_t,x_0) at any x_0."""
    data = GaussianData(SCHEDULE, randn(0, 3), torch.tensor([0.2, 0.3, 4.0], dtype=torch.float64))
    now, then = torch.full((4,), t), torch.full((4,), s)
    x_t, x_s = randn(1, 4, 3), randn(2, 4, 3)
    ratio = SCHEDULE.alpha_bar[t] / SCHEDULE.alpha_bar[s]
    leap = Gaussian(ratio.sqrt() * x_s, (1 - ratio).log().expand_as(x_s)).log_prob(x_t)
    reverse = data.reverse(x_t, now, then)
    got = reverse.log_prob(x_s) + data.log_prob(x_t, now)
    torch.testing.assert_close(got, leap + data.log_prob(x_s, then), rtol=1e-9, atol=1e-9)
    # Its variance lies above β̃, which knows x_0.
    assert bool((reverse.variance > q_posterior(SCHEDULE, x_t, x_t, now, then).variance).all())


def test_a_walk_with_a_data_set_ends_at_its_pictures() -> None:
    schedule = cosine_schedule(60)
    pictures = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    oracle = DataSetOracle(schedule, pictures)
    start = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for step in (ddim(schedule), ancestral(schedule, Noise.from_seeds(list(range(12)), (1, 4, 4)))):
        *_, last = walk(oracle.predict, step, start, timesteps(60, 60))
        assert last.x_s.dtype == torch.float32
        distance = torch.cdist(last.x_s.flatten(1), pictures.flatten(1)).min(dim=1)
        assert float(distance.values.max()) < 1e-3
        assert len(distance.indices.unique()) > 3


def test_a_data_set_seen_through_much_and_little_noise() -> None:
    schedule = linear_schedule(1000)
    oracle = DataSetOracle(schedule, randn(0, 20, 1, 5, 5))
    near = q_marginal(schedule, oracle.pictures, torch.full((20,), 1)).sample(randn(1, 20, 1, 5, 5))
    ones, ends = torch.full((20,), 1), torch.full((20,), 1000)
    torch.testing.assert_close(oracle.predict(near, ones).x0_hat, oracle.pictures, rtol=0, atol=1e-10)
    assert bool((oracle.weights(near, ones).argmax(dim=1) == torch.arange(20)).all())
    far = oracle.predict(randn(2, 20, 1, 5, 5), ends).x0_hat
    torch.testing.assert_close(far, oracle.pictures.mean(0).expand_as(far), rtol=0, atol=0.15)
    # Even where every exponent is far below what exp can hold, the weights are those of the nearest picture.
    lost = oracle.weights(1e4 * torch.ones(1, 1, 5, 5, dtype=torch.float64), torch.tensor([1]))
    assert float(lost.sum()) == pytest.approx(1)
    assert bool(torch.isfinite(oracle.log_prob(1e4 * torch.ones(1, 1, 5, 5, dtype=torch.float64), torch.tensor([1]))).all())


def test_what_was_looked_at_in_inference_mode_can_be_derived_later() -> None:
    data = DataSetOracle(cosine_schedule(10), randn(0, 3, 1, 2, 2))
    model = LinearGaussianVAE(torch.eye(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0.5)
    x_t, t, x = randn(1, 5, 1, 2, 2), torch.full((5,), 4), randn(2, 4, 3)
    with torch.inference_mode():
        data.predict(x_t, t)
        model.log_evidence(x)
    for value in (data.log_prob(at := x_t.clone().requires_grad_(), t), model.log_evidence(at_x := x.clone().requires_grad_())):
        value.sum().backward()
    assert at.grad is not None
    assert at_x.grad is not None


@pytest.mark.parametrize("oracle", ORACLES)
def test_float32_in_float32_out_with_float64_inside(oracle: Oracle) -> None:
    x_t = randn(5, 5, 3).float()
    for method in (
        oracle.log_prob,
        oracle.score,
        lambda x, t: oracle.predict(x, t).x0_hat,
        lambda x, t: oracle.predict(x, t).eps_hat,
    ):
        got, exact = method(x_t, TIMES), method(x_t.double(), TIMES)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=1e-6)


def test_ancestral_sampling_of_gaussian_data_with_the_exact_step_is_exact() -> None:
    """Draws from q(x_s|x_t) itself, in five great leaps, have the data's mean and variance."""
    schedule = cosine_schedule(100)
    data = GaussianData(schedule, torch.tensor([1.0], dtype=torch.float64), torch.tensor([0.04], dtype=torch.float64))
    x, times = randn(0, 20_000, 1), timesteps(100, 5)
    for i, (t, s) in enumerate(pairwise(times)):
        x = data.reverse(x, torch.full((len(x),), t), torch.full((len(x),), s)).sample(randn(i + 1, 20_000, 1))
    assert float(x.mean()) == pytest.approx(1, abs=4 * 0.2 / 20_000**0.5)
    assert float(x.var()) == pytest.approx(0.04, rel=4 * math.sqrt(2 / 20_000))


def test_data_that_are_none_are_refused() -> None:
    mean = torch.zeros(2)
    with pytest.raises(ValueError, match=r"expected a covariance of shape \(2,\) or D × D for D = 2, got \(3,\)"):
        GaussianData(SCHEDULE, mean, torch.ones(3))
    with pytest.raises(ValueError, match="expected a covariance with variances ≥ 0, got -1 in one direction"):
        GaussianData(SCHEDULE, mean, torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="expected a covariance with variances ≥ 0, got -1 in one direction"):
        GaussianData(SCHEDULE, mean, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="expected data with a diagonal covariance"):
        full().reverse(torch.zeros(1, 3), torch.tensor([2]))
    with pytest.raises(ValueError, match=r"expected 2 weights > 0 that sum to 1, got \[0.5, 0.4"):
        Mixture(SCHEDULE, torch.tensor([0.5, 0.4]), torch.zeros(2, 1), torch.ones(2, 1))
    with pytest.raises(ValueError, match="expected 2 weights > 0 that sum to 1, got"):
        Mixture(SCHEDULE, torch.tensor([1.0]), torch.zeros(2, 1), torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"expected 1 variances ≥ 0 that fit the means, got \(2, 1\)"):
        Mixture(SCHEDULE, torch.ones(1), torch.zeros(1, 1), torch.ones(2, 1))
