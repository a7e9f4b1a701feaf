"""What the demo computes, and what it refuses, without a page."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image

from genlab import hub, nn
from genlab.config import DataSpec, Sampling
from genlab.data import to_model, to_pixels, ungrid
from genlab.demo import engine as engine_module
from genlab.demo import limits
from genlab.demo.engine import DDPM_SPHERICAL, VAE_LINEAR, VAE_SPHERICAL, Engine, EngineError, Served, png
from genlab.demo.limits import LimitError, Offer, Pick
from genlab.serving.language import choose
from tests import tiny

ROOT = Path(__file__).parents[1]
DATA = "fashion-mnist"
DDPM_ID, VAE_ID = "ddpm-fashion-mnist", "vae-fashion-mnist"
BAD_NUMBERS = [
    -1,
    10**10,
    10**400,
    2.5,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    True,
    False,
    None,
    "5",
    "",
    [],
    [5],
    {},
    {"value": 5},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[str]:
    return tiny.save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engine(folders) -> Engine:
    return Engine.load(folders)


def ask(engine: Engine, **changes):
    raw = {"model": DDPM_ID, "label": "any", "count": 4, "steps": 5, "sampler": "DDIM", "guidance": 1, "seed": 7, **changes}
    return limits.parse_sample(engine.offers, **raw)


def finished(engine: Engine, **changes) -> torch.Tensor:
    *_, last = engine.sample(ask(engine, **changes))
    return last.pictures


# --- limits


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
@pytest.mark.parametrize(("name", "field"), [("count", limits.COUNT), ("steps", limits.STEPS), ("seed", limits.SEED)])
def test_a_number_that_is_none_of_those_offered_is_refused_by_name(engine, name, field, value):
    with pytest.raises(LimitError, match=re.escape(f"{choose(field.name)}: expected a whole number from {field.low:,g} to ")):
        ask(engine, **{name: value})


@pytest.mark.parametrize("value", [v for v in BAD_NUMBERS if v != 2.5] + [0.25, 8.5], ids=repr)
def test_guidance_moves_in_its_steps(engine, value):
    with pytest.raises(LimitError, match=r"guidance: expected a number from 0 to 8 in steps of 0\.5"):
        ask(engine, guidance=value)


@pytest.mark.parametrize("value", ["", "ANY", "any ", "аny", "Shirt\0", None, [], ["any"], {}, 0, True, float("nan")], ids=repr)
@pytest.mark.parametrize("name", ["model", "label", "sampler"])
def test_a_choice_that_is_none_of_those_offered_is_refused_by_name(engine, name, value):
    with pytest.raises(LimitError, match=rf"^({name}|class for {DDPM_ID}): expected one of "):
        ask(engine, **{name: value})


def test_numbers_come_out_in_their_types(engine):
    request = ask(engine, count=4.0, steps=5, guidance=2, seed=2**32 - 1)
    assert [type(v) for v in (request.count, request.steps, request.guidance, request.seed)] == [int, int, float, int]
    assert request.seed == 2**32 - 1
    with pytest.raises(LimitError, match="seed: expected"):
        ask(engine, seed=2**32)


def test_steps_go_no_further_than_the_chain_is_long(engine):
    assert ask(engine, steps=tiny.T).steps == tiny.T
    with pytest.raises(LimitError, match=f"from 1 to {tiny.T}, got {tiny.T + 1}"):
        ask(engine, steps=tiny.T + 1)


def test_a_class_that_the_model_does_not_have_is_refused(engine):
    assert ask(engine, label="Shirt").label == 6
    with pytest.raises(LimitError, match=f"class for {VAE_ID}: expected one of any, got 'Shirt'"):
        ask(engine, model=VAE_ID, label="Shirt")


def test_what_is_shown_of_a_refused_value_is_short_and_harmless(engine):
    with pytest.raises(LimitError) as caught:
        ask(engine, model="<script>alert(1)</script>" + "x" * 10_000)
    assert "<script" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("guidance", [1, 3])
def test_too_much_work_is_refused_and_the_advice_is_good(guidance):
    offers = {"m": Offer("m", "ddpm", DataSpec("d", 1, 28, ("a", "b")), 1000, 0)}

    def parse(count: int, steps: int):
        return limits.parse_sample(offers, "m", "a", count, steps, "DDIM", guidance, 0)

    with pytest.raises(
        LimitError, match=r"network evaluations, more than the 5,000 .* lower the number to \d+ or the steps to \d+"
    ) as e:
        parse(64, 250)
    number, steps = (int(x) for x in re.findall(r" to (\d+)", str(e.value)))
    cost = 2 if guidance != 1 else 1
    for count, taken in ((number, 250), (64, steps)):
        parse(count, taken)
        assert count * taken * cost <= limits.EVALUATIONS
    for count, taken in ((number + 1, 250), (64, steps + 1)):
        with pytest.raises(LimitError, match="network evaluations"):
            parse(count, taken)


def test_large_pictures_cost_in_proportion_to_their_pixels():
    limits.check_cost(DataSpec("d", 3, 56), 50, 25)
    with pytest.raises(LimitError, match=r"50 pictures × 26 steps = 1,300 .* 1,250 of one request at 56×56"):
        limits.check_cost(DataSpec("d", 3, 56), 50, 26)
    with pytest.raises(LimitError, match="expected at most 4 at 256×256 pixels, got 5"):
        limits.check_cost(DataSpec("d", 1, 256), 5, 1)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (("test picture", tiny.EXAMPLES, None), f"from 0 to {tiny.EXAMPLES - 1}, got {tiny.EXAMPLES}"),
        (("test picture", -1, None), "A, test picture: expected"),
        (("seed", 2**32, None), "A, seed: expected"),
        (("upload", 0, None), "A: expected an uploaded picture, got none"),
        (("file", 0, None), "A comes from: expected one of test picture, seed, upload"),
        ((None, 0, None), "A comes from: expected"),
    ],
)
def test_a_picture_that_cannot_be_picked_is_refused(raw, message):
    with pytest.raises(LimitError, match=re.escape(message)):
        limits.parse_pick("A", *raw, examples=tiny.EXAMPLES)


# --- sampling


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others(engine):
    assert torch.equal(finished(engine), finished(engine))
    assert not torch.equal(finished(engine), finished(engine, seed=8))


@pytest.mark.parametrize("changes", [{}, {"sampler": "ancestral"}, {"model": VAE_ID}], ids=str)
def test_a_picture_is_the_same_alone_and_among_others(engine, changes):
    among = finished(engine, **changes)
    for i in range(4):
        alone = finished(engine, count=1, seed=7 + i, **changes)[0]
        assert (alone.int() - among[i].int()).abs().max() <= 1


def test_frames_lead_from_the_seeds_noise_to_the_pictures(engine):
    frames = list(engine.sample(ask(engine, sampler="ancestral")))
    noise = torch.stack([torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(7 + i)) for i in range(4)])
    assert torch.equal(frames[0].pictures, to_pixels(noise))
    assert [f.index for f in frames] == list(range(6))
    assert [f.t for f in frames] == [60, 48, 36, 24, 12, 0]
    assert all(f.count == 5 and f.pictures.shape == (4, 1, 28, 28) for f in frames)


def test_class_and_guidance_reach_the_network(engine, monkeypatch):
    model, calls = engine.models[DDPM_ID].model, []
    real = type(model).predict
    monkeypatch.setattr(
        type(model),
        "predict",
        lambda self, x, t, label, w, clip: calls.append((label, w, clip)) or real(self, x, t, label, w, clip),
    )
    finished(engine, label="Bag", guidance=2.5)
    assert len(calls) == 5
    assert all(label.tolist() == [8] * 4 and w == 2.5 and clip for label, w, clip in calls)
    assert not torch.equal(finished(engine, label="Bag"), finished(engine, label="Coat"))


def test_pictures_are_drawn_in_bf16_where_the_cpu_computes_in_it_and_a_likelihood_is_fp32(engine, monkeypatch):
    unet, seen = engine.models[DDPM_ID].model.unet, []
    handle = unet.enter.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    try:
        in_fp32 = finished(engine)
        monkeypatch.setattr(nn, "computes_bf16", lambda: True)
        in_bf16 = finished(engine)
        assert seen == [torch.float32] * 5 + [torch.bfloat16] * 5
        assert not torch.equal(in_bf16, in_fp32)
        assert (in_bf16.float() - in_fp32.float()).abs().mean() < 2  # gray levels
        seen.clear()
        engine.bound_step(limits.StepRequest(DDPM_ID, Pick("test", 0), t=3, seed=7, row=0, column=0))
        assert seen == [torch.float32]
    finally:
        handle.remove()


def test_a_vae_decodes_one_z_for_each_seed(engine):
    frames = list(engine.sample(ask(engine, model=VAE_ID)))
    z = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(7 + i)) for i in range(4)])
    with torch.inference_mode():
        expected = to_pixels(engine.models[VAE_ID].model.decode(z).mean)
    assert len(frames) == 1
    assert frames[0].index == frames[0].count
    assert torch.equal(frames[0].pictures, expected)


def test_png_holds_the_pixels_exactly_and_says_where_they_are_from(engine, tmp_path):
    pictures = finished(engine)
    (tmp_path / "x.png").write_bytes(png(pictures, facts={"Seed": 7}))
    sheet = Image.open(tmp_path / "x.png")
    assert torch.equal(ungrid(sheet, 4, 28, 2), pictures)
    assert sheet.text["Seed"] == "7"


# --- interpolation


def interpolate(engine: Engine, a: Pick, b: Pick, points: int = 5, steps: int = 10):
    return list(engine.interpolate(limits.parse_interpolate(engine.offers, DATA, a, b, points, steps)))


@pytest.fixture
def silent(engine) -> Engine:
    """The engine with a DDPM whose ε̂ is 0: DDIM then scales by √ᾱ, and runs backwards exactly."""
    still = tiny.ddpm(tiny.dataset(DATA).spec, random=False)
    models = dict(engine.models)
    models[DDPM_ID] = replace(models[DDPM_ID], package=replace(models[DDPM_ID].package, model=still))
    return Engine(list(models.values()))


def test_ends_of_the_ddpm_path_are_the_pictures(silent):
    *_, last = interpolate(silent, Pick("test picture", 3), Pick("test picture", 4))
    pictures = silent.examples(DATA).examples
    row = last.rows[DDPM_SPHERICAL]
    assert last.stage == "done"
    assert (row[0].int() - pictures[3].int()).abs().max() <= 1
    assert (row[-1].int() - pictures[4].int()).abs().max() <= 1
    assert torch.equal(last.a, pictures[3])


def test_ends_of_the_vae_paths_are_its_reconstructions(engine):
    *_, last = interpolate(engine, Pick("test picture", 3), Pick("test picture", 4))
    model = engine.models[VAE_ID].model
    with torch.inference_mode():
        expected = to_pixels(model.decode(model.encode(to_model(engine.examples(DATA).examples[3:5])).mean).mean)
    for name in (VAE_LINEAR, VAE_SPHERICAL):
        assert last.rows[name].shape == (5, 1, 28, 28)
        assert (last.rows[name][[0, -1]].int() - expected.int()).abs().max() <= 1
    assert not torch.equal(last.rows[VAE_LINEAR][2], last.rows[VAE_SPHERICAL][2])


def test_a_seed_is_the_picture_that_its_noise_leads_to(silent):
    frames = interpolate(silent, Pick("seed", 5), Pick("test picture", 4))
    last = frames[-1]
    scale = silent.models[DDPM_ID].model.schedule.alpha_bar[tiny.T].rsqrt().float()
    drawn = to_pixels(scale * torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(5)))
    assert (last.a.int() - drawn.int()).abs().max() <= 1
    assert (last.rows[DDPM_SPHERICAL][0].int() - drawn.int()).abs().max() <= 1
    assert [f.stage for f in frames] == ["ends"] * 10 + ["path"] * 9 + ["done"]
    assert [f.index for f in frames] == list(range(1, 21))


def test_an_upload_is_brought_to_the_models_shape(silent):
    upload = np.zeros((50, 90, 3), np.uint8)
    upload[:, 20:70] = (255, 255, 255)
    *_, last = interpolate(silent, Pick("upload", 0, upload), Pick("upload", 0, upload))
    assert last.a.shape == (1, 28, 28)
    assert (last.a[:, :, 3:-3] == 255).all()


def test_without_one_of_the_models_its_path_is_missing(engine):
    ends = Pick("test picture", 0), Pick("seed", 1)
    *_, only_vae = interpolate(Engine([engine.models[VAE_ID]]), *ends)
    assert set(only_vae.rows) == {VAE_LINEAR, VAE_SPHERICAL}
    *_, only_ddpm = interpolate(Engine([engine.models[DDPM_ID]]), *ends)
    assert set(only_ddpm.rows) == {DDPM_SPHERICAL}


# --- the two processes


def diffuse(engine: Engine, monkeypatch, start: str = limits.STARTS[0], sampler: str = "ancestral", steps: int = 20):
    """The frames of `diffuse` with real values in the place of pixels."""
    pick = Pick("test picture", 2)
    monkeypatch.setattr(engine_module, "to_pixels", lambda x: x)
    request = limits.parse_diffuse(engine.offers, DDPM_ID, pick, steps, sampler, "any", start, 3)
    return list(engine.diffuse(request))


def test_forward_frames_are_one_path_of_the_chain(engine, monkeypatch):
    frames = [f for f in diffuse(engine, monkeypatch) if f.direction == "forward"]
    schedule = engine.models[DDPM_ID].model.schedule
    x0 = to_model(engine.examples(DATA).examples[2])
    assert torch.equal(frames[0].x_t, x0)
    for before, after in pairwise(frames):
        torch.testing.assert_close(after.x0, x0)
        mixed = after.alpha_bar**0.5 * x0 + (1 - after.alpha_bar) ** 0.5 * after.eps * engine_module.EPS_SCALE
        torch.testing.assert_close(after.x_t, mixed.float())
        alpha = float(schedule.alpha_bar[after.t] / schedule.alpha_bar[before.t])
        added = (after.x_t - alpha**0.5 * before.x_t) / (1 - alpha) ** 0.5
        assert added.var() == pytest.approx(1, abs=0.25)  # 784 draws: a standard error of 0.05
        assert abs(torch.corrcoef(torch.stack([added.flatten(), before.x_t.flatten()]))[0, 1]) < 0.2


def test_numbers_of_the_frames_are_the_schedules(engine, monkeypatch):
    frames = diffuse(engine, monkeypatch)
    schedule = engine.models[DDPM_ID].model.schedule
    times = list(range(0, 61, 3))
    assert [f.t for f in frames] == times + times[::-1]
    assert [f.index for f in frames] == list(range(42))
    assert {f.count for f in frames} == {42}
    for frame in frames:
        assert frame.alpha_bar == pytest.approx(float(schedule.alpha_bar[frame.t]))
        assert frame.snr == (math.inf if frame.t == 0 else pytest.approx(frame.alpha_bar / (1 - frame.alpha_bar)))


def test_the_way_back_starts_where_it_is_told_to(engine, monkeypatch):
    reached = diffuse(engine, monkeypatch)
    assert torch.equal(reached[20].x_t, reached[21].x_t)
    fresh = diffuse(engine, monkeypatch, start=limits.STARTS[1])
    assert torch.equal(fresh[20].x_t, reached[20].x_t)
    assert not torch.equal(fresh[21].x_t, fresh[20].x_t)
    assert fresh[21].x_t.std() == pytest.approx(1, abs=0.2)


def test_the_way_back_by_ddim_takes_the_steps_of_its_formula(engine, monkeypatch):
    frames = diffuse(engine, monkeypatch, sampler="DDIM")[21:]
    for now, after in pairwise(frames):
        eps = now.eps * engine_module.EPS_SCALE
        torch.testing.assert_close(after.x_t, (after.alpha_bar**0.5 * now.x0 + (1 - after.alpha_bar) ** 0.5 * eps).float())


# --- turns, time and leaving


def test_walks_of_several_visitors_share_the_passes_of_the_network_and_each_ends_on_its_own_pictures(folders, monkeypatch):
    engine = Engine.load(folders)
    model, batches, asked = (
        engine.models[DDPM_ID].model,
        [],
        [ask(engine, steps=4, count=3), ask(engine, steps=4, count=2, seed=9)],
    )
    alone = [finished(engine, steps=4, count=3), finished(engine, steps=4, count=2, seed=9)]
    real = type(model).predict
    monkeypatch.setattr(type(model), "predict", lambda self, x, *a: batches.append(len(x)) or real(self, x, *a))
    both_began, go, held = threading.Barrier(2), threading.Event(), threading.Event()
    holder = threading.Thread(target=engine._turns.alone, args=(lambda: held.set() or go.wait(30), time.monotonic() + 30))
    holder.start()
    assert held.wait(30)

    def draw(request):
        run = engine.sample(request)
        next(run)
        both_began.wait(30)
        return list(run)[-1].pictures

    with ThreadPoolExecutor(2) as visitors:
        drawn = [visitors.submit(draw, each) for each in asked]
        end = time.monotonic() + 30
        while len(engine._turns) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        go.set()
        company = [each.result() for each in drawn]
    holder.join()
    assert batches[0] == 5
    for ours, theirs in zip(company, alone, strict=True):
        assert (ours.int() - theirs.int()).abs().max() <= 1  # rounding, where a pass is of another size
        assert (ours != theirs).float().mean() < 0.01


def test_a_run_past_its_deadline_ends_with_advice(engine):
    hurried = Engine(list(engine.models.values()), deadline=-1)
    with pytest.raises(EngineError, match="ask for fewer pictures or steps"):
        list(hurried.sample(ask(hurried)))


def test_a_closed_run_computes_nothing_more(engine, monkeypatch):
    model, calls = engine.models[DDPM_ID].model, []
    real = type(model).predict
    monkeypatch.setattr(type(model), "predict", lambda *a: calls.append(1) or real(*a))
    run = engine.sample(ask(engine, steps=30))
    next(run), next(run)
    run.close()
    assert len(calls) == 1
    assert torch.equal(finished(engine), finished(engine))


# --- loading


def test_models_are_known_by_the_names_of_their_folders(engine):
    assert list(engine.models) == ["ddpm-fashion-mnist", "ddpm-mnist", "vae-fashion-mnist", "vae-mnist"]
    facts = engine.describe()[0]
    assert (facts["kind"], facts["T"], choose(facts["origin"]), facts["test_pictures"]) == (
        "ddpm",
        tiny.T,
        f"folder {DDPM_ID}",
        tiny.EXAMPLES,
    )
    assert facts["parameters"] == sum(p.numel() for p in engine.models[DDPM_ID].model.parameters())


def test_two_models_of_one_name_get_two_names(folders, tmp_path):
    twin = tmp_path / DDPM_ID
    twin.symlink_to(folders[0])
    (tmp_path / "other").mkdir()
    assert list(Engine.load([folders[0], folders[0]]).models) == [DDPM_ID, f"{DDPM_ID}-2"]


def test_a_run_and_one_that_ships_are_found_and_called_by_their_names(folders, tmp_path, monkeypatch):
    copytree(folders[0], tmp_path / "runs" / "mine" / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("genlab.package.PRETRAINED", Path(folders[0]).parent)
    engine = Engine.load(["runs/mine", DDPM_ID])
    assert not engine.problems
    assert list(engine.models) == ["mine", DDPM_ID]


def test_a_model_that_cannot_be_loaded_is_a_problem_and_the_others_are_served(folders, tmp_path):
    engine = Engine.load([folders[0], str(tmp_path)])
    assert list(engine.models) == [DDPM_ID]
    assert len(engine.problems) == 1
    assert "could not be loaded" in engine.problems[0]


def test_where_none_can_be_loaded_those_that_ship_are_served_and_it_is_said(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("genlab.package.PRETRAINED", Path(folders[0]).parent)
    engine = Engine.load([str(tmp_path)])
    assert len(engine.models) == 4
    assert {choose(m.origin) for m in engine.models.values()} == {"ships with genlab"}
    assert "ship with genlab" in engine.problems[-1]
    assert Engine.load().problems == ()


def test_without_any_model_there_is_no_engine(tmp_path, monkeypatch):
    monkeypatch.setattr("genlab.package.PRETRAINED", tmp_path)
    with pytest.raises(EngineError, match="no model to serve"):
        Engine.load([str(tmp_path)])


def test_a_hub_id_is_read_at_its_revision(folders, monkeypatch):
    asked = []

    def read(source, revision=None, token=None):
        asked.append((source, revision))
        return replace(hub_read(folders[0]), source=str(source), revision="a" * 40)

    hub_read = hub.read
    monkeypatch.setattr(hub, "read", read)
    engine = Engine.load(["me/my-model@v1", "me/my-model"])
    assert sorted(asked, key=str) == [("me/my-model", "v1"), ("me/my-model", None)]
    assert [(m.id, m.origin) for m in engine.models.values()] == [
        ("my-model", "me/my-model @ " + "a" * 40),
        ("my-model-2", "me/my-model @ " + "a" * 40),
    ]
    assert isinstance(engine.models["my-model"], Served)


def test_a_hub_that_says_nothing_is_not_waited_for(folders, monkeypatch):
    answered = threading.Event()
    read = hub.read
    monkeypatch.setattr(hub, "read", lambda source, **_: read(source) if Path(source).is_dir() else answered.wait(60))
    monkeypatch.setattr(engine_module, "HUB_SECONDS", 0.05)
    try:
        engine = Engine.load(["me/stalled", folders[0], "me/too"])
    finally:
        answered.set()
    assert list(engine.models) == [DDPM_ID]
    late = "could not be loaded: the Hub did not deliver it within 0.05 seconds"
    assert [choose(problem) for problem in engine.problems] == [f"me/stalled {late}", f"me/too {late}"]


def test_models_on_the_hub_are_asked_for_at_once(folders, monkeypatch):
    both_asked = threading.Barrier(2)
    hub_read = hub.read

    def read(source, revision=None):
        both_asked.wait(30)  # breaks, where one waits for the other
        return replace(hub_read(folders[0]), source=str(source))

    monkeypatch.setattr(hub, "read", read)
    assert list(Engine.load(["me/one", "me/two"]).models) == ["one", "two"]


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


@pytest.mark.parametrize("name", ["engine", "limits"])
def test_engine_and_limits_know_no_gradio(name):
    source = (ROOT / "genlab" / "demo" / f"{name}.py").read_text()
    assert not re.search(r"^\s*(import|from) gradio", source, re.MULTILINE)


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


def test_a_model_is_measured_as_the_page_draws_at_first() -> None:
    how = Sampling()
    assert (how.sampler, how.steps) == (limits.SAMPLER, limits.STEPS.default)
