"""Controls that several tabs have, and the names of their choices in both languages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gradio as gr
import numpy as np

from genlab.config import DataSpec
from genlab.demo.limits import ANY, SEED, Range
from genlab.demo.served import Models
from genlab.demo.tabs.events import DICE
from genlab.serving.language import both

TEXT = {"dice": both("New seed", "换一个种子")}
LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]
NAMES: dict[str, str] = {
    ANY: both("any", "任意"),
    "ancestral": both("ancestral", "祖先采样"),
    "test picture": both("test picture", "测试图片"),
    "seed": both("seed", "种子"),
    "consistency": both("the consistency function", "一致性函数"),
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


def choices(values: Iterable[str]) -> list[tuple[str, str]]:
    """Return (name, value) for each value that a radio or a dropdown offers, the name by `NAMES`."""
    return [(NAMES.get(value, value), value) for value in values]


@contextmanager
def heading(lead: str) -> Iterator[None]:
    """Make the head of a tab: its first sentence, and what is made within the context, its buttons, beside it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            gr.Markdown(lead, latex_delimiters=LATEX)
        with gr.Column(scale=2, min_width=320), gr.Row():
            yield


def run_and_stop(texts: Mapping[str, str], elem_id: str) -> tuple[gr.Button, gr.Button]:
    """Make the head of a tab with the button that starts a run, and the one that stops it."""
    with heading(texts["lead"]):
        run = gr.Button(texts["run"], variant="primary", elem_id=elem_id, scale=3, min_width=160)
        return run, gr.Button(texts["stop"], interactive=False, scale=1, min_width=80)


def formula(texts: Mapping[str, str]) -> None:
    """Make the formula of a tab, folded up, from the entries "formula_title" and "formula" of its texts."""
    with gr.Accordion(texts["formula_title"], open=False):
        gr.Markdown(texts["formula"], latex_delimiters=LATEX)


def slider(limits: Range, label: str, high: float | None = None, **options: Any) -> gr.Slider:
    """Make a slider with the bounds and the default of a range; `high` narrows them."""
    top = limits.high if high is None else min(limits.high, high)
    options = {"precision": 0, **options} if limits.step % 1 == 0 else options
    return gr.Slider(limits.low, top, min(limits.default, top), step=limits.step, label=label, **options)


def seed_field(label: str, button_id: str | None = None, **options: Any) -> gr.Number:
    """Make the field of a seed, and a button that draws a new one."""
    seed = gr.Number(SEED.default, precision=0, minimum=0, maximum=SEED.high, label=label, **options)
    gr.Button(TEXT["dice"], size="sm", elem_id=button_id).click(None, None, seed, js=DICE, api_visibility="private")
    return seed


def next_of_class(models: Models, data: DataSpec, name: Any, current: Any) -> Any:
    """Return the number of the next test picture of the class `name`, or `gr.skip()` if there is none."""
    package = models.examples(data.name)
    if package is None or package.labels is None or name not in data.classes:
        return gr.skip()
    found = (package.labels == data.classes.index(name)).nonzero().flatten().tolist()
    here = current if isinstance(current, int) else -1
    return next((i for i in found if i > here), found[0]) if found else gr.skip()


def another(count: int, number: Any) -> Any:
    """Return the number of a random one of `count` test pictures, other than `number`."""
    if count < 2:
        return gr.skip()
    ahead = int(np.random.default_rng().integers(1, count))
    return (number + ahead) % count if isinstance(number, int) else ahead


def class_name() -> gr.Textbox:
    """Make the class as a parameter of an endpoint: any text, because the classes depend on the model."""
    return gr.Textbox(ANY, label="Class", visible=False)
