"""Measure the quality of samples: draw them from a model and compare them with held-out and training pictures.

Every figure is reported beside its floor, the score of random training pictures of the same number against the same held-out
pictures (`measure`). A model that has learned the distribution of its training pictures perfectly, or one that copies them,
reaches that floor, and goes below it only by chance. The memorised share distinguishes the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor
from tqdm import tqdm

from genlab import features, metrics
from genlab.config import Sampling
from genlab.consistency import Consistency
from genlab.data import Dataset, grid, to_model, to_pixels
from genlab.draw import draw, own_spacing, own_variance, sampling_times
from genlab.features import Classifier
from genlab.latent import LatentDDPM
from genlab.measurements import Curve, Features, Reconstructions, Samples, to_json
from genlab.metrics import Nearest
from genlab.mixture import MixtureVAE
from genlab.models import Decoding, Model
from genlab.nn import computes_bf16
from genlab.vae import VAE

FLOOR_DRAWS = 10
"""Number of draws of training pictures over which the floor is averaged."""
HELD_OUT = 5_000
"""Largest number of held-out pictures for the usual closeness to a training picture."""
SHOWN = 16
"""Samples in each half of nearest.png."""
SEEDS_APART = 1_000_000
"""An evaluation with seed s draws pictures with the seeds s · 1,000,000, s · 1,000,000 + 1, …, distinct for different s."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The held-out and the training pictures to compare samples with; the features of each are computed once."""

    test: Dataset
    train: Dataset
    _closeness: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def feature_network(self) -> Classifier:
        """Return the feature network of the training pictures.

        Raises:
            FeatureError: there is none.
        """
        return features.classifier_for(self.train)

    @cached_property
    def held_out(self) -> Tensor:
        """Return the features of the held-out pictures, (M, D)."""
        return self.feature_network.features(self.test.images)

    @cached_property
    def trained(self) -> Tensor:
        """Return the features of the training pictures, (N, D)."""
        return self.feature_network.features(self.train.images)

    def draws(self, count: int, generator: Generator) -> list[Tensor]:
        """Return the features of `count` training pictures drawn without replacement, (count, D), `FLOOR_DRAWS` times."""
        return [self.trained[torch.randperm(len(self.trained), generator=generator)[:count]] for _ in range(FLOOR_DRAWS)]

    def closeness(self, rows: Tensor) -> Tensor:
        """Return the closeness of held-out pictures (R) to a training picture (`metrics`, eq. 4), (R)."""
        chosen = tuple(rows.tolist())
        if chosen not in self._closeness:
            self._closeness[chosen] = self.nearest(self.test.images[rows]).closeness
        return self._closeness[chosen]

    def nearest(self, pictures: Tensor) -> Nearest:
        """Find the nearest training pictures by pixels."""
        return metrics.nearest(pictures.flatten(1), self.train.images.flatten(1), metrics.CROWD)


def check(model: Model, reference: Reference, count: int, sampling: Sampling) -> None:
    """Raise ValueError, before any slow computation, if `measure` would for these arguments."""
    test, train = reference.test, reference.train
    if test.spec != train.spec:
        raise ValueError(f"expected test and training pictures of one data set, got {test.spec} and {train.spec}")
    if model.data.shape != test.spec.shape:
        raise ValueError(f"expected pictures {model.data.shape} for this model, got {test.spec.shape} of {test.spec.name}")
    dims = reference.feature_network.dims
    for what, given in (("samples", count), ("held-out pictures", len(test))):
        if given <= dims:
            raise ValueError(f"expected more than {dims} {what} for the covariance of {dims} features, got {given}")
    if len(train) < count:
        raise ValueError(f"expected at most as many samples as the {len(train)} training pictures, got {count}")
    if not isinstance(model, Decoding):
        try:
            sampling_times(model, sampling)
        except ValueError as error:
            raise ValueError(f"steps: {error}") from error


def measure(
    model: Model,
    reference: Reference,
    count: int = 2000,
    seed: int = 0,
    sampling: Sampling | None = None,
    folder: Path | None = None,
    batch_size: int = 100,
    pictures: Tensor | None = None,
) -> tuple[dict[str, Any], Tensor]:
    """Draw samples and measure them; deterministic under `seed`, with a progress bar.

    Args:
        model: in evaluation mode, on any device.
        reference: pictures to compare with; every distance is to the held-out ones.
        count: number of samples.
        folder: to write nearest.png to, samples beside their nearest training pictures.
        pictures: the samples if they have been drawn already.

    Returns:
        The section `samples` of metrics.json, and the samples (N C H W) uint8. Figures that end in `_floor` or `_of_real` are
        those of `count` training pictures in place of the samples; `memorised_share_of_held_out` is the base rate.

    Raises:
        ValueError: there is no feature network for these pictures, they do not suit the model or each other, there are too few
            for the covariance of the features, or the sampler does not support that many steps.
    """
    sampling = sampling or Sampling()
    check(model, reference, count, sampling)
    test, train, network = reference.test, reference.train, reference.feature_network
    how = _how(model, sampling)
    if pictures is None:
        with tqdm(
            total=count * how["steps"],
            desc="samples",
            unit="step",
            unit_scale=True,
            mininterval=1.0,
            dynamic_ncols=True,
            disable=None,
        ) as bar:
            pictures = torch.cat(list(draw(model, count, seed * SEEDS_APART, sampling, batch_size, bar.update)))

    generator, extrapolating = (torch.Generator().manual_seed(seed) for _ in range(2))
    sampled, held_out, trained = network.features(pictures), reference.held_out, reference.trained
    draws = reference.draws(count, generator)
    centre = trained.mean(dim=0)
    kernel, *kernel_floor = (metrics.kernel_distance(some - centre, held_out - centre, generator) for some in (sampled, *draws))
    equal = held_out[torch.randperm(len(held_out), generator=generator)[:count]]
    shares, real = (metrics.precision_recall(some[: len(equal)], equal) for some in (sampled, draws[0]))
    rows = torch.randperm(len(test), generator=generator)[:HELD_OUT]
    by_pixel = reference.nearest(pictures)
    usual = (reference.closeness(rows), network.classes(held_out[rows]))
    section = Samples(
        images=count,
        seed=seed,
        first_seed=seed * SEEDS_APART,
        **how,
        reference="test",
        reference_images=len(test),
        reference_data_sha256=test.sha256,
        training_data_sha256=train.sha256,
        features=Features(**network.facts()),
        frechet_distance=metrics.frechet_distance(sampled, held_out),
        frechet_interval_95=metrics.frechet_interval(sampled, held_out, generator),
        frechet_floor=_mean(metrics.frechet_distance(some, held_out) for some in draws),
        frechet_extrapolated=metrics.frechet_extrapolated(sampled, held_out, extrapolating),
        frechet_extrapolated_floor=metrics.frechet_extrapolated(draws[0], held_out, extrapolating),
        kernel_distance_x1000=1000 * kernel.value,
        kernel_distance_standard_error_x1000=1000 * kernel.error,
        kernel_distance_floor_x1000=1000 * _mean(found.value for found in kernel_floor),
        neighbours=metrics.NEIGHBOURS,
        precision=shares.precision,
        recall=shares.recall,
        precision_of_real=real.precision,
        recall_of_real=real.recall,
        memorised_share=metrics.memorised_share(by_pixel.closeness, network.classes(sampled), *usual),
        memorised_share_of_held_out=metrics.memorised_share(*usual, *usual),
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        nearest_page(pictures, train.images, by_pixel, metrics.nearest(sampled, trained)).save(
            folder / "nearest.png", optimize=True
        )
    return to_json(section), pictures


@torch.inference_mode()
def reconstructions(
    model: VAE | MixtureVAE | LatentDDPM, reference: Reference, count: int, seed: int, batch_size: int = 100
) -> dict[str, Any]:
    """Return the Fréchet distance of reconstructed training pictures to held-out pictures.

    It is what samples would score with a perfect prior: z ~ q(z|x) of `count` random training pictures, and the decoder's mean.

    Returns:
        The section `reconstructions` of metrics.json.
    """
    vae = model if isinstance(model, VAE) else model.vae
    device, network, generator = next(vae.parameters()).device, reference.feature_network, Generator().manual_seed(seed)
    rows = torch.randperm(len(reference.train), generator=generator)[:count]
    decoded = []
    for some in reference.train.images[rows].split(batch_size):
        q = vae.encode(to_model(some).to(device))
        noise = torch.randn(q.mean.shape, generator=generator).to(device)
        decoded.append(to_pixels(vae.decode(q.sample(noise)).mean).cpu())
    features = network.features(torch.cat(decoded))
    found = Reconstructions(
        images=count,
        features=Features(**network.facts()),
        frechet_distance=metrics.frechet_distance(features, reference.held_out),
        frechet_interval_95=metrics.frechet_interval(features, reference.held_out, generator),
        frechet_floor=metrics.frechet_distance(reference.trained[rows], reference.held_out),
    )
    return to_json(found)


def curve(reference: Reference, pictures: dict[int, Tensor], seed: int, sampling: Sampling) -> dict[str, Any]:
    """Return the Fréchet distance of samples to held-out pictures by the number of steps of the sampler.

    Args:
        reference: as in `measure`.
        pictures: number of steps → samples (N C H W) uint8, of the same number for each.

    Returns:
        The section `steps` of metrics.json, with the floor for the same number of training pictures.
    """
    network, held_out, count = reference.feature_network, reference.held_out, len(next(iter(pictures.values())))
    draws = reference.draws(count, torch.Generator().manual_seed(seed))
    found = Curve(
        images=count,
        sampler=sampling.sampler,
        spacing=own_spacing(sampling),
        features=Features(**network.facts()),
        steps=list(pictures),
        frechet_distance=[metrics.frechet_distance(network.features(drawn), held_out) for drawn in pictures.values()],
        frechet_floor=_mean(metrics.frechet_distance(some, held_out) for some in draws),
    )
    return to_json(found)


def _mean(values: Iterator[float]) -> float:
    given = list(values)
    return sum(given) / len(given)


def _how(model: Model, sampling: Sampling) -> dict[str, Any]:
    """Return the sampling options that affect the samples of this model."""
    if isinstance(model, Decoding):
        return {"sampler": "decoder mean", "steps": 1, "network_evaluations": 1}
    labels = sampling.label if model.data.classes else "none"
    guided = labels != "none" and sampling.guidance != 1
    how: dict[str, Any] = {
        "sampler": "consistency" if isinstance(model, Consistency) else sampling.sampler,
        "steps": sampling.steps,
        "network_evaluations": sampling.steps * (2 if guided else 1),
        "labels": labels,
    }
    if not isinstance(model, Consistency):
        how["spacing"] = own_spacing(sampling)
        if sampling.sampler == "DDIM":
            how["eta"] = sampling.eta
        if sampling.sampler == "ancestral":
            how["variance"] = own_variance(model, sampling)
    if guided:
        how["guidance"] = sampling.guidance
    if sampling.precision == "auto" and computes_bf16():
        how["arithmetic"] = "bf16"
    return how


def nearest_page(pictures: Tensor, training: Tensor, by_pixel: Nearest, by_feature: Nearest) -> Image.Image:
    """Return a page of samples, each beside its nearest training picture by pixels and by features.

    The left half shows the first samples; the right half those that are closest to a training picture (`metrics`, eq. 4).
    """
    first = torch.arange(min(SHOWN, len(pictures)))
    closest = by_pixel.closeness.argsort()[:SHOWN]
    titles = ("The first samples, not selected", f"Of {len(pictures):,} samples, the closest to a training picture")
    columns = []
    for rows in (*first.chunk(2), *closest.chunk(2)):
        nearest = (training[found.index[rows, 0]] for found in (by_pixel, by_feature))
        sheet = grid(torch.stack([pictures[rows], *nearest], dim=1).flatten(0, 1), columns=3)
        columns.append(sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST))
    width, height = columns[0].size
    margin, head = 20, 76
    page = Image.new(columns[0].mode, (4 * width + 5 * margin, height + head + margin), "white")
    pen = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(15), ImageFont.load_default(11)
    for i, column in enumerate(columns):
        left = margin + i * (width + margin)
        page.paste(column, (left, head))
        if i % 2 == 0:
            pen.text((left, 10), titles[i // 2], "black", font=large)
            pen.text((left, 32), "Each sample is followed by its nearest training picture", "black", font=small)
        for place, text in enumerate(("sample", "by pixels", "by features")):
            pen.text((left + (place + 0.5) * width / 3, head - 4), text, "black", font=small, anchor="mb")
    return page
