"""The components, events and endpoint of the Playground."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from genlab.demo import films
from genlab.demo.components.figure import Figure, FigureData, drawn, frames_apart
from genlab.demo.limits import DATA_SET, LimitError, parse_choice
from genlab.demo.live import SECONDS, Store, on_worker
from genlab.demo.served import Models
from genlab.demo.tabs.controls import formula, heading, seed_field, slider
from genlab.demo.tabs.events import ANIMATION_QUEUE, LEARNING_EVENT, LIGHT_EVENT, OPENING_EVENT, enabled, endpoint, errors_shown
from genlab.demo.tabs.playground.compute import Run, play, samples
from genlab.demo.tabs.playground.figure import animation, answer, board, data_name, live, stage
from genlab.demo.tabs.playground.request import (
    DATA,
    DRAWING,
    FIRST,
    LEARN_STEPS,
    MODELS,
    SAMPLES,
    WALKS,
    PlaygroundRequest,
    parse_playground,
    parse_walk,
    read_link,
    rounded,
    write_link,
)
from genlab.demo.tabs.playground.text import NAMES, TEXT
from genlab.demo.turns import Runner

SHOWN_SECONDS = 0.2
"""Least time between two pictures of the learning."""
ABSOLUTE = "query => location.origin + location.pathname + '?' + query"


def request_of(data: Any, drawn_in: Any, model: Any, walk: Any, steps: Any, seed: Any) -> PlaygroundRequest:
    """Return the request of the controls."""
    marks = rounded(drawn(drawn_in)) if data == DRAWING else None
    return parse_playground(data, marks, model, walk, steps, seed)


def fresh(*chosen: Any) -> tuple[Any, Any]:
    """Return the figure before a training of the controls' request, and no name of a training."""
    try:
        request = request_of(*chosen)
    except LimitError:
        request = FIRST
    return stage(Run(request), TEXT["ready"]), ""


def choose_data(data: Any, drawn_in: Any) -> FigureData:
    """Show a data set, or what was drawn, on the board."""
    with errors_shown():
        parse_choice(DATA_SET, data, DATA)
        return board(data, rounded(drawn(drawn_in)) if data == DRAWING else ())


def has_drawn(drawn_in: Any) -> tuple[Any, Any]:
    """Choose the drawing as data and show it as its link will."""
    with errors_shown():
        return DRAWING, board(DRAWING, rounded(drawn(drawn_in)))


def choose_model(model: Any) -> Any:
    """Enable the ways back of a score model alone."""
    return gr.update(interactive=model == "score model", info=None if model == "score model" else TEXT["walk_other"])


def link_of(*chosen: Any) -> str:
    """Return the query of a link to the controls' request."""
    with errors_shown():
        return write_link(request_of(*chosen))


def opened(request: gr.Request) -> Any:
    """Set the controls to the request in the page's address, if there is one."""
    with errors_shown():
        linked = read_link(dict(request.query_params))
    if linked is None:
        return [gr.skip()] * 6
    way = {**choose_model(linked.model), "value": linked.walk}
    return linked.data, linked.model, way, linked.steps, linked.seed, (linked.data, linked.marks)


def linked(points: Any) -> FigureData:
    """Show the data of a link on the board."""
    # A page without a link, too, has its state reported as new by gradio: its figure, not there yet, takes no value.
    if not points:
        raise gr.Error("no link", visible=False, print_exception=False)
    data, marks = points
    return board(data, tuple(tuple(mark) for mark in marks))


def playground(
    data: Any, points: Any, model: Any, walk: Any, steps: Any, seed: Any, count: Any
) -> Iterator[dict[str, Any] | None]:
    """Train a small model on points in the plane, and draw from it. `data` names a data set, or is "drawing": then
    `points` are 1 to 2000 pairs [x, y] of numbers from −1 to 1, else it is null. `walk` is the way back of a score model.
    `steps` are those of the optimiser (100 to 3000 in hundreds; it stops after 20 s of learning, or 60 s in all), `seed` is
    that of everything random. Streams {"step", "steps", "seconds", "loss", "samples"}, and null while it waits for others'
    trainings; the last one has `count` samples (1 to 2000) as [x, y], and the loss of the last steps: L_simple, or −ELBO in
    nats for a VAE. Close the stream or cancel the job to stop the training.
    """
    with errors_shown():
        request = parse_playground(data, points, model, walk, steps, seed)
        wanted = int(SAMPLES.parse(count))
        run = Run(request)
        shown = 0.0
        for record in play(request, run):
            if isinstance(record, int):
                yield None
            elif time.monotonic() - shown > SHOWN_SECONDS:
                yield answer(run, [])
                shown = time.monotonic()
        drawn_from = run.model
        assert drawn_from is not None
        yield answer(run, on_worker(lambda: samples(request, drawn_from, wanted)).tolist())


def build(models: Models, runner: Runner, page: gr.Blocks) -> None:
    """Make the tab, and the endpoint `/playground`."""
    runs: Store[Run] = Store()
    with heading(TEXT["lead"]):
        train = gr.Button(TEXT["train"], variant="primary", elem_id="playground-train", scale=3, min_width=120)
        stop = gr.Button(TEXT["stop"], interactive=False, elem_id="playground-stop", scale=1, min_width=80)
        reset = gr.Button(TEXT["reset"], elem_id="playground-reset", scale=1, min_width=80)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            drawing = Figure(
                board(FIRST.data, ()), label="drawing", elem_id="playground-data", labels={"player": TEXT["board"]}
            )
            data = gr.Radio([(data_name(name), name) for name in DATA], value=FIRST.data, label=TEXT["data"])
        with gr.Column(scale=5, min_width=320):
            figure = Figure(
                frames_apart(films.figure("playground")),
                label="figure",
                animated=True,
                segmented=True,
                elem_id="playground",
                labels={"player": TEXT["learning"]},
            )
            again = gr.Button(TEXT["again"], interactive=False, elem_id="playground-again", size="sm")
    with gr.Row(equal_height=False):
        model = gr.Radio(_offered(MODELS), value=FIRST.model, label=TEXT["model"], info=TEXT["model_info"], min_width=300)
        walk = gr.Radio(
            _offered(WALKS), value=FIRST.walk, label=TEXT["walk"], info=TEXT["walk_other"], interactive=False, min_width=300
        )
        steps = slider(LEARN_STEPS, TEXT["steps"], info=TEXT["steps_info"].format(seconds=f"{SECONDS:g}"), min_width=220)
        with gr.Column(min_width=220):
            seed = seed_field(TEXT["seed"], info=TEXT["seed_info"])
    with gr.Row(equal_height=False):
        share = gr.Button(TEXT["link"], size="sm", elem_id="playground-share", scale=1, min_width=160)
        link = gr.Textbox(
            label=TEXT["link_label"], interactive=False, max_lines=1, buttons=["copy"], elem_id="playground-link", scale=5
        )
    formula(TEXT)
    name = gr.State("")
    controls = [data, drawing, model, walk, steps, seed]

    def train_it(*chosen: Any) -> Iterator[Any]:
        with errors_shown():
            request = request_of(*chosen)
            run, name = Run(request), ""
            yield stage(run, TEXT["step zero"]), name
            shown = time.monotonic()
            for record in play(request, run):
                if isinstance(record, int):
                    yield stage(run, TEXT["waiting"].format(before=record)), name
                    continue
                name = name or runs.put(run)
                if time.monotonic() - shown > SHOWN_SECONDS or run.step == request.steps:
                    yield on_worker(lambda: live(run)), name
                    shown = time.monotonic()
            yield on_worker(lambda: animation(run, request.seed)), name

    def stopped(name: Any, *chosen: Any) -> FigureData:
        """Show the animation of the model whose training was stopped, or nothing if it was still waiting."""
        with errors_shown():
            if name == "":
                return fresh(*chosen)[0]
            run = runs.get(name)
            return on_worker(lambda: animation(run, run.request.seed))

    def run_again(name: Any, walk: Any) -> FigureData:
        """Show the animation of the stored model with other noise, and with the way back that is chosen now."""
        with errors_shown():
            run = runs.get(name)
            changed = replace(run, request=replace(run.request, walk=parse_walk(walk)))
            return on_worker(lambda: animation(changed, secrets.randbits(32)))

    buttons = [train, stop, again]
    animations = {**LIGHT_EVENT, **ANIMATION_QUEUE}
    event = train.click(enabled(False, True, False), None, buttons, **LIGHT_EVENT).then(
        train_it, controls, [figure, name], **LIGHT_EVENT
    )
    event.success(enabled(True, False, True), None, buttons, **LIGHT_EVENT)
    event.failure(enabled(True, False), None, [train, stop], **LIGHT_EVENT)
    stop.click(enabled(True, False, True), None, buttons, cancels=[event], **LIGHT_EVENT).then(
        stopped, [name, *controls], figure, **animations
    )
    reset.click(enabled(True, False, False), None, buttons, cancels=[event], **LIGHT_EVENT).then(
        fresh, controls, [figure, name], **LIGHT_EVENT
    )
    again.click(run_again, [name, walk], figure, **animations)
    data.input(choose_data, [data, drawing], drawing, **LIGHT_EVENT)
    drawing.release(has_drawn, drawing, [data, drawing], **LIGHT_EVENT)
    model.change(choose_model, model, walk, **LIGHT_EVENT)
    share.click(link_of, controls, link, **LIGHT_EVENT).success(None, link, link, js=ABSOLUTE, api_visibility="private")
    points = gr.State(())  # not the drawing itself, so that a page without a link leaves it alone
    page.load(opened, None, [data, model, walk, steps, seed, points], **OPENING_EVENT)
    gr.on([points.change], linked, points, drawing, **OPENING_EVENT).success(fresh, controls, [figure, name], **OPENING_EVENT)

    drawn_points = gr.JSON(None, label="points", visible=False)
    count = gr.Number(SAMPLES.default, label="count", visible=False)
    named = [data, drawn_points, model, walk, steps, seed, count]
    result = gr.JSON(label="playground", visible=False)
    endpoint(playground, named, result, **LEARNING_EVENT)


def _offered(values: Sequence[str]) -> list[tuple[str, str]]:
    return [(NAMES[value], value) for value in values]
