"""Score models (docs/notes.md#n2): the gradient of the log-density at every noise level, and three ways to sample with it.

The score is s(x_t,t) = ∇ log q(x_t). By q(x_t|x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I), with x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε,

    ∇ log q(x_t|x_0) = −ε / √(1 − ᾱ_t)                                                               (1)
    s(x_t,t) = E[∇ log q(x_t|x_0) | x_t] = −E[ε|x_t] / √(1 − ᾱ_t)                                    (2)
    E[x_0|x_t] = (x_t + (1 − ᾱ_t) s(x_t,t)) / √ᾱ_t                       (Tweedie; Efron 2011)       (3)

so that a network for ε̂, one for x̂_0 and one for the score are the same network. (2) is why it can be learned without knowing
s: for every ŝ, with a C that does not depend on ŝ,

    E ‖ŝ(x_t,t) − ∇ log q(x_t|x_0)‖² = E ‖ŝ(x_t,t) − s(x_t,t)‖² + C                                  (4)

(denoising score matching; Vincent 2011). Proof: s is the conditional mean of the target given x_t, so the cross term vanishes;
C = E‖ε‖²/(1−ᾱ_t) − E‖s‖². Weighted by 1 − ᾱ_t the left side is E‖ε − ε̂‖², the D-fold of L_simple: a DDPM is a score model.

Sampling with the score, z ~ N(0, I):

    Langevin      x ← x + η s(x,t) + √(2η) z,  η = r (1 − ᾱ_t)                                       (5)
    reverse SDE   dx = −½β(τ) [x + 2 s(x,τ)] dτ + √β(τ) dw, τ falling                                (6)
                  x_s = (2 − √(1−β)) x_t + β s(x_t,t) + √β z,  β = 1 − ᾱ_t/ᾱ_s                       (7)
    flow ODE      dx = −½β(τ) [x + s(x,τ)] dτ                                                        (8)

(5) stays at one noise level and leaves its q(x_t) as it is, for small r; annealed, it goes down the levels (Song & Ermon 2019).
(6) runs the chain's limit dx = −½βx dτ + √β dw backwards; (7) is that on the chain's own steps (Song et al. 2021, appendix E).
(8), the probability-flow ODE, has the same q(x_τ) at every τ without any noise; the deterministic samplers (`sampler`: DDIM and
its successors) solve it. On the circle √ᾱ = cos φ, √(1−ᾱ) = sin φ, where dφ/dτ = β/(2 tan φ), it is short: its speed is the v
that a network may predict (Salimans & Ho 2022), and x/sin φ moves with cot φ = √SNR at the speed x̂_0,

    dx/dφ = −tan φ [x + s] = cos φ ε̂ − sin φ x̂_0 = v̂(x,t),      d(x/sin φ)/d(cot φ) = x̂_0(x,t)       (9)

A walk along (9) is one-to-one, so it has a likelihood, by the instantaneous change of variables (Chen et al. 2018). With
v̂ = cot φ x − x̂_0/sin φ, D dimensions, and u = log tan(φ/2), du = dφ/sin φ, it is

    log p(x_1) = log N(x_T; 0, I) + ∫ tr(∂v̂/∂x) dφ from φ_1 to φ_T
               = log N(x_T; 0, I) + D log(sin φ_T/sin φ_1) − ∫ tr(∂x̂_0/∂x) du                        (10)
    tr J = Σ_i e_iᵀJe_i = E[rᵀJr],  r_i = ±1 with probability ½ each              (Hutchinson 1990)   (11)

The probe r of (11) is drawn once for the whole path, which keeps the estimate of (10) unbiased; its variance is
Σ_{i≠j} A_ij (A_ij + A_ji) with A the integral of ∂x̂_0/∂x, and several probes show it by their scatter. The chain has whole
times, so (9) is solved on some of them, spaced evenly in u: that is in log SNR where there is little noise, in φ where there
is much. The solver is an Adams–Bashforth–Moulton method of order 3 for uneven steps, in cot φ for x and in u for the trace,
with one network evaluation a step. For data that are a single point, x̂_0 is constant and every step exact.

(10) is a density of x_1, not a probability of an 8-bit picture x_0. With x_1 as the latent variable of x_0 it becomes one,

    −log P(x_0) ≤ E_q(x_1|x_0) [−log p_θ(x_0|x_1) + log q(x_1|x_0) − log p(x_1)]                     (12)

whose first term is the L_0 of the variational bound (`vlb`), discretised Gaussian and all, and whose rest is
KL[q(x_1|x_0) ‖ p(x_1)] and takes the place of L_T + Σ L_{t−1}. So the bits per dimension of (12) and of L_VLB are comparable.
Here the chain's own noise dequantises the picture. Uniform noise within a gray level would not have the width of the
noise at t = 1 on which the network was trained: on the linear chain a fifth of it, which costs up to 1.7 bits for each pixel of
plain background, on the mixed one, whose noise begins finer than a gray level, 2.3 times it. For a perfect network the bracket
in (12) is −log P(x_0) for every x_1, by Bayes' rule. (12) is a bound for the exact solution of (9); a second run with twice the
steps shows the error of the solver.

Everything is in nats per sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from genlab.divergence import standard_normal, sum_dims
from genlab.likelihood import discretised_log_prob
from genlab.process import Denoised, Predict, q_marginal
from genlab.sampler import History, Noise, Step, timesteps
from genlab.schedule import Schedule, at, spread
from genlab.vlb import Decoder, Reverse


def score_from_eps(schedule: Schedule, eps: Tensor, t: Tensor) -> Tensor:
    """Return s = −ε/√(1−ᾱ_t), t (B) in 1…T: eq. 1 for the noise ε itself, eq. 2 for a prediction ε̂."""
    return -eps / at((1 - schedule.alpha_bar).sqrt(), t, eps)


def eps_from_score(schedule: Schedule, score: Tensor, t: Tensor) -> Tensor:
    """Return ε̂ = −√(1−ᾱ_t) s, eq. 2."""
    return -at((1 - schedule.alpha_bar).sqrt(), t, score) * score


def x0_from_score(schedule: Schedule, x_t: Tensor, score: Tensor, t: Tensor) -> Tensor:
    """Return x̂_0 = (x_t + (1−ᾱ_t) s)/√ᾱ_t, eq. 3."""
    return (x_t + at(1 - schedule.alpha_bar, t, x_t) * score) / at(schedule.alpha_bar.sqrt(), t, x_t)


def denoising_loss(schedule: Schedule, predict: Predict, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Return (1−ᾱ_t) ‖ŝ(x_t,t) − ∇ log q(x_t|x_0)‖² at x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε, (B): the weighted left side of eq. 4."""
    x_t = q_marginal(schedule, x0, t).sample(eps)
    score = score_from_eps(schedule, predict(x_t, t).eps_hat, t)
    return sum_dims(at(1 - schedule.alpha_bar, t, x0) * (score - score_from_eps(schedule, eps, t)) ** 2)


def langevin(schedule: Schedule, noise: Noise, rate: float) -> Step:
    """Return the step of eq. 5 at the noise level t, whatever s is; for s = 0, x_s = x̂_0, which removes the remaining noise.

    Without a Metropolis test the walk is biased: for N(m, V) its stationary distribution is N(m, V/(1 − η/2V)).

    Args:
        rate: r in η = r (1 − ᾱ_t), between 0 and 2: beyond 2, steps around a single data point diverge.

    Raises:
        ValueError: r is not between 0 and 2.
    """
    if not 0 < rate < 2:
        raise ValueError(f"expected a step rate between 0 and 2, got {rate}")

    def step(history: History, x_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> tuple[Tensor, History]:
        if int(s[0]) == 0:
            return denoised.x0_hat, history
        eta = rate * at(1 - schedule.alpha_bar, t, x_t)
        score = score_from_eps(schedule, denoised.eps_hat, t)
        return x_t + eta * score + (2 * eta).sqrt() * noise.draw().to(x_t), history

    return step


def annealed_times(T: int, levels: int, each: int) -> list[int]:
    """Return times for `sampler.walk` with `langevin`: `each` steps at each of `levels` noise levels from T down, then 0.

    Raises:
        ValueError: `levels` is not from 1 to T, or `each` is not positive.
    """
    if each < 1:
        raise ValueError(f"expected at least 1 step at each level, got {each}")
    return [t for t in timesteps(T, levels)[:-1] for _ in range(each)] + [0]


def reverse_sde(schedule: Schedule, noise: Noise) -> Step:
    """Return the step of the reverse SDE, eq. 7; for s = 0 without noise."""

    def step(history: History, x_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> tuple[Tensor, History]:
        alpha_bar = schedule.alpha_bar.to(t.device)
        alpha = alpha_bar[t] / alpha_bar[s]
        score = score_from_eps(schedule, denoised.eps_hat, t)
        mean = spread(2 - alpha.sqrt(), x_t) * x_t + spread(1 - alpha, x_t) * score
        if int(s[0]) == 0:
            return mean, history
        return mean + spread((1 - alpha).sqrt(), x_t) * noise.draw().to(x_t), history

    return step


def flow_times(schedule: Schedule, steps: int) -> list[int]:
    """Return times from 1 to T, as evenly spaced in u = log tan(φ/2) as whole numbers allow.

    There are `steps` + 1 of them, or fewer: the first times of a chain lie far apart in u, and duplicates are removed.

    Raises:
        ValueError: `steps` is not from 1 to T − 1.
    """
    if not 1 <= steps < schedule.T:
        raise ValueError(f"expected 1 to {schedule.T - 1} steps between t = 1 and t = {schedule.T}, got {steps}")
    u = _log_tan_half(schedule)[1:]
    wanted = torch.linspace(float(u[0]), float(u[-1]), steps + 1, dtype=torch.float64)
    return ((wanted[:, None] - u).abs().argmin(dim=1) + 1).unique().tolist()


@dataclass(frozen=True)
class Flow:
    """A step of the walk from x_1 to x_T along the flow ODE.

    Attributes:
        index, count: this is step `index` of `count`, from 1.
        t: the time after the step.
        x_t: (B, …) the state after the step.
        log_det: (K, B) ∫ tr(∂v̂/∂x) dφ from φ_1 to φ_t, estimated by each of the K probes, float64.
        exact: True if the mean over the probes is the exact trace; otherwise each probe is an independent estimate.
    """

    index: int
    count: int
    t: int
    x_t: Tensor
    log_det: Tensor
    exact: bool

    @property
    def log_prob(self) -> Tensor:
        """Return log p(x_1), eq. 10, nats (B) float64; valid once the walk has reached T."""
        x = self.x_t.double()
        return standard_normal(x).log_prob(x) + self.log_det.mean(dim=0)

    @property
    def error(self) -> Tensor:
        """Return the standard error of `log_prob` from the probes, nats (B): 0 for the exact trace, NaN for a single probe."""
        if self.exact or len(self.log_det) == 1:
            return torch.full_like(self.log_det[0], 0.0 if self.exact else math.nan)
        return self.log_det.std(dim=0) / len(self.log_det) ** 0.5


def walk_likelihood(
    predict: Predict, schedule: Schedule, x_1: Tensor, generator: torch.Generator, steps: int = 100, probes: int | None = 1
) -> Iterator[Flow]:
    """Walk x_1 (B, …) along the flow ODE to x_T, yielding a `Flow` after each step; the last one has log p(x_1), eq. 10.

    A step costs one network evaluation and a derivative for each probe, worth about two evaluations; the first two steps cost
    three times as much. The error depends on the variance of the data: with T = 1000 and 100 steps its mean is below 1e-3
    bits/dim for Gaussians of variance 0 to 4 (`tests/test_score.py`); a shorter chain is coarser near t = 1, where most of the
    error arises.

    Args:
        predict: differentiable with respect to x_t; evaluated at whole t in 1…T.
        x_1: (B, …) states at t = 1, x_1 ~ q(x_1|x_0).
        generator: on the CPU, for the probes.
        steps: see `flow_times`.
        probes: K random probes of the trace, eq. 11; None for the exact trace, one probe for each dimension.

    Raises:
        ValueError: `steps` is not from 1 to T − 1, or `probes` is not positive.
    """
    times = flow_times(schedule, steps)
    r = _probes(x_1, generator, probes)
    sin, cot, u = (1 - schedule.alpha_bar).sqrt(), schedule.snr.sqrt(), _log_tan_half(schedule)
    scaled = x_1 / float(sin[1])  # x/sin φ of eq. 9
    nodes = times[:3]
    evaluations = [_evaluate(predict, x_1, 1, r)] * len(nodes)
    for _ in range(3):  # the first two steps, the widest in u, are solved together by fixed-point iteration
        for j, t in enumerate(nodes[1:], start=1):
            predicted = scaled + _integral([x0_hat for x0_hat, _ in evaluations], cot[nodes], cot[1], cot[t])
            evaluations[j] = _evaluate(predict, predicted * float(sin[t]), t, r)
    integral = torch.zeros_like(evaluations[0][1])
    for index, (s, t) in enumerate(pairwise(times), start=1):
        if t not in nodes:
            predicted = scaled + _integral([x0_hat for x0_hat, _ in evaluations[1:]], cot[nodes[1:]], cot[s], cot[t])
            nodes, evaluations = [*nodes[1:], t], [*evaluations[1:], _evaluate(predict, predicted * float(sin[t]), t, r)]
        scaled = scaled + _integral([x0_hat for x0_hat, _ in evaluations], cot[nodes], cot[s], cot[t])
        integral = integral + _integral([trace for _, trace in evaluations], u[nodes], u[s], u[t])
        growth = x_1[0].numel() * float((sin[t] / sin[1]).log())
        yield Flow(index, len(times) - 1, t, scaled * float(sin[t]), growth - integral, probes is None)


def ode_log_likelihood(
    predict: Predict, schedule: Schedule, x_1: Tensor, generator: torch.Generator, steps: int = 100, probes: int | None = 1
) -> Flow:
    """Return the last step of `walk_likelihood`, with `log_prob` log p(x_1), `error` its standard error, and `x_t` x_T."""
    *_, last = walk_likelihood(predict, schedule, x_1, generator, steps, probes)
    return last


@dataclass(frozen=True)
class ODEBound:
    """The terms of eq. 12 for a batch of pictures at one x_1 each, nats (B) float64.

    Attributes:
        decoder: L_0 = −log p_θ(x_0|x_1).
        flow: log q(x_1|x_0) − log p(x_1), whose mean over x_1 is KL[q(x_1|x_0) ‖ p(x_1)]; replaces L_T + Σ L_{t−1}.
        error: standard error of `flow` due to the probes, see `Flow.error`.
    """

    decoder: Tensor
    flow: Tensor
    error: Tensor

    @property
    def total(self) -> Tensor:
        """Return the upper bound of −log P(x_0) in the mean over x_1, (B)."""
        return self.decoder + self.flow


def ode_bound(
    predict: Predict,
    reverse: Reverse,
    schedule: Schedule,
    x0: Tensor,
    generator: torch.Generator,
    steps: int = 100,
    probes: int | None = 1,
    decoder: Decoder = discretised_log_prob,
) -> ODEBound:
    """Return the terms of eq. 12 for pictures x0 (B, …), with one x_1 from `generator` (CPU) for each.

    Args:
        predict, steps, probes: see `walk_likelihood`.
        reverse: p_θ(x_0|x_1), a `vlb.Reverse` evaluated at t = 1.
        decoder: log p_θ(x_0|x_1) of a `Gaussian`; the discretised one for 8-bit pictures, `Gaussian.log_prob` for densities.
    """
    ones = torch.ones(len(x0), dtype=torch.long, device=x0.device)
    q = q_marginal(schedule, x0, ones)
    x_1 = q.sample(torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device))
    with torch.no_grad():
        reconstruction = decoder(reverse(x_1, ones), x0)
    flow = ode_log_likelihood(predict, schedule, x_1, generator, steps, probes)
    return ODEBound(-reconstruction.double(), q.log_prob(x_1).double() - flow.log_prob, flow.error)


def _probes(x: Tensor, generator: torch.Generator, count: int | None) -> Tensor:
    """Return probes r (K, B, …): random ±1 (eq. 11), or √D e_i for all D dimensions, whose mean of rᵀJr is tr J exactly."""
    if count is None:
        dims = x[0].numel()
        basis = dims**0.5 * torch.eye(dims, dtype=x.dtype, device=x.device)
        return basis.reshape(dims, 1, *x.shape[1:]).expand(dims, *x.shape)
    if count < 1:
        raise ValueError(f"expected at least 1 probe, or None for the exact trace, got {count}")
    return (2 * torch.randint(2, (count, *x.shape), generator=generator) - 1).to(x)


def _evaluate(predict: Predict, x: Tensor, t: int, probes: Tensor) -> tuple[Tensor, Tensor]:
    """Return x̂_0 (B, …) at time t, and rᵀ (∂x̂_0/∂x) r for each probe, (K, B) float64."""
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        x0_hat = predict(x, torch.full((len(x),), t, device=x.device)).x0_hat
        traces = [sum_dims((torch.autograd.grad(x0_hat, x, r, retain_graph=True)[0] * r).double()) for r in probes]
    return x0_hat.detach(), torch.stack(traces)


def _integral(values: list[Tensor], nodes: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return the integral from start to end of the polynomial that interpolates the values at the nodes."""
    z, power = (nodes - start) / (end - start), torch.arange(len(nodes), dtype=torch.float64)
    weights = (end - start) * torch.linalg.solve(z ** power[:, None], 1 / (power + 1))  # exact for 1, z, z², …
    return torch.stack([w * value for w, value in zip(weights.tolist(), values, strict=True)]).sum(dim=0)


def _log_tan_half(schedule: Schedule) -> Tensor:
    """Return u_t = log tan(φ_t/2) with cos φ_t = √ᾱ_t, (T + 1) float64; −∞ at t = 0."""
    return (1 - schedule.alpha_bar).sqrt().log() - (1 + schedule.alpha_bar.sqrt()).log()
