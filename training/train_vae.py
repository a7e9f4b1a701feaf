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
    from training.draws import Draws
    from training.run import Task


def task(config: VAETraining) -> Task:
    """Return the task of training a VAE."""
    from genlab.vae import VAE
    from training.draws import Draws
    from training.run import Task

    def build(data: DataSpec) -> VAE:
        return VAE(config.model, data)

    def loss(network: nn.Module, x: Tensor, label: Tensor | None, draws: Draws | None = None) -> dict[str, Tensor]:
        draws = draws or Draws(len(x))
        if config.model.likelihood == "bernoulli":
            x = (draws.rand(*x.shape[1:], device=x.device) < (x + 1) / 2) * 2.0 - 1
        terms = network(x, draws.randn(config.model.latents, device=x.device))
        return {"loss": -terms.total, "reconstruction": -terms.reconstruction, "kl": terms.kl}

    return Task(build, loss)


def main() -> int:
    """Run the command line."""
    config = parse(VAETraining)
    from training.run import main as run

    return run(config, task(config))


if __name__ == "__main__":
    sys.exit(main())
