"""Draws pictures under a condition, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from genlab import draw
from genlab.condition import guided, repair, repeated
from genlab.config import DataSpec, Sampling
from genlab.data import to_model, to_pixels
from genlab.demo.limits import LimitError
from genlab.demo.served import Models
from genlab.demo.tabs.condition.request import COUNT, GuideRequest, RepairRequest
from genlab.demo.turns import Runner
from genlab.features import Classifier, classifier_like
from genlab.process import Denoised, q_marginal
from genlab.sampler import Noise, timesteps, walk
from genlab.serving.language import both

STRETCH = 5
"""Steps that a repair walks again and again."""
ANCESTRAL = Sampling("ancestral")
TEXT = {
    "no classifier": both(
        "no classifier of such pictures is here: training/train_classifier.py --dataset … --size {size} --channels {channels} "
        "trains one",
        "这里没有这类图片的分类器：training/train_classifier.py --dataset … --size {size} --channels {channels} 可以训练一个",
    )
}


@dataclass(frozen=True)
class RepairFrame:
    """A step of the walk; index 0 is its start.

    Attributes:
        x_t, x0_hat: (N C H W) uint8, the state after the step and the prediction that led to it; both finished at the end.
    """

    index: int
    count: int
    t: int
    x_t: Tensor
    x0_hat: Tensor


@dataclass(frozen=True)
class GuideFrame:
    """A step of three walks from the same noise: by the classifier's gradient, classifier-free, and without a class.

    Attributes:
        pictures: (3 N C H W) uint8.
        probabilities: (3 N) that the classifier gives to the class; at the end alone, None before.
    """

    index: int
    count: int
    t: int
    pictures: Tensor
    probabilities: Tensor | None


def run_repair(models: Models, runner: Runner, request: RepairRequest) -> Iterator[RepairFrame]:
    """Draw pictures that agree with the known part of one, or that start from it.

    Raises:
        DeadlineError: it took too long. TurnError: a turn did not come in time.
    """
    run, served, model = runner.begin(), models[request.model], models.ddpm(request.model)
    schedule, seeds = model.schedule, range(request.seed, request.seed + COUNT)
    noise = Noise.from_seeds(seeds, served.data.shape)
    x0 = to_model(models.picture(served.data.name, request.picture)).expand(COUNT, *served.data.shape)
    x_t = noise.draw()
    if request.until < schedule.T:
        x_t = q_marginal(schedule, x0, torch.full((COUNT,), request.until)).sample(x_t)
    known = torch.zeros(1, 1, dtype=torch.bool) if request.cover is None else ~torch.from_numpy(request.cover)
    times = repeated(timesteps(request.until, request.steps), STRETCH, request.rounds)
    labels = draw.class_labels(model, "none" if request.label is None else request.label, seeds)
    predict, step = run.predictor(served, labels), draw.make_step(model, ANCESTRAL, noise)
    count = request.steps * request.rounds
    given = x0 if request.cover is None else torch.where(known, x0, 0.0)
    yield RepairFrame(0, count, request.until, to_pixels(x_t), to_pixels(given))
    for frame in repair(predict, step, schedule, noise, x_t, times, x0, known):
        last = frame.index == count
        yield RepairFrame(frame.index, count, frame.s, to_pixels(frame.x_s), to_pixels(frame.x_s if last else frame.x0_hat))


def run_guide(models: Models, runner: Runner, request: GuideRequest) -> Iterator[GuideFrame]:
    """Draw pictures of a class in two ways, and without one, from the same noise.

    Raises:
        LimitError: there is no classifier of such pictures.
        DeadlineError: it took too long. TurnError: a turn did not come in time.
    """
    run, served, model = runner.begin(), models[request.model], models.ddpm(request.model)
    classifier, seeds = classifier_of(served.data), range(request.seed, request.seed + COUNT)

    def log_prob(x_t: Tensor, t: Tensor, denoised: Denoised) -> Tensor:
        return classifier.log_probs(denoised.x0_hat)[:, request.label]

    led = guided(lambda x, t: model.predict(x, t, clip=False), log_prob, model.schedule, request.weight)
    labels = torch.full((COUNT,), request.label)
    ways = (
        lambda x, t: run.once(lambda: led(x, t)),
        run.predictor(served, labels, request.weight),
        run.predictor(served, None),
    )
    times = timesteps(model.schedule.T, request.steps)
    noises = [Noise.from_seeds(seeds, served.data.shape) for _ in ways]
    starts = [noise.draw() for noise in noises]
    yield GuideFrame(0, request.steps, times[0], torch.stack([to_pixels(x) for x in starts]), None)
    walks = (
        walk(way, draw.make_step(model, ANCESTRAL, noise), x, times) for way, noise, x in zip(ways, noises, starts, strict=True)
    )

    def judged(pictures: Tensor) -> Tensor:
        found = run.once(lambda: classifier.log_probs(to_model(pictures.flatten(0, 1))))
        return found[:, request.label].exp().reshape(len(ways), COUNT)

    for frames in zip(*walks, strict=True):
        pictures = torch.stack([to_pixels(frame.x_s) for frame in frames])
        probabilities = judged(pictures) if frames[0].s == 0 else None
        yield GuideFrame(frames[0].index, request.steps, frames[0].s, pictures, probabilities)


@cache
def classifier_of(data: DataSpec) -> Classifier:
    """Return the classifier of such pictures.

    Raises:
        LimitError: there is none.
    """
    found = classifier_like(data)
    if found is None:
        raise LimitError(TEXT["no classifier"].format(size=data.size, channels=data.channels))
    return found
