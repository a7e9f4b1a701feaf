"""The figures of the VAE tab: pictures, latents, the terms of log p(x), one pixel's density; and all numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.demo.components.canvas import CanvasData, canvas_data
from genlab.demo.components.figure import AnyLayer, Area, Axis, Bars, FigureData, Frame, Handle, Line, Panel, Stack
from genlab.demo.tabs.pictures import pane
from genlab.demo.tabs.vae.compute import SIGMA_WHITE, ELBOTerms, Encoded, PixelDensity
from genlab.demo.tabs.vae.request import Z_MOST
from genlab.demo.tabs.vae.text import TEXT
from genlab.divergence import bits_per_dim

PANES = ("x", "μ′(z)", "σ′(z)", "x̂")
COLOURS = ("p", "p", "p", "p")
SINGLES = 60
"""Gaussians drawn one by one, at most."""
BINS = 24
"""Of the histogram of a pixel."""


def pictures(encoded: Encoded, token: str, chosen: Any) -> CanvasData:
    """Return x, μ′, σ′ and x̂ for the canvas."""
    count, sigma = encoded.x.numel(), encoded.sigma
    low, high = (f"{float(value):.2f}" for value in (sigma.min(), sigma.max()))
    caption = TEXT[f"{encoded.family}_caption"].format(
        nats=_number(encoded.log_likelihood),
        bits=_bits(encoded.log_likelihood, count),
        sigma=low if low == high else f"{low} … {high}",
        white=SIGMA_WHITE,
    )
    panes = [pane(picture) for picture in (encoded.x, encoded.mean, encoded.std, encoded.sample)]
    return canvas_data(token, panes, PANES, COLOURS, chosen, caption)


def latents(encoded: Encoded, order: list[int]) -> FigureData:
    """Return q(z|x) of each latent as a curve over the prior's, z as a handle at its foot, and the KL beside it."""
    mean, std, z, kl = encoded.q.mean.numpy(), encoded.q.std.numpy(), encoded.z.numpy(), encoded.kl.numpy()
    reach = float(min(Z_MOST, max(5, math.ceil(np.abs(np.concatenate([z[order], mean[order]])).max()))))
    u, wide = np.linspace(-3.5, 3.5, 29), np.linspace(-reach, reach, 81)
    gap, foot = np.array([np.nan]), 0.32
    rows = range(len(order))
    names = [f"z_{{{i + 1}}}" for i in order]
    layers: list[AnyLayer] = [
        Bars(labels=names, stacks=[Stack(values=[0.0] * len(order))], horizontal=True),
        Line(
            name=TEXT["prior"],
            colour="p",
            width=1.5,
            x=np.concatenate([np.append(wide, gap) for _ in rows]),
            y=np.concatenate([np.append(row + foot - 0.35 * np.exp(-(wide**2) / 2), gap) for row in rows]),
        ),
        Line(
            name=TEXT["posterior"],
            colour="q",
            width=2.5,
            x=np.concatenate([np.append(mean[i] + std[i] * u, gap) for i in order]),
            y=np.concatenate([np.append(row + foot - 0.75 * np.exp(-(u**2) / 2), gap) for row in rows]),
        ),
    ]
    descriptions = [
        TEXT["latent"].format(name=f"z_{i + 1}", mean=f"{mean[i]:.2f}", std=f"{std[i]:.2f}", z=f"{z[i]:.2f}", kl=f"{kl[i]:.2f}")
        for i in order
    ]
    text = TEXT["active"].format(shown=len(order), all=len(z))
    across = Axis(low=-0.5, high=len(order) - 0.5, ticks=False)
    return FigureData(
        panels=[
            Panel(
                x=Axis(low=-reach, high=reach, name="z_i"),
                y=across,
                layers=layers,
                title=TEXT["latents_title"],
                description="; ".join(descriptions),
                aspect=1.35,
                least=300,
                readout=False,
            ),
            Panel(
                x=Axis(low=0, high=max(1.0, 1.15 * float(kl.max()))),
                y=across,
                layers=[
                    Bars(
                        labels=names,
                        stacks=[Stack(colour="kl", values=[max(0.0, float(kl[i])) for i in order])],
                        texts=[f"{kl[i]:.1f}" for i in order],
                        horizontal=True,
                    )
                ],
                title=TEXT["kl_title"],
                description="; ".join(descriptions),
                aspect=1.1,
                least=200,
                readout=False,
            ),
        ],
        handles=[
            Handle(id=f"z{i}", x=float(np.clip(z[i], -reach, reach)), y=row + foot, name=TEXT["handle"].format(i=i + 1))
            for row, i in enumerate(order)
        ],
        caption=text,
        description=text,
    )  # fmt: skip


def terms(elbo: ELBOTerms, dims: int) -> FigureData:
    """Return the terms of log p(x) of a picture of `dims` values: two bars of one length, their ends enlarged, and L_k by k."""
    gap, cost = max(0.0, elbo.gap), [-elbo.reconstruction, -elbo.log_px]
    labels = ["−ELBO", "−log p(x)"]
    stacks = [
        Stack(name=TEXT["reconstruction"], colour="p", values=[cost[0], 0.0], inside=_number(cost[0])),
        Stack(name=TEXT["kl"], colour="kl", values=[elbo.kl, 0.0], inside=_number(elbo.kl)),
        Stack(name=TEXT["log_px"], colour="p", values=[0.0, cost[1]], inside=_number(cost[1])),
        Stack(name=TEXT["gap"], colour="gap", values=[0.0, gap], inside=_number(gap)),
    ]
    total = max(-elbo.elbo, 1e-3)
    span = max(elbo.kl, gap, 1e-3)
    bits = [TEXT["bits"].format(bits=_bits(-value, dims)) for value in (elbo.elbo, elbo.log_px)]
    caption = TEXT["terms_caption"].format(
        reconstruction=_number(elbo.reconstruction),
        kl=_number(elbo.kl),
        elbo=_number(elbo.elbo),
        elbo_bits=_bits(elbo.elbo, dims),
        log_px=_number(elbo.log_px),
        log_px_bits=_bits(elbo.log_px, dims),
        k=elbo.samples,
        gap=_number(elbo.gap),
    )
    across = Axis(low=-0.5, high=1.5, ticks=False)
    k = [k for k, _ in elbo.curve]
    gained = [value - elbo.curve[0][1] for _, value in elbo.curve]
    options: dict[str, Any] = {"aspect": 1.9, "least": 280, "readout": False, "description": caption}
    return FigureData(
        panels=[
            Panel(
                x=Axis(low=0, high=total, name=TEXT["nats"]),
                y=across,
                layers=[Bars(labels=labels, stacks=stacks, texts=bits, horizontal=True)],
                title=TEXT["whole_title"],
                **options,
            ),
            Panel(
                x=Axis(low=total - 1.4 * span, high=total + 0.1 * span, name=TEXT["nats"]),
                y=across,
                layers=[Bars(labels=labels, stacks=stacks, horizontal=True)],
                title=TEXT["end_title"],
                **options,
            ),
            Panel(
                x=Axis(low=1, high=max(2, elbo.count), scale="log", name="k"),
                y=Axis(low=0, high=1.15 * max(gap, *gained, 1e-2), name=TEXT["above"]),
                layers=[Line(colour="gap", x=k, y=gained)],
                title=TEXT["curve_title"],
                **options,
            ),
        ],
        caption=caption,
        description="; ".join(bits),
    )


def density(found: PixelDensity, row: int, column: int) -> FigureData:
    """Return one pixel's density as the sum of more and more densities, over the histogram of the test pictures."""
    values, edges = np.histogram(found.data.numpy(), bins=BINS, range=(-1, 1), density=len(found.data) > 0)
    bars = Area(
        name=TEXT["histogram"], colour="p", edge=False, opacity=0.45,
        x=np.repeat(edges, 2), y=np.concatenate([[0], np.repeat(values, 2), [0]]),
    )  # fmt: skip
    title = TEXT["pixel_title"].format(row=row, column=column)
    count = len(found.mean)
    if found.family == "bernoulli":
        light = f"{float((found.mean.mean() + 1) / 2):.3f}"
        axis = Axis(low=0, high=1.1 * float(max(values.max(), 1e-3)))
        panel = Panel(x=Axis(low=-1.1, high=1.1, name=TEXT["pixel"]), y=axis, layers=[bars], title=title, aspect=1.6)
        return FigureData(panels=[panel], caption=TEXT["bernoulli"].format(light=light, count=count))

    x = torch.linspace(-1.8, 1.8, 181)
    sums = found.mixtures(x)
    counts = sorted({n for n in [*range(1, 21), *(round(20 * (500 / 20) ** (i / 20)) for i in range(21)), count] if n <= count})
    components = TEXT[f"{found.family}_components"]
    frames = [
        Frame(
            caption=components.format(count=n),
            layers={"singles": singles(found, n), "sum": {"y": sums[n - 1]}},
        )
        for n in counts
    ]
    top = 1.1 * float(sums[[n - 1 for n in counts]].max())
    start = frames[-1].layers
    layers: list[AnyLayer] = [
        bars,
        Line(id="singles", name=TEXT[f"{found.family}_singles"], colour="p", width=1, **start["singles"]),
        Line(id="sum", name=TEXT["sum"], colour="p", width=3.5, x=x, **start["sum"]),
    ]
    panel = Panel(
        x=Axis(low=-1.8, high=1.8, name=TEXT["pixel"]), y=Axis(low=0, high=top), layers=layers, title=title, aspect=1.6,
        description=title,
    )  # fmt: skip
    return FigureData(panels=[panel], frames=frames, first=min(7, len(frames) - 1), fps=4, description=title)


def singles(found: PixelDensity, count: int) -> dict[str, Any]:
    """Return the first densities of `count`, each 1/count high, as one line with gaps."""
    shown = min(count, SINGLES)
    few = replace(found, mean=found.mean[:shown], std=found.std[:shown])
    u = torch.cat([torch.linspace(-3, 3, 17), torch.tensor([math.nan])])
    x = few.mean[:, None] + few.std[:, None] * u
    return {"x": x.flatten(), "y": (few.components(x) / count).flatten()}


def numbers(encoded: Encoded, elbo: ELBOTerms, activity: Tensor) -> dict[str, Any]:
    """Return every number of the tab, for `/vae`."""
    nats = {
        "reconstruction": elbo.reconstruction,
        "kl": elbo.kl,
        "elbo": elbo.elbo,
        "log_px": elbo.log_px,
        "gap": elbo.gap,
        "log_px_given_z": encoded.log_likelihood,
    }
    dims = encoded.x.numel()
    sigma = encoded.sigma
    return {
        "k": elbo.samples,
        "nats": nats,
        "bits_per_dim": {name: float(bits_per_dim(torch.tensor(value), dims)) for name, value in nats.items()},
        "latents": {
            "mean": encoded.q.mean.tolist(),
            "log_var": encoded.q.log_var.tolist(),
            "z": encoded.z.tolist(),
            "kl": encoded.kl.tolist(),
            "activity": activity.tolist(),
        },
        "curve": [list(point) for point in elbo.curve],
        "sigma": {"least": float(sigma.min()), "mean": float(sigma.mean()), "largest": float(sigma.max())},
    }


def _number(nats: float) -> str:
    return f"{nats:,.1f}".replace("-", "−")


def _bits(nats: float, dims: int) -> str:
    return f"{float(bits_per_dim(torch.tensor(nats), dims)):.2f}".replace("-", "−")
