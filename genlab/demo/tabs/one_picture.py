"""The one picture that a tab looks into with one model: how both are chosen, and the way from raw values to a `Pick`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData

from genlab.demo.engine import Engine
from genlab.demo.limits import PICTURES, SEED, Offer, Pick, parse_drawing, parse_pick
from genlab.demo.tabs import DICE, LATEX, LIGHT_EVENT, choices, of_class, other, told
from genlab.serving.language import both
from genlab.serving.picture_input import PictureInput

TEXT = {
    "picture": both("Picture", "图片"),
    "another": both("Another picture", "换一张图片"),
    "model": both("Model", "模型"),
    "class": both("Show one of the class", "换成某一类的图片"),
    "number": both("Test picture, 0 to {last}", "测试图片，0 到 {last}"),
    "upload": both("Upload a picture", "上传一张图片"),
    "more": both("Choose or upload a picture, set the seed", "指定或上传图片，设置种子"),
}


class OnePicture:
    """Components that choose a model and a picture; each method that makes some is called where they are to stand.

    Args:
        name: of the tab, the beginning of the components' ids.
        offers: the models that the tab can show, at least one.
        offer_of: any value → the offer of that name; raises `LimitError`.
    """

    def __init__(self, engine: Engine, name: str, offers: Mapping[str, Offer], offer_of: Callable[[Any], Offer]) -> None:
        self.engine, self.name, self.models, self.offer_of = engine, name, tuple(offers), offer_of
        self.first = next((o for o in offers.values() if o.data.name == "mnist"), offers[self.models[0]])

    def lead(self, text: str, again: str) -> None:
        """What the tab begins with: a sentence, a button for another picture, and one for another seed."""
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                gr.Markdown(text, latex_delimiters=LATEX)
            with gr.Column(scale=2, min_width=320), gr.Row():
                self.another = gr.Button(TEXT["another"], variant="primary", min_width=140, elem_id=f"{self.name}-another")
                self.again = gr.Button(again, min_width=140, elem_id=f"{self.name}-again")

    def choose_model(self) -> None:
        """The model, and the class of which to show a picture."""
        self.model = gr.Dropdown(
            list(self.models),
            value=self.first.id,
            label=TEXT["model"],
            interactive=len(self.models) > 1,
            min_width=140,
            elem_id=f"{self.name}-model",
        )
        self.kind = gr.Dropdown(
            choices(self.first.data.classes),
            value=None,
            label=TEXT["class"],
            visible=bool(self.first.data.classes),
            interactive=True,
            min_width=140,
        )

    def choose_picture(self, seed: str) -> None:
        """A test picture by its number, an upload, and the seed with the label `seed`, out of the way."""
        with gr.Accordion(TEXT["more"], open=False):
            self.number = gr.Number(
                0, precision=0, minimum=0, label=TEXT["number"].format(last=self.count(self.first.id) - 1), interactive=True
            )
            self.upload = PictureInput(label=TEXT["upload"], required=False, height=192)
            self.seed = gr.Number(SEED.default, precision=0, minimum=0, maximum=SEED.high, label=seed)

    def connect(self) -> None:
        """Let the buttons and the class choose the number and the seed."""
        chosen = [self.model, self.number]
        self.another.click(told()(lambda model, now: other(self.count(model), now)), chosen, self.number, **LIGHT_EVENT)
        self.again.click(None, None, self.seed, js=DICE, api_visibility="private")
        self.kind.input(
            told()(lambda model, name, now: of_class(self.engine, self.offer_of(model).data, name, now)),
            [self.model, self.kind, self.number],
            self.number,
            **LIGHT_EVENT,
        )

    def fit(self, model: Any) -> tuple[Any, Any]:
        """What becomes of `number` and `kind` when another model is chosen."""
        data = self.offer_of(model).data
        return (
            gr.update(value=0, label=TEXT["number"].format(last=self.count(model) - 1)),
            gr.update(choices=choices(data.classes), value=None, visible=bool(data.classes)),
        )

    def count(self, model: Any) -> int:
        """Number of test pictures."""
        package = self.engine.examples(self.offer_of(model).data.name)
        return 0 if package is None else len(package.examples)

    def start(self, model: Any) -> Pick:
        """The first test picture, or, where there are none, a black one."""
        data = self.offer_of(model).data
        black = np.zeros((data.size, data.size, data.channels), dtype=np.uint8)
        return Pick("test picture", 0) if self.count(model) else Pick("upload", 0, black)

    def parse(self, model: Any, source: Any, number: Any, upload: Any) -> Pick:
        """The picture, from raw values.

        Raises:
            LimitError: see `parse_pick`.
        """
        pixels = None
        if source == "upload" and upload is not None:
            pixels = self.upload.preprocess(ImageData.model_validate(upload))
        return parse_pick(TEXT["picture"], source, number, pixels, self.count(model), PICTURES)

    def drawn(self, model: Any, canvas: Any) -> tuple[Pick, str, Any]:
        """What is on the canvas: the picture, its token, the chosen pixel."""
        value = canvas if isinstance(canvas, dict) else {}
        return parse_drawing(self.offer_of(model).data, value.get("x")), value.get("token", ""), value.get("chosen")
