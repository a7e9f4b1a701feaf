"""Which models are served, under which names, and what becomes of those that cannot be loaded."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from genlab import hub
from genlab.demo import served
from genlab.demo.served import LoadError, Models, Served
from genlab.serving.language import choose
from tests import tiny

DDPM_ID = "ddpm-fashion-mnist"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tiny.save_models(tmp_path_factory.mktemp("models"))


def test_models_are_known_by_the_names_of_their_folders(folders):
    models = Models.load(folders)
    assert list(models) == ["ddpm-fashion-mnist", "ddpm-mnist", "vae-fashion-mnist", "vae-mnist"]
    facts = models.describe()[0]
    assert (facts["kind"], facts["T"], choose(facts["origin"]), facts["test_pictures"]) == (
        "ddpm",
        tiny.T,
        f"folder {DDPM_ID}",
        tiny.EXAMPLES,
    )
    assert facts["parameters"] == sum(p.numel() for p in models[DDPM_ID].model.parameters())


def test_two_models_of_one_name_get_two_names(folders, tmp_path):
    twin = tmp_path / DDPM_ID
    twin.symlink_to(folders[0])
    (tmp_path / "other").mkdir()
    assert list(Models.load([folders[0], folders[0]])) == [DDPM_ID, f"{DDPM_ID}-2"]


def test_a_run_and_one_that_ships_are_found_and_called_by_their_names(folders, tmp_path, monkeypatch):
    copytree(folders[0], tmp_path / "runs" / "mine" / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("genlab.package.PRETRAINED", Path(folders[0]).parent)
    models = Models.load(["runs/mine", DDPM_ID])
    assert not models.problems
    assert list(models) == ["mine", DDPM_ID]


def test_a_model_that_cannot_be_loaded_is_a_problem_and_the_others_are_served(folders, tmp_path):
    models = Models.load([folders[0], str(tmp_path)])
    assert list(models) == [DDPM_ID]
    assert len(models.problems) == 1
    assert "could not be loaded" in models.problems[0]


def test_where_none_can_be_loaded_those_that_ship_are_served_and_the_page_says_so(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("genlab.package.PRETRAINED", Path(folders[0]).parent)
    models = Models.load([str(tmp_path)])
    assert len(models) == 4
    assert {choose(m.origin) for m in models.values()} == {"ships with genlab"}
    assert "ship with genlab" in models.problems[-1]
    assert Models.load().problems == ()


def test_without_any_model_nothing_is_served(tmp_path, monkeypatch):
    monkeypatch.setattr("genlab.package.PRETRAINED", tmp_path)
    with pytest.raises(LoadError, match="no model to serve"):
        Models.load([str(tmp_path)])


def test_a_hub_id_is_read_at_its_revision(folders, monkeypatch):
    asked = []

    def read(source, revision=None, token=None):
        asked.append((source, revision))
        return replace(hub_read(folders[0]), source=str(source), revision="a" * 40)

    hub_read = hub.read
    monkeypatch.setattr(hub, "read", read)
    models = Models.load(["me/my-model@v1", "me/my-model"])
    assert sorted(asked, key=str) == [("me/my-model", "v1"), ("me/my-model", None)]
    assert [(m.id, m.origin) for m in models.values()] == [
        ("my-model", "me/my-model @ " + "a" * 40),
        ("my-model-2", "me/my-model @ " + "a" * 40),
    ]
    assert isinstance(models["my-model"], Served)


def test_a_hub_that_says_nothing_is_not_waited_for(folders, monkeypatch):
    answered = threading.Event()
    read = hub.read
    monkeypatch.setattr(hub, "read", lambda source, **_: read(source) if Path(source).is_dir() else answered.wait(60))
    monkeypatch.setattr(served, "HUB_SECONDS", 0.05)
    try:
        models = Models.load(["me/stalled", folders[0], "me/too"])
    finally:
        answered.set()
    assert list(models) == [DDPM_ID]
    late = "could not be loaded: the Hub did not deliver it within 0.05 seconds"
    assert [choose(problem) for problem in models.problems] == [f"me/stalled {late}", f"me/too {late}"]


def test_models_on_the_hub_are_asked_for_at_once(folders, monkeypatch):
    both_asked = threading.Barrier(2)
    hub_read = hub.read

    def read(source, revision=None):
        both_asked.wait(30)  # breaks, where one waits for the other
        return replace(hub_read(folders[0]), source=str(source))

    monkeypatch.setattr(hub, "read", read)
    assert list(Models.load(["me/one", "me/two"])) == ["one", "two"]
