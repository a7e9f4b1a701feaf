"""The public server around the page: its settings, its limits, its life from binding the port to the last reply.

`build` mounts any `gr.Blocks` in a FastAPI application behind the guard; `serve` runs that until it is told to stop. This
module has to be imported before the page is made: it says where the page keeps its files.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import gc
import inspect
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cached_property
from types import SimpleNamespace
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# After every event gradio sums up the last 10,000 with pandas, for a monitoring page that is not served here.
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
OWN_FOLDER = os.path.join(
    os.path.realpath(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()), f"genlab-{secrets.token_hex(8)}"
)
"""Where this process keeps uploads and results: new for each process, inside GRADIO_TEMP_DIR where that is set."""
os.environ["GRADIO_TEMP_DIR"] = OWN_FOLDER
atexit.register(shutil.rmtree, OWN_FOLDER, ignore_errors=True)

import gradio as gr  # noqa: E402
import gradio.routes  # noqa: E402
import h11  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402
from gradio.state_holder import SessionState  # noqa: E402
from gradio.utils import cancel_tasks, get_upload_folder  # noqa: E402
from gradio_client.utils import construct_args  # noqa: E402
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402

from genlab.serving.gradio_patches import without_application, without_description  # noqa: E402
from genlab.serving.guard import TEXT, Guard, Limits, Refused  # noqa: E402
from genlab.serving.language import Translation  # noqa: E402
from genlab.serving.picture_input import REFUSED, PictureInput  # noqa: E402

log = logging.getLogger("genlab.demo")

PORT = 7860
QUEUE = 64
"""Jobs that may wait: more than a few visitors can fill, each of whom may have 12."""
POLL_SECONDS = 0.005
"""Time between two looks of gradio for a job that can begin. Its own 0.001 is 1000 looks a second, day and night."""
SPARE_SECONDS = 1.0
"""How long after the server answers it begins what can wait: the first visitor comes first."""
SESSIONS = 200
"""Visitors whose state is kept."""
CONNECTIONS = 512
HEAD_SECONDS = 10.0
"""How long the head of a request may take to arrive."""
UNREAD_SECONDS = 30.0
"""How long a visitor may read nothing of a reply that waits."""
SENT_AHEAD = 256 * 1024
"""Bytes that the system may take before they are read."""
UNREAD = 200
"""Results of a session that may wait to be read before its next call is refused."""
GRACE_SECONDS = 5
"""How long running replies may go on when the server is told to stop."""
KEPT_BYTES = 256 * 1024 * 1024
KEPT_SECONDS = 3600.0
SWEEP_SECONDS = 15.0
SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep the interpreter from the page; with Python's own 0.005 every frame comes later."""
SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
"""A session's name, chosen by the browser."""
SINGLE = (gr.Number, gr.Slider, gr.Dropdown, gr.Radio, gr.Textbox, gr.Checkbox)
"""Components whose value is one number, text or truth value."""


def build(
    demo: gr.Blocks,
    *,
    ready: Callable[[], bool | str],
    limits: Limits | None = None,
    theme: Any = None,
    css: str | None = None,
    js: str | None = None,
    head: str | None = None,
    favicon: str | None = None,
) -> FastAPI:
    """The application that serves a page.

    Args:
        demo: the page.
        ready: True where the models are loaded, else False or the reason; asked by `/readyz`, so it has to be quick.
        limits: of visitors and requests; the defaults, with the proxies that `proxies` finds, where None.
        theme, css, js, head: of the page, as `gr.Blocks.launch` takes them.
        favicon: path of the page's icon.

    Raises:
        ValueError: the page was made before this module was imported.
    """
    folder = get_upload_folder()
    if folder != demo.GRADIO_CACHE or not os.path.basename(folder).startswith("genlab-"):
        raise ValueError(
            f"expected a page made after genlab.serving.server was imported, got one with its files in {demo.GRADIO_CACHE}"
        )
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    limits = limits or Limits(proxies=proxies())

    waiting = demo._queue.max_size or QUEUE
    with without_application():
        demo.queue(
            max_size=min(waiting, QUEUE), api_open=False, default_concurrency_limit=demo._queue.default_concurrency_limit
        )
    demo._queue.sleep_when_free = POLL_SECONDS
    gradio.routes.cancel_tasks = cancel_begun
    SessionState._update_value_in_config = keep_no_value  # type: ignore[assignment, method-assign]
    demo.state_session_capacity = SESSIONS
    demo.delete_cache = demo.delete_cache or (3600, 3600)
    sweeper = Sweeper(folder, keep=lambda: {path for block in list(demo.blocks.values()) for path in block.keep_in_cache})

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with sweeper.running():
            yield

    app = FastAPI(title="genlab", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({"alive": True})

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        state = ready()
        if state is True:
            return JSONResponse({"ready": True})
        return JSONResponse({"ready": False, "reason": state or "the models are being loaded"}, status_code=503)

    calls = Calls(demo)
    app.add_middleware(Translation, embedded=on_space())
    app.add_middleware(
        Guard,
        limits=limits,
        folders=[folder],
        alive=calls.alive,
        check=calls.check,
        leave=calls.leave,
    )
    with without_description():  # or it would describe the page twice, the first time without its theme
        gr.mount_gradio_app(
            app,
            demo,
            path="/",
            show_error=False,
            mcp_server=False,
            run_history=False,
            ssr_mode=False,
            pwa=False,
            enable_monitoring=False,
            max_file_size=limits.upload_bytes,
            footer_links=["api", "gradio"],
            theme=theme,
            css=css,
            js=js,
            head=head,
            favicon_path=favicon,
        )
    demo.config = demo.get_config_file()
    # For every new visitor gradio describes the whole page once more, for links that restore it (`gr.DeepLinkButton`), which
    # this page has not: a tenth of a second in which nobody else is served.
    demo.state_holder.blocks = SimpleNamespace(default_config=demo.default_config, blocks={})  # type: ignore[assignment]
    demo.has_launched = True
    demo.is_running = True
    return app


async def cancel_begun(task_ids: set[str]) -> list[str]:
    """Cancel jobs by their tasks' names as gradio does, but only once they have begun.

    A task that is cancelled before its first line runs never comes to its last, where it would give its place back: from then
    on no other job of its kind would be run.
    """
    while any(
        "<gradio-sep>" in task.get_name() and inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED  # type: ignore[arg-type]
        for task in asyncio.all_tasks()
    ):
        await asyncio.sleep(0)
    return await cancel_tasks(task_ids)


def keep_no_value(session: SessionState, key: int, value: Any) -> None:
    """Leave out what gradio would keep of every call's values, as long as the session's state, for links that restore it."""


class Calls:
    """What the page's endpoints take, to refuse a wrong call before anything is queued.

    Args:
        demo: the page.
    """

    def __init__(self, demo: gr.Blocks) -> None:
        self.demo = demo

    @cached_property
    def parameters(self) -> dict[str, list[Any]]:
        """Endpoint → its named parameters."""
        return {name: endpoint["parameters"] for name, endpoint in self.demo.get_api_info()["named_endpoints"].items()}

    def alive(self, event_id: str) -> bool:
        """Whether a job waits or runs."""
        return event_id in self.demo._queue.event_ids_to_events

    async def leave(self, session: str, event_id: str | None = None) -> None:
        """End the jobs of a session, those that wait now and those that run at their next step, and drop their results.

        With `event_id`, only if that job goes on or its results have not been fetched.
        """
        queue = self.demo._queue
        fetched = event_id not in queue.pending_event_ids_session.get(session, ())
        if event_id is not None and fetched and not self.alive(event_id):
            return
        await queue.clean_events(session_hash=session)
        if not any(event.alive and event.session_hash == session for event in list(queue.event_ids_to_events.values())):
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)

    def check(self, path: str, body: dict[str, Any]) -> bool:
        """Refuse a call that names no endpoint, has too few or too many values, a list or an object in the place of a single
        value, or a picture that was not uploaded here.

        Returns:
            Whether it calls a light function: one of which only the newest call matters, that answers once, that takes no
            picture to decode, and that no program can ask for by name. Such are sent while something is moved.

        Raises:
            Refused: with 404, 422, or 429 where too many of its results are not read.
        """
        name = path.rstrip("/").rsplit("/", 1)[1]
        if path.startswith("/gradio_api/queue/"):
            index = body.get("fn_index")
            event = self.demo.fns.get(index) if type(index) is int else None
        else:
            event = next((fn for fn in self.demo.fns.values() if fn.api_name == name and fn.api_visibility != "private"), None)
        if event is None:
            raise Refused(404, "There is no such endpoint.")
        unread = self.demo._queue.pending_messages_per_session.get(str(body.get("session_hash")))
        if unread is not None and unread.qsize() > UNREAD:
            raise Refused(429, TEXT["too many"].format(seconds=5), 5)
        data = self._by_name(name, body) if path.startswith("/gradio_api/call/v2/") else self._in_order(body)
        if event.cancels:
            return False
        inputs = list(event.inputs)
        if not path.startswith("/gradio_api/queue/") and len(data) != len(inputs):
            inputs = [component for component in inputs if not component.skip_api]
        if len(data) != len(inputs):
            raise Refused(422, f"expected {len(inputs)} values, got {len(data)}")
        for component, value in zip(inputs, data, strict=True):
            if component.refuses(value) if isinstance(component, PictureInput) else holds_file(value):
                raise Refused(422, REFUSED)
            if isinstance(component, SINGLE) and isinstance(value, (list, dict)):
                kind = "a list" if isinstance(value, list) else "an object"
                raise Refused(422, f"{component.label}: expected a single value, got {kind}")
        pictures = any(isinstance(component, PictureInput) for component in inputs)
        newest = event.trigger_mode == "always_last" and event.api_visibility == "private"
        return newest and not event.types_generator and not pictures

    def _by_name(self, name: str, body: dict[str, Any]) -> list[Any]:
        try:
            return construct_args(self.parameters[f"/{name}"], (), body)
        except TypeError as error:
            raise Refused(422, str(error)) from error

    def _in_order(self, body: dict[str, Any]) -> list[Any]:
        session, batched, data = body.get("session_hash"), body.get("batched"), body.get("data")
        if session is not None and not (isinstance(session, str) and SESSION.fullmatch(session)):
            raise Refused(422, f"session_hash: expected {SESSION.pattern}")
        if batched not in (None, False):
            raise Refused(422, "batched: expected false")
        if not isinstance(data, list):
            raise Refused(422, "data: expected a list")
        return data


def holds_file(value: Any) -> bool:
    """Whether there is a file somewhere in a value; gradio would fetch its address, whatever the component."""
    if isinstance(value, dict):
        return "path" in value or any(map(holds_file, value.values()))
    return isinstance(value, list) and any(map(holds_file, value))


class Sweeper:
    """Keeps a folder within a size and its files within an age, whatever wrote them: the oldest files go first.

    Args:
        folder: what to keep small.
        keep: the files that stay.
        max_bytes: of all files together, counted in blocks of 4 KiB.
        max_seconds: of a file's age.
    """

    def __init__(
        self,
        folder: str,
        keep: Callable[[], set[str]],
        max_bytes: int = KEPT_BYTES,
        max_seconds: float = KEPT_SECONDS,
    ) -> None:
        self.folder, self.keep, self.max_bytes, self.max_seconds = folder, keep, max_bytes, max_seconds

    def sweep(self) -> None:
        """Remove what is too much now, and the folders that are empty since a minute."""
        kept, now = self.keep(), time.time()
        files = []
        for folder, _, names in os.walk(self.folder, topdown=False):
            for name in names:
                path = os.path.join(folder, name)
                with suppress(FileNotFoundError):
                    status = os.lstat(path)
                    files.append((status.st_mtime, -(-max(status.st_size, 1) // 4096) * 4096, path))
            with suppress(OSError):
                if folder != self.folder and now - os.stat(folder).st_mtime > 60:
                    os.rmdir(folder)
        total = sum(size for _, size, _ in files)
        for modified, size, path in sorted(files):
            if path in kept or (total <= self.max_bytes and now - modified <= self.max_seconds):
                continue
            with suppress(FileNotFoundError):
                os.remove(path)
            total -= size

    @contextmanager
    def running(self, every: float = SWEEP_SECONDS) -> Iterator[None]:
        """Sweep in a thread for as long as the context lasts."""
        stop = threading.Event()

        def loop() -> None:
            while not stop.wait(every):
                try:
                    self.sweep()
                except Exception:
                    log.exception("sweeping %s failed", self.folder)

        thread = threading.Thread(target=loop, name="sweeper", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


class Connection(H11Protocol):
    """An HTTP/1.1 connection that is closed where the head of a request takes longer than `HEAD_SECONDS`, and where nothing of
    what waits to be read is read for `UNREAD_SECONDS`: what a stream brings would pile up behind it.
    """

    head_timer: asyncio.TimerHandle | None = None
    unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_timer = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self.head_timer is None:
            self.head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        self._stop_watching()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_watching()
        super().connection_lost(exc)

    def _watch_reader(self) -> None:
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < left:
                self._watch_reader()
            else:
                self.transport.abort()

        self.unread_timer = self.loop.call_later(UNREAD_SECONDS, look)

    def _stop_watching(self) -> None:
        if self.unread_timer is not None:
            self.unread_timer.cancel()
            self.unread_timer = None

    def _stop_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


class Server(uvicorn.Server):
    """uvicorn on a port of `host`, telling which address to open once it answers.

    Args:
        app: from `build`.
        host, port: where to listen; 0 takes any free port.
        answering: called once, `SPARE_SECONDS` after it answers; it must not take long.

    Raises:
        SystemExit: the port cannot be had; the message says what to do.
    """

    def __init__(self, app: FastAPI, host: str, port: int, answering: Callable[[], None] | None = None) -> None:
        self.answering = answering
        self.listener = listen(host, port)
        self.port: int = self.listener.getsockname()[1]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=GRACE_SECONDS,
                h11_max_incomplete_event_size=32 * 1024,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"genlab: open {self.url}", flush=True)
        if self.answering is not None:
            asyncio.get_running_loop().call_later(SPARE_SECONDS, self.answering)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or [self.listener])


def serve(
    demo: gr.Blocks,
    host: str | None = None,
    port: int | None = None,
    *,
    ready: Callable[[], bool | str],
    answering: Callable[[], None] | None = None,
    **page: Any,
) -> None:
    """Serve a page until SIGTERM or Ctrl-C; replies that are under way have `GRACE_SECONDS` to end.

    Args:
        demo, ready, page: as for `build`.
        host: the address to listen on; else GRADIO_SERVER_NAME; else all interfaces on a Space, this machine only elsewhere.
        port: else GRADIO_SERVER_PORT, else 7860.
        answering: as for `Server`.

    Raises:
        SystemExit: the port cannot be had, or the server was told to stop.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    server = Server(build(demo, ready=ready, **page), *address(host, port), answering)
    gc.freeze()  # what stands now stays: nobody has to wait while it is looked through for garbage
    gc.enable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        server.run()


def address(host: str | None, port: int | None) -> tuple[str, int]:
    """Where to listen: the arguments, else the environment, else the defaults.

    Raises:
        SystemExit: the environment's port is not one.
    """
    host = host or os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_space() else "127.0.0.1")
    if port is None:
        port = _environment_number("GRADIO_SERVER_PORT", PORT, 65535)
    return host, port


def proxies() -> int:
    """Trusted proxies in front of the server: GENLAB_PROXIES, else one on a Space, else none."""
    return _environment_number("GENLAB_PROXIES", 1 if on_space() else 0, 10)


def on_space() -> bool:
    return bool(os.environ.get("SPACE_ID"))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, whose connections send at once (TCP_NODELAY), and no more than `SENT_AHEAD` bytes ahead.

    Without TCP_NODELAY, a small message waits for the receipt of the one before: 40 ms before a reply's first line, and often
    before a frame. asyncio asks for it only where the socket says its protocol, which `create_server` leaves at 0. Without
    `SENT_AHEAD`, a slow reader could seem to read nothing: what was read of all that the system has taken is not seen here.

    Raises:
        SystemExit: one line that names the port and what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SystemExit(f"port {port} is in use: stop the program that holds it, or choose another with --port") from error
        raise SystemExit(f"cannot listen on {host}:{port} ({error.strerror}): choose others with --host and --port") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD)
    return listener


def _environment_number(name: str, default: int, maximum: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text) <= maximum):
        raise SystemExit(f"{name}: expected a whole number from 0 to {maximum}, got {text!r}")
    return int(text)
