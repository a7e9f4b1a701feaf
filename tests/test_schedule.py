"""The schedules against diffusers', their definitions, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from genlab import schedule as module
from genlab.schedule import (
    FINEST_NOISE,
    Schedule,
    at,
    cosine_schedule,
    linear_schedule,
    make_schedule,
    mixed_schedule,
    refined_schedule,
    spread,
)


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_agrees_with_diffusers(diffusers: Any, ours: str, theirs: str) -> None:
    schedule = make_schedule(ours, 1000)  # type: ignore[arg-type]
    peer = diffusers.DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule=theirs)
    # Theirs has no slot 0 and is float32: its product of 1000 factors has a relative error of up to 1000 roundings.
    torch.testing.assert_close(schedule.beta[1:], peer.betas.double(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(schedule.alpha_bar[1:], peer.alphas_cumprod.double(), rtol=1000 * 2**-24, atol=0)


@pytest.mark.parametrize(
    "schedule",
    [
        linear_schedule(100),
        cosine_schedule(100),
        mixed_schedule(100),
        linear_schedule(21),
        cosine_schedule(2),
        mixed_schedule(2),
    ],
)
def test_tables(schedule: Schedule) -> None:
    T = schedule.T
    tables = (schedule.beta, schedule.alpha, schedule.alpha_bar, schedule.snr, schedule.half_log_snr)
    assert all(table.shape == (T + 1,) and table.dtype == torch.float64 for table in tables)
    assert [table[0] for table in tables] == [0, 1, 1, math.inf, math.inf]
    product = 1.0
    for t in range(1, T + 1):
        product *= 1 - float(schedule.beta[t])
        assert float(schedule.alpha_bar[t]) == pytest.approx(product, rel=1e-12)
        assert float(schedule.snr[t]) == pytest.approx(product / (1 - product), rel=1e-12)
        signal, noise = math.sqrt(product), math.sqrt(1 - product)
        assert float(schedule.half_log_snr[t]) == pytest.approx(math.log(signal / noise), rel=1e-9, abs=1e-12)
    assert bool((schedule.alpha_bar.diff() < 0).all())


def test_the_linear_schedule_is_that_of_the_notes() -> None:
    beta = linear_schedule(1000).beta[1:]
    assert (float(beta[0]), float(beta[-1])) == pytest.approx((1e-4, 0.02), abs=1e-15)
    torch.testing.assert_close(beta.diff(), torch.full_like(beta[1:], (0.02 - 1e-4) / 999), rtol=1e-9, atol=0)


def test_short_linear_chains_end_near_pure_noise_too() -> None:
    # log ᾱ_T ≈ −Σβ − ½Σβ², and Σβ = 10.05 for every T; the second sum only grows as steps grow.
    whole = float(linear_schedule(1000).alpha_bar[-1])
    for T in (4000, 500, 100, 30):
        assert float(linear_schedule(T).beta.sum()) == pytest.approx(10.05, abs=1e-9)
        assert (float(linear_schedule(T).alpha_bar[-1]) > whole) == (T > 1000)


@pytest.mark.parametrize("T", [10, 50, 1000])
def test_the_cosine_schedule_follows_its_cosine(T: int) -> None:
    schedule = cosine_schedule(T)

    def f(t: int) -> float:
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in range(T):  # the last β is clipped
        assert float(schedule.alpha_bar[t]) == pytest.approx(f(t) / f(0), rel=1e-9)
    assert float(schedule.beta[T]) == 0.999


@pytest.mark.parametrize("T", [2, 50, 1000])
def test_the_mixed_schedule_goes_from_below_a_gray_level_to_the_noise_of_the_linear_one(T: int) -> None:
    schedule = mixed_schedule(T)
    assert float(schedule.snr[1]) ** -0.5 == pytest.approx(FINEST_NOISE, rel=1e-9)
    assert FINEST_NOISE < (2 / 255) / 4
    assert float(schedule.alpha_bar[T]) == pytest.approx(float(linear_schedule(1000).alpha_bar[-1]), rel=0.1)


def test_the_mixed_schedule_without_even_steps_is_the_linear_one(monkeypatch: pytest.MonkeyPatch) -> None:
    T = 10_000  # where the sum over steps is close to the integral over τ
    linear = linear_schedule(T)
    monkeypatch.setattr(module, "EVEN_SHARE", 0.0)
    monkeypatch.setattr(module, "FINEST_NOISE", float(linear.snr[1]) ** -0.5)
    torch.testing.assert_close(mixed_schedule(T).half_log_snr[1:], linear.half_log_snr[1:], rtol=0, atol=50 / T)


def test_the_mixed_schedule_of_even_steps_alone_is_even_in_log_snr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVEN_SHARE", 1.0)
    steps = mixed_schedule(100).half_log_snr[1:].diff()
    torch.testing.assert_close(steps, steps.mean().expand(99), rtol=1e-6, atol=0)


def test_a_quarter_of_the_mixed_schedules_steps_are_even_in_log_snr(scipy: Any) -> None:
    schedule, T = mixed_schedule(1000), 1000
    a, b = 0.1, 9.95  # −log ᾱ = a τ + b τ²
    highest, lowest = float(schedule.half_log_snr[1]), float(schedule.half_log_snr[T])

    def tau(t: int) -> float:
        log_alpha_bar = math.log(float(schedule.alpha_bar[t]))
        return float(scipy.optimize.brentq(lambda tau: a * tau + b * tau**2 + log_alpha_bar, 0, 1.01, xtol=1e-14))

    for t in (1, 2, 10, 100, 300, 700, 999, T):
        even = (highest - float(schedule.half_log_snr[t])) / (highest - lowest)
        along = 0.75 * (tau(t) - tau(1)) / (tau(T) - tau(1)) + 0.25 * even
        assert along == pytest.approx((t - 1) / (T - 1), abs=1e-8)


@pytest.mark.parametrize("schedule", [cosine_schedule(5), linear_schedule(30), mixed_schedule(1000)])
@pytest.mark.parametrize("parts", [1, 4])
def test_a_refined_schedule_keeps_every_time_and_is_linear_in_log_snr_between(schedule: Schedule, parts: int) -> None:
    fine = refined_schedule(schedule, parts)
    assert (schedule.T - 1) * parts + 1 == fine.T
    torch.testing.assert_close(fine.half_log_snr[1::parts], schedule.half_log_snr[1:], rtol=1e-8, atol=1e-8)
    steps = fine.half_log_snr[1:].diff().reshape(-1, parts)
    torch.testing.assert_close(steps, steps.mean(dim=1, keepdim=True).expand_as(steps), rtol=1e-6, atol=1e-8)


def test_a_schedule_is_not_refined_into_no_steps() -> None:
    with pytest.raises(ValueError, match="expected 1 part or more, got 0"):
        refined_schedule(cosine_schedule(5), 0)


def test_at_picks_and_shapes() -> None:
    schedule = cosine_schedule(10)
    x = torch.zeros(3, 1, 2, 2)
    picked = at(schedule.alpha_bar, torch.tensor([0, 5, 10]), x)
    assert picked.shape == (3, 1, 1, 1)
    assert picked.dtype == torch.float32
    torch.testing.assert_close(picked.flatten().double(), schedule.alpha_bar[[0, 5, 10]], rtol=1e-6, atol=1e-12)
    assert spread(torch.ones(3, 1), x.double()).shape == (3, 1, 1, 1)


@pytest.mark.parametrize("T", [1, 5, 20])
def test_a_linear_chain_too_short_is_refused(T: int) -> None:
    with pytest.raises(ValueError, match=f"expected T > 20 for the linear schedule, got {T}; use the cosine schedule"):
        linear_schedule(T)


@pytest.mark.parametrize(
    "beta",
    [
        torch.tensor([0.0, 0.5, 0.5]),
        torch.tensor([0.0, 0.5], dtype=torch.float64),
        torch.zeros(3, 3, dtype=torch.float64),
    ],
)
def test_tables_of_another_kind_are_refused(beta: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected β as at least 3 float64 values, got"):
        Schedule(beta)


@pytest.mark.parametrize("beta", [[0.1, 0.1, 0.1], [0.0, 0.1, 1.0], [0.0, 0.0, 0.1], [0.0, 0.1, -0.1], [0.0, 0.1, math.nan]])
def test_values_out_of_range_are_refused(beta: list[float]) -> None:
    with pytest.raises(ValueError, match="expected β_0 = 0 and 0 < β_t < 1 for every t ≥ 1"):
        Schedule(torch.tensor(beta, dtype=torch.float64))


def test_check() -> None:
    schedule = cosine_schedule(10)
    schedule.check(torch.tensor([1, 10]))
    schedule.check(torch.tensor([0]), lowest=0)
    for t in (torch.tensor([0]), torch.tensor([11]), torch.tensor([-1, 3]), torch.tensor([2.0])):
        with pytest.raises(ValueError, match="expected whole t from 1 to 10, got"):
            schedule.check(t)
