"""What endpoints take, and the jobs that calls of them start."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from genlab.serving.calls import UNREAD_RESULTS, Calls, holds_file
from genlab.serving.language import choose
from genlab.serving.picture_input import REFUSED
from genlab.serving.refusal import Refused
from tests.small_page import MARK, call, index_of, wait_until


def test_picture_values_are_refused_before_they_are_queued(site: SimpleNamespace, picture: bytes) -> None:
    own = site.client.post("/gradio_api/upload", files={"files": ("a.png", picture)}).json()[0]
    outside = site.folder / "outside.png"
    outside.write_bytes(picture)
    inline = "data:image/png;base64,AAAA"
    for value in (
        "x", 5, [], {}, {"path": 5}, {"path": str(outside)}, {"path": str(outside), "meta": MARK}, {"path": inline},
        {"path": "https://example.org/x.png"}, {"path": own, "url": inline, "meta": MARK}, {"path": own, "orig_name": "x.svg"},
    ):  # fmt: skip
        replies = [
            site.client.post("/gradio_api/call/size", json={"data": [value]}),
            site.client.post("/gradio_api/call/v2/size", json={"picture": value}),
            site.client.post(
                "/gradio_api/queue/join", json={"data": [value], "fn_index": index_of(site, "size"), "session_hash": "s"}
            ),
        ]
        for reply in replies:
            assert (reply.status_code, reply.json()["detail"][0]["message"]) == (422, choose(REFUSED)), value
    assert call(site.client, "size", {"path": own, "meta": MARK}) == ("complete", ["(5, 7, 3)"])
    assert call(site.client, "size", None) == ("complete", ["none"])


def test_files_in_other_values_are_refused_before_gradio_fetches_them(site: SimpleNamespace, picture: bytes) -> None:
    own = site.client.post("/gradio_api/upload", files={"files": ("a.png", picture)}).json()[0]
    asked: list[object] = []
    block = next(fn for fn in site.demo.fns.values() if fn.api_name == "echo").inputs[0]
    block.async_move_resource_to_block_cache = asked.append
    try:
        for path in ("http://192.0.2.1/drip", own, "/etc/passwd", 5):
            file = {"path": path, "meta": MARK}
            for value in (file, [file], {"a": [{"b": file}]}):
                replies = [
                    site.client.post("/gradio_api/call/echo", json={"data": [value]}),
                    site.client.post("/gradio_api/call/v2/echo", json={"text": value}),
                    site.client.post(
                        "/gradio_api/queue/join",
                        json={"data": [value], "fn_index": index_of(site, "echo"), "session_hash": "s"},
                    ),
                ]
                assert [reply.status_code for reply in replies] == [422] * 3, value
    finally:
        del block.async_move_resource_to_block_cache
    assert asked == []
    assert not holds_file({"paths": ["x"]})


def test_lists_and_objects_in_the_place_of_a_single_value_are_refused(site: SimpleNamespace) -> None:
    for value, kind in (([], "a list"), (["x"], "a list"), ({}, "an object"), ({"paths": ["x"]}, "an object")):
        bodies = {
            "call/echo": {"data": [value]},
            "call/v2/echo": {"text": value},
            "queue/join": {"data": [value], "fn_index": index_of(site, "echo"), "session_hash": "s"},
            "call/stream": {"data": [3, value]},
        }
        for path, body in bodies.items():
            reply = site.client.post(f"/gradio_api/{path}", json=body)
            name = "pause" if path == "call/stream" else "text"
            message = f"{name}: expected a single value, got {kind}"
            assert (reply.status_code, reply.json()["detail"][0]["message"]) == (422, message)
    assert all(call(site.client, "echo", value)[0] == "complete" for value in ("x", 5, 0.5, True, None))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("call/echo", {"data": []}, 422),
        ("call/echo", {"data": ["x", "y"]}, 422),
        ("call/echo", {"data": ["x"] * 1000}, 422),
        ("call/echo", {"data": {"text": "x"}}, 422),
        ("call/echo", {}, 422),
        ("call/v2/echo", {}, 422),
        ("call/v2/echo", {"text": "x", "other": 1}, 422),
        ("call/v2/unknown", {}, 404),
        ("queue/join", {"data": ["x"], "session_hash": "s"}, 404),
        ("queue/join", {"data": ["x"], "session_hash": "s", "fn_index": 999}, 404),
        ("queue/join", {"data": ["x"], "session_hash": "s", "fn_index": True}, 404),
        ("queue/join", {"data": ["x"], "session_hash": "s", "fn_index": "0"}, 404),
        ("call/echo", {"data": ["x"], "session_hash": "s" * 65}, 422),
        ("call/echo", {"data": ["x"], "session_hash": "../x"}, 422),
    ],
)
def test_wrong_calls(site: SimpleNamespace, path: str, body: dict[str, Any], status: int) -> None:
    assert site.client.post(f"/gradio_api/{path}", json=body).status_code == status


def test_batched_calls_are_refused(site: SimpleNamespace) -> None:
    body = {"data": [["x"]], "fn_index": index_of(site, "echo"), "session_hash": "s", "batched": True}
    assert site.client.post("/gradio_api/queue/join", json=body).status_code == 422


def test_what_is_light_follows_from_the_function_that_is_called(site: SimpleNamespace) -> None:
    """Only what answers once, of which only the newest matters, that decodes no picture, and that has no name for programs."""
    calls = Calls(site.demo)

    def light(name: str, data: list[Any], path: str = "/gradio_api/queue/join") -> bool:
        return calls.check(path, {"data": data, "fn_index": index_of(site, name), "trigger_id": index_of(site, "light")})

    assert light("light", ["x"])
    assert not any(light(name, ["x"]) for name in ("echo", "own", "newest"))
    assert not light("light_stream", [1, 0])
    assert not light("light_size", [None])
    assert not light("stream", [1, 0])


def test_a_session_that_goes_on_keeps_what_it_has(site: SimpleNamespace) -> None:
    """A job that was followed to its end is looked for when the next one of its session has only just been put in."""
    calls = Calls(site.demo)
    body = {"data": ["x"], "fn_index": index_of(site, "echo"), "session_hash": "goes-on"}
    first = site.client.post("/gradio_api/queue/join", json=body).json()["event_id"]
    with site.client.stream("GET", "/gradio_api/queue/data?session_hash=goes-on") as results:
        assert any("process_completed" in line for line in results.iter_lines())
    body |= {"data": [300, 0.01], "fn_index": index_of(site, "stream")}
    second = site.client.post("/gradio_api/queue/join", json=body).json()["event_id"]
    asyncio.run(calls.end_jobs("goes-on", first))
    assert calls.alive(second)
    with site.client.stream("GET", "/gradio_api/queue/data?session_hash=goes-on") as results:
        assert any("step 300" in line for line in results.iter_lines())


def test_jobs_of_the_page_are_counted_until_they_end(site: SimpleNamespace) -> None:
    calls = Calls(site.demo)
    joined = site.client.post("/gradio_api/call/stream", json={"data": [10_000, 0.01]}).json()["event_id"]
    assert calls.alive(joined)
    with site.client.stream("GET", f"/gradio_api/call/stream/{joined}") as reply:
        next(reply.iter_lines())
    wait_until(lambda: not calls.alive(joined))
    assert not calls.alive("unknown")


def test_a_session_whose_results_are_not_read_gets_no_more(site: SimpleNamespace) -> None:
    calls, body = Calls(site.demo), {"data": [1, 0.01], "session_hash": "deaf"}
    calls.check("/gradio_api/call/stream", body)
    waiting: asyncio.Queue[int] = asyncio.Queue()
    site.demo._queue.pending_messages_per_session["deaf"] = waiting
    try:
        for number in range(UNREAD_RESULTS + 1):
            calls.check("/gradio_api/call/stream", body)
            waiting.put_nowait(number)
        with pytest.raises(Refused) as refused:
            calls.check("/gradio_api/call/stream", body)
    finally:
        site.demo._queue.pending_messages_per_session.pop("deaf")
    assert refused.value.status == 429
