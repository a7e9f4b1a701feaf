"""Compare the quality of pictures drawn in bf16 and in fp32: `python benchmarks/precision.py --help`.

The same network draws from the same noise in both. The page draws in bf16 on a CPU with bf16 instructions; this benchmark runs
anywhere, since a CPU without them rounds in the same way, only slowly.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro


@dataclass(frozen=True)
class Options:
    """Measure the Fréchet distance of samples by the default sampler in fp32 and in bf16, and their difference."""

    model: str = "ddpm-fashion-mnist"
    """A run or model folder, the name of a model that ships, or user/name[@revision] on the Hub."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; else GENLAB_DATA_DIR, Debian's package, the Hub, in this order."""
    images: int = 2000
    """Pictures to draw in each precision, more than the features of the classifier (64)."""
    batch_size: int = 100
    """Pictures a batch."""
    seed: int = 0
    """Seed of all noise."""


def run(options: Options) -> None:
    """Measure and print."""
    import torch
    from tqdm import tqdm

    from benchmarks.network import shipped_model
    from benchmarks.timing import machine, table
    from genlab import data, metrics
    from genlab.config import Sampling
    from genlab.draw import draw
    from training.sample_quality import Reference, check

    model, how = shipped_model(options.model), Sampling()
    shape = (options.data_dir, model.data.size, model.data.channels)
    reference = Reference(data.load(model.data.name, "test", *shape), data.load(model.data.name, "train", *shape))
    check(model, reference, options.images, how)
    model.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows, first = [], None
    for name in ("fp32", "bf16"):
        steps = tqdm(total=options.images * how.steps, desc=name, unit="evaluation", unit_scale=True, disable=None)
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"), steps:
            drawn = torch.cat(list(draw(model, options.images, options.seed, how, options.batch_size, steps.update)))
        features, generator = reference.feature_network.features(drawn), torch.Generator().manual_seed(options.seed)
        low, high = metrics.frechet_interval(features, reference.held_out, generator)
        first = drawn if first is None else first
        difference = (drawn.float() - first.float()).abs()
        row = [name, f"{metrics.frechet_distance(features, reference.held_out):.3f}", f"{low:.3f} to {high:.3f}"]
        rows.append([*row, f"{difference.mean():.2f}", f"{(difference > 8).float().mean():.2%}"])
    print(
        f"{options.model}, {options.images:,} pictures by {how.sampler}, {how.steps} steps, from the same noise. {machine()}.\n"
    )
    print(table(["arithmetic", "Fréchet distance", "95%", "mean gray levels apart", "pixels more than 8 apart"], rows))


def main() -> None:
    """Run the command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
