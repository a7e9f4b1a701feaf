"""Both score fields, animations of walks along them, and all numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.demo.components.figure import Arrows, Axis, FigureData, Frame, Handle, Heat, Line, Panel, Points, Rule, positions
from genlab.demo.tabs.points import NAMES, SCHEDULE, T
from genlab.demo.tabs.score.compute import DRAWS, PATHS, REACH, draws_of, errors, exact, flow_paths, log_density
from genlab.demo.tabs.score.request import LEVEL, ScoreRequest, parse_data
from genlab.demo.tabs.score.text import TEXT
from genlab.flow import straight_time
from genlab.oracle import Mixture
from genlab.plane import CloudNoise, DataName, PointDDPM, field, lattice, particles
from genlab.process import Predict
from genlab.sampler import ddim, spaced, walk
from genlab.score import reverse_sde

ARROWS, ARROW = 15, 0.22
"""Arrows along a side, and how long they are: this times the square root of ‖(1 − ᾱ_t) s‖, so that small ones are visible."""
HEAT = 32
"""Cells of the density along a side."""
DARK = 0.35
"""Opacity of the highest density."""
CROWD, CROWD_STEPS, CROWD_EVERY = 14, 80, 2
"""Particles along a side of the grid that they start from, their steps, and steps from one frame to the next."""
STARTS, WALK_STEPS, WALK_EVERY = 4, 60, 2
"""The same of the reverse walks."""


def draw(data: DataName, t: int, steps: int, net: PointDDPM, before: str = "") -> FigureData:
    """Return both fields at the noise level t."""
    oracle = exact(data)
    layers = {name: [_arrows(name, predict, t)] for name, predict in (("exact", oracle.predict), ("learned", net.predict))}
    caption = before + _numbers(oracle, net, data, t)
    return _figure(data, t, steps, layers, caption)


def _figure(
    data: DataName,
    t: int,
    steps: int,
    layers: dict[str, list[Any]],
    caption: str,
    frames: Sequence[Frame] = (),
    titles: Mapping[str, str] | None = None,
) -> FigureData:
    """Return the two panels with these layers over density and data, and the noise level."""
    oracle = exact(data)
    heat = _heat(oracle, t)
    x0 = draws_of(data, DRAWS)
    axis = Axis(low=-REACH, high=REACH, ticks=False)
    titles = titles or {
        "exact": TEXT["exact"],
        "learned": TEXT["learned"].format(steps=f"{steps:,}") if steps else TEXT["untrained"],
    }
    panels = [
        Panel(
            x=axis,
            y=axis,
            layers=[
                Heat(id=f"{name}-heat", name=TEXT["density"], colour="q", columns=HEAT, values=heat, high=1 / DARK),
                Points(name=TEXT["points"], colour="ink", x=x0[:, 0], y=x0[:, 1], size=4, opacity=0.6, hollow=True),
                *layers[name],
            ],
            title=titles[name],
            description=caption,
            aspect=1,
            least=240,
            equal=True,
            readout=False,
        )
        for name in ("exact", "learned")
    ]
    times = np.arange(T + 1)
    panels.append(
        Panel(
            x=Axis(low=0, high=T, name="t"),
            y=Axis(low=0, high=1.08),
            layers=[
                Line(name=TEXT["signal"], colour="p", x=times, y=SCHEDULE.alpha_bar.sqrt()),
                Line(name=TEXT["noise"], colour="eps", x=times, y=(1 - SCHEDULE.alpha_bar).sqrt()),
                Rule(id="now", axis="x", at=t),
            ],
            title=TEXT["level"],
            description=caption,
            aspect=7,
            least=560,
        )
    )
    handle = Handle(id="level", x=t, y=0.54, axis="x", panels=[2], name=TEXT["handle"], x_low=LEVEL.low, x_high=LEVEL.high)
    return FigureData(
        panels=panels,
        handles=[handle],
        caption=caption,
        description=TEXT["description"].format(data=NAMES[data]),
        frames=list(frames),
        first=0 if frames else None,
        autoplay=bool(frames),
        fps=12,
    )


def _arrows(name: str, predict: Predict, t: int) -> Arrows:
    x = lattice(ARROWS, REACH).flatten(0, 1)
    way = float(1 - SCHEDULE.alpha_bar[t]) * field(predict, SCHEDULE, t, ARROWS, REACH).flatten(0, 1)
    way = ARROW * way / way.norm(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
    style = {"exact": ("s", "q"), "learned": ("s_hat", "eps")}[name]
    return Arrows(name=TEXT[style[0]], colour=style[1], x=x[:, 0], y=x[:, 1], u=way[:, 0], v=way[:, 1], width=1.4)


def _heat(oracle: Mixture, t: int, unit: float = 1.0) -> Tensor:
    """Return the density divided by its highest value, row by row from the top left; x_t is `unit` times what is shown."""
    density = log_density(oracle, t, HEAT, unit)
    return (density - density.max()).exp().flip(0).flatten()


def _numbers(oracle: Mixture, net: PointDDPM, data: DataName, t: int) -> str:
    alpha_bar = float(SCHEDULE.alpha_bar[t])
    error, norm = errors(oracle, net, data, t)
    values = {"alpha_bar": f"{alpha_bar:.3g}", "sigma": f"{(1 - alpha_bar) ** 0.5:.3f}", "error": f"{error:.3g}"}
    return TEXT["numbers"].format(t=t, T=T, norm=f"{norm:.3g}", **values)


def langevin_animation(data: DataName, t: int, steps: int, net: PointDDPM, seed: int, crowd: int = CROWD) -> FigureData:
    """Return particles from a lattice that walk at the level t along both scores with the same noise."""
    oracle, start = exact(data), lattice(crowd, REACH).flatten(0, 1)
    clouds = {
        name: [start] + [frame.x_s for frame in particles(predict, SCHEDULE, start, t, CROWD_STEPS, seed)]
        for name, predict in (("exact", oracle.predict), ("learned", net.predict))
    }
    layers: dict[str, list[Any]] = {}
    for name, predict in (("exact", oracle.predict), ("learned", net.predict)):
        style: dict[str, Any] = {"name": TEXT["particles"], "colour": "x_t", "size": 5, "opacity": 0.9}
        cloud = Points(id=f"{name}-cloud", x=start[:, 0], y=start[:, 1], **style)
        layers[name] = [cloud, _arrows(name, predict, t)]
    frames = [
        Frame(
            caption=TEXT["step"].format(i=i, n=CROWD_STEPS, t=t),
            layers={f"{name}-cloud": {"x": cloud[i][:, 0], "y": cloud[i][:, 1]} for name, cloud in clouds.items()},
        )
        for i in range(0, CROWD_STEPS + 1, CROWD_EVERY)
    ]
    return _figure(data, t, steps, layers, "", frames)


def reverse_animation(data: DataName, t: int, steps: int, net: PointDDPM, seed: int) -> FigureData:
    """Return walks from noise to data along both scores, by the SDE and the ODE from the same starts, as growing lines."""
    oracle, times = exact(data), spaced(SCHEDULE, WALK_STEPS, "quadratic")
    layers: dict[str, list[Any]] = {}
    paths: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, predict in (("exact", oracle.predict), ("learned", net.predict)):
        layers[name] = []
        for way, colour, width in (("sde", "x_t", 1.2), ("ode", "ink", 2.5)):
            noise = CloudNoise.from_seed(seed, STARTS)
            start = noise.draw()
            step = reverse_sde(SCHEDULE, noise) if way == "sde" else ddim(SCHEDULE)
            with torch.inference_mode():
                x, y = _polyline(torch.stack([start] + [frame.x_s for frame in walk(predict, step, start, times)]))
            layers[name].append(Line(id=f"{name}-{way}", name=TEXT[way], colour=colour, x=x, y=y, width=width))
            paths[f"{name}-{way}"] = (x, y)
        layers[name].append(Points(colour="ink", x=start[:, 0], y=start[:, 1], size=7, opacity=1))
    frames = []
    for i in range(0, WALK_STEPS + 1, WALK_EVERY):
        changes: dict[str, dict[str, Any]] = {}
        for key, (_, y) in paths.items():
            changes[key] = {"y": np.where(np.tile(np.arange(WALK_STEPS + 2), STARTS) <= i, y, np.nan)}
        heat = _heat(oracle, max(1, times[i]))
        changes |= {f"{name}-heat": {"values": heat} for name in ("exact", "learned")}
        changes["now"] = {"at": times[i]}
        sigma = f"{float(1 - SCHEDULE.alpha_bar[times[i]]) ** 0.5:.3f}"
        frames.append(Frame(caption=TEXT["time"].format(t=times[i], sigma=sigma), layers=changes))
    return _figure(data, t, steps, layers, "", frames)


def flow_animation(data: DataName, t: int, seed: int) -> FigureData:
    """Return the flow ODE of the diffusion beside flow matching, from the same noise to exact data, as growing lines."""
    sides = dict(zip(("exact", "learned"), flow_paths(data, seed), strict=True))
    layers: dict[str, list[Any]] = {}
    lines = {}
    for name, side in sides.items():
        x, y = lines[name] = _polyline(side.path)
        ends = _polyline(side.path[[0, -1]])
        layers[name] = [
            Line(name=TEXT["chord"], colour="x_t", x=ends[0], y=ends[1], width=1.2, dash=True),
            Line(id=f"{name}-path", name=TEXT["path"], colour="ink", x=x, y=y, width=2.5),
            Points(colour="ink", x=side.path[0, :, 0], y=side.path[0, :, 1], size=7, opacity=1),
        ]
    diffusion, flow = sides.values()
    straight_times = straight_time(flow.oracle.schedule, torch.tensor(flow.times)).tolist()
    frames = []
    for i in range(0, len(flow.times), WALK_EVERY):
        changes: dict[str, dict[str, Any]] = {"now": {"at": diffusion.times[i]}}
        for name, side in sides.items():
            shown = np.tile(np.arange(len(side.times) + 1), PATHS) <= i
            changes[f"{name}-path"] = {"y": np.where(shown, lines[name][1], np.nan)}
            changes[f"{name}-heat"] = {"values": _heat(side.oracle, max(1, side.times[i]), side.units[i])}
        caption = TEXT["paths"].format(
            t=diffusion.times[i], s=f"{straight_times[i]:.2f}", curved=f"{diffusion.detour:.3f}", straight=f"{flow.detour:.3f}"
        )
        frames.append(Frame(caption=caption, layers=changes))
    titles = {"exact": TEXT["diffusion path"], "learned": TEXT["straight path"]}
    return _figure(data, t, 0, layers, "", frames, titles)


def _polyline(path: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return walks (steps + 1, N, 2) as one line with a gap after each."""
    ended = torch.cat([path, torch.full_like(path[:1], torch.nan)]).transpose(0, 1).flatten(0, 1).double()
    return ended[:, 0].numpy(), ended[:, 1].numpy()


def numbers(request: ScoreRequest, steps: int, net: PointDDPM) -> dict[str, Any]:
    """Return every number of the tab, for `/score`."""
    oracle, t, side = exact(request.data), request.t, request.side
    error, norm = errors(oracle, net, request.data, t)
    curved, straight = (paths.detour for paths in flow_paths(request.data, 0))
    return {
        "t": t,
        "T": T,
        "alpha_bar": float(SCHEDULE.alpha_bar[t]),
        "sigma": float(1 - SCHEDULE.alpha_bar[t]) ** 0.5,
        "grid": lattice(side, REACH)[0, :, 0].tolist(),
        "exact": field(oracle.predict, SCHEDULE, t, side, REACH).tolist(),
        "learned": field(net.predict, SCHEDULE, t, side, REACH).tolist(),
        "log_density": log_density(oracle, t, side).tolist(),
        "error": error,
        "norm": norm,
        "detour": {"diffusion": curved, "flow_matching": straight},
        "learning_steps": steps,
    }


def read(value: Any, data: Any) -> tuple[DataName, int]:
    """Return the data set and the noise level of the figure in the browser."""
    (at, _) = positions(value, ["level"])["level"]
    return parse_data(data), int(min(max(round(at), LEVEL.low), LEVEL.high))
