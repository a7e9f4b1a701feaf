"""The player: what Python packs is what the browser shows, and showing it asks the server for nothing."""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from genlab.demo.components.player import (
    LABELS,
    Player,
    PlayerData,
    Segment,
    frames_to_webp,
    new_run,
    pack_sheet,
    player_frame,
    player_sheet,
)
from genlab.serving.language import choose

NAMES = ("x_t", "x̂_0", "ε̂")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def cells(sheet: np.ndarray, n: int, height: int, width: int) -> np.ndarray:
    """The browser's reading of a sheet: frame i at column i mod k, row ⌊i/k⌋, with k = ⌈√n⌉."""
    k = next(k for k in range(1, n + 1) if k * k >= n)
    return np.stack(
        [sheet[i // k * height : (i // k + 1) * height, i % k * width : (i % k + 1) * width] for i in range(n)],
    )


# ---- packing ----


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 90, 1000])
def test_a_gray_sheet_gives_every_frame_back_exactly(n: int) -> None:
    frames = noise(n, 3, 5, 4)
    data = player_sheet("r", frames, NAMES)
    assert data.sheet is not None
    assert data.sheet.path.endswith(".png")
    side_by_side = np.concatenate([frames[:, p] for p in range(3)], axis=2)
    np.testing.assert_array_equal(cells(np.asarray(Image.open(data.sheet.path)), n, 5, 12), side_by_side)
    assert (data.width, data.height, data.n, data.i, data.done) == (12, 5, n, n - 1, True)
    assert data.captions == [""] * n


def test_the_sheet_is_no_wider_than_pictures_may_be() -> None:
    assert max(pack_sheet(noise(1000, 28, 84)).shape) <= 16383


@pytest.mark.parametrize("size", [8, 28])
def test_colour_frames_do_not_bleed_into_their_neighbours(size: int) -> None:
    frames = np.zeros((16, 2, size, size, 3), dtype=np.uint8)
    frames[::2, ..., 0] = 255  # pure red beside pure blue: the hardest case for JPEG
    frames[1::2, ..., 2] = 255
    data = player_sheet("r", frames, ("a", "b"))
    assert data.sheet is not None
    shown = cells(np.asarray(Image.open(data.sheet.path)), 16, size, 2 * size)
    sent = frames.swapaxes(1, 2).reshape(16, size, 2 * size, 3)
    assert np.abs(shown.astype(int) - sent).max() <= 16


def test_colour_frames_lose_little_even_of_pure_noise() -> None:
    """JPEG at quality 90 divides by at most 24, so that a coefficient's error is at most 24/√12 ≈ 7 (root mean square)."""
    frames = noise(4, 1, 32, 32, 3)
    data = player_sheet("r", frames, [""])
    assert data.sheet is not None
    shown = cells(np.asarray(Image.open(data.sheet.path)), 4, 32, 32)
    assert np.sqrt(np.mean((shown.astype(float) - frames[:, 0]) ** 2)) <= 10  # a pixel's colours mix three channels


def test_a_live_frame_is_a_bare_picture_of_the_panes_side_by_side() -> None:
    panes = noise(3, 6, 4)
    data = player_frame("r", 2, 9, list(panes), NAMES, "t = 7", segments=[Segment(start=0, label="forward")])
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.live, validate=True))))
    np.testing.assert_array_equal(picture, np.concatenate(list(panes), axis=1))
    assert (data.i, data.n, data.width, data.height, data.caption, data.done) == (2, 9, 12, 6, "t = 7", False)
    assert data.panes == list(NAMES)
    assert data.colours == ["x_t", "x0_hat", "eps"]
    assert data.sheet is None


def test_one_channel_is_gray() -> None:
    panes = noise(1, 6, 4, 1)
    assert player_frame("r", 0, 1, panes, [""]).live == player_frame("r", 0, 1, panes[..., 0], [""]).live


def test_runs_have_different_names() -> None:
    assert len({new_run() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: player_frame("r", 0, 1, noise(3, 4, 4) / 255, NAMES), "expected pictures of uint8, got float64"),
        (lambda: player_frame("r", 0, 1, noise(3, 4, 4, 2), NAMES), r"expected panes of shape .* got \(3, 4, 4, 2\)"),
        (lambda: player_frame("r", 0, 1, noise(2, 4, 4), NAMES), "expected a frame of 3 panes"),
        (lambda: player_frame("r", 0, 1, noise(3, 4, 4), ["x_t"]), "expected a frame of 1 panes"),
        (lambda: player_frame("r", 1, 1, noise(3, 4, 4), NAMES), "expected a frame index from 0 to n − 1 = 0, got 1"),
        (lambda: player_frame("r", 0, 1, noise(3, 4, 4), NAMES, colours=["red"] * 3), "expected 3 colours among"),
        (lambda: player_sheet("r", noise(0, 3, 4, 4), NAMES), "expected at least one frame"),
        (lambda: player_sheet("r", noise(2, 3, 4, 4), NAMES, ["one"]), "expected one caption for each of the 2 frames, got 1"),
        (lambda: player_sheet("r", noise(2, 3, 4, 4), NAMES, first=2), "expected a frame index from 0 to n − 1 = 1, got 2"),
        (lambda: frames_to_webp(noise(2, 3, 4, 4), fps=0), "expected fps above 0, got 0"),
        (lambda: frames_to_webp(noise(2, 3, 4, 4), scale=0), "expected a scale of at least 1, got 0"),
        (lambda: Player(labels={"plai": "x"}, render=False), r"expected labels among .* got \['plai'\]"),
        (lambda: Player(value="<b>", render=False), "expected PlayerData or None, got str"),
    ],
)
def test_wrong_arguments_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_download_is_an_animation_of_hard_pixels_without_loss(tmp_path: Path) -> None:
    frames = noise(7, 2, 5, 4)
    data = frames_to_webp(frames, tmp_path / "a.webp", fps=20, scale=3)
    assert (tmp_path / "a.webp").read_bytes() == data
    image = Image.open(io.BytesIO(data))
    assert image.format == "WEBP"
    assert image.n_frames == 7
    assert image.info["loop"] == 0
    for i in range(7):
        image.seek(i)
        shown = np.asarray(image.convert("RGB"))
        expected = np.kron(np.concatenate(list(frames[i]), axis=1), np.ones((3, 3), dtype=np.uint8))
        np.testing.assert_array_equal(shown, np.stack([expected] * 3, axis=-1))
        assert image.info["duration"] == (50 if i < 6 else 1500)


def test_a_first_value_is_copied_to_where_it_can_be_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = player_sheet("r", noise(6, 3, 5, 4), NAMES)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    value = Player(value=data, render=False).value
    assert data.sheet is not None
    assert Path(value["sheet"]["path"]).is_relative_to(tmp_path / "cache")
    assert Path(value["sheet"]["path"]).read_bytes() == Path(data.sheet.path).read_bytes()


# ---- what clients and other tabs see ----


def test_the_api_names_every_field() -> None:
    info = Player(render=False).api_info()
    assert info["type"] == "object"
    assert set(info["properties"]) == set(PlayerData.model_fields)
    assert info["properties"]["n"]["type"] == "integer"


def test_the_examples_are_valid_and_survive_json() -> None:
    player = Player(render=False)
    assert PlayerData.from_json(player.example_payload()) == player.example_value() == PlayerData()
    data = player_frame("r", 0, 2, noise(3, 4, 4), NAMES, segments=[Segment(start=0, label="a")])
    assert PlayerData.model_validate_json(data.model_dump_json()) == data


def test_the_configuration_sent_to_the_browser_is_plain() -> None:
    """gr.HTML makes up event listeners for names in quotes in `js_on_load`; none may pass for an argument."""
    config = Player(render=False, panes=NAMES, segmented=True).get_config()
    assert not [key for key, value in config.items() if callable(value)]


# ---- in the browser ----

N = 20
MISSING = 4
HOSTILE = '<img src=x onerror="window.hacked=1">${window.hacked=2}{{value}}`\'</script>'
GATE = threading.Semaphore(0)


def frame(i: int, panes: int = 3, size: int = 6) -> np.ndarray:
    """Pane p is gray 7i + 40p on the left, 5 more on the right."""
    picture = np.full((panes, size, size), 7 * i, dtype=np.uint8) + np.arange(panes, dtype=np.uint8)[:, None, None] * 40
    picture[..., size // 2 :] += 5
    return picture


SEGMENTS = [Segment(start=0, label="forward"), Segment(start=10, label="reverse")]


def stream() -> Iterator[PlayerData]:
    """One live frame for every release of GATE, without frame MISSING; then the sheet."""
    run = new_run()
    for i in range(N):
        assert GATE.acquire(timeout=120)
        if i != MISSING:
            yield player_frame(run, i, N, frame(i), NAMES, f"t = {N - i}", segments=SEGMENTS)
    yield player_sheet(run, [frame(i) for i in range(N)], NAMES, [f"t = {N - i}" for i in range(N)], segments=SEGMENTS)


def hostile() -> PlayerData:
    return player_sheet(
        new_run(), [frame(0)] * 2, (HOSTILE, "b", "c"), [HOSTILE] * 2, segments=[Segment(start=0, label=HOSTILE)]
    )


def wide() -> PlayerData:
    return player_sheet(new_run(), [frame(i, 3, 112) for i in range(3)], ("VAE, straight", "VAE, on the sphere", "DDPM"))


ENGLISH = {name: choose(text) for name, text in LABELS.items()}
"""This page has no `Translation` around it."""


def application() -> gr.Blocks:
    poster = player_sheet(
        new_run(), [frame(i) for i in range(N)], NAMES, [str(i) for i in range(N)], first=0, autoplay=True, loop=True, fps=20
    )
    with gr.Blocks(title="player", analytics_enabled=False) as blocks:
        live = Player(
            label="live",
            panes=NAMES,
            pane_shape=(6, 6),
            segmented=True,
            elem_id="live",
            labels={**ENGLISH, "empty": "Press Run."},
        )
        for name, fn in (("run", stream), ("hostile", hostile), ("wide", wide)):
            gr.Button(name, elem_id=name).click(fn, None, live, show_progress="hidden", api_name=name)
        chinese = gr.Button("中文", elem_id="chinese")
        chinese.click(lambda: gr.update(labels={"play": "播放"}), None, live, show_progress="hidden", api_name="chinese")
        Player(value=poster, label="poster", panes=NAMES, pane_shape=(6, 6), elem_id="poster", labels=ENGLISH)
    return blocks


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with tiny.served(application()) as address:
        yield address
        GATE.release(1000)


class Seen:
    """One player on an open page."""

    def __init__(self, page: Any, player: str) -> None:
        self.page, self.id, self.root = page, player, page.locator(f"#{player}")
        self.root.locator(".pane canvas").first.wait_for()

    def part(self, selector: str) -> Any:
        return self.root.locator(selector)

    def count(self) -> str:
        return self.part(".count").inner_text()

    def wait(self, count: str) -> None:
        """Until the counter says so, be it for the blink of one frame."""
        self.page.wait_for_function(
            "([id, count]) => document.querySelector(`#${id} .count`).textContent === count", arg=[self.id, count]
        )

    def pixels(self, pane: int) -> np.ndarray:
        """(H, W, 4): what the canvas holds."""
        url = self.part(".pane canvas").nth(pane).evaluate("canvas => canvas.toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))

    def assert_shows(self, i: int) -> None:
        """Frame i, every pixel of it a square of k × k pixels of the canvas, exactly."""
        for pane, picture in enumerate(frame(i)):
            shown = self.pixels(pane)
            k = shown.shape[0] // 6
            assert k > 1
            np.testing.assert_array_equal(shown[..., 0], np.kron(picture, np.ones((k, k), dtype=np.uint8)))


def open_page(browser: Any, url: str, width: int, **options: Any) -> Any:
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = tiny.watched(context.new_page())
    page.goto(url)
    return page


@pytest.fixture(scope="module")
def still(browser: Any, url: str) -> Iterator[Any]:
    """The page of a visitor who asked for reduced motion, on a desk."""
    page = open_page(browser, url, 1100, reduced_motion="reduce")
    yield page
    page.context.close()


@pytest.fixture
def moving(browser: Any, url: str) -> Iterator[Any]:
    """The page on a desk."""
    page = open_page(browser, url, 1100)
    yield page
    page.context.close()


@pytest.fixture
def phone(browser: Any, url: str) -> Iterator[Any]:
    """The page on a phone, 390 pixels wide."""
    options = {"has_touch": True, "is_mobile": True, "device_scale_factor": 3, "reduced_motion": "reduce"}
    page = open_page(browser, url, 390, **options)
    yield page
    page.context.close()


def test_frames_are_shown_as_they_arrive_then_played_without_the_server(still: Any) -> None:
    page = still
    live = Seen(page, "live")
    assert live.part(".message").inner_text() == "Press Run."
    assert live.part(".play").is_disabled()
    before = live.part(".player").bounding_box()

    page.click("#run")
    GATE.release(4)
    live.wait(f"4 / {N}")
    live.assert_shows(3)
    assert live.part(".caption").inner_text() == f"t = {N - 3}"
    assert "computing" in live.part(".state").inner_text()
    assert live.part(".player").bounding_box() == before, "something moved when the first frame came"
    GATE.release(4)
    live.wait(f"8 / {N}")
    live.assert_shows(7)

    # what has come can be looked at while the rest is computed
    live.part(".stage").focus()
    for expected in (7, 6, 4):  # the frame that was left out is passed over
        page.keyboard.press("ArrowLeft")
        assert live.count() == f"{expected} / {N}"
    GATE.release(4)
    live.part(".state").get_by_text("11 of").wait_for()
    assert live.count() == f"4 / {N}", "a new frame tore the visitor away"
    live.assert_shows(3)
    page.keyboard.press("End")
    assert live.count() == f"12 / {N}"
    GATE.release(1)
    live.wait(f"13 / {N}")  # at the end again, new frames are followed
    page.keyboard.press("Home")
    GATE.release(N)
    live.part(".player:not(.computing)").wait_for()
    assert live.count() == f"1 / {N}"
    assert live.part(".player").bounding_box() == before

    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for i in range(1, 6):  # the sheet has every frame
        live.part(".forward").click()
        assert live.count() == f"{i + 1} / {N}"
        live.assert_shows(i)
    live.part(".back").click()
    live.assert_shows(4)

    live.part(".scrub").fill("15")
    live.assert_shows(15)
    assert live.part(".segments .now").inner_text() == "reverse"
    live.part(".scrub").focus()
    page.keyboard.press("ArrowRight")
    live.assert_shows(16)

    live.part(".speed").select_option("0.25")
    live.part(".stage").focus()
    page.keyboard.press("Home")
    live.assert_shows(0)
    page.keyboard.press("Space")
    assert live.part(".play").get_attribute("aria-label") == "Pause"
    live.part(".speed").select_option("4")
    live.wait(f"{N} / {N}")
    live.part(".player:not(.moving)").wait_for()
    live.assert_shows(N - 1)
    live.part(".loop").click()
    assert live.part(".loop").get_attribute("aria-pressed") == "true"
    live.part(".play").click()  # from the first frame again, and round
    live.wait(f"{N} / {N}")
    live.wait(f"3 / {N}")
    live.part(".stage").click()
    held = live.count()
    page.wait_for_timeout(300)
    assert live.count() == held
    assert requests == []

    assert live.part(".scrub").get_attribute("aria-label") == "Frame"
    page.keyboard.press("Home")
    assert live.part(".scrub").get_attribute("aria-valuetext") == f"frame 1 of {N}, t = {N}"
    assert live.part(".pane canvas").first.get_attribute("aria-label") == f"x_t, frame 1 of {N}. t = {N}"
    assert live.part(".pane .name").all_inner_texts() == ["xt", "x̂0", "ε̂"]
    assert page.problems == []


def test_the_poster_moves_on_its_own_and_players_do_not_disturb_each_other(moving: Any) -> None:
    page = moving
    queued: list[str] = []
    page.on("request", lambda request: queued.append(request.url) if "/queue/join" in request.url else None)
    poster, live = Seen(page, "poster"), Seen(page, "live")
    poster.wait(f"9 / {N}")
    poster.wait(f"3 / {N}")  # it repeats
    assert queued == []
    poster.part(".play").click()
    poster.part(".player:not(.moving)").wait_for()
    held = poster.count()
    poster.assert_shows(int(held.split()[0]) - 1)

    page.click("#wide")
    live.wait("3 / 3")
    live.part(".stage").focus()
    page.keyboard.press("Home")
    assert (live.count(), poster.count()) == ("1 / 3", held)
    live.part(".loop").click()
    assert live.part(".loop").get_attribute("aria-pressed") == poster.part(".loop").get_attribute("aria-pressed") == "true"
    live.part(".loop").click()
    assert live.part(".loop").get_attribute("aria-pressed") == "false"
    assert poster.part(".loop").get_attribute("aria-pressed") == "true"
    live.part(".play").click()
    live.wait("3 / 3")
    assert poster.count() == held

    # texts change with the page's language; those that are not named stay
    page.click("#chinese")
    live.part('.play[aria-label="播放"]').wait_for()
    assert live.part(".loop").get_attribute("aria-label") == ENGLISH["loop"]
    assert poster.part(".play").get_attribute("aria-label") == "Play"
    assert page.problems == []


def test_text_is_shown_and_never_run(still: Any) -> None:
    page = still
    live = Seen(page, "live")
    page.click("#hostile")
    live.wait("2 / 2")
    assert live.part(".caption").inner_text() == HOSTILE
    assert live.part(".pane .name").first.inner_text() == HOSTILE
    assert live.part(".segments span").first.inner_text() == HOSTILE
    assert live.part("img").count() == 0
    assert page.evaluate("window.hacked") is None
    assert page.problems == []


def test_it_fits_a_phone(phone: Any) -> None:
    page = phone
    poster, live = Seen(page, "poster"), Seen(page, "live")
    poster.wait(f"{N} / {N}")
    tops = [canvas.bounding_box()["y"] for canvas in poster.part(".pane canvas").all()]
    assert len(tops) == 3
    assert len(set(tops)) == 1, "small panes stay in a row"
    scale = poster.pixels(0).shape[1] / 6
    assert scale == int(scale)
    assert poster.part(".pane canvas").first.bounding_box()["width"] * 3 == pytest.approx(poster.pixels(0).shape[1], abs=0.1)

    page.click("#wide")
    live.wait("3 / 3")
    boxes = [canvas.bounding_box() for canvas in live.part(".pane canvas").all()]
    assert len({box["y"] for box in boxes}) > 1, "large panes leave the row"
    assert min(box["width"] for box in boxes) >= 1.5 * 112
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for box in (button.bounding_box() for button in live.part("button").all()):
        assert min(box["width"], box["height"]) >= 36
    assert page.problems == []


def test_nothing_moves_for_those_who_asked_for_that(still: Any) -> None:
    page, poster = still, Seen(still, "poster")
    poster.wait(f"{N} / {N}")
    page.wait_for_timeout(400)
    assert poster.count() == f"{N} / {N}"
    poster.assert_shows(N - 1)
    poster.part(".play").click()  # but playing on demand works
    poster.wait(f"4 / {N}")
    poster.part(".play").click()
