"""Which models are served, under which names, and what becomes of those that cannot be loaded."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import pytest
import torch

from genlab.config import DataSpec, VAEConfig
from genlab.data import Dataset
from genlab.demo.app import served_line
from genlab.demo.served import LoadError
from genlab.package import write_package
from genlab.serving.language import choose
from genlab.vae import VAE
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
    assert {choose(m.origin) for m in models.values()} == {"part of genlab"}
    assert "ship with genlab" in models.problems[-1]
    assert tiny.load_models().problems == ()


def test_many_models_of_one_origin_are_counted_above_the_tabs(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(served_line(tiny.load_models(folders[:1]))).startswith(f"Served here: `{DDPM_ID}` (")
    monkeypatch.setattr("genlab.package.PRETRAINED", Path(folders[0]).parent)
    line = served_line(tiny.load_models())
    assert choose(line) == "Served here: 4 models (part of genlab)."
    assert choose(line, "zh") == "当前模型：4 个模型（genlab 自带）。"


def test_without_any_model_nothing_is_served(tmp_path, monkeypatch):
    monkeypatch.setattr("genlab.package.PRETRAINED", tmp_path)
    with pytest.raises(LoadError, match="no model to serve"):
        tiny.load_models([str(tmp_path)])


def test_data_sets_of_one_name_are_those_of_the_same_pictures_alone(tmp_path):
    """A 28-pixel DDPM and a 48-pixel VAE of one folder, two folders of one name: nobody gets the pictures of another."""

    def small_vae(spec):
        return VAE(VAEConfig(latent=2, width=8, hidden=8), spec)

    sources = []
    for i, (make, size, sha256) in enumerate(
        ((tiny.ddpm, 28, "a"), (small_vae, 48, "a"), (small_vae, 28, "b"), (small_vae, 28, "a"), (small_vae, 28, None))
    ):
        spec = DataSpec("pictures", 1, size, ("x", "y"))
        examples = Dataset(spec, torch.full((2, 1, size, size), i, dtype=torch.uint8), torch.tensor([0, 1]), "tests")
        recorded = {} if sha256 is None else {"training": {"data_sha256": sha256}}
        write_package(tmp_path / str(i), make(spec), recorded, examples)
        sources.append(str(tmp_path / str(i)))
    models = tiny.load_models(sources)
    assert [model.data.name for model in models.values()] == ["pictures", "pictures-2", "pictures-3", "pictures", "pictures-4"]
    assert [int(models.examples(m.data.name).examples[0, 0, 0, 0]) for m in models.values()] == [0, 1, 2, 0, 4]
    assert models.of_data("pictures", "vae").id == "3"
    tiny.create_app(models, tiny.Runner())
