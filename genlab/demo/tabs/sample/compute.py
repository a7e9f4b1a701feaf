"""Draws pictures step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from genlab import draw
from genlab.config import Sampling
from genlab.demo.served import Models, Served
from genlab.demo.tabs.sample.request import SampleRequest
from genlab.demo.turns import Run, Runner
from genlab.latent import LatentDDPM
from genlab.models import Decoding


def sample(models: Models, runner: Runner, request: SampleRequest) -> Iterator[draw.SampleFrame]:
    """Draw pictures and yield every step; the last frame has the finished ones. A VAE needs one step.

    Raises:
        DeadlineError: it took too long. TurnError: a turn did not come in time.
    """
    served, seeds = models[request.model], range(request.seed, request.seed + request.count)
    label: int | Literal["in turn"] = "in turn" if request.label is None else request.label
    sampling = Sampling(request.sampler, request.steps, label=label, guidance=request.guidance)
    yield from frames(runner.begin(), served, seeds, sampling)


def frames(run: Run, served: Served, seeds: Sequence[int], sampling: Sampling) -> Iterator[draw.SampleFrame]:
    """Draw a picture of a served model for each seed, as `draw.frames` does; VAEs do not use `sampling`."""
    model = served.model
    if isinstance(model, Decoding):
        yield run.once(lambda: next(draw.frames(model, seeds, Sampling())))
        return
    predict = run.predictor(served, draw.class_labels(model, sampling.label, seeds), sampling.guidance)

    def decode(u: Tensor) -> Tensor:
        assert isinstance(model, LatentDDPM)
        return run.once(lambda: model.decode(u))

    yield from draw.frames(model, seeds, sampling, predict, decode)
