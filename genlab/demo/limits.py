"""Limits and strict parsers that the requests of several tabs share.

A parser takes raw JSON values, as a browser, a Python client or a stranger sends them, and returns values of the right type and
in their range, or raises `LimitError` with a message that says what was expected. The page's sliders take their bounds from the
same `Range`. Nothing here knows gradio or holds a model.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from genlab.config import DataSpec, Kind, Sampling
from genlab.serving.language import UserFacingError, both

ANY = "any"
"""The choice of no class in particular: the classes take turns, by each picture's seed."""
PICTURES = ("test picture", "upload")
"""Sources of the one picture that a tab shows."""
EVALUATIONS = 5000
"""Network evaluations of 28×28 pictures that one request may cost."""
PIXELS_AT_ONCE = 64 * 64 * 64
"""Pixels (pictures × height × width) that may go through a network together."""
REFERENCE_PIXELS = 28 * 28
DRAWN_VALUES = 128 * 128 * 3
"""Values (height × width × channels) that a picture on the drawing canvas may have."""
MAX_SEED = 2**32 - 1
MODEL, DATA_SET = both("model", "模型"), both("data set", "数据集")
"""Names of choices in a message."""
TEXT = {
    "whole": both(
        "{name}: expected a whole number from {low} to {high}, got {value}",
        "{name}：应为 {low} 到 {high} 之间的整数，实际为 {value}",
    ),
    "stepped": both(
        "{name}: expected a number from {low} to {high} in steps of {step}, got {value}",
        "{name}：应为 {low} 到 {high} 之间、以 {step} 为一格的数，实际为 {value}",
    ),
    "choice": both("{name}: expected one of {choices}, got {value}", "{name}：应为 {choices} 之一，实际为 {value}"),
    "no choice": both("none (no such model is loaded)", "（没有加载这样的模型）"),
    "steps": both("steps", "步数"),
    "seed": both("seed", "种子"),
    "row": both("row of the pixel", "像素的行"),
    "column": both("column of the pixel", "像素的列"),
    "drawing": both(
        "drawing: expected a picture of {height}×{width} pixels from the page's canvas",
        "绘图：应为本页画布上 {height}×{width} 像素的图片",
    ),
    "sampler": both("sampler", "采样方法"),
    "class": both("class for {model}", "{model} 的类别"),
    "comes from": both("{name} comes from", "来源（{name}）"),
    "seed of": both("{name}, seed", "{name}，种子"),
    "test picture of": both("{name}, test picture", "{name}，测试图片"),
    "no upload": both(
        "{name}: expected an uploaded picture, got none; upload one or choose another source",
        "{name}：还没有上传图片；请上传一张，或换一个来源",
    ),
    "no test pictures": both(
        "{name}: the models of this data set came without test pictures; upload one",
        "{name}：这个数据集的模型没有附带测试图片；请上传一张",
    ),
    "cost": both(
        "{product} = {cost} network evaluations, more than the {allowed} of one request at {size}×{size} pixels; lower {ways}",
        "{product} = {cost} 次网络计算，超过一次请求在 {size}×{size} 像素下允许的 {allowed} 次；请把{ways}",
    ),
    "product": both("{pictures} pictures × {steps} steps", "{pictures} 张图片 × {steps} 步"),
    "guided": both(" × {per_step} (guidance)", " × {per_step}（引导）"),
    "fewer pictures": both("the number to {n}", "数量减到 {n}"),
    "fewer steps": both("the steps to {n}", "步数减到 {n}"),
    "or": both(" or ", "，或把"),
    "both": both("both", "两者都减少"),
    "at once": both(
        "number of pictures: expected at most {most} at {size}×{size} pixels, got {pictures}",
        "图片数量：在 {size}×{size} 像素下最多 {most} 张，实际为 {pictures}",
    ),
}


Choice = TypeVar("Choice", bound=str)


class LimitError(UserFacingError, ValueError):
    """A request asks for something that is not offered; the message is for visitors and says what to change."""


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high` in whole `step`s from `low`."""

    name: str
    low: float
    high: float
    default: float
    step: float = 1

    def parse(self, value: object, high: float | None = None) -> float:
        """Return the number, as an int if the step is 1; `high` narrows the range.

        Raises:
            LimitError: not a number, not finite, out of the range, or between two steps.
        """
        top = self.high if high is None else min(high, self.high)
        whole = self.step == 1
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refusal(value, top)
        if not self.low <= value <= top or not math.isfinite(value) or (value - self.low) % self.step != 0:
            raise self._refusal(value, top)
        return int(value) if whole else float(value)

    def _refusal(self, value: object, top: float) -> LimitError:
        low, high = f"{self.low:,g}", f"{top:,.10g}"
        kind = "whole" if self.step == 1 else "stepped"
        return LimitError(TEXT[kind].format(name=self.name, low=low, high=high, step=f"{self.step:g}", value=shown(value)))


SEED = Range(TEXT["seed"], 0, MAX_SEED, 0)


@dataclass(frozen=True)
class Offer:
    """What a model can be asked for.

    Attributes:
        id: its short name; kind: as in config.json, `ddpm` or `vae` for one; data: the pictures it was made for.
        T: length of its chain, 0 for a VAE.
        examples: number of test pictures that travel with it.
        latent: dimensions of a VAE's z, 0 for the others.
        most_steps: most steps that it draws pictures in, T where None; default_steps: what it draws them in at first.
    """

    id: str
    kind: Kind
    data: DataSpec
    T: int
    examples: int
    latent: int = 0
    most_steps: int | None = None
    default_steps: int = Sampling.steps

    @property
    def steps(self) -> int:
        """Return the most steps that it draws pictures in; 0 for a VAE, which has none."""
        return self.T if self.most_steps is None else self.most_steps


@dataclass(frozen=True)
class Pick:
    """One picture: test picture `number`, the one drawn from seed `number`, or `upload` (H W C) uint8."""

    source: Literal["test picture", "seed", "upload"]
    number: int = 0
    upload: np.ndarray | None = None


def parse_drawing(data: DataSpec, value: object) -> Pick:
    """Return the picture on the page's canvas from the base64 of its height × width × channels bytes.

    Raises:
        LimitError: it is anything else.
    """
    count = data.size**2 * data.channels
    if isinstance(value, str) and len(value) == 4 * math.ceil(count / 3) and value.isascii():
        try:
            values = np.frombuffer(base64.b64decode(value, validate=True), dtype=np.uint8)
        except ValueError:
            values = np.empty(0, dtype=np.uint8)
        if len(values) == count:
            return Pick("upload", 0, values.reshape(data.size, data.size, data.channels))
    raise LimitError(TEXT["drawing"].format(height=data.size, width=data.size))


def vae_offers(offers: Mapping[str, Offer]) -> dict[str, Offer]:
    """Return the VAEs whose pictures fit on the canvas."""
    return _drawable(offers, "vae")


def vae_offer(offers: Mapping[str, Offer], model: object) -> Offer:
    """Return the offer of the VAE of that name."""
    members = vae_offers(offers)
    return members[parse_choice(MODEL, model, tuple(members))]


def ddpm_offers(offers: Mapping[str, Offer]) -> dict[str, Offer]:
    """Return the DDPMs whose pictures fit on the canvas."""
    return _drawable(offers, "ddpm")


def ddpm_offer(offers: Mapping[str, Offer], model: object) -> Offer:
    """Return the offer of the DDPM of that name."""
    members = ddpm_offers(offers)
    return members[parse_choice(MODEL, model, tuple(members))]


def _drawable(offers: Mapping[str, Offer], kind: str) -> dict[str, Offer]:
    return {k: v for k, v in offers.items() if v.kind == kind and v.data.size**2 * v.data.channels <= DRAWN_VALUES}


def parse_place(data: DataSpec, row: object, column: object) -> tuple[int, int]:
    """Return row and column of a pixel.

    Raises:
        LimitError: see `Range.parse`.
    """
    line, place = (Range(TEXT[name], 0, data.size - 1, 0).parse(value) for name, value in (("row", row), ("column", column)))
    return int(line), int(place)


def parse_pick(
    name: str, source: object, number: object, upload: np.ndarray | None, examples: int, sources: Sequence[str]
) -> Pick:
    """Return one chosen picture; `examples` is the number of test pictures there are.

    Raises:
        LimitError: an unknown source, a number out of range, or an upload that is missing.
    """
    where = parse_choice(TEXT["comes from"].format(name=name), source, tuple(sources))
    if where == "upload":
        if upload is None:
            raise LimitError(TEXT["no upload"].format(name=name))
        return Pick("upload", 0, upload)
    if where == "seed":
        return Pick("seed", int(Range(TEXT["seed of"].format(name=name), 0, MAX_SEED, 0).parse(number)))
    if examples < 1:
        raise LimitError(TEXT["no test pictures"].format(name=name))
    return Pick("test picture", int(Range(TEXT["test picture of"].format(name=name), 0, examples - 1, 0).parse(number)))


def parse_choice(name: str, value: object, choices: tuple[Choice, ...]) -> Choice:
    """Return `value` if it is one of `choices`, else raise LimitError."""
    if not isinstance(value, str) or value not in choices:
        offered = ", ".join(choices) or TEXT["no choice"]
        raise LimitError(TEXT["choice"].format(name=name, choices=offered, value=shown(value)))
    return value


def parse_label(offer: Offer, label: object) -> int | None:
    """Return the index of the class of that name, None for any. VAEs are not conditional on a class."""
    choices = (ANY, *label_choices(offer))
    chosen = parse_choice(TEXT["class"].format(model=offer.id), label, choices)
    return None if chosen == ANY else offer.data.classes.index(chosen)


def label_choices(offer: Offer) -> tuple[str, ...]:
    """Return the classes that the model can be asked for."""
    return offer.data.classes if offer.T else ()


def data_offers(offers: Mapping[str, Offer], data: object) -> list[Offer]:
    """Return the models of the data set of that name, whose pictures have one shape."""
    name = parse_choice(DATA_SET, data, data_choices(offers))
    return [o for o in offers.values() if o.data.name == name]


def data_choices(offers: Mapping[str, Offer]) -> tuple[str, ...]:
    """Return the names of the data sets that the models were made for."""
    return tuple(dict.fromkeys(o.data.name for o in offers.values()))


def check_cost(data: DataSpec, pictures: int, steps: int, per_step: int = 1) -> None:
    """Raise LimitError where pictures × steps × evaluations a step are more than one request may cost.

    `EVALUATIONS` holds for 28×28 pictures; larger pictures cost in proportion to their pixels.
    """
    allowed = evaluations(data)
    cost = pictures * steps * per_step
    if cost > allowed:
        product = TEXT["product"].format(pictures=pictures, steps=steps)
        product += TEXT["guided"].format(per_step=per_step) if per_step > 1 else ""
        ways = []
        if allowed // (steps * per_step) >= 1:
            ways.append(TEXT["fewer pictures"].format(n=allowed // (steps * per_step)))
        if allowed // (pictures * per_step) >= 1:
            ways.append(TEXT["fewer steps"].format(n=allowed // (pictures * per_step)))
        numbers = {"cost": f"{cost:,}", "allowed": f"{allowed:,}", "size": data.size}
        raise LimitError(TEXT["cost"].format(product=product, ways=TEXT["or"].join(ways) or TEXT["both"], **numbers))
    most = max(1, PIXELS_AT_ONCE // data.size**2)
    if pictures > most:
        raise LimitError(TEXT["at once"].format(most=most, size=data.size, pictures=pictures))


def evaluations(data: DataSpec) -> int:
    """Return the network evaluations that one request may cost; fewer for pictures larger than 28×28."""
    return int(EVALUATIONS * min(1.0, REFERENCE_PIXELS / data.size**2))


def shown(value: Any) -> str:
    """Return a value for a message: short, and escaped for a web page."""
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else repr(value)
    return html.escape(text if len(text) <= 40 else text[:37] + "…", quote=False)
