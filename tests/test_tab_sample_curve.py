"""What more steps buy: the measured curve, read, drawn and marked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from genlab import hub
from genlab.demo.components.figure import Figure, Line, Points, Rule
from genlab.demo.served import Models
from genlab.demo.tabs.sample import build as tab
from genlab.demo.tabs.sample.compute import sample
from genlab.demo.tabs.sample.curve import at, curve_figure, curve_of
from genlab.demo.tabs.sample.request import parse_sample
from genlab.demo.turns import Runner
from genlab.package import PRETRAINED, write_package
from tests import tiny

CURVE = {
    "images": 100,
    "sampler": "UniPC",
    "spacing": "quadratic",
    "features": {"name": "mnist", "sha256": "ab" * 32, "accuracy": 0.99, "dims": 64},
    "steps": [4, 10, 25],
    "frechet_distance": [8.0, 2.0, 1.0],
    "frechet_floor": 0.5,
}


def metrics(**changes: Any) -> dict[str, Any]:
    return {"evaluation": {"steps": {**CURVE, **changes}}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("steps")
    pictures = tiny.dataset("mnist")
    for name, facts in (("measured", metrics()), ("plain", {})):
        write_package(folder / name, tiny.ddpm(pictures.spec), facts, pictures)
    return tiny.load_models([str(folder / "measured"), str(folder / "plain")])


def test_between_two_measured_numbers_of_steps_the_logarithms_go_straight() -> None:
    curve = curve_of(metrics())
    assert curve is not None
    assert [at(curve, steps) for steps in CURVE["steps"]] == pytest.approx(CURVE["frechet_distance"])
    # Halfway between log 10 and log 25 the distance is the geometric mean of 2 and 1.
    between = math.sqrt(10 * 25)
    assert at(curve, round(between)) == pytest.approx(math.sqrt(2), rel=0.02)


def test_the_figure_has_the_curve_its_floor_and_what_is_chosen(models: Models) -> None:
    data = curve_figure(models, Runner(), "measured", 16, 10)
    (panel,) = data.panels
    (line,), (floor,) = ([layer for layer in panel.layers if isinstance(layer, kind)] for kind in (Line, Rule))
    assert (line.x, line.y, floor.at) == (CURVE["steps"], CURVE["frechet_distance"], 0.5)
    assert [(p.x, p.y) for p in panel.layers if isinstance(p, Points)][-1] == ([10], pytest.approx([2.0]))
    assert "10 steps with UniPC: distance 2.00; 25 steps: 1.00; real pictures in their place: 0.50 (100 each)." in data.caption
    assert panel.y.low < 0.5
    assert panel.y.high > 8


def test_a_distance_between_measured_ones_is_said_to_be_about_that(models: Models) -> None:
    assert "16 steps with UniPC: distance ≈ 1.40; 25 steps: 1.00" in curve_figure(models, Runner(), "measured", 16, 16).caption


def test_steps_beyond_those_that_were_measured_are_said_at_the_nearest(models: Models) -> None:
    assert "25 steps with UniPC: distance 1.00" in curve_figure(models, Runner(), "measured", 16, 250).caption
    assert "4 steps with UniPC: distance 8.00" in curve_figure(models, Runner(), "measured", 16, 1).caption


def test_the_time_is_that_of_the_latest_warm_steps_with_as_many_pictures(models: Models) -> None:
    runner = Runner()
    list(sample(models, runner, parse_sample(models.offers, "measured", "any", 2, 1, "UniPC", 1, 0)))
    assert runner.seconds("measured", 2, 10) is None
    assert " s here." not in curve_figure(models, runner, "measured", 2, 10).caption
    list(sample(models, runner, parse_sample(models.offers, "measured", "any", 2, 3, "UniPC", 1, 0)))
    one = runner.seconds("measured", 2, 1)
    assert one is not None
    assert one > 0
    assert runner.seconds("measured", 2, 250) == pytest.approx(250 * one)
    caption = curve_figure(models, runner, "measured", 2, 250).caption
    assert "25 steps with UniPC: distance 1.00" in caption
    assert f" 2 pictures in 250 steps take about {250 * one:.1f} s here." in caption
    assert (
        f" 2 pictures in 200 steps take about {400 * one:.1f} s here."
        in curve_figure(models, runner, "measured", 2, 200, 3).caption
    )
    assert runner.seconds("measured", 16, 10) is None
    assert " s here." not in curve_figure(models, runner, "measured", 16, 10).caption


def test_a_model_of_one_step_has_no_curve_of_steps(tmp_path: Path) -> None:
    folders = [folder for folder in tiny.save_models(tmp_path) if folder.endswith("-mnist") and "fashion" not in folder]
    with gr.Blocks() as demo:
        tab.build(tiny.load_models(folders), Runner(), demo)
    cost = next(fn for fn in demo.fns.values() if fn.name == "cost")
    assert isinstance(cost.outputs[-1], Figure)
    assert [cost.fn(model, 16, 10, 1)["visible"] for model in ("vae-mnist", "ddpm-mnist")] == [False, True]


@pytest.mark.parametrize("model", ["plain", "nothing", None, 3, []])
def test_nothing_is_shown_where_nothing_was_measured(models: Models, model: Any) -> None:
    assert curve_figure(models, Runner(), model, 16, 10).panels == []


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": [4, 10]},
        {"steps": [10, 4, 25]},
        {"steps": [4, 4, 25]},
        {"steps": [0, 10, 25]},
        {"frechet_distance": [8.0, -2.0, 1.0]},
        {"frechet_distance": [8.0, math.nan, 1.0]},
        {"frechet_floor": 0.0},
        *({"frechet_distance": [8.0, value, 1.0]} for value in (5e-324, 1e308, 1.7e308)),
        *({"frechet_floor": value} for value in (5e-324, 1e308, 1.7e308)),
        {"features": None},
        {"images": "many"},
    ],
)
def test_a_curve_that_does_not_fit_counts_as_none(changes: dict[str, Any]) -> None:
    assert curve_of(metrics()) is not None
    assert curve_of(metrics(**changes)) is None
    assert curve_of({}) is None


def test_the_shipped_models_have_their_curve() -> None:
    for folder in sorted(PRETRAINED.glob("ddpm-*")):
        assert curve_of(hub.read(folder).metrics) is not None, folder.name
