"""Match the distribution of a student's pictures to that of its teacher's.

Distribution matching distillation: Yin et al. 2024a (arXiv 2311.18828) and 2024b (arXiv 2405.14867). A student makes a picture
x = f_θ(x_t, t) in one evaluation (`consistency`). Both its pictures and the teacher's are noised to x_u ~ q(x_u|x), with
densities p_θ(x_u) and q(x_u). The gradient of the divergence between them is a difference of scores, and by Tweedie's formula
(`oracle`, eq. 2) a difference of two predictions of x_0:

    ∇_θ KL[p_θ(x_u)‖q(x_u)] = √ᾱ_u E[(∇ log p_θ(x_u) − ∇ log q(x_u)) ∂x/∂θ]
                            = ᾱ_u / (1 − ᾱ_u) E[(x̂_0^p(x_u) − x̂_0^q(x_u)) ∂x/∂θ]                     (1)

x̂_0^q is the prediction of the teacher. x̂_0^p is that of a second diffusion model, which starts with the teacher's weights and
learns to denoise the student's pictures, as they are at that step. Measured by how far the teacher's prediction is from the
picture, the difference is of the same size at every u (Yin et al. 2024a, eq. 8):

    g = (x̂_0^p − x̂_0^q) / mean |x − x̂_0^q|                                                          (2)

Unlike the ends of the teacher's trajectories, which the student cannot do better than, this knows the teacher's distribution
alone: the student's pictures may be as good as those of the teacher's best sampler.

With real pictures y the student may do better than its teacher (Yin et al. 2024b, section 4.3). A discriminator d on the
features of the second model tells noised pictures of the student from noised real ones, and the student learns to be taken for
real (Goodfellow et al. 2014, the non-saturating loss):

    min_d E log(1 + e^{d(x_v)}) + E log(1 + e^{−d(y_v)}),   min_θ E log(1 + e^{−d(x_v)})                (3)

The times v are those of moderate noise. With less of it d sees that real pictures have whole gray levels, which teaches the
student nothing; with more of it the two are all but the same.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from genlab.consistency import Consistency
from genlab.ddpm import DDPM
from genlab.divergence import sum_dims
from genlab.nn import group_norm
from genlab.process import q_marginal
from genlab.schedule import Schedule, at

LEAST = 1e-3
"""Least denominator of eq. 2, in units of the pictures' [−1, 1]."""


def direction(x: Tensor, own: Tensor, teachers: Tensor) -> Tensor:
    """Return g of eq. 2 for pictures x and the two predictions of them, all (B …)."""
    distance = (x - teachers).abs().flatten(1).mean(dim=1).clamp(min=LEAST)
    return (own - teachers) / distance.view(-1, *[1] * (x.ndim - 1))


def along(x: Tensor, g: Tensor) -> Tensor:
    """Return ½‖g‖²/D, (B), whose gradient with respect to x (B …) is g/D: the loss that takes x down the direction g."""
    return sum_dims((x - (x - g).detach()) ** 2) / (2 * x[0].numel())


class Own(nn.Module):
    """The diffusion model of a student's pictures.

    Args:
        teacher: whose weights it starts with.
        real: whether it has a discriminator on its features.
    """

    def __init__(self, teacher: DDPM, real: bool) -> None:
        super().__init__()
        self.model = copy.deepcopy(teacher).requires_grad_(True)
        wide = teacher.config.unet.width * teacher.config.unet.multipliers[-1]
        self.head = (
            nn.Sequential(
                group_norm(wide),
                nn.SiLU(),
                nn.Conv2d(wide, wide, 3, padding=1),
                group_norm(wide),
                nn.SiLU(),
                nn.Conv2d(wide, 1, 1),
            )
            if real
            else None
        )

    def forward(self, x_u: Tensor, u: Tensor, label: Tensor | None) -> Tensor:
        """Return d of x_u (B C H W) at u (B), (B): the mean of the head's output over the places of the features."""
        assert self.head is not None
        return self.head(self.model.features(x_u, u, label)).flatten(1).mean(dim=1)


class Real(NamedTuple):
    """What a discriminator compares a student's pictures to.

    Attributes:
        y: real pictures (B C H W); label: (B), negative for none, or None.
        v: times (B) to which both are noised; noise: for both, standard normal (B C H W).
    """

    y: Tensor
    label: Tensor | None
    v: Tensor
    noise: Tensor


class Matched(NamedTuple):
    """A step of `Matching`, which `losses` takes.

    Attributes:
        x, x_u, own: a student's pictures, noised ones and x̂_0^p, each (B C H W); the gradient of `own` is that of the second
            model alone.
        fooling: d(x_v), (B), for the student to learn from: its gradient is that of x alone. None without real pictures.
        fake, real: d(x_v) and d(y_v), (B), for the discriminator to learn from.
    """

    x: Tensor
    x_u: Tensor
    own: Tensor
    fooling: Tensor | None = None
    fake: Tensor | None = None
    real: Tensor | None = None


class Matching(nn.Module):
    """A student and the diffusion model of its own pictures, which are trained together.

    Args:
        student: the student.
        teacher: its teacher, whose weights the second model starts with.
        real: whether there are real pictures, for a discriminator.
    """

    def __init__(self, student: Consistency, teacher: DDPM, real: bool = False) -> None:
        super().__init__()
        self.student = student
        self.own = Own(teacher, real)

    def forward(
        self,
        x_T: Tensor,
        s: Tensor,
        label: Tensor | None,
        renoise: Tensor,
        u: Tensor,
        noise: Tensor,
        real: Real | None = None,
    ) -> Matched:
        """Make pictures as one to several evaluations do, and denoise them.

        Args:
            x_T, renoise, noise: (B C H W) standard normal.
            s: (B) time of the evaluation that is trained: T, or later in a walk, where x_s ~ q(x_s|f(x_T, T)).
            label: (B) classes, negative for none, or None.
            u: (B) times to which the pictures are noised.
            real: real pictures.
        """
        schedule, later = self.student.schedule, s < self.student.schedule.T
        x_s = x_T.clone()
        if bool(later.any()):
            with torch.no_grad():
                first = self.student.predict(x_T, torch.full_like(s, schedule.T), label).x0_hat
            x_s = torch.where(later[:, None, None, None], q_marginal(schedule, first, s).sample(renoise), x_T)
        x = self.student.predict(x_s, s, label, clip=False).x0_hat
        x_u = q_marginal(schedule, x.detach(), u).sample(noise)
        own = self.own.model.predict(x_u, u, label, clip=False).x0_hat
        if real is None:
            return Matched(x, x_u, own)
        x_v, y_v = (q_marginal(schedule, each, real.v).sample(real.noise) for each in (x, real.y))
        weights = {name: value.detach() for name, value in self.own.named_parameters()}
        fooling = functional_call(self.own, weights, (x_v, real.v, label))
        labels = None if label is None or real.label is None else torch.cat([label, real.label])
        fake, true = self.own(torch.cat([x_v.detach(), y_v]), torch.cat([real.v, real.v]), labels).chunk(2)
        return Matched(x, x_u, own, fooling, fake, true)


def losses(schedule: Schedule, matched: Matched, u: Tensor, teachers: Tensor) -> dict[str, Tensor]:
    """Return the losses of a step, each (B).

    Args:
        u: (B) times of x_u; teachers: x̂_0^q (B C H W).

    Returns:
        matching: takes the student's pictures along eq. 2. error: of the second model's v. With real pictures also
        fooling and telling: of the student and of the discriminator, eq. 3.
    """
    x, own = matched.x, matched.own
    error = (own - x.detach()) ** 2 / (1 - at(schedule.alpha_bar, u, x))
    named = {"matching": along(x, direction(x.detach(), own.detach(), teachers)), "error": error.flatten(1).mean(dim=1)}
    if matched.fooling is not None and matched.fake is not None and matched.real is not None:
        named["fooling"] = F.softplus(-matched.fooling)
        named["telling"] = F.softplus(matched.fake) + F.softplus(-matched.real)
    return named
