"""Train a DDPM: `python training/train_ddpm.py --help`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.config import DDPMTraining, parse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from genlab.config import DataSpec
    from genlab.latent import LatentDDPM
    from training.draws import Draws
    from training.run import Task, TrainingData

MEASURED = 2**27
"""Largest number of values of the pictures that mean and scale of the codes are set from: half a gigabyte."""


def task(config: DDPMTraining) -> Task:
    """Return the task of training a DDPM, of pictures or of a VAE's codes.

    Raises:
        ModelError: `config.vae` is not a VAE.
    """
    import torch
    from accelerate.utils import gather

    from genlab.ddpm import DDPM, TimeSampler, training_times
    from training.draws import Draws
    from training.run import Task

    codes = Codes(config) if config.vae is not None else None
    times = TimeSampler(config.model.T)
    seen: list[tuple[Tensor, Tensor]] = []

    def build(data: DataSpec) -> nn.Module:
        return DDPM(config.model, data) if codes is None else codes.build(data)

    def loss(network: nn.Module, x0: Tensor, label: Tensor | None, draws: Draws | None = None) -> dict[str, Tensor]:
        draws = draws or Draws(len(x0))
        t, weight = draws.of(training_times(config.model.T, draws.count, draws.number())), None
        if config.objective == "bound":
            t, weight = map(draws.of, times.draw(draws.count, draws.number()))
            weight = weight.to(x0, non_blocking=True)
        t = t.to(x0.device, non_blocking=True)
        if label is not None and network.training:
            label = label.where(draws.rand(device=x0.device) >= config.label_dropout, -1)
        eps = draws.randn(*(x0.shape[1:] if codes is None else codes.shape), device=x0.device)
        if weight is not None:
            parts = network(x0, t, eps, label, whole_bound=True)
            terms = parts.bound / config.model.T
            if network.training:
                seen.append((t, terms.detach()))
                if draws.last:
                    times.update(*(gather(torch.cat(each)) for each in zip(*seen, strict=True)))
                    seen.clear()
            return {"loss": terms * weight, "simple": parts.simple}
        parts = network(x0, t, eps, label)
        bound = {"bound": parts.bound} if config.model.variance == "learned" else {}
        return {"loss": parts.total, "simple": parts.simple} | bound

    return Task(build, loss, {"times": times.state}, data=None if codes is None else codes.data)


class Codes:
    """The VAE on whose codes a DDPM is trained; mean and scale of the codes are set when the pictures are read.

    Raises:
        ModelError: `config.vae` is not a VAE.
    """

    def __init__(self, config: DDPMTraining) -> None:
        from genlab import hub
        from genlab.config import LatentConfig
        from genlab.package import ModelError
        from genlab.vae import VAE

        assert config.vae is not None
        self.config, self.package = config, hub.read(config.vae)
        if not isinstance(self.package.model, VAE):
            raise ModelError(f"--vae {config.vae}: expected a VAE, got a model of kind {self.package.model.kind}")
        self.vae = self.package.model
        self.shape = (self.vae.config.latent, self.vae.config.side, self.vae.config.side)
        self.model = LatentConfig(config.model, self.vae.config)
        self.scale: tuple[Tensor, Tensor] | None = None

    def build(self, data: DataSpec) -> LatentDDPM:
        """Return the model, with the weights of the VAE.

        Raises:
            ValueError: the VAE is for pictures of another shape or other classes.
        """
        from genlab.latent import LatentDDPM

        if data != self.vae.data:
            raise ValueError(f"--vae {self.config.vae}: expected a VAE of {data}, got one of {self.vae.data}")
        model = LatentDDPM(self.model, data)
        model.vae.load_state_dict(self.vae.state_dict())
        model.vae.requires_grad_(False)
        if self.scale is not None:
            model.mean.copy_(self.scale[0])
            model.std.copy_(self.scale[1])
        return model

    def data(self) -> TrainingData:
        """Return the pictures, and set mean and scale of the codes from the first ones: 10,000, or fewer large ones."""
        from accelerate import PartialState

        from genlab.data import to_model
        from training.run import load_pictures

        given = load_pictures(self.config, self.build)
        model = self.build(given.train.spec)
        model.measure_codes(to_model(given.train.images[: min(10_000, MEASURED // given.train.spec.dims)]))
        self.scale = (model.mean.clone(), model.std.clone())
        if PartialState().is_main_process:
            latent, side, _ = self.shape
            unet = self.config.model.unet
            print(
                f"codes of {self.config.vae}: {latent} × {side} × {side}; the network has patch {unet.patch}, multipliers "
                f"{' '.join(map(str, unet.multipliers))} and no grids (--patch, --multipliers)",
                flush=True,
            )
        return replace(given, facts={"vae_sha256": self.package.weights_sha256})


def main() -> int:
    """Run the command line."""
    config = parse(DDPMTraining)
    from genlab.package import ModelError
    from training.run import main as run

    try:
        made = task(config)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return run(config, made)


if __name__ == "__main__":
    sys.exit(main())
