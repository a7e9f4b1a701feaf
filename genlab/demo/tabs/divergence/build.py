"""The components, events and endpoint of the KL tab."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import gradio as gr

from genlab.demo.components.figure import Figure, FigureData
from genlab.demo.limits import parse_choice
from genlab.demo.served import Models
from genlab.demo.tabs.controls import formula, heading
from genlab.demo.tabs.divergence import cross_entropy
from genlab.demo.tabs.divergence.compute import solve
from genlab.demo.tabs.divergence.figure import draw, numbers, read
from genlab.demo.tabs.divergence.request import START_MEAN, DivergenceRequest, parse_divergence
from genlab.demo.tabs.divergence.text import TEXT
from genlab.demo.tabs.events import NEWEST_EVENT, ONE_PASS_EVENT, endpoint, errors_shown
from genlab.demo.tabs.link import Link
from genlab.demo.turns import Runner
from genlab.serving.language import both

EXAMPLES: dict[str, tuple[str, tuple[float, ...]]] = {
    "two modes": (both("two modes", "两个峰"), (0.45, -3.0, 0.7, 3.0, 1.0, -1.0, 0.7)),
    "far apart": (both("far apart", "相距很远"), (0.5, -4.5, 0.6, 4.5, 0.6, -1.5, 1.0)),
    "narrow and wide": (both("narrow and wide", "一窄一宽"), (0.35, -2.5, 0.3, 2.0, 1.6, -5.0, 0.8)),
    "nearly one": (both("nearly one", "几乎合一"), (0.5, -1.0, 1.0, 1.0, 1.0, -4.0, 0.5)),
}
"""Name of an example → its name on the page, and the values of a request in its order."""


def build(models: Models, runner: Runner, page: gr.Blocks) -> Link:
    """Make the tab, and the endpoint `/divergence`; below figure 1, the section of discrete distributions."""
    first = DivergenceRequest(*next(iter(EXAMPLES.values()))[1])
    with heading(TEXT["lead"]):
        run = gr.Button(TEXT["run"], variant="primary", elem_id="divergence-run", scale=2, min_width=140)
        other = gr.Button(TEXT["other"], elem_id="divergence-other", scale=2, min_width=140)
    figure = Figure(
        draw(solve(first, whole=False)), label="figure", animated=True, elem_id="divergence", labels={"player": TEXT["figure"]}
    )
    example = gr.Radio([(name, key) for key, (name, _) in EXAMPLES.items()], value=next(iter(EXAMPLES)), label=TEXT["example"])
    formula(TEXT)

    def dragged(value: Any) -> FigureData:
        with errors_shown():
            return draw(solve(read(value), whole=False))

    def play(value: Any) -> FigureData:
        with errors_shown():
            return draw(solve(read(value)), animated=True)

    def mirrored(value: Any) -> FigureData:
        """Return the fits from the start of q mirrored at the middle between the modes."""
        with errors_shown():
            request = read(value)
            start = START_MEAN.nearest(request.left_mean + request.right_mean - request.start_mean)
            return draw(solve(replace(request, start_mean=start)), animated=True)

    def shown(name: Any) -> FigureData:
        with errors_shown():
            key = parse_choice(TEXT["example"], name, tuple(EXAMPLES))
            return draw(solve(DivergenceRequest(*EXAMPLES[key][1])), animated=True)

    def divergence(
        weight: Any, left_mean: Any, left_std: Any, right_mean: Any, right_std: Any, start_mean: Any, start_std: Any
    ) -> dict[str, Any]:
        """One Gaussian q fitted to p = weight N(left_mean, left_std²) + (1 − weight) N(right_mean, right_std²) under both
        directions of the KL divergence, from the start N(start_mean, start_std²). In nats: `p` has the entropy H(p), mean and
        standard deviation of p; `forward` (KL[p‖q]) and `reverse` (KL[q‖p]) have, for the start and after each step of the
        optimiser, q's mean and standard deviation, H(p,q), KL[p‖q] and KL[q‖p]; and for the last q its density and
        the integrand of its divergence at the points `x`. Weights are from 0.05 to 0.95, means from −6 to 6 (the start's
        from −7 to 7), standard deviations from 0.3 to 2.5 (the start's to 3).
        """
        with errors_shown():
            return numbers(solve(parse_divergence(weight, left_mean, left_std, right_mean, right_std, start_mean, start_std)))

    figure.input(dragged, figure, figure, **NEWEST_EVENT)
    run.click(play, figure, figure, **NEWEST_EVENT)
    other.click(mirrored, figure, figure, **NEWEST_EVENT)
    example.input(shown, example, figure, **NEWEST_EVENT)
    named = [gr.Number(value, label=key, visible=False) for key, value in asdict(first).items()]
    result = gr.JSON(label="divergence", visible=False)
    endpoint(divergence, named, result, **ONE_PASS_EVENT)
    outcomes, example_of_outcomes, probabilities = cross_entropy.build()

    def now(value: Any, outcomes: Any) -> dict[str, Any]:
        bars = cross_entropy.read(outcomes)
        return {**asdict(read(value)), "p": list(bars.p), "q": list(bars.q)}

    def parse(*values: Any) -> tuple[DivergenceRequest, cross_entropy.CrossEntropyRequest]:
        return parse_divergence(*values[:-2]), cross_entropy.parse_shown(*values[-2:])

    def show_linked(*values: Any) -> tuple[FigureData, str | None, FigureData, str | None]:
        with errors_shown():
            request, bars = parse(*values)
            key = next((key for key, (_, example) in EXAMPLES.items() if DivergenceRequest(*example) == request), None)
            return draw(solve(request, whole=False)), key, *cross_entropy.show(bars)

    controls = dict(zip([*asdict(first), "p", "q"], [*named, *probabilities], strict=True))
    link = Link("divergence", controls, parse, shown=([figure, outcomes], now))
    link.restored(show_linked, [figure, example, outcomes, example_of_outcomes], **NEWEST_EVENT)
    return link
