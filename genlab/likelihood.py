"""Compute log p(x|·) of pictures for each distribution that a decoder may have (docs/notes.md#n1-4-elbo, #n1-5-terms).

8-bit values x lie on 256 levels in [−1, 1], 2/255 apart. A density F′ gives each level the mass within half a level of it, the
outermost levels the tails beyond (Ho et al. 2020, eq. 13), so that the masses of the 256 levels sum to 1:

    P(x) = F(x + 1/255) − F(x − 1/255),   F(−∞) for the lower end of x = −1, F(∞) for the upper end of x = 1        (1)

With F the distribution function of N(μ, σ²) this is the discretised Gaussian. With that of the logistic distribution,
F(x) = sigmoid((x − μ)/s), (1) has a form without cancellation (for a = (x + 1/255 − μ)/s, b = (x − 1/255 − μ)/s):

    P(x) = sigmoid(a) sigmoid(−b) (1 − e^(b−a)),   a − b = 2/(255 s)                                                  (2)

All results are nats per picture, (B), unless a name says "values".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.divergence import Gaussian, sum_dims

HALF_LEVEL = 1 / 255
"""Half the distance between neighbouring gray levels in the [−1, 1] scale."""
DARKEST, BRIGHTEST = -0.999, 0.999
"""Values below and above belong to the outermost levels, −1 and 1."""


@dataclass(frozen=True)
class Bernoulli:
    """A Bernoulli distribution of binarised pictures: `logits` of each pixel being 1 (B C H W)."""

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """Return E[x] in the [−1, 1] scale, 2p − 1."""
        return torch.tanh(self.logits / 2)

    @property
    def std(self) -> Tensor:
        """Return the standard deviation in the [−1, 1] scale, √(1 − mean²)."""
        return (1 - self.mean**2).sqrt()

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, (B), for x of −1 and 1."""
        return sum_dims(F.logsigmoid(x * self.logits))


@dataclass(frozen=True)
class Logistic:
    """A discretised logistic distribution, eq. 2: `mean` (B C H W) and `log_scale` = log s, broadcastable to it."""

    mean: Tensor
    log_scale: Tensor

    @property
    def std(self) -> Tensor:
        """Return the standard deviation of the density, π s/√3, of the shape of `mean`."""
        return (self.log_scale.exp() * (math.pi / math.sqrt(3))).expand_as(self.mean)

    def sample(self, uniform: Tensor) -> Tensor:
        """Return the values of the continuous distribution below which a share `uniform`, in (0, 1), of its mass lies."""
        return self.mean + self.log_scale.exp() * torch.logit(uniform)

    def density(self, x: Tensor) -> Tensor:
        """Return the density of the continuous distribution at x, broadcast with `mean`: sigmoid(y) sigmoid(−y)/s."""
        y = (x - self.mean) / self.log_scale.exp()
        return torch.sigmoid(y) * torch.sigmoid(-y) / self.log_scale.exp()

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log P(x) of 8-bit pictures x (B C H W) in nats, (B)."""
        return sum_dims(self.log_prob_values(x))

    def log_prob_values(self, x: Tensor) -> Tensor:
        """Return log P of each value of x (B C H W), nats, of the shape of x."""
        precision = (-self.log_scale).exp()
        upper = F.logsigmoid((x + HALF_LEVEL - self.mean) * precision)
        lower = F.logsigmoid((self.mean - x + HALF_LEVEL) * precision)
        inside = upper + lower + torch.log(-torch.expm1(-2 * HALF_LEVEL * precision))
        return torch.where(x < DARKEST, upper, torch.where(x > BRIGHTEST, lower, inside))


def discretised_log_prob(p: Gaussian, x0: Tensor) -> Tensor:
    """Return log of the mass of N(μ, σ²) on the gray level of x0, eq. 1, nats (B).

    Args:
        p: mean and log σ², broadcastable to x0.
        x0: (B, …) 8-bit values mapped to [−1, 1].
    """
    # In float64: in float32 torch's derivative of log Φ(z) is 5 % off at z = −1000 and can be NaN from −5e4 on.
    x, mean, precision = x0.double(), p.mean.double(), (-0.5 * p.log_var.double()).exp()
    above = (x + HALF_LEVEL - mean) * precision
    below = (x - HALF_LEVEL - mean) * precision
    # Both ends are reflected into the lower tail, where log Φ keeps its precision: Φ(a) − Φ(b) = Φ(−b) − Φ(−a).
    flip = above + below > 0
    high = torch.special.log_ndtr(torch.where(flip, -below, above))
    low = torch.special.log_ndtr(torch.where(flip, -above, below))
    inside = high + torch.log(-torch.expm1((low - high).clamp(max=-1e-12)))
    darkest = torch.special.log_ndtr(above)
    brightest = torch.special.log_ndtr(-below)
    return sum_dims(torch.where(x < DARKEST, darkest, torch.where(x > BRIGHTEST, brightest, inside))).to(x0.dtype)


def level_log_probs(p: Gaussian) -> Tensor:
    """Return log of the mass of N(μ, σ²) on each of the 256 gray levels, nats, (N, 256) for mean and log σ² (N)."""
    levels = torch.linspace(-1, 1, 256, dtype=p.mean.dtype, device=p.mean.device).repeat(len(p.mean))[:, None]
    each = Gaussian(p.mean.repeat_interleave(256)[:, None], p.log_var.repeat_interleave(256)[:, None])
    return discretised_log_prob(each, levels).reshape(-1, 256)
