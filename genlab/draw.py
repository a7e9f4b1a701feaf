"""Draw pictures from a model: used by the page, the training scripts, the evaluation and `genlab.sample`.

All noise of a picture comes from a generator with the picture's seed. Picture i of a request with seed s has seed s + i, so it
does not depend on the number of pictures or the batch size. Where the classes take turns, the seed also gives the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from genlab.config import Sampling, Spacing, Variance
from genlab.consistency import Consistency, renoising
from genlab.data import to_pixels
from genlab.ddpm import DDPM
from genlab.latent import LatentDDPM
from genlab.mixture import MixtureVAE
from genlab.models import Decoding, Diffusion, Model
from genlab.nn import drawing_precision
from genlab.process import Denoised, Predict
from genlab.sampler import SAMPLERS, Noise, Step, spaced, walk


@dataclass(frozen=True, eq=False)
class SampleFrame:
    """Pictures after step `index` of `count`, at time t; index 0 is pure noise. A VAE has frame 0 of 0 only.

    Attributes:
        x: (N C H W) in the model's [−1, 1].
    """

    index: int
    count: int
    t: int
    x: Tensor

    @cached_property
    def pictures(self) -> Tensor:
        """Return `x` as 8-bit pictures, (N C H W) uint8 on the CPU."""
        return to_pixels(self.x).cpu()


def frames(
    model: Model,
    seeds: Sequence[int],
    sampling: Sampling,
    predict: Predict | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[SampleFrame]:
    """Draw a picture for each seed, on the model's device, yielding a frame for each step; the last has the finished pictures.

    Args:
        predict: replaces the model's prediction, for a caller that shares evaluations between walks; see `predictor`.
        decode: replaces the decoder of a latent DDPM, `LatentDDPM.decode`.

    Raises:
        ValueError: the chain is shorter than `sampling.steps`, the model has no such class, or learned Σ is chosen for a model
            that did not learn it.
    """
    if isinstance(model, Decoding):
        yield SampleFrame(0, 0, 0, decoder_means(model, seeds))
        return
    noise = Noise.from_seeds(seeds, noise_shape(model))
    times = sampling_times(model, sampling)
    predict = predict or predictor(model, class_labels(model, sampling.label, seeds), sampling)

    def decoded(x: Tensor) -> Tensor:
        if not isinstance(model, LatentDDPM):
            return x
        with torch.inference_mode():
            return (decode or model.decode)(x)

    x_T = noise.draw().to(_device(model))
    yield SampleFrame(0, sampling.steps, model.schedule.T, decoded(x_T))
    for frame in walk(predict, make_step(model, sampling, noise), x_T, times):
        yield SampleFrame(frame.index, frame.count, frame.s, decoded(frame.x_s))


def draw(
    model: Model,
    count: int,
    seed: int,
    sampling: Sampling,
    batch_size: int = 100,
    on_step: Callable[[int], object] = lambda pictures: None,
) -> Iterator[Tensor]:
    """Draw the pictures of the seeds `seed` … `seed` + `count` − 1, in batches (B C H W) uint8 on the CPU.

    Args:
        on_step: called after each step with the number of pictures in the batch.

    Raises:
        ValueError: see `frames`.
    """
    for first in range(seed, seed + count, batch_size):
        seeds = range(first, min(first + batch_size, seed + count))
        for frame in frames(model, seeds, sampling):
            if frame.index > 0 or frame.count == 0:  # the initial noise is not a step
                on_step(len(seeds))
        yield frame.pictures


def noise_shape(model: Model) -> tuple[int, ...]:
    """Return the shape of the noise that becomes one picture."""
    if isinstance(model, Decoding):
        vae = model.vae if isinstance(model, MixtureVAE) else model
        return (vae.config.latents + isinstance(model, MixtureVAE),)
    return (model.latents if isinstance(model, LatentDDPM) else model.data).shape


def decoder_means(model: Decoding, seeds: Sequence[int]) -> Tensor:
    """Return the mean of p(x|z) for z of these seeds from the model's prior, (N C H W)."""
    vae = model.vae if isinstance(model, MixtureVAE) else model
    noise = Noise.from_seeds(seeds, noise_shape(model)).draw().to(_device(model))
    with torch.inference_mode():
        return vae.decode(model.prior.sample(noise) if isinstance(model, MixtureVAE) else noise).mean


def predictor(model: Diffusion, labels: Tensor | None, sampling: Sampling) -> Predict:
    """Return the prediction function of a model for `sampler.walk`, with labels (B) or None."""

    def predict(x_t: Tensor, t: Tensor) -> Denoised:
        with drawing_precision() if sampling.precision == "auto" else nullcontext():
            return model.predict(x_t, t, labels, sampling.guidance)

    return predict


def default_steps(model: Model) -> int:
    """Return the default number of steps of a model."""
    return 1 if isinstance(model, Consistency) else Sampling.steps


def sampling_times(model: Diffusion, sampling: Sampling) -> list[int]:
    """Return the times of a walk, from T to 0; those of a consistency function are among its training times.

    Raises:
        ValueError: the model does not support this number of steps.
    """
    if isinstance(model, Consistency):
        return model.sampling_times(sampling.steps)
    return spaced(model.schedule, sampling.steps, own_spacing(sampling))


def make_step(model: Diffusion, sampling: Sampling, noise: Noise) -> Step:
    """Return the step of the chosen sampler for this model; a consistency function always uses `renoising`."""
    if isinstance(model, Consistency):
        return renoising(model.schedule, noise)
    return SAMPLERS[sampling.sampler].step(model.schedule, noise, own_variance(model, sampling), sampling.eta)


def own_variance(model: DDPM | LatentDDPM, sampling: Sampling) -> Variance:
    """Return the choice of Σ of the ancestral step, by default that of the model."""
    own = model.config.ddpm.variance if isinstance(model, LatentDDPM) else model.config.variance
    return own if sampling.variance == "own" else sampling.variance


def own_spacing(sampling: Sampling) -> Spacing:
    """Return the spacing of the times, by default that of the sampler."""
    return SAMPLERS[sampling.sampler].spacing if sampling.spacing == "own" else sampling.spacing


def class_of(model: Model, label: int | str | None) -> int | Literal["in turn"]:
    """Return the number of a class of the model, given by name or number; "in turn" for None.

    Raises:
        ValueError: the model has no such class.
    """
    if label is None:
        return "in turn"
    names = () if isinstance(model, Decoding) else model.data.classes
    number = names.index(label) if label in names else label
    if isinstance(number, str) or not 0 <= number < len(names):
        expected = (
            f"one of {', '.join(names)}, or a number below {len(names)}" if names else "none, for the model takes no class"
        )
        raise ValueError(f"label: expected {expected}, got {label!r}")
    return number


def class_labels(model: Diffusion, label: int | Literal["in turn", "none"], seeds: Sequence[int]) -> Tensor | None:
    """Return the class of each picture, (N): one class for all, or seed mod number of classes; None for no labels.

    Raises:
        ValueError: see `class_of`.
    """
    classes = len(model.data.classes)
    if isinstance(label, int):
        class_of(model, label)
    if label == "none" or not classes:
        return None
    chosen = [seed % classes for seed in seeds] if label == "in turn" else [label] * len(seeds)
    return torch.tensor(chosen, device=_device(model))


def _device(model: Model) -> torch.device:
    return next(model.parameters()).device
