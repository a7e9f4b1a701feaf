"""The components, events and endpoints of the Sample tab."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from genlab.demo.components.figure import Figure
from genlab.demo.components.player import Player
from genlab.demo.limits import ANY, MODEL, Offer, label_choices, parse_choice
from genlab.demo.served import Models
from genlab.demo.tabs import measurements
from genlab.demo.tabs.animation import Pace
from genlab.demo.tabs.controls import LATEX, choices, class_name, formula, run_and_stop, seed_field, slider
from genlab.demo.tabs.events import LIGHT_EVENT, MODEL_EVENT, NEWEST_EVENT, OPENING_EVENT, connect, endpoint, errors_shown
from genlab.demo.tabs.link import Link
from genlab.demo.tabs.sample import compute
from genlab.demo.tabs.sample import curve as steps_curve
from genlab.demo.tabs.sample.figure import animation_of, caption_of, png_file, sheet, side_of
from genlab.demo.tabs.sample.poster import Poster
from genlab.demo.tabs.sample.request import COUNT, GUIDANCE, SAMPLER, SAMPLERS, STEPS, parse_sample
from genlab.demo.tabs.sample.text import TEXT
from genlab.demo.turns import Runner
from genlab.serving.gradio_patches import checked_by


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link:
    """Make the tab, and the endpoints `/sample` and `/sample_stream`."""
    offers = models.offers
    first = next((o for o in offers.values() if o.kind == "ddpm"), next(iter(offers.values())))
    run, stop = run_and_stop(TEXT, "sample-run")
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            side = side_of(int(COUNT.default), first.data.size)
            player = Player(
                label="frames", panes=[first.id], pane_shape=(side, side), colours=["p"], labels={"empty": TEXT["empty"]}
            )
            download = gr.DownloadButton(TEXT["download"], interactive=False, size="sm")
        with gr.Column(scale=2, min_width=300):
            model = gr.Dropdown(list(offers), value=first.id, label=TEXT["model"], interactive=True)
            label = gr.Dropdown(
                choices([ANY, *label_choices(first)]),
                value=ANY,
                label=TEXT["label"],
                info=TEXT["label_info"] if label_choices(first) else TEXT["label_none"],
                interactive=bool(label_choices(first)),
            )
            count = slider(COUNT, TEXT["count"])
            steps = slider(STEPS, TEXT["steps"], first.steps or None, info=steps_info(first), interactive=bool(first.steps))
            seed = seed_field(TEXT["seed"], info=TEXT["seed_info"], button_id="sample-seed-new")
            with gr.Accordion(TEXT["more"], open=False):
                sampler = gr.Radio(choices(SAMPLERS), value=SAMPLER, label=TEXT["sampler"], info=TEXT["sampler_info"])
                guidance = slider(GUIDANCE, TEXT["guidance"], info=TEXT["guidance_info"])
            begin = steps_curve.curve_figure(models, runner, first.id, int(COUNT.default), int(STEPS.default))
            curve = Figure(
                begin,
                label="curve",
                labels={"player": steps_curve.TEXT["figure"], "empty": steps_curve.TEXT["empty"]},
                visible=bool(first.T),
            )
    formula(TEXT)
    with gr.Accordion(TEXT["measured"], open=False):
        measured = gr.Markdown(measurements.joined(models, first.id), latex_delimiters=LATEX, elem_classes="genlab-measured")

    @checked_by(lambda *values: parse_sample(models.offers, *values))
    def show(model: Any, label: Any, count: Any, steps: Any, sampler: Any, guidance: Any, seed: Any) -> Iterator[Any]:
        with errors_shown():
            request = parse_sample(models.offers, model, label, count, steps, sampler, guidance, seed)
            animation = animation_of(models, request)
            for frame in compute.sample(models, runner, request):
                live = animation.add(frame.index, [sheet(frame)], caption_of(frame))
                if live is not None and frame.index < frame.count:
                    yield live, gr.skip()
            yield animation.sheet(), gr.update(value=png_file(frame, request), interactive=True)

    inputs = [model, label, count, steps, sampler, guidance, seed]
    _add_endpoints(models, runner, [model, class_name(), count, steps, sampler, guidance, seed])
    connect(run, stop, show, inputs, [player, download])

    def offer_of(chosen: Any) -> Offer:
        return models.offers.get(chosen if isinstance(chosen, str) else "", first)

    def fit_controls(chosen: Any) -> tuple[Any, Any]:
        offer = offer_of(chosen)
        classes = label_choices(offer)
        longest = min(STEPS.high, offer.steps or STEPS.high)
        return (
            gr.update(
                choices=choices([ANY, *classes]),
                value=ANY,
                interactive=bool(classes),
                info=TEXT["label_info"] if classes else TEXT["label_none"],
            ),
            gr.update(
                maximum=longest,
                value=min(offer.default_steps, longest),
                interactive=bool(offer.steps),
                info=steps_info(offer),
            ),
        )

    def show_measured(chosen: Any) -> str:
        with errors_shown():
            return measurements.joined(models, parse_choice(MODEL, chosen, tuple(offers)))

    def cost(chosen: Any, number: Any, length: Any, weight: Any) -> Any:
        with errors_shown():
            shown = steps_curve.curve_figure(
                models, runner, chosen, int(COUNT.parse(number)), int(STEPS.parse(length)), GUIDANCE.parse(weight)
            )
        return gr.update(value=shown, visible=bool(offer_of(chosen).T))

    def fit(chosen: Any, *_: Any) -> dict[str, Any]:
        return dict(zip(("label", "steps"), fit_controls(chosen), strict=True))

    names = ("model", "label", "count", "steps", "sampler", "guidance", "seed")
    link = Link("sample", dict(zip(names, inputs, strict=True)), partial(parse_sample, models.offers), fit, "sample-run")
    asked = [model, count, steps, guidance]

    model.change(show_measured, model, measured, **LIGHT_EVENT)
    model.input(fit_controls, model, [label, steps], **LIGHT_EVENT).then(cost, asked, curve, **LIGHT_EVENT)
    run.click(cost, asked, curve, **NEWEST_EVENT)  # a link has chosen a model and steps
    for component in (steps, count, guidance):
        component.input(cost, asked, curve, **NEWEST_EVENT)
    poster = Poster(models, runner, first)

    def open_player(request: gr.Request) -> Any:
        return gr.skip() if link.named(dict(request.query_params)) else poster.show()

    page.load(open_player, None, player, **OPENING_EVENT).then(cost, asked, curve, **OPENING_EVENT)
    return link


def steps_info(offer: Offer) -> str:
    """Return what is said of the number of steps."""
    return TEXT[{"vae": "steps_none", "mixture-vae": "steps_none", "consistency": "steps_few"}.get(offer.kind, "steps_info")]


def _add_endpoints(models: Models, runner: Runner, named: list[Any]) -> None:
    """Make the endpoints `/sample` and `/sample_stream` with these components as parameters."""

    @checked_by(lambda *values: parse_sample(models.offers, *values))
    def sample(model: Any, label: Any, count: Any, steps: Any, sampler: Any, guidance: Any, seed: Any) -> Iterator[str | None]:
        """New pictures as one lossless PNG, a grid with 2 white pixels between the pictures. Picture i (from 0, row by
        row) depends on seed + i alone, so the same seed gives the same pictures; seeds are whole numbers from 0 to
        4294967295. `label` is a class of the model, see /models, or "any": the classes take turns, by each picture's
        seed. `sampler` is "DDIM", "ancestral", "DPM-Solver++", "DPM-Solver++ SDE" or "UniPC"; `guidance` goes from 0 to 8 in
        halves and is w in ε̂(∅) + w (ε̂(label) − ε̂(∅)), 1 the plain model. A VAE takes one step, whatever `steps` says; a
        consistency function has a sampler of its own.
        Pictures × steps (× 2 where guidance is not 1) may be 5000 at 28×28 pixels.
        """
        with errors_shown():
            request = parse_sample(models.offers, model, label, count, steps, sampler, guidance, seed)
            pace = Pace()
            for frame in compute.sample(models, runner, request):
                if frame.index == frame.count:
                    yield png_file(frame, request)
                elif pace.frame_due():
                    yield None

    @checked_by(lambda *values: parse_sample(models.offers, *values))
    def sample_stream(model: Any, label: Any, count: Any, steps: Any, sampler: Any, guidance: Any, seed: Any) -> Iterator[str]:
        """The same as /sample, while it forms: a lossless PNG of x_t for every step shown (25 a second at most), the finished
        pictures last. Close the stream or cancel the job to stop the computation.
        """
        with errors_shown():
            request = parse_sample(models.offers, model, label, count, steps, sampler, guidance, seed)
            pace = Pace()
            for frame in compute.sample(models, runner, request):
                if pace.frame_due() or frame.index == frame.count:
                    yield png_file(frame, request)

    pictures = gr.Image(label="pictures", format="png", visible=False)
    endpoint(sample, named, pictures, **MODEL_EVENT)
    endpoint(sample_stream, named, pictures, **MODEL_EVENT)
