"""What may be asked of the Sample tab and its endpoints `/sample` and `/sample_stream`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from genlab.config import SamplerName
from genlab.demo import limits
from genlab.demo.limits import MODEL, SEED, Offer, Range, check_cost, parse_choice, parse_label
from genlab.serving.language import both

SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
SAMPLER: SamplerName = "DPM-Solver++ SDE"
"""The one that is chosen at first: the best in few steps (benchmarks/README.md)."""

TEXT = {"number of pictures": both("number of pictures", "图片数量"), "guidance": both("guidance", "引导强度")}

COUNT = Range(TEXT["number of pictures"], 1, 64, 16)
STEPS = Range(limits.TEXT["steps"], 1, 250, 10)
GUIDANCE = Range(TEXT["guidance"], 0, 8, 1, step=0.5)


@dataclass(frozen=True)
class SampleRequest:
    """New pictures. Picture i (from 0) depends on `seed` + i alone."""

    model: str
    label: int | None
    count: int
    steps: int
    sampler: SamplerName
    guidance: float
    seed: int


def parse_sample(
    offers: Mapping[str, Offer],
    model: object,
    label: object,
    count: object,
    steps: object,
    sampler: object,
    guidance: object,
    seed: object,
) -> SampleRequest:
    """Return the request of `/sample`.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    offer = offers[parse_choice(MODEL, model, tuple(offers))]
    class_index = parse_label(offer, label)
    pictures = int(COUNT.parse(count))
    taken = int(STEPS.parse(steps, offer.steps or None))
    how = parse_choice(limits.TEXT["sampler"], sampler, SAMPLERS)
    weight = GUIDANCE.parse(guidance)
    if offer.T:
        check_cost(offer.data, pictures, taken, 2 if offer.data.classes and weight != 1 else 1)
    else:
        check_cost(offer.data, pictures, 1)
    return SampleRequest(offer.id, class_index, pictures, taken, how, weight, int(SEED.parse(seed)))
