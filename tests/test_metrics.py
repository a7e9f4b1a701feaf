"""Measures of sets of features: against a second implementation, closed forms, double sums and sets with known answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.metrics import (
    Moments,
    frechet_distance,
    frechet_extrapolated,
    frechet_interval,
    gaussian_frechet_distance,
    kernel_distance,
    memorised_share,
    moments,
    nearest,
    precision_recall,
)


def normal(count: int, dims: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixed(count: int, dims: int, seed: int) -> Tensor:
    """Correlated, far from round: standard deviations over three decades, and a mean."""
    turn = torch.linalg.qr(normal(dims, dims, seed + 100)).Q
    return normal(count, dims, seed) * torch.logspace(-2, 1, dims, dtype=torch.float64) @ turn + seed


def published_frechet(scipy: Any, a: Tensor, b: Tensor) -> float:
    """As in the literature's own code: numpy's covariances and the root of their product by scipy."""
    x, y = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    c_a, c_b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(c_a @ c_b)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c_a + c_b - 2 * root.real))


@pytest.mark.parametrize(("dims", "counts"), [(2, (50, 70)), (16, (40, 200)), (64, (400, 300))])
def test_the_frechet_distance_is_that_of_a_second_implementation(scipy: Any, dims: int, counts: tuple[int, int]):
    a, b = mixed(counts[0], dims, 1), mixed(counts[1], dims, 2)
    assert frechet_distance(a, b) == pytest.approx(published_frechet(scipy, a, b), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    single = frechet_distance(a.float(), b.float())
    assert single == pytest.approx(published_frechet(scipy, a.float(), b.float()), rel=1e-9)


def test_the_frechet_distance_of_diagonal_gaussians_is_the_closed_form():
    """‖m_a − m_b‖² + Σ (s_a − s_b)², here with deviations of 0 in one, the other, or both."""
    m_a, m_b = normal(5, 1)[:, 0], normal(5, 1, 1)[:, 0]
    s_a = torch.tensor([1.0, 0.0, 3.0, 0.0, 1e-6], dtype=torch.float64)
    s_b = torch.tensor([2.0, 5.0, 0.0, 0.0, 1e-3], dtype=torch.float64)
    found = gaussian_frechet_distance(Moments(m_a, torch.diag(s_a**2)), Moments(m_b, torch.diag(s_b**2)))
    assert found == pytest.approx(float(((m_a - m_b) ** 2 + (s_a - s_b) ** 2).sum()), rel=1e-12)


def test_the_frechet_distance_of_gaussians_without_full_rank():
    """Two lines in a plane at an angle φ: C = s² u uᵀ gives s_a² + s_b² − 2 s_a s_b |cos φ|."""
    angle = torch.tensor(0.7, dtype=torch.float64)
    u, v = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.stack([angle.cos(), angle.sin()])
    zero = torch.zeros(2, dtype=torch.float64)
    found = gaussian_frechet_distance(Moments(zero, 4 * torch.outer(u, u)), Moments(zero, 9 * torch.outer(v, v)))
    assert found == pytest.approx(float(4 + 9 - 2 * 2 * 3 * angle.cos()), rel=1e-12)


def test_features_that_never_fire_are_no_trouble():
    a, b = mixed(100, 8, 1), mixed(100, 8, 2)
    silent = torch.zeros(100, 3, dtype=torch.float64)
    with_silent = frechet_distance(torch.cat([a, silent], dim=1), torch.cat([b, silent], dim=1))
    assert with_silent == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_a_set_has_no_distance_to_itself_and_moves_by_its_shift():
    a = mixed(300, 32, 3)
    scale = float(moments(a).covariance.trace())
    assert 0 <= frechet_distance(a, a.flip(0)) < 1e-10 * scale
    assert frechet_distance(a, a + 5) == pytest.approx(32 * 25, rel=1e-9)
    assert frechet_distance(a, 2 * a - moments(a).mean) == pytest.approx(scale, rel=1e-9)


@pytest.mark.parametrize("count", [1, 7, 8])
def test_too_few_pictures_for_the_covariance_are_refused(count: int):
    with pytest.raises(
        ValueError, match=f"too few pictures for the covariance of 8 features: expected more than 8, got {count}"
    ):
        frechet_distance(normal(count, 8), normal(100, 8))
    with pytest.raises(ValueError, match="too few pictures"):
        frechet_distance(normal(100, 8), normal(count, 8))


def test_features_that_are_not_finite_are_refused():
    broken = normal(100, 8)
    broken[3, 4] = float("nan")
    for measure in (frechet_distance, lambda a, b: kernel_distance(a, b, torch.Generator()), precision_recall):
        with pytest.raises(ValueError, match="finite"):
            measure(normal(100, 8), broken)


def test_the_bootstrap_interval_covers_the_mean_distance_at_its_number_of_pictures():
    """Of 80 experiments the 90 % interval must hold the expected distance, bias and all, in 72 ± 3 × 2.7 or so.

    That the interval would miss if it were not laid about the measured distance: resampled sets lie further apart.
    """
    dims, count, experiments = 4, 100, 80
    generator = torch.Generator().manual_seed(0)

    def pair() -> tuple[Tensor, Tensor]:
        a, b = torch.randn(2, count, dims, generator=generator, dtype=torch.float64)
        return a, 1.3 * b + 0.2

    expected = float(np.mean([frechet_distance(*pair()) for _ in range(1000)]))
    hits = 0
    for _ in range(experiments):
        low, high = frechet_interval(*pair(), generator, resamples=40, coverage=0.9)
        assert 0 <= low < high
        hits += low <= expected <= high
    assert 62 <= hits <= 79


def test_the_interval_is_fixed_by_its_generator():
    a, b = mixed(50, 4, 1), mixed(60, 4, 2)
    first, second, other = (frechet_interval(a, b, torch.Generator().manual_seed(s), resamples=20) for s in (1, 1, 2))
    assert first == second != other


def test_the_kernel_distance_is_the_published_double_sum():
    a, b = mixed(11, 3, 1), mixed(14, 3, 2)

    def k(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    def double_sum(x: Tensor, y: Tensor) -> float:
        n, m = len(x), len(y)
        same = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        other = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
        return same + other - 2 * sum(k(x[i], y[j]) for i in range(n) for j in range(m)) / (n * m)

    found = kernel_distance(a, b, torch.Generator().manual_seed(5), blocks=3)
    generator = torch.Generator().manual_seed(5)
    a, b = (x[torch.randperm(len(x), generator=generator)] for x in (a, b))
    parts = [double_sum(a[:4], b[:5]), double_sum(a[4:8], b[5:10]), double_sum(a[8:], b[10:])]
    assert found.value == pytest.approx(np.mean(parts), rel=1e-9)
    assert found.error == pytest.approx(np.std(parts, ddof=1) / 3**0.5, rel=1e-9)


def test_the_kernel_distance_has_no_bias():
    """Few pictures of one distribution: the mean over many draws is 0 within its error, which is itself the stated error."""
    g = torch.Generator().manual_seed(0)
    found = [kernel_distance(normal(8, 2, 2 * i), normal(12, 2, 2 * i + 1), g, blocks=2) for i in range(1500)]
    values = np.array([f.value for f in found])
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean()) < 4 * error
    stated = np.mean([f.error**2 for f in found])
    assert stated == pytest.approx(values.var(), rel=0.25)


def test_the_kernel_distance_does_not_mind_classes_in_turn():
    """Ten classes far apart, in the same order in both sets, in as many blocks: still no distance beyond its error."""
    centres = 5 * torch.arange(10.0, dtype=torch.float64)[:, None].repeat(40, 2)
    found = kernel_distance(centres + normal(400, 2, 1), centres.flip(0) + normal(400, 2, 2), torch.Generator().manual_seed(0))
    alike = kernel_distance(centres, centres * 1.5, torch.Generator().manual_seed(0))
    assert abs(found.value) < 4 * found.error
    assert alike.value > 4 * alike.error
    assert abs(found.value) < 0.05 * alike.value


def test_too_few_pictures_for_the_blocks_are_refused():
    with pytest.raises(ValueError, match="2 or more blocks of 2 or more pictures, got 10 of 19 and 30"):
        kernel_distance(normal(19, 2), normal(30, 2), torch.Generator())


def test_precision_and_recall_of_sets_with_known_answers():
    """Real: 0, 1, …, 9 on a line; by k = 3 every ball has radius 2 but those of the two at each end: 3, 2, …, 2, 3."""
    real = torch.arange(10.0)[:, None]
    assert precision_recall(real, real) == precision_recall(real + 0.25, real)
    assert precision_recall(real + 0.25, real).precision == 1.0
    # Samples at −3 (within 3 of 0), −3.1 (not), 11.9 (within 3 of 9), 12.1 (not), 5.
    samples = torch.tensor([[-3.0], [-3.1], [11.9], [12.1], [5.0]])
    found = precision_recall(samples, real)
    assert found.precision == pytest.approx(3 / 5)
    # Their own radii, to the third neighbour: 14.9, 15, 14.9, 15.1, 8.1: together they reach every real point.
    assert found.recall == 1.0


def test_a_model_of_one_mode_has_precision_without_recall_and_a_wild_one_the_reverse():
    real = torch.cat([normal(200, 2, 1) - 50, normal(200, 2, 2) + 50])
    one_mode = normal(400, 2, 3) * 0.5 + 50
    found = precision_recall(one_mode, real)
    assert found.precision > 0.95
    assert 0.2 < found.recall <= 0.5
    scattered = torch.cat([real + 0.01, normal(400, 2, 4) * 1e-3 + 1000])
    found = precision_recall(scattered, real)
    assert found.precision == 0.5
    assert found.recall > 0.95
    apart = precision_recall(real + 1e4, real)
    assert (apart.precision, apart.recall) == (0.0, 0.0)


def test_precision_needs_neighbours():
    with pytest.raises(ValueError, match="more than 3 samples for their 3 nearest neighbours, got 3"):
        precision_recall(normal(3, 2), normal(10, 2))


def test_the_nearest_row_is_found_with_its_distance(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("genlab.metrics.AT_ONCE", 16)
    points, of = mixed(50, 6, 1), mixed(130, 6, 2)
    of[77] = points[20]
    found = nearest(points, of, k=4)
    expected = (points[:, None] - of).norm(dim=2).sort(dim=1)
    assert found.index.tolist() == expected.indices[:, :4].tolist()
    torch.testing.assert_close(found.distance, expected.values[:, :4])
    assert found.index[20, 0] == 77
    assert found.distance[20, 0] == 0
    torch.testing.assert_close(found.closeness, expected.values[:, 0] / expected.values[:, :4].mean(dim=1))
    assert nearest(points, of, k=500).index.shape == (50, 130)
    monkeypatch.setattr("genlab.metrics.AT_ONCE_VALUES", 1)  # not even one point's: one after the other
    assert torch.equal(nearest(points, of, k=4).index, found.index)
    assert nearest(points, points[[3] * 9], k=9).closeness[3] == 0


def test_pictures_of_8_bits_have_nearest_pictures_too():
    pixels = torch.randint(256, (40, 784), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    almost = pixels.clone()
    almost[:, 5] = (almost[:, 5].int() + 1).clamp(max=255).to(torch.uint8)
    found = nearest(almost, pixels)
    assert found.index[:, 0].tolist() == list(range(40))
    torch.testing.assert_close(found.distance[:, 0], (almost.double() - pixels.double()).abs().sum(dim=1))


def setting(classes: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and held-out points of two classes, one ten times as wide as the other, and the classes of each."""
    train, held_out = normal(600, 3, 1), normal(200 * classes, 3, 2)
    group, held_out_group = torch.arange(600) % classes, torch.arange(200 * classes) % classes
    for points, c in ((train, group), (held_out, held_out_group)):
        points[c == 1] = 10 * points[c == 1] + 500
    return train, group, held_out, held_out_group


def test_held_out_pictures_score_the_base_rate_and_copies_one():
    train, group, held_out, held_out_group = setting()
    usual = (nearest(held_out, train, 50).closeness, held_out_group)
    assert memorised_share(*usual, *usual) == 0.05
    assert memorised_share(*usual, *usual, base_rate=0.2) == 0.2
    assert memorised_share(nearest(train, train, 50).closeness, group, *usual) == 1.0
    half = torch.cat([train[:100], train[:100] + 1000])
    half_group = torch.cat([group[:100], group[:100]])
    assert memorised_share(nearest(half, train, 50).closeness, half_group, *usual) == 0.5


def test_fresh_pictures_score_the_base_rate_class_by_class():
    """Near the mean of a class pictures lie denser than far from it; a class apart has thresholds of its own."""
    train, _, held_out, held_out_group = setting()
    fresh, group = normal(4000, 3, 9), torch.arange(4000) % 2
    fresh[group == 1] = 10 * fresh[group == 1] + 500
    usual = (nearest(held_out, train, 50).closeness, held_out_group)
    for c in (0, 1):
        share = memorised_share(nearest(fresh[group == c], train, 50).closeness, group[group == c], *usual)
        assert 0.01 < share < 0.1


def test_a_class_with_too_few_held_out_pictures_is_compared_with_all():
    closeness, group = torch.tensor([0.1, 0.5, 0.5]), torch.tensor([0, 0, 1])
    usual = torch.cat([torch.linspace(0.2, 1, 40), torch.full((19,), 0.9)])
    of = torch.tensor([0] * 40 + [1] * 19)
    assert memorised_share(closeness, group, usual, of) == pytest.approx(1 / 3)
    assert memorised_share(closeness - 0.45, group, usual, of) == 1, "0.05 is closer than the closest twentieth of all"
    enough = torch.cat([usual, torch.full((1,), 0.4)]), torch.cat([of, of[-1:]])
    assert memorised_share(closeness, group, *enough) == pytest.approx(2 / 3), "0.5 is closer than the second of its own twenty"
    with pytest.raises(ValueError, match="expected 20 or more held-out pictures, got 19"):
        memorised_share(closeness, group, usual[:19], of[:19])


def test_the_distance_of_infinitely_many_pictures_has_no_bias_of_their_number():
    """Gaussians with a known distance, from 60 pictures for each of 8 features: the mean over trials, against its error."""
    generator = torch.Generator().manual_seed(0)
    shift = 0.7
    exact, plain, found = 8 * shift**2 + 8 * (2 - 1) ** 2, [], []
    for _ in range(40):
        a, b = (torch.randn(480, 8, generator=generator, dtype=torch.float64) for _ in range(2))
        b = shift + 2 * b
        plain.append(frechet_distance(a, b))
        found.append(frechet_extrapolated(a, b, generator))
    error = torch.tensor(found).std() / 40**0.5
    assert abs(torch.tensor(found).mean() - exact) < 3 * error
    same = [frechet_extrapolated(*torch.randn(2, 480, 8, generator=generator), generator) for _ in range(40)]
    raw = [frechet_distance(*torch.randn(2, 480, 8, generator=generator)) for _ in range(40)]
    assert abs(torch.tensor(same).mean()) < 0.2 * torch.tensor(raw).mean()
    assert frechet_extrapolated(a[:31], b, generator) is None
    with pytest.raises(ValueError, match="finite"):
        frechet_extrapolated(a / 0, b, generator)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_the_nearest_are_found_in_parts_as_in_the_whole(kind: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    points, of = (torch.randint(256, (count, 12), generator=generator).to(kind) for count in (30, 101))
    whole = nearest(points, of, 7)
    monkeypatch.setattr("genlab.metrics.MOST_VALUES", 12 * 10)
    parts = nearest(points, of, 7)
    assert torch.allclose(parts.distance, whole.distance)
    found = (points[:, None].double() - of[parts.index].double()).norm(dim=2)
    torch.testing.assert_close(found, whole.distance)
