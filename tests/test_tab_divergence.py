"""The KL tab: what its figure asks for is what is solved, its numbers are the API's, and a student can do figure 1 with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from genlab.demo.components.figure import Packed
from genlab.demo.limits import LimitError
from genlab.demo.tabs.divergence import build as tab
from genlab.demo.tabs.divergence import cross_entropy as outcomes
from genlab.demo.tabs.divergence.build import EXAMPLES
from genlab.demo.tabs.divergence.compute import solve
from genlab.demo.tabs.divergence.cross_entropy import CrossEntropyRequest, parse_cross_entropy
from genlab.demo.tabs.divergence.figure import FRAMES, draw, numbers, read
from genlab.demo.tabs.divergence.request import DivergenceRequest, parse_divergence
from genlab.demo.turns import Runner
from genlab.serving.language import choose
from tests import tiny

FIRST = DivergenceRequest(*next(iter(EXAMPLES.values()))[1])


def sent(request: DivergenceRequest, **moves: tuple[float, float]) -> dict[str, Any]:
    """What the browser sends after these handles have been dragged by (dx, dy)."""
    handles = draw(solve(request, whole=False)).model_dump()["handles"]
    for handle in handles:
        dx, dy = moves.get(handle["id"]) or moves.get(handle["with_"]) or (0, 0)
        handle["x"], handle["y"] = handle["x"] + dx, handle["y"] + dy
    return {"handles": handles}


# ---- from the figure to the request, and back ----


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_handles_say_what_is_drawn(name: str) -> None:
    request = DivergenceRequest(*EXAMPLES[name][1])
    assert asdict(read(sent(request))) == pytest.approx(asdict(request))


ROOT = math.sqrt(2 * math.pi)


@pytest.mark.parametrize(
    ("handle", "move", "changes"),
    [
        ("left", (0.5, 0), {"left_mean": FIRST.left_mean + 0.5}),
        ("left", (0, 0.1), {"weight": FIRST.weight + 0.1 * FIRST.left_std * ROOT}),
        ("right", (-1, 0.05), {"right_mean": FIRST.right_mean - 1, "weight": FIRST.weight - 0.05 * FIRST.right_std * ROOT}),
        ("left_width", (0.2, 0), {"left_std": FIRST.left_std + 0.2}),
        ("right_width", (0.3, 0), {"right_std": FIRST.right_std + 0.3}),
        ("start", (2, 0), {"start_mean": FIRST.start_mean + 2}),
        ("start_width", (0.5, 0), {"start_std": FIRST.start_std + 0.5}),
    ],
)
def test_a_handle_changes_what_it_is_called_and_nothing_else(
    handle: str, move: tuple[float, float], changes: dict[str, float]
) -> None:
    """The top of a mode of weight w is w/(√(2π) s)."""
    assert asdict(read(sent(FIRST, **{handle: move}))) == pytest.approx({**asdict(FIRST), **changes})


def test_handles_that_are_dragged_anywhere_ask_for_something_within_the_limits() -> None:
    for far in (-1e300, -50, 50, 1e300):
        for handle in ("left", "left_width", "right", "right_width", "start", "start_width", "was_left", "was_right"):
            request = read(sent(FIRST, **{handle: (far, far)}))
            assert parse_divergence(*asdict(request).values()) == request


def test_handles_that_are_missing_are_refused() -> None:
    with pytest.raises(ValueError, match="expected handles"):
        read({"handles": []})


@pytest.mark.parametrize("value", [None, True, "0.5", [0.5], math.nan, math.inf, -math.inf, 10**400, 0.04, 0.96, {}])
def test_what_is_no_weight_is_refused_in_both_languages(value: Any) -> None:
    with pytest.raises(LimitError, match=r"weight of the left mode: expected a number from 0\.05 to 0\.95, got") as refusal:
        parse_divergence(*{**asdict(FIRST), "weight": value}.values())
    assert "左峰的权重" in refusal.value.text


@pytest.mark.parametrize("name", [field for field in asdict(FIRST) if field != "weight"])
def test_every_other_number_has_its_limits(name: str) -> None:
    for value in (-7.01, 7.01, math.nan, None):
        with pytest.raises(LimitError, match="expected a number from"):
            parse_divergence(*{**asdict(FIRST), name: value}.values())


# ---- what is drawn ----


def values(series: Any) -> np.ndarray:
    return series.values() if isinstance(series, Packed) else np.asarray(series)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_figure_shows_the_solution(name: str) -> None:
    """The curves are the densities of the API's numbers, the integrands have the divergences as areas, the bars add up."""
    solution = solve(DivergenceRequest(*EXAMPLES[name][1]))
    data = draw(solution, animated=True)
    x = values(data.panels[0].layers[0].x).round(2)
    step = x[1] - x[0]
    end = numbers(solution)
    for i, side in enumerate(("forward", "reverse")):
        p, start, q = (values(layer.y) for layer in data.panels[i].layers)
        last = end[side]["steps"][-1]
        assert p.sum() * step == pytest.approx(1, abs=2e-3)
        for curve, at in ((start, end[side]["steps"][0]), (q, last)):
            expected = [NormalDist(at["mean"], at["std"]).pdf(point) for point in x]
            np.testing.assert_allclose(curve, expected, atol=1e-4)
        area = values(data.panels[2 + i].layers[0].y).sum() * step
        assert area == pytest.approx(last[f"{side}_kl"], abs=2e-2)
        stacks = data.panels[4 + i].layers[0].stacks
        total = [sum(stack.values[bar] for stack in stacks) for bar in range(4)]
        assert total == pytest.approx([end["p"]["entropy"], last["cross_entropy"], last["forward_kl"], last["reverse_kl"]])
        frame = data.frames[-1].layers
        np.testing.assert_allclose(values(frame[f"{side}-q"]["y"]), q, atol=1e-4)
    assert len(data.frames) <= FRAMES
    assert len(data.model_dump_json()) < 250_000


def test_the_numbers_are_those_of_figure_1() -> None:
    """Forward: mean and variance of p, from both starts. Reverse: another mode from the other side."""
    w, v = FIRST.weight, 1 - FIRST.weight
    mean = w * FIRST.left_mean + v * FIRST.right_mean
    variance = w * (FIRST.left_std**2 + FIRST.left_mean**2) + v * (FIRST.right_std**2 + FIRST.right_mean**2) - mean**2
    ends = []
    for start in (FIRST.start_mean, -FIRST.start_mean):
        result = numbers(solve(replace(FIRST, start_mean=start)))
        assert result["forward"]["steps"][0]["mean"] == result["reverse"]["steps"][0]["mean"] == start
        last = result["forward"]["steps"][-1]
        assert (last["mean"], last["std"]) == pytest.approx((mean, math.sqrt(variance)), abs=1e-3)
        assert (last["mean"], last["std"]) == pytest.approx((result["p"]["mean"], result["p"]["std"]), abs=1e-3)
        assert last["cross_entropy"] == pytest.approx(result["p"]["entropy"] + last["forward_kl"], abs=1e-9)
        ends.append(result["reverse"]["steps"][-1])
    assert ends[0]["mean"] == pytest.approx(FIRST.left_mean, abs=0.1)
    assert ends[1]["mean"] == pytest.approx(FIRST.right_mean, abs=0.1)
    assert ends[0]["reverse_kl"] == pytest.approx(-math.log(w), abs=0.01)
    assert ends[1]["reverse_kl"] == pytest.approx(-math.log(v), abs=0.01)


# ---- two discrete distributions ----


DISCRETE = {name: CrossEntropyRequest(*example[1:]) for name, example in outcomes.EXAMPLES.items()}


def dragged(request: CrossEntropyRequest, **places: float) -> CrossEntropyRequest:
    """What is asked for after these handles have been dragged to these heights, as from the browser."""
    handles = json.loads(outcomes.draw(outcomes.solve(request)).model_dump_json())["handles"]
    for handle in handles:
        handle["y"] = places.get(handle["id"], handle["y"])
    return outcomes.read({"handles": [{key: handle[key] for key in ("id", "x", "y")} for handle in handles]})


@pytest.mark.parametrize("request_", DISCRETE.values(), ids=DISCRETE)
def test_the_numbers_of_outcomes_are_scipys(scipy: Any, request_: CrossEntropyRequest) -> None:
    p, q = np.array(request_.p), np.array(request_.q)
    found = outcomes.numbers(outcomes.solve(request_))
    for unit, base in (("bits", 2), ("nats", math.e)):
        assert found[unit]["entropy"] == pytest.approx(scipy.stats.entropy(p, base=base))
        for name, (a, b) in {"forward_kl": (p, q), "reverse_kl": (q, p)}.items():
            assert float(found[unit][name]) == pytest.approx(scipy.stats.entropy(a, b, base=base), abs=1e-12)
        assert float(found[unit]["cross_entropy"]) == pytest.approx(
            scipy.stats.entropy(p, base=base) + scipy.stats.entropy(p, q, base=base)
        )
    each = {name: np.array([float(value) for value in values]) for name, values in found["bits_of_each"].items()}
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(each["code_p"], -np.log2(p))
        np.testing.assert_allclose(each["code_q"], -np.log2(q))
    np.testing.assert_allclose(each["forward_terms"], scipy.special.rel_entr(p, q) / math.log(2), atol=1e-12)
    np.testing.assert_allclose(each["reverse_terms"], scipy.special.rel_entr(q, p) / math.log(2), atol=1e-12)
    json.dumps(found, allow_nan=False)


def test_powers_of_one_half_have_whole_code_lengths() -> None:
    """H(p) = 31/16 bits, and a code for six equal outcomes takes log₂ 6 whatever p is."""
    found = outcomes.numbers(outcomes.solve(DISCRETE["powers of one half"]))
    assert found["bits_of_each"]["code_p"] == pytest.approx([1, 2, 3, 4, 5, 5])
    assert found["bits"]["entropy"] == pytest.approx(31 / 16)
    assert found["bits"]["cross_entropy"] == pytest.approx(math.log2(6))


def test_what_is_infinite_is_shown_as_such() -> None:
    data = outcomes.draw(outcomes.solve(DISCRETE["q forgets one"]))
    lengths, totals, forward, reverse = (panel.layers[0] for panel in data.panels[2:])
    assert lengths.texts[5] == forward.texts[5] == "∞"
    assert [text.startswith("∞") for text in totals.texts] == [False, True, True, False]
    assert "∞" not in "".join(reverse.texts)
    for panel in data.panels:
        axis = panel.x if panel.layers[0].horizontal else panel.y
        for bar in zip(*(stack.values for stack in panel.layers[0].stacks), strict=True):
            assert axis.low <= sum(bar) <= axis.high
    assert "KL[p‖q]\u00a0=\u00a0∞" in choose(data.caption)
    assert "q is zero where p is not, at f" in choose(data.caption)
    assert "在 f 处 q 为零而 p 不为零" in choose(data.caption, "zh")


@pytest.mark.parametrize("name", DISCRETE)
def test_the_bars_show_what_they_stand_for(name: str) -> None:
    result = outcomes.solve(DISCRETE[name])
    panels = outcomes.draw(result).panels
    assert panels[0].layers[0].stacks[0].values == pytest.approx(result.request.p)
    assert panels[1].layers[0].stacks[0].values == pytest.approx(result.request.q)
    total = [sum(bar) for bar in zip(*(stack.values for stack in panels[3].layers[0].stacks), strict=True)]
    assert [t for t, b in zip(total, result.bits, strict=True) if b < math.inf] == pytest.approx(
        [b for b in result.bits if b < math.inf], abs=1e-12
    )
    for panel, expected in ((panels[4], result.forward_terms), (panels[5], result.reverse_terms)):
        for bar, value in zip(panel.layers[0].stacks[0].values, expected, strict=True):
            assert bar == value or value == math.inf


def test_a_dragged_bar_stays_and_the_others_make_room_in_their_proportion() -> None:
    request = DISCRETE["nearly right"]
    assert dragged(request).p == pytest.approx(request.p)
    moved = dragged(request, p0=0.5, q3=0)
    assert moved.p == pytest.approx([0.5, *(v * 0.5 / 0.65 for v in request.p[1:])])
    assert moved.q == pytest.approx([v / 0.85 if i != 3 else 0 for i, v in enumerate(request.q)])
    assert moved.q[3] == 0
    assert dragged(moved, q0=0.3).q[3] == 0, "a zero stays one"
    assert dragged(request, p0=1).p == (1, 0, 0, 0, 0, 0)
    assert dragged(CrossEntropyRequest((1, 0, 0, 0, 0, 0), request.q), p0=0.5).p == pytest.approx([0.5] + [0.1] * 5)
    assert dragged(request, p0=0.9, p1=0.6).p == pytest.approx([0.6, 0.4, 0, 0, 0, 0])


def test_bars_that_are_dragged_anywhere_give_distributions() -> None:
    for far in (-1e300, -1, 0, 0.5, 2, 1e300):
        for ids in (["p0"], ["q5", "q1"], [f"p{i}" for i in range(6)], outcomes.HANDLES):
            found = dragged(DISCRETE["q sees two"], **dict.fromkeys(ids, far))
            assert math.fsum(found.p) == pytest.approx(1)
            assert parse_cross_entropy(list(found.p), list(found.q)) == found


@pytest.mark.parametrize(
    "value",
    [None, "p", {}, 1, [], [1.0], [0.5, 0.4], [0.5, 0.6], [1.5, -0.5], [True, False], ["1", 0], [math.nan, 1], [1 / 17] * 17],
)
def test_what_is_no_distribution_is_refused_in_both_languages(value: Any) -> None:
    for name, p, q in (("p", value, [0.5, 0.5]), ("q", [0.5, 0.5], value)):
        with pytest.raises(LimitError, match=rf"{name}: expected 2 to 16 probabilities that sum to 1, got") as refusal:
            parse_cross_entropy(p, q)
        assert "和为 1 的概率" in refusal.value.text


def test_rounded_probabilities_are_taken_and_unequal_lengths_are_not() -> None:
    assert parse_cross_entropy([0.333, 0.333, 0.333], [1, 0, 0]).p == pytest.approx([1 / 3] * 3)
    with pytest.raises(LimitError, match=r"q: expected as many probabilities as p has, 3, got 2"):
        parse_cross_entropy([0.25, 0.25, 0.5], [0.5, 0.5])


# ---- on the server and in the browser ----


@pytest.fixture(scope="module")
def site() -> Iterator[SimpleNamespace]:
    import gradio as gr

    with gr.Blocks(title="KL", analytics_enabled=False) as blocks:
        tab.build(None, Runner(), blocks)  # type: ignore[arg-type]
    with tiny.served(blocks) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        yield SimpleNamespace(url=url, http=http)


def test_the_endpoint_gives_the_pages_numbers_and_refuses_what_is_outside(site: SimpleNamespace) -> None:
    event, (result,) = tiny.called(site.http, "divergence", asdict(FIRST))
    assert event == "complete"
    assert result == json.loads(json.dumps(numbers(solve(FIRST))))
    for name, value in (("weight", 1), ("left_std", 0), ("start_mean", "0"), ("right_mean", None)):
        event, answer = tiny.called(site.http, "divergence", {**asdict(FIRST), name: value})
        assert event == "error"
        assert "expected a number from" in answer["error"]


def test_the_endpoint_of_outcomes_says_infinity_and_refuses_what_is_no_distribution(site: SimpleNamespace) -> None:
    body = {"p": [0.5, 0.25, 0.25], "q": [0.5, 0.5, 0]}
    event, (result,) = tiny.called(site.http, "cross_entropy", body)
    assert event == "complete"
    assert result["bits"] == {
        "entropy": pytest.approx(1.5),
        "cross_entropy": "Infinity",
        "forward_kl": "Infinity",
        "reverse_kl": pytest.approx(0.5),
    }
    assert float(result["bits_of_each"]["forward_terms"][2]) == math.inf
    event, answer = tiny.called(site.http, "cross_entropy", {**body, "q": [0.5, 0.6, 0]})
    assert event == "error"
    assert "q: expected 2 to 16 probabilities that sum to 1" in answer["error"]


@pytest.fixture(scope="module")
def page(site: SimpleNamespace, browser: Any) -> Any:
    page = tiny.watched(browser.new_context(viewport={"width": 1280, "height": 1000}, locale="en-GB").new_page())
    page.goto(site.url)
    page.locator("#divergence .hand").first.wait_for()
    return page


def fitted(page: Any) -> dict[str, float]:
    """The numbers of the caption."""
    text = page.locator("#divergence .caption").inner_text().replace("−", "-").replace("\u00a0", " ")
    found = re.findall(r"m = (-?[\d.]+), s = ([\d.]+), KL\[.‖.\] = ([\d.]+)", text)
    return dict(zip(("m_f", "s_f", "kl_f", "m_r", "s_r", "kl_r"), (float(v) for group in found for v in group), strict=True))


def wait(page: Any, text: str) -> None:
    page.locator("#divergence .caption").get_by_text(re.compile(text.replace(" ", r"\s"))).wait_for()


def drag(page: Any, handle: str, dx: float) -> None:
    """In the first panel, by dx in units of x, with the mouse."""
    plot = page.locator("#divergence .plot").nth(0)
    width = float(plot.locator("clipPath rect").get_attribute("width"))
    x, y = tiny.take(page, plot.locator(f'[data-handle="{handle}"]'))
    page.mouse.move(x + dx / 32 * width, y, steps=2)
    page.mouse.move(x + dx / 16 * width, y, steps=3)
    page.mouse.up()


def test_a_student_does_figure_1(page: Any) -> None:
    """Forward between the modes, reverse on one; a dragged mode takes its q along; the other start finds the other mode."""
    first = fitted(page)
    assert first["m_f"] == pytest.approx(0.3, abs=0.05)
    assert first["m_r"] == pytest.approx(FIRST.left_mean, abs=0.05)

    drag(page, "left", -0.5)
    wait(page, r"reverse: m = −3\.(4[89]|5[0-2])")
    moved, end = fitted(page), numbers(solve(replace(FIRST, left_mean=-3.5)))
    for key, side in (("f", "forward"), ("r", "reverse")):
        last = end[side]["steps"][-1]
        expected = (last["mean"], last["std"], last[f"{side}_kl"])
        assert (moved[f"m_{key}"], moved[f"s_{key}"], moved[f"kl_{key}"]) == pytest.approx(expected, abs=0.03)

    page.click("#divergence-run")
    page.locator("#divergence .count").get_by_text(re.compile(r"^(\d+) / \1$")).wait_for()
    assert fitted(page) == pytest.approx(moved, abs=2e-3)
    asked = len(page.asked)
    scrub = page.locator("#divergence .scrub")
    scrub.press("Home")
    start = fitted(page)
    assert (start["m_f"], start["s_f"]) == (start["m_r"], start["s_r"]) == pytest.approx((-1, 0.7))
    scrub.press("End")
    assert fitted(page) == pytest.approx(moved, abs=2e-3)
    assert len(page.asked) == asked, "playing asks the server for nothing"

    page.click("#divergence-other")
    wait(page, r"reverse: m = 2\.99")
    scrub.press("End")
    other = fitted(page)
    assert other["m_r"] == pytest.approx(3, abs=0.05)
    assert other["m_f"] == pytest.approx(moved["m_f"], abs=2e-3)
    assert other["kl_r"] < moved["kl_r"], "the heavier mode is the better optimum"
    assert page.problems == []


def test_the_start_is_moved_by_key_and_an_example_is_chosen(page: Any) -> None:
    page.get_by_text("far apart").click()
    wait(page, "reverse: m = −4.500")
    start = page.locator('#divergence [data-handle="start"]').first
    assert start.get_attribute("aria-label") == "start of q: mean"
    start.focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    wait(page, "fitted.*reverse: m = 4.500")
    assert (
        page.locator("#divergence [role=img]")
        .nth(1)
        .get_attribute("aria-label")
        .startswith("reverse, KL[q‖p]: q picks a mode.")
    )
    assert page.problems == []


def test_on_a_phone_each_of_two_handles_is_taken_where_it_is_seen(page: Any) -> None:
    """The narrowest mode: its width's handle stands beside its top, and whichever is nearer to the finger moves."""
    wide = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 840})
    page.get_by_text("narrow and wide").click()
    wait(page, "reverse: m = −2.4")
    plot = page.locator("#divergence .plot").nth(0)
    plot.scroll_into_view_if_needed()

    def middle(handle: str) -> tuple[float, float]:
        box = plot.locator(f'[data-handle="{handle}"] .grip').bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def places() -> dict[str, str]:
        return {name: plot.locator(f'[data-handle="{name}"]').get_attribute("aria-valuenow") for name in (handle, other)}

    def rested() -> dict[str, str]:
        """Where the two handles are once no answer to what was asked before puts them elsewhere."""
        found = [places()]
        while len(found) < 6 or any(each != found[-1] for each in found[-6:]):
            page.wait_for_timeout(200)
            found.append(places())
        return found[-1]

    for handle, other in (("left", "left_width"), ("left_width", "left"), ("start", "start_width"), ("start_width", "start")):
        before = rested()
        (x, y), (x2, y2) = middle(handle), middle(other)
        assert math.hypot(x - x2, y - y2) > 18
        x += (x2 - x) / 3
        y += (y2 - y) / 3
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 12, y, steps=3)
        page.mouse.up()
        after = places()
        assert after[handle] != before[handle]
        if handle.endswith("_width"):
            assert after[other] == before[other]
    page.set_viewport_size(wide)
    assert page.problems == []


def said(page: Any) -> dict[str, float]:
    """The numbers of the discrete figure's caption, in bits."""
    text = page.locator("#outcomes .caption").inner_text().replace("\u00a0", " ")
    return {name: math.inf if value == "∞" else float(value) for name, value in re.findall(r"(\S+) = ([\d.]+\d|∞)", text)}


def test_a_student_drags_a_probability_to_zero(scipy: Any, page: Any) -> None:
    """The numbers are those of the bars as they stand; forward KL is infinite once q forgets what happens."""
    first = DISCRETE["nearly right"]
    assert said(page)["KL[p‖q]"] == pytest.approx(scipy.stats.entropy(first.p, first.q, base=2), abs=1e-3)
    x, y = tiny.take(page, page.locator('#outcomes [data-handle="q2"]'))
    page.mouse.move(x, y + 20, steps=3)
    page.mouse.move(x, y + 400, steps=5)
    page.mouse.up()
    page.locator("#outcomes .caption").get_by_text("q is zero where p is not, at c").wait_for()
    q = [v / 0.75 if i != 2 else 0 for i, v in enumerate(first.q)]
    found = said(page)
    assert found["KL[p‖q]"] == found["H(p,q)"] == math.inf
    assert found["KL[q‖p]"] == pytest.approx(scipy.stats.entropy(q, first.p, base=2), abs=2e-3)
    others = [page.locator(f'#outcomes [data-handle="q{i}"]').get_attribute("aria-valuenow") for i in range(6)]
    assert [float(value) for value in others] == pytest.approx(q, abs=1e-3)

    slider = page.locator('#outcomes [data-handle="q2"]')
    assert slider.get_attribute("aria-label") == "q of outcome c"
    slider.focus()
    page.keyboard.press("Shift+ArrowUp")
    page.locator("#outcomes .caption").get_by_text(re.compile(r"KL\[p‖q\]\s=\s\d")).wait_for()
    up = float(slider.get_attribute("aria-valuenow"))
    q = [v / 0.75 * (1 - up) if i != 2 else up for i, v in enumerate(first.q)]
    assert said(page)["KL[p‖q]"] == pytest.approx(scipy.stats.entropy(first.p, q, base=2), abs=2e-3)

    page.locator("#outcomes-example").get_by_text("q = p").click()
    page.locator("#outcomes .caption").get_by_text(re.compile(r"KL\[p‖q\]\s=\s0\.000 bits are wasted")).wait_for()
    assert said(page)["H(p)"] == said(page)["H(p,q)"]
    assert page.problems == []
