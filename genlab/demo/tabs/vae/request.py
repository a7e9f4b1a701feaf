"""What may be asked of the VAE tab and its endpoints `/vae` and `/pixel_density`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genlab.demo.limits import SEED, LimitError, Offer, Pick, Range, evaluations, parse_place, shown, vae_offer
from genlab.serving.language import both

Z_MOST = 10.0
"""Largest absolute value of a latent that is set."""

TEXT = {
    "samples": both("samples of z", "z 的样本数"),
    "z": both(
        "z: expected nothing or {count} numbers from −{most} to {most} (null: drawn), got {value}",
        "z：应为空，或 {count} 个 −{most} 到 {most} 之间的数（null 表示抽取），实际为 {value}",
    ),
}

SAMPLES = Range(TEXT["samples"], 1, 2000, 512)
"""Of z for the importance-weighted bound."""
COMPONENTS = Range(TEXT["samples"], 1, 500, 500)
"""Of z for the density of a pixel."""


@dataclass(frozen=True)
class VAERequest:
    """A picture's way through a VAE.

    Attributes:
        z: one number for each latent, None where it is drawn: z = μ + σ·noise.
        samples: k of the importance-weighted bound.
        seed: of the noise in z and in x̂.
    """

    model: str
    picture: Pick
    z: tuple[float | None, ...]
    samples: int
    seed: int


@dataclass(frozen=True)
class PixelDensityRequest:
    """The density of one pixel under a VAE, by `count` samples of z."""

    model: str
    row: int
    column: int
    count: int


def parse_vae(
    offers: Mapping[str, Offer], model: object, picture: Pick, z: object, samples: object, seed: object
) -> VAERequest:
    """Return the request of `/vae`; the picture by `parse_pick` or `parse_drawing`.

    Raises:
        LimitError: see `Range.parse`; or `z` is neither None nor a list with a number or None for each latent.
    """
    offer = vae_offer(offers, model)
    k = int(SAMPLES.parse(samples, evaluations(offer.data)))
    return VAERequest(offer.id, picture, _latents(offer, z), k, int(SEED.parse(seed)))


def parse_pixel_density(
    offers: Mapping[str, Offer], model: object, row: object, column: object, count: object
) -> PixelDensityRequest:
    """Return the request of `/pixel_density`.

    Raises:
        LimitError: see `Range.parse`.
    """
    offer = vae_offer(offers, model)
    line, place = parse_place(offer.data, row, column)
    return PixelDensityRequest(offer.id, line, place, int(COMPONENTS.parse(count, evaluations(offer.data))))


def _latents(offer: Offer, z: object) -> tuple[float | None, ...]:
    if z is None:
        return (None,) * offer.latent
    numbers = z if isinstance(z, list) else []
    for value in numbers:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and -Z_MOST <= value <= Z_MOST):
            numbers = []
            break
    if len(numbers) != offer.latent:
        raise LimitError(TEXT["z"].format(count=offer.latent, most=f"{Z_MOST:g}", value=shown(z)))
    return tuple(None if value is None else float(value) for value in numbers)
