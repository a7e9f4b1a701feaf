"""The figure: what Python describes is what the browser draws, and what the visitor moves reaches the server."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests import tiny

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from gradio_client.utils import json_schema_to_python_type

from genlab.demo.components import figure
from genlab.demo.components.figure import (
    Area,
    Arrows,
    Axis,
    Bars,
    Figure,
    FigureData,
    Frame,
    Handle,
    Heat,
    Line,
    Packed,
    Panel,
    Points,
    Rule,
    Selected,
    Stack,
    drawn,
    frames_apart,
    pack,
    positions,
    selected,
)
from genlab.demo.limits import LimitError

UNIT = Axis(low=0, high=1)
X = np.linspace(0, 1, 50)


def panel(*layers: Any, **options: Any) -> Panel:
    return Panel(**{"x": UNIT, "y": UNIT, "layers": list(layers), **options})


# ---- numbers on their way ----


@pytest.mark.parametrize(
    "values", [np.linspace(-3, 7, 100), np.full(20, 2.5), np.zeros(13), np.array([1e-3, *range(15)]), -(np.arange(14.0) ** 3)]
)
def test_a_series_comes_back_to_a_65534th_of_its_range(values: np.ndarray) -> None:
    packed = pack(values)
    assert isinstance(packed, Packed)
    assert len(packed) == len(values)
    assert np.abs(packed.values() - values).max() <= 0.5001 * np.ptp(values) / 65534 + 1e-15


@pytest.mark.parametrize("values", [np.arange(1.0, 1002), np.arange(-40.0, 40) * 7, np.array([0.0, *range(12), np.nan, 65534])])
def test_whole_numbers_come_back_exactly(values: np.ndarray) -> None:
    packed = pack(values)
    assert isinstance(packed, Packed)
    np.testing.assert_array_equal(packed.values(), values)


def test_a_wide_range_keeps_its_small_values() -> None:
    values = np.geomspace(1e-5, 1e3, 200)
    packed = pack(values)
    assert isinstance(packed, Packed)
    np.testing.assert_allclose(packed.values(), values, rtol=1e-3)


def test_gaps_few_values_and_tensors() -> None:
    values = np.linspace(0, 1, 30)
    values[7] = np.nan
    packed = pack(values)
    assert isinstance(packed, Packed)
    np.testing.assert_allclose(packed.values(), values, atol=1e-5)
    assert pack([1.5, np.nan]) == [1.5, None]
    assert pack(torch.tensor([1.0, 2.0])) == [1.0, 2.0]
    assert Line(x=[0, 1, 2], y=[0, None, 1]).y == [0, None, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Line(x=X, y=X[:-1]), r"expected series of one length, got \{'x': 50, 'y': 49\}"),
        (lambda: Arrows(x=[0], y=[0], u=[1, 2], v=[1]), "expected series of one length"),
        (lambda: Points(x=X, y=np.append(X[:-1], np.inf)), "expected finite values, or NaN for a gap, got infinite ones"),
        (lambda: Points(x=np.zeros((2, 2)), y=[0]), r"expected a one-dimensional series, got shape \(2, 2\)"),
        (lambda: Line(x=[0], y=[0], colour="red"), r"expected a colour among \['p', .* got 'red'"),
        (lambda: Area(x=[0], y=[0], colour="url(#a)"), "expected a colour among"),
        (lambda: Stack(values=[1], colour="--ink"), "expected a colour among"),
        (lambda: Handle(id="a", x=0, y=0, colour="#fff"), "expected a colour among"),
        (lambda: Handle(id="a", x=float("nan"), y=0), "finite number"),
        (lambda: Rule(at=float("inf")), "finite number"),
        (lambda: Line(x=[0], y=[0], hue=1), "Extra inputs are not permitted"),
        (lambda: Line(x=[{}], y=[0]), "expected a series of numbers, got something else"),
        (lambda: Line(x={"codes": "", "low": 0}, y=[]), "high"),
        (lambda: Heat(values=np.zeros(10), columns=4), "expected whole rows of 4 values, got 10 values"),
        (lambda: Bars(labels=["a"], stacks=[Stack(values=[1, 2])]), "expected 1 values, one for each label, got 2"),
        (lambda: Bars(labels=["a"], stacks=[], texts=["1", "2"]), "expected 1 texts, one for each label, got 2"),
        (lambda: Axis(low=1, high=1), "expected low < high, got 1 and 1"),
        (lambda: Axis(low=0, high=1, scale="log"), "expected low > 0 on a logarithmic axis, got 0"),
        (
            lambda: FigureData(panels=[panel(Line(id="a", x=X, y=X), Line(id="a", x=X, y=X))]),
            "expected different ids of layers, got 'a' twice",
        ),
        (
            lambda: FigureData(panels=[panel(Line(id="a", x=X, y=X))], frames=[Frame(layers={"b": {}})]),
            r"expected ids of layers, \['a'\], in a frame, got 'b'",
        ),
        (
            lambda: FigureData(panels=[panel(Line(id="a", x=X, y=X))], frames=[Frame(layers={"a": {"y": X[1:]}})]),
            "expected series of one length",
        ),
        (
            lambda: FigureData(panels=[panel(Line(id="a", x=X, y=X))], frames=[Frame(layers={"a": {"colour": "red"}})]),
            "expected a colour among",
        ),
        (lambda: FigureData(panels=[panel()], first=0), "expected a first frame from 0 to -1, got 0"),
        (
            lambda: FigureData(panels=[panel()], handles=[Handle(id="a", x=0, y=0, panels=[1])]),
            "expected handles in panels 0 … 0",
        ),
        (lambda: FigureData(handles=[Handle(id="a", x=0, y=0)] * 2), "expected different ids of handles"),
        (lambda: FigureData(drawn=[(0, 0)] * (figure.DRAWN + 1)), "at most 2000 items"),
        (lambda: Figure(labels={"plai": "x"}, render=False), r"expected labels among .* got \['plai'\]"),
        (lambda: Figure(value="<b>", render=False), "expected FigureData or None, got str"),
    ],
)
def test_wrong_arguments_are_named(call: Any, message: str) -> None:
    with pytest.raises((ValueError, ValidationError), match=message):
        call()


def test_a_frame_is_checked_and_packed_like_its_layer() -> None:
    data = FigureData(
        panels=[panel(Line(id="q", x=X, y=X), Bars(id="b", labels=["a"], stacks=[Stack(values=[1])]))],
        frames=[Frame(layers={"q": {"y": X**2}, "b": {"stacks": [{"values": [2], "colour": "q"}]}})],
    )
    changed = data.frames[0].layers["q"]["y"]
    assert isinstance(changed, Packed)
    np.testing.assert_allclose(changed.values(), X**2, atol=1e-5)
    assert data.model_dump()["frames"][0]["layers"]["b"]["stacks"][0]["colour"] == "q"
    assert FigureData.model_validate_json(data.model_dump_json()).model_dump() == data.model_dump()


def test_the_frames_of_a_page_lie_in_a_file_but_the_one_shown_first() -> None:
    whole = FigureData(
        panels=[panel(Line(id="q", x=X, y=X))],
        frames=[Frame(caption=f"{i}", layers={"q": {"y": i * X}}) for i in range(5)],
        first=3,
    )
    with gr.Blocks():
        component = Figure(frames_apart(whole))
    shown = component.value
    assert [frame["caption"] for frame in shown["frames"]] == ["0", "1", "2", "3", "4"]
    assert [i for i, frame in enumerate(shown["frames"]) if frame["layers"]] == [shown["first"]] == [3]
    path = shown["sheet"]["path"]
    layers = json.loads(gzip.decompress(Path(path).read_bytes()))
    assert layers == [frame["layers"] for frame in whole.model_dump()["frames"]]
    assert path in component.keep_in_cache, "a page may be asked for its files as long as it is served"


def test_frames_apart_begin_with_the_last_one_where_none_is_chosen() -> None:
    frames = [Frame(layers={"q": {"y": i * X}}) for i in range(5)]
    assert frames_apart(FigureData(panels=[panel(Line(id="q", x=X, y=X))], frames=frames)).first == 4
    assert frames_apart(first()) == first(), "a figure without frames stays as it is"


# ---- what comes back ----


def test_what_the_visitor_moved_is_read() -> None:
    sent = {
        "handles": [{"id": "a", "x": 1, "y": 2.5}, {"id": "b", "x": 0, "y": 0}],
        "selected": None,
        "drawn": [[0, 1], [2, 3]],
    }
    value = FigureData.model_validate(sent).model_dump()
    assert positions(value, ["a"]) == {"a": (1.0, 2.5)}
    assert selected(value) is None
    np.testing.assert_array_equal(drawn(value), [[0, 1], [2, 3]])
    assert selected(FigureData(selected=Selected(panel=1, x=0.25)).model_dump()) == (1, 0.25)
    assert drawn(FigureData().model_dump()).shape == (0, 2)
    with pytest.raises(LimitError, match=r"expected handles \['a', 'c'\], got none called \['c'\]"):
        positions(value, ["a", "c"])
    with pytest.raises(ValueError, match="expected handles"):
        positions(None, ["a"])


# ---- what clients and other tabs see ----


def test_the_api_names_every_field() -> None:
    info = Figure(render=False).api_info()
    assert info["type"] == "object"
    assert set(info["properties"]) == set(FigureData.model_fields)
    assert json_schema_to_python_type(info).startswith("dict(panels: list[dict()]")


def test_the_examples_are_valid() -> None:
    component = Figure(render=False)
    assert FigureData.from_json(component.example_payload()) == component.example_value() == FigureData()


def test_the_configuration_sent_to_the_browser_is_plain() -> None:
    """gr.HTML makes up event listeners for names in quotes in `js_on_load`; none may pass for an argument."""
    config = Figure(render=False, animated=True).get_config()
    assert not [key for key, value in config.items() if callable(value)]


def test_the_figures_events_exist() -> None:
    with gr.Blocks():
        component = Figure()
        for event in ("input", "release", "select", "clear"):
            getattr(component, event)(lambda: None, None, None, api_visibility="private")


# ---- in the browser ----

HOSTILE = '<img src=x onerror="window.hacked=1">${window.hacked=2}{{value}}`\'</script>'


def curve(centre: float, height: float) -> np.ndarray:
    return height * np.exp(-((X - centre) ** 2) / 0.02)


def first() -> FigureData:
    """A curve whose top is a handle, and a panel of marks of every other kind."""
    return FigureData(
        panels=[
            panel(
                Area(id="q", name="q_t", colour="q", x=X, y=curve(0.5, 0.8)),
                Rule(id="rule", at=0.5, text="0.50"),
                title="a curve",
                description="a curve with its top at 0.5",
                select=True,
            ),
            panel(
                Heat(values=np.linspace(0, 1, 16), columns=4, colour="p"),
                Points(x=X, y=X, colour="x0_hat"),
                Arrows(x=[0.1], y=[0.1], u=[0.5], v=[0.5]),
                draw=True,
                equal=True,
                aspect=1,
            ),
            Panel(
                x=Axis(low=-1, high=3),
                y=Axis(low=-0.5, high=1.5, ticks=False),
                layers=[
                    Bars(
                        id="bars",
                        labels=["H_p", HOSTILE],
                        stacks=[
                            Stack(colour="p", values=[1, 0.5], inside="H"),
                            Stack(name=HOSTILE, colour="kl", values=[1, -0.5]),
                        ],
                        texts=["2", HOSTILE],
                        horizontal=True,
                    )
                ],
                title=HOSTILE,
            ),
        ],
        handles=[
            Handle(id="top", x=0.5, y=0.8, axis="xy", name="top of q", x_low=0.2, x_high=0.8),
            Handle(id="side", x=0.6, y=0.4, with_="top", shape="bar"),
        ],
        caption=HOSTILE,
        description="three panels",
    )


def answer(value: Any) -> FigureData:
    """The rule goes where the top was dropped, to two decimals; everything else as before."""
    data, at = first(), positions(value, ["top", "side"])
    x, y = at["top"]
    top = [Area(id="q", name="q_t", colour="q", x=X, y=curve(x, y)), Rule(id="rule", at=x, text=f"{x:.2f}, {y:.2f}")]
    data.panels[0].layers[:] = top
    for handle in data.handles:
        handle.x, handle.y = at[handle.id]
    data.selected = value["selected"] and Selected(**value["selected"])
    data.drawn = [(px, py) for px, py in drawn(value).tolist()]
    data.caption = f"{len(drawn(value))} points, chosen {selected(value)}"
    return data


def film(value: Any) -> FigureData:
    data = answer(value)
    data.frames = [
        Frame(caption=f"height {0.1 * i:.1f}", layers={"rule": {"text": f"frame {i}"}, "q": {"y": curve(0.5, 0.1 * i)}})
        for i in range(10)
    ]
    return FigureData.model_validate(data.model_dump())


def short_film(name: str = "frame") -> FigureData:
    frames = [Frame(caption=f"caption of x_{i}", layers={"rule": {"text": f"{name} {i}"}}) for i in range(10)]
    return FigureData(panels=[panel(Rule(id="rule", at=0.5, text="none"), aspect=1, alone=4)], frames=frames, first=2)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    options: dict[str, Any] = {
        "preprocess": False,
        "show_progress": "hidden",
        "concurrency_limit": None,
        "trigger_mode": "always_last",
    }
    with gr.Blocks(title="figure", analytics_enabled=False) as blocks:
        component = Figure(first(), label="figure", animated=True, elem_id="figure")
        for event in ("input", "select", "clear"):
            getattr(component, event)(answer, component, component, **options)
        Figure(FigureData(), label="nothing", labels={"empty": "Nothing was measured of this model. " * 3}, elem_id="nothing")
        gr.Button("film", elem_id="film").click(film, component, component, **options)
        apart = Figure(frames_apart(short_film()), label="apart", animated=True, elem_id="apart")
        gr.Button("change", elem_id="change").click(lambda: short_film("later"), None, apart, **options)
    with tiny.served(blocks) as address:
        yield address


@pytest.fixture(scope="module")
def page(url: str, browser: Any) -> Any:
    page = tiny.watched(browser.new_context(viewport={"width": 1100, "height": 900}, reduced_motion="reduce").new_page())
    page.goto(url)
    page.locator("#figure .hand").first.wait_for()
    page.locator("#apart .forward:enabled").wait_for()  # the last one on the page, with its file: now it has settled
    return page


def rule(page: Any) -> Any:
    """The text beside the rule: the server's answer, drawn."""
    return page.locator("#figure .plot").nth(0).locator("text.halo")


def centre(box: dict[str, float]) -> tuple[float, float]:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def joined(page: Any) -> list[Any]:
    return [request for request in page.asked if "/queue/join" in request.url]


def test_everything_is_drawn_as_text_and_nothing_moves(page: Any) -> None:
    root = page.locator("#figure")
    assert rule(page).text_content() == "0.50"
    assert root.locator(".legend li").all_inner_texts()[0] == "qt"
    assert root.locator(".title").nth(2).inner_text() == HOSTILE
    assert root.locator(".caption").inner_text() == HOSTILE
    assert root.locator("img").count() == 0
    assert page.evaluate("window.hacked") is None
    labels = [picture.get_attribute("aria-label") for picture in root.locator("[role=img]").all()]
    assert labels[0] == "a curve. a curve with its top at 0.5"
    assert "three panels" in root.locator("figure").get_attribute("aria-label")
    painted = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v).length"
    assert root.locator("canvas").nth(1).evaluate(painted) > 5000
    assert page.evaluate("document.documentElement.scrollWidth") <= 1100


@pytest.mark.parametrize("width", [1100, 390])
def test_the_message_of_an_empty_figure_stays_within_it(width: int, url: str, browser: Any) -> None:
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.goto(url)
    page.locator("#nothing .message span").wait_for()
    inner, outer = (page.locator(f"#nothing {name}").bounding_box() for name in (".message", "figure"))
    page.context.close()
    assert inner["height"] > 0
    assert outer["y"] <= inner["y"]
    assert inner["y"] + inner["height"] <= outer["y"] + outer["height"]


def test_a_handle_is_dragged_with_the_mouse_and_the_server_answers(page: Any) -> None:
    """Pixels are linear in the data: half of the way from the rule's place at 0.5 to that of 0.7 is 0.6."""
    grip = page.locator('#figure [data-handle="top"]')
    x, y = tiny.take(page, grip)
    before = page.locator("#figure figure").bounding_box()
    plot = (
        page.locator("#figure .plot")
        .nth(0)
        .evaluate(
            "p => { const r = p.querySelector('clipPath rect'); const b = p.getBoundingClientRect();"
            " return {x: b.x + +r.getAttribute('x'), y: b.y + +r.getAttribute('y'),"
            " width: +r.getAttribute('width'), height: +r.getAttribute('height')}; }"
        )
    )
    assert x == pytest.approx(plot["x"] + 0.5 * plot["width"], abs=1)
    assert y == pytest.approx(plot["y"] + 0.2 * plot["height"], abs=1)
    for part in (0.2, 0.5, 1):
        page.mouse.move(x + 0.2 * part * plot["width"], y + 0.4 * part * plot["height"])
    page.mouse.up()
    found = rule(page)
    found.get_by_text(re.compile(r"0\.(69|70|71), 0\.(39|40|41)")).wait_for()
    side = page.locator('#figure [data-handle="side"]')
    assert float(side.get_attribute("aria-valuenow")) == pytest.approx(0.8, abs=0.02), "it goes along"
    assert page.locator("#figure figure").bounding_box() == before
    sent = joined(page)[-1].post_data_json["data"][0]
    assert "panels" not in sent, "the curves are not sent back"

    tiny.take(page, grip)
    page.mouse.move(x + 3 * plot["width"], y)
    page.mouse.up()
    found.get_by_text(re.compile(r"0\.80, ")).wait_for()  # no farther than its bound
    assert page.problems == []


def test_a_handle_moves_with_the_arrow_keys(page: Any) -> None:
    grip = page.locator('#figure [data-handle="top"]')
    assert grip.get_attribute("aria-label") == "top of q"
    grip.focus()
    start = float(grip.get_attribute("aria-valuenow"))
    page.keyboard.press("Shift+ArrowLeft")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    rule(page).get_by_text(re.compile(rf"{start - 0.13:.2f}, ")).wait_for()
    assert grip.evaluate("grip => grip === document.activeElement")


def test_a_click_and_the_arrow_keys_choose_an_x(page: Any) -> None:
    plot = page.locator("#figure .plot").nth(0)
    box = plot.bounding_box()
    page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.9 * box["height"] - 30)
    caption = page.locator("#figure .caption")
    caption.get_by_text(re.compile(r"chosen \(0, 0\.3")).wait_for()
    now = float(re.findall(r"0\.\d+", caption.inner_text())[0])
    assert np.abs(X - now).min() < 1e-4, "one of the curve's own points"
    page.locator("#figure .surface").nth(0).press("ArrowRight")
    caption.get_by_text(f"{now + 1 / 49:.6f}"[:6]).wait_for()


def test_points_are_drawn_by_hand_and_by_key_and_cleared(page: Any) -> None:
    surface, caption = page.locator("#figure .surface").nth(1), page.locator("#figure .caption")
    x, y = centre(surface.bounding_box())
    page.mouse.move(x - 60, y)
    page.mouse.down()
    for step in range(1, 7):
        page.mouse.move(x - 60 + 20 * step, y - 10 * step)
    page.mouse.up()
    caption.get_by_text("7 points").wait_for()
    page.keyboard.press(" ")  # where the focus came with the mouse
    caption.get_by_text("8 points").wait_for()
    surface.press("ArrowRight")
    surface.press(" ")
    caption.get_by_text("9 points").wait_for()
    page.locator("#figure .wipe").click()
    caption.get_by_text("0 points").wait_for()
    assert page.problems == []


def test_frames_are_played_with_the_players_controls_and_without_the_server(page: Any) -> None:
    page.click("#film")
    root = page.locator("#figure")
    root.locator(".count").get_by_text("10 / 10").wait_for()
    assert rule(page).text_content() == "frame 9"
    before = len(page.asked)
    root.locator(".scrub").focus()
    page.keyboard.press("Home")
    assert (root.locator(".count").inner_text(), rule(page).text_content()) == ("1 / 10", "frame 0")
    page.keyboard.press("ArrowRight")
    assert root.locator(".caption").inner_text() == "height 0.1"
    assert "frame 2 of 10" in root.locator("[role=img]").first.get_attribute("aria-label")
    root.locator(".speed").select_option("4")
    root.locator(".play").click()
    root.locator(".count").get_by_text("10 / 10").wait_for()
    root.locator(".back").click()
    assert rule(page).text_content() == "frame 8"
    assert len(page.asked) == before
    assert page.problems == []


def test_frames_in_a_file_come_with_the_figure_and_once(page: Any) -> None:
    root = page.locator("#apart")
    root.locator(".forward:enabled").wait_for()
    assert (root.locator(".count").inner_text(), root.locator("text.halo").text_content()) == ("3 / 10", "frame 2")
    root.locator(".scrub").focus()
    page.keyboard.press("End")
    assert (root.locator(".caption").inner_html(), root.locator("text.halo").text_content()) == (
        "caption of x<sub>9</sub>",
        "frame 9",
    )
    assert len([request for request in page.asked if request.url.endswith("/frames.gz")]) == 1
    assert page.problems == []


def test_a_panel_as_wide_as_the_figure_has_the_shape_for_that(page: Any) -> None:
    box = page.locator("#apart .plot").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(4, rel=0.01)


def test_the_first_frame_is_there_before_its_file_which_a_newer_value_replaces(url: str, browser: Any) -> None:
    page = tiny.watched(browser.new_context().new_page())
    held: list[Any] = []
    page.route("**/frames.gz", lambda route: held.append(route))
    page.goto(url)
    root = page.locator("#apart")
    root.locator("text.halo").get_by_text("frame 2").wait_for()
    assert root.locator(".count").inner_text() == "3 / 10"
    assert root.locator(".back").is_disabled()
    assert root.locator(".forward").is_disabled()
    page.click("#change")
    root.locator("text.halo").get_by_text("later 2").wait_for()
    with page.expect_response("**/frames.gz"):
        held[0].continue_()
    root.locator(".forward").click()
    assert root.locator("text.halo").text_content() == "later 3"
    assert page.problems == []
    page.context.close()


def test_a_file_that_cannot_be_had_is_said(url: str, browser: Any) -> None:
    page = browser.new_context().new_page()
    page.route("**/frames.gz", lambda route: route.fulfill(status=404, body="{}"))
    page.goto(url)
    root = page.locator("#apart")
    root.locator(".message").get_by_text("Reload the page").wait_for()
    assert root.locator("text.halo").text_content() == "frame 2"
    page.context.close()
