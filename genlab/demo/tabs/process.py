"""The forward and the reverse process on one picture, step by step (notes 1.5, figure 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import gradio as gr

from genlab.demo.engine import ChainFrame, Engine
from genlab.demo.limits import (
    ANY,
    CHAIN_STEPS,
    PICTURES,
    SAMPLERS,
    SEED,
    STARTS,
    DiffuseRequest,
    label_choices,
    parse_choice,
    parse_diffuse,
)
from genlab.demo.player import Player
from genlab.demo.tabs import DICE, LATEX, LIGHT_EVENT, MODEL_EVENT, Film, class_name, connect, heading, pane, to_file, told
from genlab.demo.tabs.picker import Picker

TITLE = "Diffusion"
TEXT = {
    "lead": "Forward, a fixed rule drowns a picture in noise; in reverse, the network has learned to pull a picture out of it.",
    "empty": "Press “Run the process”: noise grows over the picture, then the network takes it away.",
    "none": "No diffusion model is served here.",
    "model": "Model",
    "picture": "Picture",
    "class": "Show one of the class",
    "steps": "Steps",
    "steps_info": "shown on the way there, and taken on the way back",
    "sampler": "Sampler of the way back",
    "sampler_info": "ancestral is the notes' reverse process; DDIM leaves its chance out",
    "start": "The way back starts from",
    "label": "Class for the way back",
    "label_info": "what the way back is to make; “any”: the class that the seed falls on",
    "seed": "Seed of the noise",
    "dice": "New seed",
    "run": "Run the process",
    "stop": "Stop",
    "more": "More",
    "forward": "forward q",
    "reverse": "reverse p_θ",
    "caption": "{direction} · t = {t} · ᾱ = {alpha_bar} · SNR = {snr}\n{formula}",
    "forward_formula": "x_t = √α_t x_{t−1} + √β_t ε;  x_0 and ε are known",
    "start_formula": "x_0, the picture itself",
    "ancestral_formula": "x_s ~ N(μ̃(x_t, x̂_0), Σ_θ);  x̂_0 and ε̂ are what the network sees in x_t",
    "DDIM_formula": "x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s) ε̂;  x̂_0 and ε̂ are what the network sees in x_t",
    "end_formula": "x_0, what the reverse process has made",
    "formula_title": "The formula (notes 1.5)",
    "formula": r"""
**Forward**, one step and any number of steps at once:

$$q(x_t\mid x_{t-1}) = \mathcal N\big(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I\big),\qquad
q(x_t\mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I\big),\qquad
\bar\alpha_t = \prod_{i\le t}(1-\beta_i)$$

These are two distributions; the notes' “$q(x_t|x_{t-1}) = q(x_t|x_0)$” is a slip. What is shown is one path of the chain, each
$x_t$ drawn from the one before. The signal-to-noise ratio is $\bar\alpha_t/(1-\bar\alpha_t)$, in decibels $10\log_{10}$ of it.

**Reverse**: $\;p_\theta(x_{t-1}\mid x_t) = \mathcal N\big(\mu_\theta(x_t,t),\ \Sigma_\theta(x_t,t)\big)$ with the
posterior's mean, in which the network's $\hat x_0$ stands for the unknown picture:

$$\mu_\theta = \frac{\sqrt{\alpha_t}(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t +
\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,\hat x_0,
\qquad \hat x_0 = \frac{x_t-\sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}}$$

From the last $x_T$ nearly nothing of the picture is left ($\bar\alpha_T \approx 0$), so the way back leads to another picture.
""",
}
NAMES = ("x_t", "x̂_0", "ε̂")


def build(engine: Engine, page: gr.Blocks) -> None:
    """The tab, and the endpoint `/diffuse`."""
    chains = [o for o in engine.offers.values() if o.kind == "ddpm"]
    if not chains:
        gr.Markdown(TEXT["none"])
        return
    first, choices = chains[0], tuple(o.id for o in chains)

    def data_of(chosen: Any) -> str:
        return engine.offers[parse_choice("model", chosen, choices)].data.name

    run, stop = heading(TEXT["lead"], TEXT["run"], TEXT["stop"], "diffusion-run")
    player = Player(
        label="frames",
        panes=NAMES,
        pane_shape=(first.data.size, first.data.size),
        segmented=True,
        labels={"empty": TEXT["empty"]},
    )
    longest = min(CHAIN_STEPS.high, first.T)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            picker = Picker(engine, TEXT["picture"], 0, PICTURES, data_of, first.id)
        with gr.Column(min_width=300):
            model = gr.Dropdown(list(choices), value=first.id, label=TEXT["model"], interactive=len(choices) > 1)
            kind = gr.Dropdown(
                list(first.data.classes), value=None, label=TEXT["class"], visible=bool(first.data.classes), interactive=True
            )
            steps = gr.Slider(
                CHAIN_STEPS.low,
                longest,
                min(CHAIN_STEPS.default, longest),
                step=1,
                precision=0,
                label=TEXT["steps"],
                info=TEXT["steps_info"],
            )
        with gr.Column(min_width=300), gr.Accordion(TEXT["more"], open=False):
            sampler = gr.Radio(list(SAMPLERS), value=SAMPLERS[1], label=TEXT["sampler"], info=TEXT["sampler_info"])
            start = gr.Radio(list(STARTS), value=STARTS[0], label=TEXT["start"])
            label = gr.Dropdown(
                [ANY, *label_choices(first)],
                value=ANY,
                label=TEXT["label"],
                info=TEXT["label_info"],
                interactive=bool(label_choices(first)),
            )
            seed = gr.Number(SEED.default, precision=0, minimum=0, maximum=SEED.high, label=TEXT["seed"])
            dice = gr.Button(TEXT["dice"], size="sm")
    with gr.Accordion(TEXT["formula_title"], open=False):
        gr.Markdown(TEXT["formula"], latex_delimiters=LATEX)
    picker.connect(model)

    def parse(
        model: Any, ends: tuple[Any, Any, Any], steps: Any, sampler: Any, start: Any, label: Any, seed: Any
    ) -> DiffuseRequest:
        data_of(model)
        return parse_diffuse(engine.offers, model, picker.parse(model, *ends), steps, sampler, label, start, seed)

    def show(model: Any, source: Any, number: Any, upload: Any, *values: Any) -> Iterator[Any]:
        with told():
            request = parse(model, (source, number, upload), *values)
            film = _film(engine, request)
            for frame in engine.diffuse(request):
                live = film.add(frame.index, _panes(frame), _caption(frame, request))
                if live is not None and frame.index < frame.count - 1:
                    yield live
            yield film.sheet()

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
    ) -> Iterator[tuple[str | None, list[dict[str, Any]] | None]]:
        """The forward process on a picture and the reverse process from its end, as one lossless animated WebP (x_t, x̂_0
        and ε̂ side by side; forward, x_0 and ε are the true ones), and the numbers of each of its 2 (steps + 1) frames:
        direction, t, alpha_bar (ᾱ_t), snr (ᾱ_t / (1 − ᾱ_t), null for infinite). The picture is test picture `number` or
        an upload, as `picture_from` says. `start` says whether the way back starts from "the noise reached" or from
        "fresh noise"; `label` is the class that the way back is to make, or "any": the one that the seed falls on.
        """
        with told():
            request = parse(model, (picture_from, number, upload), steps, sampler, start, label, seed)
            film, numbers = _film(engine, request), []
            for frame in engine.diffuse(request):
                if film.add(frame.index, _panes(frame), "") is not None:
                    yield None, None
                numbers.append(_numbers(frame))
            yield to_file(film.webp(), f"{request.model}-process.webp"), numbers

    inputs = [model, *picker.inputs, steps, sampler, start, label, seed]
    animation = gr.File(label="animation", visible=False)
    numbers = gr.JSON(label="frames", visible=False)
    named = [model, picker.source, picker.number, steps, sampler, start, class_name(), seed, picker.upload]
    gr.Button(visible=False).click(diffuse, named, [animation, numbers], api_name="diffuse", **MODEL_EVENT)
    connect(run, stop, show, inputs, [player])
    dice.click(None, None, seed, js=DICE, api_visibility="private")

    def of_class(chosen: Any, name: Any, current: Any) -> Any:
        """Number of the next test picture of that class."""
        package, offer = engine.examples(data_of(chosen)), engine.offers[chosen]
        if package is None or package.labels is None or name not in offer.data.classes:
            return gr.skip()
        found = (package.labels == offer.data.classes.index(name)).nonzero().flatten().tolist()
        here = current if isinstance(current, int) else -1
        return next((i for i in found if i > here), found[0]) if found else gr.skip()

    kind.input(of_class, [model, kind, picker.number], picker.number, **LIGHT_EVENT)

    def fit_controls(chosen: Any) -> tuple[Any, Any, Any]:
        offer = engine.offers.get(chosen if isinstance(chosen, str) else "", first)
        longest = min(CHAIN_STEPS.high, offer.T)
        return (
            gr.update(choices=list(offer.data.classes), value=None, visible=bool(offer.data.classes)),
            gr.update(maximum=longest, value=min(CHAIN_STEPS.default, longest)),
            gr.update(choices=[ANY, *label_choices(offer)], value=ANY, interactive=bool(label_choices(offer))),
        )

    model.change(fit_controls, model, [kind, steps, label], **LIGHT_EVENT)


def _film(engine: Engine, request: DiffuseRequest) -> Film:
    size = engine.offers[request.model].data.size
    segments = [(0, TEXT["forward"]), (request.steps + 1, TEXT["reverse"])]
    return Film(2 * (request.steps + 1), NAMES, (size, size), segments=segments)


def _panes(frame: ChainFrame) -> list[Any]:
    return [pane(picture) for picture in (frame.x_t, frame.x0, frame.eps)]


def _caption(frame: ChainFrame, request: DiffuseRequest) -> str:
    if frame.direction == "forward":
        formula = TEXT["start_formula" if frame.t == 0 else "forward_formula"]
    else:
        formula = TEXT["end_formula" if frame.t == 0 else f"{request.sampler}_formula"]
    snr = "∞" if math.isinf(frame.snr) else f"{frame.snr:.3g} ({10 * math.log10(frame.snr):+.1f} dB)"
    return TEXT["caption"].format(
        direction=frame.direction, t=frame.t, alpha_bar=f"{frame.alpha_bar:.3g}", snr=snr, formula=formula
    )


def _numbers(frame: ChainFrame) -> dict[str, Any]:
    snr = None if math.isinf(frame.snr) else frame.snr
    return {"direction": frame.direction, "t": frame.t, "alpha_bar": frame.alpha_bar, "snr": snr}
