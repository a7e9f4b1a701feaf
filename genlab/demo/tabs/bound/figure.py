"""The figures of the Bound tab: the ledger, the pictures, one pixel; and all numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from genlab.config import Variance
from genlab.data import to_pixels
from genlab.demo.components.canvas import CanvasData, canvas_data
from genlab.demo.components.figure import AnyLayer, Area, Axis, Bars, FigureData, Line, Panel, Points, Rule, Selected, Stack
from genlab.demo.tabs.bound.compute import BoundStep
from genlab.demo.tabs.bound.text import TEXT
from genlab.demo.tabs.measurements import SIGMA, own_first, plain, small, with_error
from genlab.demo.tabs.pictures import pane
from genlab.divergence import bits_per_dim, nats_to_bits
from genlab.measurements import DiffusionBound, Samples, to_json

COLOURS: dict[Variance, str] = {"learned": "p", "posterior": "q", "beta": "x_t"}
PANES = ("x₀", "xₜ", "x̂₀", TEXT["pane"])
PANE_COLOURS = ("p", "x_t", "x0_hat", "kl")
CURVE = 400
"""Steps t at most that can be chosen by a click."""
BINS = 40
"""Of the histogram of w."""
REACH = 4
"""Standard deviations to either side that a Gaussian is drawn over."""
LEAST = 1e-12
"""Bits/dim at least of a term that the ledger's curve shows."""
LEAST_MASS = 1e-3
"""Least mass of a gray level that is shown."""


def ledger_figure(ledger: DiffusionBound | None, step: BoundStep) -> FigureData:
    """Return the mean term of every step, this picture's, and the sums."""
    times = np.unique(np.geomspace(1, step.T, CURVE).round())
    now = max(_bits_per_dim(step, float(step.terms.double().sum())), 0.0)
    if ledger is None:
        terms: dict[Variance, np.ndarray] = {step.variance: np.full(len(times), math.nan)}
        low, high = 1e-7, 10.0
    else:
        strata = [ledger.stratum(int(t)) for t in times]
        each = ledger.ledger.mean_term_bits_per_dim
        terms = {name: np.array(each[name])[strata] for name in own_first(ledger)}
        there = np.array([v for values in terms.values() for v in values if v > LEAST] or [1.0])
        low, high = (10.0 ** f(math.log10(v)) for f, v in ((math.floor, there.min() / 9), (math.ceil, 2 * there.max())))
    layers: list[AnyLayer] = [
        Line(
            name=SIGMA[name],
            colour=COLOURS[name],
            width=3 if name == step.variance else 1.5,
            dash=name != step.variance,
            x=times,
            y=np.where(values > LEAST, values, math.nan),
        )
        for name, values in terms.items()
    ]
    layers.append(Points(name=TEXT["this"], colour="ink", size=10, opacity=1, x=[step.t], y=[min(max(now, low), high)]))
    caption = TEXT["unmeasured"] if ledger is None else _sentence(ledger)
    panels = [
        Panel(
            x=Axis(low=0.8, high=1.25 * step.T, scale="log", name=TEXT["step"]),
            y=Axis(low=low, high=high, scale="log", name=TEXT["bits"]),
            layers=layers,
            title=TEXT["curve_title"],
            description=caption,
            aspect=1.75 if ledger else 3,
            share=1.4,
            least=300,
            select=True,
        )
    ]
    if ledger is not None:
        names = own_first(ledger)
        sums = [ledger.by_variance[name] for name in names]
        total = max(max(s.bound_bits_per_dim for s in sums), 1e-3)
        parts = (
            ("decoder", "p", [s.decoder_term_L_0_bits_per_dim for s in sums]),
            ("transitions", "kl", [s.transition_terms_sum_bits_per_dim for s in sums]),
            ("prior", "gap", [ledger.prior_term_L_T_bits_per_dim] * len(sums)),
        )
        stacks = [Stack(name=TEXT[part], colour=colour, values=values) for part, colour, values in parts]
        texts = [with_error(s.bound_bits_per_dim, s.bound_standard_error_bits_per_dim) for s in sums]
        bars = Bars(labels=[SIGMA[name] for name in names], stacks=stacks, texts=texts, horizontal=True)
        panels.append(
            Panel(
                x=Axis(low=0, high=1.02 * total, name=TEXT["bits"]),
                y=Axis(low=-0.5, high=len(names) - 0.5, ticks=False),
                layers=[bars],
                title=TEXT["bars_title"],
                description=caption,
                aspect=1.46,
                least=280,
                readout=False,
            )
        )
    return FigureData(panels=panels, selected=Selected(panel=0, x=step.t), caption=caption, description=caption)


def _sentence(ledger: DiffusionBound) -> str:
    """Return the sum of the ledger in words."""
    own = ledger.by_variance[ledger.variance]
    return TEXT["measured"].format(
        sigma=SIGMA[ledger.variance],
        total=with_error(own.bound_bits_per_dim, own.bound_standard_error_bits_per_dim),
        images=f"{ledger.images:,}",
    )


def pictures(ledger: DiffusionBound | None, step: BoundStep, token: str, chosen: tuple[int, int]) -> CanvasData:
    """Return x_0, x_t, x̂_0 and the bits of each pixel for the canvas."""
    bits = nats_to_bits(step.per_pixel)
    white = max(float(bits.max()), 1e-12)
    heat = to_pixels((2 * bits / white - 1).expand_as(step.x0))
    average = ""
    if ledger is not None:
        k, strata = ledger.stratum(step.t), ledger.ledger
        mean, error = strata.mean_term_bits_per_dim[step.variance][k], strata.standard_error_bits_per_dim[step.variance][k]
        average = TEXT["on_average"].format(mean=small(mean), error=small(error, 2))
    caption = TEXT["caption"].format(
        t=step.t,
        T=step.T,
        alpha_bar=small(step.alpha_bar),
        index=_index(step.t - 1),
        bits=small(_bits_per_dim(step, float(step.terms.double().sum()))),
        measured=average,
        by_variance=", ".join(f"{SIGMA[name]}: {small(_bits_per_dim(step, v))}" for name, v in step.by_variance.items()),
        white=small(white),
    )
    panes = [pane(picture) for picture in (*(to_pixels(x) for x in (step.x0, step.x_t, step.x0_hat)), heat)]
    return canvas_data(token, panes, PANES, PANE_COLOURS, chosen, caption)


def pixel(step: BoundStep, row: int, column: int) -> FigureData:
    """Return the Gaussians of one pixel, or the mass on its gray levels, and where its Σ lies."""
    place = (0, row, column)
    mean, std = float(step.p.mean[place]), float(step.p.std[place])
    x0, x_t, x0_hat = (float(x[place]) for x in (step.x0, step.x_t, step.x0_hat))
    bits = small(float(nats_to_bits(step.terms[place])))
    values = {
        "bits": bits, "p_mean": plain(mean), "p_std": small(std),
        "x_0": plain(x0), "x_t": plain(x_t), "x0_hat": plain(x0_hat),
    }  # fmt: skip
    if step.q is None:
        level = int(to_pixels(step.x0)[place])
        caption, panel = TEXT["l_0"].format(level=level, **values), _levels(step, row, column, level)
    else:
        q_mean, q_std = float(step.q.mean[place]), float(step.q.std[place])
        caption = TEXT["kl"].format(q_mean=plain(q_mean), q_std=small(q_std), **values)
        low, high = (f(q_mean + s * REACH * q_std, mean + s * REACH * std) for f, s in ((min, -1), (max, 1)))
        x = torch.linspace(low, high, 241)
        q, p = step.densities(row, column, x)
        top = 1.1 * float(torch.cat([q, p]).max())
        layers: list[AnyLayer] = [
            Area(name=TEXT["q"], colour="q", x=x, y=q),
            Line(name=TEXT["p"], colour="p", width=3, x=x, y=p),
        ]
        for name, colour, at in (("x_0", "p", x0), ("x_t", "x_t", x_t), ("x̂_0", "x0_hat", x0_hat)):
            if low < at < high:
                layers.append(Points(name=name, colour=colour, size=11, opacity=1, x=[at], y=[0.04 * top]))
        panel = Panel(x=Axis(low=low, high=high, name=TEXT["value"]), y=Axis(low=0, high=top), layers=layers)
    caption += "\n" + TEXT["sigma"].format(
        name=SIGMA[step.variance],
        beta_tilde=small(step.beta_tilde),
        sigma=small(float(step.p.variance[place])),
        beta=small(step.beta),
    )
    panel.title, panel.description = TEXT["gaussians_title"].format(row=row, column=column), caption
    panel.aspect, panel.share, panel.least = 1.75, 1.4, 300
    panels = [panel, _between(step, float(step.fraction[place]), caption)]
    return FigureData(panels=panels, caption=caption, description=caption)


def _levels(step: BoundStep, row: int, column: int, level: int) -> Panel:
    """Return p_θ(x_0|x_1) of a pixel: the mass on each gray level near it."""
    mass = step.levels(row, column).numpy()
    shown = [level, *np.flatnonzero(mass > LEAST_MASS).tolist()]
    low, high = max(0, min(shown) - 3), min(255, max(shown) + 3)
    some = mass[low : high + 1]
    edges = np.arange(low, high + 2) - 0.5
    layers: list[AnyLayer] = [
        Area(name=TEXT["p_levels"], colour="p", x=np.repeat(edges, 2), y=np.concatenate([[0], np.repeat(some, 2), [0]])),
        Rule(colour="p", at=level, text=TEXT["x_0_is"].format(level=level)),
    ]
    y = Axis(low=0, high=1.25 * max(float(some.max()), 1e-3))
    return Panel(x=Axis(low=low - 1, high=high + 1, name=TEXT["level"]), y=y, layers=layers)


def _between(step: BoundStep, chosen: float, description: str) -> Panel:
    """Return where log Σ lies between log β̃ (0) and log β (1): all pixels as a histogram, and the chosen one."""
    fraction = step.fraction.flatten().double().numpy()
    low, high = min(-0.2, float(fraction.min()) - 0.1), max(1.2, float(fraction.max()) + 0.1)
    count, edges = np.histogram(fraction, bins=BINS, range=(low, high))
    share = count / len(fraction)
    layers: list[AnyLayer] = [
        Area(
            name=TEXT["share"],
            colour="p",
            edge=False,
            opacity=0.3,
            x=np.repeat(edges, 2),
            y=np.concatenate([[0], np.repeat(share, 2), [0]]),
        ),
        Rule(colour="q", at=0, text="β̃"),
        Rule(colour="x_t", at=1, text="β"),
        Points(name=TEXT["chosen"], colour="p", size=13, opacity=1, x=[chosen], y=[0.06 * float(share.max())]),
    ]
    return Panel(
        x=Axis(low=low, high=high, name=TEXT["way"]),
        y=Axis(low=0, high=1.3 * float(share.max()), ticks=False),
        layers=layers,
        title=TEXT["sigma_title"],
        description=description,
        aspect=1.46,
        least=280,
        readout=False,
    )


def numbers(step: BoundStep, row: int, column: int, ledger: DiffusionBound | None, samples: Samples | None) -> dict[str, Any]:
    """Return every number of the tab, for `/bound`."""
    place = (0, row, column)

    def of(gaussian: Any) -> dict[str, float] | None:
        return None if gaussian is None else {"mean": float(gaussian.mean[place]), "variance": float(gaussian.variance[place])}

    return {
        "t": step.t,
        "T": step.T,
        "alpha_bar": step.alpha_bar,
        "variance": step.variance,
        "beta_tilde": step.beta_tilde,
        "beta": step.beta,
        "bits_per_dim": {
            "term": _bits_per_dim(step, float(step.terms.double().sum())),
            "by_variance": {name: _bits_per_dim(step, nats) for name, nats in step.by_variance.items()},
            "prior": _bits_per_dim(step, step.prior),
        },
        "pixel": {
            "x_0": float(step.x0[place]),
            "x_t": float(step.x_t[place]),
            "x0_hat": float(step.x0_hat[place]),
            "q": of(step.q),
            "p": of(step.p),
            "bits": float(nats_to_bits(step.terms[place])),
            "fraction": float(step.fraction[place]),
            "levels": step.levels(row, column).tolist() if step.q is None else None,
        },
        "bits": nats_to_bits(step.per_pixel).tolist(),
        "fractions": step.fraction.tolist(),
        "measured": {
            "likelihood": to_json(ledger) if ledger else None,
            "samples": to_json(samples) if samples else None,
        },
    }


def _bits_per_dim(step: BoundStep, nats: float) -> float:
    """Return nats of the whole picture as bits/dim."""
    return float(bits_per_dim(torch.tensor(nats, dtype=torch.float64), step.x0.numel()))


def _index(number: int) -> str:
    """Return a number as an index in plain text."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
