"""Pictures side by side with hard pixels: the first, x, is the visitor's to draw on; in the others a pixel can be chosen.

A `Canvas` shows one `CanvasData` and sends back what the visitor changes: the bytes of x, and the chosen pixel. It is an input
and an output of the same events:

    canvas.input(show, canvas, canvas, **NEWEST_EVENT)     while x is drawn on
    canvas.release(…)  at the end of a stroke: for what is too heavy for input;     canvas.select(…)  a pixel has been chosen

x travels as the base64 of its height × width × channels bytes, row by row: there is no file to upload and no picture format to
decode, and `limits.parse_drawing` takes nothing but exactly that many bytes. A value with another `token` puts its x in the
place of what has been drawn; with the same token the visitor's own x stays, so that an answer never undoes a stroke.

The pen is white and soft, 2.1 pixels of a 28×28 picture wide at half its brightness, as the strokes of MNIST are.

A value with a `cover` lets the visitor hide parts of x, too: while the button for it is pressed, the pen hides, the eraser
shows again, and "Clear" shows all.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gradio.data_classes import GradioModel
from pydantic import ConfigDict, Field

from genlab.colours import COLOURS
from genlab.demo.components import Scripted
from genlab.demo.limits import DRAWN_VALUES
from genlab.serving.language import both

LABELS: dict[str, str] = {
    "canvas": both("Pictures", "图片"),
    "draw": both(
        "Draw here. With the keyboard: arrow keys move the pen, Space sets a dot, Shift with an arrow key draws a line.",
        "在这里画。用键盘时：方向键移动画笔，空格键画一个点，按住 Shift 再按方向键画线。",
    ),
    "pixel": both(
        "Pixel in row {row}, column {column}; arrow keys choose another.", "第 {row} 行第 {column} 列的像素；方向键选择另一个。"
    ),
    "clear": both("Clear", "清空"),
    "erase": both("Eraser", "橡皮"),
    "hide": both("Paint over", "遮盖"),
    "hint": both("Draw on the first picture; click a pixel in the others.", "在第一张图上画；在其余图上点选一个像素。"),
}  # fmt: skip
"""The canvas's texts; the script fills what stands in braces."""


class CanvasData(GradioModel):
    """Describe what a canvas shows; from the browser come `token`, `x`, `chosen` and `cover` alone.

    Attributes:
        token: names the picture that x began as.
        x: base64 of the bytes of x.
        chosen: row and column of the chosen pixel.
        cover: base64 of a byte for each pixel of x, above 127 where it is hidden; "" where nothing can be.
        width, height, channels: of every picture.
        panes: their names, x first; colours: for every one what its colour stands for, a name of `colours.COLOURS`.
        pictures: base64 of the bytes of the others.
        caption: text under the pictures.
    """

    model_config = ConfigDict(extra="forbid")
    token: str = Field(default="", max_length=32)
    x: str = Field(default="", max_length=-(-DRAWN_VALUES // 3) * 4)
    chosen: tuple[int, int] | None = None
    cover: str = Field(default="", max_length=-(-DRAWN_VALUES // 3) * 4)
    width: int = Field(default=0, ge=0, le=1024)
    height: int = Field(default=0, ge=0, le=1024)
    channels: int = Field(default=1, ge=1, le=3)
    panes: list[str] = Field(default_factory=list, max_length=16)
    colours: list[str] = Field(default_factory=list, max_length=16)
    pictures: list[str] = Field(default_factory=list, max_length=16)
    caption: str = ""


def canvas_data(
    token: str,
    pictures: Sequence[np.ndarray],
    names: Sequence[str],
    colours: Sequence[str],
    chosen: tuple[int, int] | None = None,
    caption: str = "",
    cover: np.ndarray | None = None,
) -> CanvasData:
    """Return what a canvas shows for some pictures.

    Args:
        token: the one that came with x, or `player.new_run()` for another x.
        pictures: (H W C) uint8 each, x first.
        names, colours: one for each picture.
        chosen, caption: as in `CanvasData`; cover: (H W) bool, true where x is hidden.

    Raises:
        ValueError: the pictures, names and colours do not fit together.
    """
    shapes = {picture.shape for picture in pictures}
    if len(shapes) != 1 or {picture.dtype for picture in pictures} != {np.dtype(np.uint8)}:
        raise ValueError(f"expected pictures of uint8 and one shape, got {sorted(shapes)}")
    if not len(pictures) == len(names) == len(colours) or not set(colours) <= set(COLOURS):
        raise ValueError(
            f"expected {len(pictures)} names and colours among {list(COLOURS)}, got {list(names)}, {list(colours)}"
        )
    height, width, channels = pictures[0].shape
    first, *others = (base64.b64encode(picture.tobytes()).decode("ascii") for picture in pictures)
    return CanvasData(
        token=token,
        x=first,
        chosen=chosen,
        cover="" if cover is None else base64.b64encode((cover * np.uint8(255)).tobytes()).decode("ascii"),
        width=width,
        height=height,
        channels=channels,
        panes=list(names),
        colours=list(colours),
        pictures=others,
        caption=caption,
    )


class Canvas(Scripted):
    """Show `CanvasData` and sends back what the visitor draws and chooses: an output and an input.

    Args:
        value: what to show at first; give one, so that nothing on the page moves later.
        label: the component's name in the API.
        labels: texts that replace those of LABELS.
        kwargs: other arguments of `gr.HTML`.
    """

    name = "canvas"
    data_model = CanvasData
    texts = LABELS
    described = "pictures on a canvas; clients ask the endpoints for their numbers"

    def __init__(
        self,
        value: CanvasData | None = None,
        *,
        label: str | None = None,
        labels: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value, label=label, labels=labels, empty=CanvasData().model_dump(), **kwargs)
