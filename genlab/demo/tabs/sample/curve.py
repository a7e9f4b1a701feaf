"""What more steps buy: the measured distance of samples to real pictures by the number of steps, and the time they take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from genlab.demo.components.figure import Axis, FigureData, Line, Panel, Points, Rule
from genlab.demo.served import Models
from genlab.demo.tabs.controls import NAMES
from genlab.demo.turns import Runner
from genlab.measurements import Curve, Evaluation, read_evaluation
from genlab.serving.language import both

TEXT = {
    "figure": both("What steps buy", "步数换来什么"),
    "empty": both(
        "Nothing was measured of this model along the number of steps; training/evaluate.py does it.",
        "这个模型没有按步数测量过；training/evaluate.py 可以测量。",
    ),
    "steps": both("steps", "步数"),
    "distance": both("Fréchet distance, features of {features}", "Fréchet 距离，{features} 的特征"),
    "samples": both("samples, {sampler}", "样本，{sampler}"),
    "real": both("real pictures", "真实图片"),
    "caption": both(
        "{steps} steps with {sampler}: distance {about}{distance}; {most} steps: {best}; real pictures in their place: {floor} "
        "({images} each).",
        "用 {sampler} 走 {steps} 步：距离 {about}{distance}；{most} 步：{best}；换成真实图片：{floor}（各 {images} 张）。",
    ),
    "seconds": both(
        " {count} pictures in {steps} steps take about {seconds} s here.",
        "这里用 {steps} 步生成 {count} 张大约需要 {seconds} 秒。",
    ),
}


LEAST = 1e-9
"""A smaller distance has no place on a logarithmic axis."""


def curve_of(metrics: dict[str, Any]) -> Curve | None:
    """Return the curve in the content of metrics.json, if there is one that can be drawn."""
    found = read_evaluation(metrics)
    curve = found.steps or _of_few(found)
    drawable = curve is not None and len(curve.steps) > 1 and min(*curve.frechet_distance, curve.frechet_floor) > LEAST
    return curve if drawable else None


def _of_few(found: Evaluation) -> Curve | None:
    """Return the curve of a consistency function by its number of evaluations."""
    if found.few is None or found.samples is None:
        return None
    measured = {each.steps: each for each in (*found.few.values(), found.samples)}
    steps, main = sorted(measured), found.samples
    distances = [measured[count].frechet_distance for count in steps]
    return Curve(main.images, main.sampler, "own", main.features, steps, distances, main.frechet_floor)


def at(curve: Curve, steps: int) -> float:
    """Return the distance at a number of steps, along straight lines between the measured ones, both as logarithms."""
    return math.exp(float(np.interp(math.log(steps), np.log(curve.steps), np.log(curve.frechet_distance))))


def curve_figure(models: Models, runner: Runner, model: Any, count: int, steps: int, guidance: float = 1) -> FigureData:
    """Return the curve of a model with the choice marked; an empty figure if none was measured.

    Args:
        model: id of a model, or anything else.
        count: pictures whose time is stated, if it is known.
        steps: their steps; the distance is `at` as many, of those within what was measured.
        guidance: its strength; if it is not 1 and there are classes, a step takes two evaluations.
    """
    served = models.get(model) if isinstance(model, str) else None
    curve = None if served is None else curve_of(served.package.metrics)
    if served is None or curve is None:
        return FigureData()
    within = min(max(steps, curve.steps[0]), curve.steps[-1])
    distance = at(curve, within)
    sampler = NAMES.get(curve.sampler, curve.sampler)
    caption = TEXT["caption"].format(
        steps=within,
        sampler=sampler,
        about="" if within in curve.steps else "≈ ",
        distance=f"{distance:.2f}",
        most=curve.steps[-1],
        best=f"{curve.frechet_distance[-1]:.2f}",
        floor=f"{curve.frechet_floor:.2f}",
        images=f"{curve.images:,}",
    )
    evaluations = 2 if served.data.classes and guidance != 1 else 1
    seconds = runner.seconds(served.id, count, evaluations * steps)
    if seconds is not None:
        caption += TEXT["seconds"].format(count=count, steps=steps, seconds=f"{seconds:.1f}")
    reach = [*curve.frechet_distance, curve.frechet_floor]
    panel = Panel(
        x=Axis(low=curve.steps[0] / 1.15, high=curve.steps[-1] * 1.15, name=TEXT["steps"], scale="log"),
        y=Axis(
            low=min(reach) / 1.5, high=max(reach) * 1.3, name=TEXT["distance"].format(features=curve.features.name), scale="log"
        ),
        layers=[
            Rule(colour="p", axis="y", at=curve.frechet_floor, text=TEXT["real"]),
            Line(name=TEXT["samples"].format(sampler=sampler), colour="p", x=curve.steps, y=curve.frechet_distance),
            Points(colour="p", size=7, opacity=1, x=curve.steps, y=curve.frechet_distance),
            Points(colour="ink", size=13, opacity=1, x=[within], y=[distance]),
        ],
        description=caption,
        aspect=2.0,
        least=260,
    )
    return FigureData(panels=[panel], caption=caption, description=caption, legend=False)
