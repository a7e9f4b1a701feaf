"""Which models are served, under which names, and what becomes of those that cannot be loaded."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import pytest

from genlab.demo.served import LoadError
from genlab.serving.language import choose
from tests import tiny

DDPM_ID = "ddpm-fashion-mnist"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tiny.save_models(tmp_path_factory.mktemp("models"))


def test_models_are_known_by_the_names_of_their_folders(folders):
    models = tiny.load_models(folders)
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
    assert list(tiny.load_models([folders[0], folders[0]])) == [DDPM_ID, f"{DDPM_ID}-2"]


def test_a_run_and_one_that_ships_are_found_and_called_by_their_names(folders, tmp_path, monkeypatch):
    copytree(folders[0], tmp_path / "runs" / "mine" / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("genlab.package.PRETRAINED", Path(folders[0]).parent)
    models = tiny.load_models(["runs/mine", DDPM_ID])
    assert not models.problems
    assert list(models) == ["mine", DDPM_ID]


def test_a_model_that_cannot_be_loaded_is_a_problem_and_the_others_are_served(folders, tmp_path):
    models = tiny.load_models([folders[0], str(tmp_path)])
    assert list(models) == [DDPM_ID]
    assert len(models.problems) == 1
    assert "could not be loaded" in models.problems[0]


def test_where_none_can_be_loaded_those_that_ship_are_served_and_the_page_says_so(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("genlab.package.PRETRAINED", Path(folders[0]).parent)
    models = tiny.load_models([str(tmp_path)])
    assert len(models) == 4
    assert {choose(m.origin) for m in models.values()} == {"ships with genlab"}
    assert "ship with genlab" in models.problems[-1]
    assert tiny.load_models().problems == ()


def test_without_any_model_nothing_is_served(tmp_path, monkeypatch):
    monkeypatch.setattr("genlab.package.PRETRAINED", tmp_path)
    with pytest.raises(LoadError, match="no model to serve"):
        tiny.load_models([str(tmp_path)])
