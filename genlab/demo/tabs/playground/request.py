"""What may be asked of the Playground, and links that carry a drawing.

A link is a query, ?tab=playground&data=…&model=…&walk=…&steps=…&seed=…&points=…, where `points` holds a drawing in base64url,
two bytes for each point (x, y), each coordinate rounded to one of 256 values:

    v = −1 + 2 c / 255,   c = 0 … 255                                                                (1)

A drawing of the page is rounded so before it is learned from, so that the link stands for exactly the same points.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import urlencode

import numpy as np

from genlab.demo.limits import DATA_SET, MODEL, SEED, LimitError, Range, parse_choice, shown
from genlab.plane import DATA_NAMES, MAX_DRAWN, DataName
from genlab.serving.language import both

DRAWING = "drawing"
"""The choice of a visitor's own points."""
DATA = (*DATA_NAMES, DRAWING)
ModelName = Literal["DDPM", "score model", "flow matching", "VAE"]
MODELS: tuple[ModelName, ...] = ("DDPM", "score model", "flow matching", "VAE")
WalkName = Literal["reverse SDE", "flow", "Langevin"]
WALKS: tuple[WalkName, ...] = ("reverse SDE", "flow", "Langevin")
"""Ways of a score model."""
PLAYGROUND = "playground"
"""Value of `tab` in a link."""

TEXT = {
    "steps": both("steps of learning", "学习步数"),
    "count": both("number of samples", "样本数量"),
    "walk": both("way back", "反向方式"),
    "points": both(
        "points: expected 1 to {most} pairs [x, y] of numbers from −1 to 1, got {value}",
        "points：应为 1 到 {most} 个点 [x, y]，坐标为 −1 到 1 之间的数，实际为 {value}",
    ),
    "nothing drawn": both(
        "nothing is drawn yet: draw with the mouse or a finger, or choose a data set",
        "还没有画任何点：请用鼠标或手指画，或选一个数据集",
    ),
    "not drawn": both(
        "points: expected none beside the data set {data}; they go with data = drawing",
        "points：数据集为 {data} 时不应给出点；只有 data = drawing 时才用",
    ),
    "link": both(
        "the link is damaged: expected {name} as the page writes it, got {value}",
        "链接已损坏：{name} 应与本页生成的一致，实际为 {value}",
    ),
}

LEARN_STEPS = Range(TEXT["steps"], 100, 3000, 1500, step=100)
SAMPLES = Range(TEXT["count"], 1, 2000, 500)
Marks = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class PlaygroundRequest:
    """What is to be learned, by what, and how.

    Attributes:
        data: a data set of `plane`, or the points `marks`, which are there for a drawing only.
        walk: how a score model goes back; the others have one way only.
        steps: of the optimiser.
        seed: of the weights to start from, the batches and the noise.
    """

    data: DataName | Literal["drawing"]
    marks: Marks
    model: ModelName
    walk: WalkName
    steps: int
    seed: int


FIRST = PlaygroundRequest("moons", (), "DDPM", "reverse SDE", int(LEARN_STEPS.default), int(SEED.default))
"""What the controls ask for at first."""


def parse_playground(
    data: object, points: object, model: object, walk: object, steps: object, seed: object
) -> PlaygroundRequest:
    """Return the request of `/playground`, and of the page.

    Raises:
        LimitError: see `parse_choice`, `Range.parse` and `parse_marks`.
    """
    chosen = parse_choice(DATA_SET, data, DATA)
    if chosen != DRAWING and points not in (None, [], ()):
        raise LimitError(TEXT["not drawn"].format(data=chosen))
    return PlaygroundRequest(
        cast(DataName, chosen),
        parse_marks(points) if chosen == DRAWING else (),
        parse_choice(MODEL, model, MODELS),
        parse_walk(walk),
        int(LEARN_STEPS.parse(steps)),
        int(SEED.parse(seed)),
    )


def parse_walk(value: object) -> WalkName:
    """Return the way back of a score model."""
    return parse_choice(TEXT["walk"], value, WALKS)


def parse_marks(value: object) -> Marks:
    """Return drawn points.

    Raises:
        LimitError: not 1 to 2000 pairs of numbers from −1 to 1.
    """
    if value in (None, [], ()):
        raise LimitError(TEXT["nothing drawn"])
    if not isinstance(value, (list, tuple)) or len(value) > MAX_DRAWN:
        count = len(value) if isinstance(value, (list, tuple)) else shown(value)
        raise LimitError(TEXT["points"].format(most=MAX_DRAWN, value=count))
    for mark in value:
        if not isinstance(mark, (list, tuple)) or len(mark) != 2 or not all(_coordinate(v) for v in mark):
            raise LimitError(TEXT["points"].format(most=MAX_DRAWN, value=shown(mark)))
    return tuple((float(x), float(y)) for x, y in value)


def _coordinate(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1 <= value <= 1


def rounded(points: np.ndarray) -> Marks:
    """Return the points (N, 2) of a drawing, rounded by eq. 1; points outside of the square move to its edge."""
    return _points(_codes(points))


def _codes(points: np.ndarray) -> np.ndarray:
    return np.round((np.clip(points, -1, 1) + 1) * 127.5).astype(np.uint8)


def _points(codes: np.ndarray) -> Marks:
    return tuple((float(x), float(y)) for x, y in -1 + codes.reshape(-1, 2) / 127.5)


def write_link(request: PlaygroundRequest) -> str:
    """Return the query that opens the page with this request; `request.marks` as `rounded` returns them."""
    query: dict[str, object] = {"tab": PLAYGROUND, "data": request.data, "model": request.model}
    query |= {"walk": request.walk, "steps": request.steps, "seed": request.seed}
    if request.marks:
        query["points"] = base64.urlsafe_b64encode(_codes(np.array(request.marks)).tobytes()).rstrip(b"=").decode()
    return urlencode(query)


def read_link(query: Mapping[str, str]) -> PlaygroundRequest | None:
    """Return the request in the page's address, or None if it has none.

    Raises:
        LimitError: the link is not one that `write_link` has made.
    """
    if query.get("tab") != PLAYGROUND or "data" not in query:
        return None
    numbers: dict[str, int] = {}
    for name, limit in (("steps", LEARN_STEPS), ("seed", SEED)):
        text = query.get(name, f"{limit.default:.0f}")
        if not re.fullmatch(r"\d{1,10}", text, re.ASCII):
            raise LimitError(TEXT["link"].format(name=name, value=shown(text)))
        numbers[name] = int(text)
    packed = query.get("points", "")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", packed, re.ASCII) or len(packed) > (8 * MAX_DRAWN + 2) // 3 or len(packed) % 4 == 1:
        raise LimitError(TEXT["link"].format(name="points", value=shown(packed)))
    codes = np.frombuffer(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)), dtype=np.uint8)
    if len(codes) % 2:
        raise LimitError(TEXT["link"].format(name="points", value=shown(packed)))
    return parse_playground(
        query["data"],
        _points(codes) or None,
        query.get("model", MODELS[0]),
        query.get("walk", WALKS[0]),
        numbers["steps"],
        numbers["seed"],
    )
