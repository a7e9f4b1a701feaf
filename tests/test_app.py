"""The page's API as a Python client and a stranger see it, on the real server.

`PYTHONPATH=. python tests/test_app.py` writes the present shape to tests/api.json; look at the difference before you commit.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from genlab.data import ungrid
from genlab.demo.app import TABS, create_app, served_table
from genlab.demo.components.player import PlayerData
from genlab.demo.tabs.condition import request as condition
from genlab.demo.tabs.events import MODEL_EVENT
from genlab.demo.tabs.interpolate import request as interpolate
from genlab.demo.tabs.playground import request as playground
from genlab.demo.tabs.sample import compute, poster
from genlab.demo.tabs.sample import request as sample
from genlab.demo.turns import Runner, Scheduler
from genlab.serving.calls import Calls
from genlab.serving.language import choose
from tests import tiny
from tests.test_measurements import EVIDENCE

ROOT = Path(__file__).parents[1]
SHAPE = Path(__file__).with_name("api.json")
SAMPLE = {"model": "ddpm-mnist", "label": "any", "count": 4, "steps": 5, "sampler": "DDIM", "guidance": 1, "seed": 3}
INTERPOLATE = {
    "data": "mnist",
    "a_from": "test picture",
    "a_number": 0,
    "b_from": "seed",
    "b_number": 1,
    "points": 3,
    "steps": 10,
    "a_upload": None,
    "b_upload": None,
}
DIFFUSE = {
    "model": "ddpm-mnist",
    "picture_from": "test picture",
    "number": 0,
    "steps": 10,
    "sampler": "ancestral",
    "start": "the noise reached",
    "label": "any",
    "seed": 0,
    "upload": None,
    "until": 0,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("app")
    models = tiny.load_models([*tiny.save_models(folder / "models"), str(folder / "<b>broken")])
    demo = create_app(models, Runner())
    with tiny.served(demo) as url, httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        yield SimpleNamespace(
            models=models,
            demo=demo,
            url=url,
            http=http,
            client=Client(
                url, token=False, verbose=False, download_files=str(folder / "results"), httpx_kwargs={"timeout": 120}
            ),
            folder=folder,
        )


@pytest.fixture
def evaluations(site, monkeypatch) -> list[float]:
    """Times of the computations."""
    calls: list[float] = []
    real = Scheduler._call

    def call(self: Scheduler, *arguments: Any) -> Any:
        calls.append(time.monotonic())
        return real(self, *arguments)

    monkeypatch.setattr(Scheduler, "_call", call)
    return calls


def shape(client: Client) -> dict[str, Any]:
    """Names, types and defaults of the public endpoints."""
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    return {
        name: {
            "parameters": {
                p["parameter_name"]: {
                    "type": p["python_type"]["type"],
                    **({"default": p["parameter_default"]} if p["parameter_has_default"] else {}),
                }
                for p in endpoint["parameters"]
            },
            "returns": {r["label"]: r["python_type"]["type"] for r in endpoint["returns"]},
        }
        for name, endpoint in endpoints.items()
    }


def call(site: SimpleNamespace, name: str, data: list[Any]) -> tuple[str, Any]:
    """Last event of a call over plain HTTP: its name and content."""
    begun = site.http.post(f"/gradio_api/call/{name}", json={"data": data})
    if begun.status_code != 200:
        return str(begun.status_code), begun.text
    return tiny.last_event(site.http, f"/gradio_api/call/{name}/{begun.json()['event_id']}")


def test_the_shape_of_the_api_is_the_one_that_is_checked_in(site):
    assert shape(site.client) == json.loads(SHAPE.read_text())


def test_every_endpoint_is_described(site):
    described = site.http.get("/gradio_api/info").json()["named_endpoints"]
    assert described
    assert all(len(endpoint["description"]) > 100 for endpoint in described.values())


def test_models_are_listed(site):
    listed = site.client.predict(api_name="/models")
    assert [m["id"] for m in listed] == list(site.models)
    assert listed[0]["classes"][0] == "T-shirt/top"
    assert listed[2]["classes"] == []
    assert json.loads(json.dumps(listed)) == listed


def test_the_same_seed_gives_the_same_file_and_another_seed_another(site):
    first, again, other = (
        Path(site.client.predict(**{**SAMPLE, "seed": seed}, api_name="/sample")).read_bytes() for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_the_file_holds_the_pictures_exactly(site):
    path = site.client.predict(**SAMPLE, api_name="/sample")
    *_, last = compute.sample(site.models, Runner(), sample.parse_sample(site.models.offers, **SAMPLE))
    assert torch.equal(ungrid(Image.open(path), 4, 28, 2), last.pictures)


def test_what_is_left_out_takes_its_default(site):
    path = site.client.predict(model="vae-mnist", seed=1, api_name="/sample")
    with Image.open(path) as sheet:
        assert sheet.size == (4 * 30 + 2, 4 * 30 + 2)


def test_the_stream_ends_with_the_finished_pictures(site):
    frames = list(site.client.submit(**{**SAMPLE, "steps": 30}, api_name="/sample_stream"))
    assert len(frames) >= 2
    assert Path(frames[0]).read_bytes() != Path(frames[-1]).read_bytes()
    finished = site.client.predict(**{**SAMPLE, "steps": 30}, api_name="/sample")
    assert Path(frames[-1]).read_bytes() == Path(finished).read_bytes()


def test_paths_between_a_test_picture_a_seed_and_an_upload(site, tmp_path):
    path = site.client.predict(**INTERPOLATE, api_name="/interpolate")
    with Image.open(path) as sheet:
        assert sheet.size == (3 * 30 + 2, 3 * 30 + 2)
    white = tmp_path / "white.png"
    Image.new("RGB", (64, 48), "white").save(white)
    changes = {"b_from": "upload", "b_upload": handle_file(white)}
    uploaded = site.client.predict(**{**INTERPOLATE, **changes}, api_name="/interpolate")
    assert Path(uploaded).read_bytes() != Path(path).read_bytes()


def test_the_process_comes_as_an_animation_and_its_numbers(site):
    film, numbers = site.client.predict(**DIFFUSE, api_name="/diffuse")
    with Image.open(film) as picture:
        assert picture.format == "WEBP"
        assert picture.n_frames > 1
        assert picture.width == 3 * picture.height
    assert [n["direction"] for n in numbers] == ["forward"] * 11 + ["reverse"] * 11
    assert numbers[0] == {"direction": "forward", "t": 0, "alpha_bar": 1, "snr": None}
    schedule = site.models.ddpm("ddpm-mnist").schedule
    assert all(n["alpha_bar"] == pytest.approx(float(schedule.alpha_bar[n["t"]])) for n in numbers)


BAD: list[tuple[str, dict[str, Any], str]] = [
    *(("sample", {"count": v}, "number of pictures: expected") for v in (0, 65, 2.5, True, None, "5", [], {}, 10**400)),
    *(("sample", {"steps": v}, "steps: expected") for v in (251, 61, 1e308)),
    *(("sample", {"guidance": v}, "guidance: expected") for v in (8.5, 0.3)),
    *(("sample", {"seed": v}, "seed: expected") for v in (-1, 2**32, 2**64, 1.5)),
    *(("sample", {"model": v}, "model: expected one of") for v in ("nobody/nothing", "/etc/passwd", None, ["ddpm-mnist"])),
    *(("sample", {"label": v}, "class for ddpm-mnist: expected one of") for v in ("Shirt", 3, "<b>x</b>")),
    ("sample", {"sampler": "ddim"}, "sampler: expected one of"),
    ("sample_stream", {"count": 65}, "number of pictures: expected"),
    ("interpolate", {"data": "ddpm-mnist"}, "data set: expected one of"),
    ("interpolate", {"points": 2}, "points on the path: expected"),
    ("interpolate", {"steps": 61}, "steps: expected"),
    ("interpolate", {"a_number": 20}, "A, test picture: expected"),
    ("interpolate", {"b_number": -1}, "B, seed: expected"),
    ("interpolate", {"b_from": "upload"}, "B: expected an uploaded picture"),
    ("interpolate", {"a_from": None}, "A comes from: expected one of"),
    ("diffuse", {"model": "vae-mnist"}, "model: expected one of"),
    ("diffuse", {"picture_from": "seed"}, "Picture comes from: expected one of"),
    ("diffuse", {"start": "anywhere"}, "start of the way back: expected one of"),
    ("diffuse", {"steps": 1}, "steps: expected"),
]


@pytest.mark.parametrize(("name", "changes", "message"), BAD, ids=lambda v: str(v)[:40])
def test_a_bad_value_over_plain_http_is_refused_by_name_and_computes_nothing(site, evaluations, name, changes, message):
    good = {"sample": SAMPLE, "sample_stream": SAMPLE, "interpolate": INTERPOLATE, "diffuse": DIFFUSE}[name]
    event, answer = call(site, name, list({**good, **changes}.values()))
    if event == "error":
        assert answer["error"].startswith(message)
        assert "<b>" not in answer["error"]
    else:
        assert event in ("400", "413", "422")
    assert evaluations == []


def test_numbers_that_json_does_not_have_are_refused(site, evaluations):
    body = json.dumps({"data": list({**SAMPLE, "guidance": float("nan")}.values())})
    reply = site.http.post("/gradio_api/call/sample", content=body, headers={"content-type": "application/json"})
    assert 400 <= reply.status_code < 500
    assert evaluations == []


def test_too_few_and_too_many_values_are_refused(site, evaluations):
    values = list(SAMPLE.values())
    for data in ([], values[:-1], [*values, 1], values * 100):
        assert call(site, "sample", data)[0] in ("error", "422")
    assert evaluations == []


def test_a_python_client_gets_the_message(site):
    with pytest.raises(AppError, match="seed: expected a whole number from 0 to 4,294,967,295, got -1"):
        site.client.predict(**{**SAMPLE, "seed": -1}, api_name="/sample")


@pytest.mark.parametrize("name", ["sample", "sample_stream", "interpolate", "diffuse"])
def test_a_cancelled_job_stops_computing(site, evaluations, monkeypatch, name):
    real = Scheduler._call
    monkeypatch.setattr(Scheduler, "_call", lambda self, *a: time.sleep(0.1) or real(self, *a))
    good = {"sample": SAMPLE, "sample_stream": SAMPLE, "interpolate": INTERPOLATE, "diffuse": DIFFUSE}[name]
    job = site.client.submit(**{**good, "steps": 40}, api_name=f"/{name}")
    deadline = time.monotonic() + 60
    while len(evaluations) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(evaluations) >= 2
    job.cancel()
    still = len(evaluations), 0
    while still[0] != still[1] and time.monotonic() < deadline:
        still = len(evaluations), still[0]
        time.sleep(0.5)
    assert still[0] < 40
    monkeypatch.undo()
    assert site.client.predict(**SAMPLE, api_name="/sample")


def test_an_opening_page_asks_for_nothing_that_a_class_would_run_out_of(site):
    calls = Calls(site.demo)
    opening = [fn for fn in site.demo.fns.values() if fn.fn and any(name == "load" for _, name in fn.targets)]
    assert len(opening) >= 3
    for fn in opening:
        assert calls.check("/gradio_api/queue/join", {"fn_index": fn._id, "data": [None] * len(fn.inputs)}), fn.name


def test_animations_keep_nobody_from_dragging(site):
    walks = [fn for fn in site.demo.fns.values() if fn.name in ("run_again", "stopped") or isinstance(fn.fn, partial)]
    assert len(walks) == 2 + 3  # three buttons of the Score tab
    assert {(fn.concurrency_id, fn.concurrency_limit) for fn in walks} == {("animation", 2)}


def test_what_no_page_sends_is_refused_in_a_sentence(site, capsys: pytest.CaptureFixture[str]):
    """Private functions, too, can be called by anybody with anything."""
    for fn in list(site.demo.fns.values()):
        if fn.fn is None or fn.api_visibility != "private" or fn.types_generator or fn.cancels:
            continue
        call = {"fn_index": fn._id, "data": [None] * len(fn.inputs), "session_hash": "stranger"}
        if site.http.post("/gradio_api/queue/join", json=call).status_code != 200:
            continue
        with site.http.stream("GET", "/gradio_api/queue/data?session_hash=stranger") as stream:
            next(line for line in stream.iter_lines() if "process_completed" in line)
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out, fn.name


def test_bounds_on_the_page_are_those_of_the_table(site):
    components = site.http.get("/config").json()["components"]
    sliders = {(c["props"]["label"], c["props"]["minimum"], c["props"]["maximum"]) for c in components if c["type"] == "slider"}
    chain = tiny.T  # the tiny models' chain is shorter than the table allows
    assert sliders == {
        ("Number of pictures", sample.COUNT.low, sample.COUNT.high),
        ("Steps", sample.STEPS.low, chain),
        ("Guidance w", sample.GUIDANCE.low, sample.GUIDANCE.high),
        ("Noise up to t", 1, chain),
        ("Noise up to t, and back", 1, chain),
        ("Rounds of each stretch", condition.ROUNDS.low, condition.ROUNDS.high),
        ("Points on the path", interpolate.POINTS.low, interpolate.POINTS.high),
        ("Steps", interpolate.STEPS.low, chain),
        ("Steps of learning", playground.LEARN_STEPS.low, playground.LEARN_STEPS.high),
    }


def test_a_model_that_could_not_be_loaded_is_named_on_the_page_as_text(site):
    text = [c["props"].get("value") or "" for c in site.http.get("/config").json()["components"] if c["type"] == "markdown"]
    problem = next(t for t in text if "could not be loaded" in t)
    assert "broken" in problem
    assert "<b>" not in problem


def test_a_poster_that_takes_too_long_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poster, "WAIT", 0.01)
    monkeypatch.setattr(poster.Poster, "_make", lambda *_: None)
    assert poster.Poster(None, Runner(), None).show() == PlayerData()  # type: ignore[arg-type]


def test_no_picture_is_drawn_before_the_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    begun = threading.Event()
    monkeypatch.setattr(poster.Poster, "_make", lambda self: drawn.append("poster") or begun.set())
    monkeypatch.setattr(tiny.server, "START_DELAY_SECONDS", 0.01)
    runner = Runner()
    page = create_app(tiny.load_models(tiny.save_models(tmp_path)), runner)
    assert drawn == []
    with tiny.served(page, runner.started):
        assert begun.wait(60)
        runner.started()
    assert drawn == ["poster"]


def test_the_page_is_described_once_as_it_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = []
    describe = gr.Blocks.get_config_file
    monkeypatch.setattr(gr.Blocks, "get_config_file", lambda self: described.append(1) or describe(self))
    page = create_app(tiny.load_models(tiny.save_models(tmp_path)), Runner())
    with tiny.served(page) as url:
        config = httpx.get(f"{url}/config", trust_env=False).json()
    assert described == [1]
    assert config["theme_hash"] == page.theme_hash
    assert len(config["components"]) == len(page.blocks)


@pytest.mark.parametrize("begun", [False, True])
def test_the_first_visitor_sees_the_poster(tmp_path: Path, begun: bool) -> None:
    models, runner = tiny.load_models(tiny.save_models(tmp_path)), Runner()
    first = poster.Poster(models, runner, models.offers["ddpm-mnist"])
    if begun:
        runner.started()
    shown = first.show()
    assert (shown.autoplay, shown.n) == (True, min(sample.STEPS.default, tiny.T) + 1)
    assert first.show().run == shown.run


@pytest.mark.parametrize(
    ("changes", "bits"),
    [
        ({}, "2.698 ± 0.008 bits/dim, 10000 pictures"),
        ({"bound_bits_per_dim": "1.25"}, None),
        ({"bound_bits_per_dim": None}, None),
        ({"bound_bits_per_dim": 1e300}, None),
        ([1], None),
        (None, None),
    ],
)
def test_the_table_of_models_takes_any_measurements(changes: Any, bits: str | None) -> None:
    model = {"id": "m", "title": "VAE", "origin": "here", "revision": None, "since": "", "parameters": 1}
    likelihood = {**EVIDENCE, **changes} if isinstance(changes, dict) else changes
    for evaluation in ({"likelihood": likelihood}, likelihood):
        table = served_table([{**model, "metrics": {"evaluation": evaluation, "command": ["a", 1]}}])
        assert (bits in choose(table)) if bits and evaluation != likelihood else "| – |" in table


def test_what_evaluates_a_model_once_does_not_wait_for_whole_pictures(site: SimpleNamespace) -> None:
    """Walks that wait fill the queue of the models: the others answer all the same."""
    many = MODEL_EVENT["concurrency_limit"]
    begun, let_go = threading.Semaphore(0), threading.Event()
    real = compute.sample

    def waiting_sample(*arguments: Any) -> Iterator[object]:
        begun.release()
        assert let_go.wait(60)
        yield from real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "sample", waiting_sample)
        jobs = [site.client.submit(count=1, steps=1, api_name="/sample") for _ in range(many + 1)]
        try:
            assert all(begun.acquire(timeout=60) for _ in range(many))
            for name in ("/cross_entropy", "/divergence", "/pixel_density", "/bound"):
                assert site.client.submit(api_name=name).result(60)
            assert not any(job.done() for job in jobs)
            assert not begun.acquire(timeout=0.5)
        finally:
            let_go.set()
        assert all(job.result(60) for job in jobs)


# ---- the command line


def test_help_loads_nothing_heavy():
    script = """
import sys
sys.argv = ["app.py", "--help"]
import app
try:
    app.options()
except SystemExit as end:
    assert end.code == 0
assert not {"torch", "gradio", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=120)


def test_models_come_from_the_command_line_or_the_environment(monkeypatch):
    import app

    monkeypatch.setenv("GENLAB_MODELS", " me/a@v1, folder/b  c,")
    assert app.options([]).models == ["me/a@v1", "folder/b", "c"]
    assert app.options(["--models", "x", "y"]).models == ["x", "y"]
    monkeypatch.delenv("GENLAB_MODELS")
    assert app.options([]).models == []


def test_networks_are_compiled_where_that_is_asked_for(monkeypatch):
    import app

    monkeypatch.delenv("GENLAB_COMPILE", raising=False)
    assert [app.options(given).compile for given in ([], ["--compile"])] == [False, True]
    for value, expected in (("1", True), ("true", True), ("0", False), ("", False)):
        monkeypatch.setenv("GENLAB_COMPILE", value)
        assert app.options([]).compile is expected


def test_what_a_tab_may_be_asked_and_computes_loads_no_gradio() -> None:
    script = """
import pkgutil, sys
import genlab.demo.tabs
for module in pkgutil.walk_packages(genlab.demo.tabs.__path__, "genlab.demo.tabs."):
    if module.name.endswith((".request", ".compute", ".text")):
        __import__(module.name)
        print(module.name)
assert "gradio" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    assert {f"genlab.demo.tabs.{name}.compute" for name in TABS} <= set(done.stdout.split())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, tiny.serving(tiny.load_models(tiny.save_models(Path(folder)))) as url:
        SHAPE.write_text(json.dumps(shape(Client(url, token=False, verbose=False)), indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {SHAPE.name}")
