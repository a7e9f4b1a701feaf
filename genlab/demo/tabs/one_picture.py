"""The choice of one picture and one model: components, and the way from raw values to a `Pick`."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData

from genlab.demo.components.player import new_run
from genlab.demo.limits import PICTURES, SEED, LimitError, Offer, Pick, parse_drawing, parse_pick, parse_place, shown
from genlab.demo.served import Models
from genlab.demo.tabs.controls import another, choices, heading, next_of_class
from genlab.demo.tabs.events import DICE, LIGHT_EVENT, NEWEST_EVENT, errors_shown
from genlab.serving.language import both
from genlab.serving.picture_input import PictureInput

TEXT = {
    "picture": both("Picture", "图片"),
    "another": both("Another picture", "换一张图片"),
    "model": both("Model", "模型"),
    "class": both("Show one of the class", "换成某一类的图片"),
    "number": both("Test picture, 0 to {last}", "测试图片，0 到 {last}"),
    "upload": both("Upload a picture", "上传一张图片"),
    "long": both(
        "a link cannot hold this picture, for it has too many details: choose a test picture, or draw a simpler one",
        "这张图片细节太多，链接容纳不下：请选一张测试图片，或画一张更简单的",
    ),
    "damaged": both(
        "the link is damaged: {name}: expected a picture as the page writes it, got {value}",
        "链接已损坏：{name} 应为本页写出的图片，实际为 {value}",
    ),
    "more": both("Choose or upload a picture, set the seed", "指定或上传图片，设置种子"),
}

LINKED = 6000
"""Characters that the picture in a link may have."""


def linked_text(values: np.ndarray) -> str:
    """Return the bytes of a picture, uint8, as a link holds them.

    Raises:
        LimitError: they are too long for a link.
    """
    text = base64.urlsafe_b64encode(zlib.compress(values.tobytes(), 9)).decode().rstrip("=")
    if len(text) > LINKED:
        raise LimitError(TEXT["long"])
    return text


def linked_bytes(name: str, text: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return the bytes, uint8 of this shape, that a link holds under a name, as `linked_text` writes them.

    Raises:
        LimitError: the text is anything else.
    """
    count = math.prod(shape)
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        values = np.frombuffer(zlib.decompressobj().decompress(packed, count + 1), dtype=np.uint8)
    except (TypeError, ValueError, zlib.error):
        values = np.empty(0, dtype=np.uint8)
    if len(values) != count:
        raise LimitError(TEXT["damaged"].format(name=name, value=shown(text)))
    return values.reshape(shape)


class OnePicture:
    """Components that choose a model and a picture; each method that makes some is called where they are to stand.

    Args:
        name: of the tab, the beginning of the components' ids.
        offers: the models that the tab can show, at least one.
        offer_of: any value → the offer of that name; raises `LimitError`.
    """

    def __init__(self, models: Models, name: str, offers: Mapping[str, Offer], offer_of: Callable[[Any], Offer]) -> None:
        self.models, self.name, self.ids, self.offer_of = models, name, tuple(offers), offer_of
        self.first = next((o for o in offers.values() if o.data.name == "mnist"), offers[self.ids[0]])

    def lead(self, text: str, again: str) -> None:
        """Make the head of the tab: a sentence, a button for another picture, and one for another seed."""
        with heading(text):
            self.another = gr.Button(TEXT["another"], variant="primary", min_width=140, elem_id=f"{self.name}-another")
            self.again = gr.Button(again, min_width=140, elem_id=f"{self.name}-again")

    def choose_model(self) -> None:
        """Make the choice of the model, and of the class of which to show a picture."""
        self.model = gr.Dropdown(
            list(self.ids),
            value=self.first.id,
            label=TEXT["model"],
            interactive=len(self.ids) > 1,
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
        """Make the choice of a test picture by its number, of an upload, and of the seed, labelled `seed`."""
        with gr.Accordion(TEXT["more"], open=False):
            self.number = gr.Number(
                0, precision=0, minimum=0, label=TEXT["number"].format(last=self.count(self.first.id) - 1), interactive=True
            )
            self.upload = PictureInput(label=TEXT["upload"], required=False, height=192)
            self.seed = gr.Number(SEED.default, precision=0, minimum=0, maximum=SEED.high, label=seed)
        self.row, self.column = (gr.Number(None, precision=0, label=name, visible=False) for name in ("row", "column"))
        self.x = gr.Textbox(None, label="x", visible=False)

    @property
    def controls(self) -> dict[str, Any]:
        """Return the controls that a link holds, by their names in the address; `model` first."""
        chosen = {"model": self.model, "picture": self.number, "seed": self.seed}
        return {**chosen, "row": self.row, "column": self.column, "x": self.x}

    def now(self, model: Any, number: Any, canvas: Any) -> dict[str, Any]:
        """Return what a link says of the canvas: the chosen pixel, and the picture where it is not that test picture.

        Raises:
            LimitError: the picture is too long for a link.
        """
        pick, _, chosen = self.drawn(model, canvas)
        row, column = chosen if isinstance(chosen, (tuple, list)) and len(chosen) == 2 else (None, None)
        return {**self.pictured(model, number, pick), "row": row, "column": column}

    def pictured(self, model: Any, number: Any, pick: Pick) -> dict[str, Any]:
        """Return what a link says of what is drawn: the picture as `x`, where it is not test picture `number`.

        Raises:
            LimitError: the picture is too long for a link.
        """
        assert pick.upload is not None
        if self.count(model) and isinstance(number, int) and 0 <= number < self.count(model):
            tested = self.models.picture(self.offer_of(model).data.name, Pick("test picture", number))
            if np.array_equal(tested.permute(1, 2, 0).numpy(), pick.upload):
                return {"x": None}
        return {"picture": None, "x": linked_text(pick.upload)}

    def linked(self, model: Any, number: Any, x: Any) -> Pick:
        """Return the picture of a link: the drawing `x`, as `now` writes it, else test picture `number`.

        Raises:
            LimitError: see `parse_pick`; or x is no picture of the model's shape.
        """
        data = self.offer_of(model).data
        if x is None:
            return self.start(model) if number == 0 else self.parse(model, "test picture", number, None)
        return Pick("upload", 0, linked_bytes("x", x, (data.size, data.size, data.channels)))

    def linked_place(self, model: Any, row: Any, column: Any) -> tuple[int, int] | None:
        """Return the chosen pixel of a link, None where it names none.

        Raises:
            LimitError: the pixel is outside.
        """
        return None if row is None and column is None else parse_place(self.offer_of(model).data, row, column)

    def connect(
        self,
        canvas: Any,
        show: Callable[..., Any],
        values: Sequence[Any],
        outputs: Sequence[Any],
        events: Sequence[Callable[..., Any]] = (),
    ) -> list[Any]:
        """Make the buttons and the class choose the number and the seed, and show every new picture, drawing and seed.

        Args:
            canvas: the component that shows the picture and is drawn on.
            show: (model, picture, token of the picture, chosen pixel, *values) → what `outputs` show.
            values: more components whose values `show` takes.
            events: more events after which the drawing is shown.

        Returns:
            The events of new test pictures and of an upload.
        """
        chosen = [self.model, self.number]
        picked = self.another.click(
            errors_shown()(lambda model, now: another(self.count(model), now)), chosen, self.number, **LIGHT_EVENT
        )
        reseeded = self.again.click(None, None, self.seed, js=DICE, api_visibility="private")
        of_class = self.kind.input(
            errors_shown()(lambda model, name, now: next_of_class(self.models, self.offer_of(model).data, name, now)),
            [self.model, self.kind, self.number],
            self.number,
            **LIGHT_EVENT,
        )

        def show_new(source: str, model: Any, number: Any, upload: Any, canvas: Any, values: Any) -> Any:
            with errors_shown():
                pick = self.parse(model, source, number, upload)
                return show(model, pick, new_run(), self.drawn(model, canvas)[2], *values)

        def show_test(model: Any, number: Any, canvas: Any, *values: Any) -> Any:
            if None in (number, *values):  # a field is being filled in
                return [gr.skip()] * len(outputs)
            return show_new("test picture", model, number, None, canvas, values)

        def show_upload(model: Any, upload: Any, canvas: Any, *values: Any) -> Any:
            return [gr.skip()] * len(outputs) if upload is None else show_new("upload", model, None, upload, canvas, values)

        def show_drawing(model: Any, canvas: Any, *values: Any) -> Any:
            if None in values:  # a field is being filled in
                return [gr.skip()] * len(outputs)
            with errors_shown():
                return show(model, *self.drawn(model, canvas), *values)

        for event in (reseeded.success, self.seed.input, canvas.input, *events):
            event(show_drawing, [self.model, canvas, *values], outputs, **NEWEST_EVENT)
        # Not when the number changes: a link, and another model, set it together with what is shown.
        tested = [
            event(show_test, [*chosen, canvas, *values], outputs, **NEWEST_EVENT)
            for event in (self.number.input, picked.success, of_class.success)
        ]
        uploaded = self.upload.change(show_upload, [self.model, self.upload, canvas, *values], outputs, **NEWEST_EVENT)
        return [*tested, uploaded]

    def fit(self, model: Any) -> tuple[Any, Any]:
        """Return the updates of `number` and `kind` for another model."""
        data = self.offer_of(model).data
        return (
            gr.update(value=0, label=TEXT["number"].format(last=self.count(model) - 1)),
            gr.update(choices=choices(data.classes), value=None, visible=bool(data.classes)),
        )

    def count(self, model: Any) -> int:
        """Return the number of test pictures."""
        package = self.models.examples(self.offer_of(model).data.name)
        return 0 if package is None else len(package.examples)

    def start(self, model: Any) -> Pick:
        """Return the first test picture, or a black one if there is none."""
        data = self.offer_of(model).data
        black = np.zeros((data.size, data.size, data.channels), dtype=np.uint8)
        return Pick("test picture", 0) if self.count(model) else Pick("upload", 0, black)

    def parse(self, model: Any, source: Any, number: Any, upload: Any) -> Pick:
        """Return the picture, from raw values.

        Raises:
            LimitError: see `parse_pick`.
        """
        pixels = None
        if source == "upload" and upload is not None:
            pixels = self.upload.preprocess(ImageData.model_validate(upload))
        return parse_pick(TEXT["picture"], source, number, pixels, self.count(model), PICTURES)

    def drawn(self, model: Any, canvas: Any) -> tuple[Pick, str, Any]:
        """Return what is on the canvas: the picture, its token, the chosen pixel."""
        value = canvas if isinstance(canvas, dict) else {}
        return parse_drawing(self.offer_of(model).data, value.get("x")), value.get("token", ""), value.get("chosen")
