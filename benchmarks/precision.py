"""Whether pictures drawn in bf16 are as good as those drawn in fp32: `python benchmarks/precision.py --help`.

The same network draws from the same noise in both. The page draws in bf16 where the CPU computes in it; here both are measured
wherever this runs: a CPU without bf16 rounds as one with it does, only slowly.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if not __package__:  # run as a script: look for modules beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro


@dataclass(frozen=True)
class Options:
    """Fréchet distance of pictures by the default sampler in fp32 and in bf16, and how far they lie apart."""

    model: str = "ddpm-fashion-mnist"
    """A run or model folder, the name of a model that ships, or user/name[@revision] on the Hub."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; GENLAB_DATA_DIR, Debian's package and the Hub come after it."""
    images: int = 2000
    """Pictures that are drawn in each, more than the features of the classifier (64)."""
    batch_size: int = 100
    """Pictures that go through the network together."""
    seed: int = 0
    """Fixes all noise."""


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
        seen, generator = reference.feature_network.features(drawn), torch.Generator().manual_seed(options.seed)
        low, high = metrics.frechet_interval(seen, reference.held_out, generator)
        first = drawn if first is None else first
        apart = (drawn.float() - first.float()).abs()
        row = [name, f"{metrics.frechet_distance(seen, reference.held_out):.3f}", f"{low:.3f} to {high:.3f}"]
        rows.append([*row, f"{apart.mean():.2f}", f"{(apart > 8).float().mean():.2%}"])
    print(
        f"{options.model}, {options.images:,} pictures by {how.sampler}, {how.steps} steps, from the same noise. {machine()}.\n"
    )
    print(table(["arithmetic", "Fréchet distance", "95%", "mean gray levels apart", "pixels more than 8 apart"], rows))


def main() -> None:
    """The command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
