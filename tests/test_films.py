"""genlab/demo/films.py: the page opens on what the models that ship have made, and calls no model for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests import tiny

pytest.importorskip("gradio")

from genlab.demo import films, make_films
from genlab.demo.films import film
from genlab.demo.turns import Runner

FIGURES = ["score", "playground"]
FILMS = {
    "process": ["ddpm-fashion-mnist"],
    "condition": ["ddpm-mnist"],
    "compare": ["ddpm-fashion-mnist", "consistency-fashion-mnist"],
    "interpolate": ["vae-fashion-mnist", "ddpm-fashion-mnist"],
}


@pytest.mark.parametrize("name", FILMS)
def test_a_film_is_of_the_models_that_ship(name: str) -> None:
    """After a change of a model that ships: `python -m genlab.demo.make_films`."""
    player = film(tiny.load_models(), name, FILMS[name])
    assert player is not None, "the weights are others"
    assert player.n == len(player.captions) > 1
    with Image.open(player.sheet.path) as sheet:  # type: ignore[union-attr]
        assert sheet.width * sheet.height >= player.n * player.width * player.height
        assert np.asarray(sheet)[: player.height, : player.width].std() > 10


def test_other_models_get_no_film(tmp_path: Path) -> None:
    models = tiny.load_models(tiny.save_models(tmp_path))
    assert not any(film(models, name, [*models.offers][: len(ids)]) for name, ids in FILMS.items())


@pytest.mark.parametrize("name", FIGURES)
def test_a_film_of_moving_points_is_small_and_is_stored_as_it_was_made(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    film = films.figure(name)
    assert len(film.frames) > 10
    assert (films.FOLDER / f"{name}.json").stat().st_size < 60_000
    monkeypatch.setattr(films, "FOLDER", tmp_path)
    films.store_figure(name, film, every=4)
    fewer = films.figure(name)
    assert fewer.frames[:1] + fewer.frames[-1:] == film.frames[:1] + film.frames[-1:]
    was, now = (([each.frames[s.start].caption for s in each.segments]) for each in (film, fewer))
    assert was == now, "segments begin with their own frames"


@pytest.mark.long
def test_the_films_are_what_the_models_make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = {name: np.asarray(Image.open(films.FOLDER / f"{name}.png")).astype(int) for name in FILMS}
    monkeypatch.setattr(films, "FOLDER", tmp_path)
    models, runner = tiny.load_models(), Runner(deadline=3600)
    runner.started()
    for name in FILMS:
        getattr(make_films, name)(models, runner)
        made = np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int)
        assert np.abs(made - shipped[name]).max() <= 3


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with tiny.serving(tiny.load_models()) as address:
        yield address


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_light(url: str, language: str) -> None:
    """What only one tab needs, such as a film, goes into a file that the tab fetches."""
    reply = httpx.get(url, headers={"accept-encoding": "gzip", "accept-language": language})
    assert reply.num_bytes_downloaded < 210_000


@pytest.mark.parametrize("tab", [*FILMS, *FIGURES, "training"])
def test_the_tab_opens_on_its_film_and_plays(url: str, browser: Any, tab: str) -> None:
    """The scrubber moves by itself, nothing has been pressed; who asked for reduced motion sees the last frame."""
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page = tiny.watched(browser.new_context(reduced_motion=motion).new_page())
        page.goto(f"{url}/?tab={tab}")
        player = page.locator(f"#{tab}" if tab in FIGURES else ".player:visible:not(.easel)").first
        scrubber = player.locator("input[type=range]")
        scrubber.wait_for()
        player.get_by_role("button", name="Pause" if moves else "Play", exact=True).wait_for()
        if not moves:
            page.wait_for_function("bar => bar.value === bar.max", arg=scrubber.element_handle())
        if moves:
            before = scrubber.input_value()
            page.wait_for_function("([bar, before]) => bar.value !== before", arg=[scrubber.element_handle(), before])
        assert page.problems == []
        page.context.close()
