"""The components, events and endpoints of the VAE tab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import gradio as gr
from torch import Tensor

from genlab.demo.components.canvas import Canvas, CanvasData
from genlab.demo.components.figure import Figure, FigureData, frames_apart, positions
from genlab.demo.components.player import new_run
from genlab.demo.limits import PICTURES, SEED, LimitError, Pick, evaluations, vae_offer, vae_offers
from genlab.demo.served import Models
from genlab.demo.tabs import measurements
from genlab.demo.tabs.animation import Pace
from genlab.demo.tabs.controls import LATEX, formula
from genlab.demo.tabs.events import MODEL_EVENT, NEWEST_EVENT, ONE_PASS_EVENT, endpoint, errors_shown
from genlab.demo.tabs.link import Link
from genlab.demo.tabs.one_picture import OnePicture
from genlab.demo.tabs.pictures import png
from genlab.demo.tabs.vae import compute, figure
from genlab.demo.tabs.vae.compute import Z_AT_ONCE, ELBOTerms, PixelDensities
from genlab.demo.tabs.vae.request import COMPONENTS, SAMPLES, VAERequest, parse_pixel_density, parse_vae
from genlab.demo.tabs.vae.text import TEXT
from genlab.demo.turns import Runner
from genlab.serving.gradio_patches import checked_by
from genlab.serving.results import save_result

SLIDERS = 8
"""Latents that can be dragged, at most."""


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link | None:
    """Make the tab, and the endpoints `/vae` and `/pixel_density`."""
    offers = vae_offers(models.offers)
    if not offers:
        gr.Markdown(TEXT["none"])
        return None
    one = OnePicture(models, "vae", offers, partial(vae_offer, models.offers))
    first = one.first

    @cache
    def activity(model: str) -> Tensor:
        return compute.activity(models, runner, model)

    densities = PixelDensities(models, runner)

    def stages(model: Any, pick: Pick, token: str, chosen: Any, seed: Any, z: Any = None) -> tuple[CanvasData, FigureData]:
        request = parse_vae(models.offers, model, pick, z, 1, seed)
        encoded = compute.encode(models, runner, request)
        return figure.pictures(encoded, token, chosen), figure.latents(encoded, order(request.model))

    def order(model: str) -> list[int]:
        """Return the latents that can be dragged, the most active first."""
        return activity(model).argsort(descending=True, stable=True)[:SLIDERS].tolist()

    def density(model: Any, chosen: Any) -> FigureData:
        row, column = chosen if isinstance(chosen, (tuple, list)) and len(chosen) == 2 else (None, None)
        most = min(int(COMPONENTS.high), evaluations(vae_offer(models.offers, model).data))
        request = parse_pixel_density(models.offers, model, row, column, most)
        return figure.density(densities.density(request), request.row, request.column)

    def terms_of(model: str, elbo: ELBOTerms) -> FigureData:
        data = models[model].data
        return figure.terms(elbo, data.size**2 * data.channels)

    def begin(model: str, pick: Pick, seed: Any, chosen: Any = None, z: Any = None) -> tuple[Any, ...]:
        """Return what a picture shows, as far as it is quick; without a chosen pixel, the one that varies most."""
        chosen = chosen or compute.most_varied_pixel(models, model)
        canvas, latents = stages(model, pick, new_run(), chosen, seed, z)
        return canvas, latents, density(model, chosen)

    one.lead(TEXT["lead"], TEXT["again"])
    shown = begin(first.id, one.start(first.id), int(SEED.default))
    few = parse_vae(models.offers, first.id, one.start(first.id), None, Z_AT_ONCE, 0)
    canvas = Canvas(shown[0], label="pictures", labels={"canvas": TEXT["canvas"]}, elem_id="vae-canvas")
    latents = Figure(shown[1], label="latents", labels={"player": TEXT["latents"]}, elem_id="vae-latents")
    with gr.Row():
        one.choose_model()
    terms = Figure(
        terms_of(first.id, next(compute.elbo(models, runner, few))),
        label="terms",
        labels={"player": TEXT["terms"]},
        elem_id="vae-terms",
    )
    gr.Markdown(TEXT["correction"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            gr.Markdown(TEXT["density_lead"], latex_delimiters=LATEX)
            one.choose_picture(TEXT["seed"])
        with gr.Column(scale=3, min_width=300):
            pixel = Figure(
                frames_apart(shown[2]),
                label="density",
                animated=True,
                labels={"player": TEXT["density"]},
                elem_id="vae-density",
            )
    tables = measurements.show(models, first.id)
    formula(TEXT)

    def show_z(model: Any, canvas: Any, latents: Any, seed: Any) -> Any:
        with errors_shown():
            pick, token, chosen = one.drawn(model, canvas)
            try:
                z = z_of(model, latents)
            except LimitError:
                return gr.skip(), gr.skip()
            return stages(model, pick, token, chosen, seed, z)

    def show_model(model: Any, seed: Any) -> Any:
        with errors_shown():
            vae_offer(models.offers, model)  # refuses what is no model here
            return *begin(model, one.start(model), seed), *measurements.tables(models, model), *one.fit(model)

    def parse_link(model: Any, number: Any, seed: Any, row: Any, column: Any, x: Any, z: Any) -> tuple[VAERequest, Any]:
        request = parse_vae(models.offers, model, one.linked(model, number, x), z, 1, seed)
        return request, one.linked_place(model, row, column)

    def show_linked(model: Any, *values: Any) -> Any:
        with errors_shown():
            request, chosen = parse_link(model, *values)
            drawn = begin(model, request.picture, request.seed, chosen, list(request.z))
            return *drawn, *measurements.tables(models, model), one.fit(model)[1]

    def now(model: Any, number: Any, canvas: Any, latents: Any) -> dict[str, Any]:
        return {**one.now(model, number, canvas), "z": z_of(model, latents)}

    def z_of(model: Any, latents: Any) -> list[float | None]:
        """Return z as the handles of the figure say it.

        Raises:
            LimitError: the figure still shows another model.
        """
        z: list[float | None] = [None] * vae_offer(models.offers, model).latent
        for name, (value, _) in positions(latents, [f"z{i}" for i in order(model)]).items():
            z[int(name[1:])] = round(value, 3)
        return z

    def show_density(model: Any, canvas: Any, latents: Any, seed: Any) -> Any:
        with errors_shown():
            return density(model, one.drawn(model, canvas)[2]), show_z(model, canvas, latents, seed)[0]

    def show_elbo(model: Any, canvas: Any) -> Iterator[FigureData]:
        with errors_shown():
            samples = min(int(SAMPLES.default), evaluations(vae_offer(models.offers, model).data))
            request = parse_vae(models.offers, model, one.drawn(model, canvas)[0], None, samples, 0)
            pace = Pace()
            for elbo in compute.elbo(models, runner, request):
                if pace.frame_due() or elbo.samples == elbo.count:
                    yield terms_of(model, elbo)

    elbo_event: dict[str, Any] = {**NEWEST_EVENT, "concurrency_id": "elbo", "concurrency_limit": 1}
    model, number, seed = one.model, one.number, one.seed
    canvas_of_model = [model, canvas]

    for event in one.connect(canvas, stages, [seed], [canvas, latents]):
        event.then(show_elbo, canvas_of_model, terms, **elbo_event)
    canvas.release(show_elbo, canvas_of_model, terms, **elbo_event)
    canvas.select(show_density, [model, canvas, latents, seed], [pixel, canvas], **NEWEST_EVENT)
    latents.input(show_z, [model, canvas, latents, seed], [canvas, latents], **NEWEST_EVENT)
    everything = [canvas, latents, pixel, *tables]
    changed = model.input(show_model, [model, seed], [*everything, number, one.kind], **NEWEST_EVENT)
    _add_endpoints(models, runner, one, activity, densities)
    z = gr.JSON(None, label="z", visible=False)
    link = Link(
        "vae",
        {**one.controls, "z": z},
        parse_link,
        lambda model, *_: {"picture": one.fit(model)[0]},
        shown=([model, number, canvas, latents], now),
    )
    for event in (changed, link.restored(show_linked, [*everything, one.kind], **NEWEST_EVENT)):
        event.then(show_elbo, canvas_of_model, terms, **elbo_event)
    return link


def _add_endpoints(
    models: Models, runner: Runner, one: OnePicture, activity: Callable[[str], Tensor], densities: PixelDensities
) -> None:
    """Make the endpoints `/vae` and `/pixel_density`."""
    first, model, seed = one.first, one.model, one.seed

    def parse(model: Any, source: Any, number: Any, samples: Any, seed: Any, z: Any, upload: Any) -> VAERequest:
        return parse_vae(models.offers, model, one.parse(model, source, number, upload), z, samples, seed)

    @checked_by(parse)
    def vae(
        model: Any, picture_from: Any, number: Any, samples: Any, seed: Any, z: Any = None, upload: Any = None
    ) -> Iterator[tuple[str | None, dict[str, Any] | None]]:
        """A picture through a VAE: its reconstruction, the decoder's mean μ′(z), as a lossless PNG, and every number of the
        page's VAE tab. The picture is test picture `number` or an upload, as `picture_from` says. z = μ + σ·ε with the noise of
        `seed`, but where the list `z` has a number for a latent. `nats` has the terms of log p(x): reconstruction, kl, elbo,
        log_px (the importance-weighted bound by k = `samples` samples of z, 1 to 2000, the same for every picture), gap, and
        log_px_given_z at this z; `bits_per_dim` the same; `latents` for each latent the mean, log_var, z, kl and activity (the
        variance of the mean over the test pictures); `curve` pairs of k and L_k; `sigma` the least, mean and largest σ′.
        """
        with errors_shown():
            request = parse(model, picture_from, number, samples, seed, z, upload)
            pace = Pace()
            for elbo in compute.elbo(models, runner, request):
                if elbo.samples < elbo.count and pace.frame_due():
                    yield None, None
            encoded = compute.encode(models, runner, request)
            picture = save_result(png(encoded.mean[None], columns=1, gap=0), f"{request.model}-reconstruction.png")
            yield picture, figure.numbers(encoded, elbo, activity(request.model))

    def pixel_density(model: Any, row: Any, column: Any, count: Any) -> dict[str, Any]:
        """One pixel under a VAE, as a mixture: the mean and the σ of p(x|z_i) for `count` samples z_i ~ N(0, I), z_i being the
        one that seed i of /sample draws (`count` from 1 to 500); and that pixel in the test pictures. All values in the scale
        from black −1 to white 1.
        """
        with errors_shown():
            found = densities.density(parse_pixel_density(models.offers, model, row, column, count))
            return {"mean": found.mean.tolist(), "std": found.std.tolist(), "test_pictures": found.data.tolist()}

    source = gr.Textbox(PICTURES[0], label="Picture from", visible=False)
    samples = gr.Number(SAMPLES.default, precision=0, label="Samples", visible=False)
    values = gr.JSON(label="z", visible=False)
    reconstruction = gr.Image(label="reconstruction", format="png", visible=False)
    numbers = gr.JSON(label="numbers", visible=False)
    endpoint(vae, [model, source, one.number, samples, seed, values, one.upload], [reconstruction, numbers], **MODEL_EVENT)
    row = gr.Number(first.data.size // 2, precision=0, label="Row", visible=False)
    column = gr.Number(first.data.size // 2, precision=0, label="Column", visible=False)
    count = gr.Number(COMPONENTS.default, precision=0, label="Count", visible=False)
    mixture = gr.JSON(label="density", visible=False)
    endpoint(pixel_density, [model, row, column, count], mixture, **ONE_PASS_EVENT)
