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
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from genlab.consistency import Consistency
from genlab.ddpm import DDPM
from genlab.divergence import sum_dims
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


class Matching(nn.Module):
    """A student and the diffusion model of its own pictures, which are trained together.

    Args:
        student: the student.
        teacher: its teacher, whose weights the second model starts with.
    """

    def __init__(self, student: Consistency, teacher: DDPM) -> None:
        super().__init__()
        self.student = student
        self.own = copy.deepcopy(teacher).requires_grad_(True)

    def forward(
        self, x_T: Tensor, s: Tensor, label: Tensor | None, renoise: Tensor, u: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make pictures as one to several evaluations do, and denoise them.

        Args:
            x_T, renoise, noise: (B C H W) standard normal.
            s: (B) time of the evaluation that is trained: T, or later in a walk, where x_s ~ q(x_s|f(x_T, T)).
            label: (B) classes, negative for none, or None.
            u: (B) times to which the pictures are noised.

        Returns:
            x, x_u and x̂_0^p, each (B C H W); the gradient of x̂_0^p is that of the second model alone.
        """
        schedule, later = self.student.schedule, s < self.student.schedule.T
        x_s = x_T.clone()
        if bool(later.any()):
            with torch.no_grad():
                first = self.student.predict(x_T, torch.full_like(s, schedule.T), label).x0_hat
            x_s = torch.where(later[:, None, None, None], q_marginal(schedule, first, s).sample(renoise), x_T)
        x = self.student.predict(x_s, s, label, clip=False).x0_hat
        x_u = q_marginal(schedule, x.detach(), u).sample(noise)
        return x, x_u, self.own.predict(x_u, u, label, clip=False).x0_hat


def losses(schedule: Schedule, x: Tensor, u: Tensor, own: Tensor, teachers: Tensor) -> tuple[Tensor, Tensor]:
    """Return what takes the student's pictures along eq. 2, and the second model's error of v, each (B).

    Args:
        x, own: the pictures and x̂_0^p, of `Matching.forward`, for u (B); teachers: x̂_0^q.
    """
    error = (own - x.detach()) ** 2 / (1 - at(schedule.alpha_bar, u, x))
    return along(x, direction(x.detach(), own.detach(), teachers)), error.flatten(1).mean(dim=1)
