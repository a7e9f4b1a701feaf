"""Measure a model on held-out pictures: `python training/evaluate.py --help`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

if TYPE_CHECKING:
    from torch import Tensor

    from genlab.ddpm import DDPM
    from genlab.vae import VAE


@dataclass(frozen=True)
class Evaluation:
    """Measure a model on held-out pictures and write the result into its metrics.json and model card.

    A DDPM: every term of the variational bound, every t once for each picture, classes hidden, in bits per dimension. A VAE:
    the two terms of the ELBO, with the mass on each pixel's grey level as the likelihood, so that both stand in one unit.
    """

    model: Annotated[str, tyro.conf.Positional]
    """A run folder, a model folder, the name of a model that ships, or user/name[@revision] on the Hub."""
    dataset: str | None = None
    """Data set whose test pictures to take; the one that the model was trained on where none is given."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; GENLAB_DATA_DIR, Debian's package and the Hub come after it."""
    images: int | None = None
    """Number of test pictures, the first ones; 256 for a DDPM and all for a VAE where none is given."""
    batch_size: int = 64
    """Pictures a batch."""
    seed: int = 0
    """Fixes all noise."""

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("batch-size", self.batch_size)):
            if value is not None and value < 2:
                raise ValueError(f"--{name}: expected 2 or more, got {value}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed: expected a whole number from 0 to {2**32 - 1}, got {self.seed}")


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of (N) values and its standard error, s/√N."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def evaluate_ddpm(model: DDPM, pixels: Tensor, batch_size: int, seed: int) -> tuple[dict[str, Any], list[float]]:
    """The bound of pictures (N C H W) uint8: its summary, and the mean term of each step t = 1…T, bits per dimension."""
    import torch
    from tqdm import tqdm

    from genlab.data import to_model
    from genlab.divergence import bits_per_dim
    from genlab.vlb import prior_term, walk_bound

    generator = torch.Generator().manual_seed(seed)
    T, dims = model.schedule.T, model.data.dims
    steps = torch.zeros(len(pixels), T, dtype=torch.float64)
    prior = torch.zeros(len(pixels), dtype=torch.float64)
    with (
        torch.inference_mode(),
        tqdm(total=len(pixels) * T, unit="term", unit_scale=True, mininterval=1.0, disable=None) as bar,
    ):
        for first in range(0, len(pixels), batch_size):
            x0 = to_model(pixels[first : first + batch_size])
            rows = slice(first, first + len(x0))
            prior[rows] = prior_term(model.schedule, x0).double()
            for t, term in walk_bound(model.schedule, model.reverse, x0, generator):
                steps[rows, t - 1] = term.double()
                bar.update(len(x0))
    steps, prior = bits_per_dim(steps, dims), bits_per_dim(prior, dims)
    total, error = mean_and_error(prior + steps.sum(dim=1))
    summary = {
        "bound_bits_per_dim": total,
        "bound_standard_error_bits_per_dim": error,
        "prior_term_L_T_bits_per_dim": float(prior.mean()),
        "transition_terms_sum_bits_per_dim": float(steps[:, 1:].sum(dim=1).mean()),
        "decoder_term_L_0_bits_per_dim": float(steps[:, 0].mean()),
        "T": T,
        "variance": model.config.variance,
    }
    return summary, steps.mean(dim=0).tolist()


def evaluate_vae(model: VAE, pixels: Tensor, batch_size: int, seed: int) -> dict[str, Any]:
    """The ELBO of pictures (N C H W) uint8, one z for each; binarised dynamically where the decoder is Bernoulli."""
    import torch
    from tqdm import tqdm

    from genlab.data import binarise, to_model
    from genlab.divergence import bits_per_dim

    generator = torch.Generator().manual_seed(seed)
    reconstruction, divergence = [], []
    with torch.inference_mode():
        for batch in tqdm(pixels.split(batch_size), unit="batch", mininterval=1.0, disable=None):
            x = to_model(batch)
            x = binarise(x, generator) if model.binary else x
            terms = model.elbo(x, torch.randn(len(x), model.config.latent, generator=generator), discretised=True)
            reconstruction.append(terms.reconstruction.double())
            divergence.append(terms.kl.double())
    log_likelihood, kl = torch.cat(reconstruction), torch.cat(divergence)
    elbo, error = mean_and_error(log_likelihood - kl)
    summary = {
        "elbo_nats": elbo,
        "elbo_standard_error_nats": error,
        "reconstruction_nats": float(log_likelihood.mean()),
        "kl_nats": float(kl.mean()),
        "likelihood": "bernoulli, dynamic binarisation" if model.binary else f"discretised {model.config.likelihood}",
    }
    if not model.binary:
        bits, bits_error = mean_and_error(bits_per_dim(kl - log_likelihood, model.data.dims))
        summary |= {"bound_bits_per_dim": bits, "bound_standard_error_bits_per_dim": bits_error}
    return summary


def run(options: Evaluation) -> int:
    """Measure, print, and write the result where the model is a folder."""
    import json

    from genlab import data, hub
    from genlab.ddpm import DDPM

    shipped = Path(__file__).resolve().parents[1] / "genlab" / "pretrained" / options.model
    folder = next(
        (f for f in (Path(options.model) / "model", Path(options.model), shipped) if (f / "config.json").is_file()), None
    )
    try:
        package = hub.read(folder or options.model)
        model = package.model
        test_set = data.load(options.dataset or model.data.name, "test", options.data_dir, model.data.size, model.data.channels)
        wanted = options.images or (256 if isinstance(model, DDPM) else len(test_set))
        if wanted > len(test_set):
            raise data.DataError(
                f"--images: expected at most the {len(test_set)} test pictures of {test_set.spec.name}, got {wanted}"
            )
        pixels = test_set.images[:wanted]
        metrics = dict(package.metrics)
        if isinstance(model, DDPM):
            summary, metrics["ledger_bits_per_dim"] = evaluate_ddpm(model, pixels, options.batch_size, options.seed)
        else:
            summary = evaluate_vae(model, pixels, options.batch_size, options.seed)
        summary |= {
            "images": wanted,
            "split": "test",
            "dataset": test_set.spec.name,
            "data_sha256": test_set.sha256,
            "seed": options.seed,
        }
        metrics["evaluation"] = {**metrics.get("evaluation", {}), "likelihood": summary}
        print(json.dumps(summary, indent=2))
        if folder is not None:
            (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
            hub.refresh_card(folder)
    except (data.DataError, hub.HubError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """The command line."""
    return run(tyro.cli(Evaluation))


if __name__ == "__main__":
    sys.exit(main())
