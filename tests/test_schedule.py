"""The schedules against diffusers', their definitions, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler

from genlab.schedule import Schedule, at, cosine_schedule, linear_schedule, make_schedule, spread


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_agrees_with_diffusers(ours: str, theirs: str) -> None:
    schedule = make_schedule(ours, 1000)  # type: ignore[arg-type]
    peer = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule=theirs)
    # Theirs has no slot 0 and is float32: its product of 1000 factors has a relative error of up to 1000 roundings.
    torch.testing.assert_close(schedule.beta[1:], peer.betas.double(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(schedule.alpha_bar[1:], peer.alphas_cumprod.double(), rtol=1000 * 2**-24, atol=0)


@pytest.mark.parametrize("schedule", [linear_schedule(100), cosine_schedule(100), linear_schedule(21), cosine_schedule(2)])
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
