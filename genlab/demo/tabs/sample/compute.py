"""Draws pictures step by step."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from genlab import draw
from genlab.config import Sampling
from genlab.demo.served import Models
from genlab.demo.tabs.sample.request import SampleRequest
from genlab.demo.turns import Runner
from genlab.latent import LatentDDPM
from genlab.models import Decoding


def sample(models: Models, runner: Runner, request: SampleRequest) -> Iterator[draw.SampleFrame]:
    """Draw pictures and yield every step; the last frame has the finished ones. A VAE needs one step.

    Raises:
        DeadlineError: it took too long. TurnError: a turn did not come in time.
    """
    run, served = runner.begin(), models[request.model]
    model, seeds = served.model, range(request.seed, request.seed + request.count)
    if isinstance(model, Decoding):
        yield run.once(lambda: next(draw.frames(model, seeds, Sampling())))
        return
    labels = draw.class_labels(model, draw.class_of(model, request.label), seeds)
    predict = run.predictor(served, labels, request.guidance)

    def decode(u: Tensor) -> Tensor:
        assert isinstance(model, LatentDDPM)
        return run.once(lambda: model.decode(u))

    yield from draw.frames(model, seeds, Sampling(request.sampler, request.steps), predict, decode)
