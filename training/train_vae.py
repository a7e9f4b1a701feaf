"""Train a VAE: `python training/train_vae.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.config import VAETraining, parse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from genlab.config import DataSpec
    from training.run import Task


def task(config: VAETraining) -> Task:
    """Return the task of training a VAE."""
    import torch

    from genlab.data import binarise
    from genlab.vae import VAE
    from training.run import Task

    def build(data: DataSpec) -> VAE:
        return VAE(config.model, data)

    def loss(network: nn.Module, x: Tensor, label: Tensor | None) -> dict[str, Tensor]:
        if config.model.likelihood == "bernoulli":
            x = binarise(x)
        terms = network(x, torch.randn(len(x), config.model.latents, device=x.device))
        return {"loss": -terms.total, "reconstruction": -terms.reconstruction, "kl": terms.kl}

    return Task(build, loss)


def main() -> int:
    """Run the command line."""
    config = parse(VAETraining)
    from training.run import main as run

    return run(config, task(config))


if __name__ == "__main__":
    sys.exit(main())
