"""The Training tab: moments of a training, as they were measured, on one player with the curves beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from tests import tiny

pytest.importorskip("gradio")

from PIL import Image

from genlab import hub
from genlab.config import DataSpec
from genlab.data import ungrid
from genlab.demo import guide, make_films
from genlab.demo.app import create_app
from genlab.demo.limits import LimitError
from genlab.demo.served import Models
from genlab.demo.tabs.training import compute, figure
from genlab.demo.tabs.training.request import parse_training
from genlab.demo.turns import Runner
from genlab.features import classifier_like
from genlab.measurements import Features, Moment, Replay, to_json
from genlab.package import Film, read_json, write_package
from genlab.serving.language import choose

FEATURES = Features("mnist", "ab" * 32, 0.99, 64)


def moment(step: int, **changes: Any) -> Moment:
    """A moment whose figures fall with the step."""
    losses = {"training_loss": 1.1 / step, "held_out_loss": 1 / step, "held_out_loss_of_last_weights": 1.2 / step}
    measured = {"bound_bits_per_dim": 3 + 1 / step, "bound_standard_error_bits_per_dim": 0.125, "frechet_distance": 40 / step}
    return Moment(**{"step": step, "images_seen": 64 * step, "epoch": step / 900, **losses, **measured, **changes})


def film(*moments: Moment, samples: int = 4, **changes: Any) -> Film:
    """A film with random pictures of 28×28."""
    generator = torch.Generator().manual_seed(len(moments))
    pictures = torch.randint(0, 256, (len(moments), 2, samples, 1, 28, 28), dtype=torch.uint8, generator=generator)
    numbers = {"held_out_images": 512, "bound_images": 128, "frechet_images": 500, "frechet_floor": 0.5, "features": FEATURES}
    return Film(Replay(samples=samples, moments=[*moments], **{**numbers, **changes}), pictures)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Tiny models, and one more with a film."""
    root = tmp_path_factory.mktemp("models")
    pictures = tiny.dataset("mnist")
    own = film(moment(1), moment(8), moment(100))
    write_package(root / "with-film", tiny.ddpm(pictures.spec), {"seed": 0}, pictures, film=own)
    return [*tiny.save_models(root), str(root / "with-film")]


@pytest.fixture(scope="module")
def models(folders: list[str]) -> Models:
    return tiny.load_models(folders)


# Which films there are


def test_the_film_that_ships_is_first_and_models_with_a_film_follow(models: Models) -> None:
    assert list(compute.films(models)) == ["from scratch", "with-film"]


def test_there_is_no_tab_where_there_is_no_film(models: Models) -> None:
    def tabs(served: Models) -> list[str]:
        components = create_app(served, Runner()).get_config_file()["components"]
        return [each["props"]["id"] for each in components if each["type"] == "tabitem"]

    alone = Models([models["ddpm-mnist"]])
    assert compute.films(alone) == {}
    assert "training" not in tabs(alone)
    with_film = Models([models["with-film"]])
    assert list(compute.films(with_film)) == ["with-film"]
    assert "training" in tabs(with_film)


@pytest.mark.parametrize("model", ["ddpm-mnist", "", None, 1, ["from scratch"], "<b>"])
def test_a_model_without_a_film_is_refused(model: object) -> None:
    with pytest.raises(LimitError, match="model: expected one of from scratch, with-film, got"):
        parse_training(["from scratch", "with-film"], model)


def test_the_film_that_ships_is_made_from_a_run(folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "FILM", tmp_path / "training")
    run = Path(folders[-1])
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"command": "python training/train_ddpm.py"}))
    make_films.training(run)
    made, package = compute.shipped_film(), hub.read(run)
    assert package.film is not None
    assert made.replay == package.film.replay
    assert torch.equal(made.pictures, package.film.pictures)
    with pytest.raises(SystemExit, match="expected a model that was trained with --replay, got one without moments"):
        make_films.training(Path(folders[0]))


# What is drawn


def test_the_player_has_a_frame_for_each_moment_and_both_weights_on_it() -> None:
    given = film(moment(1), moment(8), samples=4)
    player = figure.player_of(given)
    assert (player.n, player.width, player.height) == (2, 2 * 62, 62)
    assert player.sheet is not None
    with Image.open(player.sheet.path) as sheet:
        values = np.asarray(sheet)
    for i in range(2):
        for side in range(2):
            pane = Image.fromarray(values[:62, (2 * i + side) * 62 : (2 * i + side + 1) * 62])
            assert torch.equal(ungrid(pane, 4, 28, 2), given.pictures[i, side])
    assert choose(player.captions[1], "en") == "step 8 · 512 pictures seen · 0.0089 epochs"


def test_each_curve_marks_the_moment_of_the_frame() -> None:
    given = film(moment(1), moment(8), moment(100))
    drawn = figure.figure_of(given)
    assert len(drawn.panels) == 3
    last = drawn.frames[2].layers
    assert {name: (place["x"], place["y"]) for name, place in last.items()} == {
        "loss": ([6400.0], [0.01]),
        "bound": ([6400.0], [3.01]),
        "distance": ([6400.0], [0.4]),
    }
    text = choose(drawn.frames[2].caption, "en")
    assert "loss 0.01 with averaged weights, 0.012 with those of the moment (512 held-out pictures)" in text
    assert "bound 3.010 ± 0.125 bits/dim (128 pictures)" in text
    assert "distance 0.4, of real pictures 0.50 (500 each)" in text


@pytest.mark.parametrize(
    ("changes", "panels"),
    [
        ({"frechet_distance": None}, 3),
        ({"frechet_distance": 0.0}, 3),
        ({"held_out_loss": -1e9, "training_loss": 1e9}, 3),
        ({"held_out_loss": 0.0}, 3),
        ({"bound_bits_per_dim": None, "bound_standard_error_bits_per_dim": None}, 3),
    ],
)
def test_what_is_missing_or_extreme_is_drawn_all_the_same(changes: dict[str, Any], panels: int) -> None:
    for moments in ([moment(1), moment(8, **changes)], [moment(3, **changes)], [moment(i, **changes) for i in range(1, 41)]):
        assert len(figure.figure_of(film(*moments)).panels) == panels


def test_what_was_not_measured_has_no_curve() -> None:
    bare = {"bound_bits_per_dim": None, "bound_standard_error_bits_per_dim": None, "frechet_distance": None}
    none = {"bound_images": None, "frechet_images": None, "frechet_floor": None, "features": None}
    drawn = figure.figure_of(film(moment(1, **bare), moment(8, **bare), **none))
    assert [choose(panel.title, "en") for panel in drawn.panels] == ["loss"]
    assert "\n" not in drawn.frames[0].caption


# The film that ships, and what the guide says of it


def test_the_answer_of_the_guide_is_what_the_film_shows() -> None:
    shipped = compute.shipped_film()
    (step,) = (step for step in guide.STEPS if step.query.startswith("tab=training"))
    network = classifier_like(DataSpec("mnist", 1, 28, tiny.dataset("mnist").spec.classes))
    assert network is not None
    asked = torch.arange(shipped.replay.samples) % 10
    found = {}
    for place, averaged in zip(shipped.replay.moments, shipped.pictures[:, 1], strict=True):
        ink = averaged.double()
        middle = ink[..., 7:21, 7:21]
        edge = (ink.sum() - middle.sum()) / (ink.numel() - middle.numel())
        difference = ((ink[..., 1:] - ink[..., :-1]) ** 2).mean() / (2 * ink.var())
        right = int((network.classes(network.features(averaged)) == asked).sum())
        found[place.step] = (float(middle.mean() / edge), float(difference), right)
    answer = choose(step.answer, "en")
    assert f"at step 32 the middle is {found[32][0]:.1f} times as bright as the edge" in answer
    assert found[32][1] > 0.8, "neighbouring pixels differ nearly as two that know nothing of each other"
    assert found[184][1] < 0.3, "they differ as in strokes: 0.22 in test pictures"
    counts = [found[at][2] for at in (77, 184, 439, 1048)]
    assert "in {}, {}, {} and {} of the 16 pictures at steps 77, 184, 439 and 1,048".format(*counts) in answer
    assert "{}、{}、{}、{} 张".format(*counts) in choose(step.answer, "zh")


# On the page


@pytest.fixture(scope="module")
def site(models: Models) -> Iterator[SimpleNamespace]:
    with tiny.serving(models) as url, httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        yield SimpleNamespace(url=url, http=http)


def test_the_endpoint_gives_the_moments_of_the_models_metrics(site: SimpleNamespace, folders: list[str]) -> None:
    event, answer = tiny.called(site.http, "training", {"model": "with-film"})
    assert event == "complete"
    assert answer[1] == read_json(Path(folders[-1]) / "metrics.json")["replay"]
    (path := Path(folders[-1]) / "fetched.png").write_bytes(site.http.get(answer[0]["url"]).content)
    with Image.open(path) as fetched, Image.open(Path(folders[-1]) / "replay.png") as own:
        assert np.array_equal(np.asarray(fetched), np.asarray(own))
    path.unlink()
    assert tiny.called(site.http, "training", {"model": "from scratch"})[1][1] == to_json(compute.shipped_film().replay)
    event, answer = tiny.called(site.http, "training", {"model": "ddpm-mnist"})
    assert event == "error"
    assert answer["error"] == "model: expected one of from scratch, with-film, got 'ddpm-mnist'"


SHOWN = """frame => ['training', 'training-figure'].every(
    (id) => document.querySelector(`#${id} .player`)?.dataset.frame === String(frame))"""
"""Whether the film and the curves show this frame."""
LINKED = """() => document.querySelector('#training-link textarea, #training-link input')
    .value.endsWith('?tab=training&model=with-film')"""


@pytest.mark.parametrize(("language", "width"), [("en", 1280), ("zh", 390)])
def test_the_film_plays_and_the_curves_follow(site: SimpleNamespace, browser: Any, language: str, width: int) -> None:
    page = tiny.watched(browser.new_context(viewport={"width": width, "height": 900}, locale=language).new_page())
    page.goto(site.url)
    page.get_by_role("tab").get_by_text({"en": "Sample", "zh": "采样"}[language], exact=True).wait_for()
    sheet = figure.player_of(compute.shipped_film()).sheet
    assert sheet is not None
    content = Path(sheet.path).parent.name  # its hash
    assert not [each.url for each in page.asked if content in each.url]
    page.get_by_role("tab").get_by_text({"en": "Training", "zh": "训练"}[language], exact=True).click()
    page.wait_for_function("() => document.querySelector('#training .player')?.dataset.frame > 0")
    assert [each.url for each in page.asked if content in each.url], "it is fetched when the tab is opened"
    player = page.locator("#training .player")
    for key, frame in (("Home", 0), ("ArrowRight", 1), ("End", len(compute.shipped_film().replay.moments) - 1)):
        player.press(key)
        page.wait_for_function(SHOWN, arg=frame)
    assert not page.locator("#training-figure .controls").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.problems == []
    page.context.close()


def test_a_model_with_a_film_is_chosen_and_linked(site: SimpleNamespace, browser: Any) -> None:
    """By the control and by a link; the film and the curves are then those of that model."""
    for query in ("tab=training", "tab=training&model=with-film"):
        page = tiny.watched(browser.new_page())
        page.goto(f"{site.url}/?{query}")
        model = page.get_by_label("Model", exact=True).locator("visible=true")
        model.wait_for()
        if "model" not in query:
            page.wait_for_function("() => document.querySelector('#training .player')?.dataset.frame > 0")
            model.click()
            page.get_by_role("option", name="with-film").click()
        page.wait_for_function("() => document.querySelector('#training .count')?.textContent.endsWith('/ 3')")
        page.locator("#training .player").press("End")
        page.wait_for_function(SHOWN, arg=2)
        page.locator("#training-figure .caption").get_by_text("distance 0.4, of real pictures 0.50").wait_for()
        page.locator("#training-share").click()
        page.wait_for_function(LINKED)
        assert page.problems == []
        page.context.close()
