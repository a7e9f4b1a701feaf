"""The choice of one picture: a test picture by its number, a picture from a seed, or an upload, with a thumbnail of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData
from torch import Tensor

from genlab.demo.limits import MAX_SEED, LimitError, Pick, parse_pick
from genlab.demo.served import Models
from genlab.demo.tabs.controls import choices
from genlab.demo.tabs.events import LIGHT_EVENT, errors_shown
from genlab.demo.tabs.pictures import png
from genlab.serving.language import both, choose
from genlab.serving.picture_input import PictureInput
from genlab.serving.results import save_result

TEXT = {
    "source": both("{name} comes from", "来源（{name}）"),
    "test picture": both("number, 0 to {last}", "编号，0 到 {last}"),
    "seed": both("seed", "种子"),
    "upload": both("upload", "上传"),
    "next": both("Another one", "换一张"),
    "alt": both("{name}, as the model sees it", "{name}，模型看到的样子"),
}
THUMBNAIL = 112
"""Least side of a thumbnail, pixels."""


class Picker:
    """Components that choose a picture, and the way from their raw values to a `Pick`.

    Args:
        name: of the picture, for labels; number: the test picture at first; sources: what is offered.
        data_of: value of the component that chooses the models (an id, a data set's name) → name of the data set.
        chosen: that component's value at first.
    """

    def __init__(
        self, models: Models, name: str, number: int, sources: tuple[str, ...], data_of: Callable[[Any], str], chosen: str
    ) -> None:
        self.models, self.name, self.sources, self.data_of = models, name, sources, data_of
        last = self.count(chosen) - 1
        self.source = gr.Radio(choices(sources), value=sources[0], label=TEXT["source"].format(name=name))
        self.thumbnail = gr.Image(
            self.picture(chosen, sources[0], number, None),
            label=name,
            alt_text=TEXT["alt"].format(name=name),
            format="png",
            interactive=False,
            buttons=[],
            height=THUMBNAIL + 40,
        )
        self.number = gr.Number(
            number, precision=0, minimum=0, maximum=MAX_SEED, label=TEXT[sources[0]].format(last=last), interactive=True
        )
        self.another = gr.Button(TEXT["next"], size="sm")
        self.upload = PictureInput(label=TEXT["upload"], required=False, visible=False, height=THUMBNAIL + 80)

    @property
    def inputs(self) -> list[Any]:
        """Return the components whose raw values `parse` takes, in its order."""
        return [self.source, self.number, self.upload]

    def count(self, chosen: Any) -> int:
        """Return the number of test pictures."""
        package = self.models.examples(self.data_of(chosen))
        return 0 if package is None else len(package.examples)

    def parse(self, chosen: Any, source: Any, number: Any, upload: Any) -> Pick:
        """Return the choice, from raw values.

        Raises:
            LimitError: see `parse_pick`.
        """
        pixels = None
        if source == "upload" and upload is not None:
            pixels = self.upload.preprocess(ImageData.model_validate(upload))
        return parse_pick(self.name, source, number, pixels, self.count(chosen), self.sources)

    def picture(self, chosen: Any, source: Any, number: Any, upload: Any) -> str | None:
        """Write the thumbnail, the picture as the model's input, and return its path; None if there is no picture yet."""
        try:
            pick = self.parse(chosen, source, number, upload)
        except LimitError:
            return None
        if pick.source == "seed":
            return None
        return thumbnail(self.models.picture(self.data_of(chosen), pick), f"{choose(self.name)}.png")

    def connect(self, models: Any) -> None:
        """Update the components with each other and with the component `models`."""
        inputs = [models, *self.inputs]

        def show(chosen: Any, source: Any, number: Any, upload: Any) -> Any:
            with errors_shown():
                return self.picture(chosen, source, number, upload)

        def fit(chosen: Any, source: Any) -> tuple[Any, Any, Any]:
            uploads = source == "upload"
            label = TEXT.get(source, "") if isinstance(source, str) else ""
            with errors_shown():
                last = self.count(chosen) - 1
            number = gr.update(visible=not uploads, label=label.format(last=last))
            return number, gr.update(visible=uploads), gr.update(visible=not uploads)

        for changed in (models, self.source):
            changed.change(fit, [models, self.source], [self.number, self.upload, self.another], **LIGHT_EVENT).then(
                show, inputs, self.thumbnail, **LIGHT_EVENT
            )
        for changed in (self.number, self.upload):
            changed.change(show, inputs, self.thumbnail, trigger_mode="always_last", **LIGHT_EVENT)

        def another(chosen: Any, source: Any) -> int:
            with errors_shown():
                top = MAX_SEED + 1 if source == "seed" else max(1, self.count(chosen))
            return int(np.random.default_rng().integers(top))

        self.another.click(another, [models, self.source], self.number, **LIGHT_EVENT)


def thumbnail(picture: Tensor, name: str) -> str:
    """Write a picture (C H W) uint8, every pixel a square, and return the path."""
    return save_result(png(picture[None], columns=1, gap=0, scale=-(-THUMBNAIL // picture.shape[-1])), name)
