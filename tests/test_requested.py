"""The models that are asked for, with a Hub that is there, is not, comes back, and moves on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Fault, Hub, Token, connect, running
from safetensors.torch import load_file, save_file
from test_hub import publish, write_model

from genlab import hub
from genlab.demo import requested
from genlab.demo.requested import Requested
from genlab.demo.served import Models
from genlab.serving.language import choose
from tests import tiny


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub, and models that ship; nobody waits."""
    tiny.save_models(tmp_path / "ship")
    monkeypatch.setattr("genlab.package.PRETRAINED", tmp_path / "ship")
    for name in ("FOLLOW_SECONDS", "RETRY_SECONDS", "TOO_MANY_SECONDS"):
        monkeypatch.setattr(requested, name, 0.02)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with running(Hub({"hf_mine": Token("me")})) as server:
        connect(monkeypatch, server, tmp_path / "home")
        yield server


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def damaged(folder: Path) -> Path:
    """The model of another folder, not finite."""
    write_model(folder, seed=1)
    tensors = load_file(folder / "model.safetensors")
    tensors["unet.enter.bias"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def follow() -> Iterator[Callable[[Requested], queue.Queue[Models]]]:
    """Follows requested models until the test ends; what is shown."""
    followed: list[Requested] = []

    def follow(wanted: Requested) -> queue.Queue[Models]:
        shown: queue.Queue[Models] = queue.Queue()
        wanted.follow(shown.put)
        followed.append(wanted)
        return shown

    yield follow
    for wanted in followed:
        wanted.end()
    for thread in threading.enumerate():
        if thread.name.startswith("follow"):
            thread.join(60)


def revisions(models: Models) -> list[Any]:
    return [facts["revision"] for facts in models.describe()]


def until(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_while_the_hub_is_down_those_that_ship_serve_and_it_is_asked_again(server, follow, model):
    """With an empty cache: not ready, for a reason; both recover without a restart."""
    commit = publish(server, "me/model", model).branches["main"]
    server.faults.append(Fault("", 503))
    wanted = Requested(["me/model"])
    assert [served.origin for served in wanted.models().values()] == [requested.TEXT["ships"]] * 4
    assert "me/model is being loaded from the Hub" in str(wanted.ready())
    assert server.requests == []
    shown = follow(wanted)
    assert "answered with error 503" in choose(shown.get(timeout=60).problems[0])
    assert "me/model could not be loaded: the Hub at" in str(wanted.ready())
    server.faults.clear()
    models = shown.get(timeout=60)
    assert revisions(models) == [commit]
    assert models["model"].origin == f"me/model @ {commit}"
    assert models["model"].since
    assert (models.problems, wanted.ready()) == ((), True)


def test_with_the_last_version_in_the_cache_nothing_is_waited_for(server, follow, model):
    commit = publish(server, "me/model", model).branches["main"]
    hub.read("me/model")
    server.requests.clear()
    server.faults.append(Fault("", "hang"))
    for name in ("me/model", f"me/model@{commit}"):
        wanted = Requested([name])
        assert revisions(wanted.models()) == [commit]
        assert wanted.ready() is True
    assert server.requests == []
    shown = follow(wanted)
    assert shown.empty()
    assert server.requests == []  # a pinned commit is never asked for


def test_main_moves_and_the_new_version_serves_in_the_place_of_the_old(server, follow, model, tmp_path):
    publish(server, "me/model", model)
    hub.read("me/model")
    shown = follow(Requested(["me/model"]))
    second = publish(server, "me/model", write_model(tmp_path / "second", seed=1)).branches["main"]
    assert revisions(shown.get(timeout=60)) == [second]
    server.faults.append(Fault("", 500))
    assert revisions(Requested(["me/model"]).models()) == [second]


@pytest.mark.parametrize("token", [None, "hf_reader"])
def test_nothing_that_serves_could_write(server, follow, model, tmp_path, monkeypatch, token):
    server.tokens["hf_reader"] = Token("you", "read")
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN", raising=False)
    publish(server, "me/model", model)
    shown = follow(Requested(["me/model"]))
    shown.get(timeout=60)
    second = publish(server, "me/model", write_model(tmp_path / "second", seed=1)).branches["main"]
    assert revisions(shown.get(timeout=60)) == [second]
    assert {request.method for request in server.requests} == {"GET", "HEAD"}


@pytest.mark.parametrize("stage", ["weights", "samples"])
def test_a_commit_that_does_not_load_is_left_alone_until_main_moves_on(server, follow, model, tmp_path, monkeypatch, stage):
    repo = publish(server, "me/model", model)
    first = repo.branches["main"]
    hub.read("me/model")
    if stage == "weights":
        publish(server, "me/model", damaged(tmp_path / "second"))
    else:
        scaled = write_model(tmp_path / "second", seed=1)
        tensors = load_file(scaled / "model.safetensors")
        save_file({name: tensor * 1e30 for name, tensor in tensors.items()}, scaled / "model.safetensors")
        publish(server, "me/model", scaled)
    wanted = Requested(["me/model"])
    shown = follow(wanted)
    models = shown.get(timeout=60)
    assert revisions(models) == [first]
    assert "me/model has a newer version on the Hub, which is not served" in choose(models.problems[0])
    assert "finite" in choose(models.problems[0])
    assert wanted.ready() is True
    downloads = sum("/resolve/" in request.path for request in server.requests)
    asked = len(server.requests)
    until(lambda: len(server.requests) > asked + 3)
    assert sum("/resolve/" in request.path for request in server.requests) == downloads
    assert hub.last_good("me/model", "main").revision == first
    third = publish(server, "me/model", write_model(tmp_path / "third", seed=2)).branches["main"]
    models = shown.get(timeout=60)
    assert (revisions(models), models.problems) == ([third], ())


def test_the_hub_dies_between_two_versions(server, follow, model, tmp_path):
    first = publish(server, "me/model", model).branches["main"]
    hub.read("me/model")
    server.faults.append(Fault("GET /storage/", 500))
    shown = follow(Requested(["me/model"]))
    second = publish(server, "me/model", write_model(tmp_path / "second", seed=1)).branches["main"]
    models = shown.get(timeout=60)
    assert revisions(models) == [first]
    assert "answered with error 500" in choose(models.problems[0])
    server.faults.clear()
    until(lambda: revisions(models := shown.get(timeout=60)) == [second] and models.problems == ())


def test_after_too_many_requests_the_next_one_waits(server, follow, model, monkeypatch):
    monkeypatch.setattr(requested, "TOO_MANY_SECONDS", 60.0)
    publish(server, "me/model", model)
    server.faults.append(Fault("", 429))
    source = requested.Source("me/model")
    source.load_at_once()
    assert source.attempt() == 60.0
    assert "asks for patience" in choose(source.problem)


def test_a_model_that_is_late_keeps_no_other_from_being_shown(server, follow, model, monkeypatch):
    monkeypatch.setattr(requested, "FIRST_SECONDS", 0.0)
    publish(server, "me/model", model)
    server.faults.append(Fault("/api/models/me/late", "hang"))
    shown = follow(Requested(["me/late", "me/model"]))
    models = shown.get(timeout=60)
    assert list(models) == ["model"]
    assert "me/late is being loaded" in choose(models.problems[0])
    server.released.set()


def test_two_of_one_name_keep_their_names_whichever_comes_first(server, follow, model):
    commit = publish(server, "me/model", model).branches["main"]
    wanted = Requested(["me/missing@main", "you/missing", f"me/model@{commit}", "me/model"])
    shown = follow(wanted)
    models = shown.get(timeout=60)
    assert list(models) == ["model", "model-2"]
    assert len(models.problems) == 2
