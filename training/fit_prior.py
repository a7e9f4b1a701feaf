"""Fit a mixture of Gaussians to the codes of a VAE, as its prior: `python training/fit_prior.py --help`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from training.config import parse


@dataclass(frozen=True)
class PriorFit:
    """Fit a mixture of Gaussians to the codes of a VAE's training pictures and make it the prior.

    Encoder and decoder stay as they are. The result is a model of its own (`genlab/mixture.py`), written to RUN/model.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """VAE to fit a prior to: a run, a folder, the name of a model that ships, or user/name on the Hub."""
    components: int = 10
    """Number of Gaussians, each with a full covariance."""
    rounds: int = 100
    """Most rounds of expectation maximisation; it ends earlier when the likelihood no longer rises."""
    dataset: str | None = None
    """Data set of the VAE's training pictures; by default the one it was trained on."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; else GENLAB_DATA_DIR, Debian's package, the Hub, in this order."""
    seed: int = 0
    """Seed of the codes and of the first components."""
    run: Path | None = None
    """Run folder to write to; by default runs/mixture-vae-DATASET."""

    def __post_init__(self) -> None:
        for name, low, high in (("components", 1, 1000), ("rounds", 1, 10_000), ("seed", 0, 2**32 - 1)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name}: expected a whole number from {low} to {high}, got {getattr(self, name)}")

    def command(self) -> str:
        """Return the command that fits this prior."""
        from training.evaluate import command_of

        return command_of("training/fit_prior.py", self)


def run(config: PriorFit) -> int:
    """Fit, report and write; return the exit status: 0 done, 1 an error that the message explains."""
    from genlab.package import ModelError
    from training.checkpoint import RunError

    try:
        return _run(config)
    except (ValueError, OSError, ModelError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(config: PriorFit) -> int:
    import torch
    from tqdm import tqdm

    from genlab import data, hub
    from genlab.config import MixtureConfig, Sampling
    from genlab.data import Dataset
    from genlab.divergence import standard_normal
    from genlab.draw import frames
    from genlab.mixture import MixtureVAE, fit_mixture
    from genlab.package import ModelError, write_package
    from genlab.vae import VAE
    from training.checkpoint import RunError
    from training.evaluate import Evaluation, load_data

    start = time.monotonic()
    package = hub.read(config.model)
    vae = package.model
    if not isinstance(vae, VAE):
        raise ModelError(f"{config.model}: expected a VAE, got a model of kind {vae.kind}")
    folder = config.run or Path("runs") / f"mixture-vae-{vae.data.name}"
    if (folder / "model").exists():
        raise RunError(f"{folder} holds an earlier model: choose another folder with --run, or remove it")
    mixed = MixtureVAE(MixtureConfig(vae.config, config.components), vae.data).eval()
    mixed.vae.load_state_dict(vae.state_dict())
    test, train = load_data(Evaluation(config.model, dataset=config.dataset, data_dir=config.data_dir), package)
    generator = torch.Generator().manual_seed(config.seed)

    def codes(pictures: Dataset) -> torch.Tensor:
        found = []
        with torch.inference_mode():
            for some in tqdm(pictures.images.split(500), desc="codes", unit="batch", disable=None):
                q = vae.encode(data.to_model(some))
                found.append(q.sample(torch.randn(q.mean.shape, generator=generator)))
        return torch.cat(found).double()

    trained, held_out = codes(train), codes(test)
    with tqdm(total=config.rounds, desc="mixture", unit="round", disable=None) as bar:

        def report(log_likelihood: float) -> None:
            bar.set_postfix_str(f"−log p(z) {-log_likelihood:.2f} nats")
            bar.update()

        mixture = fit_mixture(trained, config.components, generator, config.rounds, on_round=report)
    mixed.set_prior(mixture)
    loss = {}
    for name, z in (("training", trained), ("held_out", held_out)):
        fitted, standard = mixture.log_prob(z), standard_normal(z).log_prob(z)
        loss[name] = {"codes": -float(fitted.mean()), "codes_standard_normal": -float(standard.mean())}
    for name, values in loss.items():
        print(
            f"−log p(z) of the {name.replace('_', '-')} codes: {values['codes']:.2f} nats by the mixture, "
            f"{values['codes_standard_normal']:.2f} by N(0, I)"
        )
    of_vae = package.metrics.get("training", {})
    metrics = {
        "command": config.command(),
        "seed": config.seed,
        "training": {
            "seconds": round(time.monotonic() - start),
            "device": "cpu",
            "data_sha256": of_vae.get("data_sha256", train.sha256),
            "vae_sha256": package.weights_sha256,
        },
        "loss": {**loss, "held_out_images": len(test)},
    }
    *_, sheet = frames(mixed, range(64), Sampling())
    (folder / "model").mkdir(parents=True)
    data.grid(sheet.pictures).save(folder / "model" / "samples.png")
    write_package(
        folder / "model", mixed, metrics, Dataset(vae.data, package.examples, package.labels, package.source), half=True
    )
    print(f"model written to {folder / 'model'}")
    return 0


def main() -> int:
    """Run the command line."""
    return run(parse(PriorFit))


if __name__ == "__main__":
    sys.exit(main())
