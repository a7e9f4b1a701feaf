"""One component for everything that is plotted: curves, clouds, fields, bars and heat maps, with handles to drag.

A `Figure` shows one `FigureData`: panels side by side, each with two axes and a list of layers, drawn in the order of the list.
The browser draws it anew for the width it has; colours are those of `colours.COLOURS`, so they mean the same everywhere.

    layer    Line · Area · Points · Arrows · Bars · Rule · Heat
    handle   a point that the visitor drags, by mouse, finger or arrow keys, along x, along y or freely
    select   a click on a panel chooses the nearest x of its first layer
    draw     free-hand points, collected in the panel
    frames   later states of some layers, played with the controls and the keys of `player.Player`

What the visitor does comes back as the figure's own value, so a figure is an input and an output of the same event:

    figure.input(show, [figure, slider], figure, **NEWEST_EVENT)     show(value, slider) → FigureData

While a handle is dragged there is one request at a time, always for the newest place, and never more often than the guard
allows a visitor; `input` is sent for every new state, the last one included, `release` once at the end of a drag, a key, or a
stroke, `select` for a choice, `clear` for an emptied drawing. The browser sends only what can change (`handles`, `selected`,
`drawn`), never the curves; `positions`, `selected` and `drawn` read it.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
from gradio.data_classes import FileData, GradioModel
from pydantic import AfterValidator, ConfigDict, Field, FiniteFloat, model_validator

from genlab.colours import COLOURS
from genlab.demo.components import Scripted, player
from genlab.demo.limits import LimitError
from genlab.serving.language import both
from genlab.serving.results import save_result

INK = "ink"
"""The colour of text, for what stands for nothing in particular."""
PLAIN = 12
"""Values up to which a series travels as plain numbers."""
GAP = 65535
"""The code of a missing value in a packed series."""
WIDE = (1e3, 1e9)
"""Positive values that differ by a factor between these are packed by their logarithms."""
DRAWN = 2000
"""Points that a free-hand drawing may have."""

SHARED = ("play", "pause", "back", "forward", "loop", "speed", "position", "frame", "computing")
LABELS: dict[str, str] = {
    **{key: player.LABELS[key] for key in SHARED},
    "player": both("Figure", "图"),
    "empty": both("Nothing to show yet.", "还没有可以显示的内容。"),
    "failed": both("The frames could not be loaded. Reload the page.", "画面无法加载，请刷新页面。"),
    "drawing": both(
        "Draw here. With the keyboard: arrow keys move the cross, Space sets a point.",
        "在这里画。用键盘时：方向键移动十字，空格键放一个点。",
    ),
    "clear": both("Clear the drawing", "清除所画的点"),
}
"""The figure's texts; the script fills what stands in braces."""


def _colour(name: str) -> str:
    if name not in COLOURS and name != INK:
        raise ValueError(f"expected a colour among {[*COLOURS, INK]}, got {name!r}")
    return name


class Packed(GradioModel):
    """Store many numbers in few bytes: v_i = low + c_i (high − low) / 65534 for 16-bit codes c_i, GAP for a missing value.

    Attributes:
        codes: base64 of the codes, little-endian.
        low, high: the values of the first and the last code, or their natural logarithms where `log`.
        log: the values are the exponentials of what is coded.
    """

    model_config = ConfigDict(extra="forbid")
    codes: str
    low: FiniteFloat
    high: FiniteFloat
    log: bool = False

    def __len__(self) -> int:
        return (len(self.codes) // 4 * 3 - self.codes.count("=")) // 2

    def values(self) -> np.ndarray:
        """Return the numbers, NaN where one is missing."""
        codes = np.frombuffer(base64.b64decode(self.codes), dtype="<u2")
        values = np.where(codes == GAP, np.nan, self.low + codes * ((self.high - self.low) / (GAP - 1)))
        return np.exp(values) if self.log else values


def pack(values: Any) -> Packed | list[float | None]:
    """Return one-dimensional numbers as a layer sends them: plain if few, else packed, whole numbers exactly; NaN, a gap in a
    line, as None.

    Raises:
        ValueError: not one-dimensional, or infinite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"expected a one-dimensional series, got shape {numbers.shape}")
    there = numbers[~np.isnan(numbers)]
    if not np.isfinite(there).all():
        raise ValueError("expected finite values, or NaN for a gap, got infinite ones")
    if len(numbers) <= PLAIN or len(there) == 0:
        return [None if math.isnan(v) else float(v) for v in numbers]
    whole = bool((there == np.round(there)).all() and np.ptp(there) < GAP)
    log = bool(not whole and there.min() > 0 and WIDE[0] * there.min() < there.max() < WIDE[1] * there.min())
    scaled = np.log(numbers) if log else numbers
    low, high = (float(v) for v in ((np.log(there) if log else there).min(), (np.log(there) if log else there).max()))
    high = low + GAP - 1 if whole else high
    codes = np.full(len(numbers), GAP, dtype="<u2")
    codes[~np.isnan(numbers)] = np.round((scaled[~np.isnan(numbers)] - low) * ((GAP - 1) / ((high - low) or 1.0)))
    return Packed(codes=base64.b64encode(codes.tobytes()).decode("ascii"), low=low, high=high, log=log)


def _series(value: Any) -> Packed | list[float | None]:
    if isinstance(value, Packed):
        return value
    if isinstance(value, dict):
        return Packed.model_validate(value)
    try:
        return pack([math.nan if v is None else v for v in value] if isinstance(value, (list, tuple)) else value)
    except TypeError as error:
        raise ValueError("expected a series of numbers, got something else") from error


Colour = Annotated[str, AfterValidator(_colour)]
Series = Annotated[Any, AfterValidator(_series)]
"""Numbers: a list, an array or a tensor goes in, what `pack` makes of it is stored."""


class _Part(GradioModel):
    model_config = ConfigDict(extra="forbid")

    @classmethod
    def from_json(cls, x: Any) -> Any:
        return cls.model_validate(x)


class Layer(_Part):
    """Hold what every layer has.

    Attributes:
        id: by which a frame names it; unique in the figure, "" for a layer that no frame changes.
        name: in the legend and the read-out, "" for none; x_t and x_{t−1} set an index.
        colour: a name of `colours.COLOURS`, or "ink".
    """

    id: str = ""
    name: str = ""
    colour: Colour = INK

    @model_validator(mode="after")
    def _lengths(self) -> Any:
        lengths = {key: len(getattr(self, key)) for key in ("x", "y", "u", "v") if hasattr(getattr(self, key, None), "__len__")}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected series of one length, got {lengths}")
        return self


class Line(Layer):
    """Draw a polyline through (x_i, y_i); a missing y is a gap. `dash`: broken; `width` in pixels."""

    kind: Literal["line"] = "line"
    x: Series
    y: Series
    dash: bool = False
    width: FiniteFloat = Field(default=2.5, gt=0, le=12)


class Area(Layer):
    """Fill the area between y and `base`, with its edge. Where y lies below the base the filling is hatched."""

    kind: Literal["area"] = "area"
    x: Series
    y: Series
    base: FiniteFloat = 0
    opacity: FiniteFloat = Field(default=0.25, ge=0, le=1)
    edge: bool = True


class Points(Layer):
    """Draw a cloud of discs of `size` pixels, or with `hollow` of rings; some thousands are no trouble."""

    kind: Literal["points"] = "points"
    x: Series
    y: Series
    size: FiniteFloat = Field(default=3.5, gt=0, le=40)
    opacity: FiniteFloat = Field(default=0.7, ge=0, le=1)
    hollow: bool = False


class Arrows(Layer):
    """Draw a vector field: arrows from (x, y) to (x + u, y + v)."""

    kind: Literal["arrows"] = "arrows"
    x: Series
    y: Series
    u: Series
    v: Series
    width: FiniteFloat = Field(default=1.5, gt=0, le=12)


class Stack(_Part):
    """Give one part of every bar."""

    name: str = ""
    colour: Colour = INK
    values: list[FiniteFloat]
    inside: str = ""
    """Written on the part where there is room; "" for nothing."""


class Bars(Layer):
    """Draw bars at 0, 1, …, one for each label, each of the parts of `stacks`: those above zero upwards, the others downwards.

    Attributes:
        labels: what stands at the axis.
        stacks: the parts, each with one value for every bar.
        texts: the numbers as text, one for every bar, at its end; may be left out.
        horizontal: bars lie, the first at the top; the panel's x axis is then that of the values.
        thickness: of a bar, as a part of the distance to the next.
    """

    kind: Literal["bars"] = "bars"
    labels: list[str]
    stacks: list[Stack]
    texts: list[str] = Field(default_factory=list)
    horizontal: bool = False
    thickness: FiniteFloat = Field(default=0.66, gt=0, le=1)

    @model_validator(mode="after")
    def _bars(self) -> Bars:
        for stack in self.stacks:
            if len(stack.values) != len(self.labels):
                raise ValueError(f"expected {len(self.labels)} values, one for each label, got {len(stack.values)}")
        if self.texts and len(self.texts) != len(self.labels):
            raise ValueError(f"expected {len(self.labels)} texts, one for each label, got {len(self.texts)}")
        return self


class Rule(Layer):
    """Draw a straight line across the panel at one value of an axis, with its text beside it."""

    kind: Literal["rule"] = "rule"
    axis: Literal["x", "y"] = "x"
    at: FiniteFloat
    text: str = ""


class Heat(Layer):
    """Draw a picture behind everything: `values` row by row from the top left, over the whole panel or x, y from … to …

    Each value is the opacity of the layer's colour: 0 at `low`, full at `high`.
    """

    kind: Literal["heat"] = "heat"
    values: Series
    columns: int = Field(gt=0, le=512)
    low: FiniteFloat = 0
    high: FiniteFloat = 1
    x: tuple[FiniteFloat, FiniteFloat] | None = None
    y: tuple[FiniteFloat, FiniteFloat] | None = None

    @model_validator(mode="after")
    def _lengths(self) -> Any:
        if len(self.values) % self.columns:
            raise ValueError(f"expected whole rows of {self.columns} values, got {len(self.values)} values")
        return self


AnyLayer = Annotated[Line | Area | Points | Arrows | Bars | Rule | Heat, Field(discriminator="kind")]


class Axis(_Part):
    """Set the range of an axis, from `low` to `high`; `ticks` False: no numbers at it; `scale` "log" needs low > 0."""

    low: FiniteFloat
    high: FiniteFloat
    name: str = ""
    scale: Literal["linear", "log"] = "linear"
    ticks: bool = True

    @model_validator(mode="after")
    def _range(self) -> Axis:
        if self.low >= self.high:
            raise ValueError(f"expected low < high, got {self.low:g} and {self.high:g}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"expected low > 0 on a logarithmic axis, got {self.low:g}")
        return self


class Panel(_Part):
    """Describe one pair of axes and what is drawn in it.

    Attributes:
        x, y: the axes.
        layers: drawn in this order (heat maps and clouds lie under all lines).
        title: above the panel, short.
        description: what a screen reader says of it, with the numbers.
        aspect: width / height, the same for every later value; alone: that of a panel as wide as the figure, if it is another.
        share: width beside the other panels; a panel that would become narrower than `least` pixels goes to the next row.
        least: see `share`.
        equal: a unit of x is as long as a unit of y.
        readout: the values under the pointer are shown.
        select: a click chooses the nearest x of the first layer that has one; the arrow keys go on from there.
        draw: free-hand drawing.
    """

    x: Axis
    y: Axis
    layers: list[AnyLayer] = Field(default_factory=list)
    title: str = ""
    description: str = ""
    aspect: FiniteFloat = Field(default=1.6, gt=0.1, le=20)
    alone: FiniteFloat | None = Field(default=None, gt=0.1, le=20)
    share: FiniteFloat = Field(default=1, gt=0)
    least: FiniteFloat = Field(default=280, ge=80)
    equal: bool = False
    readout: bool = True
    select: bool = False
    draw: bool = False


class Handle(_Part):
    """Describe a point that the visitor drags.

    Attributes:
        id: by which `positions` names it.
        x, y: where it is; axis: along which it moves, "x", "y" or "xy".
        panels: in which panels it is drawn; it is the same handle in all of them.
        name: what a screen reader and the read-out call it.
        colour: as of a layer; shape: "disc", or for one that changes a width "bar".
        x_low, x_high, y_low, y_high: its bounds, else those of the panel's axes.
        with_: another handle's id: this one moves along with it.
    """

    id: str = Field(max_length=40)
    x: FiniteFloat
    y: FiniteFloat
    axis: Literal["x", "y", "xy"] = "x"
    panels: list[int] = Field(default_factory=lambda: [0], max_length=16)
    name: str = ""
    colour: Colour = INK
    shape: Literal["disc", "bar"] = "disc"
    x_low: FiniteFloat | None = None
    x_high: FiniteFloat | None = None
    y_low: FiniteFloat | None = None
    y_high: FiniteFloat | None = None
    with_: str = ""


class Selected(_Part):
    """Hold what was chosen by a click: the panel's index and x."""

    panel: int = Field(ge=0, le=100)
    x: FiniteFloat


class Frame(_Part):
    """Change the figure for one frame: layer id → the fields that differ from the layer, and the frame's text."""

    caption: str = ""
    layers: dict[str, dict[str, Any]] = Field(default_factory=dict)


class FigureData(GradioModel):
    """Describe what a figure shows; from the browser come `handles`, `selected` and `drawn` alone.

    Attributes:
        panels: side by side, as far as there is room.
        handles: see `Handle`.
        selected: what the visitor chose last, or what is chosen at first.
        drawn: (x, y) of the free-hand points.
        caption: text under the panels, where there are no frames.
        description: what the whole figure shows, as text with the numbers.
        legend: show it.
        frames: see `Frame`; the figure's own layers are what is not in a frame.
        sheet: a file with the layers of all frames; `frames` then has those of frame `first` alone. See `frames_apart`.
        segments: named stretches of the timeline, as in `PlayerData`.
        first: index of the frame shown first, by default the last.
        fps, autoplay, loop: as in `PlayerData`.
    """

    panels: list[Panel] = Field(default_factory=list, max_length=16)
    handles: list[Handle] = Field(default_factory=list, max_length=64)
    selected: Selected | None = None
    drawn: list[tuple[FiniteFloat, FiniteFloat]] = Field(default_factory=list, max_length=DRAWN)
    caption: str = ""
    description: str = ""
    legend: bool = True
    frames: list[Frame] = Field(default_factory=list, max_length=2000)
    sheet: FileData | None = None
    segments: list[player.Segment] = Field(default_factory=list)
    first: int | None = None
    fps: FiniteFloat = Field(default=12, gt=0)
    autoplay: bool = False
    loop: bool = False

    @classmethod
    def from_json(cls, x: Any) -> FigureData:
        return cls.model_validate(x)

    @model_validator(mode="after")
    def _consistent(self) -> FigureData:
        layers: dict[str, Layer] = {}
        for layer in (layer for panel in self.panels for layer in panel.layers if layer.id):
            if layer.id in layers:
                raise ValueError(f"expected different ids of layers, got {layer.id!r} twice")
            layers[layer.id] = layer
        for frame in self.frames:
            for name, changes in frame.layers.items():
                if name not in layers:
                    raise ValueError(f"expected ids of layers, {sorted(layers)}, in a frame, got {name!r}")
                changed = type(layers[name])(**{**layers[name].__dict__, **changes})
                frame.layers[name] = {key: getattr(changed, key) for key in changes}
        if self.panels:
            off = {i for handle in self.handles for i in handle.panels if not 0 <= i < len(self.panels)}
            if off:
                raise ValueError(f"expected handles in panels 0 … {len(self.panels) - 1}, got {sorted(off)}")
        if len({handle.id for handle in self.handles}) < len(self.handles):
            raise ValueError("expected different ids of handles, got one twice")
        if self.first is not None and not 0 <= self.first < len(self.frames):
            raise ValueError(f"expected a first frame from 0 to {len(self.frames) - 1}, got {self.first}")
        return self


def frames_apart(value: FigureData) -> FigureData:
    """Return a figure with its frames in a file that the browser fetches when it shows the figure.

    The page that opens on it then has no more of them than the captions and the frame shown first, by default the last one.
    """
    if not value.frames:
        return value
    first = len(value.frames) - 1 if value.first is None else value.first
    layers = json.dumps([frame.model_dump()["layers"] for frame in value.frames])
    content = gzip.compress(layers.encode(), mtime=0)
    sheet = FileData(path=save_result(content, "frames.gz"), mime_type="application/gzip", size=len(content))
    frames = [frame if i == first else Frame(caption=frame.caption) for i, frame in enumerate(value.frames)]
    return value.model_copy(update={"frames": frames, "first": first, "sheet": sheet})


def positions(value: Any, ids: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return where the handles of these ids are, {id: (x, y)}, in a value that came from the browser.

    Raises:
        LimitError: one of them is missing.
    """
    handles = value.get("handles") if isinstance(value, dict) else None
    found = {handle["id"]: (float(handle["x"]), float(handle["y"])) for handle in handles or []}
    missing = [name for name in ids if name not in found]
    if missing:
        raise LimitError(f"expected handles {list(ids)}, got none called {missing}")
    return {name: found[name] for name in ids}


def selected(value: Any) -> tuple[int, float] | None:
    """Return the panel's index and the x that the visitor chose, or None, in a value that came from the browser."""
    chosen = value.get("selected") if isinstance(value, dict) else None
    return None if chosen is None else (int(chosen["panel"]), float(chosen["x"]))


def drawn(value: Any) -> np.ndarray:
    """Return the free-hand points (N, 2), N ≤ DRAWN, in a value that came from the browser."""
    points = value.get("drawn") if isinstance(value, dict) else None
    return np.asarray(points or np.zeros((0, 2)), dtype=np.float64).reshape(-1, 2)


class Figure(Scripted):
    """Show `FigureData` and sends back what the visitor moves: an output and an input.

    Args:
        value: what to show at first; give one, so that nothing on the page moves later.
        label: the component's name in the API.
        animated: frames will come: the controls are there from the start.
        segmented: the frames that are to come have segments; keep their room.
        follows: id of the player on the page whose frames these are: the figure shows the frame that it shows, and has no
            controls of its own.
        labels: texts that replace those of LABELS: "player" names the figure for a screen reader, "empty" says what to press.
        kwargs: other arguments of `gr.HTML`.
    """

    name = "figure"
    data_model = FigureData
    texts = LABELS
    described = "a figure; clients ask the endpoints for its numbers"

    def __init__(
        self,
        value: FigureData | None = None,
        *,
        label: str | None = None,
        animated: bool = False,
        segmented: bool = False,
        follows: str = "",
        labels: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        empty = {"segmented": segmented, "animated": animated, "follows": follows, "segments": [], "drawn": DRAWN}
        super().__init__(value, label=label, labels=labels, empty=empty, **kwargs)

    @classmethod
    @cache
    def schema(cls) -> dict[str, Any]:
        """Return the fields and their types, without what is inside: gradio cannot read a schema of layers of several kinds."""
        types = {name: field.get("type", "object") for name, field in FigureData.model_json_schema()["properties"].items()}
        inside = {"array": {"items": {"type": "object"}}}
        return {"type": "object", "properties": {name: {"type": kind, **inside.get(kind, {})} for name, kind in types.items()}}
