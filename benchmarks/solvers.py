"""Measure quality by the number of network evaluations, of our solvers and diffusers': `python benchmarks/solvers.py --help`.

Every row has the same network, classes and noise x_T, and x̂_0 clipped to [−1, 1]; rows differ in the solver and its times.
The peers run as documented for models of pixels:
`DDIMScheduler` with trailing times, `DPMSolverMultistepScheduler` and `UniPCMultistepScheduler` with their defaults and with
Karras or log-SNR times, thresholding at 1 where the scheduler has no `clip_sample`.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

if TYPE_CHECKING:
    from torch import Tensor

    from genlab.config import SamplerName
    from genlab.ddpm import DDPM

COUNTS = (4, 5, 6, 8, 10, 12, 15, 20, 50)
QUICK = (5, 10)
FIT_PICTURES = 10
FIT_UP_TO = 20
"""Largest number of steps for which times are fitted: above, every spacing is good, and fitting takes 8 walks a step."""


@dataclass(frozen=True)
class Options:
    """Measure the Fréchet distance to the test pictures by network evaluations, relative to the whole ancestral chain."""

    model: str = "ddpm-fashion-mnist"
    """A run or model folder, the name of a model that ships, or user/name[@revision] on the Hub."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; else GENLAB_DATA_DIR, Debian's package, the Hub, in this order."""
    images: int | None = None
    """Pictures a distance, more than the features of the classifier (64); by default 2000."""
    counts: tuple[int, ...] = ()
    """Network evaluations a picture; by default 4, 5, 6, 8, 10, 12, 15, 20 and 50."""
    chain: int | None = None
    """Ancestral steps of the reference; by default the model's whole chain."""
    only: tuple[str, ...] = ()
    """Rows to measure, by the beginnings of their names; by default all."""
    batch_size: int = 100
    """Pictures a batch."""
    seed: int = 0
    """Seed of all noise."""
    compile: bool = False
    """Compile the network first, as with `app.py --compile`: takes minutes, then each figure is faster."""
    quick: bool = False
    """A trial run in a few minutes: by default 200 pictures, 5 and 10 evaluations, a chain of 100 steps."""
    out: Path | None = None
    """Folder for solvers.json, written after every figure; figures of the same measurement there are not measured again."""


Draw = Callable[[int, "Tensor", "Tensor", list[int]], Iterator["Tensor"]]
"""Steps, x_T (B C H W), labels (B), seeds (B) → the state after each step."""


def ours(model: DDPM, sampler: SamplerName, spacing: str, fitted: dict[int, list[int]]) -> Draw:
    """Return the drawing function of a sampler of genlab, with times by a spacing or fitted."""
    from genlab.sampler import SAMPLERS, Noise, spaced, walk

    def draw(count: int, x: Tensor, label: Tensor, seeds: list[int]) -> Iterator[Tensor]:
        noise = Noise.from_seeds([seed + 2**31 for seed in seeds], model.data.shape)
        times = fitted[count] if spacing == "fitted" else spaced(model.schedule, count, spacing)  # type: ignore[arg-type]
        step = SAMPLERS[sampler].step(model.schedule, noise, model.config.variance, 0.0)
        for frame in walk(lambda x_t, t: model.predict(x_t, t, label), step, x, times):
            yield frame.x_s

    return draw


def peer(model: DDPM, make: Callable[[dict[str, Any]], Any]) -> Draw:
    """Return the drawing function of a scheduler of diffusers, used as in its pipelines. Its t is ours − 1."""
    import torch

    from genlab.process import v_from_eps

    known = {
        "num_train_timesteps": model.schedule.T,
        "trained_betas": model.schedule.beta[1:].numpy(),
        "prediction_type": {"v": "v_prediction", "eps": "epsilon"}[model.config.prediction],
    }

    def draw(count: int, x: Tensor, label: Tensor, seeds: list[int]) -> Iterator[Tensor]:
        scheduler, generator = make(known), torch.Generator().manual_seed(seeds[0])
        scheduler.set_timesteps(count)
        random = {"generator": generator} if "sde" in scheduler.config.get("algorithm_type", "") else {}
        for now in scheduler.timesteps:
            t = torch.full((len(x),), int(now) + 1)
            denoised = model.predict(scheduler.scale_model_input(x, now), t, label, clip=False)
            v = model.config.prediction == "v"
            output = v_from_eps(model.schedule, denoised.x0_hat, denoised.eps_hat, t) if v else denoised.eps_hat
            x = scheduler.step(output, now, x, **random).prev_sample
            yield x

    return draw


def rows(model: DDPM, fitted: dict[int, list[int]]) -> dict[str, Draw]:
    """Return every drawing function to compare, by name; ours first."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

    pairs: list[tuple[SamplerName, str]] = [
        ("ancestral", "uniform"),
        ("DDIM", "uniform"),
        *(("DPM-Solver++ SDE", s) for s in ("uniform", "quadratic", "Karras")),
    ]
    spacings = ("uniform", "quadratic", "log-SNR", "Karras", "fitted")
    pairs += [("DPM-Solver++", spacing) for spacing in spacings] + [("UniPC", spacing) for spacing in spacings]
    found = {f"{sampler}, {spacing}": ours(model, sampler, spacing, fitted) for sampler, spacing in pairs}
    clip = {"thresholding": True, "sample_max_value": 1.0}
    schedulers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "DDIM, trailing": lambda known: DDIMScheduler(**known, timestep_spacing="trailing"),
        "DPMSolver++, linspace": lambda known: DPMSolverMultistepScheduler(**known, **clip),
        "DPMSolver++, log-SNR": lambda known: DPMSolverMultistepScheduler(**known, **clip, use_lu_lambdas=True),
        "DPMSolver++, Karras": lambda known: DPMSolverMultistepScheduler(**known, **clip, use_karras_sigmas=True),
        "DPMSolver++ SDE, linspace": lambda known: DPMSolverMultistepScheduler(
            **known, **clip, algorithm_type="sde-dpmsolver++"
        ),
        "DPMSolver++ SDE, Karras": lambda known: DPMSolverMultistepScheduler(
            **known, **clip, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
        ),
        "UniPC, linspace": lambda known: UniPCMultistepScheduler(**known, **clip),
        "UniPC, Karras": lambda known: UniPCMultistepScheduler(**known, **clip, use_karras_sigmas=True),
    }
    return found | {f"diffusers {name}": peer(model, make) for name, make in schedulers.items()}


def fit(model: DDPM, counts: list[int], seed: int) -> dict[int, list[int]]:
    """Return times for UniPC by number of steps, fitted to the model on noise that is not used for measuring."""
    import torch
    from tqdm import tqdm

    from genlab.sampler import Noise, fit_times

    x_T = Noise.from_seeds([2**32 - 1 - seed - i for i in range(FIT_PICTURES)], model.data.shape).draw()
    label = torch.arange(FIT_PICTURES) % max(len(model.data.classes), 1)
    known = label if model.data.classes else None
    return {
        count: fit_times(lambda x_t, t: model.predict(x_t, t, known), model.schedule, x_T, count)
        for count in tqdm(counts, desc="fitting times", unit="count", dynamic_ncols=True, disable=None)
    }


def earlier(out: Path | None, facts: dict[str, Any]) -> dict[str, Any]:
    """Read the earlier result in a folder if it has these facts; otherwise return an empty one."""
    result: dict[str, Any] = {"fitted_times": {}, "distances": {}}
    if out is not None and (out / "solvers.json").is_file():
        found = json.loads((out / "solvers.json").read_text(encoding="utf-8"))
        if {name: found.get(name) for name in facts} == facts:
            result = found
            result["fitted_times"] = {int(count): times for count, times in result["fitted_times"].items()}
            result["distances"] = {
                name: {int(count): distance for count, distance in by_count.items()}
                for name, by_count in result["distances"].items()
            }
    return facts | result


def table(ratios: dict[str, dict[int, float]], counts: list[int], floor: float) -> str:
    """Return the ratios as Markdown: a row for each sampler, then the best of ours, of the peers, and real pictures."""
    mine, theirs = ([name for name in ratios if name.startswith("diffusers") is side] for side in (False, True))
    lines = ["| sampler, times | " + " | ".join(map(str, counts)) + " |", "|---|" + "---|" * len(counts)]

    def line(name: str, values: dict[int, float]) -> str:
        return f"| {name} | " + " | ".join(f"{values[c]:.2f}" if c in values else "" for c in counts) + " |"

    lines += [line(name, ratios[name]) for name in ratios]
    for title, names in (("**best of ours**", mine), ("**best of diffusers**", theirs)):
        if names:
            lines.append(line(title, {c: min(ratios[name].get(c, math.inf) for name in names) for c in counts}))
    return "\n".join([*lines, line("real pictures", dict.fromkeys(counts, floor))])


def run(options: Options) -> None:
    """Measure and print."""
    import torch
    from tqdm import tqdm

    from benchmarks.network import compile_here
    from genlab import data, hub
    from genlab.data import to_pixels
    from genlab.ddpm import DDPM
    from genlab.features import classifier_for
    from genlab.metrics import frechet_distance, frechet_interval
    from genlab.nn import drawing_precision
    from genlab.sampler import Noise

    package = hub.read(options.model)
    model = package.model
    if not isinstance(model, DDPM):
        raise SystemExit(f"--model: expected a DDPM, got a {model.kind}")
    if options.compile:
        compile_here(model)
    images = options.images or (200 if options.quick else 2000)
    counts = sorted(set(options.counts)) or list(QUICK if options.quick else COUNTS)
    chain = options.chain or (100 if options.quick else model.schedule.T)
    shape = (options.data_dir, model.data.size, model.data.channels)
    test, train = data.load(model.data.name, "test", *shape), data.load(model.data.name, "train", *shape)
    network = classifier_for(train)
    held_out = network.features(test.images)
    some = torch.randperm(len(train), generator=torch.Generator().manual_seed(options.seed))[:images]
    real = network.features(train.images[some])
    floor = frechet_distance(real, held_out)

    facts = {
        "model": options.model,
        "model_sha256": hashlib.sha256((package.folder / "model.safetensors").read_bytes()).hexdigest(),
        "images": images,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "chain": chain,
        "features": network.facts(),
        "real_distance": floor,
    }
    result = earlier(options.out, facts)
    distances, fitted = result["distances"], result["fitted_times"]
    chosen = {name: draw for name, draw in rows(model, fitted).items() if not options.only or name.startswith(options.only)}
    if any(name.endswith("fitted") for name in chosen):
        fitted |= fit(model, [c for c in counts if c <= FIT_UP_TO and c not in fitted], options.seed)
    plan = [(name, c) for c in counts for name in chosen if not name.endswith("fitted") or c in fitted]
    plan = [(name, c) for name, c in plan if c not in distances.setdefault(name, {})]
    whole = 0 if "chain_distance" in result else chain
    total = images * (whole + sum(c for _, c in plan))
    bar = tqdm(total=total, unit="evaluation", unit_scale=True, smoothing=0, dynamic_ncols=True, disable=None)

    def features(draw: Draw, count: int) -> Tensor:
        parts = []
        for first in range(0, images, options.batch_size):
            seeds = [options.seed * 1_000_000 + i for i in range(first, min(first + options.batch_size, images))]
            x_T = x = Noise.from_seeds(seeds, model.data.shape).draw()
            label = torch.tensor(seeds) % len(model.data.classes) if model.data.classes else torch.full((len(seeds),), -1)
            with torch.inference_mode(), drawing_precision() if options.compile else nullcontext():
                for x in draw(count, x_T, label, seeds):
                    bar.update(len(x))
            parts.append(network.features(to_pixels(x)))
        return torch.cat(parts)

    def save() -> None:
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "solvers.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")

    for name, count in plan:
        bar.set_description(f"{name}, {count}")
        distances[name][count] = frechet_distance(features(chosen[name], count), held_out)
        save()
    if whole:
        bar.set_description(f"ancestral, {chain}")
        end = features(ours(model, "ancestral", "uniform", {}), chain)
        interval = frechet_interval(end, held_out, torch.Generator().manual_seed(options.seed))
        result |= {"chain_distance": frechet_distance(end, held_out), "chain_interval_95": list(interval)}
        save()
    bar.close()
    reference, (low, high) = result["chain_distance"], result["chain_interval_95"]

    print(
        f"{options.model}: Fréchet distance of {images:,} pictures to the {len(test):,} test pictures of {test.spec.name}, by "
        f"network evaluations,\nas a multiple of that of the ancestral chain of {chain:,} steps, {reference:.3f} "
        f"(95% interval {low:.3f} to {high:.3f}).\n{images:,} real training pictures in their place: {floor:.3f}. "
        f"Seed {options.seed}, features of {network.name} {network.sha256[:12]}.\n"
    )
    ratios = {name: {c: d / reference for c, d in distances[name].items()} for name in chosen}
    print(table(ratios, counts, floor / reference))


def main() -> None:
    """Run the command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
