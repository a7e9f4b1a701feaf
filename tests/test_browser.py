"""The page in a real browser: every tab computes, moves, and asks nobody else for anything."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from genlab.demo.app import TABS
from genlab.demo.turns import DeadlineError, Runner
from genlab.serving.guard import PRESENCE
from tests import tiny
from tests.conftest import needed

PATIENCE = 120_000
"""Milliseconds; a busy machine is slow, and nothing here is about speed."""
PIXELS = """() => [...document.querySelectorAll('canvas')].filter(c => c.offsetParent && c.width && c.height).map(c => {
    const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) sum = (sum * 31 + data[i] + 7 * data[i + 1] + 13 * data[i + 2]) % 2147483647;
    return sum;
}).join(' ')"""
"""A number for what the visible canvases show."""


class Gate:
    """Lets a runner take as many steps as a test allows, so that the page does not depend on the speed of the machine."""

    def __init__(self, runner: Runner) -> None:
        self._open, self._steps = threading.Event(), threading.Semaphore(0)
        self._open.set()
        self._compute = runner.scheduler._call
        runner.scheduler._call = self._call  # type: ignore[method-assign]

    def _call(self, *arguments: Any) -> Any:
        while not self._open.is_set() and not self._steps.acquire(timeout=0.05):
            pass
        return self._compute(*arguments)

    def close(self) -> None:
        while self._steps.acquire(blocking=False):
            pass
        self._open.clear()

    def let(self, steps: int) -> None:
        self._steps.release(steps)

    def open(self) -> None:
        self._open.set()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[SimpleNamespace]:
    models, runner = tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models"))), Runner(PATIENCE / 1000)
    gate = Gate(runner)
    with tiny.serving(models, runner) as url:
        yield SimpleNamespace(url=url, gate=gate, browser=browser)
        gate.open()


def visit(site: SimpleNamespace, width: int, locale: str = "en-US", scheme: str = "light") -> SimpleNamespace:
    """The page at a width, and what the browser says and asks for from then on."""
    look = {"locale": locale, "color_scheme": scheme, "reduced_motion": "no-preference"}
    page = site.browser.new_page(viewport={"width": width, "height": 900}, **look)
    page.set_default_timeout(PATIENCE)
    seen = SimpleNamespace(page=page, errors=[], requests=[], open=set(), gate=site.gate, url=site.url)
    page.on("console", lambda m: seen.errors.append(f"{m.text} {m.location['url']}") if m.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("data:", "blob:")) else seen.requests.append(r.url))
    page.on("request", lambda r: None if PRESENCE in r.url else seen.open.add(r))
    page.on("requestfinished", lambda r: seen.open.discard(r))
    page.on("requestfailed", lambda r: seen.open.discard(r))
    page.goto(site.url)
    page.wait_for_selector("canvas")
    return seen


@pytest.fixture(scope="module")
def desk(site: SimpleNamespace) -> SimpleNamespace:
    return visit(site, 1280)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: nothing is held back any more, and there was no error in the console."""
    yield
    if "desk" in request.fixturenames:
        seen = request.getfixturevalue("desk")
        seen.gate.open()
        assert seen.errors == []


def test_a_request_to_another_host_is_noticed(browser: Any) -> None:
    page = browser.new_page()
    page.set_content(
        '<img src="data:,"><img src="http://elsewhere.invalid/a.png"><script src="http://127.0.0.1:9/b.js"></script>'
    )
    assert browser.foreign == ["http://elsewhere.invalid/a.png"]
    browser.foreign.clear()
    page.context.close()


def changed(page: Any, before: str) -> str:
    """Waits until the visible canvases show something else than `before`; what they show then."""
    page.wait_for_function(f"before => ({PIXELS})() !== before", arg=before)
    return page.evaluate(PIXELS)


def at_rest(seen: SimpleNamespace) -> None:
    """Waits until the page has had nothing to ask for a second.

    Half a minute at most: the browser does not always tell the end of a request.
    """
    quiet = 0
    for _ in range(300):
        seen.page.wait_for_timeout(100)
        quiet = 0 if seen.open else quiet + 1
        if quiet == 10:
            return


def test_a_page_that_is_opened_leaves_no_error_in_the_servers_log(
    site: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    seen = visit(site, 1280)
    seen.page.wait_for_timeout(3000)
    said = capfd.readouterr().err
    seen.page.context.close()
    assert "Traceback" not in said


def leave(seen: SimpleNamespace, action: Callable[[], object]) -> None:
    """Goes to another page by `action`; what the one that is left had not yet been given, of which it tells, does not count."""

    def forget(_: object) -> None:
        seen.errors.clear()
        seen.open.clear()

    assert seen.errors == []
    seen.page.once("framenavigated", forget)
    with seen.page.expect_event("framenavigated"):
        action()


def disabled(page: Any, button: str, expected: bool) -> None:
    """Waits until a button can, or cannot, be pressed."""
    page.wait_for_function(f"id => document.getElementById(id).disabled === {str(expected).lower()}", arg=button)


def test_the_first_tab_moves_before_anything_is_pressed(desk):
    first = changed(desk.page, desk.page.evaluate(PIXELS))
    changed(desk.page, changed(desk.page, first))


@pytest.mark.parametrize(
    ("tab", "run"), [("Sample", "sample-run"), ("Interpolate", "interpolate-run"), ("Diffusion", "diffusion-run")]
)
def test_a_tab_moves_while_it_computes_and_is_scrubbed_without_the_server(desk, tab, run):
    page = desk.page
    page.get_by_role("tab", name=tab).click()
    page.wait_for_selector(f"#{run}", state="visible")
    desk.gate.close()
    page.click(f"#{run}")
    disabled(page, run, True)
    before = page.evaluate(PIXELS)
    for _ in range(3):  # 9 of 10 steps or more, each time after a pause, so that the first of them is due to be shown
        page.wait_for_timeout(500)
        desk.gate.let(3)
        before = changed(page, before)
    disabled(page, run, True)
    desk.gate.open()
    changed(page, before)
    disabled(page, run, False)

    page.wait_for_timeout(1000)
    asked = len(desk.requests)
    scrubber = page.locator("input[type=range][aria-label='Frame']:visible")
    shown = set()
    for key in ("Home", "ArrowRight", "ArrowRight", "End"):
        scrubber.press(key)
        page.wait_for_timeout(200)
        shown.add(page.evaluate(PIXELS))
    assert len(shown) >= 3
    assert len(desk.requests) == asked


def test_stop_ends_a_run_and_another_can_begin(desk):
    page = desk.page
    page.get_by_role("tab", name="Sample").click()
    desk.gate.close()
    for _ in range(2):
        disabled(page, "sample-run", False)
        page.click("#sample-run")
        disabled(page, "sample-run", True)
        page.get_by_role("button", name="Stop").locator("visible=true").click()
    disabled(page, "sample-run", False)
    desk.gate.open()


ARRIVED = """least => [...document.querySelectorAll('.player:not(.figure) .state')].some(
    state => state.closest('.player').offsetParent && state.textContent.match(/computing, (\\d+) of 11/)?.[1] >= least)"""
"""Whether a player that is seen has as many frames of a run of eleven."""


@pytest.mark.parametrize("early", ["stopped", "failed"])
def test_what_came_of_a_run_that_ended_early_can_be_played(desk, monkeypatch, early):
    page = desk.page
    page.get_by_role("tab", name="Sample").click()
    part = {name: page.locator(f".player:visible:not(.figure) .{name}") for name in ("state", "count", "play", "loop")}
    counted = "count => [...document.querySelectorAll('.count')].some(c => c.offsetParent && c.textContent === count)"
    disabled(page, "sample-run", False)
    desk.gate.close()
    page.click("#sample-run")
    for least in (2, 3):
        for _ in range(4):
            desk.gate.let(1)
            with suppress(needed("playwright.sync_api").TimeoutError):  # another may have taken the step
                page.wait_for_function(ARRIVED, arg=least, timeout=10_000)
                break
    held = re.fullmatch(r"computing, (\d+) of 11 frames", part["state"].text_content())[1]
    if early == "stopped":
        page.get_by_role("button", name="Stop").locator("visible=true").click()
    else:

        def fail(*_: Any) -> Any:
            raise DeadlineError("no more")

        monkeypatch.setattr(desk.gate, "_compute", fail)
        desk.gate.let(3)
    page.wait_for_function(counted, arg=f"{held} / {held}")
    assert part["state"].text_content() == ""
    assert part["play"].get_attribute("aria-label") == "Play"
    if part["loop"].get_attribute("aria-pressed") == "false":
        part["loop"].click()
    part["play"].click()
    for i in (1, held, 1):  # from the first, to the last, and round
        page.wait_for_function(counted, arg=f"{i} / {held}")
    part["loop"].click()
    disabled(page, "sample-run", False)
    monkeypatch.undo()
    desk.gate.open()


def test_a_refused_request_says_what_to_change(desk):
    page = desk.page
    page.get_by_role("tab", name="Sample").click()
    page.get_by_label("Seed").locator("visible=true").first.fill("-5")
    page.click("#sample-run")
    page.get_by_text("seed: expected a whole number from 0 to").first.wait_for()
    disabled(page, "sample-run", False)


def test_the_page_speaks_the_visitors_language_and_the_switch_changes_it(site):
    """Texts of the page, of gradio, of errors and of captions; by keyboard; remembered."""
    seen = visit(site, 1280, "zh-CN")
    page = seen.page
    captions = "() => [...document.querySelectorAll('.caption')].map(c => c.textContent).join(' ')"
    for locale, tab, run, seed, refusal, caption, api, other in (
        ("zh-CN", "采样", "生成图片", "种子", "种子：应为 0 到", "步，共", "通过 API 使用", "English"),
        ("en", "Sample", "Draw pictures", "Seed", "seed: expected a whole number", "step ", "Use via API", "中文"),
    ):
        assert page.evaluate("[document.documentElement.lang, navigator.language]") == [locale, locale]
        assert page.get_by_role("tab", name=tab).is_visible()
        page.get_by_text(api).wait_for()
        page.wait_for_function(f"words => ({captions})().includes(words)", arg=caption)
        page.get_by_label(seed, exact=True).locator("visible=true").first.fill("-5")
        page.get_by_role("button", name=run).click()
        page.get_by_text(refusal).first.wait_for()
        disabled(page, "sample-run", False)
        leave(seen, lambda to=other: page.get_by_role("link", name=to).press("Enter"))
        page.wait_for_function("was => document.documentElement.lang !== was", arg=locale)
        page.wait_for_selector("canvas")
    assert "lang" not in page.url
    page.wait_for_function(f"words => ({captions})().includes(words)", arg="步，共")
    leave(seen, lambda: page.get_by_role("link", name="English").press("Enter"))
    page.wait_for_function("() => document.documentElement.lang === 'en'")
    page.wait_for_function(f"words => ({captions})().includes(words)", arg="step ")
    leave(seen, lambda: page.goto(site.url))
    assert page.evaluate("document.documentElement.lang") == "en"
    at_rest(seen)
    assert seen.errors == []


@pytest.mark.parametrize(("locale", "scheme", "dark"), [("en-US", "light", False), ("zh-CN", "dark", True)])
def test_a_phone_needs_no_sideways_scroll_and_nobody_else(site, locale, scheme, dark):
    seen = visit(site, 390, locale, scheme)
    page = seen.page
    assert page.evaluate("document.body.classList.contains('dark')") == dark
    tabs = page.get_by_role("tab")
    assert tabs.count() == len(TABS)
    for i in range(tabs.count()):
        tabs.nth(i).click()
        page.wait_for_timeout(700)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tabs.nth(i).inner_text()
    at_rest(seen)
    assert seen.errors == []


JUMPS = """() => {
    if (window.jump === undefined)
        new PerformanceObserver(list => list.getEntries().forEach(entry => entry.sources.forEach(seen => {
            window.jump = Math.max(window.jump, Math.abs(seen.currentRect.y - seen.previousRect.y)); })))
            .observe({type: 'layout-shift'});
    window.jump = 0; }"""
"""Notes the most pixels by which anything that is seen is moved up or down by something else."""


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_jumps_while_frames_stream(site, width):
    seen = visit(site, width)
    page = seen.page
    for tab in ("Sample", "Interpolate", "Diffusion"):
        run = f"{tab.lower()}-run"
        page.get_by_role("tab", name=tab).click()
        page.wait_for_selector(f"#{run}", state="visible")
        page.wait_for_timeout(1000)
        page.evaluate(JUMPS)
        page.click(f"#{run}")
        disabled(page, run, True)
        disabled(page, run, False)
        page.wait_for_timeout(300)
        assert page.evaluate("window.jump") < 1, tab
    at_rest(seen)
