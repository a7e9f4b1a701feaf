"""The components, events and endpoint of the Bound tab."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from genlab.demo.components.canvas import Canvas, CanvasData
from genlab.demo.components.figure import Figure, FigureData, selected
from genlab.demo.components.player import new_run
from genlab.demo.limits import PICTURES, SEED, Pick, ddpm_offer, ddpm_offers
from genlab.demo.served import Models
from genlab.demo.tabs import measurements
from genlab.demo.tabs.bound import compute, figure
from genlab.demo.tabs.bound.compute import first_visible_noise
from genlab.demo.tabs.bound.request import BoundRequest, parse_bound
from genlab.demo.tabs.bound.text import TEXT
from genlab.demo.tabs.controls import formula
from genlab.demo.tabs.events import NEWEST_EVENT, ONE_PASS_EVENT, endpoint, errors_shown
from genlab.demo.tabs.link import Link
from genlab.demo.tabs.one_picture import OnePicture
from genlab.demo.turns import Runner
from genlab.measurements import DiffusionBound, read_evaluation


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link | None:
    """Make the tab, and the endpoint `/bound`."""
    offers = ddpm_offers(models.offers)
    if not offers:
        gr.Markdown(TEXT["none"])
        return None
    one = OnePicture(models, "bound", offers, partial(ddpm_offer, models.offers))
    first = one.first

    def measured(model: str) -> DiffusionBound | None:
        return read_evaluation(models[model].package.metrics).bound_of_chain(models.offers[model].T)

    def stages(model: Any, pick: Pick, token: str, chosen: Any, t: Any, seed: Any) -> tuple[FigureData, CanvasData, FigureData]:
        """Return the ledger, the pictures and the pixel; without a chosen pixel the one that costs most."""
        place = (0, 0) if chosen is None else chosen
        row, column = place if isinstance(place, (tuple, list)) and len(place) == 2 else (None, None)
        request = parse_bound(models.offers, model, pick, t, seed, row, column)
        step, ledger = compute.bound(models, runner, request), measured(request.model)
        at = step.largest if chosen is None else (request.row, request.column)
        return figure.ledger_figure(ledger, step), figure.pictures(ledger, step, token, at), figure.pixel(step, *at)

    def begin(model: str, seed: Any) -> tuple[FigureData, CanvasData, FigureData]:
        return stages(model, one.start(model), new_run(), None, first_visible_noise(models.ddpm(model).schedule), seed)

    one.lead(TEXT["lead"], TEXT["again"])
    shown = begin(first.id, int(SEED.default))
    ledger = Figure(shown[0], label="ledger", labels={"player": TEXT["ledger"]}, elem_id="bound-ledger")
    with gr.Row():
        t = gr.Number(
            first_visible_noise(models.ddpm(first.id).schedule),
            precision=0,
            minimum=1,
            maximum=first.T,
            label=TEXT["t"].format(T=first.T),
            min_width=140,
            elem_id="bound-t",
        )
        one.choose_model()
    canvas = Canvas(shown[1], label="pictures", labels={"canvas": TEXT["canvas"]}, elem_id="bound-canvas")
    pixel = Figure(shown[2], label="pixel", labels={"player": TEXT["pixel"]}, elem_id="bound-pixel")
    tables = measurements.show(models, first.id)
    one.choose_picture(TEXT["seed"])
    formula(TEXT)

    def show_step(model: Any, ledger: Any, canvas: Any, t: Any, seed: Any) -> Any:
        chosen = selected(ledger)
        step = t if chosen is None else round(chosen[1])
        if None in (step, seed):  # a field is being filled in
            return [gr.skip()] * 4
        with errors_shown():
            return step, *stages(model, *one.drawn(model, canvas), step, seed)

    def show_model(model: Any, seed: Any) -> Any:
        with errors_shown():
            step = {**fit(model)["t"], "value": first_visible_noise(models.ddpm(model).schedule)}
            return *begin(model, seed), *measurements.tables(models, model), step, *one.fit(model)

    def fit(model: Any, *_: Any) -> dict[str, Any]:
        T = one.offer_of(model).T
        return {"t": gr.update(maximum=T, label=TEXT["t"].format(T=T)), "picture": one.fit(model)[0]}

    def parse_link(
        model: Any, number: Any, seed: Any, row: Any, column: Any, x: Any, t: Any
    ) -> tuple[BoundRequest, tuple[int, int] | None]:
        chosen = one.linked_place(model, row, column)
        return parse_bound(models.offers, model, one.linked(model, number, x), t, seed, *(chosen or (0, 0))), chosen

    def show_linked(model: Any, *values: Any) -> Any:
        with errors_shown():
            request, chosen = parse_link(model, *values)
            shown = stages(model, request.picture, new_run(), chosen, request.t, request.seed)
            return *shown, *measurements.tables(models, model), one.fit(model)[1]

    model, number, upload, seed = one.model, one.number, one.upload, one.seed
    stage: list[Any] = [ledger, canvas, pixel]
    one.connect(canvas, stages, [t, seed], stage, [t.input, canvas.select])
    ledger.select(show_step, [model, ledger, canvas, t, seed], [t, *stage], **NEWEST_EVENT)
    model.input(show_model, [model, seed], [*stage, *tables, t, number, one.kind], **NEWEST_EVENT)

    def bound(
        model: Any, picture_from: Any, number: Any, t: Any, seed: Any, row: Any, column: Any, upload: Any = None
    ) -> dict[str, Any]:
        """The bound of a DDPM at step t for one picture, every number of the page's Bound tab. The picture is test picture
        `number` or an upload, as `picture_from` says; x_t is drawn with the noise of `seed`; classes are hidden. The step has
        `t` of `T`, `alpha_bar` (ᾱ_t), `beta_tilde` and `beta` (β̃_t, at t = 1 β̃_2, and β_t), and `variance`, which Σ is the
        model's own. `bits_per_dim` has `term`, the picture's L_{t−1}, or L_0 at t = 1, with that Σ, `by_variance`, the same
        with each Σ that the model can have, and `prior`, its L_T. `bits` has the term's bits of every pixel, row by row, and
        `fractions` where log Σ lies between log β̃ (0) and log β (1), as (C H W). `pixel` is the one in `row` and `column` (its
        first channel): `x_0`, `x_t`, `x0_hat`, mean and variance of `q`, q(x_{t−1}|x_t,x_0) (null at t = 1), and of `p`,
        p_θ(x_{t−1}|x_t), its `bits` and `fraction` and, at t = 1, `levels`: the mass on each gray level (else null). `measured`
        has what was measured on the test pictures: the `likelihood`'s ledger and the quality of `samples`, or null.
        """
        with errors_shown():
            pick = one.parse(model, picture_from, number, upload)
            request = parse_bound(models.offers, model, pick, t, seed, row, column)
            samples = read_evaluation(models[request.model].package.metrics).samples
            return figure.numbers(
                compute.bound(models, runner, request), request.row, request.column, measured(request.model), samples
            )

    source = gr.Textbox(PICTURES[0], label="Picture from", visible=False)
    row = gr.Number(first.data.size // 2, precision=0, label="Row", visible=False)
    column = gr.Number(first.data.size // 2, precision=0, label="Column", visible=False)
    numbers = gr.JSON(label="numbers", visible=False)
    endpoint(bound, [model, source, number, t, seed, row, column, upload], numbers, **ONE_PASS_EVENT)
    link = Link("bound", {**one.controls, "t": t}, parse_link, fit, shown=([model, number, canvas], one.now))
    link.restored(show_linked, [*stage, *tables, one.kind], **NEWEST_EVENT)
    return link
