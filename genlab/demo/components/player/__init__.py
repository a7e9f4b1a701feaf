"""One player for everything that has frames: the reverse process, a path between two pictures, a grid of samples forming.

A frame is a row of P panes, each a picture of H × W pixels (x_t, x̂_0 and ε̂, say). While the model computes, the server sends
one frame at a time (`player_frame`), and the browser shows and stores it. At the end it sends all N frames again as
one sprite sheet (`player_sheet`): from then on playing, stepping and scrubbing ask the server for nothing.

    sheet: k = ⌈√N⌉ columns; frame i lies in column i mod k, row ⌊i/k⌋; a cell is the frame's panes side by side    (1)

Gray pictures travel as PNG, exactly; colour pictures as JPEG without chroma subsampling, which would bleed into the next frame.
"""

from __future__ import annotations

import base64
import io
import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gradio.data_classes import FileData, GradioModel
from PIL import Image
from pydantic import Field

from genlab.colours import COLOURS
from genlab.demo.components import Scripted
from genlab.demo.theme import colour_of
from genlab.serving.language import both
from genlab.serving.results import save_result

JPEG_QUALITY = 90
"""Of colour pictures, live and in the sheet."""
WEBP_SIDE = 336
"""Pixels that the longer side of a downloaded animation should have, about."""

LABELS: dict[str, str] = {
    "player": both("Animation player", "动画播放器"),
    "empty": both(
        "Press the button to start. The frames appear here while they are computed.", "点击按钮开始。画面会边计算边出现在这里。"
    ),
    "play": both("Play", "播放"),
    "pause": both("Pause", "暂停"),
    "back": both("One frame back", "上一帧"),
    "forward": both("One frame forward", "下一帧"),
    "loop": both("Repeat", "循环播放"),
    "speed": both("Speed", "速度"),
    "position": both("Frame", "帧"),
    "frame": both("frame {i} of {n}", "第 {i} 帧，共 {n} 帧"),
    "computing": both("computing, {arrived} of {n} frames", "计算中，已有 {arrived} / {n} 帧"),
    "ready": both("{n} frames are ready", "{n} 帧已就绪"),
    "failed": both("The frames could not be loaded. Run it again.", "画面无法加载，请再运行一次。"),
    "picture": both("{pane}, {frame}. {caption}", "画面 {pane}，{frame}。{caption}"),
}
"""The player's texts; the script fills what stands in braces."""


class Segment(GradioModel):
    """Name a stretch of the timeline: from frame `start` up to the next segment's start."""

    start: int
    label: str


class PlayerData(GradioModel):
    """Describe what a player shows: one frame of a run that is still being computed, or a whole run as a sprite sheet.

    Attributes:
        run: name of this run; fresh for every start, so that frames of two runs never mix.
        i: 0-based index of the live frame; with a sheet, the frame to show first.
        n: number of frames of the whole run; 0 for an empty player.
        width, height: pixels of one frame, its panes side by side: width = P·W, height = H.
        panes: names of the panes, left to right.
        colours: for every pane what its colour stands for, a name of `colours.COLOURS`.
        live: the live frame, a picture in base64 without a `data:` prefix; "" when there is a sheet.
        caption: text of the live frame.
        sheet: all frames in one picture, laid out by (1).
        captions: one text for every frame of the sheet.
        segments: named stretches of the timeline, drawn under the scrubber.
        done: no more frames will come; without a sheet, those that have come are the run.
        fps: frames a second at speed 1×.
        autoplay: play as soon as the sheet has come (never where the visitor asked for reduced motion).
        loop: start again after the last frame.
    """

    run: str = ""
    i: int = 0
    n: int = 0
    width: int = 0
    height: int = 0
    panes: list[str] = Field(default_factory=list)
    colours: list[str] = Field(default_factory=list)
    live: str = ""
    caption: str = ""
    sheet: FileData | None = None
    captions: list[str] = Field(default_factory=list)
    segments: list[Segment] = Field(default_factory=list)
    done: bool = False
    fps: float = 10
    autoplay: bool = False
    loop: bool = False


def new_run() -> str:
    """Return a fresh name for a run."""
    return secrets.token_hex(6)


def player_frame(
    run: str,
    i: int,
    n: int,
    panes: np.ndarray | Sequence[np.ndarray],
    names: Sequence[str],
    caption: str = "",
    *,
    colours: Sequence[str] | None = None,
    segments: Sequence[Segment] = (),
    fps: float = 10,
) -> PlayerData:
    """Return one frame of a run that is being computed: yield it to a `Player` at most every 40 ms; any may be left out.

    Args:
        run: the run's name, `new_run()` at its start.
        i: 0-based index of this frame; n: number of frames of the whole run.
        panes: (P, H, W) gray or (P, H, W, 3) colour, uint8; or a list of P such pictures.
        names: P names; a name may be "" where there is nothing to say.
        caption: the numbers of this frame, as text.
        colours: for every pane a name of `colours.COLOURS`; by default they follow from the names.
        segments: as in `PlayerData`; fps: frames a second at speed 1×.
    """
    frame = np.asarray(panes)
    layout = _layout(frame, names, colours)
    _check_frame(i, n)
    return PlayerData(
        run=run,
        i=i,
        n=n,
        live=base64.b64encode(_encode(_join(frame[None])[0])).decode("ascii"),
        caption=caption,
        fps=fps,
        segments=list(segments),
        **layout,
    )


def player_sheet(
    run: str,
    frames: np.ndarray | Sequence[np.ndarray],
    names: Sequence[str],
    captions: Sequence[str] = (),
    *,
    colours: Sequence[str] | None = None,
    segments: Sequence[Segment] = (),
    first: int | None = None,
    fps: float = 10,
    autoplay: bool = False,
    loop: bool = False,
) -> PlayerData:
    """Return a whole run as one sprite sheet: the last value to yield to a `Player`, or the only one.

    Args:
        run: the name that the run's live frames had; `new_run()` if there were none.
        frames: (N, P, H, W) gray or (N, P, H, W, 3) colour, uint8; or a list of N frames.
        names: P names of the panes; captions: N texts, or none at all.
        first: index of the frame to show first, by default the last one (a visitor who has gone to another frame stays there).
        colours, segments, fps, autoplay, loop: as in `PlayerData`.
    """
    frames = _stacked(frames)
    layout = _layout(frames[0], names, colours)
    n = len(frames)
    captions = list(captions) or [""] * n
    if len(captions) != n:
        raise ValueError(f"expected one caption for each of the {n} frames, got {len(captions)}")
    first = n - 1 if first is None else first
    _check_frame(first, n)
    sheet = pack_sheet(_join(frames))
    encoded, suffix = _encode(sheet), _suffix(sheet)
    file = save_result(encoded, f"frames{suffix}")
    return PlayerData(
        run=run,
        i=first,
        n=n,
        sheet=FileData(path=file, orig_name=f"frames{suffix}", mime_type=_mime(sheet), size=len(encoded)),
        captions=captions,
        segments=list(segments),
        done=True,
        fps=fps,
        autoplay=autoplay,
        loop=loop,
        **layout,
    )


def pack_sheet(pictures: np.ndarray) -> np.ndarray:
    """Pack N pictures (N, h, w[, 3]) into one by (1), with black cells at the end where there are too many."""
    n, height, width = pictures.shape[:3]
    k = math.ceil(math.sqrt(n))
    rows = math.ceil(n / k)
    cells = np.zeros((rows * k, *pictures.shape[1:]), dtype=pictures.dtype)
    cells[:n] = pictures
    return cells.reshape(rows, k, *pictures.shape[1:]).swapaxes(1, 2).reshape(rows * height, k * width, *pictures.shape[3:])


def frames_to_webp(
    frames: np.ndarray | Sequence[np.ndarray],
    path: str | Path | None = None,
    *,
    fps: float = 10,
    scale: int | None = None,
    hold: float = 1.5,
) -> bytes:
    """Encode frames as an animated WebP that repeats for ever: every pixel a square of `scale` pixels, without loss.

    Args:
        frames: (N, P, H, W) gray or (N, P, H, W, 3) colour, uint8; the panes are put side by side.
        path: where to write it too.
        scale: pixels; by default the whole number that brings the longer side to about 336 pixels.
        hold: seconds that the last frame stays.
    """
    pictures = _join(_stacked(frames))
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"expected fps above 0, got {fps}")
    scale = max(1, WEBP_SIDE // max(pictures.shape[1:3])) if scale is None else scale
    if scale < 1:
        raise ValueError(f"expected a scale of at least 1, got {scale}")
    images = [Image.fromarray(picture.repeat(scale, axis=0).repeat(scale, axis=1)) for picture in pictures]
    durations = [round(1000 / fps)] * (len(images) - 1) + [round(1000 * hold)]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "WEBP", save_all=True, append_images=images[1:], duration=durations, loop=0, lossless=True, quality=0, method=0
    )
    if path is not None:
        Path(path).write_bytes(buffer.getvalue())
    return buffer.getvalue()


class Player(Scripted):
    """Show `PlayerData`: an output component that plays, steps, scrubs and loops in the browser.

    A player with nothing to show draws empty panes of the size that `panes` and `pane_shape` announce, so that nothing on the
    page moves when the first frame arrives.

    Args:
        value: what to show at first, a `player_sheet(...)` for instance.
        label: the component's name in the API; on the page the player is called by labels["player"].
        panes: names of the panes that are to come; pane_shape: (H, W) of each, in pixels.
        colours: as in `PlayerData`, of the empty panes.
        segmented: the frames that are to come have segments; keep their room under the scrubber.
        lines: of the captions that are to come, in a wide player and in a narrow one; keep their room.
        labels: texts that replace those of LABELS; "empty" is the one to set for every player: it says what to press. An event
            may change them later: `gr.update(labels={...})`.
        kwargs: other arguments of `gr.HTML`.
    """

    name = "player"
    data_model = PlayerData
    texts = LABELS
    described = "frames; `sheet` has all of them, at the end"

    def __init__(
        self,
        value: PlayerData | None = None,
        *,
        label: str | None = None,
        panes: Sequence[str] = ("",),
        pane_shape: tuple[int, int] = (28, 28),
        colours: Sequence[str] | None = None,
        segmented: bool = False,
        lines: tuple[int, int] = (1, 2),
        labels: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            value,
            label=label,
            labels=labels,
            empty={
                "panes": list(panes),
                "colours": _colours(panes, colours),
                "width": pane_shape[1] * len(panes),
                "height": pane_shape[0],
                "segmented": segmented,
                "lines": list(lines),
            },
            **kwargs,
        )


def _stacked(frames: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    if len(frames) == 0:
        raise ValueError("expected at least one frame, got none")
    return np.asarray(frames)


def _join(frames: np.ndarray) -> np.ndarray:
    """Return frames with their panes side by side: (N, P, H, W[, C]) uint8 → (N, H, P·W) gray or (N, H, P·W, 3) colour."""
    if frames.dtype != np.uint8:
        raise ValueError(f"expected pictures of uint8, got {frames.dtype}")
    if frames.ndim == 5 and frames.shape[-1] == 1:
        frames = frames[..., 0]
    if frames.ndim not in (4, 5) or (frames.ndim == 5 and frames.shape[-1] != 3) or 0 in frames.shape:
        raise ValueError(f"expected panes of shape (P, H, W), (P, H, W, 1) or (P, H, W, 3) in a frame, got {frames.shape[1:]}")
    n, panes, height, width = frames.shape[:4]
    return frames.swapaxes(1, 2).reshape(n, height, panes * width, *frames.shape[4:])


def _check_frame(i: int, n: int) -> None:
    if not 0 <= i < n:
        raise ValueError(f"expected a frame index from 0 to n − 1 = {n - 1}, got {i}")


def _layout(frame: np.ndarray, names: Sequence[str], colours: Sequence[str] | None) -> dict[str, Any]:
    if frame.ndim not in (3, 4) or len(names) != len(frame):
        raise ValueError(f"expected a frame of {len(names)} panes, one for each name, got shape {frame.shape}")
    height, width = frame.shape[1:3]
    return {"width": width * len(frame), "height": height, "panes": list(names), "colours": _colours(names, colours)}


def _colours(names: Sequence[str], colours: Sequence[str] | None) -> list[str]:
    chosen = [colour_of(name) for name in names] if colours is None else list(colours)
    if len(chosen) != len(names) or not set(chosen) <= set(COLOURS):
        raise ValueError(f"expected {len(names)} colours among {list(COLOURS)}, got {chosen}")
    return chosen


def _encode(picture: np.ndarray) -> bytes:
    """Return a picture as a file: gray as PNG, exactly, colour as JPEG."""
    buffer = io.BytesIO()
    if picture.ndim == 2:
        Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _suffix(picture: np.ndarray) -> str:
    return ".png" if picture.ndim == 2 else ".jpg"


def _mime(picture: np.ndarray) -> str:
    return "image/png" if picture.ndim == 2 else "image/jpeg"
