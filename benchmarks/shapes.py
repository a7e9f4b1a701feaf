"""Find the best shape of the U-Net for this machine: `python benchmarks/shapes.py --help`.

Every shape is trained by the same loop for the same CPU time, a few steps of each in turn, and measured in the same way: a
costlier shape gets fewer steps, and other load on the machine costs none of them any. Blocks of patch × patch pixels enter as
channels: a convolution of 48 channels at patch 2 takes as many operations as one of 24 at patch 1, or of 96 at patch 4.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from genlab.config import LARGE, DDPMConfig, UNetConfig

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.training import Loop
    from genlab.config import DataSpec
    from genlab.data import Dataset
    from genlab.ddpm import DDPM

WARMUP = 50
"""Steps over which the learning rate rises: few, so that a costly shape is not past them later than all others end."""
SERVED = 16
"""Batch size of the timed forward pass, that of the page."""


@dataclass(frozen=True)
class Shape:
    """A U-Net, and the levels with attention: "middle" (once, at the coarsest), "all" or "none"."""

    unet: UNetConfig
    attention: str = "middle"

    @property
    def name(self) -> str:
        """Return a description of the shape."""
        unet = self.unet
        widths = " → ".join(str(unet.width * m) for m in unet.multipliers)
        where = {"middle": "", "all": ", attention at every level", "none": ", no attention"}[self.attention]
        return f"patch {unet.patch}, channels {widths}, {unet.blocks} block{'s' * (unet.blocks > 1)}{where}"


SHAPES = (
    Shape(UNetConfig(multipliers=(1, 2))),
    Shape(UNetConfig(width=32, multipliers=(1, 2))),
    Shape(UNetConfig(width=64, multipliers=(1, 2))),
    Shape(UNetConfig(multipliers=(1, 2), blocks=2)),
    Shape(UNetConfig(multipliers=(1,))),
    Shape(UNetConfig(multipliers=(1, 1))),
    Shape(UNetConfig(patch=1, width=24, multipliers=(1, 2, 4))),
    Shape(UNetConfig(patch=4, width=96, multipliers=(1,))),
    Shape(UNetConfig(multipliers=(1, 2)), "none"),
    Shape(UNetConfig(multipliers=(1, 2)), "all"),
)
"""The default first; each of the others differs from it in one respect."""
LARGE_SHAPES = (
    Shape(UNetConfig(multipliers=(1, 2))),
    Shape(UNetConfig(multipliers=(1, 1))),
    Shape(UNetConfig(patch=4, multipliers=(1, 2))),
    Shape(UNetConfig(patch=4, multipliers=(1, 1))),
    Shape(UNetConfig(patch=4, width=64, multipliers=(1, 1))),
)
"""Shapes for pictures of a side of `config.LARGE` or more."""


@dataclass(frozen=True)
class Options:
    """Measure bound and distance of shapes of the U-Net after equal training time, and the time of a forward pass."""

    dataset: str = "fashion-mnist"
    """Data set to train on, as for `training/train_ddpm.py`."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; else GENLAB_DATA_DIR, Debian's package, the Hub, in this order."""
    size: int | None = None
    """Side of the pictures in pixels; by default the data set's own. From 48 on, other shapes are measured."""
    minutes: float = 10
    """CPU time of training of each shape, over all threads."""
    images: int = 1000
    """Number of held-out pictures for bound and prediction error (or all, if there are fewer), and of samples."""
    only: tuple[str, ...] = ()
    """Measure only shapes whose description contains one of these; by default all."""
    distances: bool = True
    """Measure the Fréchet distance of samples."""
    batch_size: int = 64
    """Pictures a step of training."""
    rounds: int = 5
    """Forward passes of each shape, of which the median is reported."""
    threads: int | None = None
    """CPU threads; by default torch's choice."""
    out: Path | None = None
    """Folder for shapes.json."""
    quick: bool = False
    """A trial run in a few minutes: 3 seconds of training and 100 pictures a shape; the figures mean little."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes < 24 * 60:
            raise ValueError(f"--minutes: expected more than 0 and less than a day, got {self.minutes}")
        if self.images < 2:
            raise ValueError(f"--images: expected 2 or more, got {self.images}")


def build(shape: Shape, data: DataSpec) -> DDPM:
    """Return an untrained model of this shape, otherwise the default."""
    from torch import nn

    from genlab.ddpm import DDPM
    from genlab.nn import Attention, ResBlock

    model = DDPM(DDPMConfig(unet=shape.unet), data)

    class Attending(ResBlock):
        """A residual block followed by attention."""

        def __init__(self, block: ResBlock, channels: int) -> None:
            nn.Module.__init__(self)
            self.block, self.attention = block, Attention(channels)

        def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
            return self.attention(self.block(x, embedding))

    if shape.attention == "none":
        model.unet.middle[1] = nn.Identity()
    if shape.attention == "all":
        for layers in (model.unet.down, model.unet.up):
            for index, layer in enumerate(layers):
                if isinstance(layer, ResBlock):
                    layers[index] = Attending(layer, layer.conv2.out_channels)
    return model


def forwards(shapes: dict[str, Shape], data: DataSpec, rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of forward passes of `SERVED` pictures as on the page, by shape, measured in alternation."""
    import torch

    from benchmarks.timing import alternate

    x, t = torch.randn(SERVED, *data.shape), torch.full((SERVED,), 500)

    def run(model: DDPM) -> Callable[[], object]:
        model.eval().unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return lambda: model.predict(x, t)

    return alternate({name: run(build(shape, data)) for name, shape in shapes.items()}, rounds, time.process_time)


def loop_of(shape: Shape, pictures: Dataset, batch_size: int, folder: Path) -> Loop:
    """Return our loop for a model of this shape, without decay of the learning rate."""
    from benchmarks.training import ENDLESS, our_loop
    from training.config import DDPMTraining

    common = {"warmup": WARMUP, "steps": ENDLESS, "decay": 0.0, "log_every": 1, "save_every": 10**9}
    config = DDPMTraining(batch_size=batch_size, run=folder / shape.name, **common)  # type: ignore[arg-type]
    return our_loop(config, pictures, lambda data: build(shape, data))


def train(loops: dict[str, Loop], seconds: float) -> dict[str, int]:
    """Train with every loop for `seconds` of CPU time, a few steps of each in turn; return the number of steps of each.

    The time of a step is unknown and varies on a busy machine, so the loop with the least time so far comes next.
    """
    from benchmarks.training import TOGETHER
    from training.partial import Progress

    spent, steps = dict.fromkeys(loops, 0.0), dict.fromkeys(loops, 0)
    progress = Progress(round(seconds * len(loops)), "s")
    progress.part("training")
    while spent[name := min(spent, key=spent.__getitem__)] < seconds:
        start = time.process_time()
        for _ in range(TOGETHER):
            loops[name].step()
            steps[name] += 1
            if (now := spent[name] + time.process_time() - start) >= seconds:
                break
        progress.update(round(min(now, seconds)) - round(spent[name]))
        spent[name] = now
    progress.close()
    return steps


def prediction_error(model: DDPM, pictures: Tensor) -> float:
    """Return the mean of L_simple (`genlab/ddpm.py`, eq. 1) over pictures (N C H W) uint8, each at `TIMES` times t."""
    import torch

    from benchmarks.training import TIMES
    from genlab.data import to_model
    from genlab.ddpm import training_times

    torch.manual_seed(0)
    x0, errors = to_model(pictures), []
    with torch.inference_mode():
        for _ in range(TIMES):
            t = training_times(model.config.T, len(x0), torch.rand(1))[torch.randperm(len(x0))]
            eps = torch.randn_like(x0)
            errors += [model.loss(x0[rows], t[rows], eps[rows]).simple for rows in torch.arange(len(x0)).split(100)]
    return float(torch.cat(errors).mean())


def run(options: Options) -> None:
    """Measure and print."""
    import tempfile

    import torch

    from benchmarks.network import flops
    from benchmarks.timing import machine, ratio, table
    from benchmarks.training import quality, unlabelled
    from genlab import data
    from genlab.config import Sampling
    from training.sample_quality import Reference, check

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    minutes, images = (0.05, 100) if options.quick else (options.minutes, options.images)
    torch.manual_seed(0)
    train_pictures, test = data.load_both(options.dataset, options.data_dir, options.size)
    pictures = unlabelled(train_pictures)
    held_out = unlabelled(test)
    shown = LARGE_SHAPES if pictures.spec.size >= LARGE else SHAPES
    if not any(each in shape.name for shape in shown for each in options.only or ("",)):
        raise SystemExit(f"--only: expected a part of one of {'; '.join(shape.name for shape in shown)}, got {options.only}")
    wanted = [shape for shape in shown if not options.only or any(each in shape.name for each in options.only)]
    shapes = {shape.name: shape for shape in wanted if pictures.spec.size % shape.unet.stride == 0}
    models = {name: build(shape, pictures.spec) for name, shape in shapes.items()}
    sampling, reference = Sampling(), None
    if options.distances:
        reference = Reference(held_out, pictures)
        check(next(iter(models.values())), reference, images, sampling)
    served = forwards(shapes, pictures.spec, options.rounds)

    with tempfile.TemporaryDirectory() as folder:
        loops = {name: loop_of(shape, pictures, options.batch_size, Path(folder)) for name, shape in shapes.items()}
        steps = train(loops, 60 * minutes)
        result = {}
        for name, loop in loops.items():
            model = loop.model()
            section, _ = quality(name, model, held_out.images[:images], images, (sampling,) * options.distances, reference)
            result[name] = {
                **asdict(shapes[name]),
                "parameters": sum(p.numel() for p in models[name].parameters()),
                "flops": flops(models[name].eval().predict, torch.zeros(1, *pictures.spec.shape)),
                "forward_seconds": statistics.median(served[name]),
                "steps": steps[name],
                "prediction_error": prediction_error(model, held_out.images[:images]),
                **section,
            }
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        facts = {"images": images, "batch_size": options.batch_size, "minutes": minutes, "shapes": result}
        (options.out / "shapes.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")

    first = next(iter(shapes))
    rows = []
    for name, found in result.items():
        row = [
            name,
            f"{found['parameters'] / 1e6:.2f} M",
            f"{found['flops'] / 1e6:.0f}",
            f"{ratio(served[name], served[first]):.2f}",
            f"{found['steps']:,}",
            f"{found['prediction_error']:.4f}",
            f"{found['bound_bits_per_dim']:.3f} ± {found['bound_standard_error_bits_per_dim']:.3f}",
        ]
        for each in found["distances"]:
            low, high = each["frechet_interval_95"]
            row.append(f"{each['frechet_distance']:.2f}, {low:.2f}–{high:.2f}")
        rows.append(row)
    side = pictures.spec.size
    print(
        f"Shapes of the U-Net after {minutes:g} minutes of CPU time of training each on {options.dataset}, {side}×{side}, at "
        f"most {images:,} pictures a figure. {machine()}.\n"
    )
    head = ["shape", "parameters", "MFLOP", f"× the first's time, {SERVED} pictures forward", "steps", "prediction error"]
    head += ["bound, bits/dim", *[f"Fréchet distance, {sampling.sampler}, {sampling.steps} steps"] * options.distances]
    print(table(head, rows))


def main() -> None:
    """Run the command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
