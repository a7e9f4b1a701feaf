"""Draws from the same noise in two ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from genlab import draw
from genlab.demo.served import Models
from genlab.demo.tabs.compare.request import COUNT, CompareRequest, Side
from genlab.demo.tabs.sample import compute
from genlab.demo.turns import Runner
from genlab.models import Decoding


@dataclass(frozen=True)
class CompareFrame:
    """Both sides at one moment of their way: what each has reached by then.

    Attributes:
        index, count: moment `index` of `count`, from 0; the moments are the times of both walks.
        time: t/T, from 1 (noise) to 0 (finished).
        a, b: (N C H W) uint8.
    """

    index: int
    count: int
    time: float
    a: Tensor
    b: Tensor

    @property
    def difference(self) -> Tensor:
        """Return |A − B|, (N C H W) uint8."""
        return (self.a.int() - self.b.int()).abs().to(self.a.dtype)

    @property
    def rms(self) -> Tensor:
        """Return the root mean square of A − B of each picture, in the 255 gray levels, (N) float64."""
        return (self.a.double() - self.b.double()).flatten(1).square().mean(dim=1).sqrt()


def compare(models: Models, runner: Runner, request: CompareRequest) -> Iterator[CompareFrame]:
    """Draw four pictures in either way, their noise from the same seeds, and yield every moment of both.

    Raises:
        DeadlineError: it took too long. TurnError: a turn did not come in time.
    """
    run, seeds = runner.begin(), range(request.seed, request.seed + COUNT)
    sides = (request.a, request.b)
    walks = [compute.frames(run, models[side.model], seeds, side.sampling) for side in sides]
    times = [moments(models, side) for side in sides]
    union = sorted({*times[0], *times[1]}, reverse=True)
    pictures: list[Tensor] = [next(walk).pictures for walk in walks]
    for index, time in enumerate(union):
        for i, walk in enumerate(walks):
            if index and time in times[i][1:]:
                pictures[i] = next(walk).pictures
        yield CompareFrame(index, len(union) - 1, time, pictures[0], pictures[1])


def moments(models: Models, side: Side) -> list[float]:
    """Return the times t/T of a side's walk, from 1 to 0; a VAE is there at once."""
    model = models[side.model].model
    if isinstance(model, Decoding):
        return [1.0]
    return [t / model.schedule.T for t in draw.sampling_times(model, side.sampling)]


def same_noise(models: Models, request: CompareRequest) -> tuple[bool, tuple[int, ...], tuple[int, ...]]:
    """Return whether both sides begin with the same noise, and the shape of the noise of a picture on each."""
    a, b = (draw.noise_shape(models[side.model].model) for side in (request.a, request.b))
    return a == b, a, b
