"""A model in a folder and from the Hub: what is written comes back bit for bit, and nothing else is believed."""

from __future__ import annotations

import json
import re
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_server import Fault, File, Hub, Repo, Token, connect, running
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file

import genlab
from genlab import hub
from genlab.card import escape
from genlab.config import DataSpec, DDPMConfig, UNetConfig, VAEConfig
from genlab.data import Dataset
from genlab.ddpm import DDPM
from genlab.measurements import Features, Moment, Replay
from genlab.package import PRETRAINED, Film, ModelError, refresh_card, write_package
from genlab.vae import VAE

SPEC = DataSpec("blobs", channels=1, size=8, classes=("dark", "light"))
METRICS = {
    "command": "python training/train_ddpm.py --dataset /home/jane/blobs --data-dir=/srv/secret/idx --steps 4",
    "seed": 7,
    "training": {"options": {"dataset": "/home/jane/blobs"}, "steps": 4, "images_seen": 16, "seconds": 3, "device": "cpu"},
    "loss": {"training": {"loss": 0.5, "simple": 0.25, "bound": 2.0}, "held_out": {"loss": 0.75}, "held_out_images": 4},
}
LATER = {"likelihood": {"bound_bits_per_dim": 3.25, "standard_error": 0.125, "images": 256, "T": 30}, "elbo_nats": -12.5}


def make_model(kind: str = "ddpm", seed: int = 0) -> DDPM | VAE:
    torch.manual_seed(seed)
    if kind == "vae":
        return VAE(VAEConfig(latent=2, width=8, hidden=8), SPEC)
    return DDPM(DDPMConfig(T=30, unet=UNetConfig(width=8)), SPEC)


def make_examples(count: int = 20, source: str = "a folder") -> Dataset:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Dataset(SPEC, images, torch.arange(count) % 2, source)


def make_film(count: int = 3, samples: int = 2) -> Film:
    generator = torch.Generator().manual_seed(2)
    pictures = torch.randint(0, 256, (count, 2, samples, 1, 8, 8), dtype=torch.uint8, generator=generator)
    losses = {"training_loss": 0.5, "held_out_loss": 0.75, "held_out_loss_of_last_weights": 1.0}
    measured = {"bound_bits_per_dim": 3.25, "bound_standard_error_bits_per_dim": 0.125, "frechet_distance": 40.0}
    moments = [Moment(step=4**i, images_seen=4 * 4**i, epoch=4**i / 5, **losses, **measured) for i in range(count)]
    network = Features("blobs", "ab" * 32, 0.99, 64)
    numbers: dict[str, Any] = {"held_out_images": 20, "bound_images": 20, "frechet_images": 500, "frechet_floor": 0.5}
    return Film(Replay(samples=samples, features=network, moments=moments, **numbers), pictures)


def write_model(folder: Path, kind: str = "ddpm", seed: int = 0) -> Path:
    write_package(folder, make_model(kind, seed), METRICS, make_examples())
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of a sound model folder, to be damaged."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in sound.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    with running(Hub({"hf_mine": Token("me"), "hf_yours": Token("you")})) as server:
        connect(monkeypatch, server, tmp_path / "home")
        yield server


def publish(server: Hub, name: str, folder: Path, private: bool = False) -> Repo:
    """Put a folder on the server as the Hub itself would hold it."""
    repo = server.repos.setdefault(name, Repo(name, private))
    files = {p.name: File(p.read_bytes(), lfs=p.suffix in (".safetensors", ".bin")) for p in folder.iterdir()}
    server.lfs.update({f.sha256: f.content for f in files.values() if f.lfs})
    repo.commit(files, "a model")
    return repo


def asked(server: Hub) -> list[str]:
    """Paths of the files that were asked for."""
    return [r.path for r in server.requests if "/resolve/" in r.path]


def edit(folder: Path, name: str = "config.json", **changes: object) -> None:
    """Change values of a JSON file; `model__T=1` is `["model"]["T"]`, and a value of `...` removes the key."""
    value = json.loads((folder / name).read_text())
    for path, new in changes.items():
        *above, last = path.split("__")
        place = value
        for key in above:
            place = place[key]
        if new is ...:
            del place[last]
        else:
            place[last] = new
    (folder / name).write_text(json.dumps(value))


# Writing


def test_test_pictures_without_a_class_are_read_back(tmp_path):
    """As data sets on the Hub give them that keep the answers to themselves."""
    labels = torch.tensor([-1] * 19 + [1])
    examples = replace(make_examples(20), labels=labels)
    write_package(tmp_path / "model", make_model(), METRICS, examples)
    assert torch.equal(hub.read(tmp_path / "model").labels, labels)


@pytest.mark.parametrize("kind", ["ddpm", "vae"])
def test_what_is_saved_is_read_back_bit_for_bit(tmp_path, kind):
    model, examples = make_model(kind), make_examples(300)
    write_package(tmp_path / "model", model, METRICS, examples)
    package = hub.read(tmp_path / "model")
    assert type(package.model) is type(model)
    assert (package.model.config, package.model.data) == (model.config, SPEC)
    assert not package.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(package.model.state_dict()[name], tensor), name
    assert torch.equal(package.examples, examples.images[:256])
    assert torch.equal(package.labels, examples.labels[:256])
    assert (package.source, package.revision) == (str(tmp_path / "model"), None)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md", "config.json", "examples.json", "examples.png", "metrics.json", "model.safetensors",
    ]  # fmt: skip


def test_half_stores_float16_and_reads_float32(tmp_path):
    model = make_model("vae")
    write_package(tmp_path / "model", model, METRICS, make_examples(), half=True)
    assert {t.dtype for t in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.float16}
    for name, tensor in genlab.load(tmp_path / "model").state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].half().float()), name


def test_half_refuses_a_weight_beyond_its_range(tmp_path):
    model = make_model("vae")
    model.state_dict()["log_var"].fill_(70_000.0)
    with pytest.raises(ModelError, match="log_var: expected finite weights"):
        write_package(tmp_path / "model", model, METRICS, make_examples(), half=True)


def test_reading_leaves_the_random_numbers_alone(sound):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    hub.read(sound)
    assert torch.equal(torch.rand(4), expected)


def test_the_ledger_of_the_longest_chain_is_read_back(folder):
    """Two whole numbers and eight of six digits for each of 10,000 steps, a line each, as training/evaluate.py writes them."""
    steps, column = list(range(1, 10_001)), [-1.23456e-05] * 10_000
    by_variance = dict.fromkeys(("learned", "posterior", "beta"), column)
    ledger = {"first_t": steps, "last_t": steps, "mean": by_variance, "error": by_variance, "eps": column, "x0": column}
    metrics = {"evaluation": {"likelihood": {"ledger": ledger}}}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
    assert hub.read(folder).metrics == metrics


def test_weights_that_are_not_finite_are_not_written_and_the_old_ones_stay(folder):
    before = (folder / "model.safetensors").read_bytes()
    model = make_model()
    model.unet.enter.bias.data[0] = float("nan")
    with pytest.raises(ModelError, match=r"unet\.enter\.bias: expected finite"):
        write_package(folder, model, METRICS, make_examples())
    with pytest.raises(ModelError, match=r"metrics\.json: expected finite"):
        write_package(folder, make_model(seed=1), {"loss": float("inf")}, make_examples())
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".tmp*"))


def test_saving_again_keeps_the_pictures_that_lie_there(folder):
    Image.new("L", (4, 4)).save(folder / "samples.png")
    write_package(folder, make_model(seed=1), METRICS, make_examples())
    assert (folder / "samples.png").exists()
    assert "](samples.png)" in (folder / "README.md").read_text()
    assert "](loss.png)" not in (folder / "README.md").read_text()


def test_nothing_about_the_machine_is_published(sound):
    for name in ("README.md", "metrics.json", "config.json"):
        text = (sound / name).read_text()
        assert not [word for word in ("jane", "/home", "/srv", "secret", str(sound.parent)) if word in text], name
    assert "python training/train_ddpm.py --dataset blobs --data-dir=idx --steps 4" in (sound / "README.md").read_text()
    assert json.loads((sound / "metrics.json").read_text())["training"]["options"]["dataset"] == "blobs"


def test_a_film_of_the_training_is_read_back(tmp_path):
    film = make_film()
    write_package(tmp_path, make_model(), METRICS, make_examples(), film=film)
    found = hub.read(tmp_path).film
    assert found.replay == film.replay
    assert torch.equal(found.pictures, film.pictures)
    text = (tmp_path / "README.md").read_text()
    assert "](replay.png)" in text
    assert "3 moments of the training, from step 1 to 16, a row each: 2 pictures by the weights of the moment" in text
    assert "bound, bits/dim: 3.25 → 3.25" in text
    write_package(tmp_path, make_model(seed=1), METRICS, make_examples())
    assert hub.read(tmp_path).film is None, "that of other weights is gone"


# The card


def front_matter(folder: Path) -> dict[str, object]:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_card_says_what_the_model_is_and_nothing_that_was_not_measured(folder):
    text = (folder / "README.md").read_text()
    parameters = sum(p.numel() for p in make_model().parameters())
    assert front_matter(folder) == {
        "license": "apache-2.0",
        "library_name": "genlab",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["genlab", "ddpm", "diffusion"],
    }
    assert f"{parameters:,} parameters" in text
    assert 'genlab.load("YOU/NAME")' in text
    assert "| simple, training batches | 0.25 | mean squared error |" in text
    assert "| loss, 4 held-out pictures | 0.75 |" in text
    assert "| seed | 7 |" in text
    assert "bits/dim" in text  # the unit of the loss's second part
    assert "likelihood" not in text
    edit(folder, "metrics.json", evaluation=LATER)
    refresh_card(folder)
    text = (folder / "README.md").read_text()
    assert "| likelihood: bound | 3.25 | bits/dim |" in text
    assert "| likelihood: standard error | 0.125 |  |" in text
    assert "| likelihood: images | 256 |  |" in text
    assert "| elbo | -12.5 | nats/picture |" in text


@pytest.mark.parametrize(
    ("option", "source", "expected"),
    [
        ("fashion-mnist", "idx files", "zalando-datasets/fashion_mnist"),
        ("them/cats", "Hub: them/cats", "them/cats"),
        ("data/mnist", "data/mnist", None),
        ("mnist/pictures", "mnist/pictures", None),
    ],
)
def test_card_names_the_data_set_where_the_hub_has_it(tmp_path, option, source, expected):
    write_package(tmp_path, make_model(), {"training": {"options": {"dataset": option}}}, make_examples(source=source))
    assert front_matter(tmp_path).get("datasets") == ([expected] if expected else None)
    refresh_card(tmp_path)
    assert front_matter(tmp_path).get("datasets") == ([expected] if expected else None)


def test_text_from_outside_is_text_in_the_card(tmp_path):
    evil = "<script>x</script> ![a](http://evil.test/p.png) `|` [l](javascript:1)\n---\nlicense: mit\n# H"
    model = make_model()
    model.data = DataSpec(evil[:100], 1, 8, ("a|b", "<img src=x>"))
    write_package(
        tmp_path, model, {"command": "python x '```\n# Out'", "seed": evil, "evaluation": {"<b>": evil}}, make_examples()
    )
    text = (tmp_path / "README.md").read_text()
    assert front_matter(tmp_path)["license"] == "apache-2.0"
    for live in ("<script", "<img", "<b>", "![a]", "[l]", "\n# H", "\n# Out", "http://evil"):
        assert live not in text, live
    assert "````sh\n" in text
    assert escape("a|b*c") == r"a\|b\*c"


# A folder that is not as it should be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "unknown key 'extra'"),
        ({"model__attention": 1}, "model: unknown key 'attention'"),
        ({"data__size": ...}, "data: expected the key 'size'"),
        ({"model": []}, "model: expected an object"),
        ({"kind": "gan"}, "kind: expected one of ddpm, vae"),
        ({"kind": ["ddpm"]}, "kind: expected one of ddpm, vae"),
        ({"model__T": "30"}, "model.T: expected int, got '30'"),
        ({"model__T": True}, "model.T: expected int, got True"),
        ({"model__T": 10**9}, "T: expected a whole number from 2 to 10000"),
        ({"model__schedule": "rising"}, "schedule: expected one of mixed, linear, cosine"),
        ({"model__unet__multipliers": "12"}, "multipliers: expected a list"),
        ({"model__unet__width": 2**40}, "width: expected a whole number"),
        ({"model__unet__dropout": None}, "dropout: expected float"),
        ({"model__unet__dropout": 10**400}, "dropout: expected a number from 0 to 0.9, got 10000"),
        ({"data__channels": 1.0}, "data.channels: expected int, got 1.0"),
        ({"data__classes": [1]}, "data.classes: expected str, got 1"),
        ({"model__unet": {**asdict(UNetConfig(width=512, multipliers=(4, 4), blocks=8))}}, "at most 200,000,000 parameters"),
        ({"data__size": 9}, "multiple of 4"),
        ({"genlab": 1}, "genlab: expected a version"),
    ],
)
def test_hostile_configuration_is_refused_by_name(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ModelError, match=message):
        hub.read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": 1}, "replay: expected dict, got 1"),
        ({"replay": ...}, "expected replay in metrics.json and replay.png together, got one of them"),
        ({"replay__moments": ...}, "replay: expected the key 'moments', which is missing"),
        ({"replay__moments": []}, "expected 1 to 100 samples and moments, got 2 and 0"),
        ({"replay__moments": [{}] * 3}, "replay.moments: expected the key 'step', which is missing"),
        ({"replay__samples": 10**9}, "expected 1 to 100 samples and moments, got 1000000000 and 3"),
        ({"replay__samples": 3}, r"replay\.png: expected L of \(62, 32\), got L of \(42, 32\)"),
        ({"replay__samples": "2"}, "replay.samples: expected a whole number, got '2'"),
        ({"replay__features": ...}, "expected frechet_images, frechet_floor and features with a distance, got none"),
        ({"replay__bound_images": ...}, "expected bound_images with a bound, got none"),
        ({"replay__frechet_floor": 1e300}, "replay.frechet_floor: expected a number, got 1e\\+300"),
    ],
)
def test_a_hostile_film_is_refused_by_name(folder, changes, message):
    write_package(folder, make_model(), METRICS, make_examples(), film=make_film())
    edit(folder, "metrics.json", **changes)
    with pytest.raises(ModelError, match=message):
        hub.read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 2}, r"moments: expected rising steps, got \[1, 2, 2\]"),
        ({"step": 0}, "expected 1 ≤ step ≤ images_seen, got 0 and 64"),
        ({"images_seen": 1}, "expected 1 ≤ step ≤ images_seen, got 16 and 1"),
        ({"training_loss": "<b>"}, "training_loss: expected a number, got '<b>'"),
        ({"bound_bits_per_dim": ...}, "expected a bound in bits/dim and its standard error together"),
        ({"frechet_distance": True}, "frechet_distance: expected a number, got True"),
    ],
)
def test_a_hostile_moment_is_refused_by_name(folder, changes, message):
    write_package(folder, make_model(), METRICS, make_examples(), film=make_film())
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["replay"]["moments"][1]["step"] = 2
    last = metrics["replay"]["moments"][2] | changes
    metrics["replay"]["moments"][2] = {name: value for name, value in last.items() if value is not ...}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ModelError, match=message):
        hub.read(folder)


def test_a_picture_that_is_no_film_is_refused(folder):
    film = folder / "replay.png"
    film.write_bytes(b"not there before")
    with pytest.raises(ModelError, match=r"expected replay in metrics\.json and replay\.png together"):
        hub.read(folder)
    write_package(folder, make_model(), METRICS, make_examples(), film=make_film())
    whole = film.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "expected a PNG, got a damaged or other file"),
        (b"GIF89a" + whole, "expected a PNG, got a damaged or other file"),
        (b"x" * 64_000_001, "expected at most 64,000,000 bytes, got 64,000,001"),
    ):
        film.write_bytes(content)
        with pytest.raises(ModelError, match=rf"replay\.png: {message}"):
            hub.read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON"),
        ("[]", "expected a JSON object, got list"),
        ("[" * 50_000, "expected JSON"),
        ('{"kind": "ddpm", "kind": "vae"}', "'kind' is there twice"),
        ('{"kind": NaN}', "NaN is not finite"),
        ('{"kind": 1e999}', "1e999 is not finite"),
        ("1" * 5000, "expected JSON"),
        ('{"kind": "\\ud800"}', "expected JSON, got other content .*surrogates not allowed"),
        ('{"\\udfff": 1}', "expected JSON, got other content .*surrogates not allowed"),
        (" " * 200_000, "at most 100,000 bytes, got 200,000"),
    ],
)
def test_configuration_that_is_not_json_is_refused(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        hub.read(folder)


@pytest.mark.parametrize("name", ["metrics.json", "examples.json"])
def test_text_that_no_file_can_hold_is_refused(folder, name):
    """Half of a surrogate pair, in JSON's own spelling and as bytes."""
    for half in (b"\\ud800", b"\xed\xa0\x80"):
        (folder / name).write_bytes(b'{"command": ["' + half + b'"]}')
        with pytest.raises(ModelError, match=f"{name}: expected JSON, got other content .*surrogates not allowed") as error:
            hub.read(folder)
        str(error.value).encode()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"training": []}, r"training: expected dict, got \[\]"),
        ({"training": {"options": 1}}, "training.options: expected dict, got 1"),
        ({"training": {"options": {"dataset": ["mnist"]}}}, r"training.options.dataset: expected str, got \['mnist'\]"),
        ({"dataset": {"id": 1}}, "dataset: expected str, got {'id': 1}"),
        ({"loss": None}, "loss: expected dict, got None"),
        ({"loss": {"training": 0.5}}, "loss.training: expected dict, got 0.5"),
        ({"loss": {"held_out": "no"}}, "loss.held_out: expected dict, got 'no'"),
        ({"evaluation": "done"}, "evaluation: expected dict, got 'done'"),
    ],
)
def test_metrics_that_no_card_can_be_written_from_are_refused_by_name(folder, metrics, message):
    (folder / "metrics.json").write_text(json.dumps(metrics))
    for use in (hub.read, refresh_card):
        with pytest.raises(ModelError, match=rf"metrics\.json: {message}"):
            use(folder)


def test_a_command_that_no_shell_could_read_stands_in_the_card_without_its_paths(folder):
    (folder / "metrics.json").write_text(json.dumps({"command": "train --data-dir=/srv/secret/idx it's /home/jane/blobs"}))
    refresh_card(folder)
    text = (folder / "README.md").read_text()
    assert "train --data-dir=idx " in text
    assert not [word for word in ("/srv", "secret", "jane") if word in text]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("unet.enter.bias"), r"unet\.enter\.bias: expected this tensor"),
        (lambda t: t.update(more=torch.zeros(1)), "unexpected tensor 'more'"),
        (lambda t: t.update({"unet.enter.bias": torch.zeros(9)}), r"unet\.enter\.bias: expected shape \(8,\), got \(9,\)"),
        (
            lambda t: t.update({"unet.enter.bias": torch.zeros(8).double()}),
            r"unet\.enter\.bias: expected float32 or float16, got 'F64'",
        ),
        (lambda t: t["unet.enter.bias"].__setitem__(3, float("nan")), r"unet\.enter\.bias: expected finite weights"),
        (lambda t: t["unet.enter.bias"].__setitem__(3, float("-inf")), r"unet\.enter\.bias: expected finite weights"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(folder, damage, message):
    tensors = load_file(folder / "model.safetensors")
    damage(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        hub.read(folder)


def test_damaged_weights_are_refused(folder):
    path = folder / "model.safetensors"
    good = path.read_bytes()
    length = struct.unpack("<Q", good[:8])[0]
    for name, content in {
        "empty": b"",
        "a pickle": b"\x80\x04\x95" + bytes(60),
        "a header of 2^63 bytes": struct.pack("<Q", 2**63) + good[8:],
        "a header of 17 MB": struct.pack("<Q", 17_000_000) + b"{}" + b" " * 17_000_000,
        "a header that nests": struct.pack("<Q", 90_000) + b"[" * 90_000,
        "a header that is no object": struct.pack("<Q", 2) + b"[]",
        "a shape without end": struct.pack("<Q", 61) + b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}'.ljust(61),
        "a tensor without shape": struct.pack("<Q", 21) + b'{"a":{"dtype":"F32"}}',
        "cut short": good[:-1],
        "a cut header": good[: length // 2],
        "too long": good + b"\0",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ModelError) as raised:
            hub.read(folder)
        assert re.search("header of at most|expected a safetensors file", str(raised.value)), name


def test_pickle_beside_or_instead_of_safetensors_is_not_touched(folder):
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    hub.read(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"got no model\.safetensors; genlab reads no other format"):
        hub.read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 257}, "count: expected a whole number from 1 to 256"),
        ({"count": True}, "count: expected a whole number"),
        ({"columns": 0}, "columns: expected a whole number"),
        ({"columns": 4}, "examples.png: expected L of"),
        ({"labels": [2] * 20}, "20 whole numbers below 2"),
        ({"labels": [0]}, "20 whole numbers below 2"),
        ({"labels": "dark"}, "20 whole numbers below 2"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_hostile_examples_are_refused(folder, changes, message):
    edit(folder, "examples.json", **changes)
    with pytest.raises(ModelError, match=message):
        hub.read(folder)


def test_hostile_example_pictures_are_refused(folder):
    path = folder / "examples.png"
    with Image.open(path) as picture:
        size = picture.size
    Image.new("L", size).save(path, format="GIF")
    with pytest.raises(ModelError, match="expected a PNG"):
        hub.read(folder)
    Image.new("RGB", size).save(path)
    with pytest.raises(ModelError, match="expected L of"):
        hub.read(folder)
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(ModelError, match="expected L of"):
        hub.read(folder)
    Image.new("L", size).save(path, save_all=True, append_images=[Image.new("L", size, 9)])
    with pytest.raises(ModelError, match="expected L of"):
        hub.read(folder)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("x", "y" * 3_000_000, zip=True)
    Image.new("L", size).save(path, pnginfo=notes)
    with pytest.raises(ModelError, match="expected a PNG"):
        hub.read(folder)
    path.unlink()
    with pytest.raises(ModelError, match=r"examples\.json and examples\.png together"):
        hub.read(folder)
    (folder / "examples.json").unlink()
    package = hub.read(folder)
    assert package.examples.shape == (0, 1, 8, 8)
    assert package.labels is None


def test_source_that_is_neither_folder_nor_hub_id_is_refused(tmp_path, sound, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in (
        "nowhere",
        "a/b/c",
        tmp_path / "none",
        "../x",
        "~no-such-user/x",
        "me/model@a..b",
        "me/model@/etc/../passwd",
    ):
        with pytest.raises(ModelError, match=r"expected an existing folder|expected a branch"):
            hub.read(source)
    with pytest.raises(ModelError, match="is a folder: expected no revision"):
        hub.read(sound, revision="main")
    with pytest.raises(ModelError, match="expected one revision"):
        hub.read("me/model@v1", revision="v2")


def test_a_model_is_found_in_its_runs_folder_and_by_the_name_it_ships_under(tmp_path, sound):
    shutil.copytree(sound, tmp_path / "run" / "model")
    for source, folder in ((str(tmp_path / "run"), tmp_path / "run" / "model"), ("vae-mnist", PRETRAINED / "vae-mnist")):
        package = hub.read(source)
        assert (package.folder, package.source) == (folder, source)


# From the Hub


def test_pull_gives_the_same_tensors_and_the_commit(server, sound):
    repo = publish(server, "me/model", sound)
    package = hub.read("me/model")
    assert package.revision == repo.branches["main"]
    assert package.source == "me/model"
    for name, tensor in load_file(sound / "model.safetensors").items():
        assert torch.equal(package.model.state_dict()[name], tensor), name


def test_pinned_revisions_stay_when_main_moves(server, sound, tmp_path):
    repo = publish(server, "me/model", sound)
    first = repo.branches["main"]
    repo.tags["v1"] = first
    publish(server, "me/model", write_model(tmp_path / "second", seed=1))
    old, new = load_file(sound / "model.safetensors"), load_file(tmp_path / "second" / "model.safetensors")
    assert not torch.equal(old["unet.enter.bias"], new["unet.enter.bias"])
    for source, revision, expected in [
        ("me/model", None, new), ("me/model", first, old), ("me/model", "v1", old), (f"me/model@{first}", None, old),
        ("me/model@v1", None, old),
    ]:  # fmt: skip
        bias = genlab.load(source, revision).unet.enter.bias
        assert torch.equal(bias, expected["unet.enter.bias"]), (source, revision)


def test_pinned_commit_in_the_cache_asks_nobody(server, sound):
    commit = publish(server, "me/model", sound).branches["main"]
    hub.read("me/model", revision=commit)
    server.requests.clear()
    assert hub.read(f"me/model@{commit}").revision == commit
    assert server.requests == []


def out_of_order(server: Hub, patch: pytest.MonkeyPatch, what: str) -> None:
    """Break one part of the way to the Hub, and let nobody wait."""
    for name in ("huggingface_hub.file_download.time.sleep", "huggingface_hub.utils._http.time.sleep"):
        patch.setattr(name, lambda seconds: None)
    if what == "refused":
        patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    elif what == "no disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    elif what == "silence":
        patch.setattr(hub, "PATIENCE", 0.2)
        server.faults.append(Fault("/api/models/", "hang"))
    elif what == "silent files":
        patch.setattr(hub, "PATIENCE", 0.2)
        server.faults.append(Fault("HEAD ", "hang"))
    else:
        where, fault = what.split(": ")
        server.faults.append(Fault(where, int(fault) if fault.isdigit() else fault))


@pytest.fixture
def whole_disk() -> Iterator[Callable[[], None]]:
    """What takes the limit of a file's size away again."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("refused", "cannot be reached"),
        ("silence", "cannot be reached"),
        ("silent files", "cannot be reached"),
        ("no disk", "File too large"),
        ("/api/models/: 401", "does not accept your token"),
        ("/api/models/: 403", "your Hub token may not read me/model"),
        ("/api/models/: 404", "answered with error 404"),
        ("/api/models/: 429", "asks for patience"),
        ("/api/models/: 500", "answered with error 500"),
        ("/api/models/: 503", "answered with error 503"),
        ("/api/models/: html", "something else answers"),
        ("HEAD : html", "something else answers"),
        ("HEAD : 403", "your Hub token may not read me/model"),
        ("GET /storage/: 500", "answered with error 500"),
        ("GET /storage/: cut", "cannot be reached"),
        ("GET /storage/: flip", "model.safetensors arrived damaged twice"),
        ("GET /storage/: html", "arrived damaged twice|could not be used"),
    ],
)
def test_whatever_keeps_a_newer_version_away_the_last_good_one_serves(
    server, sound, tmp_path, monkeypatch, caplog, whole_disk, what, reason
):
    """And the next one too, once it can be had; no address in the client's log is signed."""
    repo = publish(server, "me/model", sound)
    first = repo.branches["main"]
    hub.read("me/model")
    publish(server, "me/model", write_model(tmp_path / "second", seed=1))
    second = repo.branches["main"]
    with monkeypatch.context() as patch:
        out_of_order(server, patch, what)
        package = hub.read("me/model")
        assert package.revision == first
        assert re.search(reason, package.stale), package.stale
        assert f"{package.stale}; the last good version serves instead, commit {first[:12]}" in caplog.messages
        assert hub.read(f"me/model@{first}").stale == ""
    whole_disk()
    server.faults.clear()
    package = hub.read("me/model")
    assert (package.revision, package.stale) == (second, "")
    assert "Signature" not in caplog.text


def test_a_version_that_does_not_load_leaves_the_one_before_in_service(server, sound, tmp_path):
    """It is undamaged and not finite; with the Hub, without it, and by its commit."""
    repo = publish(server, "me/model", sound)
    first = repo.branches["main"]
    hub.read("me/model")
    shutil.copytree(sound, tmp_path / "second")
    tensors = load_file(sound / "model.safetensors")
    tensors["unet.enter.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "second" / "model.safetensors")
    publish(server, "me/model", tmp_path / "second")
    for faults in ([], [Fault("", 500)]):
        server.faults[:] = faults
        assert hub.read("me/model").revision == first
    assert hub.read(f"me/model@{first}").revision == first
    server.faults.clear()
    assert "expected finite weights" in hub.read("me/model").stale
    with pytest.raises(ModelError, match="expected finite weights"):
        hub.read("me/model", revision=repo.branches["main"])


def test_what_two_versions_share_is_not_fetched_again(server, sound, tmp_path):
    """Where the second one's weights come damaged, and what it shares with the first would too."""
    first = publish(server, "me/model", sound).branches["main"]
    hub.read("me/model")
    publish(server, "me/model", write_model(tmp_path / "second", seed=1))
    server.requests.clear()
    server.faults.append(Fault("GET ", "flip"))
    assert hub.read("me/model").revision == first
    assert not [r for r in server.requests if r.method == "GET" and r.path.endswith(("config.json", "examples.png"))]
    server.requests.clear()
    server.faults[:] = [Fault("", 500)]
    for source in ("me/model", f"me/model@{first}"):
        assert hub.read(source).revision == first


def test_a_cache_that_was_filled_file_by_file_serves(server, sound):
    """As a Space's `preload_from_hub` fills it: what a model needs is there, and asks nobody for the rest."""
    import huggingface_hub

    commit = publish(server, "me/model", sound).branches["main"]
    for name in ("config.json", "model.safetensors"):
        huggingface_hub.hf_hub_download("me/model", name)
    server.requests.clear()
    assert hub.read(f"me/model@{commit}").revision == commit
    assert server.requests == []
    server.faults.append(Fault("", 500))
    assert hub.read("me/model").revision == commit


def test_the_configuration_is_read_before_anything_else_is_fetched(server, folder):
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    publish(server, "me/bert", folder)
    with pytest.raises(ModelError, match=r"me/bert@\w{40}: config.json is not that of a genlab model"):
        hub.read("me/bert")
    assert {path.rsplit("/", 1)[1] for path in asked(server)} == {"config.json"}
    (folder / "model_index.json").write_text("{}")
    (folder / "config.json").unlink()
    publish(server, "me/pipeline", folder)
    with pytest.raises(ModelError, match="is no genlab model: it is a pipeline of diffusers") as raised:
        hub.read("me/pipeline")
    with pytest.raises(ModelError, match=re.escape(str(raised.value).partition(": ")[2])):
        hub.read(folder)


def test_hub_that_is_not_there_is_named(server, monkeypatch, sound):
    publish(server, "me/model", sound)
    hub.read("me/model")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert hub.read("me/model").revision
    with pytest.raises(ModelError, match=r"the Hub at http://127.0.0.1:9 cannot be reached"):
        hub.read("me/other")


@pytest.mark.parametrize("where", ["/api/models/", "HEAD "])
def test_hub_that_says_nothing_is_not_waited_for(server, sound, monkeypatch, where):
    publish(server, "me/model", sound)
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    server.faults.append(Fault(where, "hang"))
    with pytest.raises(ModelError, match="cannot be reached"):
        genlab.load("me/model")


@pytest.mark.parametrize("given", [True, False], ids=["given", "of the client"])
def test_a_public_model_is_read_without_a_token_that_has_expired(server, sound, tmp_path, monkeypatch, caplog, given):
    """And followed without it; a private one is not there without it, and the token is named as the reason."""
    repo = publish(server, "me/model", sound)
    publish(server, "me/secret", sound, private=True)
    connect(monkeypatch, server, tmp_path / "home", None if given else "hf_expired")
    token = "hf_expired" if given else None
    assert hub.read("me/model", token=token).revision == hub.head("me/model", "main", token) == repo.branches["main"]
    assert caplog.text.count("does not accept your token: run `hf auth login`") == 2
    assert caplog.text.count("me/model is public: it is read without one") == 2
    assert "hf_expired" not in caplog.text
    with pytest.raises(ModelError, match="does not accept your token"):
        hub.read("me/secret", token=token)


@pytest.mark.parametrize(("where", "name"), [("GET /storage/", "model.safetensors"), ("GET .*examples.png", "examples.png")])
def test_flipped_bit_is_healed_once_and_refused_twice(server, sound, where, name):
    publish(server, "me/model", sound)
    publish(server, "me/other", sound)
    server.faults.append(Fault(where, "flip", times=1))
    hub.read("me/model")
    server.faults.append(Fault(where, "flip", times=2))
    with pytest.raises(ModelError, match=f"{name} arrived damaged twice"):
        hub.read("me/other")
    hub.read("me/other")


def test_flipped_bit_in_the_cache_is_found_and_healed(server, sound, tmp_path):
    commit = publish(server, "me/model", sound).branches["main"]
    hub.read("me/model", revision=commit)
    cached = next((tmp_path / "home").rglob("snapshots/*/model.safetensors")).resolve()
    good = cached.read_bytes()
    cached.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    hub.read("me/model", revision=commit)
    assert next((tmp_path / "home").rglob("snapshots/*/model.safetensors")).read_bytes() == good


def test_download_that_is_cut_short_is_refused(server, sound, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    publish(server, "me/model", sound)
    server.faults.append(Fault("GET /storage/", "cut"))
    with pytest.raises(ModelError, match=r"cannot be reached|could not be used"):
        hub.read("me/model")


def test_only_the_files_of_a_model_are_downloaded(server, folder):
    for name in ("pytorch_model.bin", "run.py", "training_args.bin"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    publish(server, "me/model", folder)
    hub.read("me/model")
    assert {path.rsplit("/", 1)[1] for path in asked(server)} == {
        "README.md", "config.json", "examples.json", "examples.png", "metrics.json", "model.safetensors",
    }  # fmt: skip
    (folder / "model.safetensors").unlink()
    server.requests.clear()
    publish(server, "me/pickled", folder)
    with pytest.raises(ModelError, match=r"me/pickled is no genlab model: .* got no model\.safetensors"):
        hub.read("me/pickled")
    assert asked(server) == []


def test_files_that_are_too_large_are_not_downloaded(server, folder):
    (folder / "config.json").write_bytes(b" " * 200_000)
    publish(server, "me/model", folder)
    with pytest.raises(ModelError, match=r"config\.json: expected at most 100,000 bytes, got 200,000"):
        hub.read("me/model")
    assert asked(server) == []


def test_private_repository_needs_the_right_token(server, sound, monkeypatch):
    publish(server, "me/model", sound, private=True)
    with pytest.raises(ModelError, match="no model me/model on the Hub, or it is private"):
        hub.read("me/model")
    with pytest.raises(ModelError, match="no model me/model on the Hub, or it is private"):
        hub.read("me/model", token="hf_yours")
    with pytest.raises(ModelError, match="does not accept your token"):
        hub.read("me/model", token="hf_nobody")
    hub.read("me/model", token="hf_mine")
    assert "or it is private" in hub.read("me/model").stale  # it lies in the cache by now
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    hub.read("me/model")
    assert not [r for r in server.requests if r.path.startswith("/storage/") and r.token]


def test_what_is_not_on_the_hub_is_said(server, sound):
    publish(server, "me/model", sound)
    with pytest.raises(ModelError, match="no folder and no model me/nothing on the Hub"):
        hub.read("me/nothing")
    with pytest.raises(ModelError, match="me/model has no revision v9"):
        hub.read("me/model@v9")


def test_messages_never_hold_the_token(server, sound, capfd):
    publish(server, "me/model", sound)
    for fault in (500, "cut"):
        server.faults[:] = [Fault("/api/models/", fault)]
        with pytest.raises(ModelError) as raised:
            hub.read("me/model", token="hf_mine")
        error: BaseException | None = raised.value
        while error is not None:
            assert "hf_mine" not in f"{error!s} {error!r}"
            error = error.__cause__
    captured = capfd.readouterr()
    assert "hf_mine" not in captured.out + captured.err


# The Space's card


def test_space_installs_a_gradio_that_the_requirements_allow():
    from packaging.requirements import Requirement

    root = Path(__file__).parents[1]
    card = yaml.safe_load((root / "Space.md").read_text().split("---\n")[1])
    lines = [line.split("#")[0].strip() for line in (root / "requirements.txt").read_text().splitlines()]
    gradio = next(r for r in map(Requirement, filter(None, lines)) if r.name == "gradio")
    assert gradio.specifier.contains(card["sdk_version"])
    assert (root / card["app_file"]).name == "app.py"
    assert len(card["short_description"]) <= 60


def test_hub_needs_no_training_and_no_gradio():
    code = "import sys, genlab.hub; print([m for m in ('gradio', 'training', 'datasets', 'accelerate') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True
    )
    assert done.stdout.strip() == "[]"
