"""genlab/demo/tabs/link.py: a link restores the controls of its tab, and nothing else passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests import tiny

pytest.importorskip("gradio")

import gradio as gr

from genlab.demo.app import TABS
from genlab.demo.limits import LimitError
from genlab.demo.tabs.link import Link
from genlab.demo.turns import Runner

LINKS = {
    "sample": "tab=sample&model=ddpm-mnist&label=7&count=2&steps=3&sampler=DDIM&guidance=1.5&seed=4294967295",
    "process": "tab=process&model=ddpm-mnist&picture_from=test+picture&picture=2&steps=4&sampler=DDIM"
    "&start=the+noise+reached&label=7&seed=5&until=6",
    "interpolate": "tab=interpolate&data=mnist&a_from=seed&a=3&b_from=test+picture&b=2&points=3&steps=2",
}


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Link]:
    models = tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))
    with gr.Blocks(analytics_enabled=False) as page:
        return {name: TABS[name].build(models, Runner(), page) for name in LINKS}


@pytest.mark.parametrize("tab", LINKS)
def test_a_link_that_is_read_writes_itself(links: dict[str, Link], tab: str) -> None:
    link = links[tab]
    query = dict(parse_qsl(LINKS[tab]))
    updates = link.read(query)
    assert link.write(*(update["value"] for update in updates)) == LINKS[tab]
    choices = dict(zip(link.controls, updates, strict=True)).get("label", {}).get("choices", [("7", "7")])
    assert "7" in [value for _, value in choices], "the choices are those of the linked model"


@pytest.mark.parametrize("tab", LINKS)
def test_what_a_link_does_not_name_has_its_first_value(links: dict[str, Link], tab: str) -> None:
    link = links[tab]
    name = next(iter(link.controls))
    short = link.read({"tab": tab, name: dict(parse_qsl(LINKS[tab]))[name]})
    assert [update["value"] for update in short[1:]] == [component.value for component in list(link.controls.values())[1:]]


@pytest.mark.parametrize("tab", LINKS)
def test_an_address_that_is_no_link_changes_nothing(links: dict[str, Link], tab: str) -> None:
    for query in ({}, {"tab": tab}, {**dict(parse_qsl(LINKS[tab])), "tab": "vae"}):
        assert all("value" not in update for update in links[tab].read(query))


@pytest.mark.parametrize(
    ("tab", "change", "message"),
    [
        ("sample", {"model": "<b>"}, "model: expected one of"),
        ("sample", {"seed": "1e9"}, "the link is damaged: seed: expected a number, got '1e9'"),
        ("sample", {"seed": "-1"}, "seed: expected a whole number from 0"),
        ("sample", {"count": "9" * 500}, "the link is damaged: count: expected a number"),
        ("process", {"picture_from": "upload"}, "Picture: expected an uploaded picture, got none"),
        ("process", {"until": "0.5"}, "t up to which noise is added: expected a whole number"),
        ("interpolate", {"b": "99999"}, "B, test picture: expected a whole number from 0 to 19"),
    ],
)
def test_a_damaged_link_is_refused(links: dict[str, Link], tab: str, change: dict[str, str], message: str) -> None:
    query = dict(parse_qsl(LINKS[tab])) | change
    with pytest.raises(LimitError, match=message):
        links[tab].read(query)


def test_a_link_holds_no_upload(links: dict[str, Link]) -> None:
    values = [update["value"] for update in links["process"].read(dict(parse_qsl(LINKS["process"])))]
    values[1] = "upload"
    with pytest.raises(gr.Error, match="a link cannot hold an upload"):
        links["process"].write(*values)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tiny.serving(tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("served")))) as address:
        yield address


WRITTEN = """([tab, query]) => {
    document.querySelector(`#${tab}-share`)?.click();
    return document.querySelector(`#${tab}-link textarea, #${tab}-link input`)?.value.endsWith(query);
}"""
"""Writes the link to the page's state until it is the expected one, once the page is restored."""


@pytest.mark.parametrize("tab", LINKS)
def test_the_page_opens_as_the_link_says_and_runs(url: str, browser: Any, tab: str) -> None:
    page = tiny.watched(browser.new_page())
    page.goto(f"{url}/?{LINKS[tab]}")
    panel = page.get_by_role("tabpanel").filter(has=page.locator(f"#{tab}-share"))
    page.wait_for_function(WRITTEN, arg=[tab, LINKS[tab]], polling=1000)
    panel.get_by_role("button", name="Play").first.wait_for()
    assert page.problems == []
    page.context.close()
