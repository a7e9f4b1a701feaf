"""Measure how time grows with pixels, pictures and steps: `python benchmarks/growth.py --help`.

Fits seconds = c · n^p to each row, by least squares in the logarithms: p = 1 is proportional cost, p > 1 a regression.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

if TYPE_CHECKING:
    from genlab.config import DDPMConfig
    from genlab.ddpm import DDPM


@dataclass(frozen=True)
class Options:
    """Measure seconds of sampling by size, number of pictures and number of steps, and the exponents of their growth."""

    model: str = "ddpm-fashion-mnist"
    """Model whose network is measured (see benchmarks/network.py); the weights are random."""
    sizes: tuple[int, ...] = (28, 32, 64)
    """Sides of the pictures."""
    counts: tuple[int, ...] = (1, 4, 16, 64)
    """Batch sizes."""
    steps: tuple[int, ...] = (5, 10, 20)
    """Steps of the default sampler."""
    size: int = 28
    """Side of the pictures while something else grows."""
    count: int = 16
    """Batch size while something else grows."""
    rounds: int = 10
    """Repetitions, of which the median is reported."""
    threads: int | None = None
    """CPU threads; by default torch's choice."""
    quick: bool = False
    """A trial run in seconds: sizes 28 and 32, 1 and 4 pictures, 2 and 4 steps, 2 rounds."""


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return p of seconds = c · size^p, by least squares in the logarithms; NaN for a single size."""
    import math

    if len(sizes) < 2:
        return math.nan
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(s) for s in seconds]).slope


def network_of(config: DDPMConfig, side: int, channels: int, classes: tuple[str, ...]) -> DDPM:
    """Return a model with random weights for pictures of this side, in the memory format of a served model."""
    import torch

    from genlab.config import DataSpec
    from genlab.ddpm import DDPM

    model = DDPM(config, DataSpec("growth", channels, side, classes)).eval()
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def measure(
    config: DDPMConfig, channels: int, classes: tuple[str, ...], options: Options
) -> dict[str, tuple[tuple[int, ...], list[float]]]:
    """Measure a forward pass by pixels and by batch size, and a walk by steps; return sizes and median seconds of each."""
    import torch

    from benchmarks.timing import alternate
    from genlab.config import Sampling
    from genlab.draw import draw

    models = {side: network_of(config, side, channels, classes) for side in {*options.sizes, options.size}}

    def forward(side: int, count: int) -> Callable[[], object]:
        model, x = models[side], torch.randn(count, channels, side, side)
        t, label = torch.full((count,), max(config.T // 2, 1)), torch.arange(count) % max(len(classes), 1)
        return lambda: model.predict(x, t, label if classes else None)

    def sample(steps: int) -> Callable[[], object]:
        return lambda: list(draw(models[options.size], options.count, 0, Sampling(steps=steps), options.count))

    runs = {("pixels", side): forward(side, options.count) for side in options.sizes}
    runs |= {("pictures", count): forward(options.size, count) for count in options.counts}
    runs |= {("steps", steps): sample(steps) for steps in options.steps}
    seconds = alternate({f"{what} {size}": each for (what, size), each in runs.items()}, options.rounds)
    found: dict[str, tuple[tuple[int, ...], list[float]]] = {}
    for what, sizes in (("pixels", options.sizes), ("pictures", options.counts), ("steps", options.steps)):
        found[what] = (sizes, [statistics.median(seconds[f"{what} {size}"]) for size in sizes])
    return found


def run(options: Options) -> None:
    """Measure and print."""
    import torch

    from benchmarks.network import shipped_model
    from benchmarks.timing import machine, table

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.quick:
        options = dataclasses.replace(options, sizes=(28, 32), counts=(1, 4), steps=(2, 4), count=4, rounds=2)
    model = shipped_model(options.model)
    torch.manual_seed(0)
    found = measure(model.config, model.data.channels, model.data.classes, options)
    titles = {
        "pixels": f"a forward pass of {options.count} by side",
        "pictures": f"a forward pass at {options.size}×{options.size} by number of pictures",
        "steps": f"{options.count} pictures at {options.size}×{options.size} by steps",
    }
    rows = []
    for what, (sizes, seconds) in found.items():
        amounts = [size**2 for size in sizes] if what == "pixels" else sizes
        for size, amount, each in zip(sizes, amounts, seconds, strict=True):
            power = f"{exponent(amounts, seconds):.2f}" if size == sizes[-1] else ""
            rows.append([titles[what], size, f"{amount / amounts[0]:.1f}", f"{each / seconds[0]:.1f}", f"{each:.4f}", power])
    print(f"The network of {options.model}, medians of {options.rounds} rounds in alternation. {machine()}.\n")
    print(table(["what grows", "size", "× the work", "× the time", "s", "exponent"], rows))


def main() -> None:
    """Run the command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
