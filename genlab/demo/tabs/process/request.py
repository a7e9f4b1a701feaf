"""What may be asked of the Diffusion tab and its endpoint `/diffuse`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genlab.config import SamplerName
from genlab.demo import limits
from genlab.demo.limits import MODEL, SEED, LimitError, Offer, Pick, Range, check_cost, parse_choice, parse_label
from genlab.serving.language import both

SAMPLERS: tuple[SamplerName, ...] = ("DDIM", "ancestral")
"""Samplers whose step is one of the notes' formulas."""
SAMPLER: SamplerName = "ancestral"
"""The one that is chosen at first."""
THE_NOISE_REACHED, FRESH_NOISE = "the noise reached", "fresh noise"
STARTS = (THE_NOISE_REACHED, FRESH_NOISE)
"""Where the reverse process starts."""

TEXT = {
    "until": both("t up to which noise is added", "加噪到的 t"),
    "fresh": both(
        "start of the way back: expected the noise reached, for only x_T, at t = {T}, is as good as fresh noise; "
        "got fresh noise at t = {until}",
        "反向过程的起点：应为前向到达的噪声，因为只有 t = {T} 处的 x_T 才与新的噪声无异；实际为 t = {until} 处的新噪声",
    ),
    "start": both("start of the way back", "反向过程的起点"),
}

STEPS = Range(limits.TEXT["steps"], 2, 200, 50)
UNTIL = Range(TEXT["until"], 0, 100_000, 0)
"""0 stands for T."""


@dataclass(frozen=True)
class ProcessRequest:
    """The forward process on a picture up to t = `until`, and the reverse process from there, or from fresh noise."""

    model: str
    picture: Pick
    steps: int
    sampler: SamplerName
    label: int | None
    fresh_noise: bool
    seed: int
    until: int


def parse_process(
    offers: Mapping[str, Offer],
    model: object,
    picture: Pick,
    steps: object,
    sampler: object,
    label: object,
    start: object,
    seed: object,
    until: object = 0,
) -> ProcessRequest:
    """Return the request of `/diffuse`; the picture by `parse_pick`. There are no more steps than `until`; 0 stands for T.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    chains = {k: v for k, v in offers.items() if v.kind == "ddpm"}
    offer = chains[parse_choice(MODEL, model, tuple(chains))]
    taken = int(STEPS.parse(steps, offer.T))
    check_cost(offer.data, 1, taken)
    how = parse_choice(limits.TEXT["sampler"], sampler, SAMPLERS)
    fresh = parse_choice(TEXT["start"], start, STARTS) == FRESH_NOISE
    reached = int(UNTIL.parse(until, offer.T)) or offer.T
    if fresh and reached < offer.T:
        raise LimitError(TEXT["fresh"].format(T=offer.T, until=reached))
    class_index, number = parse_label(offer, label), int(SEED.parse(seed))
    return ProcessRequest(offer.id, picture, min(taken, reached), how, class_index, fresh, number, reached)
