"""Train a DDPM: `python training/train_ddpm.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script: look for modules beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from training.config import DDPMTraining

if TYPE_CHECKING:
    from torch import Tensor, nn

    from genlab.config import DataSpec
    from training.run import Task


def task(config: DDPMTraining) -> Task:
    """What training a DDPM needs beside the loop."""
    import torch
    from accelerate.utils import gather

    from genlab.ddpm import DDPM, TimeSampler, training_times
    from training.run import Task

    def build(data: DataSpec) -> DDPM:
        return DDPM(config.model, data)

    times = TimeSampler(config.model.T)

    def loss(network: nn.Module, x0: Tensor, label: Tensor | None) -> dict[str, Tensor]:
        t, weight = training_times(config.model.T, len(x0), torch.rand(1)), None
        if config.objective == "bound":
            t, weight = times.draw(len(x0), torch.rand(1))
            weight = weight.to(x0, non_blocking=True)
        t = t.to(x0.device, non_blocking=True)
        if label is not None and network.training:
            label = label.where(torch.rand(len(x0), device=x0.device) >= config.label_dropout, -1)
        if weight is not None:
            parts = network(x0, t, torch.randn_like(x0), label, whole_bound=True)
            terms = parts.bound / config.model.T
            if network.training:
                times.update(gather(t), gather(terms.detach()))
            return {"loss": terms * weight, "simple": parts.simple}
        parts = network(x0, t, torch.randn_like(x0), label)
        bound = {"bound": parts.bound} if config.model.variance == "learned" else {}
        return {"loss": parts.total, "simple": parts.simple} | bound

    return Task(build, loss, {"times": times.state})


def main() -> int:
    """The command line."""
    config = tyro.cli(DDPMTraining, config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff))
    from training.run import main as run

    return run(config, task(config))


if __name__ == "__main__":
    sys.exit(main())
