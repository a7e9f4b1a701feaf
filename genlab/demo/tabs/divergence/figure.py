"""Figure 1 with its handles, the request that it asks for, and all numbers."""

from __future__ import annotations

from typing import Any

import torch

from genlab.demo.components.figure import Area, Axis, Bars, FigureData, Frame, Handle, Line, Panel, Stack, positions
from genlab.demo.tabs.divergence.compute import DIRECTIONS, Fit, Solution, X, gaussians
from genlab.demo.tabs.divergence.request import MEAN, START_MEAN, START_STD, STD, WEIGHT, DivergenceRequest, Interval
from genlab.demo.tabs.divergence.text import TEXT

SHOWN = slice(640, 961, 2)
"""Part of `X` that is drawn: −8 … 8 in steps of 0.1."""
FRAMES = 48
"""Most frames of an animation."""
SPREAD = 1.4
"""Length of the axes, in units of the largest value at the end."""
HANDLES = ("left", "left_width", "was_left", "right", "right_width", "was_right", "start", "start_width")
KL_NAMES = {"forward": "KL[p‖q]", "reverse": "KL[q‖p]"}


def draw(solution: Solution, animated: bool = False) -> FigureData:
    """Return the figure: the fits at their end, and with `animated` the way there."""
    request, p, fits = solution.request, solution.p, solution.fits
    x, last = X[SHOWN], -1
    density = p.density[0, SHOWN]
    start = fits["forward"].table.density[0, SHOWN]
    entropy = float(p.entropy)
    top = 1.2 * max(float(density.max()), *(float(fit.table.density[last].max()) for fit in fits.values()))
    peak = max(float(fit.integrand[last].max()) for fit in fits.values())
    where = Axis(low=-8, high=8)
    panels = [
        Panel(
            x=where,
            y=Axis(low=-0.09 * top, high=top, ticks=False),
            layers=[
                Area(name=TEXT["p"], colour="p", x=x, y=density),
                Line(name=TEXT["start"], colour="q", x=x, y=start, dash=True, width=1.5),
                Line(id=f"{name}-q", name=TEXT["q"], colour="q", x=x, y=fit.table.density[last, SHOWN], width=3),
            ],
            title=TEXT[name],
            description=TEXT["fit"].format(**_numbers(fit, last, name)),
            aspect=1.9,
            least=400,
        )
        for name, fit in fits.items()
    ]
    panels += [
        Panel(
            x=where,
            y=Axis(low=-max(0.12, 0.6 * peak), high=max(0.2, SPREAD * peak)),
            layers=[Area(id=f"{name}-integrand", colour="kl", x=x, y=fit.integrand[last, SHOWN], opacity=0.4)],
            title=TEXT[f"{name}_integrand"],
            description=TEXT["fit"].format(**_numbers(fit, last, name)),
            aspect=3.2,
            least=400,
        )
        for name, fit in fits.items()
    ]
    panels += [
        Panel(
            x=Axis(low=0, high=max(1.0, SPREAD * max(float(fit.cross_entropy[last]), float(fit.reverse_kl[last])))),
            y=Axis(low=-0.5, high=3.5, ticks=False),
            layers=[
                Bars(
                    id=f"{name}-bars",
                    labels=["H(p)", "H(p,q)", *KL_NAMES.values()],
                    horizontal=True,
                    **_bars(fit, last, entropy),
                )
            ],
            title=TEXT[f"{name}_bars"],
            description=" · ".join(_texts(fit, last, entropy)),
            aspect=2.8,
            least=400,
        )
        for name, fit in fits.items()
    ]
    ends = {name: len(fit.q.mean) - 1 for name, fit in fits.items()}
    frames = []
    for i in _frames_shown(max(ends.values()) + 1) if animated else []:
        layers: dict[str, dict[str, Any]] = {}
        at = {name: min(i, end) for name, end in ends.items()}
        for name, fit in fits.items():
            layers[f"{name}-q"] = {"y": fit.table.density[at[name], SHOWN]}
            layers[f"{name}-integrand"] = {"y": fit.integrand[at[name], SHOWN]}
            layers[f"{name}-bars"] = _bars(fit, at[name], entropy)
        frames.append(Frame(caption=_caption(fits, at, TEXT["step"].format(i=i, n=max(ends.values()))), layers=layers))
    return FigureData(
        panels=panels,
        handles=_handles(request, top),
        caption=_caption(fits, ends, TEXT["fitted"]),
        description=TEXT["description"].format(
            w=_short(request.weight),
            v=_short(1 - request.weight),
            lm=_short(request.left_mean),
            ls=_short(request.left_std),
            rm=_short(request.right_mean),
            rs=_short(request.right_std),
            sm=_short(request.start_mean),
            ss=_short(request.start_std),
            h=_short(entropy),
        ),
        frames=frames,
        first=0 if animated else None,
        autoplay=animated,
        fps=10,
    )


def _frames_shown(count: int) -> list[int]:
    """Return which of `count` steps become frames: all, or `FRAMES` of them, ends included."""
    most = min(count, FRAMES)
    return sorted({round(i * (count - 1) / max(1, most - 1)) for i in range(most)})


def _bars(fit: Fit, i: int, entropy: float) -> dict[str, Any]:
    """Return H(p), H(p,q) = H(p) + KL[p‖q], KL[p‖q] and KL[q‖p] of q at step i."""
    gap, back = float(fit.forward_kl[i]), float(fit.reverse_kl[i])
    return {
        "stacks": [
            Stack(colour="p", values=[entropy, entropy, 0, 0], inside="H(p)"),
            Stack(colour="kl", values=[0, gap, gap, 0], inside="KL[p‖q]"),
            Stack(colour="kl", values=[0, 0, 0, back], inside="KL[q‖p]"),
        ],
        "texts": [_short(value) for value in (entropy, float(fit.cross_entropy[i]), gap, back)],
    }


def _texts(fit: Fit, i: int, entropy: float) -> list[str]:
    """Return the bars at step i in words."""
    labels = ("H(p)", "H(p,q)", *KL_NAMES.values())
    return [f"{label} = {text}" for label, text in zip(labels, _bars(fit, i, entropy)["texts"], strict=True)]


def _numbers(fit: Fit, i: int, name: str) -> dict[str, str]:
    value = fit.forward_kl if name == "forward" else fit.reverse_kl
    mean, std = float(fit.q.mean[i]), float(fit.q.std[i])
    return {"m": _short(mean), "s": _short(std), "value": _short(float(value[i])), "name": KL_NAMES[name]}


def _caption(fits: dict[str, Fit], at: dict[str, int], when: str) -> str:
    f, r = (_numbers(fits[name], at[name], name) for name in DIRECTIONS)
    text = TEXT["caption"].format(when=when, m_f=f["m"], s_f=f["s"], kl_f=f["value"], m_r=r["m"], s_r=r["s"], kl_r=r["value"])
    return text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def _short(value: float) -> str:
    text = f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return text.replace("-", "−")


def _handles(request: DivergenceRequest, top: float) -> list[Handle]:
    """Return the tops of the two modes (mean and weight), one width beside them (width), and the start of q at the axis.

    Two that are not drawn, "was_left" and "was_right", carry the weights and widths that the heights belong to.
    """
    handles = []
    for side, weight in (("left", request.weight), ("right", 1 - request.weight)):
        mean, std = getattr(request, f"{side}_mean"), getattr(request, f"{side}_std")
        height = _height(std)
        options: dict[str, Any] = {"panels": [0, 1], "colour": "p"}
        top_bounds: dict[str, Any] = {"y_low": WEIGHT.low * height, "y_high": min(WEIGHT.high * height, top)}
        handles += [
            Handle(id=side, x=mean, y=weight * height, axis="xy", name=TEXT[side], **_bounds(MEAN), **top_bounds, **options),
            Handle(id=f"was_{side}", x=weight, y=std, panels=[]),
            _width_handle(f"{side}_width", side, mean, std, weight * _height(std, std), STD, **options),
        ]
    mean, std = request.start_mean, request.start_std
    return [
        *handles,
        Handle(id="start", x=mean, y=0, name=TEXT["start_mean"], panels=[0, 1], colour="q", **_bounds(START_MEAN)),
        _width_handle("start_width", "start", mean, std, 0, START_STD, panels=[0, 1], colour="q"),
    ]


def _width_handle(name: str, of: str, mean: float, std: float, y: float, limits: Interval, **options: Any) -> Handle:
    place: dict[str, Any] = {"x": mean + std, "y": y, **_bounds(limits, mean)}
    return Handle(id=name, name=TEXT[name], shape="bar", with_=of, **place, **options)


def _bounds(limits: Interval, origin: float = 0.0) -> dict[str, Any]:
    """Return the bounds of a handle that moves along x."""
    return {"x_low": origin + limits.low, "x_high": origin + limits.high}


def _height(std: float, away: float = 0.0) -> float:
    """Return the density of N(0, std²) at `away`."""
    return float(gaussians((0, std)).log_prob(torch.tensor([[away]], dtype=torch.float64)).exp())


def read(value: Any) -> DivergenceRequest:
    """Return the request of the figure in the browser; values outside of the limits move to them."""
    at = positions(value, HANDLES)
    std = {side: STD.nearest(at[f"{side}_width"][0] - at[side][0]) for side in ("left", "right")}
    weights = {side: at[side][1] / _height(STD.nearest(at[f"was_{side}"][1])) for side in ("left", "right")}
    changes = {side: abs(weights[side] - at[f"was_{side}"][0]) for side in weights}
    weight = weights["left"] if changes["left"] >= changes["right"] else 1 - weights["right"]
    return DivergenceRequest(
        weight=WEIGHT.nearest(weight),
        left_mean=MEAN.nearest(at["left"][0]),
        left_std=std["left"],
        right_mean=MEAN.nearest(at["right"][0]),
        right_std=std["right"],
        start_mean=START_MEAN.nearest(at["start"][0]),
        start_std=START_STD.nearest(at["start_width"][0] - at["start"][0]),
    )


def numbers(solution: Solution) -> dict[str, Any]:
    """Return every number of the tab, for `/divergence`."""
    p = solution.p
    result: dict[str, Any] = {
        "unit": "nats",
        "p": {"entropy": float(p.entropy), "mean": float(p.moments.mean), "std": float(p.moments.std)},
        "x": X[SHOWN].tolist(),
        "p_density": p.density[0, SHOWN].tolist(),
    }
    for name, fit in solution.fits.items():
        result[name] = {
            "steps": [
                dict(zip(("mean", "std", "cross_entropy", "forward_kl", "reverse_kl"), row, strict=True))
                for row in torch.cat(
                    [fit.q.mean, fit.q.std, *(v[:, None] for v in (fit.cross_entropy, fit.forward_kl, fit.reverse_kl))], dim=1
                ).tolist()
            ],
            "q_density": fit.table.density[-1, SHOWN].tolist(),
            "integrand": fit.integrand[-1, SHOWN].tolist(),
        }
    return result
