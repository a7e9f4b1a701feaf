"""Both languages everywhere: in every TEXT, on every component of the page, in errors and events, by the visitor's wish."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import itertools
import json
import pkgutil
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import genlab.demo
import genlab.serving
from genlab import hub
from genlab.card import escape
from genlab.package import Package
from genlab.serving import language
from genlab.serving.language import Translation, UserFacingError, accepted, both, choose, choose_in_json, each, language_of
from tests import tiny

HAN = re.compile(r"[\u3400-\u9fff]")
MARKERS = (language.OPEN, language.MIDDLE, language.CLOSE)
KNOWN = {"vae", "ddpm", "ddim", "dpm", "solver", "sde", "unipc", "kl", "snr", "db", "mnist", "fashion", "genlab"}
"""Words that are the same in Chinese."""
PROPS = ("label", "info", "placeholder", "alt_text", "value", "choices", "labels")
"""What of a component people see or hear."""


def texts() -> dict[str, str]:
    """Module and key → text, of every TEXT, LABELS and NAMES (value → name) of the demo and of what serves it."""
    found: dict[str, str] = {}
    walks = [pkgutil.walk_packages(root.__path__, f"{root.__name__}.") for root in (genlab.demo, genlab.serving)]
    for info in itertools.chain(*walks):
        module = importlib.import_module(info.name)
        for name in ("TEXT", "LABELS", "NAMES"):
            table = getattr(module, name, {})
            found.update({f"{info.name} {key}": text for key, text in table.items()} if isinstance(table, dict) else {})
    return found


def readable(text: str) -> bool:
    """Whether a Chinese visitor can read it: it is Chinese, or has no words beside names and symbols."""
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\{.*?\}", "", text))
    return HAN.search(text) is not None or {word.lower() for word in words} <= KNOWN


def placeholders(text: str) -> set[tuple[str, str | None]]:
    return {(name, form) for _, name, form, _ in string.Formatter().parse(text) if name is not None}


def formulas(text: str) -> list[str]:
    """The formulas in a Markdown text, without the words in them."""
    return sorted(re.sub(r"\\text\{[^}]*\}|\s+", "", found) for found in re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, re.DOTALL))


def test_why_a_model_cannot_be_loaded_stands_in_a_sentence_in_both_languages(tmp_path: Path) -> None:
    """The sentence is in the visitor's language, the reason, which the operator needs, in English; no reason can break it."""
    (folder,) = tiny.save_models(tmp_path)[:1]
    config = json.loads((Path(folder) / "config.json").read_text())
    (Path(folder) / "config.json").write_text(json.dumps({**config, "kind": "[~gan~|~{x}~]"}))
    (tmp_path / "empty").mkdir()
    wrong, empty = tiny.load_models([folder, str(tmp_path / "empty")]).problems[:2]
    reason = "empty: expected config.json and model.safetensors, got no config.json; genlab reads no other format"
    assert choose(empty) == f"empty could not be loaded: {reason}"
    assert choose(empty, "zh") == f"无法加载 empty：{reason}"
    assert choose(wrong, "zh").startswith(f"无法加载 {Path(folder).name}：")
    assert not any(marker in choose(wrong, chosen) for marker in MARKERS for chosen in ("en", "zh"))


def test_an_unexpected_error_of_a_model_is_reported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = tiny.save_models(tmp_path)[:2]
    read = hub.read

    def broken(source: Path) -> Package:
        if str(source) == folder:
            raise MemoryError("{full}")
        return read(source)

    monkeypatch.setattr(hub, "read", broken)
    (problem,) = tiny.load_models([folder, other]).problems
    assert choose(problem).endswith("could not be loaded: unexpected error, MemoryError: {full}")


@pytest.mark.parametrize("text", texts().values(), ids=texts())
def test_every_text_is_there_in_both_languages(text):
    english, chinese = choose(text, "en"), choose(text, "zh")
    assert english
    assert not HAN.search(english)
    assert readable(chinese)
    assert not any(marker in english + chinese for marker in MARKERS)
    assert formulas(english) == formulas(chinese)
    if "$" not in text:
        assert placeholders(english) == placeholders(chinese)


def test_a_text_is_filled_nested_and_joined_like_any_string():
    row, end = both("row {i}", "第 {i} 行"), both("end", "结束")
    text = both("see {rows}\n", "见 {rows}\n").format(rows="; ".join(row.format(i=i) for i in (1, 2))) + "$x$ " + end
    assert choose(text, "en") == "see row 1; row 2\n$x$ end"
    assert choose(text, "zh") == "见 第 1 行; 第 2 行\n$x$ 结束"
    assert choose(each(escape, both("a|b", "甲|乙")), "zh") == r"甲\|乙"
    error = UserFacingError(text)
    assert str(error) == choose(text, "en")
    assert error.text == text


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    "said", ['"quoted"', "back\\slash\\", "[~", "~|~", "~]", "[~x", "x~|~y", "[~a~|~b~]", "~]~|~[~", '\\"', "{}"]
)
def test_no_visitor_can_break_the_json_around_a_text(said, ascii_only):
    value = {
        "said": said,
        "text": both("got {value}", "实际为 {value}").format(value=said),
        "also": [said, both("a", "甲"), said],
    }
    document = json.dumps(value, ensure_ascii=ascii_only).encode()
    for chosen, a, got in (("en", "a", "got "), ("zh", "甲", "实际为 ")):
        seen = json.loads(choose_in_json(document, chosen))
        assert seen.keys() == value.keys()
        assert seen["also"][1] == a
        if not any(marker in said for marker in MARKERS):
            assert seen["said"] == seen["also"][0] == said
            assert seen["text"] == got + said


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "en"), ("zh", "zh"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("zh-HK", "zh"), ("zh-Hant-TW", "zh"), ("ZH-cn", "zh"),
        ("en-US,en;q=0.9,zh-CN;q=0.8", "en"), ("de, zh;q=0.5, en;q=0.4", "zh"), ("de,fr", "en"), ("*", "en"), ("zh;q=0", "en"),
        ("en;q=0.2, zh;q=0.7", "zh"), ("zhx", "en"), ("zh;q=x, en", "en"), (",;=", "en"), ("zh;q=1.5,en;q=0.1", "en"),
    ],
)  # fmt: skip
def test_the_language_that_a_browser_asks_for(header, expected):
    assert accepted(header) == expected


@pytest.mark.parametrize(
    ("query", "cookie", "header", "expected"),
    [
        ("", "", "", "en"), ("", "", "zh-CN", "zh"), ("", "genlab_lang=en", "zh-CN", "en"),
        ("", "a=b; genlab_lang=zh", "en", "zh"), ("lang=zh", "genlab_lang=en", "en", "zh"),
        ("lang=en&x=1", "genlab_lang=zh", "zh", "en"), ("lang=xx", "genlab_lang=zh", "", "zh"),
        ("lang=", "genlab_lang=<b>", "zh", "zh"),
    ],
)  # fmt: skip
def test_the_address_goes_before_the_cookie_and_the_cookie_before_the_browser(query, cookie, header, expected):
    headers = [(b"cookie", cookie.encode()), (b"accept-language", header.encode())]
    assert language_of({"type": "http", "query_string": query.encode(), "headers": headers}) == expected


def reply(
    kind: str,
    pieces: list[bytes],
    path: str = "/",
    query: str = "lang=zh",
    method: str = "GET",
    embedded: bool = False,
    encodings: bytes = b"br",
) -> tuple[dict[str, str], list[bytes]]:
    """Headers and pieces of a reply that has passed through `Translation`; the request's accept-encoding is its x-seen."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = dict(scope["headers"]).get(b"accept-encoding", b"none")
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % sum(map(len, pieces))), (b"x-seen", seen)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for i, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": i + 1 < len(pieces)})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"accept-encoding", encodings)]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers}
    asyncio.run(Translation(app, embedded)(scope, None, send))  # type: ignore[arg-type]
    return {k.decode(): v.decode() for k, v in sent[0]["headers"]}, [message["body"] for message in sent[1:]]


@pytest.mark.parametrize(
    ("encodings", "packed"),
    [(b"gzip, deflate, br", True), (b"br;q=1, gzip;q=0.5", True), (b"br", False), (b"gzip;q=0, br", False)],
)
def test_a_large_reply_is_packed_for_who_can_unpack_it(encodings: bytes, packed: bool):
    page = b"<head></head>" + both("one", "一").encode() * 5000
    headers, (body,) = reply("text/html", [page], encodings=encodings)
    assert int(headers["content-length"]) == len(body)
    assert "Accept-Encoding" in headers["vary"]
    assert headers.get("content-encoding") == ("gzip" if packed else None)
    assert (gzip.decompress(body) if packed else body).decode().endswith("一" * 5000)
    small, _ = reply("application/json", [b"{}"], encodings=encodings)
    assert "content-encoding" not in small


def test_a_stream_stays_a_stream_however_it_is_cut():
    event = b'data: {"a": "' + both("one", "一").encode() + b'"}\n\n'
    stream = event * 3
    for cut in range(1, len(stream) - 1):
        _, pieces = reply("text/event-stream; charset=utf-8", [stream[:cut], stream[cut:]])
        assert b"".join(pieces) == 'data: {"a": "一"}\n\n'.encode() * 3
        assert pieces[0].count(b"\n\n") == cut // len(event)  # what is whole goes out at once


def test_a_reply_that_is_held_back_gets_its_new_length():
    text = json.dumps({"a": both("one", "一")}).encode()
    headers, pieces = reply("application/json", [text[:10], text[10:]])
    assert json.loads(b"".join(pieces)) == {"a": "一"}
    assert headers["content-length"] == str(len(b"".join(pieces)))
    assert headers["vary"] == "Accept-Language, Cookie"
    assert "set-cookie" not in headers


def test_what_is_no_page_and_no_event_passes_as_it_is():
    raw = both("one", "一").encode()
    for kind, path in (
        ("image/png", "/"),
        ("application/json", "/gradio_api/file=/x/a.json"),
        ("text/javascript", "/assets/a.js"),
    ):
        headers, pieces = reply(kind, [raw], path)
        assert pieces == [raw]
        assert headers["content-length"] == str(len(raw))
    assert reply("text/html", [b""], method="HEAD")[1] == [b""]
    assert reply("application/json", [raw], "/gradio_api/openapi.json")[0]["x-seen"] == "none"
    assert reply("application/json", [raw], "/config")[0]["x-seen"] == "br"


def test_inside_another_site_the_cookie_is_sent_there_too():
    page = b'<html lang="en"><head></head></html>'
    assert reply("text/html", [page], embedded=True)[0]["set-cookie"].endswith("; SameSite=None; Secure; Partitioned")
    assert reply("text/html", [page])[0]["set-cookie"].endswith("; SameSite=Lax")
    assert "set-cookie" not in reply("text/html", [page], query="")[0]
    assert "set-cookie" not in reply("text/html", [page], query="lang=<b>")[0]


# On the real server


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("language")
    models = tiny.load_models([*tiny.save_models(folder / "models"), str(folder / "missing")])
    with tiny.serving(models) as url, httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        yield client


def visible(component: dict[str, Any], hidden: set[int]) -> Iterator[tuple[str, str]]:
    """Every string of a component that people see: what it is, and the text."""
    props = component["props"]
    if component["id"] in hidden or props.get("visible") is False:
        return
    for prop in PROPS:
        value = props.get(prop)
        if component["type"] in ("image", "number", "dropdown", "radio", "file", "downloadbutton") and prop == "value":
            continue
        if component["type"] == "html" and prop in ("label", "value") and not isinstance(props.get("value"), str):
            continue
        for text in (
            [c[0] for c in value] if prop == "choices" and value else value.values() if prop == "labels" and value else [value]
        ):
            if isinstance(text, str) and text.strip():
                yield f"{component['type']} {prop}", text


@pytest.mark.parametrize("chosen", ["en", "zh"])
def test_every_string_on_the_page_is_in_the_visitors_language(http, chosen):
    reply = http.get("/config", headers={"accept-language": {"en": "en-GB", "zh": "zh-TW"}[chosen]})
    assert not any(marker in reply.text for marker in MARKERS)
    config = reply.json()
    seen = [found for component in config["components"] for found in visible(component, set())]
    assert len(seen) > 60
    for where, text in seen:
        if chosen == "en":
            assert not HAN.search(text.replace("中文", "")), (where, text)
        else:
            assert readable(text), (where, text)


def test_the_page_says_its_language_and_remembers_a_choice(http):
    first = http.get("/", headers={"accept-language": "zh-CN"})
    assert 'lang="zh-CN"' in first.text[:200]
    assert first.headers["content-language"] == "zh-CN"
    assert {"Cookie", "Accept-Language"} <= {name.strip() for name in first.headers["vary"].split(",")}
    assert "set-cookie" not in first.headers
    assert first.text.index("navigator") < first.text.index("gradio_config")
    assert not any(marker in first.text for marker in MARKERS)

    asked = http.get("/?lang=en", headers={"accept-language": "zh-CN"})
    assert 'lang="en"' in asked.text[:200]
    assert asked.headers["set-cookie"] == "genlab_lang=en; Path=/; Max-Age=31536000; SameSite=Lax"
    remembered = http.get("/", headers={"accept-language": "zh-CN", "cookie": "genlab_lang=en"})
    assert 'lang="en"' in remembered.text[:200]
    http.cookies.clear()


def last_event(http: httpx.Client, name: str, data: list[Any], headers: dict[str, str]) -> str:
    begun = http.post(f"/gradio_api/call/{name}", json={"data": data}, headers=headers)
    return http.get(f"/gradio_api/call/{name}/{begun.json()['event_id']}", headers=headers).text


def error_of(reply: str) -> str:
    return json.loads(reply.rsplit("data: ", 1)[1])["error"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "seed: expected a whole number from 0 to 4,294,967,295, got -1"),
        ({"accept-language": "zh-CN"}, "种子：应为 0 到 4,294,967,295 之间的整数，实际为 -1"),
        (
            {"accept-language": "zh-CN", "cookie": "genlab_lang=en"},
            "seed: expected a whole number from 0 to 4,294,967,295, got -1",
        ),
    ],
)
def test_an_error_comes_in_the_language_of_the_request(http, headers, expected):
    assert error_of(last_event(http, "sample", ["ddpm-mnist", "any", 4, 5, "DDIM", 1, -1], headers)) == expected


@pytest.mark.parametrize("said", ["[~a~|~b~]", 'a "~]', "[~", "~|~"])
@pytest.mark.parametrize("headers", [{}, {"accept-language": "zh"}])
def test_a_text_with_the_marks_of_two_languages_is_refused_without_repeating_them(http, said, headers):
    reply = http.post("/gradio_api/call/sample", json={"data": [said, "any", 4, 5, "DDIM", 1, 0]}, headers=headers)
    assert reply.status_code == 400
    assert "marks of two languages" in reply.json()["detail"]
    assert not any(mark in reply.text for mark in MARKERS)


def test_the_guard_answers_in_the_language_of_the_request(http):
    body = {"data": ["x" * 300_000]}
    assert (
        http.post("/gradio_api/call/sample", json=body, headers={"accept-language": "zh"})
        .json()["detail"]
        .startswith("请求内容过大")
    )
    assert http.post("/gradio_api/call/sample", json=body).json()["detail"].startswith("expected a body of at most")


def test_captions_of_a_stream_are_in_the_language_of_the_request(http):
    config = http.get("/config").json()
    load = next(d["id"] for d in config["dependencies"] if any(event == "load" for _, event in d["targets"]))
    for session, headers, words in (("a", {"accept-language": "zh"}, "第 1 步，共 10 步"), ("b", {}, "step 1 of 10")):
        join = {"data": [], "fn_index": load, "session_hash": session}
        assert http.post("/gradio_api/queue/join", json=join, headers=headers).status_code == 200
        with http.stream("GET", f"/gradio_api/queue/data?session_hash={session}", headers=headers) as reply:
            ended = next(line for line in reply.iter_lines() if "process_completed" in line)
        captions = json.loads(ended.removeprefix("data: "))["output"]["data"][0]["captions"]
        assert captions[1].startswith(words)


def test_the_interface_stays_english_for_programs(http):
    for path in ("/gradio_api/info", "/gradio_api/openapi.json"):
        reply = http.get(path, headers={"accept-encoding": "gzip, br"})
        assert not HAN.search(reply.text)
        assert not any(marker in reply.text for marker in MARKERS)
    returns = http.get("/gradio_api/info").json()["named_endpoints"]["/interpolate"]["returns"]
    assert [r["label"] for r in returns] == ["paths"]
