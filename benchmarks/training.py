"""Compare training with that of diffusers and lucidrains, as documented: `python benchmarks/training.py --help`.

Each loop takes whole steps on the same pictures, in batches of the same size, with networks of the same cost a picture
(`network.py`): from fetching the batch to the new weights and the moving average, if there is one.

    genlab       `training/train_ddpm.py`'s own loop, learned Σ and all
    diffusers    the loop of its tutorial for unconditional models: DataLoader, DDPMScheduler.add_noise, AdamW, accelerate
    lucidrains   GaussianDiffusion's loss and the steps of its Trainer: DataLoader, Adam, clipping, EMA every tenth step

With `--sizes`, ours and diffusers' are timed on pictures of these sides instead, gray and RGB, with a step of sampling (a
forward pass of 16 pictures): in CPU time, which other load on the machine does not count towards.

With `--minutes`, each loop also runs for that time, and its model is measured on held-out pictures in the same way: the bound
over the chain that it was trained on, and distances of samples by our samplers. All train without labels.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from genlab.config import DataSpec, Sampling

if TYPE_CHECKING:
    from torch import Tensor, nn

    from genlab.config import Prediction
    from genlab.data import Dataset
    from genlab.ddpm import DDPM
    from genlab.schedule import Schedule
    from training.config import DDPMTraining
    from training.sample_quality import Reference

Step = Callable[[], object]
TOGETHER = 20
"""Consecutive steps of a loop before the next one's turn."""
ENDLESS = 10**6
"""Planned number of steps of a loop that is only timed."""
TIMES = 12
"""Number of times t at which each held-out picture is evaluated."""
DRAWN_BY = (Sampling(), Sampling("DDIM", 50, "uniform"))
"""Samplers of the samples: the page's default, and that of `DDIMPipeline`."""
SHOWN = 16
"""Samples of each loop on the sheet."""


@dataclass(frozen=True)
class Options:
    """Measure pictures a second of training, and of the loops of diffusers and lucidrains with networks of the same cost."""

    dataset: str = "fashion-mnist"
    """Data set to train on, as for `training/train_ddpm.py`."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; else GENLAB_DATA_DIR, Debian's package, the Hub, in this order."""
    batch_size: int = 64
    """Pictures a step."""
    rounds: int = 20
    """Steps of each loop, of which the median is reported."""
    minutes: float = 0
    """Also train with each loop for this time, and measure the models; 20 for the benchmark's goal, 0 to skip."""
    images: int = 1000
    """Number of held-out pictures for the bound, and of samples for each distance."""
    sizes: tuple[int, ...] = ()
    """Compare with diffusers by side of the pictures instead, gray and RGB, in CPU time; --dataset does not matter then."""
    compile: bool = False
    """Also time our loop with `--compile on`, one to two minutes more."""
    out: Path | None = None
    """Folder for equal-time.json and a sheet of pictures, with --minutes."""
    threads: int | None = None
    """CPU threads; by default torch's choice."""
    quick: bool = False
    """A trial run in seconds: 3 rounds."""

    def __post_init__(self) -> None:
        if not 0 <= self.minutes < 24 * 60:
            raise ValueError(f"--minutes: expected 0 to a day, got {self.minutes}")
        if self.images < 2:
            raise ValueError(f"--images: expected 2 or more, got {self.images}")


@dataclass(frozen=True)
class Loop:
    """A training loop: a function that takes a step, and one that returns the current model for measuring."""

    step: Step
    model: Callable[[], DDPM]


def batches(pictures: Dataset, size: int) -> Iterator[Tensor]:
    """Yield shuffled batches (B C H W) in [−1, 1] from a DataLoader, without end, as in both documentations."""
    from torch.utils.data import DataLoader

    from genlab.data import to_model

    loader: DataLoader[Tensor] = DataLoader(to_model(pictures.images), batch_size=size, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    while True:
        yield from loader


def genlab(
    pictures: Dataset, batch_size: int, steps: int, folder: Path, compile: Literal["auto", "on"] = "auto"
) -> tuple[str, Loop]:
    """Return our loop for a planned number of steps."""
    config = replace(timed(batch_size, folder), steps=steps, compile=compile)
    return "genlab, training/train_ddpm.py" + " --compile on" * (compile == "on"), our_loop(config, pictures)


def timed(batch_size: int, folder: Path) -> DDPMTraining:
    """Return the options of our loop in fp32, the precision of the peers', also where the CPU computes in bf16."""
    from training.config import DDPMTraining

    return DDPMTraining(batch_size=batch_size, run=folder, steps=ENDLESS, log_every=1, save_every=10**9, precision="fp32")


def our_loop(config: DDPMTraining, pictures: Dataset, build: Callable[[DataSpec], DDPM] | None = None) -> Loop:
    """Return the loop of `training/train_ddpm.py`.

    Args:
        build: returns the model; by default the script's own.
    """
    from training.loop import Stop, Trainer, make_accelerator
    from training.train_ddpm import task

    made = task(config)
    trainer = Trainer(config, build or made.build, made.loss, pictures, make_accelerator(config.precision))
    stop = Stop()
    stop.restore()  # a signal ends the benchmark, as it ends the other loops
    records = trainer.run(stop)
    return Loop(lambda: next(records), lambda: trainer.average.eval())


def diffusers(pictures: Dataset, batch_size: int, steps: int, folder: Path) -> tuple[str, Loop]:
    """Return the tutorial's loop for a planned number of steps."""
    import torch
    import torch.nn.functional as F
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_cosine_schedule_with_warmup

    from benchmarks.network import diffusers_unets, same_cost
    from genlab.schedule import Schedule

    made, network = same_cost(untrained(pictures), diffusers_unets)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    rate = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=500, num_training_steps=steps)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    model, optimizer, rate = accelerator.prepare(network.train(), optimizer, rate)
    source = batches(pictures, batch_size)

    def step() -> float:
        clean = next(source).to(accelerator.device)
        noise = torch.randn_like(clean)
        t = torch.randint(0, 1000, (len(clean),), device=clean.device)
        predicted = model(scheduler.add_noise(clean, noise, t), t, return_dict=False)[0]
        loss = F.mse_loss(predicted, noise)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        return loss.detach().item()

    chain = Schedule(torch.cat([torch.zeros(1).double(), scheduler.betas.double()]))
    return f"diffusers, `{made}`", Loop(
        step, lambda: measurable(pictures, chain, "eps", network, lambda x, t: network(x, t, return_dict=False)[0])
    )


def lucidrains(pictures: Dataset, batch_size: int, steps: int, folder: Path) -> tuple[str, Loop]:
    """Return the trainer's loop; its learning rate is constant, whatever the number of steps."""
    import torch
    from denoising_diffusion_pytorch import GaussianDiffusion
    from ema_pytorch import EMA

    from benchmarks.network import lucidrains_unets, same_cost
    from genlab.schedule import Schedule

    made, network = same_cost(untrained(pictures), lucidrains_unets)
    diffusion = GaussianDiffusion(network.train(), image_size=pictures.spec.size, timesteps=1000)
    average = EMA(diffusion, beta=0.995, update_every=10)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
    source = batches(pictures, batch_size)

    def step() -> float:
        loss = diffusion((next(source) + 1) / 2)  # takes pictures in [0, 1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        return loss.item()

    chain = Schedule(torch.cat([torch.zeros(1).double(), diffusion.betas.double()]))
    shown = average.ema_model.model  # by default it predicts v ("pred_v")
    return f"lucidrains, `{made}`", Loop(step, lambda: measurable(pictures, chain, "v", shown, shown))


def untrained(pictures: Dataset) -> DDPM:
    """Return our default model for these pictures, whose forward pass sets the cost."""
    from genlab.config import DDPMConfig
    from genlab.ddpm import DDPM

    return DDPM(DDPMConfig(), pictures.spec).eval()


def measurable(
    pictures: Dataset, chain: Schedule, prediction: Prediction, network: nn.Module, predict: Callable[[Tensor, Tensor], Tensor]
) -> DDPM:
    """Return a peer's network as a DDPM of ours, with the chain it was trained on; the peer's t begins at 0."""
    import torch

    from genlab.config import DDPMConfig
    from genlab.ddpm import DDPM

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
            return predict(x_t, t - 1)

    model = DDPM(DDPMConfig(variance="posterior", prediction=prediction, grids=()), pictures.spec)
    model.schedule, model.unet = chain, Wrapped()  # type: ignore[assignment]
    return model.eval()


def loops(pictures: Dataset, batch_size: int, steps: dict[str, int], folder: Path) -> dict[str, Loop]:
    """Return every loop whose package is installed, by name; ours first.

    Args:
        steps: planned number of steps of each, by name.
    """
    from importlib.util import find_spec

    found = {}
    for package, make in (("genlab", genlab), ("diffusers", diffusers), ("denoising_diffusion_pytorch", lucidrains)):
        if find_spec(package) is not None:
            name, loop = make(pictures, batch_size, steps.get(make.__name__, ENDLESS), folder)
            found[name] = loop
    return found


def learning(step: Step) -> Step:
    """Return a step that computes gradients even when called in inference mode."""
    import torch

    def call() -> object:
        with torch.inference_mode(False), torch.enable_grad():
            return step()

    return call


def train(loops: dict[str, Loop], steps: dict[str, int]) -> dict[str, float]:
    """Take all steps of every loop, a few of each in turn; return the seconds of each.

    Other load on the machine slows all of them alike.
    """
    from training.partial import Progress

    seconds, done = dict.fromkeys(loops, 0.0), dict.fromkeys(loops, 0)
    progress = Progress(sum(steps.values()), "step")
    progress.part("training")
    while left := [name for name in loops if done[name] < steps[name]]:
        name = min(left, key=lambda name: done[name] / steps[name])
        count = min(TOGETHER, steps[name] - done[name])
        start = time.perf_counter()
        for _ in range(count):
            loops[name].step()
        seconds[name] += time.perf_counter() - start
        done[name] += count
        progress.update(count)
    progress.close()
    return seconds


def quality(
    name: str, model: DDPM, held_out: Tensor, images: int, drawn_by: Sequence[Sampling], reference: Reference | None
) -> tuple[dict[str, Any], Tensor]:
    """Return the bound with the better Σ, the distance by each sampler, and samples (N C H W) uint8 for the sheet.

    Args:
        held_out: pictures (N C H W) uint8 for the bound; images: number of samples; reference: for the distances.
    """
    import torch

    from genlab import metrics
    from genlab.draw import draw
    from training.likelihood import diffusion_bound
    from training.partial import Partial, Progress

    evaluations = TIMES * len(held_out) + images * sum(how.steps for how in drawn_by)
    progress = Progress(evaluations, "evaluation")
    found = diffusion_bound(model, held_out, TIMES, 0, 100, Partial(None, {}), progress)
    sigma, bound = min(found["by_variance"].items(), key=lambda each: each[1]["bound_bits_per_dim"])
    section: dict[str, Any] = {
        "variance": sigma,
        "bound_bits_per_dim": bound["bound_bits_per_dim"],
        "bound_standard_error_bits_per_dim": bound["bound_standard_error_bits_per_dim"],
        "distances": [],
    }
    sheet = torch.empty(0)
    for how in drawn_by:
        assert reference is not None
        progress.part(f"drawing, {how.sampler}")
        drawn = torch.cat(list(draw(model, images, 0, how, 100, progress.update)))
        features, generator = reference.feature_network.features(drawn), torch.Generator().manual_seed(0)
        section["distances"].append(
            {
                **asdict(how),
                "frechet_distance": metrics.frechet_distance(features, reference.held_out),
                "frechet_interval_95": list(metrics.frechet_interval(features, reference.held_out, generator)),
            }
        )
        sheet = drawn[:SHOWN]
    progress.close()
    print(f"{name}: {json.dumps(section)}", file=sys.stderr, flush=True)
    return section, sheet


def equal_time(options: Options, pictures: Dataset, seconds: dict[str, float], folder: Path) -> None:
    """Train with every loop for the same time, measure the models, and print.

    Args:
        seconds: time of a step of each loop, by name.
    """
    import torch

    from benchmarks.timing import table
    from genlab import data
    from training.sample_quality import Reference, check

    test = unlabelled(data.load(options.dataset, "test", options.data_dir))
    reference = Reference(test, pictures)
    check(untrained(pictures), reference, options.images, DRAWN_BY[0])
    steps = {name: max(1, round(60 * options.minutes / each)) for name, each in seconds.items()}
    running = loops(pictures, options.batch_size, {name.split(",")[0]: count for name, count in steps.items()}, folder)
    spent = train(running, steps)
    result, sheets = {}, []
    for name, loop in running.items():
        section, drawn = quality(name, loop.model(), test.images[: options.images], options.images, DRAWN_BY, reference)
        result[name] = {"minutes": spent[name] / 60, "steps": steps[name], "batch_size": options.batch_size, **section}
        sheets.append(drawn)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"images": options.images, "loops": result}, indent=2, ensure_ascii=False)
        (options.out / "equal-time.json").write_text(text + "\n")
        data.grid(torch.cat(sheets), columns=SHOWN).save(options.out / "equal-time.png", optimize=True)
    rows = []
    for name, found in result.items():
        row = [name, f"{found['minutes']:.1f}", f"{found['steps']:,}"]
        row.append(f"{found['bound_bits_per_dim']:.3f} ± {found['bound_standard_error_bits_per_dim']:.3f}")
        for each in found["distances"]:
            low, high = each["frechet_interval_95"]
            row.append(f"{each['frechet_distance']:.2f}, {low:.2f}–{high:.2f}")
        rows.append(row)
    by = [f"Fréchet distance, {how.sampler}, {how.steps} steps" for how in DRAWN_BY]
    print("\n" + table(["loop", "minutes", "steps", "bound, bits/dim", *by], rows))


def size_row(data: DataSpec, batch_size: int, rounds: int, folder: Path) -> list[object]:
    """Return a row of the table by size: CPU time of steps of training and sampling, relative to ours.

    The peers are diffusers' network of the cost of ours, in its tutorial's loop, and ours with the channels for small pictures.
    """
    import torch

    from benchmarks.network import diffusers_unets, flops, our_flops, same_cost
    from benchmarks.timing import alternate, ratio
    from genlab.config import DDPMConfig, UNetConfig
    from genlab.data import Dataset
    from genlab.ddpm import DDPM

    pictures = Dataset(data, torch.randint(256, (4 * batch_size, *data.shape), dtype=torch.uint8), None, "random numbers")
    x, t = torch.randn(SHOWN, *data.shape), torch.full((SHOWN,), 500)
    model = untrained(pictures)
    ours = model.config.unet.multipliers
    made, network = same_cost(model, diffusers_unets)
    cost = flops(network, x[:1]) / our_flops(model)
    runs = {
        "diffusers, training": learning(diffusers(pictures, batch_size, ENDLESS, folder)[1].step),
        "diffusers, sampling": lambda: network(x, t),
    }

    def add(multipliers: tuple[int, ...]) -> None:
        config = DDPMConfig(unet=UNetConfig(multipliers=multipliers))
        served = DDPM(config, data).eval()
        served.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        runs[f"{multipliers}, training"] = learning(
            our_loop(timed(batch_size, folder), pictures, lambda data: DDPM(config, data)).step
        )
        runs[f"{multipliers}, sampling"] = lambda: served.predict(x, t)

    for multipliers in {ours, (1, 2)}:
        add(multipliers)
    found = alternate(runs, rounds, time.process_time)
    widths = " → ".join(str(model.config.unet.width * each) for each in ours)
    colour = "RGB" if data.channels == 3 else "gray"
    row: list[object] = [f"{data.size}×{data.size} {colour}", widths, f"`{made}`", f"{cost:.2f}"]
    for peer in ("diffusers", (1, 2)):
        row += [f"{ratio(found[f'{peer}, {kind}'], found[f'{ours}, {kind}']):.2f}" for kind in ("training", "sampling")]
    return [*row, f"{batch_size / statistics.median(found[f'{ours}, training']):.0f}"]


def unlabelled(pictures: Dataset) -> Dataset:
    """Return the pictures without labels and classes."""
    return replace(pictures, labels=None, spec=replace(pictures.spec, classes=()))


def run(options: Options) -> None:
    """Measure and print."""
    import tempfile

    import torch

    from benchmarks.network import mend_torchvision
    from benchmarks.timing import alternate, machine, ratio, table
    from genlab import data

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rounds = 3 if options.quick else options.rounds
    torch.manual_seed(0)
    mend_torchvision()
    if options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            kinds = [DataSpec("random", channels, size, ()) for size in options.sizes for channels in (1, 3)]
            sizes = [size_row(kind, options.batch_size, rounds, Path(folder)) for kind in kinds]
        print(f"CPU time of steps, × ours, {options.batch_size} pictures of training, {SHOWN} of sampling. {machine()}.\n")
        head = ["pictures", "our channels", "diffusers' network", "its MFLOP", "diffusers: training", "sampling"]
        return print(table([*head, "ours with 48 → 96: training", "sampling", "our training, pictures a CPU second"], sizes))
    pictures = unlabelled(data.load(options.dataset, "train", options.data_dir))
    with tempfile.TemporaryDirectory() as folder:
        running = loops(pictures, options.batch_size, {}, Path(folder))
        compiled = [genlab(pictures, options.batch_size, ENDLESS, Path(folder), "on")] if options.compile else []
        seconds = alternate({name: learning(loop.step) for name, loop in [*running.items(), *compiled]}, rounds)
        ours, *_ = seconds.values()
        print(f"A step of training on {options.batch_size} pictures, medians of {rounds} rounds in alternation. {machine()}.\n")
        rows = [
            [name, f"{ratio(each, ours):.2f}", f"{options.batch_size / statistics.median(each):.0f}"]
            for name, each in seconds.items()
        ]
        print(table(["loop", "× our time", "images/s"], rows), flush=True)
        if options.minutes:
            equal_time(options, pictures, {name: statistics.median(seconds[name]) for name in running}, Path(folder))


def main() -> None:
    """Run the command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
