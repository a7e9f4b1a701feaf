"""Paths between two points, against exact geometry."""

from __future__ import annotations

import math

import pytest
import torch

from genlab.interpolate import lerp, slerp

W = torch.linspace(0, 1, 7, dtype=torch.float64)


@pytest.fixture
def points() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 5, generator=generator, dtype=torch.float64).unbind(0)


@pytest.mark.parametrize("path", [lerp, slerp])
def test_paths_begin_at_a_and_end_at_b_exactly(path, points):
    a, b = (p.float() for p in points)
    steps = path(a, b, torch.tensor([0.0, 0.3, 1.0]))
    assert steps.shape == (3, 3, 5)
    assert steps.dtype == torch.float32
    assert torch.equal(steps[0], a)
    assert torch.equal(steps[-1], b)


def test_lerp_divides_the_segment(points):
    a, b = points
    steps = lerp(a, b, W)
    for w, x in zip(W, steps, strict=True):
        torch.testing.assert_close(x - a, w * (b - a))


def test_slerp_is_a_great_circle_between_axes():
    radius = 3.0
    a, b = torch.tensor([radius, 0.0], dtype=torch.float64), torch.tensor([0.0, radius], dtype=torch.float64)
    angle = W * math.pi / 2
    torch.testing.assert_close(slerp(a, b, W), radius * torch.stack([angle.cos(), angle.sin()], dim=1))


def test_slerp_turns_evenly_and_its_norm_moves_evenly(points):
    a, b = points[0], 4 * points[1]
    path = slerp(a, b, W)
    norms = path.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, a.norm() + W * (b.norm() - a.norm()))
    unit = path.flatten(1) / norms[:, None]
    turns = (unit[1:] * unit[:-1]).sum(dim=1).acos()
    torch.testing.assert_close(turns, turns[:1].expand_as(turns))
    theta = ((a * b).sum() / a.norm() / b.norm()).acos()
    torch.testing.assert_close(turns.sum(), theta)


def test_slerp_of_parallel_points_is_the_straight_path(points):
    a = points[0]
    for b in (a, 2 * a, a * (1 + 1e-9), torch.zeros_like(a)):
        torch.testing.assert_close(slerp(a, b, W), lerp(a, b, W))


def test_slerp_of_nearly_parallel_points_is_continuous(points):
    a, side = points
    for tiny in (1e-3, 1e-4, 1e-5, 1e-6):
        b = a + tiny * side
        torch.testing.assert_close(slerp(a, b, W), lerp(a, b, W), atol=tiny, rtol=0)


def test_slerp_of_opposite_points_walks_half_a_circle(points):
    a = points[0]
    path = slerp(a, -2 * a, W).flatten(1)
    norms = path.norm(dim=1)
    torch.testing.assert_close(norms, a.norm() * (1 + W))
    unit = path / norms[:, None]
    turns = (unit[1:] * unit[:-1]).sum(dim=1).clamp(-1, 1).acos()
    torch.testing.assert_close(turns, torch.full_like(turns, math.pi / 6))


def test_points_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        slerp(torch.ones(2), torch.ones(3), W)
