"""All changes that this project makes to gradio at run time, each with its reason.

`tests/test_gradio_patches.py` checks for each that the gradio of requirements.txt still needs it: when such a test fails after
an upgrade, the patch can go. "Not reported" means that no issue of gradio about it was found.

Call `import_gradio` before anything else imports gradio, make the page within `without_application`, mount it within
`described_once`, and call `patch` once it is mounted.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import inspect
import logging
import os
import random
import shutil
import ssl
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from genlab.serving import visitor
from genlab.serving.fairness import FairLock, Turns
from genlab.serving.limits import Limits
from genlab.serving.operations import log_job

if TYPE_CHECKING:
    import gradio as gr
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("genlab.serving")
F = TypeVar("F", bound=Callable[..., Any])

POLL_SECONDS = 0.005
"""Time between two checks of the queue for a job that can begin."""
FOLDER_PREFIX = "genlab-"


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute, for the whole process, while the context lasts."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


# The import of gradio


class LazyModule(ModuleType):
    """Stands for a module that is imported when an attribute of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def use_own_folder() -> None:
    """Give this process a new folder for uploads and results, inside GRADIO_TEMP_DIR where that is set, until it ends; remove
    those of processes that were killed: their lock, a file beside the folder, is free.

    gradio reads the place from the environment, when it is imported and for every component and upload; no argument sets it.
    """
    root = os.path.realpath(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    os.makedirs(root, exist_ok=True)
    for mark in Path(root).glob(f"{FOLDER_PREFIX}*.lock"):
        with suppress(OSError, Timeout), FileLock(mark, timeout=0):
            shutil.rmtree(mark.with_suffix(""), ignore_errors=True)
            mark.unlink()
    os.environ["GRADIO_TEMP_DIR"] = folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=root)
    lock = FileLock(f"{folder}.lock")
    lock.acquire()

    def leave() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            os.remove(lock.lock_file)
        lock.release()

    atexit.register(leave)


def import_gradio() -> None:
    """Import gradio with a folder of its own, and without work that a server does not need.

    That `import gradio` is slow is gradio issue 7791.

    Editor stubs: gradio writes a stub (.pyi) of each of its components anew at every import, which means parsing its source:
    more than half of the import. It skips classes that `inspect.getfile` finds no file for. Not reported.
    pandas: a sixth of what is left, though only cached examples use it. Made lazy in gradio pull requests 7851 and 11156; since
    then a module imports it eagerly again.
    Templates: the docstrings' templates are compiled again for every kind of event of every component. Not reported.
    Proxies: gradio makes clients of HTTP that are not used here, which fail where ALL_PROXY is a SOCKS proxy. Not reported.
    Certificates: every client of HTTP reads the trusted certificates again. Not reported.
    """
    use_own_folder()
    import httpx
    import jinja2

    getfile = inspect.getfile

    def no_file(thing: Any) -> str:
        if str(getattr(thing, "__module__", "")).startswith("gradio."):
            raise OSError("no editor stubs")
        return getfile(thing)

    pandas = sys.modules.setdefault("pandas", LazyModule("pandas"))
    with (
        replaced(httpx._utils, "getproxies", dict),
        replaced(inspect, "getfile", no_file),
        replaced(jinja2, "Template", cache(jinja2.Template)),
        replaced(ssl, "create_default_context", cache(ssl.create_default_context)),
    ):
        import gradio.component_meta
    if isinstance(pandas, LazyModule):
        del sys.modules["pandas"]
    gradio.component_meta.create_or_modify_pyi = lambda *_: None  # for components that are defined later


# The page before it is served


@contextmanager
def without_application() -> Iterator[None]:
    """Make a page or its queue without a web application and without a description of the page.

    gradio makes an application with all its routes in `Blocks()`, at the end of its `with` and in every `queue(…)`, and throws
    them away: the one that serves the page is made when it is mounted. It also describes the page at the end of the `with`.
    Holds for the whole process, so not while another thread mounts a page. Not reported.
    """
    from gradio.blocks import App, Blocks

    with replaced(App, "create_app", lambda *_, **__: None), replaced(Blocks, "get_config_file", lambda _: {}):
        yield


@contextmanager
def described_once(demo: gr.Blocks) -> Iterator[None]:
    """Mount a page, and describe it once, at the end.

    gradio describes it before the theme is set and again while its application is made. Holds for the whole process, as
    `without_application` does. Not reported.
    """
    from gradio.blocks import Blocks

    with replaced(Blocks, "get_config_file", lambda _: {}):
        yield
    demo.config = demo.get_config_file()


# The page while it is served


def patch(demo: gr.Blocks, limits: Limits) -> None:
    """Apply all patches that follow to a page that has been mounted; `TolerantCancel` is added by whoever mounts it."""
    take_turns(demo, limits)
    cancel_only_begun_jobs()
    forget_values()
    forget_sessions(demo)
    describe_nothing_for_a_session(demo)
    check_the_queue_less_often(demo)
    count_no_events(demo)
    log_failures()
    take_one_file()
    mark_as_running(demo)


def take_turns(demo: gr.Blocks, limits: Limits) -> None:
    """Bound the queue of each kind of job, and let turns in it go round the visitors.

    gradio has one bound for the jobs of all kinds, so those that wait for a model keep out all others, and starts them in the
    order of asking, so that one visitor who asks for much is served alone. Here a kind, a concurrency_id, has `limits.waiting`
    places, and one visitor runs `limits.running` jobs of it at a time. Pictures are decoded while their job waits. A job whose
    picture, or whose values by its function's `check`, are refused begins at once, however many wait: it only has to say so.
    While a job runs, `visitor.current` is whose it is. Not reported.
    """
    from anyio.to_thread import run_sync

    from genlab.serving.picture_input import decode, decode_unless_large, uploads

    queue: Any = demo._queue
    queue.max_size = None
    kinds: defaultdict[str, Turns] = defaultdict(lambda: Turns(limits.running))
    large_pictures = FairLock()
    push, process, send = queue.push, queue.process_events, queue.send_message

    def visitor_of(event: Any) -> str:
        return event.request.scope.get("visitor", "")

    async def push_within_kind(body: Any, request: Any, username: Any) -> Any:
        fn = demo.fns[body.fn_index]
        line = queue.event_queue_per_concurrency_id.get(fn.concurrency_id)
        if line is not None and len(line.queue) >= limits.waiting:
            return False, "Queue is full.", "queue_full"
        pushed = await push(body, request, username)
        if pushed[0]:
            event = queue.event_ids_to_events[pushed[1]]
            event.refused, pictures = refuses(fn, body.data), uploads(fn.inputs, body.data)
            event.decoding = asyncio.create_task(decode_waiting(event, pictures)) if pictures else None
        return pushed

    async def decode_waiting(event: Any, pictures: Sequence[str]) -> None:
        """Decode the pictures of a job that waits, large ones in its visitor's turn."""
        line = queue.event_queue_per_concurrency_id[event.concurrency_id].queue
        try:
            for path in pictures:
                if not await run_sync(decode_unless_large, path):
                    async with large_pictures.held(visitor_of(event)):
                        if event in line:  # else it was cancelled
                            await run_sync(decode, path)
        except Exception:
            event.refused = True
        finally:
            event.decoding = None

    def next_events() -> tuple[list[Any], bool, str] | None:
        for kind, line in random.sample(
            list(queue.event_queue_per_concurrency_id.items()), k=len(queue.event_queue_per_concurrency_id)
        ):
            ready = [event for event in line.queue if getattr(event, "decoding", None) is None]
            event = next((event for event in ready if getattr(event, "refused", False)), None)
            if event is None and ready and line.concurrency_limit is None:
                event = ready[0]
            elif event is None and ready and line.current_concurrency < line.concurrency_limit:
                jobs = [job for jobs in queue.active_jobs for job in jobs or () if job.concurrency_id == kind]
                index = kinds[kind].choose([visitor_of(job) for job in ready], [visitor_of(job) for job in jobs])
                event = None if index is None else ready[index]
            if event is not None:
                line.queue.remove(event)
                return [event], False, kind
        return None

    def send_and_note(event: Any, message: Any) -> None:
        if message.msg == "process_completed":
            event.outcome = "done" if message.success else "error"
        send(event, message)

    async def process_for_visitor(events: Any, *others: Any) -> None:
        event, started = events[0], time.monotonic()
        visitor.current.set(visitor_of(event))
        try:
            await process(events, *others)
        finally:
            waited, endpoint = started - event.enqueue_time, event.fn.api_name or event.fn.name
            outcome = getattr(event, "outcome", "ended")
            log_job(event._id, visitor_of(event), endpoint, waited, time.monotonic() - started, outcome)

    queue.send_message = send_and_note
    queue.push, queue.get_events, queue.process_events = push_within_kind, next_events, process_for_visitor


def refuses(fn: Any, values: Sequence[Any]) -> bool:
    """Return whether a function's `check` (see `checked_by`) finds something wrong with values that hold no file."""
    check = getattr(fn.fn, "check", None)
    if check is None or any(isinstance(value, dict) for value in values):
        return False
    try:
        check(*values)
    except Exception:
        return True
    return False


def checked_by(check: Callable[..., Any]) -> Callable[[F], F]:
    """Mark a function of the page: what `check` raises for its values can be said before its turn comes."""

    def mark(function: F) -> F:
        function.check = check  # type: ignore[attr-defined]
        return function

    return mark


def cancel_only_begun_jobs() -> None:
    """Let gradio cancel a job only once its task has begun.

    A task that is cancelled before its first line never reaches the `finally` that returns its place in the queue: from then on
    no other job with its concurrency_id runs. Not reported; gradio issue 13323 is about jobs that still wait in the queue.
    """
    import gradio.routes
    from gradio.utils import cancel_tasks

    async def cancel_begun(task_ids: set[str]) -> list[str]:
        while any(
            "<gradio-sep>" in task.get_name() and inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED  # type: ignore[arg-type]
            for task in asyncio.all_tasks()
        ):
            await asyncio.sleep(0)
        return await cancel_tasks(task_ids)

    gradio.routes.cancel_tasks = cancel_begun


def forget_values() -> None:
    """Keep no copy of the values of every call in the session's state.

    gradio keeps them as long as the session, for links that restore a page (`gr.DeepLinkButton`). Not reported; gradio issue
    11201 is about such copies shown to another visitor.
    """
    from gradio.state_holder import SessionState

    def forget(session: SessionState, key: int, value: Any) -> None:
        """Do nothing, in the place of storing a value."""

    SessionState._update_value_in_config = forget  # type: ignore[assignment, method-assign]


def forget_sessions(demo: gr.Blocks) -> None:
    """Forget, whenever a job is queued, the sessions whose results have all been fetched.

    gradio has a set of results to fetch for every session, and keeps the empty ones as long as it runs. Not reported.
    """
    queue: Any = demo._queue
    push = queue.push

    async def push_and_forget(body: Any, request: Any, username: Any) -> Any:
        for session in [session for session, unread in queue.pending_event_ids_session.items() if not unread]:
            del queue.pending_event_ids_session[session]
        return await push(body, request, username)

    queue.push = push_and_forget


def describe_nothing_for_a_session(demo: gr.Blocks) -> None:
    """Describe no component when a session begins.

    gradio describes the whole page for every new session, for the same links: a tenth of a second in which nobody else is
    served. Not reported.
    """
    demo.state_holder.blocks = SimpleNamespace(default_config=demo.default_config, blocks={})  # type: ignore[assignment]


def check_the_queue_less_often(demo: gr.Blocks) -> None:
    """Check the queue every `POLL_SECONDS` and not every millisecond, day and night. Not reported."""
    demo._queue.sleep_when_free = POLL_SECONDS


def count_no_events(demo: gr.Blocks) -> None:
    """Compute no statistics of calls.

    After every call gradio summarises the last 10,000 with pandas, for a monitoring page that is not served here. Not reported.
    """
    demo._queue.ANALYTICS_MAX_EVENTS = 1
    demo._queue.ANAYLTICS_CACHE_FREQUENCY = 10**9


def log_failures() -> None:
    """Log the error of a job where gradio prints it, so that `operations.Rarely` can keep a visitor from filling the log. Not
    reported.
    """
    import gradio.queueing

    gradio.queueing.traceback = SimpleNamespace(print_exc=lambda: log.exception("a job failed"))  # type: ignore[assignment]


def take_one_file() -> None:
    """Take one file in an upload, and nothing else: gradio takes a thousand, and answers 500 to a part that is none. Not
    reported.
    """
    from gradio.route_utils import GradioMultiPartParser

    for name, most in (("max_files", 1), ("max_fields", 0)):  # attributes that the upload sets to 1000
        setattr(GradioMultiPartParser, name, property(lambda _, most=most: most, lambda *_: None))  # type: ignore[misc]


def mark_as_running(demo: gr.Blocks) -> None:
    """Mark a mounted page as running, as `launch` does and `mount_gradio_app` does not.

    Otherwise gradio takes files from any folder (`processing_utils._check_allowed`), serves every SVG file that it meets, and
    sends no heartbeat on a stream of results. Not reported.
    """
    demo.has_launched = demo.is_running = True


class TolerantCancel:
    """ASGI middleware that answers the cancellation of a job that ends in the same moment with success.

    gradio raises KeyError for it, after a reply with 500. Its issue 11497 has the same error from cancelling twice.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/gradio_api/cancel":
            await self.app(scope, receive, send)
            return
        from starlette.responses import JSONResponse

        failed = False

        async def send_success(message: Message) -> None:
            nonlocal failed
            failed = failed or message.get("status") == 500
            if not failed:
                await send(message)

        try:
            await self.app(scope, receive, send_success)
        except KeyError:
            await JSONResponse({"success": True})(scope, receive, send)
