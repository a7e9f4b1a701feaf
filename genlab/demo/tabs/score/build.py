"""The components, events and endpoint of the Score tab."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from genlab.demo import films
from genlab.demo.components.figure import Figure, FigureData, frames_apart
from genlab.demo.live import on_worker
from genlab.demo.served import Models
from genlab.demo.tabs.controls import LATEX, formula, seed_field
from genlab.demo.tabs.events import ANIMATION_QUEUE, LEARNING_EVENT, LIGHT_EVENT, NEWEST_EVENT, enabled, endpoint, errors_shown
from genlab.demo.tabs.link import Link
from genlab.demo.tabs.points import NAMES
from genlab.demo.tabs.score.compute import Nets
from genlab.demo.tabs.score.figure import draw, flow_animation, langevin_animation, numbers, read, reverse_animation
from genlab.demo.tabs.score.request import FIRST_DATA, LEVEL, SIDE, WalkName, WalkRequest, parse_score, parse_walk
from genlab.demo.tabs.score.text import TEXT
from genlab.demo.turns import Runner
from genlab.plane import DATA_NAMES

SHOWN_SECONDS = 0.2
"""Least time between two pictures of the learning."""


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link:
    """Make the tab, and the endpoint `/score`."""
    nets = Nets()
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            gr.Markdown(TEXT["lead"], latex_delimiters=LATEX)
        with gr.Column(scale=2, min_width=320):
            with gr.Row():
                run = gr.Button(TEXT["train"], variant="primary", elem_id="score-train", scale=3, min_width=150)
                stop = gr.Button(TEXT["stop"], interactive=False, scale=1, min_width=80)
            with gr.Row():
                particles_button = gr.Button(TEXT["langevin"], elem_id="score-langevin", min_width=140)
                reverse_button = gr.Button(TEXT["reverse"], elem_id="score-reverse", min_width=140)
                flow_button = gr.Button(TEXT["flow"], elem_id="score-flow", min_width=140)
    figure = Figure(
        frames_apart(films.figure("score")),
        label="figure",
        animated=True,
        elem_id="score",
        labels={"player": TEXT["figure"]},
    )
    with gr.Row(equal_height=False):
        offered = [(NAMES[name], name) for name in DATA_NAMES]
        data = gr.Radio(offered, value=FIRST_DATA, label=TEXT["data"], scale=4, min_width=320)
        with gr.Column(scale=1, min_width=160):
            seed = seed_field(TEXT["seed"])
    formula(TEXT)

    walk = gr.Textbox("Langevin", label="walk", visible=False)
    level = gr.Number(LEVEL.default, label="t", visible=False)

    def drawn(request: WalkRequest) -> FigureData:
        """Return the figure of a request."""
        learned = nets.get(request.data)
        if request.walk == "none":
            return draw(request.data, request.t, *learned)
        if request.walk == "flow":
            return flow_animation(request.data, request.t, request.seed)
        animation = langevin_animation if request.walk == "Langevin" else reverse_animation
        return animation(request.data, request.t, *learned, request.seed)

    def show_walk(value: Any, chosen: Any, seed: Any, *, walk: WalkName = "none") -> tuple[FigureData, WalkName]:
        with errors_shown():
            name, t = read(value, chosen)
            return drawn(parse_walk(name, t, walk, 0 if walk == "none" else seed)), walk

    def show_linked(*values: Any) -> FigureData:
        with errors_shown():
            return drawn(parse_walk(*values))

    def train_it(value: Any, chosen: Any) -> Iterator[Any]:
        with errors_shown():
            name, t = read(value, chosen)
            shown = 0.0
            for record in nets.learn(name):
                if isinstance(record, int):
                    yield draw(name, t, *nets.get(name), TEXT["waiting"].format(before=record)), "none"
                elif time.monotonic() - shown > SHOWN_SECONDS:
                    before = TEXT["learning"].format(step=record.step, steps=record.steps, loss=f"{record.loss:.3f}")
                    yield on_worker(lambda r=record, b=before: draw(name, t, r.step, r.model, b)), "none"  # type: ignore[misc]
                    shown = time.monotonic()
            yield draw(name, t, *nets.get(name)), "none"

    def score(data: Any, t: Any, side: Any) -> Iterator[dict[str, Any] | None]:
        """The score of noisy points in the plane at time t (1 to 200), over a grid of side × side points (3 to 41; `grid` has
        their x, and their y from below): `exact`, the gradient of log q(x_t), `learned`, a small network's (trained when the
        data set is first asked for; seconds), rows of [s_x, s_y] each, and `log_density` in nats. `error` is the mean of
        ‖learned − exact‖² over q(x_t), `norm` that of ‖exact‖². `detour` has the length of 12 paths of the exact flow from
        the noise of seed 0, divided by the distance of their ends: for the `diffusion` and for `flow_matching`. Data that are
        no mixture of Gaussians are 120 points with a narrow Gaussian around each, so that the score is exact at every t.
        """
        with errors_shown():
            request = parse_score(data, t, side)
            for _ in nets.learn(request.data):
                yield None
            yield numbers(request, *nets.get(request.data))

    animations = {**NEWEST_EVENT, "trigger_mode": "once", **ANIMATION_QUEUE}
    now, shown = [figure, data, seed], [figure, walk]
    figure.input(show_walk, now, shown, **NEWEST_EVENT)
    data.input(show_walk, now, shown, **NEWEST_EVENT)
    event = run.click(enabled(False, True), None, [run, stop], **LIGHT_EVENT).then(
        train_it, [figure, data], shown, **LIGHT_EVENT
    )
    for over in (event.success, event.failure):
        over(enabled(True, False), None, [run, stop], **LIGHT_EVENT)
    ended = stop.click(enabled(True, False), None, [run, stop], cancels=[event], **LIGHT_EVENT)
    ended.then(show_walk, now, shown, **NEWEST_EVENT)
    particles_button.click(partial(show_walk, walk="Langevin"), now, shown, **animations)
    reverse_button.click(partial(show_walk, walk="reverse"), now, shown, **animations)
    flow_button.click(partial(show_walk, walk="flow"), now, shown, **animations)
    named = [data, level, gr.Number(SIDE.default, label="side", visible=False)]
    result = gr.JSON(label="score", visible=False)
    endpoint(score, named, result, **LEARNING_EVENT)
    controls = {"data": data, "t": level, "walk": walk, "seed": seed}
    link = Link("score", controls, parse_walk, shown=([figure, data], lambda *at: {"t": read(*at)[1]}))
    link.restored(show_linked, figure, **animations)
    return link
