"""The Condition tab: what is known stays, a class is followed, and a visitor paints, draws and asks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from genlab.config import DataSpec
from genlab.data import ungrid
from genlab.demo.limits import LimitError, Offer, Pick
from genlab.demo.served import Models
from genlab.demo.tabs.condition import compute
from genlab.demo.tabs.condition.request import COUNT, parse_cover, parse_guide, parse_repair
from genlab.demo.turns import Runner
from genlab.features import classifier_like
from tests import tiny

MNIST = "ddpm-mnist"
DIGITS = DataSpec("mnist", 1, 28, tuple("0123456789"))
HALF = (np.arange(28) < 14).repeat(28).reshape(28, 28)
BASE64 = base64.b64encode((HALF * np.uint8(255)).tobytes()).decode()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))


def repaired(models: Models, cover: Any, until: int = 0, rounds: int = 2, **changes: Any) -> list[compute.RepairFrame]:
    raw = {"label": "any", "steps": 10, "seed": 3, **changes}
    request = parse_repair(
        models.offers, MNIST, Pick("test picture", 4), cover, until, raw["label"], rounds, raw["steps"], raw["seed"]
    )
    return list(compute.run_repair(models, Runner(), request))


def test_what_is_not_painted_over_comes_out_as_it_was(models: Models) -> None:
    picture = models.picture("mnist", Pick("test picture", 4))
    frames = repaired(models, BASE64)
    known = torch.from_numpy(~HALF)
    assert torch.equal(frames[-1].x_t[..., known], picture[..., known].expand(COUNT, 1, -1))
    assert not torch.equal(frames[-1].x_t[..., ~known], picture[..., ~known].expand(COUNT, 1, -1))
    assert [frame.index for frame in frames] == list(range(21))
    assert torch.equal(frames[-1].x_t, repaired(models, HALF.astype(int).tolist())[-1].x_t), "rows say the same as the canvas"


def test_the_hidden_part_has_no_say(models: Models) -> None:
    ends = []
    for shade in (0, 255):
        upload = np.array(models.picture("mnist", Pick("test picture", 4)))[0]
        upload[HALF] = shade
        request = parse_repair(
            models.offers, MNIST, Pick("upload", 0, upload[..., None].repeat(3, axis=2)), BASE64, 0, "any", 2, 10, 3
        )
        *_, last = compute.run_repair(models, Runner(), request)
        ends.append(last.x_t)
    assert torch.equal(*ends)


def test_a_drawing_is_left_the_more_the_less_noise_it_gets(models: Models) -> None:
    picture = models.picture("mnist", Pick("test picture", 4)).float()
    errors = [(repaired(models, None, until, 1)[-1].x_t.float() - picture).abs().mean() for until in (1, 10, 60)]
    assert errors == sorted(errors)
    assert errors[0] < 20 < errors[-1]
    assert len(repaired(models, None, 30, 5)) == 11, "nothing is known, so nothing is walked again"


@pytest.mark.parametrize(
    ("cover", "message"),
    [
        ("A" * 40, "cover: expected nothing, or 28 rows of 28 numbers"),
        ("!" * len(BASE64), "cover: expected nothing"),
        ([[1] * 28] * 27, "cover: expected nothing"),
        ([[2] * 28] * 28, "cover: expected nothing"),
        ([[None] * 28] * 28, "cover: expected nothing"),
        ([5] * 28, "cover: expected nothing"),
        (7, "cover: expected nothing"),
        ({"a": 1}, "cover: expected nothing"),
        ([[0] * 28] * 28, "nothing is painted over"),
    ],
)
def test_a_cover_that_is_none_is_refused(cover: Any, message: str) -> None:
    with pytest.raises(LimitError, match=re.escape(message)):
        parse_cover(DataSpec("mnist"), cover)


def test_rounds_count_as_work_and_every_value_is_checked() -> None:
    offers = {MNIST: Offer(MNIST, "ddpm", DIGITS, 1000, 20)}
    with pytest.raises(LimitError, match="4 pictures × 1600 steps = 6,400 network evaluations"):
        parse_repair(offers, MNIST, Pick("test picture"), BASE64, 0, "any", 8, 200, 0)
    assert parse_repair(offers, MNIST, Pick("test picture"), None, 0, "any", 8, 200, 0).rounds == 1
    for label, seed, message in (
        ("3", 2**32 - 1, "seed: expected a whole number from 0 to 4,?294,?967,?291"),
        ("any", 0, "class for ddpm-mnist: expected one of 0, 1, "),
    ):
        with pytest.raises(LimitError, match=message):
            parse_guide(offers, MNIST, label, 2, 10, seed)


def test_a_class_is_followed_by_both_gradients() -> None:
    """Of the model that ships: the classifier sees the class in what it led to, hardly ever without."""
    models = tiny.load_models([MNIST])
    request = parse_guide(models.offers, MNIST, "8", 4, 10, 0)
    frames = list(compute.run_guide(models, Runner(), request))
    assert all(frame.probabilities is None for frame in frames[:-1])
    gradient, free, none = frames[-1].probabilities.mean(dim=1).tolist()  # type: ignore[union-attr]
    assert min(gradient, free) > 0.8 > 0.3 > none
    assert bool((frames[0].pictures == frames[0].pictures[0]).all()), "all begin with the same noise"


def test_a_classifier_is_found_by_shape_and_classes() -> None:
    found = classifier_like(replace(DIGITS, name="mine"))
    assert found is not None
    assert found.name == "mnist"
    for data in (replace(DIGITS, size=32), replace(DIGITS, classes=("a", "b")), DataSpec("mnist")):
        assert classifier_like(data) is None
    with pytest.raises(LimitError, match=r"no classifier of such pictures is here: training/train_classifier\.py"):
        compute.classifier_of(replace(DIGITS, size=32))


@pytest.fixture(scope="module")
def site(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    with tiny.serving(models) as url:
        client = Client(
            url,
            token=False,
            verbose=False,
            download_files=str(tmp_path_factory.mktemp("results")),
            httpx_kwargs={"timeout": 120},
        )
        yield SimpleNamespace(url=url, client=client)


def test_the_api_repairs_and_says_what_is_wrong(site: SimpleNamespace, models: Models) -> None:
    path = site.client.predict(model=MNIST, number=4, cover=HALF.astype(int).tolist(), steps=5, api_name="/repair")
    pictures = ungrid(Image.open(path), COUNT, 28, 2)
    known = torch.from_numpy(~HALF)
    assert torch.equal(pictures[2][..., known], models.picture("mnist", Pick("test picture", 4))[..., known])
    with pytest.raises(AppError, match=r"^nothing is painted over"):
        site.client.predict(model=MNIST, cover=[[0] * 28] * 28, api_name="/repair")


SHOWN = """() => { const c = document.querySelector('#condition-canvas canvas'), k = c.width / 28;
    const at = (x, y) => [...c.getContext('2d').getImageData((x + 0.5) * k, (y + 0.5) * k, 1, 1).data.slice(0, 3)];
    return [at(5, 5), at(5, 25)]; }"""
"""Two pixels of the canvas: one that is painted over at first, one that is not."""


def test_a_visitor_paints_over_draws_and_asks_for_a_class(site: SimpleNamespace, browser: Any) -> None:
    page = tiny.watched(browser.new_page(viewport={"width": 390, "height": 900}))
    page.goto(f"{site.url}/?tab=condition")
    canvas = page.locator("#condition-canvas canvas")
    canvas.wait_for()
    hide, run = page.locator("#condition-canvas .cover"), page.locator("#condition-run")
    assert hide.get_attribute("aria-pressed") == "true"
    covered, bare = page.evaluate(SHOWN)
    assert len(set(covered)) > 1, "painted over in colour"
    assert len(set(bare)) == 1
    canvas.focus()
    page.keyboard.press("Space")
    run.click()
    caption = page.locator(".player:visible .caption")
    page.get_by_text("every known pixel exactly").first.wait_for()
    page.get_by_label("Start from a drawing").check()
    hide.wait_for(state="hidden")
    page.locator("#condition-canvas .wipe").click()
    run.click()
    page.get_by_text("from your drawing at t = 30").first.wait_for()
    page.get_by_label("Ask for a class").check()
    canvas.wait_for(state="hidden")
    assert page.locator("input[aria-label=Class]:visible").input_value() == "0", "a class is asked for, and the page says which"
    run.click()
    page.get_by_text("on average: gradient").first.wait_for()
    assert caption.count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.problems == []
    page.context.close()
