"""Paths between two points of a Gaussian space: a VAE's z, or the noise x_T of a diffusion model (notes 1.4 and 1.5).

    lerp    (1 − w) a + w b                                                            (1)
    slerp   r(w) · [sin((1 − w)θ) â + sin(wθ) b̂] / sin θ,   cos θ = â·b̂,  r(w) = (1 − w)‖a‖ + w‖b‖   (2)

â = a/‖a‖. Nearly all of N(0, I) in D dimensions lies close to the sphere of radius √D, and two draws are nearly at right
angles, so that the middle of (1) is shorter by √2 than anything the model has met. (2) (Shoemake 1985) walks along the sphere;
where the two norms differ, the norm moves evenly from the one to the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEARLY = 1e-4
"""sin θ below which two directions count as parallel or opposite; (2) divides by it."""


def lerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The straight path, eq. 1: a, b (…) and w (N) → (N, …). w = 0 gives a and w = 1 gives b."""
    w = _weights(a, w)
    return (1 - w) * a + w * b


def slerp(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The path along the sphere, eq. 2: a, b (…) and w (N) → (N, …). w = 0 gives a and w = 1 gives b.

    Parallel directions, and a or b of norm zero, have no arc, and the straight path is taken. Opposite directions have arcs
    without number: the one through a fixed direction at right angles to a is taken.

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
        side = _at_right_angles(start)
        direction = torch.cos(v * torch.pi) * start + torch.sin(v * torch.pi) * side
    path = (((1 - v) * norm_a + v * norm_b) * direction).to(a.dtype)
    at_end = _weights(a, w) == 1
    return torch.where(at_end, b, torch.where(_weights(a, w) == 0, a, path))


def _weights(a: Tensor, w: Tensor) -> Tensor:
    return w.to(a.device, a.dtype).reshape(-1, *[1] * a.ndim)


def _at_right_angles(direction: Tensor) -> Tensor:
    """A unit vector at right angles to `direction`: its smallest coordinate's axis, less its share along `direction`."""
    flat = direction.flatten()
    if len(flat) < 2:
        return torch.zeros_like(direction)
    axis = torch.zeros_like(flat)
    axis[flat.abs().argmin()] = 1
    side = axis - (axis @ flat) * flat
    return (side / side.norm()).reshape(direction.shape)
