"""The components, events and endpoints of the Condition tab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from genlab.demo.components.canvas import Canvas, CanvasData
from genlab.demo.components.player import Player, new_run
from genlab.demo.films import film
from genlab.demo.limits import ANY, PICTURES, ddpm_offer, ddpm_offers, label_choices, parse_choice
from genlab.demo.served import Models
from genlab.demo.tabs.animation import Pace
from genlab.demo.tabs.condition import compute, figure
from genlab.demo.tabs.condition.request import (
    CLASS,
    COUNT,
    DRAWING,
    HIDDEN,
    MODES,
    REPAIR,
    ROUNDS,
    STEPS,
    UNTIL,
    WEIGHT,
    GuideRequest,
    RepairRequest,
    parse_cover,
    parse_guide,
    parse_repair,
)
from genlab.demo.tabs.condition.request import TEXT as NAMED
from genlab.demo.tabs.condition.text import MODES as MODE_NAMES
from genlab.demo.tabs.condition.text import PANES, TEXT
from genlab.demo.tabs.controls import another, choices, class_name, formula, run_and_stop, seed_field, slider
from genlab.demo.tabs.events import LIGHT_EVENT, MODEL_EVENT, connect, endpoint, errors_shown
from genlab.demo.tabs.link import Link
from genlab.demo.tabs.one_picture import OnePicture, linked_bytes, linked_text
from genlab.demo.tabs.pictures import png
from genlab.demo.tabs.sample.figure import side_of
from genlab.demo.turns import Runner
from genlab.serving.gradio_patches import checked_by
from genlab.serving.picture_input import PictureInput
from genlab.serving.results import save_result

PRESSED = "() => document.getElementById('condition-run').click()"
"""Draws what a link has restored."""


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link | None:
    """Make the tab, and the endpoints `/repair` and `/guide`."""
    offers = ddpm_offers(models.offers)
    if not offers:
        gr.Markdown(TEXT["none"])
        return None
    one = OnePicture(models, "condition", offers, lambda chosen: ddpm_offer(models.offers, chosen))
    first = one.first
    side = side_of(COUNT, first.data.size)

    run, stop = run_and_stop(TEXT, "condition-run")
    mode = gr.Radio(
        [(MODE_NAMES[m], m) for m in MODES], value=REPAIR, show_label=False, label=TEXT["mode"], elem_id="condition-mode"
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            canvas = Canvas(
                figure.canvas_of(
                    models, first.id, one.start(first.id), REPAIR, f"{list(offers).index(first.id)}.0.{new_run()}"
                ),
                label="picture",
                labels={"canvas": TEXT["canvas"], "hint": TEXT["hint"]},
                elem_id="condition-canvas",
            )
        with gr.Column(scale=3, min_width=320):
            player = Player(
                film(models, "condition", [first.id]),
                label="frames",
                panes=PANES,
                pane_shape=(side, side),
                lines=(2, 3),
                labels={"empty": TEXT["empty"]},
            )
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            model = gr.Dropdown(list(offers), value=first.id, label=TEXT["model"], interactive=len(offers) > 1)
            number = gr.Number(0, precision=0, minimum=0, label=TEXT["number"], interactive=True)
            anew = gr.Button(TEXT["another"], size="sm")
        with gr.Column(min_width=280):
            rounds = slider(ROUNDS, TEXT["rounds"], info=TEXT["rounds_info"])
            until = gr.Slider(
                1, first.T, first.T // 2, step=1, precision=0, label=TEXT["until"], info=TEXT["until_info"], visible=False
            )
            weight = slider(WEIGHT, TEXT["weight"], info=TEXT["weight_info"], visible=False)
            label = gr.Dropdown(
                choices([ANY, *label_choices(first)]), value=ANY, label=TEXT["label"], info=TEXT["label_info"], interactive=True
            )
        with gr.Column(min_width=280):
            steps = slider(STEPS, TEXT["steps"], first.T)
            seed = seed_field(TEXT["seed"])
    formula(TEXT)

    def canvas_of(mode: Any, model: Any, number: Any, x: Any = None, cover: Any = None) -> CanvasData:
        """Return the canvas with a test picture, or with the drawing `x` and the cover of a link.

        Its token begins with the names of model and picture.
        """
        what, offer = parse_choice(NAMED["mode"], mode, MODES), one.offer_of(model)
        tested = one.parse(model, "test picture", number, None) if one.count(model) else one.start(model)
        pick = tested if x is None else one.linked(model, number, x)
        hidden = None if cover is None else linked_bytes("cover", cover, (offer.data.size, offer.data.size)) > HIDDEN
        token = f"{list(offers).index(offer.id)}.{tested.number}.{new_run()}"
        return figure.canvas_of(models, offer.id, pick, what, token, hidden)

    def canvas_now(mode: Any, model: Any, number: Any, canvas: Any) -> dict[str, Any]:
        """Return the canvas as it is, or as it is about to be where another picture has been chosen."""
        fresh = canvas_of(mode, model, number)
        shown = canvas if isinstance(canvas, dict) else {}
        if str(shown.get("token")).rpartition(".")[0] != fresh.token.rpartition(".")[0]:
            shown = fresh.model_dump()
        return {**shown, "cover": shown.get("cover") or fresh.cover}

    def parse(
        model: Any, mode: Any, number: Any, canvas: Any, until: Any, label: Any, rounds: Any, weight: Any, steps: Any, seed: Any
    ) -> RepairRequest | GuideRequest:
        what = parse_choice(NAMED["mode"], mode, MODES)
        if what == CLASS:
            return parse_guide(models.offers, model, label, weight, steps, seed)
        shown = canvas_now(mode, model, number, canvas)
        pick = one.drawn(model, shown)[0]
        if what == DRAWING:
            return parse_repair(models.offers, model, pick, None, until, label, 1, steps, seed)
        return parse_repair(models.offers, model, pick, shown["cover"], UNTIL.default, label, rounds, steps, seed)

    def frames(request: RepairRequest | GuideRequest) -> Iterator[Any]:
        if isinstance(request, GuideRequest):
            return compute.run_guide(models, runner, request)
        return compute.run_repair(models, runner, request)

    @checked_by(parse)
    def show(*values: Any) -> Iterator[Any]:
        with errors_shown():
            request = parse(*values)
            animation = figure.animation_of(models, request)
            for frame in frames(request):
                live = animation.add(frame.index, figure.panes_of(frame), figure.caption_of(frame, request))
                if live is not None and frame.index < frame.count:
                    yield live
            yield animation.sheet()

    connect(run, stop, show, [model, mode, number, canvas, until, label, rounds, weight, steps, seed], [player])

    def controls_of(mode: Any, canvas: CanvasData) -> tuple[Any, ...]:
        """Return the updates of the canvas and of the controls that not every mode has."""
        hint = TEXT["hint" if mode == REPAIR else "hint_drawing"]
        return (
            gr.update(value=canvas, visible=mode != CLASS, labels={"hint": hint}),
            *(gr.update(visible=mode != CLASS) for _ in (number, anew)),
            gr.update(visible=mode == REPAIR),
            gr.update(visible=mode == DRAWING),
            gr.update(visible=mode == CLASS),
        )

    def fit_mode(chosen: Any, model: Any, number: Any, label: Any) -> tuple[Any, ...]:
        with errors_shown():
            shown = canvas_of(chosen, model, number)
        classes = label_choices(one.offer_of(model))
        asked = gr.update(value=classes[0]) if chosen == CLASS and label == ANY and classes else gr.skip()
        return *controls_of(chosen, shown), asked

    newest: dict[str, Any] = {**LIGHT_EVENT, "trigger_mode": "always_last"}
    fitted = [canvas, number, anew, rounds, until, weight]
    mode.input(fit_mode, [mode, model, number, label], [*fitted, label], **newest)

    def show_picture(mode: Any, model: Any, number: Any) -> Any:
        if number is None:  # the field is being filled in
            return gr.skip()
        with errors_shown():
            return canvas_of(mode, model, number)

    picked = anew.click(
        errors_shown()(lambda model, now: another(one.count(model), now)), [model, number], number, **LIGHT_EVENT
    )
    # Not when the number changes: a link sets it together with what is drawn.
    for event in (number.input, model.input, picked.success):
        event(show_picture, [mode, model, number], canvas, **newest)

    def fit_model(chosen: Any) -> tuple[Any, ...]:
        offer = offers.get(chosen if isinstance(chosen, str) else "", first)
        longest = min(STEPS.high, offer.T)
        return (
            gr.update(choices=choices([ANY, *label_choices(offer)]), value=ANY),
            gr.update(maximum=longest, value=min(STEPS.default, longest)),
            gr.update(maximum=offer.T, value=offer.T // 2),
        )

    model.input(fit_model, model, [label, steps, until], **LIGHT_EVENT)
    _add_endpoints(models, runner, one, [model, number, seed])

    names = ("model", "mode", "picture", "until", "label", "rounds", "guidance", "steps", "seed", "x", "cover")
    x, cover = (gr.Textbox(None, label=name, visible=False) for name in names[-2:])
    controls = dict(zip(names, (model, mode, number, until, label, rounds, weight, steps, seed, x, cover), strict=True))

    def linked(model: Any, mode: Any, number: Any, *values: Any) -> RepairRequest | GuideRequest:
        at = 0 if number is None else number  # a link with a drawing names no test picture
        return parse(model, mode, at, canvas_of(mode, model, at, *values[-2:]).model_dump(), *values[:-2])

    def show_linked(model: Any, mode: Any, number: Any, *values: Any) -> tuple[Any, ...]:
        with errors_shown():
            return controls_of(mode, canvas_of(mode, model, number, *values[-2:]))

    def now(model: Any, mode: Any, number: Any, canvas: Any) -> dict[str, Any]:
        """Return what a link says of the canvas: what is drawn and painted over, where it is not what the page begins with."""
        if mode == CLASS:
            return {"x": None, "cover": None}
        shown = canvas_now(mode, model, number, canvas)
        hidden = parse_cover(one.offer_of(model).data, shown["cover"]) if mode == REPAIR else None
        said = {"cover": None, **one.pictured(model, number, one.drawn(model, shown)[0])}
        if hidden is not None and not np.array_equal(hidden, figure.first_cover(len(hidden))):
            said["cover"] = linked_text(hidden * np.uint8(255))
        return said

    def fit(chosen: Any, *_: Any) -> dict[str, Any]:
        return dict(zip(("label", "steps", "until"), fit_model(chosen), strict=True))

    link = Link("condition", controls, linked, fit, shown=([model, mode, number, canvas], now))
    link.restored(show_linked, fitted, **newest).success(None, None, None, js=PRESSED, api_visibility="private")
    return link


def _add_endpoints(models: Models, runner: Runner, one: OnePicture, shared: list[Any]) -> None:
    """Make the endpoints `/repair` and `/guide`."""
    model, number, seed = shared
    upload = PictureInput(label="Upload", required=False, visible=False)

    def parse(
        model: Any, picture_from: Any, number: Any, cover: Any, until: Any, label: Any, rounds: Any, steps: Any, seed: Any,
        upload: Any = None,
    ) -> RepairRequest:  # fmt: skip
        pick = one.parse(model, picture_from, number, upload)
        return parse_repair(models.offers, model, pick, cover, until, label, rounds, steps, seed)

    @checked_by(parse)
    def repair(
        model: Any, picture_from: Any, number: Any, cover: Any, until: Any, label: Any, rounds: Any, steps: Any, seed: Any,
        upload: Any = None,
    ) -> Iterator[str | None]:  # fmt: skip
        """Four pictures that agree with the known part of one, as one lossless PNG; their noise has the seeds seed … seed + 3.
        The picture is test picture `number` or an upload, as `picture_from` says. `cover` has a row of numbers for each row of
        pixels, 1 where the picture is hidden and 0 where it is known; null keeps nothing of it. `until` is the t to which the
        picture is noised at first, 0 for T, where nothing is left of it: with null and a middle t the picture is a drawing to
        start from (SDEdit). Each stretch of five steps is walked `rounds` times (RePaint; 1 to 20), by the ancestral sampler.
        `label` is a class or "any" for none.
        """
        with errors_shown():
            request = parse(model, picture_from, number, cover, until, label, rounds, steps, seed, upload)
            pace = Pace()
            for frame in compute.run_repair(models, runner, request):
                if frame.index == frame.count:
                    yield save_result(png(frame.x_t), f"{request.model}-repaired.png")
                elif pace.frame_due():
                    yield None

    @checked_by(lambda *values: parse_guide(models.offers, *values))
    def guide(model: Any, label: Any, weight: Any, steps: Any, seed: Any) -> Iterator[tuple[str | None, dict[str, Any] | None]]:
        """Pictures of the class `label` from the same noise, three rows of four in one lossless PNG: by the gradient of a
        classifier (Dhariwal & Nichol 2021), by classifier-free guidance, both with the strength `weight` (0 to 8 in halves, 1
        for Bayes' rule), and without a class. `probability` has for each row what the classifier gives to the class. The
        classifier is the one that ships for such pictures, or one of training/train_classifier.py.
        """
        with errors_shown():
            request = parse_guide(models.offers, model, label, weight, steps, seed)
            pace = Pace()
            for frame in compute.run_guide(models, runner, request):
                if frame.probabilities is not None:
                    rows = dict(zip(("gradient", "classifier_free", "no_class"), frame.probabilities.tolist(), strict=True))
                    file = save_result(png(frame.pictures.flatten(0, 1), columns=COUNT), f"{request.model}-guided.png")
                    yield file, {"probability": rows}
                elif pace.frame_due():
                    yield None, None

    source = gr.Textbox(PICTURES[0], label="Picture from", visible=False)
    cover = gr.JSON(label="Cover", visible=False)
    start, rounds = (gr.Number(each.default, precision=0, label=each.name, visible=False) for each in (UNTIL, ROUNDS))
    steps = gr.Number(STEPS.default, precision=0, label="Steps", visible=False)
    pictures = gr.Image(label="pictures", format="png", visible=False)
    named = [model, source, number, cover, start, class_name(), rounds, steps, seed, upload]
    endpoint(repair, named, pictures, **MODEL_EVENT)
    strength = gr.Number(WEIGHT.default, label="Weight", visible=False)
    sheet, numbers = gr.Image(label="sheet", format="png", visible=False), gr.JSON(label="numbers", visible=False)
    endpoint(guide, [model, class_name(), strength, steps, seed], [sheet, numbers], **MODEL_EVENT)
