"""The page that is served, and its replacement by another while visitors use it.

A page that is replaced goes on for the sessions that have begun with it, for `RETAIN_SECONDS` or until the next replacement, so
that every visitor has one page with its own models from first to last. Pages share nothing but the folder of files.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from fastapi import FastAPI
from gradio.server_messages import ProcessCompletedMessage
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genlab.serving import gradio_patches
from genlab.serving.calls import Calls
from genlab.serving.guard import NAMED_RESULTS, PAGE, PRESENCE, RESULTS, UPLOAD
from genlab.serving.limits import Limits
from genlab.serving.refusal import TEXT, Refused

STATES = 200
"""Visitors whose state is stored."""
RETAIN_SECONDS = 3600.0
"""How long a page that was replaced goes on."""
ADDRESSES = 16
"""Descriptions of a page that are kept: of its paths, for each address under which it is asked for."""
FULL_SECONDS = 30.0
"""Time for which a queue may be full before the server is not ready."""
DRAIN_POLL_SECONDS = 0.05
SESSIONS = 5000
"""Sessions of a page that are remembered, the latest ones."""


class Kept:
    """ASGI application that keeps the descriptions of a page: gradio makes them anew for every request, in a tenth of a second.

    They depend on the address under which the page is asked for, and on nothing else that is served here.

    Args:
        app: the page's application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._replies: OrderedDict[tuple[str, ...], list[Message]] = OrderedDict()
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = (headers.get(name, "") for name in ("host", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix"))
        key = (scope["method"], scope["path"], scope["scheme"], scope.get("root_path", ""), *origin)
        async with self._making:
            reply = self._replies.get(key)
            if reply is None:
                reply = await self._made({**scope, "query_string": b""}, receive)
                if reply[0]["status"] == 200:
                    self._replies[key] = reply
                if len(self._replies) > ADDRESSES:
                    self._replies.popitem(last=False)
        for message in reply:
            await send({**message, "headers": list(message["headers"])} if "headers" in message else message)

    async def _made(self, scope: Scope, receive: Receive) -> list[Message]:
        """Return the application's reply: its head, and its body in one piece."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self.app(scope, receive, collect)
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return [messages[0], {"type": "http.response.body", "body": body}]


class Page:
    """A page with an application and a queue of its own.

    Args:
        demo: the page; limits: of its visitors; options: of `gr.mount_gradio_app`.

    Raises:
        ValueError: the page was made before `import_gradio`, or reports its use to gradio.
    """

    def __init__(self, demo: gr.Blocks, limits: Limits, **options: Any) -> None:
        folder = get_upload_folder()
        if folder != demo.GRADIO_CACHE or not os.path.basename(folder).startswith(gradio_patches.FOLDER_PREFIX):
            raise ValueError(f"expected a page made after import_gradio, got one with its files in {demo.GRADIO_CACHE}")
        if demo.analytics_enabled:
            raise ValueError("expected a page made with analytics_enabled=False, got one that reports its use to gradio")
        with gradio_patches.without_application():
            demo.queue(api_open=False, default_concurrency_limit=demo._queue.default_concurrency_limit)
        demo.state_session_capacity = STATES
        demo.delete_cache = demo.delete_cache or (3600, 3600)
        self.demo, self.calls, self.app = demo, Calls(demo), FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self.sessions: OrderedDict[str, None] = OrderedDict()
        with gradio_patches.described_once(demo):
            gr.mount_gradio_app(self.app, demo, path="/", **options)
        self.described = Kept(self.app)
        gradio_patches.patch(demo, limits)
        self._stop = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin the application's life, in a task of its own: it may end in another than the caller's."""
        started = asyncio.Event()

        async def live() -> None:
            async with self.app.router.lifespan_context(self.app):
                started.set()
                await self._stop.wait()

        self._life = asyncio.create_task(live())
        await asyncio.wait([self._life, waits := asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
        if not started.is_set():
            waits.cancel()
            await self._life

    async def end(self) -> None:
        """End the application's life."""
        self._stop.set()
        if self._life is not None:
            await self._life

    def begin(self, session: str) -> None:
        """Remember that a session has begun with this page."""
        self.sessions[session] = None
        if len(self.sessions) > SESSIONS:
            self.sessions.popitem(last=False)


class Pages:
    """ASGI application that passes each request to the page of its session: the newest, or the one before.

    Args:
        demo: the first page; limits: of the visitors; options: of `gr.mount_gradio_app`, for every page.

    Raises:
        ValueError: see `Page`.
    """

    def __init__(self, demo: gr.Blocks, limits: Limits, **options: Any) -> None:
        self.limits, self.options = limits, options
        self.newest = Page(demo, limits, **options)
        self.before: Page | None = None
        self.draining = False
        self._full_since: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def routes(self) -> list[Any]:
        """Return the routes of the newest page."""
        return self.newest.app.routes

    @property
    def all(self) -> list[Page]:
        """Return the pages that are served."""
        return [self.newest] if self.before is None else [self.newest, self.before]

    def files(self) -> set[str]:
        """Return the paths of the files that the pages themselves show."""
        return {path for page in self.all for block in list(page.demo.blocks.values()) for path in block.keep_in_cache}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Begin the first page's life, and end that of all pages."""
        self._loop = asyncio.get_running_loop()
        await self.newest.start()
        try:
            yield
        finally:
            for page in self.all:
                await page.end()

    def replace(self, demo: gr.Blocks) -> None:
        """Serve another page to the sessions that begin from now on. Call it in a thread of its own.

        Raises:
            RuntimeError: nothing is served yet. ValueError: see `Page`.
        """
        if self._loop is None:
            raise RuntimeError("expected a page to replace while it is served, got one before")
        page = Page(demo, self.limits, **self.options)
        asyncio.run_coroutine_threadsafe(self._replace(page), self._loop).result()

    async def _replace(self, page: Page) -> None:
        await page.start()
        self.before, self.newest, ended = self.newest, page, self.before
        asyncio.get_running_loop().call_later(RETAIN_SECONDS, self._retire, self.before)
        if ended is not None:
            await ended.end()

    def _retire(self, page: Page) -> None:
        if self.before is page:
            self.before = None
            self._ending = asyncio.ensure_future(page.end())

    # Operations

    def jobs(self) -> list[tuple[str, int, int]]:
        """Return how many jobs wait and run, of each kind: (kind, waiting, running)."""
        counts: dict[str, list[int]] = {}
        for page in self.all:
            names = {fn.concurrency_id: fn.api_name or fn.name for fn in reversed(list(page.demo.fns.values()))}
            for kind, line in list(page.demo._queue.event_queue_per_concurrency_id.items()):
                name = str(names[kind]) if kind.isdigit() else kind
                waiting, running = counts.setdefault(name, [0, 0])
                counts[name] = [waiting + len(line.queue), running + line.current_concurrency]
        return [(name, waiting, running) for name, (waiting, running) in counts.items()]

    def ready(self) -> bool | str:
        """Return True, or why no more visitors should come: the server stops, or a queue has been full for `FULL_SECONDS`."""
        if self.draining:
            return "the server stops"
        if not any(waiting >= self.limits.waiting for _, waiting, _ in self.jobs()):
            self._full_since = None
            return True
        self._full_since = self._full_since or time.monotonic()
        full = time.monotonic() - self._full_since
        return full < FULL_SECONDS or f"the queue has been full for {full:.0f} seconds"

    async def drain(self, seconds: float) -> None:
        """Refuse new jobs, let those there are end within so many seconds, and tell the others' visitors."""
        self.draining = True
        for _ in range(int(seconds / DRAIN_POLL_SECONDS)):
            if not any(waiting + running for _, waiting, running in self.jobs()):
                return
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        output = {"error": TEXT["restarts"], "visible": True, "duration": None, "title": "Error"}
        for page in self.all:
            queue = page.demo._queue
            for event in list(queue.event_ids_to_events.values()):
                queue.send_message(event, ProcessCompletedMessage(output=output, success=False, title="Error"))
                await queue.clean_events(event_id=event._id)

    # What the guard asks

    def alive(self, event_id: str) -> bool:
        """Return whether a job waits or runs, on any page."""
        return any(page.calls.alive(event_id) for page in self.all)

    def check(self, path: str, body: dict[str, Any]) -> bool:
        """Check a call of the page of its session; see `Calls.check`. While the server stops, all are refused."""
        if self.draining:
            raise Refused(503, TEXT["restarts"], 5)
        return self.page_of(body.get("session_hash"), None).calls.check(path, body)

    async def end_jobs(self, session: str, event_id: str | None = None) -> bool:
        """End the jobs of a session; see `Calls.end_jobs`."""
        return await self.page_of(session, event_id).calls.end_jobs(session, event_id)

    # Requests

    def page_of(self, session: Any, event_id: Any) -> Page:
        """Return the page that a session began with, or that has the job of an event; the newest where none has."""
        before = self.before
        if before is not None and (session in before.sessions or before.calls.knows(event_id)):
            return before
        return self.newest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session, event_id = "", ""
        if scope["method"] == "POST" and scope["path"] != UPLOAD:
            session, event_id, receive = await _named(receive)
        elif scope["path"] == RESULTS:
            session = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [""])[-1]
        elif scope["path"].startswith(PRESENCE):
            session = scope["path"].removeprefix(PRESENCE)
        elif named := NAMED_RESULTS.fullmatch(scope["path"]):
            event_id = named[1]
        page = self.page_of(session, event_id)
        if session and page is self.newest:
            page.begin(session)
        app: ASGIApp = page.described if PAGE.fullmatch(scope["path"]) else page.app
        await app(scope, receive, send)


async def _named(receive: Receive) -> tuple[str, str, Receive]:
    """Return the session and the event that the JSON of a request names, "" for none, and a `receive` that yields it again."""
    message = await receive()
    value = json.loads(message.get("body") or b"{}")
    passed_on = False

    async def again() -> Message:
        nonlocal passed_on
        if passed_on:
            return await receive()
        passed_on = True
        return message

    return str(value.get("session_hash") or ""), str(value.get("event_id") or ""), again
