"""What may be asked of the Compare tab and its endpoint `/compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from genlab.config import Sampling
from genlab.demo.limits import SEED, LimitError, Offer, evaluations, label_choices, parse_choice
from genlab.demo.tabs.sample.request import STEPS, parse_sample
from genlab.serving.language import both

COUNT = 4
"""Pictures on either side."""
VARIANCES: tuple[Literal["own", "posterior", "beta"], ...] = ("own", "posterior", "beta")
TEXT = {
    "variance": both("Σ of the ancestral step", "祖先采样的 Σ"),
    "shapes": both(
        "A and B: expected models of pictures of one shape, got {a} ({a_shape}) and {b} ({b_shape})",
        "A 和 B：应为图片形状相同的模型，实际为 {a}（{a_shape}）和 {b}（{b_shape}）",
    ),
}


@dataclass(frozen=True)
class Side:
    """One of the two ways: a model, and how it draws."""

    model: str
    sampling: Sampling


@dataclass(frozen=True)
class CompareRequest:
    """Pictures by two ways from the same seeds."""

    a: Side
    b: Side
    seed: int


def longest(offer: Offer) -> int:
    """Return the most steps of a side, whatever the other side takes: half of what a request may cost, with guidance."""
    half = evaluations(offer.data) // (2 * COUNT * (2 if label_choices(offer) else 1))
    return max(1, min(int(STEPS.high), offer.steps or int(STEPS.high), half))


def parse_compare(offers: Mapping[str, Offer], a: Sequence[object], b: Sequence[object], seed: object) -> CompareRequest:
    """Return the request of `/compare`.

    Args:
        a, b: model, class, steps, sampler, Σ and guidance of each side.

    Raises:
        LimitError: see `parse_sample`; a side has more steps than `longest`; or the pictures have two shapes.
    """
    first = int(SEED.parse(seed, SEED.high - COUNT))
    sides = []
    for model, label, steps, sampler, variance, guidance in (a, b):
        drawn = parse_sample(offers, model, label, COUNT, steps, sampler, guidance, first)
        sigma = parse_choice(TEXT["variance"], variance, VARIANCES)
        which: int | Literal["in turn"] = "in turn" if drawn.label is None else drawn.label
        taken = int(STEPS.parse(drawn.steps, longest(offers[drawn.model]))) if offers[drawn.model].T else 1
        sides.append(Side(drawn.model, Sampling(drawn.sampler, taken, variance=sigma, label=which, guidance=drawn.guidance)))
    data = [offers[side.model].data for side in sides]
    if data[0].shape != data[1].shape:
        names = {"a": sides[0].model, "b": sides[1].model}
        shapes = {f"{name}_shape": "×".join(map(str, each.shape)) for name, each in zip("ab", data, strict=True)}
        raise LimitError(TEXT["shapes"].format(**names, **shapes))
    return CompareRequest(sides[0], sides[1], first)
