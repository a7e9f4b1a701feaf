"""The Playground: what may be asked, links, live training that stops and disturbs nobody, and a student who draws."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
import httpx
import numpy as np
import pytest
import torch

from genlab.demo import live
from genlab.demo.components.figure import Packed
from genlab.demo.limits import LimitError
from genlab.demo.live import Line, LiveError, Store
from genlab.demo.tabs.playground import build as tab
from genlab.demo.tabs.playground.compute import Run, data_of, play, samples
from genlab.demo.tabs.playground.figure import CROWD, MARKS, animation
from genlab.demo.tabs.playground.request import (
    DATA,
    DRAWING,
    MODELS,
    WALKS,
    PlaygroundRequest,
    parse_marks,
    parse_playground,
    read_link,
    rounded,
    write_link,
)
from genlab.demo.turns import Runner
from genlab.plane import MAX_DRAWN
from tests import tiny

GOOD = {"data": "moons", "points": None, "model": "DDPM", "walk": "flow", "steps": 100, "seed": 1}


def until(true: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def values(series: Any) -> np.ndarray:
    return series.values() if isinstance(series, Packed) else np.asarray(series, dtype=float)


# ---- requests and links


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"data": v}, "data set: expected one of moons, ") for v in ("x", None, 3, ["moons"])),
        *(({"model": v}, "model: expected one of DDPM, score model, flow matching, VAE") for v in ("ddpm", None, {})),
        *(({"walk": v}, "way back: expected one of reverse SDE, flow, Langevin") for v in ("ancestral", None)),
        *(({"steps": v}, "steps of learning: expected a number") for v in (0, 99, 150, 3100, math.inf, "100", None)),
        *(({"seed": v}, "seed: expected a whole number") for v in (-1, 2**32, 0.5, None)),
        ({"points": [[0, 0]]}, "points: expected none beside the data set moons"),
        *(({"data": DRAWING, "points": v}, "nothing is drawn yet") for v in (None, [])),
        *(
            ({"data": DRAWING, "points": v}, r"points: expected 1 to 2000 pairs \[x, y\] of numbers from −1 to 1, got")
            for v in ("ab", {"x": 1}, [1, 2], [[1]], [[0, 0, 0]], [[0, 1.1]], [[0, math.nan]], [[0, None]], [[0, True]],
                      [[0, "1"]], [[0, 10**400]], [[0, 0]] * (MAX_DRAWN + 1), ["<b>"])
        ),
    ],
)  # fmt: skip
def test_what_is_outside_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LimitError, match=message) as refusal:
        parse_playground(**{**GOOD, **changes})
    assert "应为" in refusal.value.text or "请用" in refusal.value.text or "不应" in refusal.value.text
    assert "<b>" not in str(refusal.value)


def test_a_link_brings_back_what_it_was_made_from() -> None:
    drawing = rounded(np.random.default_rng(0).uniform(-1.2, 1.2, (MAX_DRAWN, 2)))
    assert drawing == rounded(np.array(drawing))
    assert parse_marks(drawing) == drawing
    for i, data in enumerate(DATA):
        marks = drawing[: 1 + 700 * i] if data == DRAWING else ()
        request = PlaygroundRequest(data, marks, MODELS[i % 3], WALKS[i % 3], 100 * (i + 1), 2**32 - 1 - i)  # type: ignore[arg-type]
        link = write_link(request)
        assert read_link(dict(parse_qsl(link))) == request
        assert re.fullmatch(r"[\w=&+.-]*", link, re.ASCII)
        assert len(link) < 5500


def test_an_address_that_speaks_of_something_else_is_left_alone() -> None:
    assert read_link({}) is None
    assert read_link({"tab": "score", "data": "moons"}) is None
    assert read_link({"tab": "playground"}) is None
    assert read_link({"tab": "playground", "data": "rings", "lang": "zh", "__theme": "dark"}).data == "rings"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "<script>"}, {"steps": "1e3"}, {"steps": "９００"}, {"steps": "-100"}, {"steps": "9" * 400}, {"seed": "x"},
        {"seed": "4294967296"}, {"model": "vae"}, {"points": "AAAA"}, {"data": DRAWING}, {"data": DRAWING, "points": "A"},
        {"data": DRAWING, "points": "AAA=" }, {"data": DRAWING, "points": "AAAA"}, {"data": DRAWING, "points": "<img>"},
        {"data": DRAWING, "points": "A" * 5340}, {"data": DRAWING, "points": "A" * 10**6},
    ],
)  # fmt: skip
def test_a_damaged_link_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(LimitError) as refusal:
        read_link({"tab": "playground", "data": "moons", **changes})
    assert len(str(refusal.value)) < 300
    assert "<script>" not in str(refusal.value)
    assert "<img>" not in str(refusal.value)


# ---- the queue, and what is stored


def test_the_line_lets_some_in_in_the_order_of_coming_and_turns_the_rest_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL", 0)
    line = Line(running=1, waiting=2)
    places = [line.enter(visitor) for visitor in "abc"]
    assert [next(place) for place in places] == [0, 1, 2]
    with pytest.raises(LiveError, match="3 others are training here already"):
        next(line.enter("d"))
    places[1].close()
    assert next(places[2]) == 1
    places[0].close()
    assert next(places[2]) == 0
    places[2].close()
    assert len(line) == 0


def test_one_training_of_a_visitor_runs_and_turns_go_round_the_visitors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL", 0)
    line = Line(running=2, waiting=4)
    greedy = [line.enter("greedy") for _ in range(4)]
    assert [next(place) for place in greedy[:3]] == [0, 1, 2]
    with pytest.raises(LiveError, match="3 of your trainings run or wait here already"):
        next(greedy[3])
    others = [line.enter("other"), line.enter("third")]
    assert [next(place) for place in others] == [0, 3]
    greedy[0].close()
    assert next(others[1]) == 0
    others[0].close()
    assert next(greedy[1]) == 0


def test_a_training_that_is_turned_away_takes_nothing_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LINE", live.Line(running=1, waiting=0))
    kept: list[object] = []
    monkeypatch.setattr(live.Store, "put", lambda self, thing: kept.append(thing) or "name")
    with gr.Blocks() as demo:
        tab.build(None, Runner(), demo)  # type: ignore[arg-type]
    events = {fn.name: fn.fn for fn in demo.fns.values()}
    chosen = ("moons", None, "DDPM", "flow", 100, 0)
    with contextlib.closing(live.LINE.enter("another")) as place:
        next(place)
        training = events["train_it"](*chosen)
        next(training)
        with pytest.raises(gr.Error, match="training here already"):
            list(training)
    assert kept == []
    assert events["stopped"]("", *chosen) == events["fresh"](*chosen)[0]
    names = [name for _, name in events["train_it"](*chosen)]
    assert (len(kept), names[0], names[-1]) == (1, "", "name")


def test_what_is_stored_goes_after_a_while_or_when_there_is_more() -> None:
    now = [0.0]
    kept: Store[str] = Store(most=2, seconds=60, clock=lambda: now[0])
    first, second = kept.put("first"), kept.put("second")
    assert (kept.get(first), kept.get(second)) == ("first", "second")
    kept.get(first)
    third = kept.put("third")
    assert kept.get(first) == "first"
    for gone in (second, "", "0" * 32, None, 5, ["x"]):
        with pytest.raises(LiveError, match="no longer stored"):
            kept.get(gone)
    now[0] = 61
    with pytest.raises(LiveError, match="after 1 minutes"):
        kept.get(third)


# ---- learning


def learned(model: Any, walk: Any = "flow", steps: int = 100) -> Run:
    run = Run(PlaygroundRequest("blobs", (), model, walk, steps, 1))
    for _ in play(run.request, run):
        pass
    return run


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return {model: learned(model) for model in MODELS}


@pytest.mark.parametrize("model", MODELS)
def test_the_animation_shows_learning_forward_and_reverse(runs: dict[str, Run], model: str) -> None:
    run = runs[model]
    run.add(samples(run.request, run.model, CROWD))  # type: ignore[arg-type]
    data = animation(run, 5)
    first, there, back = (segment.start for segment in data.segments)
    assert (first, data.first) == (0, there)
    x0 = data_of("blobs", (), MARKS)[:CROWD]
    begin, end = data.frames[there].layers, data.frames[back - 1].layers
    np.testing.assert_allclose(values(begin["noisy"]["x"]), x0[:, 0], atol=1e-3)
    for cloud in (end["noisy"], data.frames[back].layers["noisy"]):  # the noise, or z: near N(0, I) in both directions
        assert abs(values(cloud["y"]).mean()) < 0.5
        assert 0.5 < values(cloud["y"]).std() < 1.5
    last = data.frames[-1].layers["samples"]
    assert values(last["x"]).shape == (CROWD,)
    assert values(last["x"]).std() < 0.9 < values(data.frames[back].layers["noisy"]["x"]).std()
    for frame in data.frames[there:]:  # what is noisy is never called a sample
        assert not (len(frame.layers.get("noisy", {"x": []})["x"]) and len(frame.layers["samples"]["x"]))
    assert ("field" in data.frames[back].layers) == (model == "score model")
    assert len(data.model_dump_json()) < 400_000


def test_the_same_request_learns_the_same_and_the_walks_differ(runs: dict[str, Run]) -> None:
    again = learned("score model")
    assert again.losses == runs["score model"].losses == runs["DDPM"].losses, "one network, learned in one way"
    requests = [PlaygroundRequest("blobs", (), "score model", walk, 100, 1) for walk in ("flow", "reverse SDE")]  # type: ignore[arg-type]
    flow, sde = (samples(request, again.model, 50) for request in requests)  # type: ignore[arg-type]
    torch.testing.assert_close(flow, samples(again.request, runs["score model"].model, 50))  # type: ignore[arg-type]
    assert float((flow - sde).norm(dim=1).mean()) > 0.05


def test_a_training_that_is_closed_stops_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    real = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a: steps.append(1) or real(self, *a))
    run = Run(PlaygroundRequest("moons", (), "VAE", "flow", 3000, 0))
    records = play(run.request, run)
    next(records)
    next(records)
    records.close()  # type: ignore[attr-defined]
    done = len(steps)
    assert done <= 2 * live.EVERY
    assert len(live.LINE) == 0
    assert live.on_worker(lambda: len(steps)) == done


def test_a_training_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SECONDS", 1e-3)
    assert learned("VAE", steps=3000).step <= 2 * live.EVERY
    monkeypatch.setattr(live, "SECONDS", 20.0)
    monkeypatch.setattr(live, "DEADLINE", 1e-3)
    assert learned("VAE", steps=3000).step <= 2 * live.EVERY


def test_the_thread_of_all_trainings_takes_one_core_and_leaves_the_others_theirs() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # whatever the machine has
    try:
        worker = live.Worker()
        assert worker.do(torch.get_num_threads) == 1
        assert torch.get_num_threads() == 2
        seen: list[int] = []
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [2]
    finally:
        torch.set_num_threads(before)


# ---- on the server and in the browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    models = tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))
    with tiny.serving(models) as url, httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        yield SimpleNamespace(url=url, http=http)


def begin(site: SimpleNamespace, name: str, body: dict[str, Any]) -> str:
    begun = site.http.post(f"/gradio_api/call/v2/{name}", json=body)
    assert begun.status_code == 200, begun.text
    return f"/gradio_api/call/v2/{name}/{begun.json()['event_id']}"


def end(site: SimpleNamespace, name: str, body: dict[str, Any]) -> Any:
    return json.loads(site.http.get(begin(site, name, body)).text.strip().rsplit("data: ", 1)[1])


def test_the_endpoint_learns_a_drawing_and_refuses_what_is_none(site: SimpleNamespace) -> None:
    marks = [[0.5, -0.5], [0.55, -0.45]]
    body = {**GOOD, "data": DRAWING, "points": marks, "steps": 300, "count": 40}
    (result,) = end(site, "playground", body)
    assert (result["step"], result["steps"], len(result["samples"])) == (300, 300, 40)
    assert np.linalg.norm(np.mean(result["samples"], axis=0) - [0.525, -0.475]) < 0.2
    request = parse_playground(DRAWING, marks, "DDPM", "flow", 300, 1)
    run = Run(request)
    for _ in play(request, run):
        pass
    assert result["loss"] == pytest.approx(run.losses[-1][1], rel=1e-3)
    np.testing.assert_allclose(result["samples"], samples(request, run.model, 40), atol=1e-2)  # type: ignore[arg-type]
    for changes, message in (({"points": [[2, 0]]}, "points: expected"), ({"count": 2001}, "number of samples: expected")):
        assert end(site, "playground", {**body, **changes})["error"].startswith(message)
    assert len(live.LINE) == 0


def test_models_answer_while_somebody_trains_and_a_stream_that_is_left_ends_the_training(site: SimpleNamespace) -> None:
    stream = begin(site, "playground", {**GOOD, "steps": 3000, "count": 1})
    with site.http.stream("GET", stream) as reply:
        lines = reply.iter_lines()  # kept, for the stream closes with it
        assert any(line.startswith("data: ") and '"step"' in line for line in lines)
        sample = {"model": "ddpm-mnist", "label": "any", "count": 1, "steps": 3, "sampler": "DDIM", "guidance": 1, "seed": 0}
        assert end(site, "sample", sample)[0]["path"].endswith(".png")
        assert len(live.LINE) == 1, "the training goes on"
    assert until(lambda: len(live.LINE) == 0, 15)


def test_a_waiting_call_that_is_left_leaves_its_place(site: SimpleNamespace) -> None:
    body = {**GOOD, "steps": 100, "count": 1}
    with contextlib.ExitStack() as others:
        for visitor in "ab":
            assert next(others.enter_context(contextlib.closing(live.LINE.enter(visitor)))) == 0
        with contextlib.ExitStack() as calls:
            lines = calls.enter_context(site.http.stream("GET", begin(site, "playground", body))).iter_lines()
            calls.callback(lines.close)
            assert "data: [null]" in lines
            assert len(live.LINE) == 3
        assert until(lambda: len(live.LINE) == 2, 15)
    assert end(site, "playground", body)[0]["step"] == 100


CLOUD = "() => document.querySelectorAll('#playground canvas')[0].toDataURL()"


def test_a_student_draws_trains_stops_and_shares(site: SimpleNamespace, browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 1200}, locale="en-GB")
    page = tiny.watched(context.new_page())
    page.goto(site.url + "/?tab=playground")
    page.locator("#playground").get_by_role("button", name="Pause").wait_for()  # the film
    caption = page.locator("#playground .caption")

    surface = page.locator("#playground-data .surface").first
    box = surface.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y)
    page.mouse.down()
    page.mouse.move(x + 40, y - 30, steps=8)
    page.mouse.up()
    assert until(lambda: page.get_by_role("radio", name="your drawing").is_checked() or page.wait_for_timeout(50))

    page.click("#playground-train")
    page.wait_for_function("() => document.querySelector('#playground .scrub').disabled")  # the film is gone
    caption.get_by_text(re.compile(r"step \d+ of 1500")).wait_for()
    seen = page.evaluate(CLOUD)
    page.wait_for_function(f"seen => ({CLOUD})() !== seen", arg=seen)
    page.click("#playground-stop")
    page.wait_for_function("() => document.querySelector('#playground .scrub').max > 60")
    assert until(lambda: len(live.LINE) == 0)
    caption.get_by_text(re.compile("forward: noise is added|reverse: each step")).wait_for()
    page.wait_for_function("() => !document.getElementById('playground-again').disabled")
    page.click("#playground-again")
    caption.get_by_text("forward: noise is added").wait_for()

    page.get_by_role("radio", name="VAE").check()
    page.click("#playground-share")
    field = page.locator("#playground-link textarea, #playground-link input").first
    assert until(lambda: "points=" in field.input_value() or page.wait_for_timeout(50))
    link = field.input_value()
    request = read_link(dict(parse_qsl(link.partition("?")[2])))
    assert request is not None
    assert request.model == "VAE"
    slope = np.polyfit(*np.array(request.marks).T, 1)[0]
    assert slope == pytest.approx(30 / 80, abs=0.1)

    real = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a: time.sleep(0.02) or real(self, *a))  # 20 s, left alone
    page.click("#playground-train")
    caption.get_by_text(re.compile(r"step \d+ of 1500")).wait_for()
    assert len(live.LINE) == 1
    page.close()
    assert until(lambda: len(live.LINE) == 0, 10), "a visitor who leaves trains no more"

    left, page = page, tiny.watched(context.new_page())
    page.goto(link)
    page.get_by_role("radio", name="VAE").wait_for()
    assert page.get_by_role("radio", name="VAE").is_checked()
    assert page.get_by_role("radio", name="your drawing").is_checked()
    page.wait_for_function("() => !document.querySelector('#playground-data .wipe').disabled")
    page.click("#playground-share")
    field = page.locator("#playground-link textarea, #playground-link input").first
    assert until(lambda: bool(field.input_value()) or page.wait_for_timeout(50))
    assert field.input_value() == link
    context.close()
    assert left.problems + page.problems == []


def test_a_link_shows_its_data_on_the_board(site: SimpleNamespace, browser: Any) -> None:
    page = tiny.watched(browser.new_page(locale="en-GB"))
    page.goto(site.url + "/?tab=playground&data=spiral")
    page.locator("#playground-data [aria-label*='spiral']").first.wait_for(timeout=20_000)
    assert page.get_by_role("radio", name="spiral").is_checked()
    page.context.close()
    assert page.problems == []


def test_a_packed_drawing_is_two_bytes_a_point() -> None:
    query = dict(parse_qsl(write_link(PlaygroundRequest(DRAWING, ((-1.0, 1.0), (1.0, -1.0)), "VAE", "flow", 100, 0))))
    assert base64.urlsafe_b64decode(query["points"] + "==") == bytes([0, 255, 255, 0])
