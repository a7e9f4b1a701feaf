"""The tabs of the page, one file each, and the few things that they share.

A tab's `build(engine, page)` is called inside its `gr.Tab`. Handlers take the raw values of their components
(`preprocess=False`): the strict parsers of `limits` are the one gate, for the page and for the API alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr
import numpy as np
from einops import rearrange
from torch import Tensor

from genlab.config import DataSpec
from genlab.demo.components.player import PlayerData, Segment, frames_to_webp, new_run, player_frame, player_sheet
from genlab.demo.engine import Engine
from genlab.demo.limits import ANY
from genlab.serving.language import UserFacingError, both

MODEL_EVENT: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 8,
    "preprocess": False,
    "show_progress": "hidden",
}
"""Options of every event that runs a model: they form one queue. Eight run at a time: four are computed together while the
frames of the other four are made and sent."""
LIGHT_EVENT: dict[str, Any] = {
    "concurrency_limit": None,
    "preprocess": False,
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""Options of events that only change what the page shows, or show what other threads compute."""
OPENING_EVENT: dict[str, Any] = {**LIGHT_EVENT, "trigger_mode": "always_last"}
"""Options of those that every page asks as it opens: the guard counts them as what is sent while something is moved."""
ONE_LOOK_EVENT: dict[str, Any] = {
    **MODEL_EVENT,
    "concurrency_id": "light",
    "concurrency_limit": 2,
}
"""Options of endpoints that look at a model once, or not at all: two run at a time, and none waits for whole pictures."""
NEWEST_EVENT: dict[str, Any] = {
    **ONE_LOOK_EVENT,
    "api_visibility": "private",
    "trigger_mode": "always_last",
}
"""Options of events that compute what the page shows while something is moved: they stand in the same queue, and of what one
page asks only the newest matters."""
FILM: dict[str, Any] = {"concurrency_id": "film", "concurrency_limit": 2}
"""Puts events that compute whole films into a queue of their own: what only answers a drag does not wait behind them."""
LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]
NAMES: dict[str, str] = {
    ANY: both("any", "任意"),
    "ancestral": both("ancestral", "祖先采样"),
    "test picture": both("test picture", "测试图片"),
    "seed": both("seed", "种子"),
    "upload": both("upload", "上传"),
    "the noise reached": both("the noise reached", "前向到达的噪声"),
    "fresh noise": both("fresh noise", "新的噪声"),
    "T-shirt/top": both("T-shirt/top", "T 恤/上衣"),
    "Trouser": both("Trouser", "长裤"),
    "Pullover": both("Pullover", "套头衫"),
    "Dress": both("Dress", "连衣裙"),
    "Coat": both("Coat", "外套"),
    "Sandal": both("Sandal", "凉鞋"),
    "Shirt": both("Shirt", "衬衫"),
    "Sneaker": both("Sneaker", "运动鞋"),
    "Bag": both("Bag", "包"),
    "Ankle boot": both("Ankle boot", "短靴"),
}
"""Value of a choice → its name on the page; a value without an entry is its own name."""
DICE = "() => Math.floor(Math.random() * 4294967296)"
"""A fresh seed, drawn in the browser."""
OVER = "(shown) => shown?.n && !shown.done ? {...shown, live: '', done: true} : {__type__: 'update'}"
"""What a player shows of a run that has ended early, said in the browser: no more frames will come."""
PACE = 0.04
"""Least seconds between two live frames."""
SHEET_PIXELS = 6_000_000
"""Pixels that the sprite sheet of a run should not exceed; longer runs leave frames out, evenly."""


@contextmanager
def told() -> Iterator[None]:
    """Show the engine's and the parsers' messages to people; other errors stay hidden."""
    try:
        yield
    except UserFacingError as error:
        raise gr.Error(error.text, print_exception=False) from error


def choices(values: Iterable[str]) -> list[tuple[str, str]]:
    """What a radio or a dropdown offers: (name, value) for each value, the name by `NAMES`."""
    return [(NAMES.get(value, value), value) for value in values]


class Pace:
    """Says of every frame of a run whether it is time to show it live."""

    def __init__(self) -> None:
        self._last = -1.0

    def due(self) -> bool:
        """Whether `PACE` has passed since this last was true."""
        now = time.monotonic()
        if now - self._last < PACE:
            return False
        self._last = now
        return True


class Film:
    """One run for a player: live frames while it is computed, and all of them as a sheet at the end.

    Args:
        count: number of frames that will be added.
        names, colours: of the panes, as in `PlayerData`.
        shape: (H, W) of a pane.
        segments: first frame and name of each stretch of the timeline.
        fps: frames a second at speed 1×.
    """

    def __init__(
        self,
        count: int,
        names: Sequence[str],
        shape: tuple[int, int],
        *,
        colours: Sequence[str] | None = None,
        segments: Sequence[tuple[int, str]] = (),
        fps: float = 10,
    ) -> None:
        chosen = kept(count, len(names) * shape[0] * shape[1])
        self._place = {index: i for i, index in enumerate(chosen)}
        self._names = list(names)
        starts = [(sum(index < start for index in chosen), label) for start, label in segments]
        self._look: dict[str, Any] = {
            "colours": colours,
            "segments": [Segment(start=start, label=label) for start, label in starts],
            "fps": fps,
        }
        self._run, self._pace = new_run(), Pace()
        self._frames: list[np.ndarray] = []
        self._captions: list[str] = []

    def add(self, index: int, panes: Sequence[np.ndarray], caption: str) -> PlayerData | None:
        """Take frame `index`, from 0; what to show live, or None where it is too early for another live frame."""
        place = self._place.get(index)
        if place is None:
            return None
        self._frames.append(np.stack(panes))
        self._captions.append(caption)
        if not self._pace.due():
            return None
        return player_frame(self._run, place, len(self._place), self._frames[-1], self._names, caption, **self._look)

    def sheet(self, **options: Any) -> PlayerData:
        """All frames; `options` as in `player_sheet`."""
        return player_sheet(self._run, np.stack(self._frames), self._names, self._captions, **self._look, **options)

    def webp(self) -> bytes:
        """All frames as a lossless animation."""
        return frames_to_webp(np.stack(self._frames), fps=self._look["fps"])


def heading(lead: str, run: str, stop: str, elem_id: str) -> tuple[gr.Button, gr.Button]:
    """What a tab begins with: one sentence, the button that starts, and the one that stops."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            gr.Markdown(lead)
        with gr.Column(scale=2, min_width=320), gr.Row():
            start = gr.Button(run, variant="primary", elem_id=elem_id, scale=3, min_width=160)
            end = gr.Button(stop, interactive=False, scale=1, min_width=80)
    return start, end


def connect(run: gr.Button, stop: gr.Button, show: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Let `run` start the generator `show` and `stop` end it; each can be pressed only while that makes sense.

    The first of the outputs is the player. Of a run that is stopped, or fails, it keeps the frames that have come.
    """

    def switch(running: bool) -> Callable[[], tuple[Any, Any]]:
        return lambda: (gr.update(interactive=not running), gr.update(interactive=running))

    event = run.click(switch(True), None, [run, stop], **LIGHT_EVENT).then(
        show, inputs, outputs, api_visibility="private", **MODEL_EVENT
    )
    for over in (event.success, event.failure):
        over(switch(False), None, [run, stop], **LIGHT_EVENT)
    stop.click(switch(False), None, [run, stop], cancels=[event], **LIGHT_EVENT)
    for early in (event.failure, stop.click):
        early(None, outputs[0], outputs[0], js=OVER, api_visibility="private")


def of_class(engine: Engine, data: DataSpec, name: Any, current: Any) -> Any:
    """Number of the next test picture of the class `name`, from any value; nothing new where there is none."""
    package = engine.examples(data.name)
    if package is None or package.labels is None or name not in data.classes:
        return gr.skip()
    found = (package.labels == data.classes.index(name)).nonzero().flatten().tolist()
    here = current if isinstance(current, int) else -1
    return next((i for i in found if i > here), found[0]) if found else gr.skip()


def other(count: int, number: Any) -> Any:
    """Number of one of `count` test pictures, by chance, and not this one."""
    if count < 2:
        return gr.skip()
    ahead = int(np.random.default_rng().integers(1, count))
    return (number + ahead) % count if isinstance(number, int) else ahead


def class_name() -> gr.Textbox:
    """The class as a parameter of an endpoint: any text, for the classes depend on the model."""
    return gr.Textbox(ANY, label="Class", visible=False)


def kept(count: int, frame_pixels: int) -> list[int]:
    """Which of `count` frames, 0 … count − 1, to keep, ends included, so that the sheet stays within `SHEET_PIXELS`."""
    most = max(2, min(count, SHEET_PIXELS // frame_pixels))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def pane(picture: Tensor) -> np.ndarray:
    """(C H W) uint8 → (H W C) for the player."""
    return rearrange(picture, "c h w -> h w c").numpy()
