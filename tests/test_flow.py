"""genlab/flow.py: the straight path, its velocity, and the same flow seen as a diffusion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genlab.flow import (
    LAST,
    detour,
    eps_from_velocity,
    flow_matching_loss,
    straight,
    straight_schedule,
    straight_time,
    v_from_velocity,
    velocity,
    velocity_from_eps,
    velocity_from_score,
    velocity_from_v,
    x0_from_velocity,
)
from genlab.oracle import GaussianData
from genlab.plane import mixture
from genlab.process import Denoised, q_marginal, v_from_eps, x0_from_eps
from genlab.sampler import History, ddim, walk
from genlab.schedule import Schedule, cosine_schedule, linear_schedule
from genlab.score import score_from_eps

SCHEDULES = [linear_schedule(100), cosine_schedule(50), straight_schedule(40)]


def pairs(schedule: Schedule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every t of 1…T with a picture, its noise and x_t, float64."""
    t = torch.arange(1, schedule.T + 1)
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(len(t), 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return t, x0, eps, q_marginal(schedule, x0, t).sample(eps)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_velocity_is_the_same_from_every_prediction_and_back(schedule: Schedule) -> None:
    t, x0, eps, x_t = pairs(schedule)
    u, v = eps - x0, v_from_eps(schedule, x0, eps, t)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(velocity_from_eps(schedule, x_t, eps, t), u, rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(velocity_from_score(schedule, x_t, score_from_eps(schedule, eps, t), t), u, rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(velocity_from_v(schedule, x_t, v, t), u, **close)
    torch.testing.assert_close(velocity(Denoised(eps, x0, None)), u, **close)
    torch.testing.assert_close(eps_from_velocity(schedule, x_t, u, t), eps, **close)
    torch.testing.assert_close(x0_from_velocity(schedule, x_t, u, t), x0, **close)
    torch.testing.assert_close(v_from_velocity(schedule, x_t, u, t), v, **close)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_chain_lies_on_straight_paths(schedule: Schedule) -> None:
    t, x0, eps, x_t = pairs(schedule)
    s = straight_time(schedule, t)[:, None, None]
    torch.testing.assert_close(straight(schedule, x_t, t), (1 - s) * x0 + s * eps, rtol=1e-12, atol=1e-12)


def test_the_straight_chain_is_evenly_spaced() -> None:
    s = straight_time(straight_schedule(40), torch.arange(41))
    torch.testing.assert_close(s, torch.linspace(0, LAST, 41, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_ddim_step_is_eulers_step_along_the_velocity(schedule: Schedule) -> None:
    """For any prediction, right or wrong, and any step, also to clean data."""
    t, _, eps, x_t = pairs(schedule)
    denoised = Denoised(eps + 1, x0_from_eps(schedule, x_t, eps + 1, t), None)
    for i, now in enumerate(t.tolist()):
        for then in {now - 1, now // 2, 0}:
            here, there = t[i : i + 1], torch.tensor([then])
            one = Denoised(denoised.eps_hat[i : i + 1], denoised.x0_hat[i : i + 1], None)
            x_s, _ = ddim(schedule)(History(), x_t[i : i + 1], one, here, there)
            ds = float(straight_time(schedule, there) - straight_time(schedule, here))
            expected = straight(schedule, x_t[i : i + 1], here) + ds * velocity(one)
            torch.testing.assert_close(straight(schedule, x_s, there), expected, rtol=1e-8, atol=1e-8)


def test_the_velocity_of_gaussian_data_is_known() -> None:
    """x_s ~ N((1 − s) m, (1 − s)² V + s²); u is linear in x, by the conditional mean of a joint Gaussian."""
    schedule, m, V = straight_schedule(40), 0.7, 0.25
    data = GaussianData(schedule, torch.tensor([m], dtype=torch.float64), torch.tensor([V], dtype=torch.float64))
    t = torch.arange(1, 41)
    s = straight_time(schedule, t)[:, None]
    x = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
    expected = -m + (s - (1 - s) * V) / ((1 - s) ** 2 * V + s**2) * (x - (1 - s) * m)
    scale = (schedule.alpha_bar[t].sqrt() + (1 - schedule.alpha_bar[t]).sqrt())[:, None]
    torch.testing.assert_close(velocity(data.predict(scale * x, t)), expected, rtol=1e-8, atol=1e-8)


def test_a_walk_along_the_velocity_ends_on_the_data() -> None:
    """N(0, 1) is carried to N(m, V) by the one affine map x → m + √V x; Euler's error halves with the step."""
    m, V = 0.7, 0.25
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = []
    for T in (200, 400):
        schedule = straight_schedule(T)
        data = GaussianData(schedule, torch.tensor([m], dtype=torch.float64), torch.tensor([V], dtype=torch.float64))
        *_, last = walk(data.predict, ddim(schedule), x, list(range(T, -1, -1)))
        errors.append(float((last.x_s - (m + V**0.5 * x)).abs().max()))
    assert errors[0] < 0.02
    assert errors[1] / errors[0] == pytest.approx(0.5, abs=0.1)


def test_the_loss_is_least_at_the_velocity() -> None:
    """Eq. 3: two wrong models differ in loss by as much as in their squared error, within 4 standard errors of 40,000 draws."""
    schedule = straight_schedule(40)
    data = mixture("blobs", schedule)
    generator = torch.Generator().manual_seed(0)
    x0 = data.sample(40_000, generator)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    t = torch.randint(1, 41, (len(x0),), generator=generator)
    s = straight_time(schedule, t)

    def exact(x: Tensor, s: Tensor) -> Tensor:
        scale = schedule.alpha_bar[t].sqrt() + (1 - schedule.alpha_bar[t]).sqrt()
        return velocity(data.predict(scale[:, None] * x, t))

    def wrong(shift: float) -> tuple[Tensor, Tensor]:
        loss = flow_matching_loss(lambda x, s: exact(x, s) + shift * x.sin(), x0, s, eps)
        x = (1 - s[:, None]) * x0 + s[:, None] * eps
        return loss, ((shift * x.sin()) ** 2).sum(dim=1)

    base, _ = wrong(0.0)
    for shift in (-0.5, 0.2, 1.0):
        loss, error = wrong(shift)
        gap = loss - base - error
        assert float(gap.mean().abs()) < 4 * float(gap.std()) / len(gap) ** 0.5
        assert float(loss.mean()) > float(base.mean())


def test_the_detour_of_a_half_circle_is_half_of_pi_and_of_straight_lines_1() -> None:
    turn = torch.linspace(0, torch.pi, 2001, dtype=torch.float64)
    circle, line = torch.stack([turn.cos(), turn.sin()], dim=1), torch.stack([turn, 2 * turn], dim=1)
    assert float(detour(circle[:, None])) == pytest.approx(torch.pi / 2)
    assert float(detour(torch.stack([line, 2 * line], dim=1))) == pytest.approx(1)
