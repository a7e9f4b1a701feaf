"""genlab: generative models from the lecture notes, to learn, train, measure and show.

    import genlab

    model = genlab.load("ddpm-mnist")
    pictures = genlab.sample(model, count=16, seed=0)
    genlab.grid(pictures).save("digits.png")

torch is imported by the first call, not with genlab.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genlab.config import SamplerName, Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image
    from torch import Tensor

    from genlab.models import Model

__version__ = "0.1.0"


def load(source: str | Path, revision: str | None = None, token: str | None = None) -> Model:
    """Return a model, in evaluation mode, on the CPU.

    Args:
        source: a model's folder, or a run's; the name of a model that ships (`ddpm-mnist`); or a model on the Hub, `user/name`
            or `user/name@revision`. A folder of that name takes precedence.
        revision: branch, tag or commit on the Hub.
        token: Hub token; by default that of the Hub client (`hf auth login`, HF_TOKEN).

    Raises:
        ModelError: the model is not found, or a part of it is missing or invalid.
    """
    from genlab import hub

    return hub.read(source, revision, token).model


def sample(
    model: Model | str | Path,
    count: int = 16,
    seed: int = 0,
    sampler: SamplerName = Sampling.sampler,
    steps: int | None = None,
    label: int | str | None = None,
    guidance: float = Sampling.guidance,
) -> Tensor:
    """Draw pictures as the page draws them, (count C H W) uint8.

    Args:
        model: a model, or where to `load` it from. A VAE takes neither sampler, steps, label nor guidance.
        seed: picture i depends on `seed` + i alone: the same seed gives the page's pictures.
        sampler: the reverse step, one of `config.SamplerName`; a consistency function has its own.
        steps: number of steps from noise to picture; by default 10, or 4 for a consistency function.
        label: name or number of a class; by default picture i has the class of its seed modulo the number of classes.
        guidance: w of classifier-free guidance; 1 is the plain conditional model.

    Raises:
        ValueError: an option is out of its range, or the model has no such class.
        ModelError: see `load`.
    """
    from pathlib import Path

    import torch

    from genlab import draw

    if isinstance(model, (str, Path)):
        model = load(model)
    which = draw.class_of(model, label)
    steps = draw.default_steps(model) if steps is None else steps
    sampling = Sampling(sampler, steps, label=which, guidance=guidance, precision="auto")
    return torch.cat(list(draw.draw(model, count, seed, sampling)))


def grid(pictures: Tensor) -> Image.Image:
    """Return pictures (N C H W) uint8 side by side on one nearly square sheet."""
    from genlab import data

    return data.grid(pictures)
