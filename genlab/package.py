"""Write, find, read and check the folder of a model.

config.json has the configuration, model.safetensors the weights, metrics.json how the model was trained and measured, README.md
is the model card; PNG files are optional. The reader trusts no folder: it reads files of these names only, limits their sizes,
and accepts a configuration, weights and pictures only if their types, ranges and shapes are exactly as expected.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
import shutil
import tempfile
import typing
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from genlab import __version__
from genlab.card import write_card
from genlab.config import EMOJI, KNOWN, DataSpec, expanded
from genlab.data import Dataset, grid, identity, ungrid
from genlab.durable import put, sync_folder
from genlab.measurements import Replay, SchemaError, read_replay, to_json
from genlab.models import KINDS, Config, Model
from genlab.unet import UNet

PRETRAINED = Path(__file__).parent / "pretrained"
"""Folder of the models that ship, each in a folder of its own."""
EXAMPLES = 256
"""Largest number of held-out pictures in a model folder."""
EXAMPLE_COLUMNS = 16
MAX_PARAMETERS = 200_000_000
MAX_HEADER = 1_000_000
"""Largest header of model.safetensors, which lists the tensors, bytes."""
MAX_BYTES = {
    "config.json": 100_000,
    "model.safetensors": 4 * MAX_PARAMETERS + MAX_HEADER,
    "metrics.json": 4_000_000,
    "examples.json": 100_000,
    "examples.png": 64_000_000,
    "samples.png": 64_000_000,
    "loss.png": 8_000_000,
    "ledger.png": 8_000_000,
    "nearest.png": 8_000_000,
    "replay.png": 64_000_000,
    "README.md": 1_000_000,
}
"""File of a model folder → its largest size, bytes."""
REQUIRED = ("config.json", "model.safetensors")
OF_THE_DATA = ("examples.json", "examples.png", "nearest.png")
"""Files with pictures of the data set."""
SHIPPED = Path(__file__).with_name("weights.json")
"""SHA-256 of every file of weights that ships, by its path in genlab/; `tests/test_weights.py` writes it."""
METRICS: dict[str, type] = {
    "dataset": str,
    "training": dict,
    "training.options": dict,
    "training.options.dataset": str,
    "loss": dict,
    "loss.training": dict,
    "loss.held_out": dict,
    "evaluation": dict,
    "times": dict,
    "times.command": str,
    "replay": dict,
}
"""Optional key of metrics.json → its type, which the card relies on; an object comes before its content."""
Network = TypeVar("Network", bound=nn.Module)


class ModelError(RuntimeError):
    """A model cannot be read, written, pulled or pushed; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Film:
    """Moments of a model's training and their pictures.

    Attributes:
        replay: what was measured at each of the M moments.
        pictures: (M 2 S C H W) uint8, S by the weights of the moment and S by the averaged ones, from the same noise.
    """

    replay: Replay
    pictures: Tensor


@dataclass(frozen=True)
class Package:
    """The content of a model folder.

    Attributes:
        model: in evaluation mode, on the CPU, in the memory format that is fastest there.
        metrics: content of metrics.json; empty if there is none.
        examples: (N C H W) uint8 held-out pictures, N = 0 if there are none.
        labels: (N) their classes, or None.
        source: the folder or Hub id it came from.
        revision: its commit on the Hub, 40 hexadecimal digits, or None for a folder.
        folder: where its files lie on this machine.
        stale: why a newer version on the Hub is not this one; empty if there is none.
        film: moments of its training, if they were kept.
    """

    model: Model
    metrics: dict[str, Any]
    examples: Tensor
    labels: Tensor | None
    source: str
    revision: str | None
    folder: Path
    stale: str = ""
    film: Film | None = None

    @property
    def data_identity(self) -> str:
        """Return the hash that identifies the training pictures; without a record of them, that of the held-out examples."""
        recorded = self.metrics.get("training", {}).get("data_sha256")
        examples = hashlib.sha256(self.examples.numpy().tobytes()).hexdigest() if len(self.examples) else self.model.data.name
        return identity(self.model.data, str(recorded or examples))

    @property
    def weights_sha256(self) -> str:
        """Return the SHA-256 of model.safetensors, hexadecimal."""
        return hashlib.sha256((self.folder / "model.safetensors").read_bytes()).hexdigest()


# Writing


def write_package(
    folder: Path, model: Model, metrics: dict[str, Any], examples: Dataset, half: bool = False, film: Film | None = None
) -> None:
    """Write a model folder.

    The files are written to a temporary folder and moved in only when all are complete; other pictures in the folder stay, but
    for those of a film.

    Args:
        metrics: how the model was trained and measured; paths in it are cut down to their last part. Measurements of the same
            weights in the folder's metrics.json are preserved.
        examples: held-out pictures, of which the first 256 are written.
        half: store the weights as float16, half the size; they are read as float32.
        film: moments of its training.

    Raises:
        ModelError: a weight, in the type it is stored in, or a number in `metrics` is not finite.
    """
    dtype = torch.float16 if half else torch.float32
    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"{name}: expected finite weights, got nan or inf; the model was not written")
    config = {"genlab": __version__, "kind": model.kind, "model": asdict(model.config), "data": asdict(model.data)}
    pictures = examples.images[:EXAMPLES]
    labels = None if examples.labels is None else examples.labels[:EXAMPLES].tolist()
    metrics = _without_paths(metrics)
    if examples.source.startswith("Hub: "):
        metrics = {**metrics, "dataset": examples.source.removeprefix("Hub: ")}
    if film is not None:
        metrics = {**metrics, "replay": to_json(film.replay)}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as new:
        fresh = Path(new)
        write_json(fresh / "config.json", config)
        save_file(weights, fresh / "model.safetensors")
        metrics = _measured(folder, fresh / "model.safetensors") | metrics
        write_json(fresh / "metrics.json", metrics)
        if len(pictures):
            grid(pictures, columns=EXAMPLE_COLUMNS).save(fresh / "examples.png", optimize=True)
            listing = {"count": len(pictures), "columns": EXAMPLE_COLUMNS, "labels": labels}
            write_json(fresh / "examples.json", listing, indent=None)
        if film is not None:
            write_film(fresh / "replay.png", film)
        else:
            (folder / "replay.png").unlink(missing_ok=True)
        for file in sorted(fresh.iterdir()):
            file.chmod(0o644)
            put(file, folder / file.name)
    refresh_card(folder)


def write_film(path: Path, film: Film) -> None:
    """Write the pictures of a film as one PNG, a row for each moment."""
    grid(film.pictures.flatten(0, 2), columns=2 * film.replay.samples).save(path, optimize=True)


def _measured(folder: Path, weights: Path) -> dict[str, Any]:
    """Return the evaluation in the folder's metrics.json if it is of these weights and can be read, else {}."""
    try:
        before = read_json(folder / "metrics.json")
        measured = before["evaluation"]["model_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    except (OSError, ModelError, KeyError, TypeError):
        return {}
    return {key: before[key] for key in ("schema", "evaluation") if key in before} if measured else {}


def refresh_card(folder: Path) -> None:
    """Write the folder's README.md from its config.json and metrics.json."""
    config = read_json(folder / "config.json")
    check_config(folder)
    metrics = _without_paths(_metrics(folder))
    trained_on = metrics.get("training", {}).get("options", {}).get("dataset")
    dataset = metrics.get("dataset") or (KNOWN[trained_on][0] if trained_on in KNOWN else None)
    parameters = sum(math.prod(shape) for shape in _header(folder / "model.safetensors").values())
    pictures = [name for name in MAX_BYTES if name.endswith(".png") and (folder / name).exists()]
    text = write_card(config, metrics, parameters, pictures, dataset)
    fresh = folder / ".README.md"
    fresh.write_text(text, encoding="utf-8")
    put(fresh, folder / "README.md")
    sync_folder(folder)


def write_json(path: Path, value: dict[str, Any], indent: int | None = 2) -> None:
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ModelError(f"{path.name}: expected finite numbers, got nan or inf; the model was not written") from error
    path.write_text(text + "\n", encoding="utf-8")


def _without_paths(value: Any, name: str = "") -> Any:
    """Return the JSON value with every path cut down to its last part, so that no path of this machine is published."""
    if isinstance(value, dict):
        return {k: _without_paths(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_paths(v) for v in value]
    if not isinstance(value, str):
        return value
    if name != "command":
        return _last_part(value)
    try:
        given = shlex.split(value)
    except ValueError:  # unbalanced quotes: not written by genlab
        given = value.split()
    words = [re.fullmatch(r"(--[\w-]+=)?(.*)", word, re.DOTALL) for word in given]
    return shlex.join((found[1] or "") + _last_part(found[2]) for found in words if found)


def _last_part(text: str) -> str:
    return Path(text).name if text.startswith(("/", "~", "./", "../")) else text


@contextmanager
def without_pictures(folder: Path) -> Iterator[Path]:
    """Yield a copy of a model folder without pictures of the data set, to publish; it is deleted afterwards."""
    with tempfile.TemporaryDirectory() as copy:
        for name in MAX_BYTES:
            if (folder / name).is_file() and name not in OF_THE_DATA:
                shutil.copyfile(folder / name, Path(copy) / name)
        refresh_card(Path(copy))
        yield Path(copy)


# Reading


def shipped_packages() -> list[Path]:
    """Return the folders of the models that ship, sorted by name, those of emoji last: the page opens on the first."""
    folders = (config.parent for config in PRETRAINED.glob("*/config.json"))
    return sorted(folders, key=lambda folder: (folder.name.endswith(EMOJI), folder.name))


def ships(folder: Path) -> bool:
    """Return True if a folder is that of a model that ships."""
    return folder.resolve().parent == PRETRAINED.resolve()


def find_package(model: str | Path) -> Path | None:
    """Return the folder of a model, given its run's folder, its own, or the name of one that ships; None if there is none."""
    given = expanded(model)
    places = (given / "model", given, PRETRAINED / model)
    return next((place for place in places if (place / "config.json").is_file()), None)


def read_package(folder: Path, source: str | None = None, revision: str | None = None) -> Package:
    """Read and check the content of a model folder.

    Args:
        source, revision: where the folder came from, for error messages; by default its path.

    Raises:
        ModelError: a part of it is missing or invalid.
    """
    source = source or str(folder)
    try:
        for name in REQUIRED:
            if not (folder / name).is_file():
                raise ModelError(missing(name, [file.name for file in folder.iterdir()]))
        for name, most in MAX_BYTES.items():
            if (folder / name).exists() and (size := (folder / name).stat().st_size) > most:
                raise ModelError(f"{name}: expected at most {most:,} bytes, got {size:,}")
        cls, config, data = check_config(folder)
        model = read_network(cls, config, data, folder / "model.safetensors")
        for part in model.modules():
            if isinstance(part, UNet):  # a sixth faster on a CPU; slower for a VAE
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        metrics = _metrics(folder)
        examples, labels = _examples(folder, data)
        film = _film(folder, metrics, data)
    except ModelError as error:
        raise ModelError(f"{source}{f'@{revision}' if revision else ''}: {error}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelError(f"{source}: cannot be read ({reason})") from error
    return Package(model, metrics, examples, labels, source, revision, folder, film=film)


def missing(name: str, names: Collection[str]) -> str:
    """Return the message for a model without a file that it needs, among the names of its files."""
    if "model_index.json" in names:
        return (
            "it is a pipeline of diffusers, which genlab does not read; use it with diffusers (docs/serving.md, Out of genlab)"
        )
    return f"expected config.json and model.safetensors, got no {name}; genlab reads no other format"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; repeated keys, numbers that are not finite and invalid Unicode are errors."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
        return dict(pairs)

    def finite(text: str) -> float:
        if not math.isfinite(float(text)):
            raise ValueError(f"{text} is not finite")
        return float(text)

    try:
        text = path.read_bytes() if path.stat().st_size <= MAX_BYTES[path.name] else b""
        value = json.loads(text, object_pairs_hook=once, parse_float=finite, parse_constant=finite)
        json.dumps(value, ensure_ascii=False).encode()  # fails if a string has half of a surrogate pair
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name}: expected JSON, got other content ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name}: expected a JSON object, got {type(value).__name__}")
    return value


def _metrics(folder: Path) -> dict[str, Any]:
    """Read metrics.json, {} if there is none, and check the types in `METRICS` and the moments of the training."""
    metrics = read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
    for where, wanted in METRICS.items():
        *above, name = where.split(".")
        place = metrics
        for key in above:
            place = place.get(key, {})
        if name in place and not isinstance(place[name], wanted):
            raise ModelError(f"metrics.json: {where}: expected {wanted.__name__}, got {place[name]!r:.100}")
    try:
        read_replay(metrics)
    except SchemaError as error:
        raise ModelError(f"metrics.json: {error}") from error
    return metrics


def check_config(folder: Path) -> tuple[type[Model], Config, DataSpec]:
    """Read and check a folder's config.json; return the class of the model, its configuration and its kind of pictures.

    Raises:
        ModelError: it is not that of a genlab model.
    """
    config = read_json(folder / "config.json")
    if "genlab" not in config:
        raise ModelError("config.json is not that of a genlab model: genlab reads no other format")
    check_keys("config.json", config, {"genlab", "kind", "model", "data"})
    if not isinstance(config["genlab"], str) or len(config["genlab"]) > 50:
        raise ModelError(f"config.json: genlab: expected a version, got {config['genlab']!r:.100}")
    if not isinstance(config["kind"], str) or config["kind"] not in KINDS:
        raise ModelError(f"config.json: kind: expected one of {', '.join(KINDS)}, got {config['kind']!r:.100}")
    cls, schema = KINDS[config["kind"]]
    return cls, build(schema, config["model"], "model"), build(DataSpec, config["data"], "data")


def check_keys(where: str, value: dict[str, Any], expected: set[str]) -> None:
    for key in sorted(expected - value.keys()):
        raise ModelError(f"{where}: expected the key {key!r}, which is missing")
    for key in sorted(value.keys() - expected):
        raise ModelError(f"{where}: unknown key {key!r:.100}; a newer genlab may know it")


def build(schema: type[Any], value: Any, where: str) -> Any:
    """Return an instance of a dataclass from a JSON object, which must have exactly its fields, with valid types and values."""
    if not isinstance(value, dict):
        raise ModelError(f"config.json: {where}: expected an object, got {value!r:.100}")
    check_keys(f"config.json: {where}", value, {field.name for field in fields(schema)})
    hints = typing.get_type_hints(schema)
    content = {name: _typed(hints[name], given, f"{where}.{name}") for name, given in value.items()}
    try:
        return schema(**content)
    except ValueError as error:
        raise ModelError(f"config.json: {where}: {error}") from error


def _typed(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ModelError(f"config.json: {where}: expected a list, got {value!r:.100}")
        return tuple(_typed(get_args(hint)[0], item, where) for item in value)
    wanted = str if get_origin(hint) is Literal else hint
    allowed = (int, float) if wanted is float else wanted
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise ModelError(f"config.json: {where}: expected {wanted.__name__}, got {value!r:.100}")
    return value


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors, float32 or float16, in a safetensors file, without reading the tensors."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise ModelError(f"model.safetensors: expected a header of at most {MAX_HEADER:,} bytes, got {length:,}")
        raw = file.read(length)
    try:
        entries = json.loads(raw)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            if entry["dtype"] not in ("F32", "F16"):
                raise ModelError(f"{name}: expected float32 or float16, got {entry['dtype']!r:.20}")
        return {name: tuple(int(side) for side in entry["shape"]) for name, entry in entries.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError("model.safetensors: expected a safetensors file, got other content") from error


def read_network(cls: type[Network], config: Any, data: DataSpec, path: Path) -> Network:
    """Build the network of a configuration and load its weights, which must match exactly, from a file.

    Raises:
        ModelError: they do not, or are not those that ship under this name.
    """
    _check_shipped(path)
    try:
        with torch.device("meta"), _WithoutInit():
            expected = {name: tuple(tensor.shape) for name, tensor in cls(config, data).state_dict().items()}
    except (ValueError, RuntimeError, MemoryError) as error:
        raise ModelError(f"config.json: {error}") from error
    parameters = sum(math.prod(shape) for shape in expected.values())
    if parameters > MAX_PARAMETERS:
        raise ModelError(f"config.json: expected at most {MAX_PARAMETERS:,} parameters, got {parameters:,}")
    given = _header(path)
    for name in expected.keys() - given.keys():
        raise ModelError(f"{name}: expected this tensor in model.safetensors, which lacks it")
    for name in given.keys() - expected.keys():
        raise ModelError(f"model.safetensors: unexpected tensor {name!r:.100}")
    for name, shape in expected.items():
        if given[name] != shape:
            raise ModelError(f"{name}: expected shape {shape}, got {given[name]}")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ModelError(f"model.safetensors: expected a safetensors file, got a damaged one ({error})") from error
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"{name}: expected finite weights, got nan or inf")
    with _WithoutInit():
        model = cls(config, data)
    model.load_state_dict(tensors)
    return model.eval()


def _check_shipped(path: Path) -> None:
    """Raise ModelError if weights that ship with genlab are not the ones that are listed."""
    stated = json.loads(SHIPPED.read_text()).get(os.path.relpath(path.resolve(), SHIPPED.parent).replace(os.sep, "/"))
    if stated is not None and hashlib.sha256(path.read_bytes()).hexdigest() != stated:
        raise ModelError(
            f"{path.name}: expected the weights that ship with genlab (SHA-256 {stated[:12]}…), got others: install it anew"
        )


class _WithoutInit(TorchFunctionMode):
    """Skips weight initialisation within its context: every weight is loaded afterwards."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _examples(folder: Path, data: DataSpec) -> tuple[Tensor, Tensor | None]:
    """Read the example pictures of a model, (N C H W) uint8, and their labels, (N) or None."""
    present = [(folder / name).exists() for name in ("examples.json", "examples.png")]
    if not all(present):
        if any(present):
            raise ModelError("expected examples.json and examples.png together, got one of them")
        return torch.empty(0, *data.shape, dtype=torch.uint8), None
    listing = read_json(folder / "examples.json")
    check_keys("examples.json", listing, {"count", "columns", "labels"})
    count, columns, labels = listing["count"], listing["columns"], listing["labels"]
    for name, value in (("count", count), ("columns", columns)):
        if type(value) is not int or not 1 <= value <= EXAMPLES:
            raise ModelError(f"examples.json: {name}: expected a whole number from 1 to {EXAMPLES}, got {value!r:.100}")
    if labels is not None:
        whole = isinstance(labels, list) and len(labels) == count
        if not whole or not all(type(label) is int and -1 <= label < len(data.classes) for label in labels):
            classes = len(data.classes)
            raise ModelError(f"examples.json: labels: expected {count} whole numbers below {classes}, -1 for none, or null")
    pictures = read_sheet(folder / "examples.png", count, columns, data)
    return pictures, None if labels is None else torch.tensor(labels)


def _film(folder: Path, metrics: dict[str, Any], data: DataSpec) -> Film | None:
    """Read the moments of a model's training; None if there are none."""
    if ("replay" in metrics) != (folder / "replay.png").exists():
        raise ModelError("expected replay in metrics.json and replay.png together, got one of them")
    return read_film(folder / "replay.png", metrics, data) if "replay" in metrics else None


def read_film(path: Path, metrics: dict[str, Any], data: DataSpec) -> Film:
    """Read the picture of a film, whose moments are in metrics["replay"].

    Raises:
        ModelError: one of both is invalid.
    """
    try:
        replay = read_replay(metrics)
    except SchemaError as error:
        raise ModelError(f"metrics.json: {error}") from error
    assert replay is not None
    moments, columns = len(replay.moments), 2 * replay.samples
    pictures = read_sheet(path, moments * columns, columns, data)
    return Film(replay, pictures.unflatten(0, (moments, 2, replay.samples)))


def read_sheet(path: Path, count: int, columns: int, data: DataSpec) -> Tensor:
    """Return the pictures (N C H W) uint8 of a PNG that `data.grid` made of `count` pictures in rows of `columns`.

    Raises:
        ModelError: the file has another form.
    """
    mode = "L" if data.channels == 1 else "RGB"
    side = (columns * (data.size + 2) + 2, -(-count // columns) * (data.size + 2) + 2)
    try:
        with Image.open(path, formats=("PNG",)) as sheet:
            if (sheet.size, sheet.mode, getattr(sheet, "n_frames", 1)) != (side, mode, 1):
                raise ModelError(f"{path.name}: expected {mode} of {side}, got {sheet.mode} of {sheet.size}")
            sheet.load()
            return ungrid(sheet, count, data.size, columns)
    except ModelError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ModelError(f"{path.name}: expected a PNG, got a damaged or other file") from error
