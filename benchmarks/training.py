"""A step of training beside those of diffusers and lucidrains: `python benchmarks/training.py --help`.

Each side takes whole steps as its documentation has them, on the same pictures, in batches of the same size, with networks of
the same cost a picture (`network.py`): from fetching the batch to the new weights and, where there is one, the moving average.

    genlab       `training/train_ddpm.py`'s own loop, learned Σ and all
    diffusers    the loop of its tutorial for unconditional models: DataLoader, DDPMScheduler.add_noise, AdamW, accelerate
    lucidrains   GaussianDiffusion's loss and the steps of its Trainer: DataLoader, Adam, clipping, EMA every tenth step
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if not __package__:  # run as a script: look for modules beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

if TYPE_CHECKING:
    from torch import Tensor

    from genlab.data import Dataset

Step = Callable[[], object]


@dataclass(frozen=True)
class Options:
    """Pictures a second of training, beside the loops of diffusers and lucidrains with networks of the same cost."""

    dataset: str = "fashion-mnist"
    """What to train on, as `training/train_ddpm.py` takes it."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; GENLAB_DATA_DIR, Debian's package and the Hub come after it."""
    batch_size: int = 64
    """Pictures a step."""
    rounds: int = 20
    """Steps of each loop that the median is taken of."""
    threads: int | None = None
    """CPU threads; what torch chooses where none is given."""
    quick: bool = False
    """A look in seconds: 3 rounds."""


def batches(pictures: Dataset, size: int) -> Iterator[Tensor]:
    """Endless shuffled batches (B C H W) in [−1, 1] from a DataLoader, as both documentations have it."""
    from torch.utils.data import DataLoader

    from genlab.data import to_model

    loader = DataLoader(to_model(pictures.images), batch_size=size, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    while True:
        yield from loader


def genlab(pictures: Dataset, options: Options, folder: Path) -> Step:
    """A step of our loop."""
    from training.config import DDPMTraining
    from training.loop import Stop, Trainer, make_accelerator
    from training.train_ddpm import task

    config = replace(DDPMTraining(), batch_size=options.batch_size, run=folder, steps=10**6, save_every=10**6)
    made = task(config)
    steps = Trainer(config, made.build, made.loss, pictures, make_accelerator(config.precision)).run(Stop())
    return lambda: next(steps)


def diffusers(pictures: Dataset, options: Options) -> tuple[str, Step]:
    """A step of the tutorial's loop, and how its network was made."""
    import torch
    import torch.nn.functional as F
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_cosine_schedule_with_warmup

    from benchmarks.network import diffusers_unets

    made, network = _of_same_cost(pictures, diffusers_unets)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    rate = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=500, num_training_steps=10**6)
    accelerator, scheduler = Accelerator(cpu=not torch.cuda.is_available()), DDPMScheduler(num_train_timesteps=1000)
    model, optimizer, rate = accelerator.prepare(network.train(), optimizer, rate)
    source = batches(pictures, options.batch_size)

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

    return made, step


def lucidrains(pictures: Dataset, options: Options) -> tuple[str, Step]:
    """A step of the trainer's loop, and how its network was made."""
    import torch
    from denoising_diffusion_pytorch import GaussianDiffusion
    from ema_pytorch import EMA

    from benchmarks.network import lucidrains_unets

    made, network = _of_same_cost(pictures, lucidrains_unets)
    chain = GaussianDiffusion(network, image_size=pictures.spec.size, timesteps=1000)
    average = EMA(chain, beta=0.995, update_every=10)
    optimizer = torch.optim.Adam(chain.parameters(), lr=1e-4, betas=(0.9, 0.99))
    source = batches(pictures, options.batch_size)

    def step() -> float:
        loss = chain((next(source) + 1) / 2)  # it takes pictures in [0, 1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(chain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        return loss.item()

    return made, step


def _of_same_cost(pictures: Dataset, make: Callable[..., Any]) -> tuple[str, Any]:
    """The peer's network, as documented, whose forward pass costs most nearly what that of our default network does."""
    from benchmarks.network import nearest, our_flops
    from genlab.config import DDPMConfig
    from genlab.ddpm import DDPM

    data = pictures.spec
    model = DDPM(DDPMConfig(), data).eval()
    levels = len(model.config.unet.multipliers) + (model.config.unet.patch > 1)
    families = make(data.channels, data.channels, data.size, levels)
    made, network, _ = nearest(families, data.channels, data.size, our_flops(model))
    return made, network


def learning(step: Step) -> Step:
    """A step that may compute gradients, wherever it is called from."""
    import torch

    def call() -> object:
        with torch.inference_mode(False), torch.enable_grad():
            return step()

    return call


def run(options: Options) -> None:
    """Measure and print."""
    import tempfile
    from importlib.util import find_spec

    import torch

    from benchmarks.network import mend_torchvision
    from benchmarks.timing import alternate, machine, ratio, table
    from genlab import data

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rounds = 3 if options.quick else options.rounds
    pictures = data.load(options.dataset, "train", options.data_dir)
    mend_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        steps = {"genlab, training/train_ddpm.py": genlab(pictures, options, Path(folder))}
        for package, make in (("diffusers", diffusers), ("denoising_diffusion_pytorch", lucidrains)):
            if find_spec(package) is not None:
                made, step = make(pictures, options)
                steps[f"{make.__name__}, `{made}`"] = step
        seconds = alternate({name: learning(step) for name, step in steps.items()}, rounds)
    ours, *_ = seconds.values()
    print(f"One step of training on {options.batch_size} pictures, medians of {rounds} rounds in alternation. {machine()}.\n")
    rows = [
        [name, f"{ratio(each, ours):.2f}", f"{options.batch_size / statistics.median(each):.0f}"]
        for name, each in seconds.items()
    ]
    print(table(["loop", "× our time", "images/s"], rows))


def main() -> None:
    """The command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
