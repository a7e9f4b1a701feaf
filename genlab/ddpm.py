"""A denoising diffusion probabilistic model (docs/notes.md#n1-5; Ho et al. 2020): the network and its chain.

The network maps x_t and t to a prediction. Its output is ε̂ itself or v̂, from which ε̂ and x̂_0 follow (`process`), and, where
Σ is learned, one more map that places log Σ_θ between log β̃_t and log β_t (Nichol & Dhariwal 2021, eq. 15). Training minimises

    L_simple = E ‖target − prediction‖²           (Ho et al. 2020, eq. 14; target ε or v)              (1)
    L_hybrid = L_simple + λ L_VLB, λ = 0.001      (Nichol & Dhariwal 2021, eq. 16), μ_θ held fixed in L_VLB   (2)

both averaged over uniform t: the schedule decides where along the chain the steps lie (`schedule`). Or it
minimises the bound itself without L_T, which does not depend on θ,

    Σ_t ℓ_t = E_{t~p} [ℓ_t / p_t],   p_t ∝ √E[ℓ_t²]     (Nichol & Dhariwal 2021, section 3.3)              (3)

with the gradient through μ_θ and Σ_θ. Its terms differ by orders of magnitude. This p_t
gives the estimate of (3) the least variance; `TimeSampler` estimates it during training.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from genlab.config import DataSpec, DDPMConfig, Kind, Variance
from genlab.divergence import Gaussian, bits_per_dim, sum_dims
from genlab.likelihood import discretised_log_prob
from genlab.process import (
    Denoised,
    eps_from_v,
    eps_from_x0,
    grid_eps,
    p_reverse,
    q_marginal,
    v_from_eps,
    x0_from_eps,
    x0_from_v,
)
from genlab.schedule import any_true, make_schedule, refined_schedule
from genlab.unet import UNet
from genlab.vlb import Decoder, step_term, strata

HYBRID_WEIGHT = 0.001


def training_times(T: int, count: int, u: Tensor) -> Tensor:
    """Return times t in 1…T for `count` pictures, (count), each uniform on 1…T.

    They are stratified: every batch covers the whole chain, which lowers the variance (Kingma et al. 2021, appendix I).

    Args:
        u: one number in [0, 1), (1) or (), the common shift of all times.
    """
    return ((torch.arange(count) + u.double()) / count * T).long().clamp(max=T - 1) + 1


class TimeSampler:
    """Draws times with p_t of eq. 3, estimated from the terms of earlier steps.

    E[ℓ_t²] is estimated for each of K strata of 1…T (`vlb.strata`), by the mean of the first 100 terms and then by a running
    mean in which a new term weighs at most 1/100. p_t is mixed with a tenth of the uniform distribution, so that every stratum
    is sampled and no weight 1/p_t exceeds 10 T.

    Attributes:
        state: (2, K): number of terms in the running mean, at most 100, and mean square. It is updated in place.
    """

    EVEN = 0.1
    MEMORY = 100.0

    def __init__(self, T: int, count: int = 50) -> None:
        self.last = torch.tensor(strata(T, min(count, T)))
        self.length = torch.tensor([0, *self.last.tolist()]).diff()
        self.state = torch.zeros(2, len(self.last), dtype=torch.float64)

    def probabilities(self) -> Tensor:
        """Return p_t of each single t in each stratum, (K) float64; uniform until every stratum has a term."""
        T = int(self.last[-1])
        if bool((self.state[0] == 0).any()):
            return torch.full((len(self.last),), 1 / T, dtype=torch.float64)
        root = self.state[1].sqrt()
        return (1 - self.EVEN) * root / (root * self.length).sum() + self.EVEN / T

    def draw(self, count: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return times (count) in 1…T and their weights 1/p_t (count), stratified as in `training_times`.

        Args:
            u: one number in [0, 1), (1) or (), the common shift of all times.
        """
        p = self.probabilities()
        upper = (p * self.length).cumsum(0)
        place = (torch.arange(count) + u.double()) / count * upper[-1]
        stratum = torch.searchsorted(upper, place, right=True).clamp(max=len(p) - 1)
        within = ((place - upper[stratum]) / p[stratum] + self.length[stratum]).long()
        within = within.minimum(self.length[stratum] - 1).clamp(min=0)
        return self.last[stratum] - self.length[stratum] + 1 + within, 1 / p[stratum]

    def update(self, t: Tensor, terms: Tensor) -> None:
        """Add terms ℓ_t (N) at times t (N) to the running means."""
        t, squares = t.cpu(), terms.detach().double().cpu() ** 2
        stratum = torch.searchsorted(self.last, t)
        sums, counts = (torch.zeros(len(self.last), dtype=torch.float64) for _ in range(2))
        sums.index_add_(0, stratum, squares)
        counts.index_add_(0, stratum, torch.ones(len(t), dtype=torch.float64))
        known, mean = self.state
        total = (known + counts).clamp(min=1)
        self.state[1] = torch.where(counts > 0, (known * mean + sums) / total, mean)
        self.state[0] = total.clamp(max=self.MEMORY) * (known + counts > 0)


@dataclass(frozen=True)
class DDPMLoss:
    """The two parts of the training loss, (B) each."""

    simple: Tensor
    """Mean squared error of the prediction, eq. 1."""
    bound: Tensor
    """T times the bound's term of step t, bits per dimension; 0 where it is not computed, see `DDPM.loss`."""

    @property
    def total(self) -> Tensor:
        """Return L_hybrid, eq. 2, (B)."""
        return self.simple + HYBRID_WEIGHT * self.bound


class DDPM(nn.Module):
    """A diffusion model of pictures in [−1, 1].

    Raises:
        ValueError: the picture side does not fit the network (see `UNet`), or T the schedule.
    """

    kind: Kind = "ddpm"

    def __init__(self, config: DDPMConfig, data: DataSpec) -> None:
        super().__init__()
        self.config = config = replace(config, unet=config.unet.at(data.size))
        self.data = data
        with torch.device("cpu"):  # the schedule needs its values even if the network is built on the device "meta"
            self.schedule = make_schedule(config.schedule, config.T)
        self.parts = 1
        outputs = data.channels * (2 if config.variance == "learned" else 1)
        self.unet = UNet(config.unet, data.channels * (1 + len(config.grids)), outputs, data.size, len(data.classes))

    def refined(self, parts: int) -> DDPM:
        """Return the same network on a chain with `parts` steps for each (`schedule.refined_schedule`), sharing all weights.

        It is evaluated between the times that it was trained at, which its embedding of t allows.
        """
        model = copy.copy(self)
        model.schedule, model.parts = refined_schedule(self.schedule, parts), parts
        return model

    def predict(
        self, x_t: Tensor, t: Tensor, label: Tensor | None = None, guidance: float = 1.0, clip: bool = True
    ) -> Denoised:
        """Return ε̂, x̂_0 and the fraction w of Σ (`process`, eq. 5) for x_t (B C H W) at t (B) in 1…T.

        Args:
            label: (B) class of each picture, negative for no label; None for no labels.
            guidance: w in ε̂ = ε̂(∅) + w (ε̂(label) − ε̂(∅)) (Ho & Salimans 2022); 1 is the plain conditional model. Σ is
                interpolated in the same way with w clamped to [0, 1]: guidance extrapolates the mean, not the variance.
            clip: clamp x̂_0 to [−1, 1] and recompute ε̂ from it.

        Raises:
            ValueError: a t is outside 1…T, or a label is not below the number of classes; not checked on a GPU.
        """
        self.schedule.check(t)
        if label is not None and self.data.classes and any_true(label >= len(self.data.classes)):
            raise ValueError(f"expected labels below {len(self.data.classes)}, or negative for none, got {label.tolist()[:8]}")
        if label is None or guidance == 1.0:
            output = self.network(x_t, t, label)
        else:
            no_label = torch.full_like(label, -1)
            both = self.network(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([label, no_label]))
            with_label, without = both.chunk(2)
            weight = torch.full_like(without[:1], guidance)
            weight[:, self.data.channels :] = min(max(guidance, 0.0), 1.0)
            output = without + weight * (with_label - without)
        fraction = None
        if self.config.variance == "learned":
            output, place = output.chunk(2, dim=1)
            fraction = (place + 1) / 2
        return self.denoised(output, x_t, t, clip, fraction)

    def network(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the output of the U-Net for x_t (B C H W) and, as further channels, E[ε|x_t] of each gray-level grid.

        Where the noise is smaller than the distance of two gray levels, the grid all but determines ε, through differences so
        small that a convolution learns them slowly (Kingma et al. 2021, appendix C, add sines of x_t as inputs for this).
        """
        grids = grid_eps(self.schedule, x_t, t, self.config.grids)
        time = t if self.parts == 1 else 1 + (t - 1) / self.parts
        return self.unet(torch.cat([x_t[:, None], grids], dim=1).flatten(1, 2), time, label).to(x_t.dtype)

    def denoised(self, output: Tensor, x_t: Tensor, t: Tensor, clip: bool = True, fraction: Tensor | None = None) -> Denoised:
        """Return the prediction that an output of the network (B C H W), without the part for Σ, stands for; see `predict`."""
        if self.config.prediction == "v":
            x0_hat = x0_from_v(self.schedule, x_t, output, t)
            eps_hat = eps_from_v(self.schedule, x_t, output, t)
        else:
            x0_hat = x0_from_eps(self.schedule, x_t, output, t)
            eps_hat = output
        if clip:
            x0_hat = x0_hat.clamp(-1, 1)
            eps_hat = eps_from_x0(self.schedule, x_t, x0_hat, t)
        return Denoised(eps_hat, x0_hat, fraction)

    def reverse(
        self, x_t: Tensor, t: Tensor, s: Tensor | None = None, label: Tensor | None = None, variance: Variance | None = None
    ) -> Gaussian:
        """Return p_θ(x_s|x_t), by default with s = t − 1 and the Σ of the configuration."""
        denoised = self.predict(x_t, t, label)
        return p_reverse(self.schedule, x_t, denoised.x0_hat, t, s, variance or self.config.variance, denoised.fraction)

    def loss(
        self,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
        whole_bound: bool = False,
        decoder: Decoder = discretised_log_prob,
    ) -> DDPMLoss:
        """Return the training loss at x_t = √ᾱ_t x0 + √(1−ᾱ_t) ε, per picture (B); eqs. 1 and 2.

        Args:
            whole_bound: differentiate the bound's term through μ_θ too, for eq. 3. Otherwise through Σ_θ only, and the term is
                0 if Σ is not learned.
            decoder: log p_θ(x_0|x_1) of the bound's L_0; see `vlb.step_term`.
        """
        x_t = q_marginal(self.schedule, x0, t).sample(eps)
        denoised = self.predict(x_t, t, label, clip=False)
        if self.config.prediction == "v":
            target = v_from_eps(self.schedule, x0, eps, t)
            prediction = v_from_eps(self.schedule, denoised.x0_hat, denoised.eps_hat, t)
        else:
            target, prediction = eps, denoised.eps_hat
        simple = sum_dims((target - prediction) ** 2) / self.data.dims
        if denoised.fraction is None and not whole_bound:
            return DDPMLoss(simple, torch.zeros_like(simple))
        x0_hat = denoised.x0_hat if whole_bound else denoised.x0_hat.detach()
        p = p_reverse(self.schedule, x_t, x0_hat, t, None, self.config.variance, denoised.fraction)
        term = step_term(self.schedule, lambda *_: p, x0, x_t, t, decoder)
        return DDPMLoss(simple, self.schedule.T * bits_per_dim(term, self.data.dims))

    def forward(self, x0: Tensor, t: Tensor, eps: Tensor, label: Tensor | None = None, whole_bound: bool = False) -> DDPMLoss:
        """Return the training loss (`loss`): DistributedDataParallel wraps forward() alone."""
        return self.loss(x0, t, eps, label, whole_bound)
