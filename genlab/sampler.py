"""Walk the reverse process from noise to a picture, over all steps or a subsequence (docs/notes.md#n1-5-reverse).

    ancestral   x_s ~ p_θ(x_s|x_t)                                                           (Ho et al. 2020)    (1)
    DDIM        x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z,   z ~ N(0, I)                      (Song et al. 2021)  (2)
                σ² = η² (1 − ᾱ_s)/(1 − ᾱ_t) · (1 − ᾱ_t/ᾱ_s)

η = 0 makes (2) deterministic and lets it run backwards, from a picture to its noise (`invert`). It is then one step along the
chain's probability flow, whose exact solution is, with λ = ½ log SNR and h = λ_s − λ_t (Lu et al. 2022b, proposition 4.1),

    x_s = √((1 − ᾱ_s)/(1 − ᾱ_t)) x_t + √ᾱ_s (1 − e^(−h)) x̄_0,     x̄_0 = ∫ e^λ x̂_0 dλ / ∫ e^λ dλ from λ_t to λ_s             (3)

Every deterministic solver is (3) with its own estimate of x̄_0, the mean of the model's predictions along the step. (2) takes
the current x̂_0; the multistep solvers extrapolate earlier predictions by a polynomial in λ, without more evaluations:

    DPM-Solver++(2M)  x̄_0 = x̂_0 + ½ h/h′ (x̂_0 − x̂_0′),  ′ the step before                    (Lu et al. 2022b)   (4)
    its SDE form      x_s ~ q(x_s|x_t, x_0 = x̄_0): the ancestral step with x̄_0 in the place of x̂_0                 (5)
    UniPC-p           x̄_0 = x̂_0 + Σ_k ρ_k (x̂_0^k − x̂_0)/r_k,  r_k = (λ_k − λ_t)/h             (Zhao et al. 2023)  (6)
                      Σ_k ρ_k r_k^(n−1) = c_n,  c_n = ∫ u^n e^(hu) du / ∫ e^(hu) du from 0 to 1 = 1/(1 − e^(−h)) − n c_(n−1)/h

(6) over the previous p − 1 points predicts x_s. Once the model has been evaluated there, (6) over these points and the new one
corrects x_s before the next step: order p + 1 from p stored evaluations. With a single point, ρ = ½ replaces c_1 (B₂(h) in the
paper), which makes UniPC-2's prediction (4); ρ = ½ h/(1 − e^(−h)) is B₁(h). The first steps of a walk have fewer points. The
last step, to s = 0 where λ is infinite, takes x̄_0 = x̂_0 and so returns x̂_0.

`spaced` chooses the times of few steps by a rule, `fit_times` for a given model. A walk is a generator: it yields a `Frame` for
every step, so that a progress bar, a live picture and an endpoint can share it, and it stops when closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from genlab.config import SamplerName, Spacing, Variance
from genlab.process import Denoised, Predict, p_reverse, q_posterior
from genlab.schedule import Schedule, spread

SPACINGS: tuple[Spacing, ...] = get_args(Spacing)
VISIBLE = 0.009
"""√(1 − ᾱ) a little above a gray level, 2/255: walks of few steps remove finer noise in one last step."""


@dataclass(frozen=True)
class Frame:
    """A step of the reverse process.

    Attributes:
        index, count: this is step `index` of `count`, from 1.
        t, s: the step leads from time t to time s.
        x_t: (B C H W) the state before the step; x0_hat, eps_hat: the model's predictions from it.
        x_s: (B C H W) the state after the step.
    """

    index: int
    count: int
    t: int
    s: int
    x_t: Tensor
    x0_hat: Tensor
    eps_hat: Tensor
    x_s: Tensor


@dataclass(frozen=True, eq=False)
class History:
    """The state of a multistep solver on a walk; a walk begins with `History()`.

    Attributes:
        points: (t, x̂_0) of previous steps, latest first, as many as the solver's polynomial needs.
        start: corrected state at the beginning of the previous step; UniPC only.
    """

    points: tuple[tuple[int, Tensor], ...] = ()
    start: Tensor | None = None


class Step(Protocol):
    """A step of a walk from t to s < t: maps the history, x_t and the model's prediction from it to x_s and the next history.

    t and s (B) are the same for the whole batch. A step has no mutable state except its noise generators, so it can be used for
    several walks.
    """

    def __call__(self, history: History, x_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> tuple[Tensor, History]: ...


@dataclass(frozen=True)
class Noise:
    """Standard normal noise from one generator for each picture.

    Picture i depends on its own seed only, so it is the same whether it is drawn alone or among others.
    """

    generators: tuple[torch.Generator, ...]
    shape: tuple[int, ...]

    @classmethod
    def from_seeds(cls, seeds: Sequence[int], shape: tuple[int, ...]) -> Noise:
        """Return noise with one generator for each seed; `shape` is that of one picture."""
        return cls(tuple(torch.Generator().manual_seed(seed) for seed in seeds), shape)

    def draw(self) -> Tensor:
        """Draw the next noise for every picture, (B, *shape), on the CPU."""
        return torch.stack([torch.randn(self.shape, generator=g) for g in self.generators])


def ancestral(schedule: Schedule, noise: Noise, variance: Variance = "posterior") -> Step:
    """Return the ancestral step, eq. 1: x_s ~ p_θ(x_s|x_t); the mean of p_θ for s = 0."""

    def step(history: History, x_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> tuple[Tensor, History]:
        p = p_reverse(schedule, x_t, denoised.x0_hat, t, s, variance, denoised.fraction)
        return p.mean if int(s[0]) == 0 else p.sample(noise.draw().to(x_t)), history

    return step


def ddim(schedule: Schedule, noise: Noise | None = None, eta: float = 0.0) -> Step:
    """Return the step of eq. 2; η = 0 is deterministic and allows s > t, η = 1 has the variance β̃ of the ancestral step.

    Raises:
        ValueError: η is outside [0, 1], or η > 0 without noise.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"expected η from 0 to 1, got {eta}")
    if eta > 0 and noise is None:
        raise ValueError(f"expected a source of noise for η = {eta}, got none")

    def step(history: History, x_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> tuple[Tensor, History]:
        # Coefficients are computed in float64 and cast last: in float32, 1 − ᾱ near t = 0 has three correct digits.
        alpha_bar_t, alpha_bar_s = (schedule.alpha_bar.to(time.device)[time] for time in (t, s))
        mean = spread(alpha_bar_s.sqrt(), x_t) * denoised.x0_hat
        if noise is None or eta == 0 or int(s[0]) == 0:
            return mean + spread((1 - alpha_bar_s).sqrt(), x_t) * denoised.eps_hat, history
        variance = eta**2 * (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)
        mean = mean + spread((1 - alpha_bar_s - variance).sqrt(), x_t) * denoised.eps_hat
        return mean + spread(variance.sqrt(), x_t) * noise.draw().to(x_t), history

    return step


def dpm_solver(schedule: Schedule, noise: Noise | None = None) -> Step:
    """Return the step of DPM-Solver++(2M), eq. 4, or with noise of its SDE form, eq. 5. First and last step have order 1."""

    def step(history: History, x_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> tuple[Tensor, History]:
        now, then = int(t[0]), int(s[0])
        mean = _mean_x0(schedule, now, then, denoised.x0_hat, history.points)
        after = History(points=((now, denoised.x0_hat),))
        if noise is None:
            return _flow(schedule, now, then, x_t, mean), after
        posterior = q_posterior(schedule, x_t, mean, t, s)
        return posterior.mean if then == 0 else posterior.sample(noise.draw().to(x_t)), after

    return step


def unipc(schedule: Schedule, order: int = 2, times: Sequence[int] = (), b: Literal["B1", "B2"] = "B2") -> Step:
    """Return the step of UniPC-p, eq. 6, which predicts x_s and corrects it after the next evaluation; one evaluation a step.

    Args:
        order: p ≥ 1, the number of points that a prediction uses.
        times: times of the walk, to reduce p to 1 over the last steps as in the authors' code; () leaves p constant.
        b: B(h) of the paper.

    Raises:
        ValueError: the order is below 1.
    """
    if order < 1:
        raise ValueError(f"expected an order of 1 or more, got {order}")
    remaining = {t: len(times) - 1 - i for i, t in enumerate(times)}

    def step(history: History, x_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> tuple[Tensor, History]:
        now, then = int(t[0]), int(s[0])
        point = (now, denoised.x0_hat)
        if history.start is not None:
            (last, x0_hat), *others = history.points
            mean = _mean_x0(schedule, last, now, x0_hat, [*others, point], b)
            x_t = _flow(schedule, last, now, history.start, mean)
        points = (point, *history.points)[: min(order, remaining.get(now, order))]
        mean = _mean_x0(schedule, now, then, denoised.x0_hat, points[1:], b)
        return _flow(schedule, now, then, x_t, mean), History(points, start=x_t)

    return step


def _flow(schedule: Schedule, t: int, s: int, x_t: Tensor, mean: Tensor) -> Tensor:
    """Return x_s of eq. 3 for the mean x̄_0 of x̂_0 along the step."""
    alpha_bar_t, alpha_bar_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    h = float(schedule.half_log_snr[s] - schedule.half_log_snr[t])
    return math.sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) * x_t - math.sqrt(alpha_bar_s) * math.expm1(-h) * mean


def _mean_x0(
    schedule: Schedule, t: int, s: int, x0_hat: Tensor, others: Sequence[tuple[int, Tensor]], b: Literal["B1", "B2"] = "B2"
) -> Tensor:
    """Return x̄_0 of eq. 6 from t to s, given x̂_0 at t and at other times; x̂_0 if there are none or s = 0."""
    if s == 0 or not others:
        return x0_hat
    level = schedule.half_log_snr
    h = float(level[s] - level[t])
    r = [float(level[k] - level[t]) / h for k, _ in others]
    if len(others) == 1:
        rho = [0.5 if b == "B2" else -0.5 * h / math.expm1(-h)]
    else:
        c = [1.0]
        for n in range(1, len(others) + 1):
            c.append(-1 / math.expm1(-h) - n * c[-1] / h)
        powers = torch.tensor([[r_k**n for r_k in r] for n in range(len(r))], dtype=torch.float64)
        rho = torch.linalg.solve(powers, torch.tensor(c[1:], dtype=torch.float64)).tolist()
    return x0_hat + sum(rho_k / r_k * (x0_k - x0_hat) for rho_k, r_k, (_, x0_k) in zip(rho, r, others, strict=True))


@dataclass(frozen=True)
class Sampler:
    """The step and the default spacing of a named sampler.

    Attributes:
        spacing: default spacing of its times.
        step: returns its step for a schedule, noise, Σ and η, of which each sampler uses those it needs.
    """

    spacing: Spacing
    step: Callable[[Schedule, Noise, Variance, float], Step]


SAMPLERS: dict[SamplerName, Sampler] = {
    "DDIM": Sampler("uniform", lambda schedule, noise, variance, eta: ddim(schedule, noise, eta)),
    "ancestral": Sampler("uniform", lambda schedule, noise, variance, eta: ancestral(schedule, noise, variance)),
    "DPM-Solver++": Sampler("Karras", lambda schedule, noise, variance, eta: dpm_solver(schedule)),
    "DPM-Solver++ SDE": Sampler("Karras", lambda schedule, noise, variance, eta: dpm_solver(schedule, noise)),
    "UniPC": Sampler("Karras", lambda schedule, noise, variance, eta: unipc(schedule)),
}


def walk(predict: Predict, step: Step, x: Tensor, times: list[int]) -> Iterator[Frame]:
    """Walk x (B C H W) along `times`, yielding a frame after each step.

    The times fall from T (or a lower start) to 0 to draw pictures; with the deterministic `ddim` they may rise, to invert that.
    At time 0 there is no noise to predict: a walk that rises from it evaluates the network at t = 1.
    """
    count, history = len(times) - 1, History()
    for index, (t, s) in enumerate(pairwise(times), start=1):
        t_now = torch.full((len(x),), t, device=x.device)
        s_next = torch.full_like(t_now, s)
        with torch.inference_mode():
            denoised = predict(x, t_now.clamp(min=1))
            x_s, history = step(history, x, denoised, t_now, s_next)
        yield Frame(index, count, t, s, x, denoised.x0_hat, denoised.eps_hat, x_s)
        x = x_s


def invert(predict: Predict, schedule: Schedule, x0: Tensor, count: int) -> Iterator[Frame]:
    """Walk from pictures x0 to the noise x_T from which DDIM draws them (Song et al. 2021, section 4.3)."""
    return walk(predict, ddim(schedule), x0, timesteps(schedule.T, count)[::-1])


def timesteps(T: int, count: int) -> list[int]:
    """Return `count` + 1 times from T down to 0, as evenly spaced as whole numbers allow.

    Raises:
        ValueError: `count` is not from 1 to T.
    """
    if not 1 <= count <= T:
        raise ValueError(f"expected 1 to {T} steps, got {count}")
    return [round(T * (count - i) / count) for i in range(count + 1)]


def spaced(schedule: Schedule, count: int, spacing: Spacing = "uniform") -> list[int]:
    """Return `count` + 1 times from T down to 0, no two the same.

    Args:
        spacing: what is evenly spaced: t; or, over the t whose noise is at least `VISIBLE`, t > t₀: √(t − t₀) (`quadratic`),
            λ_t (`log-SNR`) or σ_t^(1/7), σ² = 1/SNR (`Karras`; Karras et al. 2022, eq. 5), and one last step to 0.

    Raises:
        ValueError: `count` is not from 1 to T, or there is no such spacing.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"expected one of {', '.join(SPACINGS)}, got {spacing!r}")
    even = timesteps(schedule.T, count)
    if spacing == "uniform":
        return even
    finer = int((1 - schedule.alpha_bar[1:] < VISIBLE**2).sum())
    if spacing == "quadratic":
        return distinct([*(finer + (schedule.T - finer) * ((count - i) / count) ** 2 for i in range(count)), 0])
    level = schedule.half_log_snr[finer + 1 :]
    rising = -level if spacing == "log-SNR" else (-level / 7).exp()
    wanted = torch.linspace(float(rising[-1]), float(rising[0]), count, dtype=torch.float64)
    nearest = [int((rising - value).abs().argmin()) + finer + 1 for value in wanted]
    return distinct([*nearest, 0])


def distinct(times: Sequence[float]) -> list[int]:
    """Return falling times rounded to distinct whole numbers, moving some if necessary; the ends stay."""
    whole = [round(t) for t in times]
    for i in range(1, len(whole)):
        whole[i] = min(whole[i], whole[i - 1] - 1)
    whole[-1] = round(times[-1])
    for i in range(len(whole) - 2, -1, -1):
        whole[i] = max(whole[i], whole[i + 1] + 1)
    return whole


def fit_times(
    predict: Predict,
    schedule: Schedule,
    x_T: Tensor,
    count: int,
    solver: Callable[[Schedule], Step] = unipc,
    fine: int = 100,
) -> list[int]:
    """Return the `count` + 1 times from T down to 0 along which the solver ends nearest to the result of a fine walk.

    Coordinate descent from the best of `SPACINGS`: each time in turn is moved by a half, a quarter, an eighth and a sixteenth
    of the way to its neighbours, and a move that lowers the mean squared error of the results from noise x_T (B C H W) is
    accepted. Cost: 8 (count − 1) walks of `count` evaluations of x_T, one for each of `SPACINGS`, and one of `fine`.

    Raises:
        ValueError: `count` is not from 1 to T.
    """
    *_, exact = walk(predict, solver(schedule), x_T, spaced(schedule, min(fine, schedule.T), "quadratic"))

    def error(times: list[int]) -> float:
        *_, last = walk(predict, solver(schedule), x_T, times)
        return float((last.x_s - exact.x_s).square().mean())

    least, best = min((error(times), times) for times in (spaced(schedule, count, spacing) for spacing in SPACINGS))
    for reach in (1 / 2, 1 / 4, 1 / 8, 1 / 16):
        for i, neighbour in product(range(1, count), (-1, 1)):
            trial = best.copy()
            trial[i] += round(reach * (best[i + neighbour] - best[i]))
            if trial != best:
                least, best = min((least, best), (error(trial), trial))
    return best
