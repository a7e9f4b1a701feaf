"""Interpolate between two points of a Gaussian space: a VAE's z, or a diffusion model's noise x_T (docs/notes.md#n1-4 and
#n1-5).

    lerp    (1 − w) a + w b                                                            (1)
    slerp   r(w) · [sin((1 − w)θ) â + sin(wθ) b̂] / sin θ,   cos θ = â·b̂,  r(w) = (1 − w)‖a‖ + w‖b‖   (2)

â = a/‖a‖. Nearly all of N(0, I) in D dimensions lies close to the sphere of radius √D, and two draws are nearly at right
angles, so that the midpoint of (1) is shorter by √2 than typical draws, on which the model was trained. (2) (Shoemake 1985)
follows the sphere; the norm is interpolated linearly.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEARLY = 1e-4
"""sin θ below which two directions count as parallel or opposite; (2) divides by it."""


def lerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """Return points on the straight path, eq. 1, (N, …), for a, b (…) and w (N); w = 0 gives a and w = 1 gives b."""
    w = _weights(a, w)
    return (1 - w) * a + w * b


def slerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """Return points on the path along the sphere, eq. 2, (N, …), for a, b (…) and w (N); w = 0 gives a and w = 1 gives b.

    If a and b are parallel, or one is zero, the path is straight. If they are opposite, every great circle joins them: the path
    goes through a fixed direction orthogonal to a.

    Raises:
        ValueError: a and b have different shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"expected two points of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    norm_a, norm_b = a.double().norm(), b.double().norm()
    if norm_a == 0 or norm_b == 0:
        return lerp(a, b, w)
    start, end = a.double() / norm_a, b.double() / norm_b
    theta = 2 * torch.atan2((end - start).norm(), (end + start).norm())
    v = _weights(a, w).double()
    if theta.sin() >= NEARLY:
        direction = (torch.sin((1 - v) * theta) * start + torch.sin(v * theta) * end) / theta.sin()
    elif theta < 1:
        return lerp(a, b, w)
    else:
        side = _orthogonal(start)
        direction = torch.cos(v * torch.pi) * start + torch.sin(v * torch.pi) * side
    path = (((1 - v) * norm_a + v * norm_b) * direction).to(a.dtype)
    at_end = _weights(a, w) == 1
    return torch.where(at_end, b, torch.where(_weights(a, w) == 0, a, path))


def _weights(a: Tensor, w: Tensor) -> Tensor:
    return w.to(a.device, a.dtype).reshape(-1, *[1] * a.ndim)


def _orthogonal(direction: Tensor) -> Tensor:
    """Return a unit vector orthogonal to `direction`, from the axis of its smallest coordinate."""
    flat = direction.flatten()
    if len(flat) < 2:
        return torch.zeros_like(direction)
    axis = torch.zeros_like(flat)
    axis[flat.abs().argmin()] = 1
    side = axis - (axis @ flat) * flat
    return (side / side.norm()).reshape(direction.shape)
