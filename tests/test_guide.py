"""The guide, walked from the first step to the last: every step sets the state that it promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests import tiny

pytest.importorskip("gradio")

from genlab.demo import guide
from genlab.demo.app import TABS
from genlab.demo.guide import STEPS, address, html, step_of
from genlab.serving.language import Language, choose

STATE = """([tab, query]) => {
    document.querySelector(`#${tab}-share`)?.click();
    const link = document.querySelector(`#${tab}-link textarea, #${tab}-link input`)?.value ?? '';
    return query.every(([name, value]) => new URLSearchParams(link.split('?').pop()).get(name) === value);
}"""
"""Writes the link to the tab's state; whether it has these values."""
LED = """selector => {
    const bar = document.querySelector('.genlab-guide.bar'), place = document.querySelector(selector).getBoundingClientRect();
    return place.top >= 0 && place.top < (bar.hidden ? innerHeight : bar.getBoundingClientRect().top);
}"""
"""Whether the top of what a step marks can be seen."""
CUT = """selector => [...document.querySelectorAll(selector)].filter((marked) => {
    const style = getComputedStyle(marked), out = parseFloat(style.outlineOffset) + parseFloat(style.outlineWidth);
    const { left, right } = marked.getBoundingClientRect();
    for (let around = marked.parentElement; around !== document.body; around = around.parentElement) {
        const place = around.getBoundingClientRect();
        const narrow = place.left > left - out || place.right < right + out;
        if (narrow && getComputedStyle(around).overflowX !== 'visible') return true;
    }
}).map((marked) => marked.id)"""
"""What a step marks whose outline is cut off at its side by something around it."""
CENTRED = """([inner, outer]) => {
    const shown = [...document.querySelectorAll(inner)].filter((node) => node.offsetParent);
    const middle = (node) => node.getBoundingClientRect().top + node.getBoundingClientRect().height / 2;
    return shown.length && shown.every((node) => Math.abs(middle(node) - middle(node.closest(outer))) < 2);
}"""
"""Whether all buttons of a kind are at the middle of the control around them."""
NAME = re.compile("“(.*?)”")
DEMO = Path(guide.__file__).parent


def plain(text: str, language: Language) -> str:
    """A text as the page has it in a language, its subscripts beside the other letters."""
    return re.sub("[_{}]", "", choose(text, language))


@pytest.mark.parametrize(
    "query", [{}, {"step": "0"}, {"step": "15"}, {"step": "1e1"}, {"step": "-1"}, {"step": "<b>"}, {"step": "٣"}]
)
def test_an_address_without_a_step_is_no_guide(query: dict[str, str]) -> None:
    assert step_of(query) is None


def test_the_guide_is_offered_where_its_models_are_served() -> None:
    assert guide.offered(["vae-mnist", "ddpm-mnist", "mine"])
    assert not guide.offered(["ddpm-mnist", "mine"])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_links_of_a_step_lead_to_its_neighbours(language: Language) -> None:
    for number in range(1, len(STEPS) + 1):
        links = re.findall(r'href="([^"]+)"', choose(html(number), language))
        steps = [int(dict(parse_qsl(link[1:]))["step"]) for link in links if link.startswith("?")]
        around = [n for n in (number - 1, number + 1) if 1 <= n <= len(STEPS)]
        assert sorted(steps) == sorted([*range(1, len(STEPS) + 1), *around])


def test_what_a_step_names_is_called_so_on_the_page() -> None:
    sources = "".join(path.read_text("utf-8") for folder in ("tabs", "components") for path in (DEMO / folder).rglob("*.py"))
    for number, step in enumerate(STEPS, 1):
        english, chinese = (NAME.findall(choose(step.do + step.correction, language)) for language in ("en", "zh"))
        named = {zh for en in english for zh in chinese if f'both("{en}", "{zh}")' in sources}
        assert (named, len(english)) == (set(chinese), len(chinese)), number


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with tiny.serving(tiny.load_models()) as address:
        yield address


@pytest.mark.parametrize(("language", "width"), [("en", 1280), ("zh", 390)])
def test_the_guide_is_walked_through(url: str, browser: Any, language: Language, width: int) -> None:
    page = tiny.watched(browser.new_context(viewport={"width": width, "height": 900}, locale=language).new_page())
    page.on("framenavigated", lambda _: page.problems.clear())  # gradio's streams break off when a page is left
    page.goto(url)
    page.locator(".genlab-begin a").click()
    for number, step in enumerate(STEPS, 1):
        page.locator(".genlab-guide h2").get_by_text(choose(step.title, language), exact=True).wait_for()
        assert page.url.endswith(address(number))
        assert not page.locator(".genlab-begin a").is_visible()
        query = dict(parse_qsl(step.query))
        page.locator('[role="tab"][aria-selected="true"]').get_by_text(
            choose(TABS[query["tab"]].TEXT["title"], language)
        ).wait_for()
        page.locator(step.mark).first.wait_for()
        page.wait_for_function(STATE, arg=[query["tab"], list(query.items())], polling=1000)
        page.locator(".genlab-guide .do button").press("Enter")
        page.wait_for_function(LED, arg=step.mark.partition(",")[0])
        assert page.evaluate(CUT, step.mark) == [], number
        if "←" in step.do:
            assert page.evaluate("document.activeElement.closest('.player') !== null"), "no film takes the arrow keys"
        if width == 390:
            bar = page.locator(".genlab-guide.bar")
            bar.get_by_text(plain(step.do, language)).wait_for()
            bar.get_by_role("button").press("Enter")
            bar.wait_for(state="hidden")
        answer = page.locator(".genlab-guide > details")
        assert not answer.get_by_text(plain(step.answer, language)).is_visible()
        answer.locator("summary").press("Enter")
        assert answer.get_by_text(plain(step.answer, language)).is_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), number
        assert page.problems == [], number
        if number < len(STEPS):
            page.locator(".genlab-guide nav > a").last.click()
    page.context.close()


def test_the_first_step_shows_the_curve_of_its_own_model(url: str, browser: Any) -> None:
    page = tiny.watched(browser.new_context(locale="en").new_page())
    page.goto(f"{url}/{address(1)}")
    page.get_by_text("features of mnist").wait_for()
    page.context.close()


def test_under_a_finger_a_button_keeps_to_its_control(url: str, browser: Any) -> None:
    page = tiny.watched(browser.new_context(viewport={"width": 390, "height": 900}, has_touch=True, locale="en").new_page())
    page.goto(f"{url}/?tab=process")
    for inner, outer in ((".reset-button", ".tab-like-container"), (".label-wrap > .icon", ".label-wrap")):
        page.wait_for_function(CENTRED, arg=[inner, outer])
    page.context.close()
