"""The public server of a page: its settings, and its life from binding the port to the last reply.

`build` mounts any `gr.Blocks` in a FastAPI application behind the guard; `serve` runs that until a signal stops it.
Meanwhile the page can be replaced by another.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, JSONResponse
from gradio.utils import get_upload_folder

from genlab.serving import gradio_patches
from genlab.serving.connection import Connection, listen
from genlab.serving.folder import Folder
from genlab.serving.guard import Guard
from genlab.serving.language import TAGS, Language, Translation
from genlab.serving.limits import Limits
from genlab.serving.operations import Rarely, requests_log, serve_metrics
from genlab.serving.pages import Pages
from genlab.serving.sweeper import Sweeper
from genlab.serving.visitor import network

PORT = 7860
START_DELAY_SECONDS = 1.0
"""Time from the first moment at which the server answers to the work that can wait: the first visitor comes first."""
GRACE_SECONDS = 5
"""How long running jobs may go on after a signal to stop."""
FETCH_SECONDS = 5
"""How long files of jobs that have ended can still be fetched, at most: until nobody has asked for `QUIET_SECONDS`."""
QUIET_SECONDS = 1
EXIT_SECONDS = 10
"""How long threads that still compute may hold up the end of the process."""


Documents = Mapping[str, tuple[Language, Callable[[], str]]]
"""Name of a document, such as notes.md → its language, and a function that returns it as a page of HTML."""


def build(
    demo: gr.Blocks,
    *,
    ready: Callable[[], bool | str],
    limits: Limits | None = None,
    documents: Documents | None = None,
    **page: Any,
) -> FastAPI:
    """Return the application that serves a page; its `state.pages` can replace the page by another.

    Args:
        demo: the page.
        ready: returns True when the page can be used, else False or the reason; called by `/readyz`, so it has to be quick.
        limits: of visitors and requests; the defaults, with the proxies that `proxies` finds, where None.
        documents: served at /docs/NAME, beside the page.
        page: theme, css, js, head, favicon_path as `gr.mount_gradio_app` takes them.

    Raises:
        ValueError: the page was made before `import_gradio`, or reports its use to gradio.
    """
    limits = limits or Limits(proxies=proxies())
    folder = Folder(get_upload_folder())
    pages = Pages(
        demo,
        limits,
        show_error=False,
        mcp_server=False,
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        max_file_size=limits.upload_bytes,
        footer_links=["api", "gradio"],
        **page,
    )
    app = FastAPI(lifespan=_living(pages, folder.path), docs_url=None, redoc_url=None, openapi_url=None)
    app.state.pages = pages
    _add_health(app, lambda: state if (state := pages.ready()) is not True else ready())
    _add_documents(app, documents or {})
    app.add_middleware(gradio_patches.TolerantCancel)
    app.add_middleware(Translation, embedded=on_space(), change=folder.hidden)
    app.add_middleware(
        Guard, limits=limits, folder=folder, alive=pages.alive, check=pages.check, end_jobs=pages.end_jobs
    )  # the last one is the outermost
    app.mount("/", pages)
    return app


def _living(pages: Pages, folder: str) -> Callable[[FastAPI], Any]:
    """Return the lifespan of an application: its pages live, and the folder is swept, but for files that they show."""
    sweeper = Sweeper(folder, exempt=pages.files)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pages.running():
            with sweeper.running():
                yield

    return lifespan


def _add_health(app: FastAPI, ready: Callable[[], bool | str]) -> None:
    """Add `/healthz`, which answers while the process lives, and `/readyz`, which answers 503 until the page can be used."""

    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> JSONResponse:
        return JSONResponse({"alive": True})

    @app.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> JSONResponse:
        state = ready()
        if state is True:
            return JSONResponse({"ready": True})
        return JSONResponse({"ready": False, "reason": state or "not ready yet"}, status_code=503)


def _add_documents(app: FastAPI, documents: Documents) -> None:
    @app.get("/docs/{name}")
    def document(name: str) -> HTMLResponse:
        if name not in documents:
            raise HTTPException(404, f"no document {name}: expected one of {', '.join(documents)}")
        language, html = documents[name]
        return HTMLResponse(html(), headers={"content-language": TAGS[language]})


class Server(uvicorn.Server):
    """uvicorn on a port of `host`, which prints the address to open once it answers.

    Args:
        app: from `build`.
        host, port: where to listen; 0 takes any free port.
        answering: called once, `START_DELAY_SECONDS` after it answers; it must not take long.

    Raises:
        SystemExit: the port cannot be had; the message says what to do.
    """

    def __init__(self, app: FastAPI, host: str, port: int, answering: Callable[[], None] | None = None) -> None:
        self.answering = answering
        self.ended: Callable[[], None] | None = None
        """Called after the last reply, before the threads that compute have ended."""
        self.listener = listen(host, port)
        self.port: int = self.listener.getsockname()[1]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(Connection, proxied=proxies() > 0),  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=32 * 1024,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the jobs end, or tell their visitors, and serve their files, before no more is answered."""
        pages = getattr(getattr(self.config.app, "state", None), "pages", None)
        if isinstance(pages, Pages) and not self.force_exit and any(running for _, _, running in pages.jobs()):
            await pages.drain(GRACE_SECONDS)
            for _ in range(FETCH_SECONDS // QUIET_SECONDS):
                answered = self.server_state.total_requests
                await asyncio.sleep(QUIET_SECONDS)
                if answered == self.server_state.total_requests:
                    break
        await super().shutdown(sockets)
        if self.ended is not None:
            self.ended()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"genlab: open {self.url}", flush=True)
        if self.answering is not None:
            asyncio.get_running_loop().call_later(START_DELAY_SECONDS, self.answering)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or [self.listener])


def serve(
    demo: gr.Blocks,
    host: str | None = None,
    port: int | None = None,
    *,
    ready: Callable[[], bool | str],
    answering: Callable[[Callable[[gr.Blocks], None]], None] = lambda replace: None,
    **page: Any,
) -> None:
    """Serve a page until SIGTERM or Ctrl-C; running jobs then have `GRACE_SECONDS` to end.

    Args:
        demo, ready, page: as for `build`, with its `documents`.
        host: the address to listen on; else GRADIO_SERVER_NAME; else all interfaces on a Space, this machine only elsewhere.
        port: else GRADIO_SERVER_PORT, else 7860.
        answering: called as `answering` of `Server`, with the function that replaces the page while it is served.

    Raises:
        SystemExit: the port cannot be had, or a signal stopped the server.
    """
    host, port = address(host, port)
    app = build(demo, ready=ready, limits=Limits(proxies=proxies(), hosts=hosts(host)), **page)
    server = Server(app, host, port, lambda: answering(app.state.pages.replace))
    for name in ("genlab.serving", "uvicorn.error"):
        logging.getLogger(name).addFilter(Rarely())
    if os.environ.get("GENLAB_REQUEST_LOG", "").lower() in ("1", "true", "yes"):
        requests_log.setLevel(logging.INFO)
    metrics = serve_metrics(app.state.pages.jobs)
    server.ended = threading.Thread(target=_end, name="end", daemon=True).start
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with suppress(KeyboardInterrupt):
            server.run()
    finally:
        if metrics is not None:
            metrics.shutdown()


def _end() -> None:
    """End the process where a thread that computes holds it up."""
    time.sleep(EXIT_SECONDS)
    shutil.rmtree(get_upload_folder(), ignore_errors=True)
    os._exit(0)


def address(host: str | None, port: int | None) -> tuple[str, int]:
    """Return where to listen: the arguments, else the environment, else the defaults.

    Raises:
        SystemExit: the environment's port is not one.
    """
    host = host or os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_space() else "127.0.0.1")
    if port is None:
        port = _environment_number("GRADIO_SERVER_PORT", PORT, 65535)
    return host, port


def proxies() -> int:
    """Return the number of trusted proxies in front of the server: GENLAB_PROXIES, else one on a Space, else none."""
    return _environment_number("GENLAB_PROXIES", 1 if on_space() else 0, 10)


def hosts(host: str) -> tuple[str, ...] | None:
    """Return the names under which the server may be asked for, beside localhost and addresses: GENLAB_HOSTS, else none where
    only this machine can connect and no proxy stands in front, else any (None).
    """
    names = re.split(r"[,\s]+", os.environ.get("GENLAB_HOSTS", "").strip())
    if names != [""]:
        return tuple(names)
    local = host == "localhost" or (network(host) is not None and ipaddress.ip_address(host).is_loopback)
    return () if local and not proxies() else None


def on_space() -> bool:
    """Return whether this process runs on a Space."""
    return bool(os.environ.get("SPACE_ID"))


def _environment_number(name: str, default: int, maximum: int) -> int:
    """Return a whole number from the environment; SystemExit where it is none or larger than `maximum`."""
    text = os.environ.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text) <= maximum):
        raise SystemExit(f"{name}: expected a whole number from 0 to {maximum}, got {text!r}")
    return int(text)
