"""The components, events and endpoint of the Compare tab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import torch

from genlab.demo.components.player import Player
from genlab.demo.films import film
from genlab.demo.limits import ANY, label_choices
from genlab.demo.served import Models
from genlab.demo.tabs.animation import Pace
from genlab.demo.tabs.compare import compute, figure
from genlab.demo.tabs.compare.request import COUNT, VARIANCES, CompareRequest, longest, parse_compare
from genlab.demo.tabs.compare.text import PANES, TEXT
from genlab.demo.tabs.controls import choices, class_name, formula, run_and_stop, seed_field, slider
from genlab.demo.tabs.events import LIGHT_EVENT, MODEL_EVENT, connect, endpoint, errors_shown
from genlab.demo.tabs.link import Link
from genlab.demo.tabs.pictures import png
from genlab.demo.tabs.sample.figure import side_of
from genlab.demo.tabs.sample.request import GUIDANCE, SAMPLERS, STEPS
from genlab.demo.turns import Runner
from genlab.serving.gradio_patches import checked_by
from genlab.serving.results import save_result

NAMES = ("model", "label", "steps", "sampler", "variance", "guidance")
FINE = 50
"""Steps of side A at first: DDIM solves the flow nearly exactly."""


def first_sides(models: Models) -> tuple[list[Any], list[Any]]:
    """Return what is compared at first: a DDPM in many steps, and its consistency function in one, or it in a few steps."""
    offers = models.offers
    pairs = [(a, b) for a in offers.values() if a.kind == "ddpm" for b in offers.values() if b.data == a.data]
    one = next((pair for pair in pairs if pair[1].kind == "consistency"), None)
    a = one[0] if one else next((o for o in offers.values() if o.kind == "ddpm"), next(iter(offers.values())))
    b, steps = (one[1], 1) if one else (a, 4)
    return [a.id, ANY, min(FINE, longest(a)), "DDIM", "own", 1], [b.id, ANY, steps, "DDIM", "own", 1]


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link:
    """Make the tab, and the endpoint `/compare`."""
    offers, firsts = models.offers, first_sides(models)
    side = side_of(COUNT, offers[firsts[0][0]].data.size)
    run, stop = run_and_stop(TEXT, "compare-run")
    player = Player(
        film(models, "compare", [first[0] for first in firsts]),
        label="frames",
        panes=PANES,
        pane_shape=(side, side),
        colours=figure.COLOURS,
        lines=(2, 4),
        labels={"empty": TEXT["empty"]},
    )
    with gr.Row(equal_height=False):
        a, b = (_controls(models, name, first) for name, first in zip("AB", firsts, strict=True))
    seed = seed_field(TEXT["seed"])
    formula(TEXT)
    inputs = [*a, *b, seed]

    def parse(*values: Any) -> CompareRequest:
        return parse_compare(offers, values[:6], values[6:12], values[12])

    @checked_by(parse)
    def show(*values: Any) -> Iterator[Any]:
        with errors_shown():
            request = parse(*values)
            animation = figure.animation_of(models, request)
            for frame in compute.compare(models, runner, request):
                live = animation.add(frame.index, figure.panes_of(frame), figure.caption_of(models, frame, request))
                if live is not None and frame.index < frame.count:
                    yield live
            yield animation.sheet()

    @checked_by(parse)
    def compare(
        a_model: Any, a_label: Any, a_steps: Any, a_sampler: Any, a_variance: Any, a_guidance: Any,
        b_model: Any, b_label: Any, b_steps: Any, b_sampler: Any, b_variance: Any, b_guidance: Any,
        seed: Any,
    ) -> Iterator[tuple[str | None, dict[str, Any] | None]]:  # fmt: skip
        """Four pictures drawn in two ways from the same seeds, in three rows of one lossless PNG: A, B and |A − B|. Each side
        has a model of pictures of the same shape, a class or "any", steps, a sampler, the guidance and, for the ancestral
        sampler, Σ: "own", "posterior" (β̃) or "beta". `rms` is the root mean square of A − B for each picture, in the 255 gray
        levels; `same_noise` says whether both began with the same noise: two models do whose noise has the same shape.
        """
        with errors_shown():
            request = parse(
                a_model, a_label, a_steps, a_sampler, a_variance, a_guidance,
                b_model, b_label, b_steps, b_sampler, b_variance, b_guidance, seed,
            )  # fmt: skip
            pace = Pace()
            for frame in compute.compare(models, runner, request):
                if frame.index < frame.count:
                    if pace.frame_due():
                        yield None, None
                    continue
                sheet = png(torch.cat([frame.a, frame.b, frame.difference]), columns=COUNT)
                numbers = {"rms": frame.rms.tolist(), "same_noise": compute.same_noise(models, request)[0]}
                yield save_result(sheet, "compared.png"), numbers

    sheet = gr.Image(label="sheet", format="png", visible=False)
    numbers = gr.JSON(label="numbers", visible=False)
    named = [
        # steps without the slider's range, which is that of the model that is chosen at first
        [each[0], class_name(), gr.Number(first[2], precision=0, label="Steps", visible=False), *each[3:]]
        for each, first in zip((a, b), firsts, strict=True)
    ]
    endpoint(compare, [*named[0], *named[1], seed], [sheet, numbers], **MODEL_EVENT)
    connect(run, stop, show, inputs, [player])
    names = [*(f"{side}_{name}" for side in "ab" for name in NAMES), "seed"]

    def fit(*values: Any) -> dict[str, Any]:
        updates = zip("ab", (fit_side(models, values[0]), fit_side(models, values[6])), strict=True)
        return {f"{side}_{name}": each for side, fitted in updates for name, each in fitted.items()}

    return Link("compare", dict(zip(names, inputs, strict=True)), parse, fit, "compare-run")


def fit_side(models: Models, chosen: Any) -> dict[str, Any]:
    """Return the updates of a side's class and steps for the model that is chosen."""
    offers = models.offers
    offer = offers.get(chosen if isinstance(chosen, str) else "", next(iter(offers.values())))
    classes, most = label_choices(offer), longest(offer)
    return {
        "label": gr.update(choices=choices([ANY, *classes]), value=ANY, interactive=bool(classes)),
        "steps": gr.update(maximum=most, value=min(offer.default_steps, most), interactive=bool(offer.steps)),
    }


def _controls(models: Models, name: str, first: list[Any]) -> list[Any]:
    """Make the controls of one side, in the order of `NAMES`."""
    offers = models.offers
    offer = offers[first[0]]
    with gr.Column(min_width=280, elem_id=f"compare-{name.lower()}"):
        gr.Markdown(f"### {name}")
        model = gr.Dropdown(list(offers), value=first[0], label=TEXT["model"], interactive=len(offers) > 1)
        label = gr.Dropdown(
            choices([ANY, *label_choices(offer)]), value=first[1], label=TEXT["label"], interactive=bool(label_choices(offer))
        )
        steps = slider(STEPS, TEXT["steps"], longest(offer), interactive=bool(offer.steps))
        steps.value = first[2]
        sampler = gr.Radio(choices(SAMPLERS), value=first[3], label=TEXT["sampler"])
        with gr.Accordion(TEXT["more"], open=False):
            variance = gr.Radio([(TEXT[v], v) for v in VARIANCES], value=first[4], label=TEXT["variance"])
            guidance = slider(GUIDANCE, TEXT["guidance"])

    model.input(lambda chosen: tuple(fit_side(models, chosen).values()), model, [label, steps], **LIGHT_EVENT)
    return [model, label, steps, sampler, variance, guidance]
