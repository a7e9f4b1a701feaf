"""Computes the exact score of points in the plane, and trains a network that predicts it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from genlab.demo.live import learn
from genlab.demo.tabs.points import SCHEDULE, T
from genlab.flow import detour, straight, straight_schedule
from genlab.oracle import Mixture
from genlab.plane import CloudNoise, DataName, PointDDPM, Progress, empirical, lattice, mixture, points
from genlab.process import Predict, q_marginal
from genlab.sampler import ddim, spaced, timesteps, walk
from genlab.score import score_from_eps

REACH = 2.2
"""The fields are computed, and shown, on [−2.2, 2.2]²."""
DATA_SEED, NET_SEED = 0, 0
MARKS = 120
"""Points of a data set that is no mixture of few Gaussians: each is the middle of one, so that the score is known exactly."""
WIDTH = 0.04
"""σ of these Gaussians."""
LEARN_STEPS = 1000
LEARNED_FROM = 20_000
"""Points that the network learns from."""
PATHS, PATH_STEPS = 12, 60
"""Points that walk along the flow of exact data, and their steps."""
DRAWS = 400
"""Draws of x_t that ‖ŝ − s‖² is averaged over."""


@lru_cache
def exact(data: DataName) -> Mixture:
    """Return the data as a mixture, whose score is known."""
    if data in ("gaussians", "blobs"):
        return mixture(data, SCHEDULE)
    return empirical(points(data, MARKS, DATA_SEED), SCHEDULE, WIDTH)


@lru_cache
def draws_of(data: DataName, count: int) -> Tensor:
    """Return `count` draws of x_0, (N, 2)."""
    return exact(data).sample(count, torch.Generator().manual_seed(DATA_SEED)).float()


def fresh_net() -> PointDDPM:
    """Return the network before it has learned anything."""
    return PointDDPM(SCHEDULE, seed=NET_SEED).eval()


class Nets:
    """The networks that have learned, one for each data set, for everybody: the steps they took, and the network."""

    def __init__(self) -> None:
        self._learned: dict[str, tuple[int, PointDDPM]] = {}
        self._fresh = fresh_net()

    def get(self, data: DataName) -> tuple[int, PointDDPM]:
        """Return its steps, 0 before it has learned, and the network."""
        return self._learned.get(data, (0, self._fresh))

    def learn(self, data: DataName) -> Iterator[int | Progress]:
        """Learn this data set, as `live.learn`; do nothing if it has been learned to the end already.

        Everybody sees what has been learned so far. It stays when a visitor leaves or a busy machine cuts the training short,
        until a training gets further.
        """
        if self.get(data)[0] == LEARN_STEPS:
            return
        for record in learn(fresh_net(), draws_of(data, LEARNED_FROM), LEARN_STEPS, NET_SEED):
            if self.get(data)[0] == LEARN_STEPS:
                return
            if isinstance(record, Progress) and isinstance(record.model, PointDDPM) and record.step > self.get(data)[0]:
                self._learned[data] = (record.step, deepcopy(record.model))
            yield record


@torch.inference_mode()
def score_at(predict: Predict, x_t: Tensor, t: int) -> Tensor:
    """Return the score of the predicted noise in x_t (N, 2)."""
    now = torch.full((len(x_t),), t)
    return score_from_eps(SCHEDULE, predict(x_t, now).eps_hat, now)


@torch.inference_mode()
def errors(oracle: Mixture, net: PointDDPM, data: DataName, t: int) -> tuple[float, float]:
    """Return the means of ‖ŝ − s‖² and of ‖s‖² over q(x_t)."""
    x0 = draws_of(data, DRAWS)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(DATA_SEED))
    x_t = q_marginal(SCHEDULE, x0, torch.full((len(x0),), t)).sample(eps)
    s, s_hat = score_at(oracle.predict, x_t, t), score_at(net.predict, x_t, t)
    return float((s_hat - s).square().sum(dim=1).mean()), float(s.square().sum(dim=1).mean())


def log_density(oracle: Mixture, t: int, side: int, unit: float = 1.0) -> Tensor:
    """Return log q(x_t) at `unit` times the lattice, nats (side, side)."""
    return oracle.log_prob(unit * lattice(side, REACH).flatten(0, 1), torch.full((side**2,), t)).reshape(side, side)


@dataclass(frozen=True)
class FlowPaths:
    """Walks along the flow of exact data from noise to points, and what they walk through.

    Attributes:
        oracle: the data in the walk's own chain; times: of that chain, from T to 0 (K + 1).
        units: x_t divided by its unit is what `path` has, (K + 1).
        path: (K + 1, N, 2).
    """

    oracle: Mixture
    times: list[int]
    units: list[float]
    path: Tensor

    @property
    def detour(self) -> float:
        """Return the length of the paths divided by the distance of their ends."""
        return float(detour(self.path))


@torch.inference_mode()
def flow_paths(data: DataName, seed: int) -> tuple[FlowPaths, FlowPaths]:
    """Return the paths of the flow ODE of the diffusion, and of flow matching (`flow`, eq. 2), from the same noise."""
    start, oracle = CloudNoise.from_seed(seed, PATHS).draw(), exact(data)
    curved, even = spaced(SCHEDULE, PATH_STEPS, "quadratic"), timesteps(T, PATH_STEPS)
    chain = straight_schedule(T)
    now = torch.tensor(even)
    units = (1 / straight(chain, torch.ones(len(even), 1, dtype=torch.float64), now)[:, 0]).tolist()
    here, there = (
        torch.stack([start, *(frame.x_s for frame in walk(of.predict, ddim(of.schedule), start, times))])
        for of, times in ((oracle, curved), (replace(oracle, schedule=chain), even))
    )
    there = there / torch.tensor(units, dtype=there.dtype)[:, None, None]
    return (
        FlowPaths(oracle, curved, [1.0] * len(curved), here),
        FlowPaths(replace(oracle, schedule=chain), even, units, there),
    )
