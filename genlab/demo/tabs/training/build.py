"""The components, events and endpoint of the Training tab."""

from __future__ import annotations

from typing import Any

import gradio as gr

from genlab.demo.components.figure import Figure, FigureData
from genlab.demo.components.player import Player, PlayerData
from genlab.demo.served import Models
from genlab.demo.tabs.controls import LATEX, formula
from genlab.demo.tabs.events import LIGHT_EVENT, ONE_PASS_EVENT, endpoint, errors_shown
from genlab.demo.tabs.link import Link
from genlab.demo.tabs.pictures import png
from genlab.demo.tabs.training import figure
from genlab.demo.tabs.training.compute import films
from genlab.demo.tabs.training.request import TrainingRequest, parse_training
from genlab.demo.tabs.training.text import PANES, TEXT
from genlab.demo.turns import Runner
from genlab.measurements import to_json
from genlab.serving.results import save_result


def offered(models: Models) -> bool:
    """Return True if there is a film to show beside these models."""
    return bool(films(models))


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link:
    """Make the tab, and the endpoint `/training`."""
    shown = films(models)
    first, film = next(iter(shown.items()))
    gr.Markdown(TEXT["lead"], latex_delimiters=LATEX)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            player = Player(
                figure.player_of(film),
                label="frames",
                panes=PANES,
                pane_shape=figure.shape_of(film),
                colours=figure.COLOURS,
                elem_id="training",
            )
            model = gr.Dropdown(
                [(TEXT.get(name, name), name) for name in shown], value=first, label=TEXT["model"], interactive=len(shown) > 1
            )
            formula(TEXT)
        with gr.Column(scale=2, min_width=320):
            plot = Figure(
                figure.figure_of(film),
                label="figure",
                animated=True,
                follows="training",
                labels={"player": TEXT["figure"]},
                elem_id="training-figure",
            )

    def parse(model: Any) -> TrainingRequest:
        return parse_training(shown, model)

    def show(model: Any) -> tuple[PlayerData, FigureData]:
        with errors_shown():
            chosen = shown[parse(model).model]
            return figure.player_of(chosen), figure.figure_of(chosen)

    def training(model: Any) -> tuple[str, dict[str, Any]]:
        """The moments of a model's training: what it draws from the same noise at each, a row of one lossless PNG (half of it
        by the weights of the moment, half by the averaged ones), and as numbers the section `replay` of its metrics.json:
        steps, pictures seen, losses, and where they were measured bounds and distances. "from scratch" is the small DDPM of
        MNIST that ships as a film alone.
        """
        with errors_shown():
            chosen = shown[parse(model).model]
            sheet = png(chosen.pictures.flatten(0, 2), columns=2 * chosen.replay.samples)
            return save_result(sheet, "replay.png"), to_json(chosen.replay)

    sheet = gr.Image(label="sheet", format="png", visible=False)
    endpoint(training, [model], [sheet, gr.JSON(label="numbers", visible=False)], **ONE_PASS_EVENT)
    model.input(show, model, [player, plot], **LIGHT_EVENT)
    link = Link("training", {"model": model}, parse)
    link.restored(show, [player, plot], **LIGHT_EVENT)
    return link
