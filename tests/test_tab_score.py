"""The Score tab: its fields are gradients of the density, its walks start where it says, and a student can use it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genlab.demo import live
from genlab.demo.components.figure import Packed
from genlab.demo.limits import LimitError
from genlab.demo.tabs.points import SCHEDULE, T
from genlab.demo.tabs.score import build as tab
from genlab.demo.tabs.score import compute, figure
from genlab.demo.tabs.score.compute import Nets, errors, exact, flow_paths, fresh_net
from genlab.demo.tabs.score.figure import draw, flow_animation, langevin_animation, numbers, read, reverse_animation
from genlab.demo.tabs.score.request import LEVEL, ScoreRequest, parse_score
from genlab.demo.turns import Runner
from genlab.plane import DATA_NAMES
from genlab.process import q_marginal
from genlab.serving.language import choose
from tests import tiny

FRESH = fresh_net()


def noisy(data: Any, t: int) -> MixtureSameFamily:
    """q(x_t) of another library."""
    oracle, alpha_bar = exact(data), float(SCHEDULE.alpha_bar[t])
    std = (alpha_bar * oracle.variance + 1 - alpha_bar).sqrt().expand_as(oracle.mean)
    return MixtureSameFamily(Categorical(oracle.weight), Independent(Normal(alpha_bar**0.5 * oracle.mean, std), 1))


def values(series: Any) -> np.ndarray:
    return series.values() if isinstance(series, Packed) else np.asarray(series, dtype=float)


# ---- the numbers


@pytest.mark.parametrize(("data", "t"), [("blobs", 1), ("gaussians", 40), ("moons", 25), ("spiral", T)])
def test_the_exact_field_is_the_gradient_of_the_log_density(data: Any, t: int) -> None:
    result = numbers(ScoreRequest(data, t, 7), 0, FRESH)
    line = torch.tensor(result["grid"], dtype=torch.float64)
    x = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).requires_grad_()  # [row: y][column: x]
    log_density = noisy(data, t).log_prob(x)
    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    torch.testing.assert_close(torch.tensor(result["exact"]).double(), gradient, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.tensor(result["log_density"]).double(), log_density.detach(), rtol=1e-4, atol=1e-4)
    assert result["sigma"] ** 2 + result["alpha_bar"] == pytest.approx(1)


def test_the_learned_field_is_the_noise_seen_over_sigma() -> None:
    result = numbers(ScoreRequest("moons", 50, 5), 0, FRESH)
    x = torch.tensor([[result["grid"][3], result["grid"][1]]])
    eps_hat = FRESH.predict(x, torch.tensor([50])).eps_hat[0]
    assert result["learned"][1][3] == pytest.approx((-eps_hat / result["sigma"]).tolist(), rel=1e-4)


def test_the_error_is_0_for_the_exact_score_and_all_of_it_for_none() -> None:
    oracle = exact("blobs")
    assert errors(oracle, oracle, "blobs", 30)[0] == 0
    nothing = SimpleNamespace(predict=lambda x, t: SimpleNamespace(eps_hat=torch.zeros_like(x)))
    error, norm = errors(oracle, nothing, "blobs", 30)  # type: ignore[arg-type]
    assert error == norm
    assert errors(oracle, nothing, "blobs", T)[1] == pytest.approx(2, abs=4 * 2 / compute.DRAWS**0.5)  # type: ignore[arg-type]


# ---- what is drawn


def test_arrows_point_along_the_score_and_grow_with_its_root() -> None:
    drawn = draw("blobs", 20, 0, FRESH)
    arrows = drawn.panels[0].layers[-1]
    x = torch.tensor(np.stack([values(arrows.x), values(arrows.y)], axis=1))
    way = np.stack([values(arrows.u), values(arrows.v)], axis=1)
    s = (1 - float(SCHEDULE.alpha_bar[20])) * exact("blobs").score(x, torch.full((len(x),), 20)).numpy()
    length = np.linalg.norm(s, axis=1, keepdims=True)
    np.testing.assert_allclose(way, figure.ARROW * s / np.sqrt(length), atol=2e-3)


def test_the_heat_map_is_the_density_and_the_right_way_up() -> None:
    heat = draw("blobs", 10, 0, FRESH).panels[0].layers[0]
    density = values(heat.values).reshape(figure.HEAT, figure.HEAT)
    line = torch.linspace(-compute.REACH, compute.REACH, figure.HEAT, dtype=torch.float64)
    x = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    expected = noisy("blobs", 10).log_prob(x).exp().flip(0).numpy()
    np.testing.assert_allclose(density, expected / expected.max(), atol=2e-3)
    assert np.argmax(density.max(axis=1)) < figure.HEAT / 2  # the heaviest blob is the upper one


def test_the_walks_of_a_panel_start_together_and_grow() -> None:
    walks = reverse_animation("blobs", 25, 0, FRESH, 3)
    first, last = walks.frames[0].layers, walks.frames[-1].layers
    for name in ("exact", "learned"):
        sde, ode = (values(first[f"{name}-{way}"]["y"]).reshape(figure.STARTS, -1) for way in ("sde", "ode"))
        np.testing.assert_allclose(sde[:, 0], ode[:, 0], atol=1e-3)
        assert np.isnan(sde[:, 1:]).all()
        ends = values(last[f"{name}-ode"]["y"]).reshape(figure.STARTS, -1)
        assert not np.isnan(ends[:, :-1]).any()
    assert [frame.layers["now"]["at"] for frame in walks.frames][:: len(walks.frames) - 1] == [T, 0]


def test_a_flow_without_chance_comes_to_the_data() -> None:
    walks = reverse_animation("gaussians", 25, 0, FRESH, 0)
    x, y = (values(v).reshape(figure.STARTS, -1)[:, -2] for v in (walks.panels[0].layers[3].x, walks.panels[0].layers[3].y))
    away = torch.cdist(torch.tensor(np.stack([x, y], axis=1)), exact("gaussians").mean).min(dim=1).values
    assert float(away.max()) < 5 * 0.07


@pytest.mark.parametrize("data", ["gaussians", "blobs"])
def test_both_flows_begin_and_end_together_and_neither_is_straight(data: Any) -> None:
    curved, straight = flow_paths(data, 0)
    torch.testing.assert_close(curved.path[0], straight.path[0] * straight.units[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(curved.path[-1], straight.path[-1], rtol=0, atol=0.1)
    assert min(straight.detour, curved.detour) > 1.1, "lines between points and noise cross"
    frames = flow_animation(data, 25, 0).frames
    assert f"diffusion {curved.detour:.3f}, flow matching {straight.detour:.3f}" in choose(frames[-1].caption)
    assert not np.isnan(values(frames[-1].layers["learned-path"]["y"]).reshape(compute.PATHS, -1)[:, :-1]).any()


def test_particles_walk_from_a_lattice_with_the_same_noise_to_both_scores() -> None:
    walks = langevin_animation("blobs", 60, 0, exact("blobs"), 0)  # type: ignore[arg-type]
    for frame in (walks.frames[0], walks.frames[-1]):
        for axis in ("x", "y"):
            a, b = (values(frame.layers[f"{name}-cloud"][axis]) for name in ("exact", "learned"))
            np.testing.assert_allclose(a, b, atol=1e-3)
    alpha_bar, end = float(SCHEDULE.alpha_bar[60]), walks.frames[-1].layers["exact-cloud"]
    cloud = np.stack([values(end["x"]), values(end["y"])], axis=1)
    x0 = exact("blobs").sample(20_000, torch.Generator().manual_seed(0))
    expected = q_marginal(SCHEDULE, x0, torch.full((len(x0),), 60)).sample(torch.randn_like(x0))
    np.testing.assert_allclose(cloud.mean(axis=0), expected.mean(dim=0), atol=5 / len(cloud) ** 0.5)
    assert 1 - alpha_bar < cloud.var() < 1.5 * float(expected.var())


# ---- requests


def test_a_handle_that_is_dragged_anywhere_asks_for_a_whole_t_of_the_chain() -> None:
    for x, t in ((-1e300, 1), (0, 1), (0.4, 1), (77.6, 78), (T + 9, T), (1e300, T)):
        assert read({"handles": [{"id": "level", "x": x, "y": 0}]}, "moons") == ("moons", t)
    with pytest.raises(LimitError, match="data set: expected one of moons"):
        read({"handles": [{"id": "level", "x": 5, "y": 0}]}, "drawing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"t": v}, "noise level t: expected a whole number from 1 to 200") for v in (0, 201, 1.5, None, "9", True, math.nan)),
        *(({"side": v}, "points along a side of the grid: expected a whole number") for v in (2, 42, 10**400, [])),
        *(({"data": v}, r"data set: expected one of moons, ") for v in ("x", None, ["moons"], "drawing")),
    ],
)  # fmt: skip
def test_what_is_outside_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LimitError, match=message):
        parse_score(**{"data": "moons", "t": 25, "side": 13, **changes})


# ---- learning


def test_what_a_busy_machine_cut_short_is_learned_again_until_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = Nets()
    monkeypatch.setattr(compute, "LEARN_STEPS", 100)
    deadline = live.DEADLINE
    monkeypatch.setattr(live, "DEADLINE", 0.0)
    assert list(nets.learn("blobs")) == []
    assert nets.get("blobs")[0] == 0
    monkeypatch.setattr(live, "SECONDS", 1e-6)
    monkeypatch.setattr(live, "DEADLINE", deadline)
    list(nets.learn("blobs"))
    assert 0 < nets.get("blobs")[0] < 100
    monkeypatch.undo()
    monkeypatch.setattr(compute, "LEARN_STEPS", 100)
    list(nets.learn("blobs"))
    assert nets.get("blobs")[0] == 100


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(compute, "LEARN_STEPS", 150)
    return 150


def test_a_network_learns_once_for_everybody_and_no_further_where_it_is_left(few_steps: int) -> None:
    nets = Nets()
    left = nets.learn("blobs")
    first = next(left)
    assert len(live.LINE) == 1
    left.close()
    assert len(live.LINE) == 0
    steps, kept = nets.get("blobs")
    assert steps == first.step == live.EVERY  # type: ignore[union-attr]
    weights = [weight.clone() for weight in kept.parameters()]
    *_, last = nets.learn("blobs")
    assert all(torch.equal(*pair) for pair in zip(kept.parameters(), weights, strict=True))
    steps, net = nets.get("blobs")
    assert steps == last.step == few_steps  # type: ignore[union-attr]
    assert list(nets.learn("blobs")) == []
    before, after = (errors(exact("blobs"), one, "blobs", 25)[0] for one in (FRESH, net))
    assert after < before / 2


# ---- on the server and in the browser


@pytest.fixture(scope="module")
def site() -> Iterator[SimpleNamespace]:
    import gradio as gr

    with gr.Blocks(title="Score", analytics_enabled=False) as blocks:
        tab.build(None, Runner(), blocks)  # type: ignore[arg-type]
    with tiny.served(blocks) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        yield SimpleNamespace(url=url, http=http)


def test_the_endpoint_learns_and_gives_the_numbers(site: SimpleNamespace, few_steps: int) -> None:
    for body, expected in (
        ({"data": "blobs", "t": 30, "side": 5}, ""),
        ({"data": "blobs", "t": 0, "side": 5}, "noise level t"),
    ):
        begun = site.http.post("/gradio_api/call/v2/score", json=body)
        events = site.http.get(f"/gradio_api/call/v2/score/{begun.json()['event_id']}").text
        last = json.loads(events.strip().rsplit("data: ", 1)[1])
        if expected:
            assert last["error"].startswith(expected)
            continue
        fresh = numbers(ScoreRequest("blobs", 30, 5), 0, FRESH)
        assert last[0]["exact"] == json.loads(json.dumps(fresh["exact"]))
        assert last[0]["learning_steps"] == few_steps
        assert last[0]["error"] < fresh["error"]


def test_a_student_drags_the_noise_level_trains_and_plays(site: SimpleNamespace, browser: Any, few_steps: int) -> None:
    page = tiny.watched(browser.new_context(viewport={"width": 1280, "height": 1100}, locale="en-GB").new_page())
    page.goto(site.url)
    caption = page.locator("#score .caption")
    caption.get_by_text(f"at t = {LEVEL.default:.0f}").wait_for()  # the film

    handle = page.locator('#score [data-handle="level"]')
    x, y = tiny.take(page, handle)
    page.mouse.move(x + 150, y, steps=4)
    page.mouse.up()
    caption.get_by_text(re.compile(r"t = (4|5|6)\d of")).wait_for()
    page.get_by_text("not yet trained").wait_for()
    handle.focus()
    page.keyboard.press("Home")  # no key of a handle: it stays
    page.keyboard.press("ArrowLeft")
    caption.get_by_text(re.compile(r"mean ‖ŝ − s‖² = [\d.]+")).wait_for()

    page.get_by_text(re.compile("^moons$")).click()
    page.click("#score-train")
    page.get_by_text("learned score ŝ, after 150 steps").wait_for()
    buttons = {
        "#score-langevin": figure.CROWD_STEPS // figure.CROWD_EVERY + 1,
        "#score-reverse": figure.WALK_STEPS // figure.WALK_EVERY + 1,
        "#score-flow": compute.PATH_STEPS // figure.WALK_EVERY + 1,
    }
    for button, last in buttons.items():
        page.click(button)
        page.locator("#score .count").get_by_text(f"{last} / {last}").wait_for()
        count = len(page.asked)
        page.locator("#score .scrub").press("Home")
        page.locator("#score .count").get_by_text(f"1 / {last}").wait_for()
        assert len(page.asked) == count, "playing asks the server for nothing"
    assert page.problems == []


def test_stop_keeps_what_was_learned_and_says_so(site: SimpleNamespace, browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "LEARN_STEPS", 10**6)
    page = tiny.watched(browser.new_context(viewport={"width": 1280, "height": 1100}, locale="en-GB").new_page())
    page.goto(site.url)
    page.get_by_text(re.compile("^rings$")).click()
    page.click("#score-train")
    caption = page.locator("#score .caption")
    caption.get_by_text(re.compile(r"step \d+ of 1000000")).wait_for()
    page.get_by_role("button", name="Stop").click()
    caption.get_by_text(re.compile(r"^t = ")).wait_for()
    page.get_by_text(re.compile(r"learned score ŝ, after [\d,]+ steps")).wait_for()
    for _ in range(50):
        if not len(live.LINE):
            break
        page.wait_for_timeout(100)
    assert len(live.LINE) == 0
    assert page.problems == []


def test_every_data_set_can_be_shown() -> None:
    for data in DATA_NAMES:
        assert len(draw(data, 25, 0, FRESH).model_dump_json()) < 60_000
