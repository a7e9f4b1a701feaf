"""What may be asked of the demo: every limit in one table, and one strict parser for each endpoint.

A parser takes raw JSON values, as a browser, a Python client or a stranger sends them, and gives a frozen request whose every
field has its type and lies in its range, or raises `LimitError` with a message that says what was expected. The page's sliders
take their bounds from the same table. Nothing here knows gradio or holds a model.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from genlab.config import DataSpec

ANY = "any"
"""The choice of no class in particular: the classes take turns, by each picture's seed."""
SAMPLERS = ("DDIM", "ancestral")
SOURCES = ("test picture", "seed", "upload")
"""Where a picture of the Interpolate tab comes from."""
PICTURES = ("test picture", "upload")
"""Where the picture of the Diffusion tab comes from."""
STARTS = ("the noise reached", "fresh noise")
"""Where the reverse process starts."""

EVALUATIONS = 5000
"""Network evaluations of 28×28 pictures that one request may cost."""
PIXELS_AT_ONCE = 64 * 64 * 64
"""Pixels (pictures × height × width) that may go through a network together."""
REFERENCE_PIXELS = 28 * 28
MAX_SEED = 2**32 - 1


class LimitError(ValueError):
    """A request asks for something that is not offered; the message is for people and says what to change."""


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high` in whole `step`s from `low`."""

    name: str
    low: float
    high: float
    default: float
    step: float = 1

    def parse(self, value: object, high: float | None = None) -> float:
        """The number, as an int where the step is 1; `high` narrows the range.

        Raises:
            LimitError: not a number, not finite, out of the range, or between two steps.
        """
        top = self.high if high is None else min(high, self.high)
        whole = self.step == 1
        expected = f"{self.name}: expected a {'whole ' if whole else ''}number from {self.low:,g} to {top:,.10g}"
        expected += "" if whole else f" in steps of {self.step:g}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise LimitError(f"{expected}, got {shown(value)}")
        if not self.low <= value <= top or not math.isfinite(value) or (value - self.low) % self.step != 0:
            raise LimitError(f"{expected}, got {shown(value)}")
        return int(value) if whole else float(value)


COUNT = Range("number of pictures", 1, 64, 16)
STEPS = Range("steps", 1, 250, 25)
GUIDANCE = Range("guidance", 0, 8, 1, step=0.5)
SEED = Range("seed", 0, MAX_SEED, 0)
INDEX = Range("test picture", 0, 9999, 0)
POINTS = Range("points on the path", 3, 17, 11)
PATH_STEPS = Range("steps", 10, 200, 50)
CHAIN_STEPS = Range("steps", 10, 200, 50)


@dataclass(frozen=True)
class Offer:
    """What a model can be asked for.

    Attributes:
        id: its short name; kind: `ddpm` or `vae`; data: the pictures it was made for.
        T: length of its chain, 0 for a VAE.
        examples: number of test pictures that travel with it.
    """

    id: str
    kind: Literal["ddpm", "vae"]
    data: DataSpec
    T: int
    examples: int


@dataclass(frozen=True)
class SampleRequest:
    """New pictures. Picture i (from 0) depends on `seed` + i alone."""

    model: str
    label: int | None
    count: int
    steps: int
    sampler: Literal["DDIM", "ancestral"]
    guidance: float
    seed: int


@dataclass(frozen=True)
class Pick:
    """One picture: test picture `number`, the one drawn from seed `number`, or `upload` (H W C) uint8."""

    source: Literal["test picture", "seed", "upload"]
    number: int = 0
    upload: np.ndarray | None = None


@dataclass(frozen=True)
class InterpolateRequest:
    """The paths between two pictures of a data set, `points` on each, ends included."""

    data: str
    a: Pick
    b: Pick
    points: int
    steps: int


@dataclass(frozen=True)
class DiffuseRequest:
    """The forward process on a picture and the reverse process from its end, or from fresh noise."""

    model: str
    picture: Pick
    steps: int
    sampler: Literal["DDIM", "ancestral"]
    label: int | None
    fresh_noise: bool
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
    """The request of `/sample`.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    offer = offers[parse_choice("model", model, tuple(offers))]
    class_index = parse_label(offer, label)
    pictures = int(COUNT.parse(count))
    taken = int(STEPS.parse(steps, offer.T or None))
    how = parse_choice("sampler", sampler, SAMPLERS)
    weight = GUIDANCE.parse(guidance)
    if offer.kind == "ddpm":
        check_cost(offer.data, pictures, taken, 2 if offer.data.classes and weight != 1 else 1)
    else:
        check_cost(offer.data, pictures, 1)
    return SampleRequest(offer.id, class_index, pictures, taken, how, weight, int(SEED.parse(seed)))  # type: ignore[arg-type]


def parse_interpolate(
    offers: Mapping[str, Offer], data: object, a: Pick, b: Pick, points: object, steps: object
) -> InterpolateRequest:
    """The request of `/interpolate`; the two pictures by `parse_pick`.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    members = data_offers(offers, data)
    longest = min((o.T for o in members if o.kind == "ddpm"), default=None)
    request = InterpolateRequest(members[0].data.name, a, b, int(POINTS.parse(points)), int(PATH_STEPS.parse(steps, longest)))
    check_cost(members[0].data, request.points + 2, request.steps)
    return request


def parse_diffuse(
    offers: Mapping[str, Offer],
    model: object,
    picture: Pick,
    steps: object,
    sampler: object,
    label: object,
    start: object,
    seed: object,
) -> DiffuseRequest:
    """The request of `/diffuse`; the picture by `parse_pick`.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    chains = {k: v for k, v in offers.items() if v.kind == "ddpm"}
    offer = chains[parse_choice("model", model, tuple(chains))]
    taken = int(CHAIN_STEPS.parse(steps, offer.T))
    check_cost(offer.data, 1, taken)
    how = parse_choice("sampler", sampler, SAMPLERS)
    fresh = parse_choice("start of the way back", start, STARTS) == STARTS[1]
    return DiffuseRequest(offer.id, picture, taken, how, parse_label(offer, label), fresh, int(SEED.parse(seed)))  # type: ignore[arg-type]


def parse_pick(
    name: str, source: object, number: object, upload: np.ndarray | None, examples: int, sources: Sequence[str] = SOURCES
) -> Pick:
    """One chosen picture; `examples` is the number of test pictures there are.

    Raises:
        LimitError: an unknown source, a number out of range, or an upload that is missing.
    """
    where = parse_choice(f"{name} comes from", source, tuple(sources))
    if where == "upload":
        if upload is None:
            raise LimitError(f"{name}: expected an uploaded picture, got none; upload one or choose another source")
        return Pick("upload", 0, upload)
    if where == "seed":
        return Pick("seed", int(Range(f"{name}, seed", 0, MAX_SEED, 0).parse(number)))
    if examples < 1:
        raise LimitError(f"{name}: the models of this data set came without test pictures; upload one")
    return Pick("test picture", int(Range(f"{name}, test picture", 0, examples - 1, 0).parse(number)))


def parse_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """`value` where it is exactly one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise LimitError(
            f"{name}: expected one of {', '.join(choices) or 'none (no such model is loaded)'}, got {shown(value)}"
        )
    return value


def parse_label(offer: Offer, label: object) -> int | None:
    """Index of the class of that name, None for any. VAEs are not conditional on a class."""
    choices = (ANY, *label_choices(offer))
    chosen = parse_choice(f"class for {offer.id}", label, choices)
    return None if chosen == ANY else offer.data.classes.index(chosen)


def label_choices(offer: Offer) -> tuple[str, ...]:
    """Classes that the model can be asked for."""
    return offer.data.classes if offer.kind == "ddpm" else ()


def data_offers(offers: Mapping[str, Offer], data: object) -> list[Offer]:
    """The models of the data set of that name, as far as their pictures have the shape of the first one's."""
    name = parse_choice("data set", data, data_choices(offers))
    members = [o for o in offers.values() if o.data.name == name]
    return [o for o in members if o.data.shape == members[0].data.shape]


def data_choices(offers: Mapping[str, Offer]) -> tuple[str, ...]:
    """Names of the data sets that the models were made for."""
    return tuple(dict.fromkeys(o.data.name for o in offers.values()))


def check_cost(data: DataSpec, pictures: int, steps: int, per_step: int = 1) -> None:
    """Raise LimitError where pictures × steps × evaluations a step are more than one request may cost.

    `EVALUATIONS` holds for 28×28 pictures; larger pictures cost in proportion to their pixels.
    """
    scale = REFERENCE_PIXELS / data.size**2
    allowed = int(EVALUATIONS * min(1.0, scale))
    cost = pictures * steps * per_step
    if cost > allowed:
        product = f"{pictures} pictures × {steps} steps" + (f" × {per_step} (guidance)" if per_step > 1 else "")
        ways = []
        if allowed // (steps * per_step) >= 1:
            ways.append(f"the number to {allowed // (steps * per_step)}")
        if allowed // (pictures * per_step) >= 1:
            ways.append(f"the steps to {allowed // (pictures * per_step)}")
        raise LimitError(
            f"{product} = {cost:,} network evaluations, more than the {allowed:,} of one request at "
            f"{data.size}×{data.size} pixels; lower {' or '.join(ways) or 'both'}"
        )
    most = max(1, PIXELS_AT_ONCE // data.size**2)
    if pictures > most:
        raise LimitError(f"number of pictures: expected at most {most} at {data.size}×{data.size} pixels, got {pictures}")


def shown(value: Any) -> str:
    """A value for a message: short, and harmless on a web page."""
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else repr(value)
    return html.escape(text if len(text) <= 40 else text[:37] + "…", quote=False)
