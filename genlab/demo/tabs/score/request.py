"""What may be asked of the Score tab and its endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from genlab.demo.limits import DATA_SET, Range, parse_choice
from genlab.demo.tabs.points import T
from genlab.plane import DATA_NAMES, DataName
from genlab.serving.language import both

TEXT = {"t": both("noise level t", "噪声水平 t"), "side": both("points along a side of the grid", "网格每边的点数")}

LEVEL = Range(TEXT["t"], 1, T, 25)
SIDE = Range(TEXT["side"], 3, 41, 13)


@dataclass(frozen=True)
class ScoreRequest:
    """The score at time t over a grid of side × side points."""

    data: DataName
    t: int
    side: int


def parse_data(value: object) -> DataName:
    """Return the name of a data set."""
    return parse_choice(DATA_SET, value, DATA_NAMES)


def parse_score(data: object, t: object, side: object) -> ScoreRequest:
    """Return the request of `/score`.

    Raises:
        LimitError: see `parse_choice` and `Range.parse`.
    """
    return ScoreRequest(parse_data(data), int(LEVEL.parse(t)), int(SIDE.parse(side)))
