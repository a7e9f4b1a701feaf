"""The moments of a training as frames for the player, and their numbers as curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genlab.data import grid
from genlab.demo.components.figure import Axis, FigureData, Frame, Line, Panel, Points
from genlab.demo.components.player import PlayerData, new_run, player_sheet
from genlab.demo.tabs.sample.figure import side_of
from genlab.demo.tabs.training.text import PANES, TEXT
from genlab.measurements import Moment, Replay
from genlab.package import Film

COLOURS = ("x_t", "q")
FPS = 1.5
LEAST = 1e-9
"""A smaller value has no place on a logarithmic axis."""
Values = list[float | None]
Beside = Sequence[tuple[Values, dict[str, Any]]]
"""Further lines of a panel: their values and their options."""


def shape_of(film: Film) -> tuple[int, int]:
    """Return (H, W) of a pane, in pixels."""
    side = side_of(film.replay.samples, film.pictures.shape[-1])
    return side, side


def player_of(film: Film) -> PlayerData:
    """Return the film for the player: the pictures by the weights of each moment, and by the averaged ones."""
    sheets = [[np.asarray(grid(pictures)) for pictures in moment] for moment in film.pictures]
    captions = [caption_of(moment) for moment in film.replay.moments]
    frames = np.stack([np.stack(panes) for panes in sheets])
    return player_sheet(new_run(), frames, PANES, captions, colours=COLOURS, first=0, fps=FPS, autoplay=True, loop=True)


def caption_of(moment: Moment) -> str:
    """Return what is written below a moment."""
    epoch = f"{moment.epoch:.1f}" if moment.epoch >= 0.1 else f"{moment.epoch:.2g}"
    return TEXT["caption"].format(step=f"{moment.step:,}", images=f"{moment.images_seen:,}", epoch=epoch)


def figure_of(film: Film) -> FigureData:
    """Return loss, bound and distance by the pictures seen, each with the moment marked; one frame for each moment."""
    replay = film.replay
    moments = replay.moments
    seen = [float(moment.images_seen) for moment in moments]
    average: Values = [moment.held_out_loss for moment in moments]
    training: Values = [moment.training_loss for moment in moments]
    last: Values = [moment.held_out_loss_of_last_weights for moment in moments]
    beside: Beside = [
        (training, {"name": TEXT["in training"], "colour": "ink", "width": 1.5, "dash": True}),
        (last, {"name": TEXT["of last"], "colour": "x_t"}),
    ]
    panels = [_panel(TEXT["loss"], seen, average, beside, TEXT["of average"])]
    marked = {"loss": average}
    if replay.bound_images is not None:
        marked["bound"] = [moment.bound_bits_per_dim for moment in moments]
        panels.append(_panel(TEXT["bound"], seen, marked["bound"]))
    if replay.frechet_floor is not None:
        marked["distance"] = [moment.frechet_distance for moment in moments]
        real: Values = [replay.frechet_floor] * len(seen)
        beside = [(real, {"name": TEXT["real"], "colour": "p", "dash": True})]
        panels.append(_panel(TEXT["distance"], seen, marked["distance"], beside))
    for name, panel in zip(marked, panels, strict=True):
        panel.layers.append(Points(id=name, colour="ink", size=13, opacity=1, x=[], y=[]))
    frames = [
        Frame(
            caption=numbers_of(replay, moment),
            layers={
                name: {"x": [seen[i]], "y": [values[i]]} if values[i] is not None else {} for name, values in marked.items()
            },
        )
        for i, moment in enumerate(moments)
    ]
    return FigureData(panels=panels, frames=frames, first=0, description=frames[-1].caption)


def _panel(title: str, seen: Sequence[float], values: Values, beside: Beside = (), name: str = "") -> Panel:
    """Return the curve of values (M), some of them missing, by the pictures seen (M), with other lines and their options."""
    there = [value for series in (values, *(series for series, _ in beside)) for value in series if value is not None]
    low, high = min(there, default=1.0), max(there, default=1.0)
    log = low > LEAST and high > 3 * low
    room = 0.1 * (high - low) or 1.0
    y = Axis(low=low / 1.2, high=high * 1.2, scale="log") if log else Axis(low=low - room, high=high + room)
    return Panel(
        x=Axis(low=seen[0] / 1.3, high=seen[-1] * 1.3, name=TEXT["images"], scale="log"),
        y=y,
        layers=[
            *(Line(x=seen, y=series, **options) for series, options in beside),
            Line(name=name, colour="q", x=seen, y=values),
            Points(colour="q", size=6, opacity=1, x=seen, y=values),
        ],
        title=title,
        aspect=2.8,
        least=300,
    )


def numbers_of(replay: Replay, moment: Moment) -> str:
    """Return the numbers of a moment as text, a line for each that was measured."""
    parts = [
        TEXT["losses"].format(
            average=f"{moment.held_out_loss:.4g}",
            last=f"{moment.held_out_loss_of_last_weights:.4g}",
            images=f"{replay.held_out_images:,}",
        )
    ]
    if moment.bound_bits_per_dim is not None:
        bits, error = f"{moment.bound_bits_per_dim:.3f}", f"{moment.bound_standard_error_bits_per_dim:.3f}"
        parts.append(TEXT["bits"].format(bits=bits, error=error, images=f"{replay.bound_images:,}"))
    if moment.frechet_distance is not None:
        distance, floor = f"{moment.frechet_distance:.3g}", f"{replay.frechet_floor:.2f}"
        parts.append(TEXT["frechet"].format(distance=distance, floor=floor, images=f"{replay.frechet_images:,}"))
    return "\n".join(parts)
