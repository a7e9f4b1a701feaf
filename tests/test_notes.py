"""docs/notes.md and docs/notes.zh.md: what they name exists, both say the same, what the code calls "notes 1.4" is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import gradio as gr
import pytest

from genlab.demo.app import TABS
from genlab.demo.documents import DOCUMENTS
from genlab.demo.guide import STEPS, address
from genlab.demo.tabs.playground.request import read_link
from genlab.serving.language import TAGS, Language, choose
from tests import tiny

ROOT = Path(__file__).parents[1]
LANGUAGES = {"en": "docs/notes.md", "zh": "docs/notes.zh.md"}
LABELS = {"en": ("**Code.**", "**Tab.**", "**Try.**"), "zh": ("**代码。**", "**页面。**", "**试一试。**")}
PAGE = "http://127.0.0.1:7860/"
FOLDERS = ("genlab", "training", "benchmarks", "docs", "tests")
FILES = sorted([*ROOT.glob("*.md"), *(p for f in FOLDERS for s in ("*.py", "*.md") for p in (ROOT / f).rglob(s))])
INLINE = re.compile(r"\$([^$]+)\$")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Section:
    """A heading with the anchors above it and the text below it, up to the next heading."""

    level: int
    title: str
    anchors: tuple[str, ...]
    text: str

    @property
    def number(self) -> str:
        """The notes' own number; "" where the heading is ours."""
        return "".join(re.findall(r"^[\d.]+", self.title))

    @property
    def formulas(self) -> list[str]:
        return [dedent(found) for found in re.findall(r"```math\n(.*?)\n *```", self.text, re.DOTALL)]

    @property
    def prose(self) -> str:
        return re.sub(r" *```math\n.*?```", "", self.text, flags=re.DOTALL)

    def after(self, label: str) -> str:
        """The line that begins with a label."""
        return next(line for line in self.text.splitlines() if line.startswith(label))


def sections(language: str) -> list[Section]:
    parts = re.split(r"((?:<a id=\"[\w-]+\"></a>\n)+)\n(#+) (.*)\n", (ROOT / LANGUAGES[language]).read_text())
    return [
        Section(len(marks), title, tuple(re.findall(r'id="([\w-]+)"', anchors)), text)
        for anchors, marks, title, text in zip(*(parts[i::4] for i in range(1, 5)), strict=True)
    ]


SECTIONS = {language: sections(language) for language in LANGUAGES}
ANCHORS = {anchor for section in SECTIONS["en"] for anchor in section.anchors}
NUMBERS = {section.number for section in SECTIONS["en"]}


def with_content(language: str) -> list[Section]:
    """The sections that are more than a heading, without the references."""
    return [section for section in SECTIONS[language][:-1] if section.text.strip()]


def names(section: Section, language: str) -> list[tuple[str, str | None]]:
    """(file, function or None) of a section's line of code."""
    found: list[tuple[str, str | None]] = []
    for span in re.findall(r"`([^`]+)`", section.after(LABELS[language][0])):
        found.append((span, None) if span.endswith(".py") else (found[-1][0], span))
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_section_of_the_notes_is_there(language: str) -> None:
    assert NUMBERS - {""} == {"1", "1.1", "1.2", "1.2.1", "1.3", "1.3.1", "1.3.2", "1.4", "1.5", "2", "2.1"}
    assert {f"fig-{n}" for n in range(1, 6)} <= ANCHORS
    for section in SECTIONS[language]:
        assert not section.number or section.anchors[0] == "n" + section.number.replace(".", "-")
    for section in with_content(language):
        for label in LABELS[language]:
            assert section.after(label)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_file_and_function_that_is_named_exists(language: str) -> None:
    known = set()
    for section in with_content(language):
        for path, name in names(section, language):
            assert (ROOT / path).is_file(), path
            if name is not None:
                attrgetter(name)(import_module(path.removesuffix(".py").replace("/", ".")))
                known.add(name)
    for span in re.findall(r"`([^`\s]+)`", "".join(section.prose for section in SECTIONS[language])):
        if span.isidentifier():
            assert span in known, span


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_leads_somewhere(language: str) -> None:
    document = ROOT / LANGUAGES[language]
    links = LINK.findall(document.read_text())
    assert links
    for link in links:
        if link.startswith(PAGE):
            query = dict(parse_qsl(urlsplit(link).query))
            assert query["tab"] in TABS, link
            assert query.get("lang", "en") == language, link
            if "step" in query:
                assert link.removeprefix(PAGE).removesuffix("&lang=zh") == address(int(query["step"]))
            else:
                assert not query.keys() - {"tab", "lang"} or read_link(query) is not None, link
        else:
            path, _, anchor = link.partition("#")
            assert (document.parent / path).exists(), link
            assert not anchor or anchor in ANCHORS, link


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_step_of_the_guide_is_linked_where_its_section_names_the_tab(language: str) -> None:
    for number, step in enumerate(STEPS, 1):
        (at,) = (i for i, section in enumerate(SECTIONS[language]) if step.anchor in section.anchors)
        section = next(section for section in SECTIONS[language][at:] if section.text.strip())
        tabs = section.text.partition(LABELS[language][1])[2].partition("\n\n")[0]
        assert number in [int(found) for found in re.findall(r"&step=(\d+)", tabs)], step.anchor


@pytest.mark.parametrize("place", range(len(SECTIONS["en"])), ids=lambda i: SECTIONS["en"][i].anchors[0])
def test_both_languages_say_the_same(place: int) -> None:
    en, zh = (SECTIONS[language][place] for language in LANGUAGES)
    assert (en.level, en.number, en.anchors) == (zh.level, zh.number, zh.anchors)
    assert en.formulas == zh.formulas
    assert set(INLINE.findall(en.prose)) == set(INLINE.findall(zh.prose))
    assert re.findall(r"`[^`]+`", en.prose) == re.findall(r"`[^`]+`", zh.prose)
    assert LINK.findall(en.prose) == [link.replace("&lang=zh", "") for link in LINK.findall(zh.prose)]


def test_both_languages_have_as_many_sections() -> None:
    assert len(SECTIONS["en"]) == len(SECTIONS["zh"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_formulas_in_a_line_are_taken_as_such_by_github(language: str) -> None:
    """A space or the beginning of a line before them, no letter after them, and nothing within that Markdown would change."""
    for section in SECTIONS[language]:
        for line in section.prose.splitlines():
            assert line.count("$") % 2 == 0, line
            for found in INLINE.finditer(line):
                assert found.start() == 0 or line[found.start() - 1] == " ", line
                assert not line[found.end() : found.end() + 1].isalnum(), line
                assert not re.search(r"\\[^A-Za-z]|[})]_|[*<]|^\s|\s$", found[1]), line


def references() -> list[tuple[str, str]]:
    """(place, section) for every section of the notes that the code or a document refers to."""
    several = re.compile(r"(?:[Nn]otes|讲义) ?((?:\d(?:\.\d)*(?:, | and |–|、)?)+)")
    return [
        (str(path.relative_to(ROOT)), number)
        for path in FILES
        for numbers in several.findall(path.read_text())
        for number in re.findall(r"\d(?:\.\d)*", numbers)
    ]


def test_every_section_that_the_code_refers_to_is_there() -> None:
    found = references()
    assert {number for _, number in found} >= {"1.4", "1.5", "2"}
    assert [(place, number) for place, number in found if number not in NUMBERS] == []


def test_every_link_of_the_code_into_the_notes_leads_somewhere() -> None:
    for path in FILES:
        for anchor in re.findall(r"notes(?:\.zh)?\.md#([\w-]+)", path.read_text()):
            assert anchor in ANCHORS, (path, anchor)


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with tiny.served(gr.Blocks(analytics_enabled=False)) as url:
        yield url


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_serves_the_account(served: str, browser: Any, language: str) -> None:
    """Every formula is rendered, no Markdown is left, and every link leads into a document or to the page; on a phone too."""
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(f"{served}/{LANGUAGES[language]}#n2-likelihood")
    source = (ROOT / LANGUAGES[language]).read_text()
    formulas = source.count("```math") + len(INLINE.findall(re.sub(r"```math.*?```", "", source, flags=re.DOTALL)))
    page.wait_for_function("n => document.querySelectorAll('main .katex-html').length === n", arg=formulas)
    page.wait_for_function("() => Math.abs(document.getElementById('n2-likelihood').getBoundingClientRect().y) < 100")
    assert page.locator(".katex-error").count() == 0
    assert page.locator("html").get_attribute("lang") == TAGS[language]  # type: ignore[index]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    text = page.evaluate("document.querySelectorAll('.katex, code').forEach(part => part.remove()) || document.body.innerText")
    assert not re.search(r"[$\\\ue000\ue001]|\*\*|```|\]\(", text)
    assert set(page.evaluate("[...document.querySelectorAll('a[id]')].map(a => a.id)")) == ANCHORS
    for link in page.evaluate("[...document.links].map(a => a.getAttribute('href'))"):
        assert link[1:] in ANCHORS or link.startswith("../") or link in DOCUMENTS, link
    page.context.close()


@pytest.mark.parametrize(("name", "document"), DOCUMENTS.items())
def test_every_tab_links_its_section(name: str, document: tuple[Language, object]) -> None:
    for tab in TABS.values():
        linked = re.findall(r"\(docs/([^#)]+)#([^)]+)\)", choose(tab.TEXT["lead"], document[0]))
        assert linked
        assert all(to == name and anchor in ANCHORS for to, anchor in linked)
