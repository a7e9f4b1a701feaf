"""genlab/demo/tabs/link.py: a link restores the state of its tab, and nothing else passes."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tests import tiny

pytest.importorskip("gradio")

import gradio as gr

from genlab.demo.app import TABS
from genlab.demo.limits import LimitError
from genlab.demo.tabs import one_picture
from genlab.demo.tabs.link import Link
from genlab.demo.turns import Runner

CONTROLS = {
    "sample": "tab=sample&model=ddpm-mnist&label=7&count=2&steps=3&sampler=DDIM&guidance=1.5&seed=4294967295",
    "process": "tab=process&model=ddpm-mnist&picture_from=test+picture&picture=2&steps=4&sampler=DDIM"
    "&start=the+noise+reached&label=7&seed=5&until=6",
    "compare": "tab=compare&a_model=ddpm-mnist&a_label=7&a_steps=3&a_sampler=DDIM&a_variance=own&a_guidance=1"
    "&b_model=ddpm-mnist&b_label=any&b_steps=2&b_sampler=ancestral&b_variance=beta&b_guidance=1.5&seed=5",
    "interpolate": "tab=interpolate&data=mnist&a_from=seed&a=3&b_from=test+picture&b=2&points=3&steps=2",
}
"""Links whose tabs have their whole state in controls."""


def packed(values: bytes) -> str:
    """A picture as a link holds it."""
    return base64.urlsafe_b64encode(zlib.compress(values, 9)).decode().rstrip("=")


DRAWING = packed(bytes(300) + b"\xff\x80" * 100 + bytes(284))
COVER = packed(b"\xff\x00" * 100 + bytes(584))
LINKS = CONTROLS | {
    "divergence": "tab=divergence&weight=0.3&left_mean=-2.5&left_std=0.5&right_mean=2&right_std=1.25&start_mean=4&start_std=0.8"
    "&p=0.5,0.25,0.125,0.0625,0.03125,0.03125&q=0.6,0.4,0,0,0,0",
    "vae": "tab=vae&model=vae-fashion-mnist&picture=2&seed=5&row=4&column=6&z=0.5,-1,2.25,0",
    "bound": f"tab=bound&model=ddpm-fashion-mnist&seed=7&row=1&column=2&x={DRAWING}&t=33",
    "training": "tab=training&model=from+scratch",
    "score": "tab=score&data=moons&t=3&walk=reverse&seed=7",
    "condition": "tab=condition&model=ddpm-fashion-mnist&mode=repair&until=6&label=Dress&rounds=2&guidance=1.5&steps=4&seed=5"
    f"&x={DRAWING}&cover={COVER}",
}


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Link]:
    models = tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))
    with gr.Blocks(analytics_enabled=False) as page:
        return {name: TABS[name].build(models, Runner(), page) for name in LINKS}


@pytest.mark.parametrize("tab", CONTROLS)
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
    for query in ({}, {"tab": tab}, {**dict(parse_qsl(LINKS[tab])), "tab": "nowhere"}):
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
        ("compare", {"b_variance": "learned"}, "Σ of the ancestral step: expected one of own, posterior, beta"),
        ("compare", {"a_model": "<b>"}, "model: expected one of"),
        ("condition", {"mode": "<b>"}, "what to do: expected one of repair, drawing, class"),
        ("condition", {"x": "<b>"}, "x: expected a picture as the page writes it, got '&lt;b&gt;'"),
        ("condition", {"mode": "class", "cover": "<b>"}, "cover: expected a picture as the page writes it, got '&lt;b&gt;'"),
        ("condition", {"cover": packed(bytes(784))}, "nothing is painted over"),
        ("condition", {"cover": packed(bytes(10**7))}, "cover: expected a picture as the page writes it"),
        ("condition", {"picture": "99"}, "Picture, test picture: expected a whole number from 0 to 19"),
        ("interpolate", {"b": "99999"}, "B, test picture: expected a whole number from 0 to 19"),
        ("divergence", {"weight": "2"}, "weight of the left mode: expected a number from 0.05 to 0.95"),
        ("divergence", {"p": "1,<b>"}, "the link is damaged: p: expected numbers with commas"),
        ("divergence", {"p": "0.5,0.5", "q": "1,0"}, "p and q: expected 6 outcomes, got 2"),
        ("vae", {"picture": "20"}, "Picture, test picture: expected a whole number from 0 to 19"),
        ("vae", {"z": "1,2"}, "z: expected nothing or 4 numbers"),
        ("vae", {"row": "28"}, "row of the pixel: expected a whole number from 0 to 27"),
        ("vae", {"x": "<b>"}, "x: expected a picture as the page writes it, got '&lt;b&gt;'"),
        ("vae", {"x": packed(bytes(10**7))}, "x: expected a picture as the page writes it"),
        ("bound", {"t": "61"}, "step t: expected a whole number from 1 to 60"),
        ("training", {"model": "ddpm-mnist"}, "model: expected one of from scratch, got 'ddpm-mnist'"),
        ("score", {"walk": "run"}, "walk: expected one of none, Langevin, reverse"),
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


def test_a_picture_that_is_too_long_for_a_link_is_refused(links: dict[str, Link], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_picture, "LINKED", 4)
    canvas = {"x": base64.b64encode(bytes(784)).decode(), "token": "", "chosen": None}
    with pytest.raises(gr.Error, match="it has too many details"):
        links["bound"].write("ddpm-mnist", 0, 0, None, None, None, 5, "ddpm-mnist", 0, canvas)


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
    page.wait_for_function(WRITTEN, arg=[tab, LINKS[tab]], polling=1000)
    if tab in (*CONTROLS, "condition"):
        panel = page.get_by_role("tabpanel").filter(has=page.locator(f"#{tab}-share"))
        panel.get_by_role("button", name="Play").first.wait_for()
    assert page.problems == []
    page.context.close()
