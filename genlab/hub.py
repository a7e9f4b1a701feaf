"""How a model travels: to a folder and back, to the Hub and back.

A model is a folder: config.json (what it is), model.safetensors (its weights), metrics.json (how it was trained and measured),
README.md (the model card), and pictures. A folder on disk and a commit on the Hub are the same thing to the loader, which
trusts neither: it takes files of these names only, bounds their sizes, compares every download with the hash that the Hub
states, and accepts a configuration, weights and pictures only if they are exactly what they should be.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
import tempfile
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, overload

import huggingface_hub as client
import torch
from huggingface_hub import errors as client_errors
from huggingface_hub.utils import httpx
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from genlab import __version__
from genlab.card import REPO_ID, write_card
from genlab.config import DataSpec, DDPMConfig, VAEConfig, expanded
from genlab.data import KNOWN, Dataset, grid, ungrid
from genlab.ddpm import DDPM
from genlab.vae import VAE

PRETRAINED = Path(__file__).parent / "pretrained"
"""The models that ship, a folder each."""
EXAMPLES = 256
"""Held-out pictures that travel with a model."""
EXAMPLE_COLUMNS = 16
MAX_PARAMETERS = 200_000_000
MAX_HEADER = 1_000_000
"""Bytes of the header of model.safetensors, which lists the tensors."""
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
    "README.md": 1_000_000,
}
"""The files of a model, and the most bytes each may have."""
REQUIRED = ("config.json", "model.safetensors")
PATIENCE = 10.0
"""Seconds to wait for the Hub's first answer."""
MODELS: dict[str, tuple[type[DDPM] | type[VAE], type[DDPMConfig] | type[VAEConfig]]] = {
    "ddpm": (DDPM, DDPMConfig),
    "vae": (VAE, VAEConfig),
}
REFUSALS = {
    401: "the Hub does not accept your token: run `hf auth login` with a valid one (HF_TOKEN, where set, goes first)",
    403: "your Hub token does not allow this for {repo_id}: use one that may write, or change --repo-id",
    409: "{repo_id} was changed by somebody else at the same moment: push again",
    412: "{repo_id} was changed by somebody else at the same moment: push again",
    413: "the Hub refuses files of this size for {repo_id}",
    429: "the Hub asks for patience (too many requests): try again in some minutes",
}
"""HTTP status of the Hub → what it means."""
METRICS: dict[str, type] = {
    "dataset": str,
    "training": dict,
    "training.options": dict,
    "training.options.dataset": str,
    "loss": dict,
    "loss.training": dict,
    "loss.held_out": dict,
    "evaluation": dict,
}
"""What the card counts on in metrics.json, where it is there at all; an object comes before what is in it."""
HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)

Model = TypeVar("Model", DDPM, VAE)
Network = TypeVar("Network", bound=nn.Module)


class HubError(RuntimeError):
    """The Hub, or a model folder, cannot be used; the message says what to do.

    Attributes:
        text: the message, or where there are `values`, the form that they fill by `str.format`.
        values: by their names in the form; one of them may be an error itself.
    """

    def __init__(self, text: str, /, **values: Any) -> None:
        super().__init__(text.format(**values) if values else text)
        self.text, self.values = text, values


@dataclass(frozen=True)
class Package:
    """A model and what travels with it.

    Attributes:
        model: in evaluation mode, on the CPU, laid out as it is fastest there.
        metrics: content of metrics.json; empty where there is none.
        examples: (N C H W) uint8 held-out pictures, N = 0 where none travel with the model.
        labels: (N) their classes, or None.
        source: the folder or Hub id it came from.
        revision: its commit on the Hub, 40 hexadecimal digits, or None for a folder.
        folder: where its files lie on this machine.
    """

    model: DDPM | VAE
    metrics: dict[str, Any]
    examples: Tensor
    labels: Tensor | None
    source: str
    revision: str | None
    folder: Path


# Writing


def save(folder: Path, model: DDPM | VAE, metrics: dict[str, Any], examples: Dataset, half: bool = False) -> None:
    """Write a model folder.

    The files are written beside it first and moved in when all are whole; pictures that lie in the folder stay there.

    Args:
        metrics: how the model was trained and measured; paths in it are cut down to their last part. Where the folder has
            measurements of the very same weights, they stay.
        examples: held-out pictures, of which the first 256 go along.
        half: store the weights as float16, half the size; they are float32 again when they are read.

    Raises:
        HubError: a weight (as it is stored) or a number in `metrics` is not finite.
    """
    dtype = torch.float16 if half else torch.float32
    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise HubError(f"{name}: expected finite weights, got nan or inf; the model was not written")
    config = {"genlab": __version__, "kind": model.kind, "model": asdict(model.config), "data": asdict(model.data)}
    shown = examples.images[:EXAMPLES]
    labels = None if examples.labels is None else examples.labels[:EXAMPLES].tolist()
    metrics = _without_paths(metrics)
    if examples.source.startswith("Hub: "):
        metrics = {**metrics, "dataset": examples.source.removeprefix("Hub: ")}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as new:
        fresh = Path(new)
        _write_json(fresh / "config.json", config)
        save_file(weights, fresh / "model.safetensors")
        metrics = _measured(folder, fresh / "model.safetensors") | metrics
        _write_json(fresh / "metrics.json", metrics)
        grid(shown, columns=EXAMPLE_COLUMNS).save(fresh / "examples.png", optimize=True)
        _write_json(fresh / "examples.json", {"count": len(shown), "columns": EXAMPLE_COLUMNS, "labels": labels}, indent=None)
        for file in sorted(fresh.iterdir()):
            file.chmod(0o644)
            file.replace(folder / file.name)
    refresh_card(folder)


def _measured(folder: Path, weights: Path) -> dict[str, Any]:
    """What the folder's metrics.json has measured of these weights; nothing where it is of others, or not to be read."""
    try:
        before = _read_json(folder / "metrics.json")
        measured = before["evaluation"]["model_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    except (OSError, HubError, KeyError, TypeError):
        return {}
    return {key: before[key] for key in ("schema", "evaluation") if key in before} if measured else {}


def refresh_card(folder: Path) -> None:
    """Write the folder's README.md anew from its config.json and metrics.json."""
    config = _read_json(folder / "config.json")
    _checked_config(config)
    metrics = _without_paths(_metrics(folder))
    trained_on = metrics.get("training", {}).get("options", {}).get("dataset")
    dataset = metrics.get("dataset") or (KNOWN[trained_on][0] if trained_on in KNOWN else None)
    parameters = sum(math.prod(shape) for shape in _header(folder / "model.safetensors").values())
    pictures = [name for name in MAX_BYTES if name.endswith(".png") and (folder / name).exists()]
    text = write_card(config, metrics, parameters, pictures, dataset)
    fresh = folder / ".README.md"
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(folder / "README.md")


def _write_json(path: Path, value: dict[str, Any], indent: int | None = 2) -> None:
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise HubError(f"{path.name}: expected finite numbers, got nan or inf; the model was not written") from error
    path.write_text(text + "\n", encoding="utf-8")


def _without_paths(value: Any, name: str = "") -> Any:
    """The same JSON value with every path cut down to its last part: nothing about the machine is published."""
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
    except ValueError:  # a quotation without its end: no command of ours
        given = value.split()
    words = [re.fullmatch(r"(--[\w-]+=)?(.*)", word, re.DOTALL) for word in given]
    return shlex.join((found[1] or "") + _last_part(found[2]) for found in words if found)


def _last_part(text: str) -> str:
    return Path(text).name if text.startswith(("/", "~", "./", "../")) else text


# Reading


@overload
def load(source: str | Path, cls: type[Model], revision: str | None = None, token: str | None = None) -> Model: ...
@overload
def load(source: str | Path, cls: None = None, revision: str | None = None, token: str | None = None) -> DDPM | VAE: ...
def load(source: str | Path, cls: type[Any] | None = None, revision: str | None = None, token: str | None = None) -> DDPM | VAE:
    """The model of `read`.

    Raises:
        HubError: see `read`; or the model is not a `cls`.
    """
    model = read(source, revision, token).model
    if cls is not None and not isinstance(model, cls):
        raise HubError(
            f"{source}: expected a {cls.__name__}, got a {type(model).__name__}: load it with {type(model).__name__}"
        )
    return model


def read(source: str | Path, revision: str | None = None, token: str | None = None) -> Package:
    """A model and what travels with it.

    Args:
        source: a model's folder, or a run's; the name of one that ships (`ddpm-mnist`); or a model on the Hub, `user/name` or
            `user/name@revision`. A folder of that name goes first.
        revision: branch, tag or commit on the Hub. A full commit that was pulled before needs no connection.
        token: Hub token; the client's own (`hf auth login`, HF_TOKEN) where none is given.

    Raises:
        HubError: the model is not there, or anything about it is not as it should be.
    """
    folder = find(source) or expanded(source)
    if folder.is_dir():
        if revision is not None:
            raise HubError("{source} is a folder: expected no revision, got {revision}", source=source, revision=revision)
        return _package(folder, str(source), None)
    found = HUB_ID.fullmatch(str(source)) if isinstance(source, str) else None
    if found is None:
        raise HubError(
            "no model {source!r}: expected an existing folder, one of {shipped}, or user/name or user/name@revision on the Hub",
            source=str(source),
            shipped=", ".join(folder.name for folder in shipped()),
        )
    if found[2] and revision and found[2] != revision:
        raise HubError("{source}: expected one revision, got {one} and {other}", source=source, one=found[2], other=revision)
    wanted = revision or found[2]
    if wanted and (not re.fullmatch(r"\w[\w./-]*", wanted, re.ASCII) or ".." in wanted):
        raise HubError("{repo_id}: expected a branch, tag or commit, got {got!r:.100}", repo_id=found[1], got=wanted)
    folder, commit = _pull(found[1], wanted, token)
    return _package(folder, found[1], commit)


def shipped() -> list[Path]:
    """The folders of the models that ship, by name."""
    return sorted(config.parent for config in PRETRAINED.glob("*/config.json"))


def find(model: str | Path) -> Path | None:
    """The folder of a model: in a run's, its own, or one that ships; None where it is to be looked for on the Hub."""
    given = expanded(model)
    places = (given / "model", given, PRETRAINED / model)
    return next((place for place in places if (place / "config.json").is_file()), None)


def _package(folder: Path, source: str, revision: str | None) -> Package:
    """The content of a model folder, every part checked."""
    try:
        for name in REQUIRED:
            if not (folder / name).is_file():
                raise HubError(
                    "expected config.json and model.safetensors, got no {name}; genlab reads no other format", name=name
                )
        for name, most in MAX_BYTES.items():
            if (folder / name).exists() and (size := (folder / name).stat().st_size) > most:
                raise HubError("{name}: expected at most {most:,} bytes, got {got:,}", name=name, most=most, got=size)
        cls, config, data = _checked_config(_read_json(folder / "config.json"))
        model = _model(cls, config, data, folder / "model.safetensors")
        if isinstance(model, DDPM):  # a sixth faster on a CPU; a VAE is slower that way
            model.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        metrics = _metrics(folder)
        examples, labels = _examples(folder, data)
    except HubError as error:
        raise HubError("{source}: {error}", source=f"{source}@{revision}" if revision else source, error=error) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise HubError("{source}: cannot be read ({reason})", source=source, reason=reason) from error
    return Package(model, metrics, examples, labels, source, revision, folder)


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file: no repeated key, no number that is not finite, no text that is not Unicode."""

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
        json.dumps(value, ensure_ascii=False).encode()  # fails where a text holds half of a surrogate pair
    except (ValueError, RecursionError) as error:
        raise HubError("{name}: expected JSON, got other content ({reason})", name=path.name, reason=error) from error
    if not isinstance(value, dict):
        raise HubError("{name}: expected a JSON object, got {got}", name=path.name, got=type(value).__name__)
    return value


def _metrics(folder: Path) -> dict[str, Any]:
    """The content of metrics.json, empty where there is none; its parts are of the types that the card counts on."""
    metrics = _read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
    for where, wanted in METRICS.items():
        *above, name = where.split(".")
        place = metrics
        for key in above:
            place = place.get(key, {})
        if name in place and not isinstance(place[name], wanted):
            raise HubError(
                "metrics.json: {where}: expected {wanted}, got {got!r:.100}",
                where=where,
                wanted=wanted.__name__,
                got=place[name],
            )
    return metrics


def _checked_config(config: dict[str, Any]) -> tuple[type[DDPM] | type[VAE], DDPMConfig | VAEConfig, DataSpec]:
    _check_keys("config.json", config, {"genlab", "kind", "model", "data"})
    if not isinstance(config["genlab"], str) or len(config["genlab"]) > 50:
        raise HubError("config.json: genlab: expected a version, got {got!r:.100}", got=config["genlab"])
    if not isinstance(config["kind"], str) or config["kind"] not in MODELS:
        raise HubError(
            "config.json: kind: expected one of {kinds}, got {got!r:.100}", kinds=", ".join(MODELS), got=config["kind"]
        )
    cls, schema = MODELS[config["kind"]]
    return cls, _build(schema, config["model"], "model"), _build(DataSpec, config["data"], "data")


def _check_keys(where: str, value: dict[str, Any], expected: set[str]) -> None:
    for key in expected - value.keys():
        raise HubError("{where}: expected the key {key!r}, which is missing", where=where, key=key)
    for key in value.keys() - expected:
        raise HubError("{where}: unknown key {key!r:.100}; a newer genlab may know it", where=where, key=key)


def _build(schema: type[Any], value: Any, where: str) -> Any:
    """An instance of a dataclass from JSON: exactly its fields, each of its type, each within its range."""
    if not isinstance(value, dict):
        raise HubError("config.json: {where}: expected an object, got {got!r:.100}", where=where, got=value)
    _check_keys(f"config.json: {where}", value, {field.name for field in fields(schema)})
    hints = typing.get_type_hints(schema)
    content = {name: _typed(hints[name], given, f"{where}.{name}") for name, given in value.items()}
    try:
        return schema(**content)
    except ValueError as error:
        raise HubError("config.json: {where}: {reason}", where=where, reason=error) from error


def _typed(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return _build(typing.cast("type[Any]", hint), value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise HubError("config.json: {where}: expected a list, got {got!r:.100}", where=where, got=value)
        return tuple(_typed(get_args(hint)[0], item, where) for item in value)
    wanted = str if get_origin(hint) is Literal else hint
    allowed = (int, float) if wanted is float else wanted
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise HubError(
            "config.json: {where}: expected {wanted}, got {got!r:.100}", where=where, wanted=wanted.__name__, got=value
        )
    return value


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, float32 or float16, without reading them."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise HubError(
                "model.safetensors: expected a header of at most {most:,} bytes, got {got:,}", most=MAX_HEADER, got=length
            )
        raw = file.read(length)
    try:
        entries = json.loads(raw)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            if entry["dtype"] not in ("F32", "F16"):
                raise HubError("{name}: expected float32 or float16, got {got!r:.20}", name=name, got=entry["dtype"])
        return {name: tuple(int(side) for side in entry["shape"]) for name, entry in entries.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise HubError("model.safetensors: expected a safetensors file, got other content") from error


def _model(cls: type[Network], config: Any, data: DataSpec, path: Path) -> Network:
    """The network of a configuration with exactly the weights of a file."""
    try:
        with torch.device("meta"), _WithoutInit():
            expected = {name: tuple(tensor.shape) for name, tensor in cls(config, data).state_dict().items()}
    except (ValueError, RuntimeError, MemoryError) as error:
        raise HubError("config.json: {reason}", reason=error) from error
    parameters = sum(math.prod(shape) for shape in expected.values())
    if parameters > MAX_PARAMETERS:
        raise HubError("config.json: expected at most {most:,} parameters, got {got:,}", most=MAX_PARAMETERS, got=parameters)
    given = _header(path)
    for name in expected.keys() - given.keys():
        raise HubError("{name}: expected this tensor in model.safetensors, which lacks it", name=name)
    for name in given.keys() - expected.keys():
        raise HubError("model.safetensors: unexpected tensor {name!r:.100}", name=name)
    for name, shape in expected.items():
        if given[name] != shape:
            raise HubError("{name}: expected shape {shape}, got {got}", name=name, shape=shape, got=given[name])
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise HubError("model.safetensors: expected a safetensors file, got a damaged one ({reason})", reason=error) from error
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise HubError("{name}: expected finite weights, got nan or inf", name=name)
    with _WithoutInit():
        model = cls(config, data)
    model.load_state_dict(tensors)
    return model.eval()


class _WithoutInit(TorchFunctionMode):
    """Layers made within it keep whatever their memory holds: every weight is about to be loaded."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _examples(folder: Path, data: DataSpec) -> tuple[Tensor, Tensor | None]:
    """The pictures that travel with a model (N C H W) and their labels (N)."""
    present = [(folder / name).exists() for name in ("examples.json", "examples.png")]
    if not all(present):
        if any(present):
            raise HubError("expected examples.json and examples.png together, got one of them")
        return torch.empty(0, *data.shape, dtype=torch.uint8), None
    notes = _read_json(folder / "examples.json")
    _check_keys("examples.json", notes, {"count", "columns", "labels"})
    count, columns, labels = notes["count"], notes["columns"], notes["labels"]
    for name, value in (("count", count), ("columns", columns)):
        if type(value) is not int or not 1 <= value <= EXAMPLES:
            raise HubError(
                "examples.json: {name}: expected a whole number from 1 to {most}, got {got!r:.100}",
                name=name,
                most=EXAMPLES,
                got=value,
            )
    if labels is not None:
        whole = isinstance(labels, list) and len(labels) == count
        if not whole or not all(type(label) is int and -1 <= label < len(data.classes) for label in labels):
            raise HubError(
                "examples.json: labels: expected {count} whole numbers below {classes}, -1 for none, or null",
                count=count,
                classes=len(data.classes),
            )
    mode = "L" if data.channels == 1 else "RGB"
    side = (columns * (data.size + 2) + 2, -(-count // columns) * (data.size + 2) + 2)
    try:
        with Image.open(folder / "examples.png", formats=("PNG",)) as sheet:
            if (sheet.size, sheet.mode, getattr(sheet, "n_frames", 1)) != (side, mode, 1):
                raise HubError(
                    "examples.png: expected {mode} of {side}, got {got} of {size}",
                    mode=mode,
                    side=side,
                    got=sheet.mode,
                    size=sheet.size,
                )
            sheet.load()
            pictures = ungrid(sheet, count, data.size, columns)
    except HubError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HubError("examples.png: expected a PNG, got a damaged or other file") from error
    return pictures, None if labels is None else torch.tensor(labels)


# From the Hub


def _pull(repo_id: str, revision: str | None, token: str | None) -> tuple[Path, str]:
    """The files of a model in the client's cache, each with the content that the Hub states, and their commit."""
    with _sentences(repo_id, revision):
        if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
            cached = _cached(repo_id, revision)
            if cached is not None:
                return cached
        api = client.HfApi(token=token, library_name="genlab", library_version=__version__)
        try:
            info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=PATIENCE)
        except (httpx.HTTPError, OSError) as error:
            if _answered(error) or (cached := _cached(repo_id, revision)) is None:
                raise
            return cached
        files = {file.rfilename: file for file in info.siblings or [] if file.rfilename in MAX_BYTES}
        for name in REQUIRED:
            if name not in files:
                raise HubError(
                    "{repo_id} is no genlab model: expected config.json and model.safetensors, got no {name}",
                    repo_id=repo_id,
                    name=name,
                )
        for name, file in files.items():
            if (file.size or 0) > MAX_BYTES[name]:
                raise HubError(
                    "{name}: expected at most {most:,} bytes, got {got:,}",
                    name=f"{repo_id}: {name}",
                    most=MAX_BYTES[name],
                    got=file.size,
                )
        commit = info.sha or ""
        stated = {name: file.lfs.sha256 if file.lfs else file.blob_id or "" for name, file in files.items()}
        for again in (False, True):
            folder = Path(
                client.snapshot_download(
                    repo_id, revision=commit, allow_patterns=list(files), token=token, force_download=again
                )
            )
            damaged = _damaged(folder, stated)
            if damaged is None:
                _remember(folder, revision or "main")
                return folder, commit
        raise HubError(
            "{repo_id}: {name} arrived damaged twice: its content is not what the Hub states. "
            "Try again later, or from another network",
            repo_id=repo_id,
            name=damaged,
        )


def _remember(folder: Path, revision: str) -> None:
    """Note in the client's cache that a branch or tag now stands for this snapshot, which has been found whole."""
    ref = folder.parent.parent / "refs" / revision
    if revision != folder.name:
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(folder.name)


def _cached(repo_id: str, revision: str | None) -> tuple[Path, str] | None:
    """The files of a revision that was pulled before, if all are there and whole; asks nobody."""
    try:
        folder = Path(
            client.snapshot_download(repo_id, revision=revision, allow_patterns=list(MAX_BYTES), local_files_only=True)
        )
        entries = client.get_cached_repo_tree(repo_id, revision=folder.name)
    except (OSError, ValueError, client_errors.CachedRepoTreeNotFoundError):
        return None
    stated = {entry.path: entry.blob_id for entry in entries if entry.path in MAX_BYTES}
    return None if _damaged(folder, stated) or not set(REQUIRED) <= stated.keys() else (folder, folder.name)


def _damaged(folder: Path, stated: dict[str, str]) -> str | None:
    """The first file whose content does not have the hash that the Hub states for it, or None."""
    return next((name for name, digest in stated.items() if not _holds(folder / name, digest)), None)


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and digest in _digests(path.read_bytes())


def _digests(content: bytes) -> tuple[str, ...]:
    """The names that the Hub may know a file by: its SHA-256 (large files), Git's id of it, Git's id of its LFS pointer."""
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    return sha256, *(hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest() for stored in (content, pointer))


# To the Hub


def authorise(kind: str, dataset: str, repo_id: str | None = None) -> str:
    """The repository to push to, `<you>/genlab-<kind>-<dataset>` where none is named, once the token is known to allow it.

    Nothing is written to the Hub.

    Raises:
        HubError: there is no token, it is not valid, it may not write, or the namespace belongs to somebody else.
    """
    if repo_id is not None:
        try:
            client.utils.validate_repo_id(repo_id)
            valid = HUB_ID.fullmatch(repo_id) and "@" not in repo_id
        except client_errors.HFValidationError:
            valid = None
        if not valid:
            raise HubError(
                f"--repo-id: expected you/name (letters, digits, '_', single '-' and '.', at most 96), got {repo_id!r}"
            )
    with _sentences(repo_id or "your account", None):
        token = client.get_token()
        if token is None:
            raise HubError("you are not logged in to the Hub: run `hf auth login`, or set HF_TOKEN, to a token that may write")
        who = client.HfApi().whoami(token=token)
    user = who["name"]
    name = re.sub(r"-{2,}|\.{2,}", "-", re.sub(r"[^A-Za-z0-9._-]+", "-", f"genlab-{kind}-{dataset}")).strip("-.")[:96]
    repo_id = repo_id or f"{user}/{name}"
    namespace = repo_id.split("/")[0]
    roles = {org["name"]: org.get("roleInOrg") for org in who.get("orgs", [])}
    if namespace != user and namespace not in roles:
        mine = ", ".join([user, *roles])
        raise HubError(
            f"you cannot push to {repo_id}: {namespace} is neither you nor an organisation of yours ({mine}); change --repo-id"
        )
    if roles.get(namespace) == "read":
        raise HubError(
            f"you cannot push to {repo_id}: you may only read in {namespace}; ask for the right to write, or change --repo-id"
        )
    access = who.get("auth", {}).get("accessToken", {})
    writable = any(
        scope.get("entity", {}).get("name") in (namespace, repo_id) and "repo.write" in scope.get("permissions", [])
        for scope in access.get("fineGrained", {}).get("scoped", [])
    )
    if access.get("role") == "read" or (access.get("role") == "fineGrained" and not writable):
        raise HubError(
            f"your Hub token cannot push to {repo_id}, it may only read there: make one that may write at "
            f"{client.constants.ENDPOINT}/settings/tokens, then run `hf auth login`"
        )
    return repo_id


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    """Send a model folder to the Hub as one commit, read it back, tag it v1, v2, …; returns the commit's address.

    A push that was interrupted is completed by the next one. What is there already is not sent again.

    Raises:
        HubError: the folder is not a sound model, or the Hub did not take it; the message says what to do.
    """
    _package(folder, str(folder), None)
    if not (folder / "README.md").exists():
        refresh_card(folder)
    content = {name: (folder / name).read_bytes() for name in MAX_BYTES if (folder / name).exists()}
    content["README.md"] = content["README.md"].replace(REPO_ID.encode(), repo_id.encode())
    with _sentences(repo_id, None):
        api = client.HfApi(library_name="genlab", library_version=__version__)
        api.create_repo(repo_id, private=private, exist_ok=True)
        head = api.model_info(repo_id, files_metadata=True)
        if private and not head.private:
            raise HubError(
                f"{repo_id} exists and is public: make it private in its settings, or push to another with --repo-id"
            )
        commit = head.sha or ""
        if not _same(head, content):
            here = {file.rfilename for file in head.siblings or []}
            changes: list[client.CommitOperationAdd | client.CommitOperationDelete] = [
                client.CommitOperationAdd(name, value) for name, value in content.items()
            ]
            changes += [client.CommitOperationDelete(name) for name in MAX_BYTES if name in here - content.keys()]
            message = f"Push {_read_json(folder / 'config.json')['kind']} with genlab {__version__}"
            commit = api.create_commit(repo_id, changes, commit_message=message, parent_commit=commit).oid
            if not _same(api.model_info(repo_id, revision=commit, files_metadata=True), content):
                raise HubError(f"{repo_id}: the Hub holds other content than was sent: push again")
        tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id).tags}
        if commit not in tags.values():
            number = next(i for i in range(1, len(tags) + 2) if f"v{i}" not in tags)
            api.create_tag(repo_id, tag=f"v{number}", revision=commit)
        return f"{client.constants.ENDPOINT}/{repo_id}/commit/{commit}"


def _same(info: client.ModelInfo, content: dict[str, bytes]) -> bool:
    """Whether a commit holds these files, and no other file of a model."""
    there = {file.rfilename: file for file in info.siblings or [] if file.rfilename in MAX_BYTES}
    if there.keys() != content.keys():
        return False
    return all((file.lfs.sha256 if file.lfs else file.blob_id) in _digests(content[name]) for name, file in there.items())


# What went wrong, in a sentence


def _answered(error: Exception) -> bool:
    """Whether the Hub itself said no: it is there, and an older copy is no substitute."""
    response = getattr(error, "response", None)
    return response is not None and response.status_code < 500 and response.status_code != 429


@contextmanager
def _sentences(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turns what the client raises into a HubError that says what to do, in words that hold nothing of the client's message."""
    try:
        yield
    except HubError:
        raise
    except (OSError, httpx.HTTPError, client_errors.HFValidationError, RuntimeError, ValueError, LookupError) as error:
        raise _explained(error, repo_id, revision) from error


def _explained(error: BaseException, repo_id: str, revision: str | None) -> HubError:
    values: dict[str, Any] = {"repo_id": repo_id, "hub": client.constants.ENDPOINT}
    if isinstance(error, client_errors.GatedRepoError):
        return HubError("{repo_id} is gated: accept its conditions at {hub}/{repo_id}, then run `hf auth login`", **values)
    if isinstance(error, client_errors.RepositoryNotFoundError):
        return HubError(
            "no folder and no model {repo_id} on the Hub, or it is private: check the name, "
            "or run `hf auth login` with a token that sees it",
            **values,
        )
    if isinstance(error, client_errors.RevisionNotFoundError):
        values["revision"] = revision
        return HubError("{repo_id} has no revision {revision}: look at {hub}/{repo_id}/commits/main", **values)
    if isinstance(error, client_errors.EntryNotFoundError) and isinstance(error, client_errors.HfHubHTTPError):
        return HubError("{repo_id}: a file of the model is gone from the Hub: try again", **values)
    if isinstance(error, client_errors.HfHubHTTPError):
        status = error.response.status_code
        form = REFUSALS.get(status)
        if form is not None:
            return HubError(form, **values)
        return HubError("the Hub at {hub} answered with error {status}: try again later", status=status, **values)
    if isinstance(error, client_errors.HFValidationError):
        return HubError("expected user/name, got {repo_id!r}", **values)
    if isinstance(error, client_errors.OfflineModeIsEnabled):
        return HubError("{repo_id} is not in the cache and HF_HUB_OFFLINE is set: unset it", **values)
    if isinstance(error, (client_errors.LocalEntryNotFoundError, httpx.HTTPError)):
        return HubError("the Hub at {hub} cannot be reached, and {repo_id} is not in the cache: check the connection", **values)
    if isinstance(error, OSError) and error.strerror:
        return HubError("{repo_id}: {reason}", reason=error.strerror, **values)
    if error.__cause__ is not None:
        return _explained(error.__cause__, repo_id, revision)
    return HubError("{repo_id}: the Hub could not be used ({reason}): try again", reason=type(error).__name__, **values)
