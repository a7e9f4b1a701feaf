"""The feature networks: those that ship, what they refuse, and the script that trains them."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from genlab import hub
from genlab.config import DataSpec, Reading
from genlab.data import KNOWN, Dataset, load, to_model
from genlab.features import CLASSIFIERS, Classifier, ClassifierConfig, FeatureError, FeatureNet, classifier_for, save
from training import train_classifier
from training.train_classifier import ClassifierTraining, in_own_units, moved, with_norms, without_norms

ROOT = Path(__file__).resolve().parents[1]
AT_LEAST = {"fashion-mnist": 0.91, "mnist": 0.99}


def training_set(known: str, **changes: Any) -> Dataset:
    """What `data.load` reads of a known data set, but for the pictures: their hash alone; `changes` are of its `DataSpec`."""
    spec = replace(DataSpec(known, 1, 28, KNOWN[known][1]), **changes)
    found = Dataset(spec, torch.empty(0, *spec.shape, dtype=torch.uint8), None, "the tests")
    vars(found)["sha256"] = json.loads((CLASSIFIERS / known / "metrics.json").read_text())["training"]["data_sha256"]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small untrained network as it is stored."""
    torch.manual_seed(0)
    save(tmp_path / "small", FeatureNet(ClassifierConfig(8, 12), DataSpec("small", 3, 8, ("a", "b"))), {"test_accuracy": 0.5})
    return tmp_path / "small"


@pytest.mark.parametrize("name", KNOWN)
def test_one_ships_for_each_known_data_set(name: str):
    found = classifier_for(training_set(name))
    weights = CLASSIFIERS / name / "model.safetensors"
    notes = json.loads((CLASSIFIERS / name / "metrics.json").read_text())
    assert found.facts() == {
        "name": name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "accuracy": notes["test_accuracy"],
        "dims": 64,
    }
    assert found.accuracy >= AT_LEAST[name]
    assert weights.stat().st_size < 300_000
    assert notes["test_images"] == 10_000
    assert notes["command"].startswith("python training/train_classifier.py")


@pytest.mark.parametrize("name", KNOWN)
def test_the_stated_accuracy_is_that_on_held_out_pictures(name: str):
    """256 of them travel with a model; 3 standard errors of a share."""
    found = classifier_for(training_set(name))
    package = hub.read(ROOT / "genlab" / "pretrained" / f"ddpm-{name}")
    assert package.labels is not None
    right = found.classes(found.features(package.examples)).eq(package.labels).double().mean()
    assert abs(float(right) - found.accuracy) < 3 * (found.accuracy * (1 - found.accuracy) / 256) ** 0.5 + 1 / 256


def test_the_recorded_command_is_that_of_the_script(monkeypatch: pytest.MonkeyPatch):
    for name in KNOWN:
        notes = json.loads((CLASSIFIERS / name / "metrics.json").read_text())
        found: list[ClassifierTraining] = []
        monkeypatch.setattr("sys.argv", shlex.split(notes["command"])[1:])
        monkeypatch.setattr(train_classifier, "run", lambda config, found=found: found.append(config) or 0)
        assert train_classifier.main() == 0
        assert found[0].options() == notes["training"]["options"]
        assert (found[0].dataset, found[0].seed) == (name, notes["seed"])


def test_features_are_those_of_the_network_whatever_the_batch(folder: Path, monkeypatch: pytest.MonkeyPatch):
    found = Classifier.load(folder)
    pixels = torch.randint(256, (23, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        whole = found.network(to_model(pixels))
        scores = found.network.head(whole)
    for at_once in (5, 23, 100):
        monkeypatch.setattr("genlab.features.AT_ONCE", at_once)
        features = found.features(pixels)
        assert features.dtype == torch.float32
        torch.testing.assert_close(features, whole)
        assert found.classes(features).tolist() == scores.argmax(dim=1).tolist()
    assert found.features(pixels[:0]).shape == (0, 12)


def test_a_pale_picture_looks_other_than_a_strong_one():
    found = classifier_for(training_set("fashion-mnist"))
    strong = hub.read(ROOT / "genlab" / "pretrained" / "ddpm-fashion-mnist").examples[:32]
    difference = (found.features(strong // 2) - found.features(strong)).norm(dim=1)
    assert bool((difference > 0.1 * found.features(strong).norm(dim=1)).all())


@pytest.mark.parametrize(
    "changes", [{"channels": 3}, {"size": 32}, {"classes": tuple("abcdefghij")}, {"classes": ()}], ids=lambda c: next(iter(c))
)
def test_pictures_without_a_network_are_refused(changes: dict[str, Any]):
    """Where shape or classes are others, the same bytes are other pictures."""
    side, channels = changes.get("size", 28), changes.get("channels", 1)
    words = rf"pictures of mnist \({side}×{side}, {'gray' if channels == 1 else 'RGB'}\)"
    with pytest.raises(FeatureError, match=f"no feature network .* {words}, .*--size {side} --channels {channels} trains one"):
        classifier_for(training_set("mnist", **changes))


def test_a_network_is_found_by_the_pictures_and_not_by_their_name(data_dir: Path):
    assert classifier_for(training_set("mnist", name="digits")).name == "mnist"
    with pytest.raises(FeatureError, match="no feature network was trained on these 40 pictures of mnist"):
        classifier_for(load("mnist", "train", str(data_dir)))


def own_pictures(root: Path, darkest: int) -> Path:
    """A folder called mnist with ten gray pictures in each of two classes."""
    for i in range(20):
        path = root / "mnist" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), darkest + 3 * i).save(path)
    return root / "mnist"


def files_of(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_own_pictures_of_any_name_leave_what_ships_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Two folders called mnist: each has a network of its own, found under any name; none is the one that ships."""
    shutil.copytree(CLASSIFIERS, tmp_path / "shipped")
    monkeypatch.setattr("genlab.features.CLASSIFIERS", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    before, found = files_of(tmp_path / "shipped"), []
    for seed, darkest in enumerate((0, 100)):
        folder = own_pictures(tmp_path / str(seed), darkest)
        with pytest.raises(FeatureError, match="pictures of mnist-folder"):
            classifier_for(load(str(folder), "train", None, 8))
        assert train_classifier.run(ClassifierTraining(dataset=f"./{seed}/mnist", size=8, epochs=1, seed=seed)) == 0
        where = Path(json.loads(capsys.readouterr().out)["folder"])
        assert where.parent == Path("runs")
        assert where.name.startswith("classifier-mnist-folder-")
        renamed = folder.rename(folder.with_name("digits"))
        found.append(classifier_for(load(str(renamed), "train", None, 8)).sha256)
        assert found[-1] == Classifier.load(where).sha256
    assert len(set(found)) == 2
    assert files_of(tmp_path / "shipped") == before


def test_what_ships_is_trained_anew_only_by_its_option(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr("genlab.features.CLASSIFIERS", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    config = ClassifierTraining(dataset="mnist", data_dir=str(data_dir), epochs=1)
    for shipped, there in ((False, []), (True, ["mnist"])):
        assert train_classifier.run(replace(config, shipped=shipped)) == 0
        assert [folder.name for folder in (tmp_path / "shipped").iterdir()] == there
    for changes in ({"dataset": "./mnist"}, {"dataset": "me/mnist"}, {"size": 8}, {"channels": 3}, {"folder": tmp_path}):
        with pytest.raises(
            ValueError, match="--shipped: expected --dataset fashion-mnist or mnist or emoji without --folder, --size"
        ):
            replace(config, shipped=True, **changes)


def test_no_folder_leads_into_the_source_tree(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT / "genlab" / "demo")
    for folder in (CLASSIFIERS / "mnist", Path("../classifiers/new"), ROOT / "genlab"):
        with pytest.raises(ValueError, match="--folder: expected a folder outside of genlab"):
            ClassifierTraining(folder=folder)


def test_a_damaged_folder_among_the_runs_is_named(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    folder.rename(tmp_path / "runs" / "classifier-x")
    with pytest.raises(FeatureError, match="runs/classifier-x: expected a feature network, got other content"):
        classifier_for(load("mnist", "train", str(data_dir)))


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 3, 10, 10), (3, 8, 8)])
def test_other_pictures_get_no_features(folder: Path, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="expected pictures"):
        Classifier.load(folder).features(torch.zeros(shape, dtype=torch.uint8))


def test_pixels_must_be_8_bit(folder: Path):
    with pytest.raises(ValueError, match=r"uint8, got \(4, 3, 8, 8\) torch.float32"):
        Classifier.load(folder).features(torch.zeros(4, 3, 8, 8))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(path: Path, **changes: torch.Tensor) -> None:
    save_file({**load_file(path), **changes}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "metrics.json").unlink(), "got no metrics.json"),
        (lambda f: (f / "model.safetensors").unlink(), "got no model.safetensors"),
        (lambda f: edit_json(f / "config.json", kind="vae"), "kind: expected classifier, got 'vae'"),
        (lambda f: edit_json(f / "config.json", more=1), "unknown key 'more'"),
        (lambda f: edit_json(f / "config.json", model={"width": 8, "features": 13}), "expected shape"),
        (lambda f: edit_json(f / "config.json", model={"width": 8, "features": 10**6}), "2 to 512"),
        (lambda f: edit_json(f / "metrics.json", test_accuracy=1.5), "test_accuracy: expected a number from 0 to 1"),
        (lambda f: edit_json(f / "metrics.json", test_accuracy=None), "test_accuracy: expected a number"),
        (lambda f: edit_weights(f / "model.safetensors", extra=torch.zeros(1)), "unexpected tensor 'extra'"),
        (lambda f: edit_weights(f / "model.safetensors", **{"head.1.bias": torch.zeros(3)}), "expected shape"),
        (lambda f: edit_weights(f / "model.safetensors", **{"head.1.bias": torch.full((2,), torch.nan)}), "finite"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "expected a safetensors file"),
    ],
)
def test_a_damaged_network_is_refused(folder: Path, damage, message: str):
    assert Classifier.load(folder).accuracy == 0.5
    damage(folder)
    with pytest.raises(FeatureError, match=f"feature network small: .*{message}"):
        Classifier.load(folder)


def test_the_script_trains_a_network_and_measures_what_it_wrote(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Forty pictures whose brightness is their class: two fifths are right by far more than chance, and again the same."""
    config = ClassifierTraining(
        dataset="mnist", data_dir=str(data_dir), folder=tmp_path / "a", epochs=60, batch_size=8, shift=0
    )
    assert train_classifier.run(config) == 0
    found, notes = Classifier.load(tmp_path / "a"), json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == found.accuracy == notes["test_accuracy"]
    assert found.accuracy >= 0.4
    assert notes["training"]["accuracy"] >= 0.4
    assert (notes["training"]["images"], notes["test_images"]) == (40, 20)
    assert notes["command"] == "python training/train_classifier.py --dataset mnist --epochs 60 --batch-size 8 --shift 0"
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert train_classifier.run(ClassifierTraining(**{**vars(config), "folder": tmp_path / "b"})) == 0
    assert Classifier.load(tmp_path / "b").sha256 == found.sha256


def test_the_script_trains_a_network_for_pictures_of_another_size(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert train_classifier.run(ClassifierTraining(dataset=str(picture_folder), size=12, channels=1, epochs=1)) == 0
    found = classifier_for(load(str(picture_folder), "train", None, 12, 1))
    assert found.network.data.shape == (1, 12, 12)
    (folder,) = (tmp_path / "runs").iterdir()
    notes = json.loads((folder / "metrics.json").read_text())
    assert notes["command"] == "python training/train_classifier.py --dataset pictures --size 12 --channels 1 --epochs 1"

    assert train_classifier.run(ClassifierTraining(dataset=str(picture_folder), size=16, channels=1, epochs=1)) == 0
    for size in (12, 16):  # the one does not take the other's place
        assert classifier_for(load(str(picture_folder), "train", None, size, 1)).network.data.size == size


def test_pictures_without_classes_train_it_by_their_quarter_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A bright upper edge is told apart from a bright left edge; the network is found by the pictures, and says what it is."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "edges").mkdir()
    for i in range(80):
        values = random.integers(0, 60, (8, 8), np.uint8)
        values[:3] += 180
        Image.fromarray(values).save(tmp_path / "edges" / f"{i}.png")
    given: dict[str, Any] = {"dataset": "edges", "size": 8, "held_out": "0.2"}
    assert train_classifier.run(ClassifierTraining(**given, epochs=20, batch_size=8, shift=0)) == 0
    found = classifier_for(load("edges", "train", size=8, reading=Reading(held_out="0.2")))
    assert found.name == "edges, quarter turns"
    assert found.accuracy > 0.9
    assert found.network.data.classes == ()


def test_a_turn_by_quarters_is_that_of_each_picture():
    pixels = torch.arange(4 * 9).reshape(4, 1, 3, 3)
    found = train_classifier.turned(pixels, torch.tensor([0, 1, 2, 3]))
    assert [torch.equal(a, torch.rot90(b, k, (1, 2))) for k, (a, b) in enumerate(zip(found, pixels, strict=True))] == [True] * 4


def serve(monkeypatch: pytest.MonkeyPatch, side: int, classes: tuple[str, ...], train: list[int], test: list[int]) -> None:
    """A data set me/things on the Hub with these labels, each picture as bright as its label says."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(classes))})
    tables = {
        split: datasets.Dataset.from_dict(
            {"image": [Image.new("L", (side, side), 100 + 100 * label) for label in labels], "label": labels}, features
        )
        for split, labels in (("train", train), ("test", test))
    }
    monkeypatch.setattr("genlab.tables._on_hub", lambda hub_id, reading: tables)


@pytest.mark.parametrize(
    ("side", "classes", "message"),
    [
        (27, ("a", "b"), "things: expected an even side and 2 or more classes, or none, got 27 and 2"),
    ],
)
def test_pictures_that_no_network_can_be_made_for_are_refused(
    side: int,
    classes: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    serve(monkeypatch, side, classes, train=[0, len(classes) - 1] * 2, test=[0] * 4)
    assert train_classifier.run(ClassifierTraining(dataset="me/things", folder=tmp_path / "x")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"
    assert not (tmp_path / "x").exists()


def test_pictures_without_a_label_are_neither_learned_from_nor_tested_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    config = ClassifierTraining(dataset="me/things", folder=tmp_path / "x", epochs=20, batch_size=8, shift=0)
    serve(monkeypatch, 8, ("a", "b"), train=[0, 1, -1] * 8, test=[0, 1, -1, -1, -1, -1])
    assert train_classifier.run(config) == 0
    notes = json.loads((tmp_path / "x" / "metrics.json").read_text())
    assert (notes["training"]["images"], notes["test_images"], notes["test_accuracy"]) == (16, 2, 1.0)
    serve(monkeypatch, 8, ("a", "b"), train=[0, 1], test=[-1, -1])
    assert train_classifier.run(config) == 1
    assert "error: things: expected pictures with classes, got none" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [*range(1, 31), 3752])
def test_the_learning_rate_rises_and_falls_over_any_number_of_steps(steps: int):
    def plain(optimiser: torch.optim.Optimizer, lr: float, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser, lr, total_steps=steps, pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
        )

    def rates(make) -> list[float]:
        optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        schedule, found = make(optimiser, 0.5, steps), []
        for _ in range(steps):
            found.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            schedule.step()
        return found

    found = rates(train_classifier.one_cycle)
    assert all(0 < rate <= 0.5 for rate in found)
    if steps == 10:  # the step at which the plain one divides by zero
        assert found[0] < found[9] + 0.1 < found[1]
        assert found[1:] == sorted(found[1:], reverse=True)
    else:
        assert found == rates(plain)


def test_normalisation_folds_into_the_convolutions():
    torch.manual_seed(0)
    body = with_norms(FeatureNet(ClassifierConfig(8, 12), DataSpec("small", 3, 8, ("a", "b"))).body)
    for layer in body:
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
    x = torch.randn(16, 3, 8, 8)
    for _ in range(5):
        body(3 * x + 1)
    with torch.no_grad():
        expected = body.eval()(x)
        folded = without_norms(body)
        torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded)


def test_features_are_in_units_of_their_deviation_and_scores_stay():
    torch.manual_seed(0)
    network = FeatureNet(ClassifierConfig(8, 12), DataSpec("small", 3, 8, ("a", "b"))).eval()
    pixels = torch.randint(256, (900, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        scores = network.head(network(to_model(pixels)))
        in_own_units(network, pixels)
        features = network(to_model(pixels))
        torch.testing.assert_close(features.std(dim=0), torch.ones(12))
        torch.testing.assert_close(network.head(features), scores)


def test_pictures_move_whole_and_by_no_more_than_they_may():
    x = torch.full((200, 1, 9, 9), -1.0)
    x[:, 0, 4, 4] = 0.5
    generator = torch.Generator().manual_seed(0)
    places = moved(x, 2, generator).eq(0.5).nonzero()
    assert places[:, 0].tolist() == list(range(200))
    assert {tuple(p) for p in places[:, 2:].tolist()} == {(i, j) for i in range(2, 7) for j in range(2, 7)}
    assert torch.equal(moved(x, 0, generator), x)


@pytest.mark.parametrize(
    "bad",
    [
        {"size": 3},
        {"size": 257},
        {"channels": 2},
        {"epochs": 0},
        {"batch_size": 0},
        {"shift": -1},
        {"seed": -1},
        {"lr": 2.0},
        {"weight_decay": float("nan")},
    ],
)
def test_bad_options_are_named(bad: dict[str, float]):
    name, value = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}: expected .*, got {value}"):
        ClassifierTraining(**bad)
