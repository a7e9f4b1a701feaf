"""The samplers against diffusers' schedulers and against data whose score is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from genlab.config import SamplerName
from genlab.divergence import Gaussian
from genlab.oracle import GaussianData, Mixture
from genlab.process import Denoised, eps_from_x0, x0_from_eps
from genlab.sampler import (
    SAMPLERS,
    SPACINGS,
    VISIBLE,
    Frame,
    History,
    Noise,
    Step,
    ancestral,
    ddim,
    distinct,
    dpm_solver,
    fit_times,
    invert,
    spaced,
    timesteps,
    unipc,
    walk,
)
from genlab.schedule import Schedule, cosine_schedule, linear_schedule, mixed_schedule

T = 40
SCHEDULES = [pytest.param(linear_schedule(T), id="linear"), pytest.param(cosine_schedule(T), id="cosine")]


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Given(Noise):
    """A source of noise that gives what it is told to."""

    def __init__(self, give: Callable[[], Tensor]) -> None:
        super().__init__((), ())
        object.__setattr__(self, "give", give)

    def draw(self) -> Tensor:
        return self.give()  # type: ignore[attr-defined, no-any-return]


def network(x_t: Tensor, t: Tensor) -> Tensor:
    """Any smooth function of x_t and t will do in the place of ε̂."""
    return torch.tanh(1.3 * x_t + 0.1 * t[:, None, None, None].double().sin()) + 0.2


def place(x_t: Tensor) -> Tensor:
    """And of x_t in the place of the output for Σ, from −1 to 1."""
    return torch.sin(3 * x_t)


def predictor(schedule: Schedule, clip: bool) -> Callable[[Tensor, Tensor], Denoised]:
    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        eps = network(x_t, t)
        x0_hat = x0_from_eps(schedule, x_t, eps, t)
        if clip:
            x0_hat = x0_hat.clamp(-1, 1)
            eps = eps_from_x0(schedule, x_t, x0_hat, t)
        return Denoised(eps, x0_hat, (place(x_t) + 1) / 2)

    return predict


def exact_tables(peer: Any, schedule: Schedule) -> None:
    """Give a diffusers scheduler our float64 ᾱ, so that only the step is compared: its t − 1 is our t."""
    peer.alphas_cumprod = schedule.alpha_bar[1:]
    peer.one = peer.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)


def in_time(x: Tensor, t: int) -> Tensor:
    return torch.full((len(x),), t)


# ---- against diffusers


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"), [("posterior", "fixed_small"), ("beta", "fixed_large"), ("learned", "learned_range")]
)
@pytest.mark.parametrize("times", [list(range(T, -1, -1)), [40, 31, 12, 5, 1, 0]], ids=["all", "some"])
def test_ancestral_steps_agree_with_diffusers(
    diffusers: Any, schedule: Schedule, clip: bool, ours: str, theirs: str, times: list[int]
) -> None:
    peer = diffusers.DDPMScheduler(T, trained_betas=schedule.beta[1:].numpy(), variance_type=theirs, clip_sample=clip)
    exact_tables(peer, schedule)
    peer.set_timesteps(timesteps=[t - 1 for t in times[:-1]])
    x = expected = 1.5 * randn(0, 2, 1, 4, 4)
    generator, again = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    noise = Given(lambda: torch.randn(x.shape, generator=generator, dtype=torch.float64))
    for frame in walk(predictor(schedule, clip), ancestral(schedule, noise, ours), x, times):  # type: ignore[arg-type]
        output = network(expected, in_time(x, frame.t))
        if theirs == "learned_range":
            output = torch.cat([output, place(expected)], dim=1)
        expected = peer.step(output, frame.t - 1, expected, generator=again).prev_sample
        torch.testing.assert_close(frame.x_s, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [T, 8, 1])
def test_ddim_steps_agree_with_diffusers(diffusers: Any, schedule: Schedule, clip: bool, eta: float, count: int) -> None:
    peer = diffusers.DDIMScheduler(
        T, trained_betas=schedule.beta[1:].numpy(), clip_sample=clip, timestep_spacing="trailing", set_alpha_to_one=True
    )
    exact_tables(peer, schedule)
    peer.set_timesteps(count)
    assert [t - 1 for t in timesteps(T, count)[:-1]] == peer.timesteps.tolist()
    x = expected = 1.5 * randn(0, 2, 1, 4, 4)
    drawn: list[Tensor] = []
    noise = Given(lambda: drawn.append(randn(len(drawn), *x.shape)) or drawn[-1])
    for frame in walk(predictor(schedule, clip), ddim(schedule, noise, eta), x, timesteps(T, count)):
        output = network(expected, in_time(x, frame.t))
        z = drawn[-1] if drawn else torch.zeros_like(x)  # theirs multiplies by zero at the last step, ours does not draw
        step = peer.step(output, frame.t - 1, expected, eta=eta, use_clipped_model_output=clip, variance_noise=z)
        expected = step.prev_sample
        torch.testing.assert_close(frame.x_s, expected, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(frame.x0_hat, step.pred_original_sample, rtol=1e-8, atol=1e-8)
    assert len(drawn) == (count - 1 if eta else 0)


WALKS = [
    pytest.param(list(range(T, -1, -1)), id="all"),
    pytest.param([40, 31, 12, 5, 1, 0], id="some"),
    pytest.param([40, 9, 0], id="two"),
    pytest.param([40, 0], id="one"),
]


def same_times(peer: Any, schedule: Schedule, times: list[int]) -> Any:
    """Give a diffusers solver our times, and √((1 − ᾱ)/ᾱ) in float64 with the 0 of clean data at the end."""
    peer.set_timesteps(len(times) - 1)
    peer.timesteps = torch.tensor([t - 1 for t in times[:-1]])
    peer.sigmas = (1 / schedule.snr[times]).sqrt()
    return peer


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("kind", ["dpmsolver++", "sde-dpmsolver++"])
@pytest.mark.parametrize("times", WALKS)
def test_dpm_solver_steps_agree_with_diffusers(
    diffusers: Any, schedule: Schedule, clip: bool, kind: str, times: list[int]
) -> None:
    peer = diffusers.DPMSolverMultistepScheduler(T, algorithm_type=kind, prediction_type="sample", solver_order=2)
    same_times(peer, schedule, times)
    x = expected = 1.5 * randn(0, 2, 1, 4, 4)
    drawn: list[Tensor] = []
    noise = Given(lambda: drawn.append(randn(len(drawn) + 1, *x.shape)) or drawn[-1]) if kind.startswith("sde") else None
    predict = predictor(schedule, clip)
    for frame in walk(predict, dpm_solver(schedule, noise), x, times):
        predicted = predict(expected, in_time(x, frame.t)).x0_hat
        z = drawn[-1] if drawn else torch.zeros_like(x)
        expected = peer.step(predicted, torch.tensor(frame.t - 1), expected, variance_noise=z).prev_sample
        # Theirs casts the state to float32 in every step.
        torch.testing.assert_close(frame.x_s, expected, rtol=1e-5, atol=1e-5)
    assert len(drawn) == (len(times) - 2 if noise else 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("order", "b"), [(1, "B1"), (1, "B2"), (2, "B1"), (2, "B2"), (3, "B2"), (4, "B2")])
@pytest.mark.parametrize("times", WALKS)
def test_unipc_steps_agree_with_diffusers(
    diffusers: Any, schedule: Schedule, clip: bool, order: int, b: str, times: list[int]
) -> None:
    peer = diffusers.UniPCMultistepScheduler(T, solver_order=order, solver_type=b.replace("B", "bh"), prediction_type="sample")
    same_times(peer, schedule, times)
    x = expected = 1.5 * randn(0, 2, 1, 4, 4)
    predict = predictor(schedule, clip)
    for frame in walk(predict, unipc(schedule, order, times, b), x, times):  # type: ignore[arg-type]
        predicted = predict(expected, in_time(x, frame.t)).x0_hat
        expected = peer.step(predicted, torch.tensor(frame.t - 1), expected).prev_sample
        if b == "B1" and frame.s == 0:
            assert bool(expected.isnan().all())  # theirs multiplies B₁(∞) by zero
            expected = frame.x0_hat
        torch.testing.assert_close(frame.x_s, expected, rtol=1e-7, atol=1e-7)


def test_ddim_with_eta_one_is_the_ancestral_step() -> None:
    schedule = linear_schedule(T)
    x, z = randn(0, 3, 1, 2, 2), randn(1, 3, 1, 2, 2)
    noise = Given(lambda: z)
    for t, s in pairwise([40, 33, 32, 8, 1, 0]):
        predicted = predictor(schedule, False)(x, in_time(x, t))
        steps = (ddim(schedule, noise, 1.0), ancestral(schedule, noise))
        one, other = (step(History(), x, predicted, in_time(x, t), in_time(x, s))[0] for step in steps)
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_float32_steps_keep_their_digits_near_clean_data() -> None:
    schedule = linear_schedule(1000)
    x, z = randn(0, 3, 1, 2, 2), randn(1, 3, 1, 2, 2)
    noise = Given(lambda: z)
    for t, s in ((3, 2), (2, 1), (50, 1), (1000, 999)):
        predicted = Denoised(z.flip(0), x.flip(1), None)
        single = Denoised(predicted.eps_hat.float(), predicted.x0_hat.float(), None)
        for eta in (0.0, 1.0):
            step = ddim(schedule, noise, eta)
            exact, _ = step(History(), x, predicted, in_time(x, t), in_time(x, s))
            got, _ = step(History(), x.float(), single, in_time(x, t), in_time(x, s))
            assert got.dtype == torch.float32
            torch.testing.assert_close(got.double(), exact, rtol=0, atol=5e-7)


# ---- against data whose score is known


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [T, 7])
def test_ancestral_sampling_keeps_the_standard_normal(schedule: Schedule, count: int) -> None:
    """With Σ = β a step takes variance 1 to variance 1: x_s = a x_t + b z, a² + b² = 1. Only the last step draws no noise."""
    oracle = GaussianData.standard(schedule, (1,))
    variance = 1.0
    for t, s in pairwise(timesteps(T, count)):
        zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)

        def move(x: Tensor, z: Tensor, t: int = t, s: int = s) -> float:
            step = ancestral(schedule, Given(lambda: z), "beta")
            return float(step(History(), x, oracle.predict(x, in_time(x, t)), in_time(x, t), in_time(x, s))[0])

        assert move(zero, zero) == 0
        variance = move(one, zero) ** 2 * variance + move(zero, one) ** 2
        if s > 0:
            assert variance == pytest.approx(1, abs=1e-12)
    assert variance == pytest.approx(float(schedule.alpha_bar[timesteps(T, count)[-2]]), abs=1e-12)


def test_ancestral_samples_are_standard_normal() -> None:
    schedule, count = linear_schedule(100), 20_000
    x = randn(0, count, 1)
    generator = torch.Generator().manual_seed(1)
    noise = Given(lambda: torch.randn(count, 1, generator=generator, dtype=torch.float64))
    oracle = GaussianData.standard(schedule, (1,))
    for frame in walk(oracle.predict, ancestral(schedule, noise, "beta"), x, list(range(100, 0, -1))):
        last = frame.x_s
    # Standard errors of the first four moments of N(0, 1).
    for power, moment, error in ((1, 0.0, 1.0), (2, 1.0, math.sqrt(2)), (3, 0.0, math.sqrt(15)), (4, 3.0, math.sqrt(96))):
        assert float((last**power).mean()) == pytest.approx(moment, abs=4 * error / count**0.5)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_a_mixture_comes_back_with_its_weights_means_and_covariances(sampler: str) -> None:
    schedule, count = cosine_schedule(200), 4000
    weight = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    mean = torch.tensor([[-2.0, 0.0], [1.0, 1.5], [1.0, -2.0]], dtype=torch.float64)
    variance = torch.tensor([[0.04, 0.25], [0.16, 0.04], [0.09, 0.09]], dtype=torch.float64)
    data = Mixture(schedule, weight, mean, variance)
    generator = torch.Generator().manual_seed(2)
    noise = Given(lambda: torch.randn(count, 2, generator=generator, dtype=torch.float64))
    step = ancestral(schedule, noise) if sampler == "ancestral" else ddim(schedule)
    *_, last = walk(data.predict, step, noise.draw(), timesteps(200, 200))
    nearest = torch.cdist(last.x_s, mean).argmin(dim=1)  # the components are many σ apart
    for k in range(3):
        chosen = last.x_s[nearest == k]
        n = len(chosen)
        assert n / count == pytest.approx(float(weight[k]), abs=4 * math.sqrt(0.25 / count))
        # A chain of 200 steps is a little too narrow: a few per cent of the variance are its own, the rest is chance.
        torch.testing.assert_close(chosen.mean(0), mean[k], rtol=0, atol=4 * float(variance[k].max().sqrt()) / n**0.5 + 0.01)
        torch.testing.assert_close(chosen.T.cov().diag(), variance[k], rtol=4 * math.sqrt(2 / n) + 0.04, atol=0)
        correlation = chosen.T.corrcoef()[0, 1]
        assert abs(float(correlation)) < 4 / n**0.5


def cosine_of_equal_angles(total: float, count: int) -> Schedule:
    """ᾱ_t = cos²(t/N · total) for t = 0 … N."""
    alpha_bar = torch.cos(torch.arange(count + 1, dtype=torch.float64) / count * total) ** 2
    return Schedule(torch.cat([torch.zeros(1, dtype=torch.float64), 1 - alpha_bar[1:] / alpha_bar[:-1]]))


def gain(frames: object) -> float:
    *_, last = frames  # type: ignore[misc]
    return float(last.x_s)


@pytest.mark.parametrize("count", [2, 5, 16, 64])
@pytest.mark.parametrize("total", [1.0, 1.5, math.pi / 2 - 1e-5])
def test_ddim_scales_standard_normal_data_by_a_power_of_a_cosine(total: float, count: int) -> None:
    """x̂_0 = cos θ_t x and ε̂ = sin θ_t x, so that x_s = (cos θ_s cos θ_t + sin θ_s sin θ_t) x = cos(θ_t − θ_s) x.

    N equal angles from π/2 make cos(π/2N)^N; ᾱ_T = 0 itself is no schedule, hence the 1e-5.
    """
    schedule = cosine_of_equal_angles(total, count)
    oracle = GaussianData.standard(schedule, (1,))
    got = gain(walk(oracle.predict, ddim(schedule), torch.ones(1, 1, dtype=torch.float64), timesteps(count, count)))
    assert got == pytest.approx(math.cos(total / count) ** count, abs=1e-9)


def test_the_error_of_ddim_halves_when_the_steps_double() -> None:
    schedule = cosine_of_equal_angles(1.5, 256)
    oracle = GaussianData.standard(schedule, (1,))
    start = torch.ones(1, 1, dtype=torch.float64)
    errors = [1 - gain(walk(oracle.predict, ddim(schedule), start, timesteps(256, n))) for n in (32, 64, 128, 256)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2, rel=0.05)


BIMODAL = (
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    torch.tensor([[-1.0], [0.7]], dtype=torch.float64),
    torch.tensor([[0.3], [0.2]], dtype=torch.float64),
)


def quantile(data: Mixture, p: Tensor, t: int) -> Tensor:
    """The x_t that a share p of one-dimensional mixture data lies below at time t, by bisection."""
    alpha_bar = data.schedule.alpha_bar[t]
    component = torch.distributions.Normal(
        alpha_bar.sqrt() * data.mean[:, 0], (alpha_bar * data.variance[:, 0] + 1 - alpha_bar).sqrt()
    )
    low, high = torch.full_like(p, -20), torch.full_like(p, 20)
    for _ in range(60):
        middle = (low + high) / 2
        below = (data.weight * component.cdf(middle[:, None])).sum(dim=1) < p
        low, high = middle.where(below, low), high.where(below, middle)
    return low[:, None]


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        pytest.param(ddim, 1, id="ddim"),
        pytest.param(dpm_solver, 2, id="2M"),
        pytest.param(lambda schedule: unipc(schedule, 1), 2, id="unipc-1"),
        pytest.param(lambda schedule: unipc(schedule, 2), 3, id="unipc-2"),
        pytest.param(lambda schedule: unipc(schedule, 2, b="B1"), 3, id="unipc-2-B1"),
        pytest.param(lambda schedule: unipc(schedule, 3), 4, id="unipc-3"),
    ],
)
def test_solvers_converge_with_their_order(solver: Callable[[Schedule], Step], order: int) -> None:
    """The flow keeps quantiles in one dimension, so that where it leads is known; the walk ends before λ is infinite.

    The corrections of UniPC-p make it one of order p + 1 (Zhao et al. 2023, theorem 3.1).
    """
    schedule = cosine_of_equal_angles(1.5, 1024)
    data = Mixture(schedule, *BIMODAL)
    p = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    start, end = quantile(data, p, 1024), quantile(data, p, 64)
    errors = []
    for count in (80, 160, 320):
        *_, last = walk(data.predict, solver(schedule), start, [1024 - 960 // count * i for i in range(count + 1)])
        errors.append(float((last.x_s - end).square().mean().sqrt()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def test_ddim_undoes_its_inversion_up_to_an_error_that_halves() -> None:
    schedule = cosine_of_equal_angles(1.5, 256)
    mixture = Mixture(schedule, *BIMODAL)
    gaussian = GaussianData(schedule, torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64))
    x0 = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    for oracle in (mixture, gaussian):
        errors = []
        for count in (32, 64, 128):
            up = list(invert(oracle.predict, schedule, x0, count))
            assert (up[0].t, up[-1].s, len(up)) == (0, 256, count)
            *_, down = walk(oracle.predict, ddim(schedule), up[-1].x_s, timesteps(256, count))
            errors.append(float((down.x_s - x0).abs().max()))
        assert errors[-1] < 0.05
        for coarse, fine in pairwise(errors):
            assert 1.6 < coarse / fine < 2.6


def test_inversion_leads_to_the_noise_of_the_probability_flow() -> None:
    """DDIM follows an ordinary differential equation, which in one dimension keeps quantiles: Φ(x_T) = P(x_0' ≤ x_0)."""
    schedule = cosine_of_equal_angles(math.pi / 2 - 1e-3, 1000)
    data = Gaussian(torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64).log())
    oracle = GaussianData(schedule, data.mean[None], data.variance[None])
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    *_, last = invert(oracle.predict, schedule, data.sample(z), 1000)
    torch.testing.assert_close(last.x_s, z, rtol=0, atol=0.01)


@pytest.mark.parametrize(("solver", "order"), [(ancestral, 1), (dpm_solver, 2)])
def test_the_sde_form_keeps_the_marginal_of_gaussian_data(solver: Callable[[Schedule, Noise], Step], order: int) -> None:
    """The walk is linear in x_T and in every z, all independent, so that its mean and variance follow from one unit of each.

    Row 0 of the batch has x_T at its mean and no noise, row 1 one unit of x_T, row 2 + n one unit of the n-th z.
    """
    schedule = cosine_of_equal_angles(1.5, 512)
    data = GaussianData(schedule, torch.tensor([0.6], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64))
    alpha_bar = schedule.alpha_bar
    errors = []
    for count in (40, 80, 160):
        rows, drawn = torch.eye(count + 2, dtype=torch.float64), []
        noise = Given(lambda rows=rows, drawn=drawn: drawn.append(1) or rows[:, 1 + len(drawn), None])  # type: ignore[misc]
        start = rows[:, 1, None] * (0.3 * alpha_bar[-1] + 1 - alpha_bar[-1]).sqrt() + 0.6 * alpha_bar[-1].sqrt()
        *_, last = walk(data.predict, solver(schedule, noise), start, [512 - 480 // count * i for i in range(count + 1)])
        mean, spread = float(last.x_s[0]), last.x_s[1:] - last.x_s[0]
        exact = 0.3 * alpha_bar[32] + 1 - alpha_bar[32]
        assert len(drawn) == count
        # At the mean x̂_0 is the mean of the data, wherever on the walk: that part is exact.
        assert mean == pytest.approx(float(0.6 * alpha_bar[32].sqrt()), abs=1e-12)
        errors.append(abs(float(spread.square().sum() - exact)))
    assert errors[-1] < 0.01
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


# ---- the times


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("schedule", [linear_schedule(1000), cosine_schedule(1000), linear_schedule(21), mixed_schedule(1000)])
def test_spaced_times_fall_from_T_to_0(schedule: Schedule, spacing: str) -> None:
    chain = schedule.T
    for count in {1, 2, 3, 4, 7, 10, 20, 50, 333, 999, 1000}:
        if count <= chain:
            times = spaced(schedule, count, spacing)  # type: ignore[arg-type]
            assert (len(times), times[0], times[-1]) == (count + 1, chain, 0)
            assert all(s < t for t, s in pairwise(times))
            assert all(type(t) is int for t in times)


def test_spaced_times_are_even_in_what_they_say(diffusers: Any) -> None:
    schedule = linear_schedule(100_000)  # fine enough for whole numbers not to matter
    level = schedule.half_log_snr
    finer = int((1 - schedule.alpha_bar[1:]).sqrt().lt(VISIBLE).sum())
    assert spaced(schedule, 10) == timesteps(100_000, 10)
    for spacing, measure in (("quadratic", lambda t: math.sqrt(t - finer)), ("log-SNR", lambda t: float(level[t]))):
        times = spaced(schedule, 10, spacing)  # type: ignore[arg-type]
        gaps = [measure(t) - measure(s) for t, s in pairwise(times[:-1])]
        assert gaps == pytest.approx([sum(gaps) / len(gaps)] * len(gaps), rel=2e-3)
    # The noise levels of Karras et al. as diffusers computes them; its t is ours less one.
    peer = diffusers.DPMSolverMultistepScheduler(1000, beta_start=1e-4, beta_end=0.02, use_karras_sigmas=True)
    peer.set_timesteps(12)
    ours = spaced(linear_schedule(1000), 12, "Karras")[:-1]
    assert max(abs(t - 1 - int(theirs)) for t, theirs in zip(ours, peer.timesteps, strict=True)) <= 1


@pytest.mark.parametrize("spacing", ["quadratic", "log-SNR", "Karras"])
def test_walks_of_few_steps_end_at_the_noise_of_the_linear_schedule_not_at_a_finer_one(spacing: str) -> None:
    mixed, linear = mixed_schedule(1000), linear_schedule(1000)
    for schedule in (mixed, linear):
        *_, last, zero = spaced(schedule, 20, spacing)  # type: ignore[arg-type]
        assert zero == 0
        assert VISIBLE <= math.sqrt(1 - float(schedule.alpha_bar[last])) < 0.02
    assert float(mixed.alpha_bar[1]) > float(linear.alpha_bar[1])


def test_times_are_made_distinct() -> None:
    assert distinct([10, 10, 9.6, 3, 0.2, 0.1, 0]) == [10, 9, 8, 3, 2, 1, 0]
    assert distinct([4, 0, 0, 0, 0]) == [4, 3, 2, 1, 0]
    assert distinct([4, 4, 4, 4, 0]) == [4, 3, 2, 1, 0]
    assert distinct([9, 4, 0]) == [9, 4, 0]


def test_spacings_are_refused() -> None:
    schedule = cosine_schedule(10)
    with pytest.raises(ValueError, match="expected one of uniform, quadratic, log-SNR, Karras, got 'even'"):
        spaced(schedule, 3, "even")  # type: ignore[arg-type]
    for spacing in SPACINGS:
        with pytest.raises(ValueError, match="expected 1 to 10 steps, got 11"):
            spaced(schedule, 11, spacing)


@pytest.mark.parametrize("solver", [dpm_solver, unipc])  # DDIM is at its best with the equal angles that `uniform` has here
@pytest.mark.parametrize("count", [4, 8])
def test_fitted_times_end_nearer_to_the_exact_flow_than_any_rule(solver: Callable[[Schedule], Step], count: int) -> None:
    """Fitted on nine noises, measured on 25 by the quantiles that the flow keeps."""
    schedule = cosine_schedule(1000)
    data = Mixture(schedule, *BIMODAL)
    start, exact = (quantile(data, torch.linspace(0.02, 0.98, 25, dtype=torch.float64), t) for t in (1000, 0))

    def miss(times: list[int]) -> float:
        *_, last = walk(data.predict, solver(schedule), start, times)
        return float((last.x_s - exact).square().mean().sqrt())

    times = fit_times(data.predict, schedule, start[::3], count, solver)
    assert (len(times), times[0], times[-1]) == (count + 1, 1000, 0)
    assert all(s < t for t, s in pairwise(times))
    assert json.loads(json.dumps(times)) == times
    assert miss(times) < 0.9 * min(miss(spaced(schedule, count, spacing)) for spacing in SPACINGS)


def test_fitting_asks_the_network_as_often_as_it_says() -> None:
    schedule, asked = cosine_schedule(1000), []
    data = Mixture(schedule, *BIMODAL)

    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        asked.append(len(x_t))
        return data.predict(x_t, t)

    fit_times(predict, schedule, randn(0, 3, 1), 5, fine=40)
    assert len(asked) <= 40 + 5 * (len(SPACINGS) + 8 * 4)
    assert set(asked) == {3}


@pytest.mark.parametrize("chain", [2, 5])
def test_times_of_short_chains_can_be_fitted(chain: int) -> None:
    schedule = cosine_schedule(chain)
    data = Mixture(schedule, *BIMODAL)
    x_T = randn(0, 3, 1)
    for count in range(1, chain + 1):
        times = fit_times(data.predict, schedule, x_T, count)
        assert (len(times), times[0], times[-1]) == (count + 1, chain, 0)
        assert all(s < t for t, s in pairwise(times))
    with pytest.raises(ValueError, match=f"expected 1 to {chain} steps, got {chain + 1}"):
        fit_times(data.predict, schedule, x_T, chain + 1)


# ---- the machinery


@pytest.mark.parametrize("chain", [2, 3, 21, 97, 1000])
def test_timesteps_fall_from_T_to_0(chain: int) -> None:
    for count in range(1, chain + 1, 1 if chain < 100 else 3):
        times = timesteps(chain, count)
        assert (len(times), times[0], times[-1]) == (count + 1, chain, 0)
        assert min(t - s for t, s in pairwise(times)) >= 1
        assert max(abs(t - chain * (count - i) / count) for i, t in enumerate(times)) <= 0.5


@pytest.mark.parametrize("count", [0, -1, 11])
def test_step_counts_out_of_range_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to 10 steps, got {count}"):
        timesteps(10, count)


def test_the_noise_of_a_picture_depends_on_its_seed_alone() -> None:
    shape = (1, 4, 4)
    together, alone, swapped = (Noise.from_seeds(seeds, shape) for seeds in ([3, 7, 3], [7], [7, 5]))
    for _ in range(3):
        first, second, third = together.draw(), alone.draw(), swapped.draw()
        assert first.shape == (3, *shape)
        assert torch.equal(first[1], second[0])
        assert torch.equal(first[1], third[0])
        assert torch.equal(first[0], first[2])
        assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], together.draw()[0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seeds_make_the_same_pictures_alone_or_together(name: str) -> None:
    schedule = cosine_schedule(20)

    def sample(seeds: list[int]) -> Tensor:
        noise = Noise.from_seeds(seeds, (1, 2, 2))
        step = SAMPLERS[name].step(schedule, noise, "posterior", 0.0)
        *_, last = walk(predictor(schedule, True), step, noise.draw().double(), timesteps(20, 10))
        return last.x_s

    pictures = sample([1, 2, 3])
    assert torch.equal(pictures, sample([1, 2, 3]))
    torch.testing.assert_close(pictures[1:2], sample([2]), rtol=1e-12, atol=1e-12)
    assert float((pictures[0] - pictures[1]).abs().max()) > 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_serves_walks_that_take_turns(name: str) -> None:
    schedule = cosine_schedule(20)
    noise, times = Given(lambda: randn(0, 2, 1, 2, 2)), spaced(schedule, 6, "Karras")

    def start(step: Step, seed: int) -> Iterator[Frame]:
        return walk(predictor(schedule, True), step, randn(seed, 2, 1, 2, 2), times)

    alone = [list(start(SAMPLERS[name].step(schedule, noise, "posterior", 0.0), seed)) for seed in (1, 2)]
    step = SAMPLERS[name].step(schedule, noise, "posterior", 0.0)
    left_half_way = start(step, 3)
    next(left_half_way), next(left_half_way)
    together = zip(*zip(start(step, 1), start(step, 2), strict=True), strict=True)
    for expected, got in zip(alone, together, strict=True):
        assert all(torch.equal(one.x_s, other.x_s) for one, other in zip(expected, got, strict=True))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_sampler_asks_once_a_step_and_leaves_no_noise(name: str, spacing: str, count: int) -> None:
    schedule, asked = linear_schedule(1000), []
    data = GaussianData(schedule, torch.tensor([0.25], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64))

    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        asked.append(int(t[0]))
        return data.predict(x_t, t)

    noise = Noise.from_seeds([1, 2, 3], (1,))
    times = spaced(schedule, count, spacing)  # type: ignore[arg-type]
    frames = list(walk(predict, SAMPLERS[name].step(schedule, noise, "posterior", 0.0), noise.draw(), times))
    assert asked == times[:-1]
    assert torch.equal(frames[-1].x_s, frames[-1].x0_hat)
    torch.testing.assert_close(frames[-1].x_s, torch.full((3, 1), 0.25), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "build", "draws"),
    [
        ("DDIM", lambda schedule, noise: ddim(schedule), 0),
        ("ancestral", lambda schedule, noise: ancestral(schedule, noise, "learned"), 5),
        ("DPM-Solver++", lambda schedule, noise: dpm_solver(schedule), 0),
        ("DPM-Solver++ SDE", lambda schedule, noise: dpm_solver(schedule, noise), 5),
        ("UniPC", lambda schedule, noise: unipc(schedule), 0),
    ],
)
def test_names_stand_for_their_samplers(name: str, build: Callable[[Schedule, Noise], Step], draws: int) -> None:
    schedule, drawn = linear_schedule(T), []
    noise = Given(lambda: drawn.append(1) or randn(len(drawn), 2, 1, 2, 2))

    def end(step: Step) -> Tensor:
        drawn.clear()
        *_, last = walk(predictor(schedule, True), step, randn(0, 2, 1, 2, 2), spaced(schedule, 6, "quadratic"))
        assert len(drawn) == draws
        return last.x_s

    assert torch.equal(end(SAMPLERS[name].step(schedule, noise, "learned", 0.0)), end(build(schedule, noise)))


def test_every_name_has_its_sampler() -> None:
    assert tuple(SAMPLERS) == get_args(SamplerName)


@pytest.mark.parametrize("name", ["DDIM", "DPM-Solver++", "UniPC"])
def test_float32_walks_follow_those_of_float64(name: str) -> None:
    schedule = linear_schedule(1000)
    data = Mixture(schedule, *BIMODAL)
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for times in (spaced(schedule, 50, "Karras"), spaced(schedule, 80, "log-SNR")):
        wide, narrow = (
            list(walk(data.predict, SAMPLERS[name].step(schedule, Noise((), ()), "posterior", 0.0), x, times))
            for x in (x_T, x_T.float())
        )
        assert narrow[-1].x_s.dtype == torch.float32
        for exact, got in zip(wide, narrow, strict=True):
            torch.testing.assert_close(got.x_s.double(), exact.x_s, rtol=0, atol=2e-5)


def test_unipc_with_an_order_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an order of 1 or more, got 0"):
        unipc(cosine_schedule(10), 0)


def test_frames_tell_the_walk() -> None:
    schedule = cosine_schedule(20)
    start = randn(0, 2, 1, 2, 2)
    frames = list(walk(predictor(schedule, True), ddim(schedule), start, [20, 9, 3, 0]))
    assert [(f.index, f.count, f.t, f.s) for f in frames] == [(1, 3, 20, 9), (2, 3, 9, 3), (3, 3, 3, 0)]
    assert torch.equal(frames[0].x_t, start)
    for before, after in pairwise(frames):
        assert torch.equal(before.x_s, after.x_t)
    # The last step of DDIM lands on x̂_0.
    torch.testing.assert_close(frames[-1].x_s, frames[-1].x0_hat, rtol=0, atol=0)


def test_a_walk_computes_only_what_is_asked_of_it() -> None:
    schedule, calls = cosine_schedule(20), []

    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        calls.append(int(t[0]))
        return predictor(schedule, True)(x_t, t)

    frames = walk(predict, ddim(schedule), randn(0, 1, 1, 2, 2), timesteps(20, 20))
    assert calls == []
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert calls == [20]


def test_a_rising_walk_asks_at_one_for_clean_data() -> None:
    schedule, calls = cosine_schedule(20), []

    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        calls.append(int(t[0]))
        return predictor(schedule, True)(x_t, t)

    list(invert(predict, schedule, randn(0, 1, 1, 2, 2), 4))
    assert calls == [1, 5, 10, 15]


def test_ddim_refuses() -> None:
    schedule = cosine_schedule(10)
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"expected η from 0 to 1, got {eta}"):
            ddim(schedule, None, eta)
    with pytest.raises(ValueError, match=r"expected a source of noise for η = 0.5, got none"):
        ddim(schedule, None, 0.5)
