"""How good the samples of a model are: drawn from it, and measured against held-out and training pictures.

What is reported never stands alone (`measure`): beside each figure is what real pictures score in its place, at the same number
and against the same held-out pictures. Those are training pictures drawn at random: a model that had learned the distribution
of its training pictures perfectly, or one that copied them, would come down to that floor, and no lower but by chance. The
memorised share tells the two apart.
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
from genlab.data import Dataset, grid
from genlab.draw import draw, own_spacing, own_variance, sampling_times
from genlab.features import Classifier
from genlab.measurements import Curve, Features, Samples, to_json
from genlab.metrics import Nearest
from genlab.models import Model
from genlab.nn import computes_bf16
from genlab.vae import VAE

FLOOR_DRAWS = 10
"""Draws of training pictures that the floor is the mean of."""
HELD_OUT = 5_000
"""Most held-out pictures that say how close to a training picture is usual."""
SHOWN = 16
"""Samples in each half of nearest.png."""
SEEDS_APART = 1_000_000
"""An evaluation with seed s draws the pictures of the seeds s · 1,000,000, s · 1,000,000 + 1, …: with another s, others."""


@dataclass(frozen=True, eq=False)
class Reference:
    """All held-out pictures of a data set, and all training pictures: what samples are compared with. Looked at once each."""

    test: Dataset
    train: Dataset
    _closeness: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def eye(self) -> Classifier:
        """The feature network of the training pictures.

        Raises:
            FeatureError: there is none.
        """
        return features.classifier_for(self.train)

    @cached_property
    def held_out(self) -> Tensor:
        """Features of the held-out pictures, (M, D)."""
        return self.eye.features(self.test.images)

    @cached_property
    def trained(self) -> Tensor:
        """Features of the training pictures, (N, D)."""
        return self.eye.features(self.train.images)

    def draws(self, count: int, generator: Generator) -> list[Tensor]:
        """`FLOOR_DRAWS` times the features of `count` training pictures, drawn without replacement, (count, D) each."""
        return [self.trained[torch.randperm(len(self.trained), generator=generator)[:count]] for _ in range(FLOOR_DRAWS)]

    def closeness(self, rows: Tensor) -> Tensor:
        """How close some held-out pictures are to a training picture (`metrics`, eq. 4), (R)."""
        chosen = tuple(rows.tolist())
        if chosen not in self._closeness:
            self._closeness[chosen] = self.nearest(self.test.images[rows]).closeness
        return self._closeness[chosen]

    def nearest(self, pictures: Tensor) -> Nearest:
        """The training pictures whose pixels are nearest."""
        return metrics.nearest(pictures.flatten(1), self.train.images.flatten(1), metrics.CROWD)


def check(model: Model, reference: Reference, count: int, sampling: Sampling) -> None:
    """Raise, before anything slow, what `measure` would raise of its arguments."""
    test, train = reference.test, reference.train
    if test.spec != train.spec:
        raise ValueError(f"expected test and training pictures of one data set, got {test.spec} and {train.spec}")
    if model.data.shape != test.spec.shape:
        raise ValueError(f"expected pictures {model.data.shape} for this model, got {test.spec.shape} of {test.spec.name}")
    dims = reference.eye.dims
    for what, given in (("samples", count), ("held-out pictures", len(test))):
        if given <= dims:
            raise ValueError(f"expected more than {dims} {what} for the covariance of {dims} features, got {given}")
    if len(train) < count:
        raise ValueError(f"expected at most as many samples as the {len(train)} training pictures, got {count}")
    if not isinstance(model, VAE):
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
        model: in evaluation mode; it runs where it lies.
        reference: what they are compared with; the held-out pictures are the reference of every distance.
        count: number of samples.
        folder: where nearest.png goes: samples beside their nearest training pictures.
        pictures: the samples, where `draw` has made all of them already.

    Returns:
        What goes into metrics.json, and the samples (N C H W) uint8. Figures that end in `_floor` or `_of_real` are those of
        `count` training pictures in the place of the samples; `memorised_share_of_held_out` is the base rate.

    Raises:
        ValueError: no feature network is of these pictures, they do not fit the model or each other, there are too few for
            the covariance of the features, or the sampler cannot take that many steps.
    """
    sampling = sampling or Sampling()
    check(model, reference, count, sampling)
    test, train, eye = reference.test, reference.train, reference.eye
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

    generator = torch.Generator().manual_seed(seed)
    seen, held_out, trained = eye.features(pictures), reference.held_out, reference.trained
    draws = reference.draws(count, generator)
    centre = trained.mean(dim=0)
    kernel, *kernel_floor = (metrics.kernel_distance(some - centre, held_out - centre, generator) for some in (seen, *draws))
    equal = held_out[torch.randperm(len(held_out), generator=generator)[:count]]
    shares, real = (metrics.precision_recall(some[: len(equal)], equal) for some in (seen, draws[0]))
    rows = torch.randperm(len(test), generator=generator)[:HELD_OUT]
    by_pixel = reference.nearest(pictures)
    usual = (reference.closeness(rows), eye.classes(held_out[rows]))
    section = Samples(
        images=count,
        seed=seed,
        first_seed=seed * SEEDS_APART,
        **how,
        reference="test",
        reference_images=len(test),
        reference_data_sha256=test.sha256,
        training_data_sha256=train.sha256,
        features=Features(**eye.facts()),
        frechet_distance=metrics.frechet_distance(seen, held_out),
        frechet_interval_95=metrics.frechet_interval(seen, held_out, generator),
        frechet_floor=_mean(metrics.frechet_distance(some, held_out) for some in draws),
        kernel_distance_x1000=1000 * kernel.value,
        kernel_distance_standard_error_x1000=1000 * kernel.error,
        kernel_distance_floor_x1000=1000 * _mean(found.value for found in kernel_floor),
        neighbours=metrics.NEIGHBOURS,
        precision=shares.precision,
        recall=shares.recall,
        precision_of_real=real.precision,
        recall_of_real=real.recall,
        memorised_share=metrics.memorised_share(by_pixel.closeness, eye.classes(seen), *usual),
        memorised_share_of_held_out=metrics.memorised_share(*usual, *usual),
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        nearest_page(pictures, train.images, by_pixel, metrics.nearest(seen, trained)).save(
            folder / "nearest.png", optimize=True
        )
    return to_json(section), pictures


def curve(reference: Reference, pictures: dict[int, Tensor], seed: int, sampling: Sampling) -> dict[str, Any]:
    """What quality costs: the Fréchet distance to held-out pictures by the number of steps of the sampler.

    Args:
        reference: as in `measure`.
        pictures: number of steps → as many samples (N C H W) uint8 for each.

    Returns:
        What goes into metrics.json, with the floor of as many training pictures.
    """
    eye, held_out, count = reference.eye, reference.held_out, len(next(iter(pictures.values())))
    draws = reference.draws(count, torch.Generator().manual_seed(seed))
    found = Curve(
        images=count,
        sampler=sampling.sampler,
        spacing=own_spacing(sampling),
        features=Features(**eye.facts()),
        steps=list(pictures),
        frechet_distance=[metrics.frechet_distance(eye.features(drawn), held_out) for drawn in pictures.values()],
        frechet_floor=_mean(metrics.frechet_distance(some, held_out) for some in draws),
    )
    return to_json(found)


def _mean(values: Iterator[float]) -> float:
    given = list(values)
    return sum(given) / len(given)


def _how(model: Model, sampling: Sampling) -> dict[str, Any]:
    """What of the sampling matters for the samples of this model."""
    if isinstance(model, VAE):
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
    """Samples, each beside its nearest training picture by pixels and by features.

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
