"""English and Chinese: a text of the page is one string that contains both; `Translation` keeps one in every reply.

    TEXT = {"run": both("Run the process", "运行过程"), "at": both("step {i} of {n}", "第 {i} 步，共 {n} 步")}

Write each text once, in the TEXT of its file, with `both`; then use it like any other string: label, info, Markdown, HTML,
caption, alt text, `gr.update`, error. `str.format` fills both languages at once, texts may stand inside texts, and what both
languages share (a displayed formula) can be joined with `+`. The value of a choice stays English, its name has two languages.
`Translation`, an ASGI application around the page, chooses the language of each request (?lang=, then the cookie that the
switch has set, then Accept-Language, then English) for the page, every reply and every event of a stream. Text for elsewhere
(the console, a file) goes through `choose`; a function that would escape or cut the markers through `each`. Labels of hidden
components that only name the API's parameters and returns stay plain English.

`tests/test_language.py` reads every TEXT and every component of the page: none may lack one of the languages.

The markers have to survive JSON, HTML and `str.format`: plain ASCII without quotes, braces or backslashes.

    [~English~|~中文~]
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Language = Literal["en", "zh"]
TAGS: dict[Language, str] = {"en": "en", "zh": "zh-CN"}
"""Language → its tag in documents and headers."""
COOKIE = "genlab_lang"
COOKIE_SECONDS = 365 * 24 * 3600

GZIP_BYTES = 10_000
"""Larger replies are compressed."""
KEPT = 16
"""Translations of larger replies that are kept: the page itself is sent again and again."""
ACCEPTS_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))")
"""Matches an Accept-Encoding header that accepts gzip."""
DEPTH = 6
"""Levels of texts inside texts."""
OPEN, MIDDLE, CLOSE = "[~", "~|~", "~]"
_PAIR = r"\[~((?:(?!\[~|~\|~|~\])%s)*)~\|~((?:(?!\[~|~\|~|~\])%s)*)~\]"
_IN_TEXT = re.compile(_PAIR % (".", "."), re.DOTALL)
_IN_JSON = re.compile((_PAIR % (r'(?:[^"\\]|\\.)', r'(?:[^"\\]|\\.)')).encode(), re.DOTALL)
"""Matches within one string of a JSON document, so that no visitor's text can make it match beyond."""

SCRIPT = """<script>
(() => {
  Object.defineProperty(navigator, 'language', { value: '%s' });
  Object.defineProperty(navigator, 'languages', { value: ['%s'] });
  const address = new URL(location.href);
  const chosen = address.searchParams.get('lang');
  address.searchParams.delete('lang');
  if (chosen && document.cookie.split('; ').includes('%s=' + chosen)) history.replaceState(history.state, '', address);
  document.addEventListener('click', (event) => {
    const link = event.target.closest && event.target.closest('.genlab-language a');
    if (!link) return;
    event.preventDefault();
    const next = new URL(location.href);
    next.searchParams.set('lang', link.dataset.language);
    location.assign(next);
  });
})();
</script>"""
"""Runs before gradio does, so that gradio's own texts follow the page's language; the switch preserves the address."""

SWITCH = """<nav class="genlab-language" aria-label="[~Language~|~语言~]">
<a href="?lang=en" data-language="en" hreflang="en" lang="en" [~aria-current="true"~|~~]>English</a>
<a href="?lang=zh" data-language="zh" hreflang="zh-CN" lang="zh-CN" [~~|~aria-current="true"~]>中文</a>
</nav>"""
"""The switch, as HTML: two links, which work without a script too."""


def both(en: str, zh: str) -> str:
    """Return one text in two languages."""
    return f"{OPEN}{en}{MIDDLE}{zh}{CLOSE}"


class UserFacingError(Exception):
    """An error whose message is for visitors: `text` in both languages, `str()` in English."""

    def __init__(self, text: str) -> None:
        super().__init__(choose(text))
        self.text = text


def choose(text: str, language: Language = "en") -> str:
    """Return a text in one language."""
    for _ in range(DEPTH):
        text = _IN_TEXT.sub(r"\1" if language == "en" else r"\2", text)
    return text


def each(change: Callable[[str], str], text: str) -> str:
    """Apply a function that would damage the markers, such as an escape, to a text in each language; return both."""
    return both(change(choose(text, "en")), change(choose(text, "zh")))


def choose_in_json(document: bytes, language: Language) -> bytes:
    """Return a JSON document, or a stream of them, in UTF-8, with every string in one language."""
    for _ in range(DEPTH):
        if OPEN.encode() not in document:
            break
        document = _IN_JSON.sub(rb"\1" if language == "en" else rb"\2", document)
    return document


def accepted(header: str) -> Language:
    """Return the language that an Accept-Language header prefers; English where it names neither."""
    best = 0.0
    language: Language = "en"
    for entry in header[:1000].split(","):
        tag, _, weight = entry.partition(";")
        primary = tag.strip().lower().partition("-")[0]
        match = re.fullmatch(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", weight)
        quality = float(match[1]) if match else 0.0 if weight else 1.0
        if primary in TAGS and quality > best:
            best, language = quality, primary
    return language


def language_of(scope: Scope) -> Language:
    """Return the language of a request: ?lang=, else the cookie, else Accept-Language, else English."""
    headers = Headers(scope=scope)
    for chosen in (_asked(scope), cookie_parser(headers.get("cookie", "")).get(COOKIE, "")):
        if chosen in TAGS:
            return chosen
    return accepted(headers.get("accept-language", ""))


def _asked(scope: Scope) -> str:
    """Return the language that the address names, "" for none."""
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("lang", [""])[-1]
    return asked if asked in TAGS else ""


class Translation:
    """ASGI middleware that reduces every text in a reply to the language of its request, or to its own content-language.

    The page also gets its `lang` and `SCRIPT`, and the cookie where the address asks for a language.

    Args:
        app: the application; its JSON and HTML must not be compressed.
        embedded: the page may be shown inside a page of another site, so the cookie must be sent there too (over HTTPS).
        change: applied to the content of each of these replies, and to each event of a stream.
    """

    def __init__(self, app: ASGIApp, embedded: bool = False, change: Callable[[bytes], bytes] = bytes) -> None:
        self.app, self.embedded, self.change = app, embedded, change

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].endswith(".json"):  # the one path whose text gradio would compress
            scope = {**scope, "headers": [(k, v) for k, v in scope["headers"] if k != b"accept-encoding"]}
        await self.app(scope, receive, _Reply(self, scope, send).send)


@lru_cache(maxsize=KEPT)
def _translated(body: bytes, html: bool, language: Language, zipped: bool) -> bytes:
    """Return a whole reply in one language, with `SCRIPT` where it is a page."""
    body = choose_in_json(body, language)
    if html:
        tag = TAGS[language]
        body = body.replace(b'lang="en"', f'lang="{tag}"'.encode(), 1)
        body = body.replace(b"<head>", b"<head>" + (SCRIPT % (tag, tag, COOKIE)).encode(), 1)
    return gzip.compress(body, compresslevel=6) if zipped else body


class _Reply:
    """One reply."""

    def __init__(self, translation: Translation, scope: Scope, send: Send) -> None:
        self.translation, self.scope, self.out = translation, scope, send
        self.language = language_of(scope)
        self.kind, self.body = "", b""
        self.start: Message = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            kind = headers.get("content-type", "").partition(";")[0]
            translated = self.scope["method"] != "HEAD" and not self.scope["path"].startswith("/gradio_api/file=")
            own = headers.get("content-language")
            self.language = next((language for language, tag in TAGS.items() if tag == own), self.language)
            if translated and kind in ("text/html", "application/json", "text/event-stream"):
                self.kind, self.start = kind, message
            if self.kind in ("text/html", "application/json"):
                return
        elif self.kind and message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
            if self.kind == "text/event-stream":
                events, end, self.body = self.body.rpartition(b"\n\n") if more else (self.body, b"", b"")
                message = {**message, "body": choose_in_json(self.translation.change(events + end), self.language)}
            elif more:
                return
            else:
                await self._send_head()
                message = {**message, "body": self.body}
        await self.out(message)

    async def _send_head(self) -> None:
        """Translate the whole body, compress it where the visitor accepts that, and send the matching head."""
        headers = MutableHeaders(scope=self.start)
        if self.kind == "text/html":
            headers["content-language"] = TAGS[self.language]
            headers["cache-control"] = "no-cache"
            if _asked(self.scope):
                site = "SameSite=None; Secure; Partitioned" if self.translation.embedded else "SameSite=Lax"
                headers.append("set-cookie", f"{COOKIE}={self.language}; Path=/; Max-Age={COOKIE_SECONDS}; {site}")
        large = len(self.body) > GZIP_BYTES
        zipped = large and ACCEPTS_GZIP.search(Headers(scope=self.scope).get("accept-encoding", "")) is not None
        if large:
            headers.add_vary_header("Accept-Encoding")
        if zipped:
            headers["content-encoding"] = "gzip"
        translate = _translated if large else _translated.__wrapped__
        self.body = translate(self.translation.change(self.body), self.kind == "text/html", self.language, zipped)
        headers.add_vary_header("Accept-Language")
        headers.add_vary_header("Cookie")
        headers["content-length"] = str(len(self.body))
        await self.out(self.start)
