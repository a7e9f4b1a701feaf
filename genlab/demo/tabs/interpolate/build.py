"""The components, events and endpoint of the Interpolate tab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from genlab.demo.components.player import Player
from genlab.demo.films import film
from genlab.demo.limits import DATA_SET, data_choices, data_offers, parse_choice
from genlab.demo.served import Models, data_title
from genlab.demo.tabs.animation import Animation, Pace
from genlab.demo.tabs.controls import formula, run_and_stop, slider
from genlab.demo.tabs.events import LIGHT_EVENT, MODEL_EVENT, connect, endpoint, errors_shown
from genlab.demo.tabs.interpolate import compute, figure
from genlab.demo.tabs.interpolate.request import POINTS, SOURCES, STEPS, InterpolateRequest, parse_interpolate
from genlab.demo.tabs.interpolate.text import NAMES, TEXT
from genlab.demo.tabs.link import Link
from genlab.demo.tabs.picker import Picker
from genlab.demo.tabs.pictures import pane
from genlab.demo.turns import Runner
from genlab.serving.gradio_patches import checked_by

STRIP_PAUSE = 12
"""Steps between two updates of the strip."""


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link:
    """Make the tab, and the endpoint `/interpolate`."""
    choices, first = data_choices(models.offers), figure.first_data(models)
    ids = [served.id for kind in ("vae", "ddpm") if (served := models.of_data(first, kind))]
    opening = film(models, "interpolate", ids)
    size = data_offers(models.offers, first)[0].data.size
    longest = min((o.T for o in models.offers.values() if o.T), default=None)

    def data_of(chosen: Any) -> str:
        return parse_choice(DATA_SET, chosen, choices)

    run, stop = run_and_stop(TEXT, "interpolate-run")
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            player = Player(
                opening, label="path", panes=NAMES, pane_shape=(size, size), colours=["p"] * 3, labels={"empty": TEXT["empty"]}
            )
            strip = gr.Image(
                figure.film_strip() if opening else figure.blank_strip(models, first),
                label=TEXT["strip"],
                show_label=False,
                alt_text=TEXT["strip"],
                format="png",
                interactive=False,
                buttons=["download"],
                elem_classes="genlab-strip",
            )
            legend = gr.Markdown(figure.legend(models, first))
        with gr.Column(scale=2, min_width=300):
            data = gr.Dropdown(
                [(data_title(d), d) for d in choices], value=first, label=TEXT["data"], interactive=len(choices) > 1
            )
            with gr.Row(elem_id="interpolate-ends"):
                with gr.Column(min_width=140):
                    a = Picker(models, "A", 0, SOURCES, data_of, first)
                with gr.Column(min_width=140):
                    b = Picker(models, "B", 1, SOURCES, data_of, first)
            points = slider(POINTS, TEXT["points"], info=TEXT["points_info"])
            steps = slider(STEPS, TEXT["steps"], longest, info=TEXT["steps_info"])
    formula(TEXT)
    a.connect(data)
    b.connect(data)
    data.change(errors_shown()(lambda chosen: figure.legend(models, data_of(chosen))), data, legend, **LIGHT_EVENT)

    def parse(data: Any, ends: tuple[Any, ...], points: Any, steps: Any) -> InterpolateRequest:
        data_of(data)
        return parse_interpolate(models.offers, data, a.parse(data, *ends[:3]), b.parse(data, *ends[3:]), points, steps)

    @checked_by(lambda data, *values: parse(data, values[:6], *values[6:]))
    def show(data: Any, *values: Any) -> Iterator[Any]:
        with errors_shown():
            request = parse(data, values[:6], *values[6:])
            animation: Animation | None = None
            for frame in compute.interpolate(models, runner, request):
                if frame.stage == "done":
                    yield figure.path_animation(frame).sheet(first=0), figure.strip(frame, request)
                    return
                animation = animation or figure.animation_of(models, frame, request.data)
                middle = [pane(row[request.points // 2]) for row in frame.rows.values()]
                live = animation.add(frame.index - 1, middle, TEXT[frame.stage].format(t=frame.t, points=request.points))
                if live is not None:
                    yield live, figure.strip(frame, request) if frame.index % STRIP_PAUSE == 1 else gr.skip()

    @checked_by(lambda data, *v: parse(data, (*v[:2], v[6], *v[2:4], v[7]), *v[4:6]))
    def interpolate(
        data: Any,
        a_from: Any,
        a_number: Any,
        b_from: Any,
        b_number: Any,
        points: Any,
        steps: Any,
        a_upload: Any = None,
        b_upload: Any = None,
    ) -> Iterator[str | None]:
        """The paths from picture A to picture B of the data set `data`, as one lossless PNG: one row for each path (VAE
        along a straight line, VAE along the sphere, DDPM along the sphere), `points` columns, 2 white pixels between the
        pictures. A and B are each the test picture number `a_number`, the picture drawn from the seed `a_number`, or an
        upload, as `a_from` says. `steps` are those of the DDPM on its way to the noise, and back. The ends of the VAE's rows
        are its reconstructions; the DDPM's come back to A and B.
        """
        with errors_shown():
            request = parse(data, (a_from, a_number, a_upload, b_from, b_number, b_upload), points, steps)
            pace = Pace()
            for frame in compute.interpolate(models, runner, request):
                if frame.stage == "done":
                    yield figure.strip(frame, request, scale=1)
                elif pace.frame_due():
                    yield None

    inputs = [data, *a.inputs, *b.inputs, points, steps]
    picture = gr.Image(label="paths", format="png", visible=False)
    named = [data, a.source, a.number, b.source, b.number, points, steps, a.upload, b.upload]
    endpoint(interpolate, named, picture, **MODEL_EVENT)
    connect(run, stop, show, inputs, [player, strip])
    controls = {"data": data, "a_from": a.source, "a": a.number, "b_from": b.source, "b": b.number, "points": points}

    def linked(data: Any, a_from: Any, a: Any, b_from: Any, b: Any, points: Any, steps: Any) -> InterpolateRequest:
        return parse(data, (a_from, a, None, b_from, b, None), points, steps)

    return Link("interpolate", {**controls, "steps": steps}, linked, run="interpolate-run")
