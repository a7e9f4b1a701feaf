"""Fits a Gaussian to a mixture of two under both directions of the KL divergence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.demo.tabs.divergence.request import DivergenceRequest
from genlab.divergence import (
    Direction,
    Gaussian,
    Tabulated,
    cross_entropy,
    fit,
    forward_kl,
    kl,
    kl_integrand,
    mixture,
    reverse_kl,
    tabulate,
)

X = torch.linspace(-40, 40, 1601, dtype=torch.float64)
"""Where densities are tabulated: beyond nine widths of everything that may be asked for, in steps of a sixth of the least."""
TOLERANCE = 1e-4
"""Fisher length of the step at which a fit has arrived."""
DIRECTIONS: dict[str, Direction] = {"forward": forward_kl, "reverse": reverse_kl}


@dataclass(frozen=True)
class Fit:
    """One fit: q after every step, or at the start and the end alone, as rows."""

    q: Gaussian
    table: Tabulated
    cross_entropy: Tensor
    forward_kl: Tensor
    reverse_kl: Tensor
    integrand: Tensor


@dataclass(frozen=True)
class Solution:
    """Both fits of a request."""

    request: DivergenceRequest
    p: Tabulated
    fits: dict[str, Fit]


def solve(request: DivergenceRequest, whole: bool = True) -> Solution:
    """Fit q under both directions. Return every step if `whole`, else only the start and the end."""
    weight = torch.tensor([request.weight, 1 - request.weight], dtype=torch.float64)
    modes = gaussians((request.left_mean, request.left_std), (request.right_mean, request.right_std))
    start = gaussians((request.start_mean, request.start_std))
    p = mixture(weight, modes, X)
    fits = {}
    for name, direction in DIRECTIONS.items():
        path = list(fit(p, start, direction, tolerance=TOLERANCE))
        path = path if whole else [path[0], path[-1]]
        q = Gaussian(torch.cat([step.mean for step in path]), torch.cat([step.log_var for step in path]))
        table = tabulate(q, X)
        integrand = kl_integrand(p, table) if direction is forward_kl else kl_integrand(table, p)
        fits[name] = Fit(q, table, cross_entropy(p, table), kl(p, table), kl(table, p), integrand)
    return Solution(request, p, fits)


def gaussians(*pairs: tuple[float, float]) -> Gaussian:
    """Return Gaussians of these means and standard deviations, (N 1) each."""
    mean, std = torch.tensor(pairs, dtype=torch.float64).T[:, :, None]
    return Gaussian(mean, 2 * std.log())
