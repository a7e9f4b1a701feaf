"""Draw under a condition that the diffusion model was not trained for: the known part of a picture, a class, a rough drawing.

The model p_θ(x_s|x_t) stays as it is; what changes is the walk (`sampler`) or the score along it.

**Repair** (RePaint; Lugmayr et al. 2022, algorithm 1). With m = 1 where the picture x_0 is known and 0 in the hole, a step is

    x_s = m ⊙ x_s^known + (1 − m) ⊙ x_s^model,    x_s^known ~ q(x_s|x_0),    x_s^model ~ p_θ(x_s|x_t)                (1)

The model draws the hole of x_s from x_t, before it has met the known part of x_s: after one walk the hole fits the known part
too little. So a stretch of steps from t to s is walked several times, with q(x_t|x_s) leading back up in between. A stretch
that is repeated forever forgets where it began: what comes out then is the distribution of the hole that the last stretch
leaves as it is. In the limit of small steps that is Langevin dynamics of the hole in the mean field of the known part,

    E[∂_u log q(u_s, k_s)] over k_s ~ q(k_s|k_0),    u the hole, k the known part                                    (2)

which for s → 0 is ∂_u log q(u|k): repair tends to the conditional q(u|k) where the last stretch adds little noise and is
repeated often. For data N(m, C) every step is affine, and `tests/test_condition.py` follows mean and covariance of the whole
walk exactly. A stretch with more noise, or fewer rounds, is biased towards m_u, the mean of the hole without its surroundings.

**Guide** (Dhariwal & Nichol 2021, algorithm 2). By Bayes' rule the score of x_t in a class y is

    ∇ log q(x_t|y) = ∇ log q(x_t) + w ∇ log p(y|x_t),    w = 1;  a larger w sharpens p(y|·) to its w-th power          (3)
    ε̂ ← ε̂ − w √(1 − ᾱ_t) ∇ log p(y|x_t)                                                                             (4)

The paper trains p(y|x_t) on noisy pictures. A classifier of clean pictures stands in for it by log p(y|x_t) ≈
log p(y|x̂_0(x_t)), differentiated through the network (Bansal et al. 2023). p(y|x_t) = E[p(y|x_0)|x_t], so this is the mean in
the place of a distribution; it is exact for Gaussian data and a log p(y|x_0) linear in x_0, where only a constant is lost.

**Start from a drawing** (SDEdit; Meng et al. 2022): x_t ~ q(x_t|x_0 = the drawing), and the reverse process from there
(`process.q_marginal`, `sampler.walk`). For data N(m, C) the exact one returns E[x_0'] = m + Cᾱ(ᾱC + (1 − ᾱ)I)⁻¹(x_0 − m): what
has a large variance in the data is kept, the rest is drawn anew. `repair` with such an x_t does both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from genlab.process import Denoised, Predict, eps_from_x0, q_marginal, q_step
from genlab.sampler import Frame, History, Noise, Step
from genlab.schedule import Schedule, at

LogProb = Callable[[Tensor, Tensor, Denoised], Tensor]
"""log p(y|x_t), (B), of x_t (B C H W), t (B) and the model's prediction from them; differentiable with respect to x_t."""


def repeated(times: Sequence[int], stretch: int, rounds: int) -> list[int]:
    """Return falling times with each stretch of steps walked `rounds` times: down, back up at once, down again.

    Args:
        times: K + 1 times of K steps.
        stretch: steps in a stretch; the last stretches take what is left.
        rounds: how often each is walked; 1 leaves the times as they are.

    Raises:
        ValueError: `stretch` or `rounds` is below 1.
    """
    if min(stretch, rounds) < 1:
        raise ValueError(f"expected a stretch and rounds of 1 or more, got {stretch} and {rounds}")
    path = [times[0]]
    for first in range(0, len(times) - 1, stretch):
        down = list(times[first + 1 : first + stretch + 1])
        path += [*down, times[first]] * (rounds - 1) + down
    return path


def repair(
    predict: Predict,
    step: Step,
    schedule: Schedule,
    noise: Noise,
    x_t: Tensor,
    times: Sequence[int],
    x0: Tensor,
    known: Tensor,
) -> Iterator[Frame]:
    """Walk x_t (B C H W) along `times`, the known part by eq. 1, yielding a frame after each step down.

    At time 0 the known part is x0 exactly.

    Args:
        step: of a sampler without history: the ancestral step or DDIM.
        noise: of the known part and of the steps back up, one generator for each picture.
        times: of `repeated`; a rising pair is a step back up, without an evaluation of the model.
        x0: (B C H W) or (C H W) the picture; known: bool, of a shape that broadcasts to it; true where x0 is known.
    """
    count = sum(s < t for t, s in pairwise(times))
    index = 0
    for t, s in pairwise(times):
        now = torch.full((len(x_t),), t, device=x_t.device)
        then = torch.full_like(now, s)
        with torch.inference_mode():
            if s > t:
                x_t = q_step(schedule, x_t, then, now).sample(noise.draw().to(x_t))
                continue
            denoised = predict(x_t, now)
            x_s, _ = step(History(), x_t, denoised, now, then)
            of_x0 = q_marginal(schedule, x0.expand_as(x_t), then).sample(noise.draw().to(x_t))
            x_s = torch.where(known, of_x0, x_s)
        index += 1
        yield Frame(index, count, t, s, x_t, denoised.x0_hat, denoised.eps_hat, x_s)
        x_t = x_s


def guided(predict: Predict, log_prob: LogProb, schedule: Schedule, weight: float, clip: bool = True) -> Predict:
    """Return a model's prediction, led to a class by the gradient of its log-probability, eq. 4.

    An evaluation costs that of `predict` and a derivative through it. Σ stays that of the model.

    Args:
        predict: differentiable with respect to x_t, without a label.
        log_prob: log p(y|x_t), or a classifier of x̂_0.
        weight: w.
        clip: clamp x̂_0 to [−1, 1] and recompute ε̂ from it, as `DDPM.predict` does.
    """

    def led(x_t: Tensor, t: Tensor) -> Denoised:
        with torch.inference_mode(False), torch.enable_grad():
            x, t = x_t.detach().clone().requires_grad_(), t.clone()
            denoised = predict(x, t)
            (gradient,) = torch.autograd.grad(log_prob(x, t, denoised).sum(), x)
        noise = at(1 - schedule.alpha_bar, t, x_t)
        x0_hat = denoised.x0_hat.detach() + weight * noise / at(schedule.alpha_bar.sqrt(), t, x_t) * gradient
        eps_hat = denoised.eps_hat.detach() - weight * noise.sqrt() * gradient
        if clip:
            x0_hat = x0_hat.clamp(-1, 1)
            eps_hat = eps_from_x0(schedule, x_t, x0_hat, t)
        fraction = denoised.fraction
        return Denoised(eps_hat, x0_hat, None if fraction is None else fraction.detach())

    return led
