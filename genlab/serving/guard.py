"""What stands between the network and the page: every request passes here first.

A request is answered only if its route is on the list `ROUTES`; its body is bounded in bytes and in time; a body that starts
work is plain, finite JSON; and one visitor can start only so much. Replies are passed on piece by piece as they come, so a
stream stays a stream, with the security headers added.

What one visitor can start is counted in two buckets. Moving something on the page sends a light call for every place it passes;
all that the page sends is counted in the wide bucket, and what is not light in the narrow one too, once its body has said which
function it calls; ending a job counts as light. Calls by name and uploads are counted in the narrow one at once, readings of
the whole page in one of their own; and only so many requests of one visitor are open at a time. And a visitor who has left
leaves no job and no results: gradio ends a job whose stream of results breaks off, but not one whose stream was never opened;
that is noticed here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genlab.serving.language import both, choose_in_json, language_of

log = logging.getLogger("genlab.demo")

NAME = r"[\w.-]{1,64}"
READ, WRITE = ("GET", "HEAD"), ("POST", "OPTIONS")
ROUTES = [
    (methods, re.compile(pattern))
    for methods, pattern in (
        (READ, r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/healthz|/readyz"),
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
"""How the page starts a job; what it is follows from the body."""
RESULTS = "/gradio_api/queue/data"
"""The stream of all results of a session."""
NAMED_RESULTS = re.compile(rf"/gradio_api/call/(?:v2/)?{NAME}/({NAME})")
"""The stream of the results of a call by name; its event id."""
WHOLE = re.compile(r"/|/config/?|/gradio_api/(info/?|openapi\.json)")
"""What describes the page as a whole, made anew for each request."""
PRESENCE = "/gradio_api/heartbeat/"
"""A stream that the page keeps open for as long as it is shown; the session's name follows."""
UPLOAD = "/gradio_api/upload"
UPLOAD_NAMED = re.compile(r"/gradio_api/upload(_progress)?")
"""Requests that name an upload; gradio keeps the names."""
CANCEL = "/gradio_api/cancel"
ENDS = re.compile(rf"{CANCEL}|/gradio_api/reset/?")
"""Requests that end a job."""
FILE = "/gradio_api/file="

FRAMES = "frame-ancestors 'self' https://huggingface.co https://*.hf.space"
INERT = f"default-src 'none'; style-src 'unsafe-inline'; sandbox; {FRAMES}"
"""For files: whatever an uploaded file contains, it runs nothing."""

FORM_BYTES = 64 * 1024
"""What the form around an uploaded file may take."""
NAME_BYTES = 100
"""What the query of a request that names an upload may take."""
END_BYTES = 1024
"""What the body of a request that ends a job may take: the names of its session and its event, and a number."""
MAX_DEPTH = 12
"""Levels of lists and objects in a JSON body."""
MAX_VALUES = 10_000
"""Values in a JSON body: each costs time in which nobody else is served. The most that a call needs are 2000 points and their
coordinates; a drawing, in base64, is one."""


@dataclass(frozen=True)
class Limits:
    """What one visitor and one request may take.

    Attributes:
        json_bytes, upload_bytes: the body of a call, and the files of an upload.
        body_seconds: how long a body may take to arrive.
        per_second, burst: calls of one visitor: `burst` at once, then so many a second.
        uploads_per_second, uploads_burst: the same of uploads, whose largest together are less than what is kept for all.
        light_per_second, light_burst: the same of all that the page sends; `requests.js` keeps one window below it, but
            not several windows of one visitor together.
        whole_per_second, whole_burst: the same of readings of the whole page; a class may share one address.
        unheard_seconds: after which a job of the page, with what it has brought, is dropped if nobody has opened the stream of
            its results; uncalled_seconds: the same of a call by name, which people may make by hand.
        open: requests of one visitor that are not yet answered to their end, streams above all; a page keeps two or three.
        queued: jobs of one visitor that wait or run at the same time.
        proxies: trusted proxies in front of the server, each of which adds an address to X-Forwarded-For. With 0 the header
            is not believed.
    """

    json_bytes: int = 256 * 1024
    upload_bytes: int = 10 * 1024 * 1024
    body_seconds: float = 30.0
    per_second: float = 4.0
    burst: int = 80
    uploads_per_second: float = 0.5
    uploads_burst: int = 20
    light_per_second: float = 15.0
    light_burst: int = 120
    whole_per_second: float = 1.0
    whole_burst: int = 80
    unheard_seconds: float = 5.0
    uncalled_seconds: float = 30.0
    open: int = 128
    queued: int = 12
    proxies: int = 0

    def __post_init__(self) -> None:
        if self.proxies < 0:
            raise ValueError(f"proxies: expected 0 or more, got {self.proxies}")


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: of the reply.
        detail: what the visitor reads.
        retry_after: seconds after which it may succeed.
    """

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after = status, detail, retry_after

    @property
    def content(self) -> dict[str, Any]:
        """The reply's JSON; bad values in the form that the page and gradio_client show word for word."""
        if self.status == 422:
            return {"detail": [{"__type__": "validate", "is_valid": False, "message": self.detail}]}
        return {"detail": self.detail}


class Allowance:
    """A token bucket for every visitor, for the last `kept` visitors.

    Args:
        per_second, burst: as in `Limits`.
        clock: seconds, monotonic.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic, kept: int = 10_000) -> None:
        self.per_second, self.burst, self.clock, self.kept = per_second, burst, clock, kept
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, visitor: str) -> float:
        """Take one token; the seconds until there is one if there is none, else 0."""
        now = self.clock()
        tokens, then = self.buckets.pop(visitor, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - then) * self.per_second)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self.per_second
        self.buckets[visitor] = (tokens if wait else tokens - 1, now)
        while len(self.buckets) > self.kept:
            self.buckets.popitem(last=False)
        return wait


class Jobs:
    """Which jobs of which visitor are not finished.

    Args:
        alive: whether the job of an event id still waits or runs.
    """

    def __init__(self, alive: Callable[[str], bool]) -> None:
        self.alive = alive
        self.jobs: dict[str, set[str]] = {}
        self.room = 1000

    def count(self, visitor: str) -> int:
        """Jobs of a visitor that wait, run, or are being put into the queue."""
        unfinished = {job for job in self.jobs.get(visitor, ()) if job.startswith("new ") or self.alive(job)}
        if unfinished:
            self.jobs[visitor] = unfinished
        else:
            self.jobs.pop(visitor, None)
        return len(unfinished)

    def add(self, visitor: str, job: str) -> None:
        self.jobs.setdefault(visitor, set()).add(job)
        if len(self.jobs) > self.room:  # visitors who never came again
            for each in list(self.jobs):
                self.count(each)
            self.room = 1000 + 2 * len(self.jobs)

    def discard(self, visitor: str, job: str) -> None:
        self.jobs.get(visitor, set()).discard(job)
        self.count(visitor)


TEXT = {
    "too many": both("Too many requests: try again in {seconds} s.", "请求过于频繁，请 {seconds} 秒后再试。"),
    "queued": both(
        "At most {most} jobs at a time: wait for one of yours to end.", "每人最多同时 {most} 个任务，请等待其中一个结束。"
    ),
    "full": both("The queue is full: try again in a few seconds.", "队列已满，请几秒后再试。"),
    "too large": both("expected a body of at most {most} bytes", "请求内容过大，应不超过 {most} 字节"),
    "too slow": both("the body took more than {seconds} s", "请求内容没有在 {seconds} 秒内传完"),
    "open": both(
        "At most {most} open requests at a time: close one of your pages.", "每人最多同时 {most} 个连接，请关闭一个页面。"
    ),
    "ended": both("the body ended early", "请求内容不完整"),
    "failed": both("Something went wrong on the server.", "服务器出错了。"),
}
"""What a visitor of the page can come to read; what only a program can provoke is in English."""


class Guard:
    """The outermost ASGI application.

    Args:
        app: what is guarded.
        limits: see `Limits`.
        folders: the only folders whose files are served, as real paths.
        alive: whether the job of an event id still waits or runs.
        check: looks at the path and the JSON of a request that starts work, and raises `Refused` where it cannot be served;
            whether what it starts is light.
        leave: ends the jobs of a session and drops their results; with an event id, only if that job goes on or its results
            have not been fetched.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        folders: Sequence[str],
        alive: Callable[[str], bool],
        check: Callable[[str, dict[str, Any]], bool],
        leave: Callable[[str, str | None], Awaitable[None]],
    ) -> None:
        self.app, self.limits, self.folders, self.check, self.leave = app, limits, tuple(folders), check, leave
        self.allowance = Allowance(limits.per_second, limits.burst)
        self.uploads = Allowance(limits.uploads_per_second, limits.uploads_burst)
        self.light = Allowance(limits.light_per_second, limits.light_burst)
        self.whole = Allowance(limits.whole_per_second, limits.whole_burst)
        self.open: Counter[str] = Counter()
        self.jobs = Jobs(alive)
        self.streams: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            visitor = self.visitor(scope)
            self.open[visitor] += 1
            try:
                await _Exchange(self, scope, receive, send).run()
            finally:
                self.open[visitor] -= 1
                if not self.open[visitor]:
                    del self.open[visitor]
        else:
            await send({"type": "websocket.close", "code": 1008})

    def serves(self, method: str, path: str) -> bool:
        """Whether a request of this method to this decoded path is answered."""
        if any(character < " " or character in "\x7f\\" for character in path) or "//" in path or ".." in path.split("/"):
            return False
        if path.startswith(FILE) and not path.removeprefix(FILE).startswith(tuple(folder + os.sep for folder in self.folders)):
            return False
        return any(method in methods and pattern.fullmatch(path) for methods, pattern in ROUTES)

    async def left(self, session: str) -> None:
        """End the jobs of a session whose results nobody listens to."""
        if not self.streams[session]:
            await self.leave(session, None)

    def expect(self, session: str, event_id: str, seconds: float) -> None:
        """Look in a while whether somebody listens to the results of a job."""

        async def look() -> None:
            await asyncio.sleep(seconds)
            try:
                if not self.streams[session] and not self.streams[event_id]:
                    await self.leave(session, event_id)
            except Exception:
                log.exception("ending a job whose results nobody listens to failed")

        task = asyncio.create_task(look())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def visitor(self, scope: Scope) -> str:
        """Whom a request counts for: the address that the outermost trusted proxy saw, an IPv6 one by its /64 network."""
        peer = scope["client"][0] if scope.get("client") else ""
        forwarded = [entry.strip() for entry in ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")]
        proxies = self.limits.proxies
        address = forwarded[-proxies] if 0 < proxies <= len(forwarded) else peer
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return peer
        if isinstance(parsed, ipaddress.IPv6Address):
            mapped = parsed.ipv4_mapped
            return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
        return str(parsed)


class _Exchange:
    """One request and its reply."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self.client_receive, self.client_send = guard, scope, receive, send
        self.limits = guard.limits
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
        self.own, self.ended_itself = False, False
        self.session = ""
        self.refused: Refused | None = None

    async def run(self) -> None:
        try:
            self._admit()
            receive = await self._checked_call() if self.method == "POST" and not self.uploads else self._receive
            await self._serve(receive)
        except Refused as refused:
            self.refused = refused
        except ClientDisconnect:
            pass
        except Exception as error:
            if self.ended_itself and isinstance(error, KeyError):
                await self._reply(200, {"success": True})
            elif self.reply_started and not self.reply_complete:
                log.error("%s %s broke off: %s", self.method, self.path, type(error).__name__)
                if self.streams:
                    await self._send({"type": "http.response.body", "body": b""})
            elif self.refused is None:
                log.exception("%s %s failed", self.method, self.path)
                self.refused = Refused(500, TEXT["failed"])
        if self.refused is not None and not self.reply_started:
            answer, self.refused = self.refused, None
            await self._reply(answer.status, answer.content, answer.retry_after)

    def _admit(self) -> None:
        """What can be refused from the head alone."""
        if not self.guard.serves(self.method, self.path):
            raise Refused(404, "Not Found")
        length = Headers(scope=self.scope).get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise Refused(400, f"expected a number of bytes in Content-Length, got {length[:20]!r}")
        if int(length[:20]) > self.max_bytes:
            raise self._too_large()
        if self.guard.open[self.guard.visitor(self.scope)] > self.limits.open:
            raise Refused(429, TEXT["open"].format(most=self.limits.open), 5)
        if UPLOAD_NAMED.fullmatch(self.path) and len(self.scope.get("query_string", b"")) > NAME_BYTES:
            raise Refused(400, f"expected at most {NAME_BYTES} bytes of query")
        if self.starts:
            self._take(self.guard.light if self.path == JOIN else self.guard.allowance)
        elif self.uploads:
            self._take(self.guard.uploads)
        elif self.ends or UPLOAD_NAMED.fullmatch(self.path):
            self._take(self.guard.light)
        elif WHOLE.fullmatch(self.path):
            self._take(self.guard.whole)

    def _take(self, allowance: Allowance) -> None:
        wait = allowance.take(self.guard.visitor(self.scope))
        if wait:
            raise Refused(429, TEXT["too many"].format(seconds=math.ceil(wait)), wait)

    async def _serve(self, receive: Receive) -> None:
        if self.path == RESULTS:
            query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
            await self._listen(receive, query.get("session_hash", [""])[-1])
            return
        if self.method == "GET" and (named := NAMED_RESULTS.fullmatch(self.path)):
            await self._listen(receive, named[1])
            return
        if self.path.startswith(PRESENCE) and self.method == "GET":
            try:
                await self.guard.app(self.scope, receive, self._send)
            finally:
                await self.guard.left(self.path.removeprefix(PRESENCE))
            return
        if not self.starts:
            await self.guard.app(self.scope, receive, self._send)
            return
        visitor = self.guard.visitor(self.scope)
        jobs = self.guard.jobs
        if jobs.count(visitor) >= self.limits.queued:
            raise Refused(429, TEXT["queued"].format(most=self.limits.queued), 5)
        starting = f"new {id(self)}"
        jobs.add(visitor, starting)
        try:
            await self.guard.app(self.scope, receive, self._send)
        finally:
            jobs.discard(visitor, starting)
        if self.reply_status == 200:
            event_id = json.loads(self.reply_body)["event_id"]
            jobs.add(visitor, event_id)
            seconds = self.limits.unheard_seconds if self.path == JOIN else self.limits.uncalled_seconds
            self.guard.expect(self.session or event_id, event_id, seconds)

    async def _listen(self, receive: Receive, name: str) -> None:
        """Pass a stream on, noted under the session, or the event id, whose results it has."""
        streams = self.guard.streams
        streams[name] += 1
        try:
            await self.guard.app(self.scope, receive, self._send)
        finally:
            streams[name] -= 1
            if not streams[name]:
                del streams[name]

    async def _checked_call(self) -> Receive:
        """Read the whole body, look at it, and hand it on in one piece."""
        pieces = []
        while not self.body_complete:
            message = await self._receive()
            if self.refused is not None:
                raise self.refused
            if message["type"] == "http.disconnect":
                raise Refused(400, TEXT["ended"])
            pieces.append(message.get("body", b""))
        body = b"".join(pieces)
        value = plain_json(body)
        if self.starts:
            light = self.guard.check(self.path, value)
            self.session = str(value.get("session_hash") or "")
            if self.path == JOIN and not light:
                self._take(self.guard.allowance)
        handed_on = False

        async def receive() -> Message:
            nonlocal handed_on
            if handed_on:
                return await self.client_receive()
            handed_on = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive

    async def _receive(self) -> Message:
        """The next piece of the body; a body that is too long, too slow or broken off ends here."""
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
        """Tell the application that no more comes; the form parser removes its files only where the form is at fault."""
        if self.uploads:
            raise MultiPartException("the body ended early")
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        """Pass a piece of the reply on, with the headers; a reply to a refused body is replaced."""
        if self.refused is not None and not self.reply_started:
            return
        if self.path == CANCEL and not self.own and message.get("status") == 500:
            self.ended_itself = True  # gradio trips over a job that ends in the very moment in which it is cancelled
        if self.ended_itself and not self.own:
            return
        if self.starts and message.get("status") == 503:  # for which the page has a text of its own, in English alone
            self.refused = Refused(429, TEXT["full"], 5)
            return
        if message["type"] == "http.response.start":
            self.reply_started = True
            self.reply_status = message["status"]
            headers = MutableHeaders(scope=message)
            self.streams = headers.get("content-type", "").startswith("text/event-stream")
            headers["x-content-type-options"] = "nosniff"
            headers["referrer-policy"] = "no-referrer"
            headers["content-security-policy"] = INERT if self.path.startswith(FILE) else FRAMES
            del headers["server"]
        elif message["type"] == "http.response.body":
            self.reply_complete = not message.get("more_body", False)
            if self.starts:
                self.reply_body += message.get("body", b"")
        await self.client_send(message)

    async def _reply(self, status: int, content: dict[str, Any], retry_after: float | None = None) -> None:
        """A whole reply of the guard's own."""
        self.own = True
        body = choose_in_json(json.dumps(content, ensure_ascii=False).encode(), language_of(self.scope))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if retry_after is not None:
            headers.append((b"retry-after", str(math.ceil(retry_after)).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    def _too_large(self) -> Refused:
        return Refused(413, TEXT["too large"].format(most=self.max_bytes))


def plain_json(body: bytes) -> dict[str, Any]:
    """A JSON object of finite numbers within 64 bits, valid text, few levels and not too many values.

    Raises:
        Refused: with 400, for anything else.
    """

    def not_finite(token: str) -> float:
        raise ValueError(f"expected finite numbers, got {token}")

    try:
        if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:  # a comma in a text counts too, but nothing has to be parsed
            raise ValueError(f"expected at most {MAX_VALUES} values")
        value = json.loads(body.decode("utf-8"), parse_constant=not_finite)
        if not isinstance(value, dict):
            raise ValueError("expected an object")
        _check_plain(value)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"expected a plain JSON object: {str(error)[:100]}") from error
    return value


def _check_plain(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                item.encode("utf-8")
            elif isinstance(item, (int, float)) and not abs(item) < 2**63:
                raise ValueError("expected numbers within 64 bits")
        if not below:
            return
        level = below
    raise ValueError(f"expected at most {MAX_DEPTH} levels")
