"""What may be asked of the Condition tab and its endpoints `/repair` and `/guide`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from genlab.config import DataSpec
from genlab.demo import limits
from genlab.demo.limits import (
    SEED,
    LimitError,
    Offer,
    Pick,
    Range,
    check_cost,
    ddpm_offer,
    label_choices,
    parse_choice,
    parse_label,
    shown,
)
from genlab.serving.language import both

REPAIR, DRAWING, CLASS = MODES = ("repair", "drawing", "class")
"""What the tab does: fill in what is painted over, make a picture out of a drawing, or ask for a class."""
COUNT = 4
"""Pictures drawn of each kind."""
GRADIENT = 5
"""Evaluations that a guided step costs about: three for the classifier's gradient, two for classifier-free guidance."""

HIDDEN = 127
"""Above which a byte of a cover hides its pixel."""
TEXT = {
    "mode": both("what to do", "做什么"),
    "until": both("t to start from", "起点 t"),
    "rounds": both("rounds of a stretch", "每段重复的次数"),
    "weight": both("guidance", "引导强度"),
    "class": both("class for {model}", "{model} 的类别"),
    "cover": both(
        "cover: expected nothing, or {size} rows of {size} numbers, 1 where the picture is hidden and 0 elsewhere; got {value}",
        "遮盖：应为空，或 {size} 行、每行 {size} 个数，1 表示遮住，0 表示露出；实际为 {value}",
    ),
    "bare": both(
        "nothing is painted over: press “Paint over” and draw on the picture what is to be made anew",
        "还没有遮盖任何部分：按下“遮盖”，在图片上涂掉想要重新生成的部分",
    ),
}
STEPS = Range(limits.TEXT["steps"], 2, 200, 25)
UNTIL = Range(TEXT["until"], 0, 100_000, 0)
"""0 stands for T."""
ROUNDS = Range(TEXT["rounds"], 1, 20, 4)
WEIGHT = Range(TEXT["weight"], 0, 8, 4, step=0.5)


@dataclass(frozen=True)
class RepairRequest:
    """Pictures from t = `until` of a picture's noising, known where `cover` (H W) is false; None keeps nothing of it."""

    model: str
    picture: Pick
    cover: np.ndarray | None
    until: int
    label: int | None
    rounds: int
    steps: int
    seed: int


@dataclass(frozen=True)
class GuideRequest:
    """Pictures of a class, by the classifier's gradient and by classifier-free guidance."""

    model: str
    label: int
    weight: float
    steps: int
    seed: int


def parse_repair(
    offers: Mapping[str, Offer],
    model: object,
    picture: Pick,
    cover: object,
    until: object,
    label: object,
    rounds: object,
    steps: object,
    seed: object,
) -> RepairRequest:
    """Return the request of `/repair`; the picture by `parse_pick` or `parse_drawing`, the cover by `parse_cover`.

    Raises:
        LimitError: see `Range.parse`; or the request costs too much.
    """
    offer = ddpm_offer(offers, model)
    hidden = parse_cover(offer.data, cover)
    reached = int(UNTIL.parse(until, offer.T)) or offer.T
    taken, repeats = min(int(STEPS.parse(steps, offer.T)), reached), int(ROUNDS.parse(rounds))
    repeats = 1 if hidden is None else repeats
    check_cost(offer.data, COUNT, taken * repeats)
    return RepairRequest(
        offer.id, picture, hidden, reached, parse_label(offer, label), repeats, taken, int(SEED.parse(seed, SEED.high - COUNT))
    )


def parse_cover(data: DataSpec, value: object) -> np.ndarray | None:
    """Return which pixels are hidden, (H W) bool: from rows of 0 and 1, or from the base64 of a byte a pixel; None for nothing.

    Raises:
        LimitError: it is anything else, or hides nothing.
    """
    if value is None or value == "":
        return None
    flat: list[object] = []
    if isinstance(value, str):
        flat = list(_drawn_cover(value, data.size**2))
    elif isinstance(value, list) and all(isinstance(row, list) and len(row) == data.size for row in value):
        flat = [number for row in value for number in row]
    if len(flat) != data.size**2 or not all(isinstance(number, (int, float)) and number in (0, 1) for number in flat):
        raise LimitError(TEXT["cover"].format(size=data.size, value=shown(value)))
    if not any(flat):
        raise LimitError(TEXT["bare"])
    return np.array(flat, dtype=bool).reshape(data.size, data.size)


def _drawn_cover(value: str, count: int) -> list[bool]:
    """Return which of `count` pixels the page's canvas hides; nothing for a text that is not of them."""
    if len(value) != -(-count // 3) * 4 or not value.isascii():
        return []
    try:
        return [byte > HIDDEN for byte in base64.b64decode(value, validate=True)]
    except ValueError:
        return []


def parse_guide(
    offers: Mapping[str, Offer], model: object, label: object, weight: object, steps: object, seed: object
) -> GuideRequest:
    """Return the request of `/guide`.

    Raises:
        LimitError: see `Range.parse`; the model has no such class; or the request costs too much.
    """
    offer = ddpm_offer(offers, model)
    which = label_choices(offer).index(parse_choice(TEXT["class"].format(model=offer.id), label, label_choices(offer)))
    taken = int(STEPS.parse(steps, offer.T))
    check_cost(offer.data, COUNT, taken, GRADIENT)
    return GuideRequest(offer.id, which, WEIGHT.parse(weight), taken, int(SEED.parse(seed, SEED.high - COUNT)))
