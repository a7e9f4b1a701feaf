"""Every patch of gradio: what it does, and that the gradio of requirements.txt still needs it.

A test named `…_still_…` checks the unpatched gradio: when it fails after an upgrade, its patch can go.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace as changed
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import gradio.routes
import gradio.utils
import httpx
import pytest
from fastapi import FastAPI
from gradio.state_holder import SessionState
from gradio_client import Client

from genlab.serving import gradio_patches, server
from genlab.serving.gradio_patches import POLL_SECONDS, TolerantCancel, replaced
from tests import tiny
from tests.small_page import CANARY, FREE, Meter, page
from tests.tiny import last_event

ROOT = Path(__file__).resolve().parents[1]


def test_gradio_is_pinned_to_the_version_that_is_patched_and_that_a_space_installs() -> None:
    (pinned,) = re.findall(r"^gradio==([\d.]+)\b", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    (space,) = re.findall(r"^sdk_version: ([\d.]+)$", (ROOT / "Space.md").read_text(), re.MULTILINE)
    assert pinned == space == version("gradio")


def test_a_replaced_attribute_comes_back() -> None:
    thing = SimpleNamespace(value=1)
    with suppress(RuntimeError), replaced(thing, "value", 2):
        assert thing.value == 2
        raise RuntimeError
    assert thing.value == 1


# The import of gradio: each in an interpreter of its own


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PATCHED = "from genlab.serving.gradio_patches import import_gradio; import_gradio()\n"
UNPATCHED = "import gradio\n"
COUNT = """
import ast, inspect, ssl, sys
from collections import Counter
import jinja2
stubs, compiled, read = [], Counter(), []
getfile, segment, compile = inspect.getfile, ast.get_source_segment, jinja2.Environment.compile
create = ssl.create_default_context
ast.get_source_segment = lambda *a, **k: stubs.append(a) or segment(*a, **k)
jinja2.Environment.compile = lambda self, source, *a, **k: compiled.update([source]) or compile(self, source, *a, **k)
ssl.create_default_context = counted = lambda *a, **k: read.append(a) or create(*a, **k)
"""
"""Counts parsed components, compilations of each template and readings of the certificates."""
COUNTED = """
print(len(stubs) > 0, "pandas" in sys.modules, max(compiled.values()) > 1, len(read) > 1)
"""


def test_importing_gradio_still_parses_components_loads_pandas_and_repeats_templates_and_certificates() -> None:
    assert run(COUNT + UNPATCHED + COUNTED) == "True True True True"


def test_importing_gradio_patched_does_none_of_it_and_leaves_nothing_replaced() -> None:
    code = """
import gradio as gr
from genlab.demo.components.player import Player
with gr.Blocks(analytics_enabled=False) as page:
    Player(label="frames")
    gr.Button().click(lambda: 1, None, gr.Number())
print(len(compiled) > 20, len(page.fns), "value of the Textbox changes" in gr.Textbox.change.__doc__)
print(inspect.getfile is getfile, ssl.create_default_context is counted, type(jinja2.Template) is type)
"""
    assert run(COUNT + PATCHED + code + COUNTED).splitlines() == [
        "True 1 True",
        "True True True",
        "False False False False",
    ]


def test_gradio_still_fails_where_all_connections_go_through_a_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is served there; what asks the Hub still goes through the proxy."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(AssertionError, match="socksio"):
        run("import gradio")
    assert run(PATCHED + "import gradio, httpx\nprint(httpx._utils.getproxies()['all'])") == "socks5://127.0.0.1:1"


def test_pandas_is_there_when_gradio_asks_for_it() -> None:
    code = """
import gradio as gr, gradio.caching, pandas
print(gradio.caching.pd.DataFrame is pandas.DataFrame, hasattr(gradio.caching.pd, "__path__"))
print(gr.Dataframe(pandas.DataFrame({"a": [1]})).value["data"])
"""
    assert run(PATCHED + code) == "True False\n[[1]]"


def test_the_folder_of_a_process_that_was_killed_goes_at_the_next_start(tmp_path: Path) -> None:
    """Those of processes that run stay, and so does what another program has put beside them."""
    code = "import os; from genlab.serving.gradio_patches import use_own_folder; use_own_folder(); "
    code += "print(os.environ['GRADIO_TEMP_DIR'], flush=True)"
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    (tmp_path / "genlab-other").mkdir()
    with ExitStack() as programs:
        running, killed = (
            programs.enter_context(
                subprocess.Popen([sys.executable, "-c", f"{code}; input()"], stdin=-1, stdout=-1, env=environment, text=True)
            )
            for _ in range(2)
        )
        folders = [Path(program.stdout.readline().strip()) for program in (running, killed)]  # type: ignore[union-attr]
        killed.kill()
        killed.wait()
        assert all(folder.is_dir() for folder in folders)
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)
        assert set(tmp_path.iterdir()) == {folders[0], Path(f"{folders[0]}.lock"), tmp_path / "genlab-other"}


# The page before it is served


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[object]:
    """Return a list that gets an entry for every call of a method."""
    calls: list[object] = []
    method = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *a, **k: (calls.append(a), method(*a, **k))[1])
    return calls


def test_gradio_still_makes_applications_and_descriptions_of_a_page_that_is_only_built(monkeypatch: pytest.MonkeyPatch) -> None:
    applications = counted(monkeypatch, gradio.routes.App, "create_app")
    descriptions = counted(monkeypatch, gr.Blocks, "get_config_file")
    page(Meter()).queue()
    assert len(applications) > 1
    assert descriptions
    applications.clear()
    descriptions.clear()
    with gradio_patches.without_application():
        page(Meter()).queue()
    assert applications == descriptions == []


def test_gradio_still_describes_a_page_more_than_once_while_it_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = page(Meter())
    descriptions = counted(monkeypatch, gr.Blocks, "get_config_file")
    gr.mount_gradio_app(FastAPI(), demo, path="/")
    assert len(descriptions) > 1
    descriptions.clear()
    with gradio_patches.described_once(demo):
        gr.mount_gradio_app(FastAPI(), demo, path="/")
    assert len(descriptions) == 1
    assert len(demo.config["components"]) == len(demo.blocks)


# The page while it is served


def mounted(demo: gr.Blocks) -> gr.Blocks:
    """Return a page as gradio itself mounts it."""
    gr.mount_gradio_app(FastAPI(), demo, path="/")
    return demo


def lost_places(cancel: Callable[[set[str]], Any]) -> int:
    """Return how many places of a page's queue stay occupied by a job that is cancelled before its task begins."""
    demo = mounted(page(Meter()))
    queue = demo._queue

    async def start_and_cancel() -> int:
        queue.start()
        fn = next(fn for fn in demo.fns.values() if fn.api_name == "echo")
        body = gradio.routes.PredictBodyInternal(data=["x"], fn_index=fn._id, session_hash="s", request=None)
        await queue.push(body=body, request=None, username=None)  # type: ignore[arg-type]
        waiting = queue.event_queue_per_concurrency_id[fn.concurrency_id]
        while not waiting.current_concurrency:
            await asyncio.sleep(0)
        (task,) = [task for task in asyncio.all_tasks() if "<gradio-sep>" in task.get_name()]
        assert not task.done()
        await cancel({f"s_{fn._id}"})
        lost = waiting.current_concurrency
        queue.close()
        return lost

    return asyncio.run(start_and_cancel())


def test_gradio_still_loses_the_place_of_a_job_that_is_cancelled_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lost_places(gradio.utils.cancel_tasks) == 1
    monkeypatch.setattr(gradio.routes, "cancel_tasks", gradio.utils.cancel_tasks)
    gradio_patches.cancel_only_begun_jobs()
    assert lost_places(lambda ids: gradio.routes.cancel_tasks(ids)) == 0


def first_jobs(patched: bool) -> list[tuple[str, str]]:
    """Return visitor and function of the first two jobs to run, of two of "a" and one of "b" for one function, and one for
    another; the queue of a kind has two places, or all have three together.
    """
    demo = mounted(page(Meter()))
    queue = demo._queue
    queue.max_size = 3
    if patched:
        gradio_patches.take_turns(demo, changed(FREE, running=1, waiting=3))

    async def ask() -> list[tuple[str, str]]:
        indices = {fn.api_name: fn._id for fn in demo.fns.values()}
        for visitor, name in (("a", "echo"), ("a", "echo"), ("b", "echo"), ("b", "size")):
            body = gradio.routes.PredictBodyInternal(data=["x"], fn_index=indices[name], session_hash="s", request=None)
            await queue.push(body, SimpleNamespace(scope={"visitor": visitor}), None)  # type: ignore[arg-type]
        queue.active_jobs = []
        while found := queue.get_events():
            queue.active_jobs.append(found[0])
        return [(event.request.scope["visitor"], event.fn.api_name) for job in queue.active_jobs for event in job or ()]

    return asyncio.run(ask())


def test_gradio_still_starts_jobs_in_the_order_of_asking_and_bounds_all_kinds_together() -> None:
    assert first_jobs(patched=False) == [("a", "echo"), ("a", "echo"), ("b", "echo")]
    assert sorted(first_jobs(patched=True)) == [("a", "echo"), ("b", "echo"), ("b", "size")]


def session_after_a_call(patch: str) -> str:
    """Return whether the session contains the value of a call, and of how many components it has a description before it."""
    return run(f"""
import asyncio, gradio as gr
from fastapi import FastAPI
from genlab.serving import gradio_patches
with gr.Blocks(analytics_enabled=False) as demo:
    text = gr.Textbox()
    text.change(lambda value: value, text, text)
gr.mount_gradio_app(FastAPI(), demo, path="/")
{patch}
session = demo.state_holder["visitor"]
described = len(session.config_values)
asyncio.run(demo.process_api(demo.fns[0], ["{CANARY}"], state=session))
print("{CANARY}" in repr(session.config_values), described)
""")


def test_gradio_still_stores_the_values_of_calls_in_the_session() -> None:
    assert session_after_a_call("").startswith("True")
    assert session_after_a_call("gradio_patches.forget_values()").startswith("False")


def test_a_served_page_stores_no_value_of_a_call(site: SimpleNamespace) -> None:
    body = {"data": [CANARY], "session_hash": "visitor"}
    joined = site.client.post("/gradio_api/call/echo", json=body).json()["event_id"]
    assert last_event(site.client, f"/gradio_api/call/echo/{joined}") == ("complete", [CANARY])
    assert CANARY not in repr(site.demo.state_holder.session_data["visitor"].config_values)


@pytest.mark.parametrize(("patched", "remembered"), [(False, 3), (True, 1)])
def test_gradio_still_remembers_every_session(monkeypatch: pytest.MonkeyPatch, patched: bool, remembered: int) -> None:
    if not patched:
        monkeypatch.setattr(gradio_patches, "forget_sessions", lambda _: None)
    with gr.Blocks() as demo:
        gr.Button().click(lambda: "hello", None, gr.Textbox(), api_name="greet")
    with tiny.served(demo) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for _ in range(3):
            assert tiny.called(client, "greet", {}) == ("complete", ["hello"])
        assert len(demo._queue.pending_event_ids_session) == remembered


def test_gradio_still_describes_the_page_for_every_session() -> None:
    assert int(session_after_a_call("").split()[1]) > 0
    assert session_after_a_call("gradio_patches.describe_nothing_for_a_session(demo)").split()[1] == "0"


def test_on_a_served_page_a_session_describes_only_what_its_calls_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks() as demo:
        name, greeting = gr.Textbox("you"), gr.Textbox()
        name.submit(lambda who: f"hello {who}", name, greeting, api_name="greet")
    described: list[int] = []
    config = type(demo.default_config)
    describe = config.config_for_block
    with tiny.served(demo) as url:
        client = Client(url, token=False, verbose=False)
        watched = staticmethod(lambda number, *more: (described.append(number), describe(number, *more))[1])
        monkeypatch.setattr(config, "config_for_block", watched)
        assert client.predict("me", api_name="/greet") == "hello me"
    assert set(described) <= {name._id, greeting._id}


def test_gradio_still_checks_its_queue_more_often() -> None:
    demo = mounted(page(Meter()))
    assert 0 < demo._queue.sleep_when_free < POLL_SECONDS
    gradio_patches.check_the_queue_less_often(demo)
    assert demo._queue.sleep_when_free == POLL_SECONDS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # gradio's use of pandas
def test_gradio_still_summarises_calls_after_each() -> None:
    calls = [{"function": "echo", "status": "success", "process_time": 0.1}]
    demo = mounted(page(Meter()))
    demo._queue.events_recorded = 1
    assert demo._queue.compute_analytics_summary(calls)["functions"]
    demo = mounted(page(Meter()))
    demo._queue.events_recorded = 1
    gradio_patches.count_no_events(demo)
    assert demo._queue.compute_analytics_summary(calls) == {"functions": {}}


def test_a_served_page_keeps_no_statistics_of_calls() -> None:
    with gr.Blocks() as demo:
        name, greeting = gr.Textbox("you"), gr.Textbox()
        name.submit(lambda who: f"hello {who}", name, greeting, api_name="greet")
    with tiny.served(demo) as url:
        client = Client(url, token=False, verbose=False)
        for who in "abc":
            assert client.predict(who, api_name="/greet") == f"hello {who}"
    assert demo._queue.cached_event_analytics_summary == {"functions": {}}
    assert len(demo._queue.event_analytics) == 1


def test_gradio_still_takes_a_thousand_files_in_an_upload() -> None:
    code = """
from gradio.route_utils import GradioMultiPartParser as Parser
print(Parser({}, None, max_files=1000, max_fields=1000, max_file_size=1).max_files)
"""
    assert run(code) == "1000"
    patch = "from genlab.serving import gradio_patches; gradio_patches.take_one_file()"
    assert run(PATCHED + patch + code) == "1"


def test_gradio_still_does_not_mark_a_mounted_page_as_running() -> None:
    demo = mounted(page(Meter()))
    assert not demo.has_launched
    assert not demo.is_running
    gradio_patches.mark_as_running(demo)
    assert demo.has_launched
    assert demo.is_running


def cancelled_at_the_end(tolerant: bool) -> httpx.Response:
    """Cancel a job that ends while gradio closes its iterator."""
    app = FastAPI()
    gr.mount_gradio_app(app, page(Meter()), path="/")
    iterators = app.routes[-1].app.iterators  # type: ignore[attr-defined]

    class Ending:
        async def aclose(self) -> None:
            del iterators["job"]

    iterators["job"] = Ending()

    async def cancel() -> httpx.Response:
        transport = httpx.ASGITransport(TolerantCancel(app) if tolerant else app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = {"session_hash": "s", "fn_index": 0, "event_id": "job"}
            return await client.post("/gradio_api/cancel", json=body)

    return asyncio.run(cancel())


def test_gradio_still_fails_to_cancel_a_job_that_ends_in_that_moment() -> None:
    with pytest.raises(KeyError, match="job"):
        cancelled_at_the_end(tolerant=False)
    reply = cancelled_at_the_end(tolerant=True)
    assert (reply.status_code, reply.json()) == (200, {"success": True})


@pytest.mark.parametrize(("path", "error"), [("cancel", OSError), ("reset", KeyError)])
def test_other_failures_are_not_taken_for_success(path: str, error: type[Exception]) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        raise error

    async def post() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(TolerantCancel(failing)), base_url="http://test") as client:
            await client.post(f"/gradio_api/{path}")

    with pytest.raises(error):
        asyncio.run(post())


def test_a_served_page_has_all_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradio.routes, "cancel_tasks", gradio.utils.cancel_tasks)
    monkeypatch.setattr(SessionState, "_update_value_in_config", None)
    demo = page(Meter())
    app = server.build(demo, ready=lambda: True, limits=FREE)
    assert gradio.routes.cancel_tasks is not gradio.utils.cancel_tasks
    assert SessionState._update_value_in_config
    assert not demo.state_holder["visitor"].config_values
    assert demo._queue.ANALYTICS_MAX_EVENTS == 1
    assert demo._queue.sleep_when_free == POLL_SECONDS
    assert demo.is_running
    assert any(each.cls is TolerantCancel for each in app.user_middleware)
