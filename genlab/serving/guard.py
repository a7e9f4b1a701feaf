"""The outermost ASGI application: every request passes here before it reaches the page.

A request is answered only if its route is in `ROUTES`; its body is bounded in bytes and in time; a body that starts work is
plain, finite JSON; and one visitor can start only so much. Replies are passed on piece by piece, so a stream stays a stream,
with the security headers added.

What one visitor can start is bounded by two rates. Dragging something on the page sends a light call for every place it
passes: all calls of the page count towards the light-call limit, and those that are not light also towards the call limit, once
their body has named the function. Ending a job counts as a light call. Calls by name count towards the call limit at once;
uploads and descriptions of the whole page have limits of their own; and only so many requests of one visitor are open at a
time. A visitor who leaves leaves no job and no results behind: gradio ends a job whose stream of results breaks off, but not
one whose stream was never opened, so the guard does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genlab.serving.folder import Folder
from genlab.serving.json_body import plain_json
from genlab.serving.language import choose_in_json, language_of
from genlab.serving.limits import Jobs, Limits, RateLimit
from genlab.serving.operations import log_request
from genlab.serving.refusal import FRAMES, HEADERS, TEXT, Refused
from genlab.serving.shares import SHARES
from genlab.serving.visitor import names_host, network

log = logging.getLogger("genlab.serving")

NAME = r"[\w.-]{1,64}"
READ, WRITE = ("GET", "HEAD"), ("POST", "OPTIONS")
ROUTES = [
    (methods, re.compile(pattern))
    for methods, pattern in (
        (READ, r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/healthz|/readyz"),
        (READ, rf"/docs/{NAME}"),
        (READ, r"/(static|assets|svelte)/.+"),
        (READ, r"/gradio_api/(info/?|openapi\.json|app_id/?|queue/data|upload_progress|theme\.css)"),
        (READ, rf"/gradio_api/(heartbeat/{NAME}|call/(v2/)?{NAME}/{NAME})"),
        (READ, r"/gradio_api/file=.+"),
        (WRITE, rf"/gradio_api/(queue/join|call/(v2/)?{NAME}/?)"),
        (WRITE, r"/gradio_api/(upload|cancel|reset/?)"),
    )
]
"""Methods and the whole path, decoded, of everything that is answered; `tests/routes.json` lists what this comes to."""

STARTS = re.compile(rf"/gradio_api/(queue/join|call/(v2/)?{NAME}/?)")
"""Requests that put a job into the queue."""
JOIN = "/gradio_api/queue/join"
"""How the page starts a job; the body names the function."""
RESULTS = "/gradio_api/queue/data"
"""The stream of all results of a session."""
NAMED_RESULTS = re.compile(rf"/gradio_api/call/(?:v2/)?{NAME}/({NAME})")
"""The stream of the results of a call by name; its event id."""
PAGE = re.compile(rf"/|/config/?|/docs/{NAME}|/gradio_api/(info/?|openapi\.json)")
"""Documents and descriptions of the whole page, put into the visitor's language for each request."""
PRESENCE = "/gradio_api/heartbeat/"
"""A stream that the page keeps open for as long as it is shown; the session's name follows."""
HEALTH = ("/healthz", "/readyz")
UPLOAD = "/gradio_api/upload"
RANGE = re.compile(r"bytes=(\d+-\d*|-\d+)", re.ASCII)
"""The ranges of a file that gradio can send; for others the whole file is sent."""
FORWARDED = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-prefix", b"forwarded")
"""Headers of a proxy, which a visitor could send too."""
NAMES_UPLOAD = re.compile(r"/gradio_api/upload(_progress)?")
"""Requests that name an upload; gradio stores the names."""
ENDS = re.compile(r"/gradio_api/(cancel|reset/?)")
"""Requests that end a job."""
FILE = "/gradio_api/file="

INERT = f"default-src 'none'; style-src 'unsafe-inline'; sandbox; {FRAMES}"
"""The policy of files: nothing in an uploaded file is run."""

FORM_BYTES = 64 * 1024
"""Largest size of the form around an uploaded file."""
NAME_BYTES = 100
"""Largest size of the query of a request that names an upload."""
LAPS = 20
"""Parts of the time after which an abandoned job is ended: a server that stands still uses up one of them at most."""
ENDED = 1000
"""Jobs and sessions that were ended because nobody asked for their results, of which this is said."""
END_BYTES = 1024
"""Largest body of a request that ends a job: the names of its session and its event, and a number."""


class Guard:
    """Admits, bounds and counts requests, and passes them on.

    Args:
        app: the application that is guarded.
        limits: of one visitor and one request.
        folder: the only one whose files are served.
        alive: whether the job of an event id still waits or runs.
        check: checks the path and the JSON of a request that starts work, raises `Refused`, and returns whether the call is
            light.
        end_jobs: ends the jobs of a session and drops their results; with an event id, only if that job is unfinished or its
            results have not been fetched; returns whether it ended something.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        folder: Folder,
        alive: Callable[[str], bool],
        check: Callable[[str, dict[str, Any]], bool],
        end_jobs: Callable[[str, str | None], Awaitable[bool]],
    ) -> None:
        self.app, self.limits, self.folder, self.check, self.end_jobs = app, limits, folder, check, end_jobs
        self.calls = RateLimit(limits.calls_per_second, limits.calls_burst)
        self.light_calls = RateLimit(limits.light_calls_per_second, limits.light_calls_burst)
        self.uploads = RateLimit(limits.uploads_per_second, limits.uploads_burst)
        self.pages = RateLimit(limits.pages_per_second, limits.pages_burst)
        self.open_requests: Counter[str] = Counter()
        self.answered = 0
        self.jobs = Jobs(alive)
        self.streams: Counter[str] = Counter()
        """Open streams of results, by session or event id."""
        self.unheard: OrderedDict[str, list[str]] = OrderedDict()
        """Sessions and event ids whose stream of results nobody had opened in time → their jobs that were ended, the latest."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            scope["visitor"] = visitor = self.visitor(scope)
            scope["headers"] = [header for header in scope["headers"] if self._passes(*header)]
            if scope["path"].startswith(FILE):
                scope["path"] = FILE + self.folder.real(scope["path"].removeprefix(FILE))
            self.open_requests[visitor] += 1
            try:
                await _Exchange(self, scope, receive, send).run()
            finally:
                self.open_requests[visitor] -= 1
                if not self.open_requests[visitor]:
                    del self.open_requests[visitor]
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _passes(self, name: bytes, value: bytes) -> bool:
        """Return whether a header is passed on: not a proxy's where there is none, nor a range that gradio cannot send."""
        if name == b"range":
            return RANGE.fullmatch(value.decode("latin-1")) is not None
        return self.limits.proxies > 0 or name not in FORWARDED

    def serves(self, method: str, path: str) -> bool:
        """Return whether a request of this method to this decoded path is answered."""
        if any(character < " " or character in "\x7f\\" for character in path) or "//" in path or ".." in path.split("/"):
            return False
        if path.startswith(FILE) and not path.startswith(FILE + self.folder.path + os.sep):
            return False
        return any(method in methods and pattern.fullmatch(path) for methods, pattern in ROUTES)

    async def page_closed(self, session: str) -> None:
        """End the jobs of a session whose page was closed, unless a stream of its results is still open."""
        if not self.streams[session]:
            await self.end_jobs(session, None)

    def end_if_abandoned(self, session: str, event_id: str, seconds: float) -> None:
        """End a job after so many seconds if no stream of its results is open then."""

        async def check() -> None:
            for _ in range(LAPS):
                await asyncio.sleep(seconds / LAPS)
            try:
                if self.streams[session] or self.streams[event_id]:
                    return
                if await self.end_jobs(session, event_id) or session in self.unheard:
                    for name in {session, event_id}:
                        self.unheard.setdefault(name, []).append(event_id)
                while len(self.unheard) > ENDED:
                    self.unheard.popitem(last=False)
            except Exception:
                log.exception("ending an abandoned job failed")

        task = asyncio.create_task(check())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def visitor(self, scope: Scope) -> str:
        """Return whom a request counts for: the address before the trusted proxies; for IPv6, its /64 network."""
        peer = scope["client"][0] if scope.get("client") else ""
        forwarded = [entry.strip() for entry in ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")]
        proxies = self.limits.proxies
        address = forwarded[-proxies] if 0 < proxies <= len(forwarded) else peer
        return network(address) or network(peer) or peer


class _Exchange:
    """One request and its reply."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self.client_receive, self.client_send = guard, scope, receive, send
        self.limits, self.visitor = guard.limits, scope["visitor"]
        self.method, self.path = scope["method"], scope["path"]
        self.starts = self.method == "POST" and STARTS.fullmatch(self.path) is not None
        self.uploads = self.method == "POST" and self.path == UPLOAD
        self.ends = self.method == "POST" and ENDS.fullmatch(self.path) is not None
        most = self.limits.upload_bytes + FORM_BYTES if self.uploads else self.limits.json_bytes
        self.max_bytes = END_BYTES if self.ends else most
        self.deadline = time.monotonic() + self.limits.body_seconds
        self.received, self.body_complete = 0, False
        self.reply_started, self.reply_complete, self.reply_status = False, False, 0
        self.reply_body, self.streams = b"", False
        self.session = ""
        self.refused: Refused | None = None
        self.reason, self.started = "", time.monotonic()

    async def run(self) -> None:
        """Answer the request, with the application's reply or with an error of the guard's own, and log it."""
        try:
            await self._run()
        finally:
            self.guard.answered += 1
            seconds = time.monotonic() - self.started
            log_request(self.guard.answered, self.visitor, self._route(), seconds, self.reply_status, self.reason)

    def _route(self) -> str:
        """Return the method and the part of the path that says nothing of a visitor, for the log."""
        if not self.guard.serves(self.method, self.path):
            return "unknown"
        parts = self.path.split("/")[1:3]
        return f"{self.method} /" + "/".join(parts if parts[0] == "gradio_api" else parts[:1]).partition("=")[0]

    async def _run(self) -> None:
        try:
            self._admit()
            receive = await self._checked_call() if self.method == "POST" and not self.uploads else self._receive
            await self._serve(receive)
        except Refused as refused:
            self.refused = refused
        except ClientDisconnect:
            pass
        except Exception as error:
            if self.reply_started and not self.reply_complete:
                log.error("%s %s broke off: %s", self.method, self.path, type(error).__name__)
                if self.streams:
                    await self._send({"type": "http.response.body", "body": b""})
            elif self.refused is None:
                log.exception("%s %s failed", self.method, self.path)
                self.refused = Refused(500, TEXT["failed"])
        if self.refused is not None and not self.reply_started:
            await self._refuse(self.refused)

    def _admit(self) -> None:
        """Raise `Refused` where the head alone is reason enough."""
        headers = Headers(scope=self.scope)
        hosts = [headers.get(name, "") for name in ("host", "x-forwarded-host")]
        if self.limits.hosts is not None and not all(names_host(host, self.limits.hosts) for host in hosts if host):
            raise Refused(421, f"expected one of the names in GENLAB_HOSTS as Host, got {hosts[0][:100]!r}")
        if not self.guard.serves(self.method, self.path):
            raise Refused(404, "Not Found")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise Refused(400, f"expected a number of bytes in Content-Length, got {length[:20]!r}")
        if int(length[:20]) > self.max_bytes:
            raise self._too_large()
        if self.guard.open_requests.total() > self.limits.all_requests and self.path not in HEALTH:
            raise Refused(503, TEXT["busy"], 5)
        if self.guard.open_requests[self.visitor] > self.limits.open_requests:
            raise Refused(429, TEXT["open"].format(most=self.limits.open_requests), 5)
        if NAMES_UPLOAD.fullmatch(self.path) and len(self.scope.get("query_string", b"")) > NAME_BYTES:
            raise Refused(400, f"expected at most {NAME_BYTES} bytes of query")
        if self.starts:
            self._take(self.guard.light_calls if self.path == JOIN else self.guard.calls)
        elif self.uploads:
            self._take(self.guard.uploads)
        elif self.ends or NAMES_UPLOAD.fullmatch(self.path):
            self._take(self.guard.light_calls)
        elif PAGE.fullmatch(self.path):
            self._take(self.guard.pages)

    def _take(self, limit: RateLimit) -> None:
        """Count the request towards a rate limit of its visitor."""
        wait = limit.take(self.visitor)
        if wait:
            raise Refused(429, TEXT["too many"].format(seconds=math.ceil(wait)), wait)

    async def _serve(self, receive: Receive) -> None:
        """Pass the request on, and note streams that open, pages that close and jobs that start."""
        if self.path == RESULTS:
            query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
            await self._serve_stream(receive, query.get("session_hash", [""])[-1])
        elif self.method == "GET" and (named := NAMED_RESULTS.fullmatch(self.path)):
            await self._serve_stream(receive, named[1])
        elif self.method == "GET" and self.path.startswith(PRESENCE):
            try:
                await self.guard.app(self.scope, receive, self._send)
            finally:
                await self.guard.page_closed(self.path.removeprefix(PRESENCE))
        elif self.starts:
            await self._serve_start(receive)
        elif self.uploads:
            await self._serve_upload(receive)
        else:
            await self.guard.app(self.scope, receive, self._send)

    async def _serve_stream(self, receive: Receive, name: str) -> None:
        """Pass a stream of results on, counted under the name of its session or event; or say that its jobs were ended."""
        streams = self.guard.streams
        if ended := self.guard.unheard.pop(name, None):
            await self._say_unheard(ended)
            return
        streams[name] += 1
        try:
            await self.guard.app(self.scope, receive, self._send)
        finally:
            streams[name] -= 1
            if not streams[name]:
                del streams[name]

    async def _say_unheard(self, event_ids: list[str]) -> None:
        """Send a stream of results that says of each job that it was ended, and why, as gradio says that one has failed."""
        output = {"error": TEXT["unheard"], "visible": True, "duration": None, "title": "Error"}
        if self.path == RESULTS:
            done = {"msg": "process_completed", "output": output, "success": False, "title": "Error"}
            messages = [{**done, "event_id": event_id} for event_id in event_ids] + [{"msg": "close_stream"}]
            body = "".join(f"data: {json.dumps(message, ensure_ascii=False)}\n\n" for message in messages)
        else:
            body = f"event: error\ndata: {json.dumps(output, ensure_ascii=False)}\n\n"
        await self._reply(200, {"content-type": "text/event-stream"}, body)

    async def _serve_start(self, receive: Receive) -> None:
        """Pass the start of a job on, within the visitor's number of jobs; end the job later if it is abandoned."""
        jobs = self.guard.jobs
        if jobs.count(self.visitor) >= self.limits.jobs:
            raise Refused(429, TEXT["jobs"].format(most=self.limits.jobs), 5)
        starting = f"new {id(self)}"
        jobs.add(self.visitor, starting)
        try:
            await self.guard.app(self.scope, receive, self._send)
        finally:
            jobs.discard(self.visitor, starting)
        if self.reply_status == 200:
            event_id = json.loads(self.reply_body)["event_id"]
            self.guard.unheard.pop(self.session, None)
            jobs.add(self.visitor, event_id)
            seconds = self.limits.abandoned_seconds if self.path == JOIN else self.limits.abandoned_call_seconds
            self.guard.end_if_abandoned(self.session or event_id, event_id, seconds)

    async def _serve_upload(self, receive: Receive) -> None:
        """Pass an upload on; make room for it, and count its files, within the visitor's share of the disk."""
        length = int(Headers(scope=self.scope).get("content-length", self.max_bytes))
        space = f"space {id(self)}"
        SHARES.add(self.visitor, space, length)
        try:
            await self.guard.app(self.scope, receive, self._send)
        finally:
            SHARES.discard(self.visitor, space)
        for path in json.loads(self.reply_body) if self.reply_status == 200 else ():
            real = self.guard.folder.real(path)
            with suppress(FileNotFoundError):
                SHARES.add(self.visitor, real, os.path.getsize(real))

    async def _checked_call(self) -> Receive:
        """Read and check the whole body, and return a `receive` that yields it in one piece."""
        pieces = []
        while not self.body_complete:
            message = await self._receive()
            if self.refused is not None:
                raise self.refused
            if message["type"] == "http.disconnect":
                raise Refused(400, TEXT["ended"])
            pieces.append(message.get("body", b""))
        body = self.guard.folder.revealed(b"".join(pieces))
        value = plain_json(body)
        if self.starts:
            light = self.guard.check(self.path, value)
            self.session = str(value.get("session_hash") or "")
            if self.path == JOIN and not light:
                self._take(self.guard.calls)
        passed_on = False

        async def receive() -> Message:
            nonlocal passed_on
            if passed_on:
                return await self.client_receive()
            passed_on = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive

    async def _receive(self) -> Message:
        """Return the next piece of the body; a body that is too long, too slow or broken off ends here."""
        if self.body_complete:
            return await self.client_receive()
        try:
            message = await asyncio.wait_for(self.client_receive(), max(0.0, self.deadline - time.monotonic()))
        except asyncio.TimeoutError:
            self.refused = Refused(408, TEXT["too slow"].format(seconds=f"{self.limits.body_seconds:g}"))
            return self._end_of_body()
        if message["type"] == "http.disconnect":
            return self._end_of_body()
        self.received += len(message.get("body", b""))
        self.body_complete = not message.get("more_body", False)
        if self.received > self.max_bytes:
            self.refused = self._too_large()
            return self._end_of_body()
        return message

    def _end_of_body(self) -> Message:
        """Tell the application that no more comes; the form parser removes its files only for an error of the form."""
        if self.uploads:
            raise MultiPartException("the body ended early")
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        """Pass a piece of the reply on, with the headers; a reply to a refused body is replaced."""
        if self.refused is not None and not self.reply_started:
            return
        # the page has a text of its own for 503, in English only
        if self.starts and message.get("status") == 503 and not self.reason:
            self.refused = Refused(429, TEXT["full"], 5)
            return
        if message["type"] == "http.response.start":
            self.reply_started = True
            self.reply_status = message["status"]
            headers = MutableHeaders(scope=message)
            self.streams = headers.get("content-type", "").startswith("text/event-stream")
            headers.update(HEADERS)
            if self.path.startswith(FILE):
                headers["content-security-policy"] = INERT
            del headers["server"]
        elif message["type"] == "http.response.body":
            self.reply_complete = not message.get("more_body", False)
            if self.starts or self.uploads:
                self.reply_body += message.get("body", b"")
        await self.client_send(message)

    async def _refuse(self, refused: Refused) -> None:
        """Send an error as the whole reply."""
        self.refused, self.reason = None, refused.reason
        headers = {"content-type": "application/json"}
        if refused.retry_after is not None:
            headers["retry-after"] = str(math.ceil(refused.retry_after))
        await self._reply(refused.status, headers, json.dumps(refused.content, ensure_ascii=False))

    async def _reply(self, status: int, headers: dict[str, str], text: str) -> None:
        """Send a whole reply of the guard's own, in the visitor's language."""
        body = choose_in_json(text.encode(), language_of(self.scope))
        headers["content-length"] = str(len(body))
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    def _too_large(self) -> Refused:
        return Refused(413, TEXT["too large"].format(most=self.max_bytes))
