"""Compare samples with real pictures: measures of two sets of features, a (N, D) and b (M, D).

Fréchet distance (Dowson & Landau 1982; Heusel et al. 2017): both sets are approximated by Gaussians of their mean m and
covariance C,

    d² = ‖m_a − m_b‖² + tr C_a + tr C_b − 2 tr(C_a^½ C_b C_a^½)^½                                     (1)

With any roots C = L Lᵀ the last trace is the sum of the singular values of L_aᵀ L_b: those are the roots of the eigenvalues of
L_aᵀ C_b L_a, which has the eigenvalues of C_a C_b. This needs no complex numbers and no root of an asymmetric matrix. As usual
in this field, d² itself is called the Fréchet distance. It has a bias of order 1/N + 1/M: two sets drawn from one distribution
do not have distance 0. Hence it is meaningful only beside N and the distance of real pictures at that N.

From distances of n and n·M/N pictures, d²(n) = d² + c/n + …, that of infinitely many follows (Chong & Forsyth 2020).

Kernel distance (Bińkowski et al. 2018): the squared maximum mean discrepancy, without bias for every N and M,

    k(x, y) = (x·y/D + 1)³                                                                            (2)
    MMD²    = mean of k over pairs i ≠ j of a  +  the same of b  −  2 · mean of k over all pairs of a and b   (3)

Precision and recall (Kynkäänniemi et al. 2019): the manifold of a set is the union of the balls around its points that reach to
their k-th nearest neighbour in the set. Precision is the share of samples in the manifold of the real pictures, recall the
share of real pictures in that of the samples.

Memorisation: a smooth picture is near many training pictures, a copy near one. So let

    c(x) = d_1(x) / mean of d_1(x) … d_50(x)                                                          (4)

with d_i(x) the distance in pixels from x to the i-th nearest training picture (after Carlini et al. 2023), and let τ_k be the
α-quantile of c over the held-out pictures of class k. The memorised share is

    share of samples x with c(x) < τ_k(x),  α = 5 %                                                   (5)

so that unseen pictures score α, whatever their class, and copies of training pictures score 1.

Everything is computed in float64 except the search among pixels in `nearest`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 3
"""k of precision and recall."""
BASE_RATE = 0.05
"""α of eq. 5."""
CROWD = 50
"""Number of training pictures in the mean of eq. 4."""
BLOCKS = 10
"""Number of disjoint parts for the standard error of the kernel distance."""
FEWEST = 4
"""Smallest number of pictures for each feature from which a distance is extrapolated."""
PARTS, DRAWS = 6, 4
"""Numbers of pictures from which it is extrapolated, and draws of each."""
RESAMPLES = 500
"""Number of bootstrap draws."""
AT_ONCE = 1_000
"""Rows of a table of distances computed at once."""
MOST_VALUES = 2**27
"""Values of the rows that are searched at once: half a gigabyte, however many pictures there are on disk."""
AT_ONCE_VALUES = 2**24
"""Values of nearest points held in memory at once."""


@dataclass(frozen=True)
class Moments:
    """A Gaussian with any covariance: mean (D) and covariance (D, D), float64."""

    mean: Tensor
    covariance: Tensor


def moments(features: Tensor) -> Moments:
    """Return mean and unbiased covariance of features (N, D).

    Raises:
        ValueError: N ≤ D, where the covariance does not have full rank; or a feature is not finite.
    """
    _check_features(features)
    count, dims = features.shape
    if count <= dims:
        raise ValueError(f"too few pictures for the covariance of {dims} features: expected more than {dims}, got {count}")
    x = features.double()
    mean = x.mean(dim=0)
    return Moments(mean, (x - mean).T @ (x - mean) / (count - 1))


def gaussian_frechet_distance(a: Moments, b: Moments) -> float:
    """Return d² of two Gaussians, eq. 1; covariances of any rank."""
    overlap = torch.linalg.svdvals(_root(a.covariance).T @ _root(b.covariance)).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(0.0, float(distance))


def _root(covariance: Tensor) -> Tensor:
    """Return L with L Lᵀ = C; eigenvalues that are negative by rounding count as 0."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return d² between the Gaussians fitted to features a (N, D) and b (M, D), eq. 1.

    Raises:
        ValueError: see `moments`.
    """
    return gaussian_frechet_distance(moments(a), moments(b))


def frechet_extrapolated(a: Tensor, b: Tensor, generator: torch.Generator) -> float | None:
    """Return the Fréchet distance of infinitely many pictures, from features a (N, D) and b (M, D); None if they are too few.

    The distances of random parts of both sets, from a half to all of them, are fitted by a line in 1/n, whose value at 0 is
    returned. It has no bias of order 1/n and may be below 0. It needs N and M of `FEWEST`·D, as the terms beyond 1/n are
    large for fewer.

    Raises:
        ValueError: a feature is not finite.
    """
    for features in (a, b):
        _check_features(features)
    if min(len(a), len(b)) < FEWEST * a.shape[1]:
        return None
    shares = torch.linspace(1, 2, PARTS, dtype=torch.float64).reciprocal()
    found = []
    for share in shares.tolist():
        draws = 1 if share == 1 else DRAWS
        parts = [
            [x[torch.randperm(len(x), generator=generator)[: round(share * len(x))]] for x in (a, b)] for _ in range(draws)
        ]
        found.append(sum(frechet_distance(*part) for part in parts) / draws)
    inverse, distance = 1 / shares, torch.tensor(found, dtype=torch.float64)
    centred = inverse - inverse.mean()
    slope = (centred * distance).sum() / (centred**2).sum()
    return float(distance.mean() - slope * inverse.mean())


def _part(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return a random share of the rows of x."""
    return x[torch.randperm(len(x), generator=generator)[: round(share * len(x))]]


def frechet_interval(
    a: Tensor, b: Tensor, generator: torch.Generator, resamples: int = RESAMPLES, coverage: float = 0.95
) -> tuple[float, float]:
    """Return the bootstrap interval of the Fréchet distance for these N and M (Efron 1979), with both sets resampled.

    Resampling repeats pictures and adds the bias of (1) once more to every resampled distance. The percentiles are therefore
    taken relative to the mean of the resampled distances, added to the measured distance, and clipped at 0.

    Raises:
        ValueError: see `moments`.
    """
    measured = frechet_distance(a, b)
    draws = zip(_resampled(a, generator), _resampled(b, generator), strict=False)
    found = torch.tensor([gaussian_frechet_distance(*next(draws)) for _ in range(resamples)], dtype=torch.float64)
    tail = (1 - coverage) / 2
    low, high = (found - found.mean()).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return max(0.0, measured + low), measured + high


def _resampled(features: Tensor, generator: torch.Generator) -> Iterator[Moments]:
    """Yield moments of features (N, D) resampled N times with replacement, without end."""
    count = len(features)
    centre = features.double().mean(dim=0)
    x = features.double() - centre
    while True:
        times = torch.bincount(torch.randint(count, (count,), generator=generator), minlength=count).double()
        mean = times @ x / count
        covariance = ((x * times[:, None]).T @ x - count * torch.outer(mean, mean)) / (count - 1)
        yield Moments(centre + mean, covariance)


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error."""

    value: float
    error: float


def kernel_distance(a: Tensor, b: Tensor, generator: torch.Generator, blocks: int = BLOCKS) -> Estimate:
    """Return MMD² of features a (N, D) and b (M, D), eqs. 2 and 3: the unbiased mean over `blocks` disjoint parts of both.

    The parts are random, since pictures sorted by class would give parts unlike the whole. The kernel depends on the origin, so
    centre both sets on the same point of the data first.

    Raises:
        ValueError: fewer than two features a part, fewer than two parts, or a feature that is not finite.
    """
    for features in (a, b):
        _check_features(features)
    if blocks < 2 or min(len(a), len(b)) < 2 * blocks:
        raise ValueError(f"expected 2 or more blocks of 2 or more pictures, got {blocks} of {len(a)} and {len(b)} pictures")
    parts = zip(*(x.double()[torch.randperm(len(x), generator=generator)].tensor_split(blocks) for x in (a, b)), strict=True)
    found = torch.tensor([_mmd(*part) for part in parts], dtype=torch.float64)
    return Estimate(float(found.mean()), float(found.std() / blocks**0.5))


def _mmd(a: Tensor, b: Tensor) -> float:
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def among(x: Tensor) -> Tensor:
        table = kernel(x, x)
        return (table.sum() - table.trace()) / (len(x) * (len(x) - 1))

    return float(among(a) + among(b) - 2 * kernel(a, b).mean())


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares from 0 to 1."""

    precision: float
    recall: float


def precision_recall(samples: Tensor, real: Tensor, k: int = NEIGHBOURS) -> PrecisionRecall:
    """Return precision and recall of features (N, D) of samples and (M, D) of real pictures.

    Both grow with the number of samples and of real pictures: use N = M, and compare at equal N.

    Raises:
        ValueError: a set has k pictures or fewer, or a feature is not finite.
    """
    for name, features in (("samples", samples), ("real pictures", real)):
        _check_features(features)
        if len(features) <= k:
            raise ValueError(f"expected more than {k} {name} for their {k} nearest neighbours, got {len(features)}")
    return PrecisionRecall(_share_inside(samples, real, k), _share_inside(real, samples, k))


def _share_inside(points: Tensor, of: Tensor, k: int) -> float:
    """Return the share of points within the manifold of another set."""
    centre = of.double().mean(dim=0)
    of, points = of.double() - centre, points.double() - centre
    # A point is its own nearest neighbour, so the k-th other one has rank k + 1.
    radius = torch.cat([_squares(rows, of).kthvalue(k + 1, dim=1).values for rows in of.split(AT_ONCE)])
    inside = [(_squares(rows, of) <= radius).any(dim=1) for rows in points.split(AT_ONCE)]
    return float(torch.cat(inside).double().mean())


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Return squared Euclidean distances (N, M), float64, exactly 0 between rows that are equal up to rounding."""
    sizes = (a**2).sum(dim=1)[:, None] + (b**2).sum(dim=1)
    squares = sizes - 2 * a @ b.T
    return squares.masked_fill_(squares <= 1e-12 * sizes, 0)


@dataclass(frozen=True)
class Nearest:
    """The k nearest rows of another set for each of N rows, nearest first: distance, float64, and index, both (N, k)."""

    distance: Tensor
    index: Tensor

    @property
    def closeness(self) -> Tensor:
        """Return c of eq. 4 with these k, (N)."""
        return self.distance[:, 0] / self.distance.mean(dim=1).clamp(min=1e-12)


def nearest(points: Tensor, of: Tensor, k: int = 1) -> Nearest:
    """Find the k nearest rows of `of` (M, D), all if M < k, for each row of `points` (N, D): features, or pixels as uint8.

    The search multiplies matrices, ‖x − y‖² = ‖x‖² − 2 x·y + ‖y‖², for pixels in float32, whose seven digits suffice
    for them. The distances of the nearest rows are then recomputed in float64.
    """
    if of.numel() > MOST_VALUES and len(of) > 1:
        parts = of.split(max(1, MOST_VALUES // of.shape[1]))
        near = [nearest(points, part, k) for part in parts]
        first = torch.tensor([0, *map(len, parts[:-1])]).cumsum(0).tolist()
        distance, order = torch.cat([each.distance for each in near], dim=1).sort(dim=1, stable=True)
        index = torch.cat([each.index + offset for each, offset in zip(near, first, strict=True)], dim=1).gather(1, order)
        return Nearest(distance[:, :k], index[:, :k])
    kind = torch.float32 if points.dtype == torch.uint8 else torch.float64
    k = min(k, len(of))
    centre = of.to(kind).mean(dim=0)
    of_centred = of.to(kind) - centre
    half_squares = (of_centred**2).sum(dim=1) / 2
    distances, indices = [], []
    for rows in points.split(max(1, min(AT_ONCE // 4, AT_ONCE_VALUES // (k * of.shape[1])))):
        index = (half_squares - (rows.to(kind) - centre) @ of_centred.T).topk(k, largest=False).indices
        distance, order = (rows[:, None].double() - of[index].double()).norm(dim=2).sort(dim=1)
        distances.append(distance)
        indices.append(index.gather(1, order))
    return Nearest(torch.cat(distances), torch.cat(indices))


def memorised_share(
    closeness: Tensor, group: Tensor, held_out_closeness: Tensor, held_out_group: Tensor, base_rate: float = BASE_RATE
) -> float:
    """Return the share of samples closer to a training picture than all but α of the held-out pictures of their class, eq. 5.

    Args:
        closeness, group: (N) c(x) and class of each sample.
        held_out_closeness, held_out_group: (M) the same for held-out pictures.
        base_rate: α, the score of the held-out pictures themselves (rounded down to a whole number of pictures a class).

    A class with fewer than 1/α held-out pictures is compared with held-out pictures of all classes.

    Raises:
        ValueError: there are fewer than 1/α held-out pictures.
    """
    fewest = round(1 / base_rate)
    if len(held_out_closeness) < fewest:
        raise ValueError(f"expected {fewest} or more held-out pictures, got {len(held_out_closeness)}")
    close = torch.zeros(len(closeness), dtype=torch.bool)
    for c in group.unique().tolist():
        same = held_out_group == c
        usual = (held_out_closeness[same] if int(same.sum()) >= fewest else held_out_closeness).sort().values
        below = int(base_rate * len(usual) + 1e-9)
        close |= (group == c) & (closeness < usual[below])
    return float(close.double().mean())


def _check_features(features: Tensor) -> None:
    if features.ndim != 2 or not bool(features.isfinite().all()):
        kind = "other numbers" if features.ndim == 2 else f"shape {tuple(features.shape)}"
        raise ValueError(f"expected features (N, D) that are finite, got {kind}")
