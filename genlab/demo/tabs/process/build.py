"""The components, events and endpoint of the Diffusion tab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from genlab.demo.components.player import Player
from genlab.demo.films import film
from genlab.demo.limits import ANY, MODEL, PICTURES, label_choices, parse_choice
from genlab.demo.served import Models
from genlab.demo.tabs.controls import choices, class_name, formula, next_of_class, run_and_stop, seed_field, slider
from genlab.demo.tabs.events import LIGHT_EVENT, MODEL_EVENT, connect, endpoint, errors_shown
from genlab.demo.tabs.link import Link
from genlab.demo.tabs.picker import Picker
from genlab.demo.tabs.process import compute, figure
from genlab.demo.tabs.process.request import (
    SAMPLER,
    SAMPLERS,
    STARTS,
    STEPS,
    THE_NOISE_REACHED,
    UNTIL,
    ProcessRequest,
    parse_process,
)
from genlab.demo.tabs.process.text import PANES, TEXT
from genlab.demo.turns import Runner
from genlab.serving.gradio_patches import checked_by
from genlab.serving.results import save_result


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link | None:
    """Make the tab, and the endpoint `/diffuse`."""
    chains = [o for o in models.offers.values() if o.kind == "ddpm"]
    if not chains:
        gr.Markdown(TEXT["none"])
        return None
    first, names = chains[0], tuple(o.id for o in chains)

    def data_of(chosen: Any) -> str:
        return models.offers[parse_choice(MODEL, chosen, names)].data.name

    run, stop = run_and_stop(TEXT, "diffusion-run")
    player = Player(
        film(models, "process", [first.id]),
        label="frames",
        panes=PANES,
        pane_shape=(first.data.size, first.data.size),
        segmented=True,
        lines=(2, 4),
        labels={"empty": TEXT["empty"]},
        elem_id="diffusion-frames",
    )
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            picker = Picker(models, TEXT["picture"], 0, PICTURES, data_of, first.id)
        with gr.Column(min_width=300):
            model = gr.Dropdown(list(names), value=first.id, label=TEXT["model"], interactive=len(names) > 1)
            kind = gr.Dropdown(
                choices(first.data.classes), value=None, label=TEXT["class"], visible=bool(first.data.classes), interactive=True
            )
            steps = slider(STEPS, TEXT["steps"], first.T, info=TEXT["steps_info"])
            until = gr.Slider(
                1,
                first.T,
                first.T,
                step=1,
                precision=0,
                label=TEXT["until"],
                info=TEXT["until_info"],
                elem_id="diffusion-until",
            )
        with gr.Column(min_width=300), gr.Accordion(TEXT["more"], open=False, elem_id="diffusion-more"):
            sampler = gr.Radio(choices(SAMPLERS), value=SAMPLER, label=TEXT["sampler"], info=TEXT["sampler_info"])
            start = gr.Radio(choices(STARTS), value=THE_NOISE_REACHED, label=TEXT["start"])
            label = gr.Dropdown(
                choices([ANY, *label_choices(first)]),
                value=ANY,
                label=TEXT["label"],
                info=TEXT["label_info"],
                interactive=bool(label_choices(first)),
            )
            seed = seed_field(TEXT["seed"])
    formula(TEXT)
    picker.connect(model)

    def parse(
        model: Any, ends: tuple[Any, Any, Any], steps: Any, sampler: Any, start: Any, label: Any, seed: Any, until: Any
    ) -> ProcessRequest:
        data_of(model)
        return parse_process(models.offers, model, picker.parse(model, *ends), steps, sampler, label, start, seed, until)

    @checked_by(lambda model, source, number, upload, *values: parse(model, (source, number, upload), *values))
    def show(model: Any, source: Any, number: Any, upload: Any, *values: Any) -> Iterator[Any]:
        with errors_shown():
            request = parse(model, (source, number, upload), *values)
            animation = figure.animation_of(models, request)
            for frame in compute.diffuse(models, runner, request):
                live = animation.add(frame.index, figure.panes_of(frame), figure.caption_of(frame, request))
                if live is not None and frame.index < frame.count - 1:
                    yield live
            yield animation.sheet()

    @checked_by(lambda model, source, number, *v: parse(model, (source, number, v[5]), *(*v[:5], v[6])))
    def diffuse(
        model: Any,
        picture_from: Any,
        number: Any,
        steps: Any,
        sampler: Any,
        start: Any,
        label: Any,
        seed: Any,
        upload: Any = None,
        until: Any = 0,
    ) -> Iterator[tuple[str | None, list[dict[str, Any]] | None]]:
        """The forward process on a picture and the reverse process from its end, as one lossless animated WebP (x_t, x̂_0
        and ε̂ side by side; forward, x_0 and ε are the true ones), and the numbers of each of its 2 (steps + 1) frames:
        direction, t, alpha_bar (ᾱ_t), snr (ᾱ_t / (1 − ᾱ_t), null for infinite); in reverse also how far x̂_0 is from the
        picture: rms (root mean square, in the 255 gray levels) and correlation (null for a picture of one gray). The picture
        is test picture `number` or an upload, as `picture_from` says. `start` says whether the way back starts from "the noise
        reached" or from "fresh noise"; `label` is the class that the way back is to make, or "any": the one that the seed
        falls on. `until` is the t at which the way there ends and the way back starts, 0 for T; there are no more steps than
        that, and below T "any" leads the way back to no class. `steps` are shown on the way there and taken on the way back, by
        `sampler`, "DDIM" or "ancestral"; `seed` is that of the noise.
        """
        with errors_shown():
            request = parse(model, (picture_from, number, upload), steps, sampler, start, label, seed, until)
            animation, numbers = figure.animation_of(models, request), []
            for frame in compute.diffuse(models, runner, request):
                if animation.add(frame.index, figure.panes_of(frame), "") is not None:
                    yield None, None
                numbers.append(figure.numbers(frame))
            yield save_result(animation.webp(), f"{request.model}-process.webp"), numbers

    inputs = [model, *picker.inputs, steps, sampler, start, label, seed, until]
    webp = gr.File(label="animation", visible=False)
    numbers = gr.JSON(label="frames", visible=False)
    up_to = gr.Number(UNTIL.default, precision=0, label="Until", visible=False)
    named = [model, picker.source, picker.number, steps, sampler, start, class_name(), seed, picker.upload, up_to]
    endpoint(diffuse, named, [webp, numbers], **MODEL_EVENT)
    connect(run, stop, show, inputs, [player])

    @errors_shown()
    def show_class(chosen: Any, name: Any, current: Any) -> Any:
        return next_of_class(models, models.offers[parse_choice(MODEL, chosen, names)].data, name, current)

    kind.input(show_class, [model, kind, picker.number], picker.number, **LIGHT_EVENT)

    def fit_controls(chosen: Any) -> tuple[Any, ...]:
        offer = models.offers.get(chosen if isinstance(chosen, str) else "", first)
        longest = min(STEPS.high, offer.T)
        return (
            gr.update(choices=choices(offer.data.classes), value=None, visible=bool(offer.data.classes)),
            gr.update(maximum=longest, value=min(STEPS.default, longest)),
            gr.update(choices=choices([ANY, *label_choices(offer)]), value=ANY, interactive=bool(label_choices(offer))),
            gr.update(maximum=offer.T, value=offer.T),
        )

    model.input(fit_controls, model, [kind, steps, label, until], **LIGHT_EVENT)
    controls = {"model": model, "picture_from": picker.source, "picture": picker.number, "steps": steps, "sampler": sampler}
    controls |= {"start": start, "label": label, "seed": seed, "until": until}

    def linked(model: Any, source: Any, number: Any, *values: Any) -> ProcessRequest:
        return parse(model, (source, number, None), *values)

    def fit(chosen: Any, *_: Any) -> dict[str, Any]:
        return dict(zip(("kind", "steps", "label", "until"), fit_controls(chosen), strict=True))

    return Link("process", controls, linked, fit, "diffusion-run")
