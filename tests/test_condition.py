"""genlab/condition.py: repair, guidance by a classifier and SDEdit against data whose conditionals are known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from genlab.condition import guided, repair, repeated
from genlab.divergence import Gaussian, kl
from genlab.oracle import GaussianData, Mixture
from genlab.process import Denoised, Predict, q_marginal, q_posterior
from genlab.sampler import Noise, ancestral, walk
from genlab.schedule import Schedule, linear_schedule

COVARIANCE = torch.tensor([[0.8, 0.5], [0.5, 0.6]], dtype=torch.float64)
KNOWN, HOLE = torch.tensor([True, False]), 1
X0 = torch.tensor([1.2, 0.0], dtype=torch.float64)
CONDITIONAL = Gaussian(torch.tensor([[0.5 / 0.8 * 1.2]]), torch.tensor([[math.log(0.6 - 0.5**2 / 0.8)]]))
"""q(u|k = 1.2), by the formula for the conditional of a Gaussian."""


class ManyPoints(Noise):
    """Noise of many points from one generator."""

    def draw(self) -> Tensor:
        return torch.randn(self.shape, generator=self.generators[0], dtype=torch.float64)


def noise_of(count: int, seed: int = 0) -> ManyPoints:
    return ManyPoints((torch.Generator().manual_seed(seed),), (count, 2))


def data(schedule: Schedule) -> GaussianData:
    return GaussianData(schedule, torch.zeros(2, dtype=torch.float64), COVARIANCE)


def moments(schedule: Schedule, times: list[int], mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (2) and covariance (2 2) at the end of a repair with the exact x̂_0: every step of it is affine."""
    eye = torch.eye(2, dtype=torch.float64)
    for t, s in pairwise(times):
        at_t, at_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
        if s > t:
            mean, covariance = (at_s / at_t) ** 0.5 * mean, at_s / at_t * covariance + (1 - at_s / at_t) * eye
            continue
        gain = at_t**0.5 * COVARIANCE @ torch.linalg.inv(at_t * COVARIANCE + (1 - at_t) * eye)
        time = torch.tensor([t]), torch.tensor([s])
        unit, none = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        from_x_t, from_x0 = (float(q_posterior(schedule, x, y, time[0], time[1]).mean) for x, y in ((unit, none), (none, unit)))
        variance = float(q_posterior(schedule, none, none, time[0], time[1]).variance)
        step = from_x_t * eye + from_x0 * gain
        mean, covariance = step @ mean, step @ covariance @ step.T + variance * eye
        mean[0], covariance[0], covariance[:, 0] = at_s**0.5 * X0[0], 0, 0
        covariance[0, 0] = 1 - at_s
    return mean, covariance


def test_a_repair_has_the_moments_of_its_affine_steps() -> None:
    schedule, count = linear_schedule(40), 40_000
    times, noise = repeated(list(range(40, -1, -1)), 5, 3), noise_of(40_000)
    start = noise.draw()
    *_, last = repair(data(schedule).predict, ancestral(schedule, noise), schedule, noise, start, times, X0, KNOWN)
    mean, covariance = moments(schedule, times, torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    variance = float(covariance[HOLE, HOLE])
    hole = last.x_s[:, HOLE]
    assert abs(float(hole.mean() - mean[HOLE])) < 4 * math.sqrt(variance / count)
    assert abs(float(hole.var()) - variance) < 4 * variance * math.sqrt(2 / count)
    assert torch.equal(last.x_s[:, 0], X0[:1].expand(count)), "what is known comes out exactly"
    assert (last.index, last.count) == (120, 120)


def test_repair_tends_to_the_conditional() -> None:
    """With more rounds, and at the limit of many rounds with less noise in the last stretch."""
    schedule = linear_schedule(1000)
    times = list(range(1000, -1, -10))
    eye, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)

    def distance(mean: Tensor, variance: Tensor) -> float:
        return float(kl(Gaussian(mean.reshape(1, 1), variance.log().reshape(1, 1)), CONDITIONAL))

    by_rounds = []
    for rounds in (1, 2, 4, 8):
        mean, covariance = moments(schedule, repeated(times, 5, rounds), zero, eye)
        by_rounds.append(distance(mean[HOLE], covariance[HOLE, HOLE]))
    assert by_rounds == sorted(by_rounds, reverse=True)
    assert by_rounds[0] > 0.1 > 5 * by_rounds[-1], by_rounds

    def kept(top: int) -> float:
        """The distance of what a last stretch from `top` leaves as it is: u' = a u + c + noise."""
        stretch = [0, *range(top, -1, -1)]
        known = torch.tensor([X0[0], 0.0], dtype=torch.float64)
        (shift, variance), (moved, _) = (
            moments(schedule, stretch, known + unit, torch.zeros_like(eye)) for unit in (zero, eye[HOLE])
        )
        slope = moved[HOLE] - shift[HOLE]
        return distance(shift[HOLE] / (1 - slope), variance[HOLE, HOLE] / (1 - slope**2))

    limits = [kept(top) for top in (300, 100, 30)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] < 1e-3


def test_each_stretch_is_walked_as_often_as_asked() -> None:
    assert repeated([9, 6, 3, 0], 2, 2) == [9, 6, 3, 9, 6, 3, 0, 3, 0]
    assert repeated([9, 6, 3, 0], 2, 1) == [9, 6, 3, 0]
    for stretch, rounds in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="expected a stretch and rounds of 1 or more"):
            repeated([2, 1, 0], stretch, rounds)


MIXTURE = (
    torch.tensor([0.2, 0.5, 0.3]),
    torch.tensor([[-1.0, 0.2], [0.7, 0.5], [0.1, -0.9]]),
    torch.tensor([[0.1, 0.3], [0.2, 0.05], [0.15, 0.15]]),
)


@pytest.mark.parametrize("t", [1, 20, 50])
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_exact_posterior_of_a_class_gives_the_score_of_the_class(t: int, weight: float) -> None:
    """For a weight w the score is that of q(x_t)^(1−w) q(x_t|y)^w."""
    schedule = linear_schedule(50)
    whole = Mixture(schedule, *MIXTURE)
    one = Mixture(schedule, torch.ones(1), MIXTURE[1][1:2], MIXTURE[2][1:2])

    def posterior(x_t: Tensor, t: Tensor, _: Denoised) -> Tensor:
        return one.log_prob(x_t, t) - whole.log_prob(x_t, t) + math.log(0.5)

    x_t, at = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.full((200,), t)
    with torch.inference_mode():
        found = guided(whole.predict, posterior, schedule, weight, clip=False)(x_t, at)
    free, conditional = whole.predict(x_t, at), one.predict(x_t, at)
    torch.testing.assert_close(found.eps_hat, free.eps_hat + weight * (conditional.eps_hat - free.eps_hat))
    torch.testing.assert_close(found.x0_hat, free.x0_hat + weight * (conditional.x0_hat - free.x0_hat))


def test_a_linear_log_probability_of_the_prediction_tilts_gaussian_data() -> None:
    """N(0, C) times exp(a·x_0) is N(C a, C): differentiated through x̂_0, the gradient is exact at every t."""
    schedule, a = linear_schedule(50), torch.tensor([0.7, -0.4], dtype=torch.float64)
    plain, tilted = data(schedule), GaussianData(schedule, COVARIANCE @ a, COVARIANCE)
    x_t = torch.randn(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.arange(100) % 50 + 1
    found = guided(plain.predict, lambda x, t, denoised: denoised.x0_hat @ a, schedule, 1.0, clip=False)(x_t, t)
    torch.testing.assert_close(found.x0_hat, tilted.predict(x_t, t).x0_hat)
    clipped = guided(plain.predict, lambda x, t, denoised: denoised.x0_hat @ a, schedule, 1.0)(x_t, t)
    torch.testing.assert_close(clipped.x0_hat, found.x0_hat.clamp(-1, 1))
    torch.testing.assert_close(q_marginal(schedule, clipped.x0_hat, t).sample(clipped.eps_hat), x_t)


@pytest.mark.parametrize("t", [200, 600])
def test_a_drawing_is_kept_as_far_as_its_direction_varies_in_the_data(t: int) -> None:
    schedule, count = linear_schedule(1000), 20_000
    noise, drawing = noise_of(count, 2), torch.tensor([0.9, -0.9], dtype=torch.float64)
    predict: Predict = data(schedule).predict
    x_t = q_marginal(schedule, drawing.expand(count, 2), torch.full((count,), t)).sample(noise.draw())
    *_, last = walk(predict, ancestral(schedule, noise), x_t, list(range(t, -1, -5)))
    alpha_bar, eye = float(schedule.alpha_bar[t]), torch.eye(2, dtype=torch.float64)
    expected = alpha_bar * COVARIANCE @ torch.linalg.inv(alpha_bar * COVARIANCE + (1 - alpha_bar) * eye) @ drawing
    error = last.x_s.std(dim=0) / count**0.5
    assert bool(((last.x_s.mean(dim=0) - expected).abs() < 4 * error).all())
