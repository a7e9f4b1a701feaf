"""What may be asked of the Score tab and its endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from genlab.demo.limits import DATA_SET, SEED, Range, parse_choice
from genlab.demo.tabs.points import T
from genlab.plane import DATA_NAMES, DataName
from genlab.serving.language import both

TEXT = {
    "t": both("noise level t", "噪声水平 t"),
    "side": both("points along a side of the grid", "网格每边的点数"),
    "walk": both("walk", "行走"),
}

LEVEL = Range(TEXT["t"], 1, T, 25)
SIDE = Range(TEXT["side"], 3, 41, 13)
FIRST_DATA: DataName = "gaussians"
WalkName = Literal["none", "Langevin", "reverse", "flow"]
WALKS: tuple[WalkName, ...] = get_args(WalkName)
"""What moves in the figure."""


@dataclass(frozen=True)
class ScoreRequest:
    """The score at time t over a grid of side × side points."""

    data: DataName
    t: int
    side: int


@dataclass(frozen=True)
class WalkRequest:
    """What the figure shows: the score of these data at time t, and points that walk along it from the noise of `seed`."""

    data: DataName
    t: int
    walk: WalkName
    seed: int


def parse_walk(data: object, t: object, walk: object, seed: object) -> WalkRequest:
    """Return the request of the figure.

    Raises:
        LimitError: see `parse_choice` and `Range.parse`.
    """
    how = parse_choice(TEXT["walk"], walk, WALKS)
    return WalkRequest(parse_data(data), int(LEVEL.parse(t)), how, int(SEED.parse(seed)))


def parse_data(value: object) -> DataName:
    """Return the name of a data set."""
    return parse_choice(DATA_SET, value, DATA_NAMES)


def parse_score(data: object, t: object, side: object) -> ScoreRequest:
    """Return the request of `/score`.

    Raises:
        LimitError: see `parse_choice` and `Range.parse`.
    """
    return ScoreRequest(parse_data(data), int(LEVEL.parse(t)), int(SIDE.parse(side)))
