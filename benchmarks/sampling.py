"""Measure seconds from noise to a sheet of 8-bit pictures, ours and the peers': `python benchmarks/sampling.py --help`.

Each runs its whole pipeline with the number of steps that should be as good as its own whole chain: for ours by the goal of
`benchmarks/solvers.py`, for the peers by their documentation; a distilled model of ours in 1, 2 and 4. Quality is not measured
here. diffusers' pipelines run our network (`our_network`), so that they differ in the steps and the work between them, and once
a `UNet2DModel` of the same cost, as users would; lucidrains' runs its own `Unet` of that cost. These two have random weights.
"""

from __future__ import annotations

import copy
import io
import statistics
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from genlab.config import Sampling

if TYPE_CHECKING:
    from PIL import Image

    from genlab.ddpm import DDPM
    from genlab.models import Model

FEW = (1, 2, 4)
"""Evaluations of the student."""
SHORT = (4, 12)
"""Steps of the two measured chains from which the time of the whole chain is extrapolated."""


@dataclass(frozen=True)
class Options:
    """Measure seconds to 16 pictures by the whole pipeline, ours and those of diffusers and lucidrains."""

    model: str = "ddpm-fashion-mnist"
    """A run or model folder, the name of a model that ships, or user/name[@revision] on the Hub."""
    student: str = "consistency-fashion-mnist"
    """A model distilled from one like it, for 1, 2 and 4 evaluations."""
    count: int = 16
    """Pictures a sheet."""
    steps: int = 10
    """Our steps, with the default sampler; 10 or fewer are the goal of benchmark 1."""
    fewest: int = 6
    """Our steps with UniPC, the fewest within 5% of the whole chain in benchmark 1."""
    dpm: int = 20
    """Steps of diffusers' DPMSolverMultistepScheduler, which its documentation gives as 20 to 25."""
    ddim: int = 50
    """Steps of DDIMPipeline, its default, and of lucidrains' sampling with DDIM."""
    chain: int = 1000
    """Steps of DDPMPipeline, its default; 4 and 12 are run, and the time of all is extrapolated linearly."""
    rounds: int = 10
    """Sheets, of which the median is reported."""
    threads: int | None = None
    """CPU threads; by default torch's choice."""
    compile: bool = False
    """Also measure compiled networks, minutes each: ours as with `app.py --compile`, diffusers' own by torch.compile."""
    quick: bool = False
    """A trial run in seconds: 2 pictures, 2 rounds."""


def our_network(model: DDPM) -> Any:
    """Return our network with the interface of diffusers' pipelines: t from 0, output in `.sample`, classes in turn."""
    import torch
    from torch import nn

    from genlab.process import v_from_eps

    class Wrapped(nn.Module):
        config = SimpleNamespace(in_channels=model.data.channels, sample_size=model.data.size)
        dtype, device = torch.float32, torch.device("cpu")

        def forward(self, sample: torch.Tensor, timestep: Any, **_: Any) -> Any:
            t = torch.full((len(sample),), int(timestep) + 1)
            label = torch.arange(len(sample)) % len(model.data.classes) if model.data.classes else None
            denoised = model.predict(sample, t, label, clip=False)
            v = model.config.prediction == "v"
            return SimpleNamespace(
                sample=v_from_eps(model.schedule, denoised.x0_hat, denoised.eps_hat, t) if v else denoised.eps_hat
            )

    return Wrapped()


def ours(model: Model, count: int, how: Sampling) -> list[Image.Image]:
    """Draw pictures, classes in turn, in the page's precision."""
    from PIL import Image

    from genlab.draw import draw

    (drawn,) = draw(model, count, 0, replace(how, precision="auto"), count)
    pixels = drawn.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture.squeeze(-1) if model.data.channels == 1 else picture) for picture in pixels]


def diffusers_ways(model: DDPM, options: Options) -> dict[str, tuple[int, Callable[[int], object]]]:
    """Return pipelines of diffusers by name: the number of steps, and the function that draws pictures in so many."""
    import torch
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, DPMSolverMultistepScheduler
    from diffusers.utils import logging

    from benchmarks.network import diffusers_unets, same_cost

    logging.set_verbosity_error()
    prediction = {"v": "v_prediction", "eps": "epsilon"}[model.config.prediction]
    known = {"trained_betas": model.schedule.beta[1:].numpy(), "prediction_type": prediction}
    known["num_train_timesteps"] = model.schedule.T
    made, network = same_cost(model, diffusers_unets)

    def way(pipeline: Any) -> Callable[[int], object]:
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        return lambda steps: pipeline(batch_size=options.count, num_inference_steps=steps, generator=generator).images

    unet = our_network(model)
    dpm = DPMSolverMultistepScheduler(**known, thresholding=True, sample_max_value=1.0)
    itself = f"diffusers DDPMPipeline, DPMSolverMultistepScheduler, its network `{made}`"
    compiled = {f"{itself}, compiled": (options.dpm, way(DDPMPipeline(torch.compile(copy.deepcopy(network)), dpm)))}
    return (compiled if options.compile else {}) | {
        "diffusers DDPMPipeline, DDPMScheduler, our network": (options.chain, way(DDPMPipeline(unet, DDPMScheduler(**known)))),
        "diffusers DDIMPipeline, our network": (options.ddim, way(DDIMPipeline(unet, DDIMScheduler(**known)))),
        "diffusers DDPMPipeline, DPMSolverMultistepScheduler, our network": (options.dpm, way(DDPMPipeline(unet, dpm))),
        itself: (options.dpm, way(DDPMPipeline(network, dpm))),
    }


def lucidrains_ways(model: DDPM, options: Options) -> dict[str, tuple[int, Callable[[int], object]]]:
    """Return lucidrains' sampling with DDIM and its own network, as `diffusers_ways` does."""
    from denoising_diffusion_pytorch import GaussianDiffusion

    from benchmarks.network import lucidrains_unets, same_cost

    made, network = same_cost(model, lucidrains_unets)
    steps = min(options.ddim, model.schedule.T)
    chain = GaussianDiffusion(network, image_size=model.data.size, timesteps=model.schedule.T, sampling_timesteps=steps)

    def draw(_: int) -> object:
        with redirect_stderr(io.StringIO()):  # its progress bar has no switch
            return chain.sample(batch_size=options.count).mul(255).byte().numpy()

    return {f"lucidrains GaussianDiffusion, DDIM, its network `{made}`": (steps, draw)}


def measure(model: DDPM, options: Options) -> dict[str, tuple[int, list[float], bool]]:
    """Measure every pipeline; return its steps, seconds (rounds), and True if these are extrapolated. Ours comes first.

    With `compile`, ours and diffusers' own network are measured twice.
    """
    from importlib.util import find_spec

    from benchmarks.network import compile_here, mend_torchvision
    from benchmarks.timing import alternate
    from genlab import hub

    runs: dict[str, Callable[[], object]] = {}
    mine: dict[str, int] = {}
    fast = compile_here(copy.deepcopy(model)) if options.compile else None
    for how in (Sampling(steps=options.steps), Sampling("UniPC", options.fewest)):
        for suffix, network in (("", model), (", compiled", fast)):
            if network is not None:
                name = f"genlab {how.sampler}, {how.steps} steps{suffix}"
                runs[name] = lambda how=how, network=network: ours(network, options.count, how)  # type: ignore[misc]
                mine[name] = how.steps
    student = hub.read(options.student).model
    for steps in FEW:
        name = f"genlab {options.student}, {steps} steps"
        runs[name] = lambda steps=steps: ours(student, options.count, Sampling(steps=steps))  # type: ignore[misc]
        mine[name] = steps
    ways: dict[str, tuple[int, Callable[[int], object]]] = {}
    mend_torchvision()
    if find_spec("diffusers") is not None:
        ways |= diffusers_ways(model, options)
    if find_spec("denoising_diffusion_pytorch") is not None:
        ways |= lucidrains_ways(model, options)
    long = {way for way, (steps, _) in ways.items() if steps > 10 * SHORT[1]}
    for way, (steps, draw) in ways.items():
        for few in SHORT if way in long else (steps,):
            runs[f"{way}, {few} steps"] = lambda draw=draw, few=few: draw(few)  # type: ignore[misc]
    seconds = alternate(runs, 2 if options.quick else options.rounds)
    found = {name: (steps, seconds[name], False) for name, steps in mine.items()}
    for way, (steps, _) in ways.items():
        if way in long:
            low, high = (seconds[f"{way}, {few} steps"] for few in SHORT)
            line = [a + (b - a) / (SHORT[1] - SHORT[0]) * (steps - SHORT[0]) for a, b in zip(low, high, strict=True)]
            found[f"{way}, {steps} steps"] = (steps, line, True)
        else:
            found[f"{way}, {steps} steps"] = (steps, seconds[f"{way}, {steps} steps"], False)
    return found


def run(options: Options) -> None:
    """Measure and print."""
    import torch

    from benchmarks.network import shipped_model
    from benchmarks.timing import machine, ratio, table

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.quick:
        options = replace(options, count=2)
    torch.manual_seed(0)
    model = shipped_model(options.model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # for every pipeline that runs it
    found = measure(model, options)
    unit = next(iter(found.values()))[1]
    rows = []
    for name, (steps, seconds, extrapolated) in found.items():
        median = statistics.median(seconds)
        cell = f"{median:.2f} (from {SHORT[0]} and {SHORT[1]} steps)" if extrapolated else f"{median:.2f}"
        rows.append([name, f"{ratio(seconds, unit):.1f}", cell, f"{1000 * median / steps:.1f}"])
    print(f"{options.count} pictures, {options.model}, medians of {len(unit)} rounds in alternation. {machine()}.\n")
    print(table(["pipeline", "× our time", "s", "ms a step"], rows))


def main() -> None:
    """Run the command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
