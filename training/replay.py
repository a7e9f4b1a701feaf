"""Moments of a training: measured while it runs, and gathered for the finished model's folder when it ends.

A moment is a sheet in RUN/replay and a line of the log, so those from before an interruption are there after it. The averaged
weights, which are those of the finished model, are measured further where their kind and the pictures allow it: the variational
bound of a DDPM (`likelihood.diffusion_bound`), and the Fréchet distance of samples where a feature network knows the pictures.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genlab import metrics
from genlab.config import DataSpec, Sampling
from genlab.data import Dataset, grid, to_pixels
from genlab.ddpm import DDPM
from genlab.draw import draw
from genlab.measurements import Features, SchemaError, read_replay, to_json
from genlab.models import Model
from genlab.package import MAX_BYTES, Film, ModelError, read_sheet
from training.likelihood import diffusion_bound
from training.partial import Partial, Progress
from training.sample_quality import Reference, check

SAMPLES, FEW = 16, 4
"""Samples by either weights at a moment: of pictures up to `LARGE` pixels, and of larger ones."""
LARGE = 64
COLUMNS = 8
"""Samples in a row of a moment's sheet, at most."""
BOUND_IMAGES, EVALUATIONS = 128, 16
"""Held-out pictures for the bound, and evaluations of each."""
FRECHET_IMAGES = 500
"""Samples for the Fréchet distance."""
FIRST_SEED = 2_000_000
"""Of the samples for the Fréchet distance, which are not those of an evaluation."""


def samples_of(data: DataSpec) -> int:
    """Return the number of samples by either weights at a moment."""
    return SAMPLES if data.size <= LARGE else FEW


@dataclass(frozen=True)
class Moments:
    """The moments of one run.

    Attributes:
        folder: of their sheets.
        train, held_out: the pictures.
        held_out_images: pictures for the losses.
        seed: of all noise.
        batch_size: pictures that the network evaluates at once.
    """

    folder: Path
    train: Dataset
    held_out: Dataset
    held_out_images: int
    seed: int
    batch_size: int

    def sheet_of(self, step: int) -> Path:
        """Return the path of a moment's sheet."""
        return self.folder / f"step-{step:08d}.png"

    def save(self, step: int, sheet: Callable[[nn.Module, int], Tensor], last: nn.Module, averaged: nn.Module) -> None:
        """Draw and save the samples of a moment: by its weights, and below by the averaged ones, from the same noise."""
        count = samples_of(self.train.spec)
        drawn = torch.cat([to_pixels(sheet(model.eval(), count)).cpu() for model in (last, averaged)])
        self.folder.mkdir(parents=True, exist_ok=True)
        grid(drawn, columns=min(COLUMNS, count)).save(self.sheet_of(step))

    def measure(self, model: Model) -> dict[str, float]:
        """Return bound and distance of a model, by their names in `Moment`, where they can be measured."""
        found: dict[str, float] = {}
        device = next(model.parameters()).device
        if isinstance(model, DDPM):
            pictures, quiet = self.held_out.images[:BOUND_IMAGES], Progress(0, "evaluation", shown=False)
            strata = min(EVALUATIONS, model.schedule.T)
            section = diffusion_bound(model, pictures, strata, self.seed, self.batch_size, Partial(None, {}), quiet, device)
            names = ("bound_bits_per_dim", "bound_standard_error_bits_per_dim")
            found |= {name: section[name] for name in names}
        if (reference := self.reference(model)) is not None:
            drawn = torch.cat(list(draw(model, FRECHET_IMAGES, FIRST_SEED, Sampling(), self.batch_size)))
            features = reference.feature_network.features(drawn)
            found["frechet_distance"] = metrics.frechet_distance(features, reference.held_out)
        return found if all(map(math.isfinite, found.values())) else {}

    def reference(self, model: Model) -> Reference | None:
        """Return what samples are compared with; None where no feature network was trained on these pictures."""
        if self.train.images.dtype != torch.uint8:  # trajectories of a teacher
            return None
        try:
            check(model, self._reference, FRECHET_IMAGES, Sampling())
        except ValueError:
            return None
        return self._reference

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self.held_out, self.train)

    def film(self, rows: list[dict[str, Any]], model: Model) -> Film | None:
        """Return the moments in the rows of a log whose sheets are there; None if there are none.

        What no reader would accept is left out with a message: a training does not fail for its film.
        """
        spec, count = model.data, samples_of(model.data)
        moments, sheets = [], []
        for row in rows:
            try:
                sheet = read_sheet(self.sheet_of(row["step"]), 2 * count, min(COLUMNS, count), spec)
            except ModelError as error:
                print(f"step {row['step']} is left out of the replay: {error}", file=sys.stderr)
                continue
            moments.append({"step": row["step"], **row["replay"]})
            sheets.append(sheet.unflatten(0, (2, count)))
        if sum(map(Tensor.numel, sheets)) > MAX_BYTES["replay.png"]:
            print(f"the replay is left out of the model: {len(moments)} moments are too large for it", file=sys.stderr)
            return None
        if not moments:
            return None
        section: dict[str, Any] = {"samples": count, "held_out_images": self.held_out_images, "moments": moments}
        if any("bound_bits_per_dim" in moment for moment in moments):
            section["bound_images"] = min(BOUND_IMAGES, len(self.held_out))
        if any("frechet_distance" in moment for moment in moments) and (reference := self.reference(model)) is not None:
            draws = reference.draws(FRECHET_IMAGES, torch.Generator().manual_seed(self.seed))
            floors = [metrics.frechet_distance(some, reference.held_out) for some in draws]
            section |= {"frechet_images": FRECHET_IMAGES, "frechet_floor": sum(floors) / len(floors)}
            section["features"] = to_json(Features(**reference.feature_network.facts()))
        try:
            replay = read_replay({"replay": section})
        except SchemaError as error:
            print(f"the replay is left out of the model: {error}", file=sys.stderr)
            return None
        assert replay is not None
        return Film(replay, torch.stack(sheets))
