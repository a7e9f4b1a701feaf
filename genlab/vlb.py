"""The variational bound of a diffusion model, term by term (docs/notes.md#n1-5-bound).

    L_VLB   = L_T + Σ_{t=2}^T L_{t−1} + L_0  ≥  −log p_θ(x_0)                (1)
    L_T     = KL[q(x_T|x_0) ‖ p(x_T)],  p(x_T) = N(0, I)                      (2)
    L_{t−1} = E_q(x_t|x_0) KL[q(x_{t−1}|x_t,x_0) ‖ p_θ(x_{t−1}|x_t)]          (3)
    L_0     = E_q(x_1|x_0) [−log p_θ(x_0|x_1)]                                (4)

The notes say that (2) and (3) are not KL divergences; inside the outer expectation over x_0 and x_t they are, which is why each
is ≥ 0 and a closed form between two Gaussians. The notes put the optimum of (3) at 0: it is 0 only where x_t determines x_0,
since p_θ does not depend on x_0. And (4) is bounded below by 0 only for discrete data, hence the discretised Gaussian for 8-bit
pictures (`likelihood`, eq. 1).

Evaluating every t of a picture takes T network evaluations. Divide 1…T into K strata S_k and draw one uniform t_k in each:
then, with ℓ_t the term of step t (ℓ_1 = L_0, else L_{t−1}),

    L̂ = L_T + Σ_k |S_k| ℓ_{t_k},   t_k ~ U(S_k),   E[L̂] = L_VLB               (5)
    Var[L̂ | x_0] ≥ Σ_k |S_k|² Var_{t∈S_k}[E ℓ_t]                               (6)

K = T is every t once. On the linear chain ℓ_t falls about as 1/t and ℓ_1 alone is about half of the bound, so |S_k| ∝ t makes
the terms of (6) about equal: `strata` grow geometrically, and t = 1 is a stratum of its own. (5) holds on any chain.

With Σ = β̃ and μ_θ = μ̃_t(x_t, x̂_0), (3) is ½ (SNR_{t−1} − SNR_t) E‖x_0 − x̂_0‖². More steps between the same two ends
lower the bound, since the error of x̂_0 grows with t. In the limit it is the bound in continuous time, which no longer depends
on the chain (Kingma et al. 2021, eqs. 14 and 15):

    L_∞ = L_T + ½ ∫ E‖x_0 − x̂_0(x_λ, λ)‖² dSNR + L_0                          (7)

Every function returns nats per picture, (B); `divergence.bits_per_dim` turns them into bits per dimension at the edge.
A `Reverse` is p_θ(x_{t−1}|x_t): a function of x_t (B, …) and t (B) that returns a `Gaussian`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.divergence import Gaussian, kl, standard_normal, sum_dims
from genlab.likelihood import discretised_log_prob
from genlab.process import q_marginal, q_posterior
from genlab.schedule import Schedule, any_true

Reverse = Callable[[Tensor, Tensor], Gaussian]
Decoder = Callable[[Gaussian, Tensor], Tensor]


def prior_term(schedule: Schedule, x0: Tensor) -> Tensor:
    """Return L_T, eq. 2, nats per picture (B)."""
    T = torch.full((len(x0),), schedule.T, device=x0.device)
    return kl(q_marginal(schedule, x0, T), standard_normal(x0))


def step_term(
    schedule: Schedule, reverse: Reverse, x0: Tensor, x_t: Tensor, t: Tensor, decoder: Decoder = discretised_log_prob
) -> Tensor:
    """Return the bound's term of step t at x_t ~ q(x_t|x_0), nats (B): L_{t−1} (eq. 3) for t ≥ 2, L_0 (eq. 4) for t = 1.

    Args:
        decoder: log p_θ(x_0|x_1) of a `Gaussian`; the discretised one for 8-bit pictures, `Gaussian.log_prob` for densities.
    """
    p = reverse(x_t, t)
    # q(x_0|x_1,x_0) is a point mass, and its KL is not used; t = 2 instead makes the unused branch finite.
    transition = kl(q_posterior(schedule, x_t, x0, t.clamp(min=2)), p)
    last = t == 1
    return torch.where(last, -decoder(p, x0), transition) if any_true(last, on_gpu=True) else transition


def denoising_term(schedule: Schedule, x0: Tensor, x0_hat: Tensor, t: Tensor) -> Tensor:
    """Return L_{t−1} for Σ = β̃ from x̂_0 alone, ½ (SNR_{t−1} − SNR_t) ‖x_0 − x̂_0‖², nats (B), for t (B) in 2…T.

    Unlike the KL divergence of two nearly equal Gaussians it keeps its digits for any number of steps.
    """
    schedule.check(t, lowest=2)
    snr = schedule.snr.to(t.device, non_blocking=True)
    return (snr[t - 1] - snr[t]) / 2 * sum_dims((x0 - x0_hat) ** 2)


def step_terms(
    schedule: Schedule, p: Gaussian, x0: Tensor, x_t: Tensor, t: Tensor, decoder: Decoder = discretised_log_prob
) -> Tensor:
    """Return the contribution of each value of a picture to `step_term`, nats, of the shape of x0 (B, …).

    Args:
        p: p_θ(x_{t−1}|x_t); t: (B); decoder: see `step_term`.
    """

    def each(values: Tensor) -> Tensor:
        return values.expand_as(x0).reshape(-1, 1)

    of_value = Gaussian(each(p.mean), each(p.log_var))
    times = t.repeat_interleave(x0[0].numel())
    return step_term(schedule, lambda *_: of_value, each(x0), each(x_t), times, decoder).reshape(x0.shape)


def strata(T: int, count: int) -> tuple[int, ...]:
    """Return the last steps e_1 < … < e_K = T of `count` strata of 1…T: stratum k is e_{k−1} + 1 … e_k, e_0 = 0, e_1 = 1.

    Each ratio e_k/e_{k−1} is the one that would reach T if all later ratios were the same; the smallest t form strata of one
    step.

    Raises:
        ValueError: `count` is not from 2 to T.
    """
    if not 2 <= count <= T:
        raise ValueError(f"expected 2 to {T} strata of the {T} steps, got {count}")
    last = [1]
    for remaining in range(count - 1, 0, -1):
        last.append(max(last[-1] + 1, round(last[-1] * (T / last[-1]) ** (1 / remaining))))
    return tuple(last)


def draw_times(last: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """Draw one t in each stratum for each of `count` pictures, all independent, (count, K)."""
    edges = torch.tensor([0, *last])
    length = edges.diff()
    within = (torch.rand(count, len(last), generator=generator, dtype=torch.float64) * length).long()
    return edges[:-1] + 1 + within.minimum(length - 1)


@dataclass(frozen=True)
class Ledger:
    """Every term of the bound for a batch of pictures, nats.

    Attributes:
        prior: (B) L_T.
        steps: (B, T); column t − 1 is the term of step t: L_0 first, then L_1 … L_{T−1}.
    """

    prior: Tensor
    steps: Tensor

    @property
    def total(self) -> Tensor:
        """Return L_VLB, eq. 1, (B)."""
        return self.prior + self.steps.sum(dim=1)


def walk_bound(
    schedule: Schedule,
    reverse: Reverse,
    x0: Tensor,
    generator: torch.Generator,
    decoder: Decoder = discretised_log_prob,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (t, term of step t, (B) nats) for t = T … 1, one fresh x_t for each; the noise comes from `generator` (CPU)."""
    for step in range(schedule.T, 0, -1):
        t = torch.full((len(x0),), step, device=x0.device)
        noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        x_t = q_marginal(schedule, x0, t).sample(noise)
        yield step, step_term(schedule, reverse, x0, x_t, t, decoder)


def bound(
    schedule: Schedule,
    reverse: Reverse,
    x0: Tensor,
    generator: torch.Generator,
    decoder: Decoder = discretised_log_prob,
) -> Ledger:
    """Return every term of the bound for x0 (B, …), with one x_t for each t."""
    steps = dict(walk_bound(schedule, reverse, x0, generator, decoder))
    return Ledger(prior_term(schedule, x0), torch.stack([steps[t] for t in range(1, schedule.T + 1)], dim=1))
