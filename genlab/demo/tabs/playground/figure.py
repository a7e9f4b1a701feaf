"""The drawing board, the model while it learns, and the animation of what it has learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genlab.demo.components.figure import Arrows, Axis, FigureData, Frame, Line, Panel, Points
from genlab.demo.components.player import Segment
from genlab.demo.tabs.playground.compute import LIVE_STEPS, PICTURES_STORED, WALK_STEPS, Run, data_of, samples, way_back
from genlab.demo.tabs.playground.request import DRAWING, Marks, PlaygroundRequest
from genlab.demo.tabs.playground.text import NAMES, TEXT
from genlab.demo.tabs.points import NAMES as DATA_TITLES
from genlab.demo.tabs.points import SCHEDULE, T
from genlab.flow import straight, straight_time
from genlab.plane import PointDDPM, PointVAE, field, lattice, noising

MARKS, CROWD = 500, 300
"""Points of the data, and samples, that are drawn."""
FORWARD_TIMES = [round(T * (i / 24) ** 1.5) for i in range(25)]
"""Times of the frames of the way to noise: more where little noise changes much."""
MOVES = 10
"""Frames of a way without steps of its own, as the VAE's from x to z."""
ARROWS, ARROW = 11, 0.16
"""Arrows along a side, and how long they are, as a part of the way (1 − ᾱ_t) ŝ."""
REACH = 2.0
"""The model's panel shows [−2, 2]²."""
Picture = tuple[str, Tensor, dict[str, dict[str, Any]]]
"""Caption of a frame, its points (N, 2), and other changes of the figure."""
Ways = tuple[list[Picture], list[Picture], list[Picture]]
"""Frames of the way to noise, of the way back, and of the samples."""


def board(data: str, marks: Marks) -> FigureData:
    """Return the data as a board to draw on."""
    x = data_of(data, (), MARKS) if data != DRAWING else torch.empty(0, 2)
    axis = Axis(low=-1, high=1)
    cloud = Points(colour="ink", x=x[:, 0], y=x[:, 1], size=4, opacity=0.9, hollow=True)
    panel = Panel(
        x=axis, y=axis, layers=[cloud], title=TEXT["board"], description=data_name(data), aspect=1, equal=True, draw=True,
        readout=False,
    )  # fmt: skip
    return FigureData(panels=[panel], drawn=list(marks), legend=False, description=data_name(data))


def data_name(data: str) -> str:
    """Return the name of a data set or of the drawing."""
    return TEXT[DRAWING] if data == DRAWING else DATA_TITLES[data]


def stage(
    run: Run, caption: str, picture: Tensor | None = None, frames: list[Frame] | None = None, starts: Sequence[int] = ()
) -> FigureData:
    """Return samples over the data, and the losses; with frames, an animation of them."""
    request = run.request
    x0 = data_of(request.data, request.marks, MARKS)
    cloud = torch.empty(0, 2) if picture is None else picture
    axis = Axis(low=-REACH, high=REACH)
    vae = request.model == "VAE"
    grid = lattice(ARROWS, REACH).flatten(0, 1)
    nowhere = torch.full((len(grid),), torch.nan)
    layers: list[Any] = [
        Points(name=TEXT["points"], colour="ink", x=x0[:, 0], y=x0[:, 1], size=4, opacity=0.6, hollow=True),
        Points(id="noisy", name=TEXT["latent" if vae else "noisy"], colour="x_t", x=[], y=[], size=5, opacity=0.9),
        Points(id="samples", name=TEXT["samples"], colour="p", x=cloud[:, 0], y=cloud[:, 1], size=5, opacity=0.9),
    ]
    if request.model == "score model":
        arrows = Arrows(
            id="field", name=TEXT["score"], colour="eps", x=grid[:, 0], y=grid[:, 1], u=nowhere, v=nowhere, width=1.2
        )
        layers.append(arrows)
    steps, losses = _losses(run, len(run.losses))
    low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
    room = max(0.1, 0.1 * (high - low))
    panels = [
        Panel(
            x=axis, y=axis, layers=layers, title=TEXT["stage"], description=caption, aspect=1, equal=True, least=300,
            readout=False, share=2.2,
        ),
        Panel(
            x=Axis(low=0, high=request.steps, name=TEXT["loss axis"]),
            y=Axis(low=low - room, high=high + room),
            layers=[Line(id="loss", colour="kl", x=steps, y=losses)],
            title=TEXT[f"loss {request.model}"],
            description=caption,
            aspect=0.8,
            alone=2.6,
            least=200,
        ),
    ]  # fmt: skip
    text = TEXT["description"].format(model=NAMES[request.model], data=data_name(request.data), count=len(cloud))
    names = ("learned", "forward", "reverse")
    return FigureData(
        panels=panels,
        caption=caption,
        description=text,
        frames=frames or [],
        segments=[Segment(start=start, label=TEXT[name]) for start, name in zip(starts, names, strict=False)],
        first=starts[1] if frames else None,
        autoplay=bool(frames),
        fps=12,
    )


def _losses(run: Run, count: int) -> tuple[list[int], list[float]]:
    return [step for step, _ in run.losses[:count]], [loss for _, loss in run.losses[:count]]


def progress(run: Run, index: int = -1) -> str:
    """Return where the learning stood at one of the losses, in words."""
    step, loss = run.losses[index]
    seconds = run.seconds * step / run.step
    return TEXT["step"].format(
        step=step, steps=run.request.steps, loss=f"{loss:.3f}".replace("-", "−"), seconds=f"{seconds:.1f}"
    )


def live(run: Run, crowd: int = CROWD) -> FigureData:
    """Return the run as it stands."""
    assert run.model is not None
    picture = samples(run.request, run.model, crowd, LIVE_STEPS)
    run.add(picture)
    return stage(run, progress(run), picture)


@torch.inference_mode()
def animation(run: Run, seed: int, crowd: int = CROWD) -> FigureData:
    """Return the learning, then forward and reverse process of the model on `crowd` points, with the noise of that seed."""
    request, model = run.request, run.model
    if model is None:
        return stage(run, TEXT["ready"])
    pictures = run.pictures or [(len(run.losses), samples(request, model, crowd))]
    shown = pictures[:: -(-len(pictures) // PICTURES_STORED)]
    frames = [
        Frame(caption=progress(run, count - 1), layers={"samples": _xy(picture), "loss": _curve(run, count)})
        for count, picture in shown
    ]
    x0 = data_of(request.data, request.marks, MARKS)[:crowd]
    if isinstance(model, PointVAE):
        there, back, made = _vae_ways(model, x0, seed)
    elif request.model == "flow matching":
        there, back, made = _straight_ways(request, model, x0, seed)
    else:
        there, back, made = _chain_ways(request, model, x0, seed)
    starts = [0, len(frames), len(frames) + len(there)]
    frames += [Frame(caption=text, layers={"samples": _xy(x0[:0]), "noisy": _xy(x), **more}) for text, x, more in there + back]
    frames += [Frame(caption=text, layers={"samples": _xy(x), **more}) for text, x, more in made]
    return stage(run, progress(run), made[-1][1], frames, starts)


def _chain_ways(request: PlaygroundRequest, model: PointDDPM, x0: Tensor, seed: int) -> Ways:
    """Return x_t on the way to noise and on the way back, and the samples."""
    there: list[Picture] = [
        (TEXT["forward t"].format(t=cloud.t), cloud.x_t, {}) for cloud in noising(SCHEDULE, x0, FORWARD_TIMES, seed)
    ]
    key = f"{request.model} t"
    walk = TEXT[f"walk {request.walk}"]
    back: list[Picture] = []
    walked = list(way_back(request, model, len(x0), seed, WALK_STEPS))
    for frame in walked[:: len(walked) // WALK_STEPS]:
        back.append((TEXT[key].format(t=frame.t, walk=walk), frame.x_t, _arrows(request, model, frame.t)))
    return there, back, [(TEXT[key].format(t=0, walk=walk), walked[-1].x_s, {})]


def _straight_ways(request: PlaygroundRequest, model: PointDDPM, x0: Tensor, seed: int) -> Ways:
    """Return x_s on the straight paths to noise and on the way back along û, and the samples."""
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    there: list[Picture] = [
        (TEXT["straight s"].format(s=f"{s:.2f}"), torch.lerp(x0, eps, s), {}) for s in torch.linspace(0, 1, len(FORWARD_TIMES))
    ]
    back: list[Picture] = []
    for frame in way_back(request, model, len(x0), seed, WALK_STEPS):
        t = torch.full((len(x0),), frame.t)
        s = f"{float(straight_time(model.schedule, t)[0]):.2f}"
        back.append((TEXT["velocity s"].format(s=s), straight(model.schedule, frame.x_t, t), {}))
    return there, back, [(TEXT["velocity s"].format(s="0.00"), frame.x_s, {})]


def _arrows(request: PlaygroundRequest, model: PointDDPM, t: int) -> dict[str, dict[str, Any]]:
    if request.model != "score model":
        return {}
    way = ARROW * float(1 - SCHEDULE.alpha_bar[t]) * field(model.predict, SCHEDULE, t, ARROWS, REACH).flatten(0, 1)
    return {"field": {"u": way[:, 0], "v": way[:, 1]}}


def _vae_ways(model: PointVAE, x0: Tensor, seed: int) -> Ways:
    """Return x to z, z to its mean in x, and the samples; the frames between them are interpolated."""
    noise = torch.randn(len(x0), model.latent, generator=torch.Generator().manual_seed(seed))
    encoded = model.encode(x0).sample(noise)
    z, mean, x = model.sample(len(x0), seed)
    sigma = f"{float(model.decode(z[:1]).std[0, 0]):.3f}"
    there = _move(TEXT["encoding"], x0, encoded) + _move(TEXT["latents"], encoded, encoded, 3)
    back = _move(TEXT["prior"], z, z, 3) + _move(TEXT["decoding"], z, mean)
    return there, back, _move(TEXT["drawn x"].format(sigma=sigma), mean, x, 4)


def _move(text: str, a: Tensor, b: Tensor, count: int = MOVES) -> list[Picture]:
    return [(text, torch.lerp(a, b, i / (count - 1)), {}) for i in range(count)]


def _xy(x: Tensor) -> dict[str, Any]:
    return {"x": x[:, 0], "y": x[:, 1]}


def _curve(run: Run, count: int) -> dict[str, Any]:
    steps, losses = _losses(run, count)
    return {"x": steps, "y": losses}


def answer(run: Run, drawn_points: list[list[float]]) -> dict[str, Any]:
    """Return an answer of `/playground`."""
    return {
        "step": run.step,
        "steps": run.request.steps,
        "seconds": run.seconds,
        "loss": run.losses[-1][1],
        "samples": drawn_points,
    }
