"""The Diffusion tab: one path of the forward chain, and the way back from any t."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError

from genlab import nn
from genlab.data import to_model, to_pixels
from genlab.demo.limits import LimitError, Pick
from genlab.demo.served import Models
from genlab.demo.tabs.process import compute
from genlab.demo.tabs.process.compute import EPS_SCALE
from genlab.demo.tabs.process.request import FRESH_NOISE, THE_NOISE_REACHED, parse_process
from genlab.demo.tabs.process.text import TEXT
from genlab.demo.turns import Runner
from genlab.package import write_package
from tests import tiny

FASHION = "ddpm-fashion-mnist"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))


def exact_chain(models: Models, monkeypatch, start: str = THE_NOISE_REACHED, sampler: str = "ancestral", steps: int = 20):
    """Return the frames of `diffuse` with real values in the place of pixels."""
    pick = Pick("test picture", 2)
    monkeypatch.setattr(compute, "to_pixels", lambda x: x)
    request = parse_process(models.offers, FASHION, pick, steps, sampler, "any", start, 3)
    return list(compute.diffuse(models, Runner(), request))


def test_forward_frames_are_one_path_of_the_chain(models, monkeypatch):
    frames = [f for f in exact_chain(models, monkeypatch) if f.direction == "forward"]
    schedule = models.ddpm(FASHION).schedule
    x0 = to_model(models.examples("fashion-mnist").examples[2])
    assert torch.equal(frames[0].x_t, x0)
    for before, after in pairwise(frames):
        torch.testing.assert_close(after.x0, x0)
        mixed = after.alpha_bar**0.5 * x0 + (1 - after.alpha_bar) ** 0.5 * after.eps * EPS_SCALE
        torch.testing.assert_close(after.x_t, mixed.float())
        alpha = float(schedule.alpha_bar[after.t] / schedule.alpha_bar[before.t])
        added = (after.x_t - alpha**0.5 * before.x_t) / (1 - alpha) ** 0.5
        assert added.var() == pytest.approx(1, abs=0.25)  # 784 draws: a standard error of 0.05
        assert abs(torch.corrcoef(torch.stack([added.flatten(), before.x_t.flatten()]))[0, 1]) < 0.2


def test_numbers_of_the_frames_are_the_schedules(models, monkeypatch):
    frames = exact_chain(models, monkeypatch)
    schedule = models.ddpm(FASHION).schedule
    times = list(range(0, 61, 3))
    assert [f.t for f in frames] == times + times[::-1]
    assert [f.index for f in frames] == list(range(42))
    assert {f.count for f in frames} == {42}
    for frame in frames:
        assert frame.alpha_bar == pytest.approx(float(schedule.alpha_bar[frame.t]))
        assert frame.snr == (math.inf if frame.t == 0 else pytest.approx(frame.alpha_bar / (1 - frame.alpha_bar)))


def test_the_way_back_starts_where_the_request_says(models, monkeypatch):
    reached = exact_chain(models, monkeypatch)
    assert torch.equal(reached[20].x_t, reached[21].x_t)
    fresh = exact_chain(models, monkeypatch, start=FRESH_NOISE)
    assert torch.equal(fresh[20].x_t, reached[20].x_t)
    assert not torch.equal(fresh[21].x_t, fresh[20].x_t)
    assert fresh[21].x_t.std() == pytest.approx(1, abs=0.2)


def test_the_way_back_by_ddim_takes_the_steps_of_its_formula(models, monkeypatch):
    frames = exact_chain(models, monkeypatch, sampler="DDIM")[21:]
    for now, after in pairwise(frames):
        eps = now.eps * EPS_SCALE
        torch.testing.assert_close(after.x_t, (after.alpha_bar**0.5 * now.x0 + (1 - after.alpha_bar) ** 0.5 * eps).float())


def chain(models: Models, **changes: Any) -> list[Any]:
    raw = {"steps": 12, "sampler": "DDIM", "label": "any", "start": "the noise reached", "seed": 3, "until": 0, **changes}
    model = raw.pop("model", "ddpm-mnist")
    return list(compute.diffuse(models, Runner(), parse_process(models.offers, model, Pick("test picture", 4), **raw)))


def test_the_way_back_starts_where_the_noise_ends(models: Models) -> None:
    frames = chain(models, until=30)
    forward, reverse = frames[:13], frames[13:]
    assert [f.t for f in forward] == [round(30 * i / 12) for i in range(13)]
    assert [f.t for f in reverse] == [f.t for f in forward][::-1]
    assert {f.count for f in frames} == {26}
    assert torch.equal(forward[-1].x_t, reverse[0].x_t)
    alpha_bar = float(models.ddpm("ddpm-mnist").schedule.alpha_bar[30])
    assert forward[-1].alpha_bar == pytest.approx(alpha_bar)
    short = chain(models, until=5)
    assert [f.t for f in short] == [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0]
    longest = chain(models, until=tiny.T)
    assert all(torch.equal(a.x_t, b.x_t) for a, b in zip(longest, chain(models), strict=True))


def test_how_much_survives_is_stated_in_gray_levels_and_as_a_correlation(models: Models) -> None:
    picture = models.picture("mnist", Pick("test picture", 4)).numpy().astype(float)
    frames = chain(models, until=20)
    for frame in frames[13:]:
        made = frame.x0.numpy().astype(float)
        assert frame.rms == pytest.approx(math.sqrt(((made - picture) ** 2).mean()), abs=1e-9)
        assert frame.correlation == pytest.approx(np.corrcoef(made.ravel(), picture.ravel())[0, 1], abs=1e-9)
    assert {f.rms for f in frames[:13]} == {0.0}
    gray = Pick("upload", 0, np.full((28, 28, 3), 90, np.uint8))
    flat = parse_process(models.offers, "ddpm-mnist", gray, 10, "DDIM", "any", "the noise reached", 0, 9)
    assert all(math.isnan(frame.correlation) for frame in compute.diffuse(models, Runner(), flat))


def test_less_noise_leaves_more_of_the_picture(tmp_path: Path) -> None:
    """The best model of pictures ~ N(0, I) is ε̂ = √(1−ᾱ) x_t; the tiny one says ε̂ = 0, so that x̂_0 = x_t/√ᾱ: exact at t → 0."""
    pictures = tiny.dataset("mnist")
    write_package(tmp_path / "ddpm-mnist", tiny.ddpm(pictures.spec, random=False), {}, pictures)
    models = tiny.load_models([str(tmp_path / "ddpm-mnist")])
    lasts = [chain(models, until=until, sampler="ancestral")[-1] for until in (1, 10, 25, 60)]
    assert [f.rms for f in lasts] == sorted(f.rms for f in lasts)
    assert [f.correlation for f in lasts] == sorted((f.correlation for f in lasts), reverse=True)
    assert lasts[0].correlation > 0.99 > 0.6 > lasts[-1].correlation


@torch.inference_mode()
def test_from_a_middle_t_any_class_means_none(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn, "computes_bf16", lambda: False)
    ddpm = models.ddpm("ddpm-fashion-mnist")
    for until, label, expected in ((30, "any", None), (30, "Bag", torch.tensor([8])), (0, "any", torch.tensor([3]))):
        start = chain(models, model="ddpm-fashion-mnist", until=until, label=label)[13]
        noise = torch.Generator().manual_seed(3)
        schedule = ddpm.schedule
        x = to_model(models.picture("fashion-mnist", Pick("test picture", 4)))[None]
        for t in range(1, (until or tiny.T) + 1):
            step = torch.randn(1, 28, 28, generator=noise)
            x = math.sqrt(1 - float(schedule.beta[t])) * x + math.sqrt(float(schedule.beta[t])) * step
        predicted = ddpm.predict(x, torch.tensor([until or tiny.T]), expected)
        assert (start.x0.float() - to_pixels(predicted.x0_hat[0]).float()).abs().max() <= 1


@torch.inference_mode()
def test_on_the_way_there_the_picture_and_the_noise_shown_make_x_t(models: Models) -> None:
    """As the caption says: ε is all the noise since x_0, not that of the latest step."""
    picture = to_model(models.picture("mnist", Pick("test picture", 4)))
    frame = chain(models, until=30)[12]
    assert "x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε" in TEXT["forward_formula"]
    eps = EPS_SCALE * (frame.eps.float() / 127.5 - 1)
    x_t = math.sqrt(frame.alpha_bar) * picture + math.sqrt(1 - frame.alpha_bar) * eps
    inside = (eps.abs() < EPS_SCALE) & (x_t.abs() < 1)
    assert inside.float().mean() > 0.3
    assert (x_t - (frame.x_t.float() / 127.5 - 1))[inside].abs().max() < 0.03


@pytest.mark.parametrize("until", [-1, tiny.T + 1, 0.5, None, "5", True, math.nan])
def test_a_t_outside_the_chain_is_refused(models: Models, until: Any) -> None:
    with pytest.raises(LimitError, match=rf"t up to which noise is added: expected a whole number from 0 to {tiny.T}"):
        chain(models, until=until)


def test_fresh_noise_is_offered_at_the_end_of_the_chain_alone(models: Models) -> None:
    with pytest.raises(LimitError, match=rf"expected the noise reached, .* at t = {tiny.T}, .* got fresh noise at t = 59"):
        chain(models, until=59, start="fresh noise")
    assert chain(models, until=60, start="fresh noise")


@pytest.fixture(scope="module")
def client(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with tiny.serving(models) as url:
        yield Client(url, token=False, verbose=False, download_files=str(tmp_path_factory.mktemp("results")))


def test_the_process_stops_at_the_t_that_is_asked_for(client: Client) -> None:
    _, numbers = client.predict(until=20, steps=10, api_name="/diffuse")
    assert max(n["t"] for n in numbers) == 20
    assert {"rms", "correlation"} <= numbers[-1].keys()
    assert numbers[-1]["rms"] > 0


def test_the_api_says_what_is_wrong(client: Client) -> None:
    with pytest.raises(AppError, match=r"^t up to which noise is added: expected"):
        client.predict(until=tiny.T + 1, api_name="/diffuse")
