"""Trains a model on points in the plane, and draws from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from genlab.demo.live import learn
from genlab.demo.tabs.playground.request import DRAWING, Marks, PlaygroundRequest
from genlab.demo.tabs.points import SCHEDULE, T
from genlab.flow import straight_schedule
from genlab.plane import PointDDPM, PointVAE, Progress, Walk, around, denoising, points
from genlab.sampler import Frame

DATA_SEED = 0
LEARNED_FROM = 4000
"""Points that a model learns from."""
WALK_STEPS, LIVE_STEPS = 50, 20
"""Of the way back, played and while the model learns; five times as many small ones for Langevin dynamics."""
PICTURES_STORED = 40
"""Pictures of the learning that can be played again."""


@dataclass
class Run:
    """One training: the model so far, its losses and samples along the way.

    Attributes:
        model: the average of the weights along the way, which goes on changing; None before the first step.
        step, seconds: where the learning stands.
        losses: (step, loss).
        pictures: samples along the way, and the number of losses there were then.
    """

    request: PlaygroundRequest
    model: PointDDPM | PointVAE | None = None
    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    pictures: list[tuple[int, Tensor]] = field(default_factory=list)

    def note(self, record: Progress) -> None:
        """Record where the learning stands."""
        self.model, self.step, self.seconds = record.model, record.step, record.seconds
        self.losses.append((record.step, record.loss))

    def add(self, picture: Tensor) -> None:
        """Store samples; when there are many, drop every other one."""
        if len(self.pictures) >= 2 * PICTURES_STORED:
            del self.pictures[1::2]
        self.pictures.append((len(self.losses), picture))


@lru_cache(64)
def data_of(data: str, marks: Marks, count: int) -> Tensor:
    """Return points of a data set, or around the marks of a drawing, (N, 2)."""
    return around(marks, count, DATA_SEED) if data == DRAWING else points(data, count, DATA_SEED)  # type: ignore[arg-type]


def new_model(request: PlaygroundRequest) -> PointDDPM | PointVAE:
    """Return the model before it has learned anything."""
    if request.model == "VAE":
        return PointVAE(seed=request.seed)
    if request.model == "flow matching":
        return PointDDPM(straight_schedule(T), "velocity", seed=request.seed)
    return PointDDPM(SCHEDULE, seed=request.seed)


def play(request: PlaygroundRequest, run: Run) -> Iterator[int | Run]:
    """Learn: yield how many others are waited for, while there are any, then `run` every few steps."""
    for record in learn(new_model(request), data_of(request.data, request.marks, LEARNED_FROM), request.steps, request.seed):
        if isinstance(record, int):
            yield record
        else:
            run.note(record)
            yield run


def way_back(request: PlaygroundRequest, model: PointDDPM, count: int, seed: int, steps: int) -> Iterator[Frame]:
    """Walk from noise to samples in the way of the request."""
    ways: dict[str, Walk] = {"DDPM": "ancestral", "flow matching": "flow", "score model": request.walk}
    way = ways[request.model]
    return denoising(model.predict, model.schedule, count, seed, way, 5 * steps if way == "Langevin" else steps)


@torch.inference_mode()
def samples(request: PlaygroundRequest, model: PointDDPM | PointVAE, count: int, steps: int = WALK_STEPS) -> Tensor:
    """Return samples (N, 2); the same seed always starts from the same noise."""
    if isinstance(model, PointVAE):
        return model.sample(count, request.seed)[2]
    *_, last = way_back(request, model, count, request.seed, steps)
    return last.x_s
