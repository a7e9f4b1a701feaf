"""Find and read data sets of pictures, and convert between 8-bit pixels and the models' [−1, 1].

A data set is a name that genlab knows (`fashion-mnist`, `mnist`), a folder of pictures, or a data set on the Hub (`user/name`).
Reading gives one tensor of 8-bit pixels that stays in memory: 60,000 pictures of 28×28 are 47 MB. A picture that cannot be read
raises an error with its name: no picture is skipped.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import math
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from genlab import emoji
from genlab.config import EMOJI, KNOWN, MAX_SIZE, DataSpec, dataset_name, expanded, on_hub

Split = Literal["train", "test"]
Check = Callable[[DataSpec], None]
"""Called with the specification of the data before the pictures are read; raises ValueError if a model cannot use them."""

FONTS = {".ttf", ".otf", ".ttc"}
DEBIAN = Path("/usr/share/datasets")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 50_000_000
"""Largest picture that is decoded, since a file of a few kilobytes can expand to billions of pixels."""
HELD_OUT = 10
"""One picture in this many is held out for testing if the data set has no test split."""
HUB_SECONDS = 10.0
"""Timeout of the first request to the Hub."""


class DataError(ValueError):
    """A data set is missing or unusable; the message says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Pictures in memory.

    Attributes:
        spec: name, channels, size, classes.
        images: (N C H W) uint8.
        labels: (N) int64, or None.
        source: where they came from, for messages.
    """

    spec: DataSpec
    images: Tensor
    labels: Tensor | None
    source: str

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def sha256(self) -> str:
        """Return the hash of the pixels and labels."""
        digest = hashlib.sha256(self.images.numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()


def to_model(pixels: Tensor) -> Tensor:
    """Return 8-bit pixels 0…255 as float32 in [−1, 1]."""
    return pixels.float() / 127.5 - 1


def as_model(values: Tensor) -> Tensor:
    """Return 8-bit pixels as float32 in [−1, 1], values of any other type unchanged."""
    return to_model(values) if values.dtype == torch.uint8 else values


def to_pixels(x: Tensor) -> Tensor:
    """Return values in [−1, 1] as 8-bit pixels, rounded and clipped; NaN becomes 0."""
    return ((x.float().nan_to_num(-1.0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def binarise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return x in [−1, 1] dynamically binarised: each pixel is 1 with probability (x + 1)/2, else −1."""
    return torch.bernoulli((x + 1) / 2, generator=generator) * 2 - 1


def grid(pixels: Tensor, columns: int | None = None, gap: int = 2, background: int = 255) -> Image.Image:
    """Return pictures (N C H W) uint8 as one sheet in rows of `columns`, by default `columns_of` their number."""
    count, _, height, width = pixels.shape
    columns = columns or columns_of(count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, pixels.shape[1]), background, np.uint8)
    for i, picture in enumerate(rearrange(pixels, "n c h w -> n h w c").numpy()):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet)


def columns_of(count: int) -> int:
    """Return the number of columns of the most nearly square sheet of `count` pictures that is not higher than wide."""
    return max(1, math.ceil(math.sqrt(count)))


def ungrid(sheet: Image.Image, count: int, size: int, columns: int, gap: int = 2) -> Tensor:
    """Return the pictures (N C H W) uint8 of a sheet made by `grid`."""
    values = np.asarray(sheet)
    values = values[..., None] if values.ndim == 2 else values
    corners = [(gap + i // columns * (size + gap), gap + i % columns * (size + gap)) for i in range(count)]
    pictures = [values[y : y + size, x : x + size] for y, x in corners]
    return torch.from_numpy(rearrange(np.stack(pictures), "n h w c -> n c h w").copy())


def fit(picture: Image.Image, size: int, channels: int) -> Tensor:
    """Return a picture of any mode and size as (C size size) uint8: turned upright, cropped to its middle square, resampled.

    Transparent pixels are composited on white. Of an animation, the current frame is used.

    Raises:
        ValueError: the pixels are floating-point numbers, which have no defined black and white.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise ValueError("expected pixels of 1, 8 or 16 bits, got floating-point numbers")
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (size, size), Image.Resampling.LANCZOS)
    values = np.array(picture)
    return torch.from_numpy(values[None] if channels == 1 else rearrange(values, "h w c -> c h w").copy())


def load(
    name: str,
    split: Split = "train",
    data_dir: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    check: Check = lambda spec: None,
) -> Dataset:
    """Read a data set.

    Args:
        name: `fashion-mnist`, `mnist`, `emoji`, a folder of pictures, the file of an emoji font (see `emoji`), or `user/name`
            on the Hub.
        split: if a data set has no test pictures (no folder `test` beside `train`, no such split on the Hub), a tenth is held
            out: of a folder chosen by the hash of the file name, on the Hub every tenth row. The test pictures of a folder, or
            of a data set on the Hub outside `KNOWN`, are shuffled, always in the same order, so that the first few are of all
            classes.
        data_dir: first folder to search for a data set in `KNOWN`.
        size, channels: to convert the pictures to. By default those of the data set; 32 pixels for a folder, and for pictures
            on the Hub that are not small squares; RGB if any of 32 pictures spread over the data set has colour.
        check: called with the specification of the pictures before they are read.

    Raises:
        DataError: the data set is not found, or cannot be read.
        ValueError: from `check`.
    """
    if name in KNOWN:
        return _known(name, split, data_dir, size, channels, check)
    if name == EMOJI or (expanded(name).suffix.lower() in FONTS and expanded(name).is_file()):
        return _emoji(emoji.FONT if name == EMOJI else expanded(name), split, size, channels, check)
    if name and expanded(name).is_dir():
        return _folder(expanded(name), split, size, channels, check)
    if on_hub(name):
        return _hub(name, dataset_name(name), split, size, channels, check)
    ways = ", ".join([*KNOWN, EMOJI, "an existing folder of pictures or emoji font", "user/name of a data set on the Hub"])
    raise DataError(f"--dataset: expected one of {ways}; got {name!r}")


def _known(name: str, split: Split, data_dir: str | None, size: int | None, channels: int | None, check: Check) -> Dataset:
    hub_id, classes = KNOWN[name]
    searched = [
        ("--data-dir", data_dir),
        ("GENLAB_DATA_DIR", os.environ.get("GENLAB_DATA_DIR")),
        ("Debian's package dataset-fashion-mnist", str(DEBIAN)),
    ]
    for _, root in searched:
        found = _find_idx(expanded(root), name, split) if root else None
        if found:
            images, labels = (read_idx(path) for path in found)
            if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
                raise DataError(f"{found[0]}: expected as many pictures as labels, got {images.shape} and {labels.shape}")
            if int(labels.max()) >= len(classes):
                raise DataError(f"{found[1]}: expected labels below {len(classes)}, got {int(labels.max())}")
            spec = DataSpec(name, channels or 1, size or images.shape[-1], classes)
            check(spec)
            return Dataset(spec, _bring_to(spec, images), torch.from_numpy(labels).long(), str(found[0].parent))
    try:
        dataset = _hub(hub_id, name, split, size, channels, check)
    except DataError as error:
        ways = [f"  {i}. {way}: {root or 'not given'}" for i, (way, root) in enumerate(searched, 1)]
        raise DataError(
            f"data set {name} was not found. It was looked for in\n"
            + "\n".join(ways)
            + f"\n  4. the Hub: {error}\n"
            + "Put its IDX files (train-images-idx3-ubyte.gz, …) into a folder and name it with --data-dir or GENLAB_DATA_DIR, "
            + "install Debian's dataset-fashion-mnist (Fashion-MNIST only), or connect to the Hub."
        ) from error
    return replace(dataset, spec=replace(dataset.spec, classes=classes))


def _emoji(font: Path, split: Split, size: int | None, channels: int | None, check: Check) -> Dataset:
    spec = DataSpec(EMOJI, channels or 3, size or 32, emoji.listed()[1])
    check(spec)
    try:
        rendered = [(each, picture) for each, picture in emoji.draw(font) if each.held_out == (split == "test")]
    except emoji.FontError as error:
        raise DataError(f"--dataset {font if font != emoji.FONT else EMOJI}: {error}") from error
    if split == "test":  # shuffled, so that the first few are of all groups
        rendered.sort(key=lambda one: hashlib.sha256(one[0].name.encode()).digest())
    images = torch.stack([fit(picture, spec.size, spec.channels) for _, picture in rendered])
    return Dataset(spec, images, torch.tensor([each.group for each, _ in rendered]), str(font))


def _find_idx(root: Path, name: str, split: Split) -> tuple[Path, Path] | None:
    """Return the files of pictures and of labels, in `root`/`name` or in `root`; None if they are not there.

    All data sets in this format use the same file names, so a folder named after another data set is skipped.
    """
    stem = "train" if split == "train" else "t10k"
    for folder in (root / name, root):
        if folder.name in KNOWN and folder.name != name:
            continue
        images = _first(folder, f"{stem}-images-idx3-ubyte")
        labels = _first(folder, f"{stem}-labels-idx1-ubyte")
        if images and labels:
            return images, labels
    return None


def _first(folder: Path, stem: str) -> Path | None:
    return next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """Return the array in an IDX file of unsigned bytes (LeCun's format), gzip-compressed or not.

    Raises:
        DataError: the file is cut short, too long, or of another type.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DataError(f"{path}: expected an IDX file of unsigned bytes, got other content; fetch it again")
    rank = raw[3]
    body = raw[4 + 4 * rank :]
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank]) if len(raw) >= 4 + 4 * rank else (-1,)
    if int(np.prod(shape, dtype=object)) != len(body):
        raise DataError(f"{path}: expected {shape} bytes after the header, got {len(body)}; fetch it again")
    return np.frombuffer(body, np.uint8).reshape(shape).copy()


def _bring_to(spec: DataSpec, images: np.ndarray) -> Tensor:
    """Return gray pictures (N H W) uint8 as (N C size size)."""
    if (1, *images.shape[1:]) == spec.shape:
        return torch.from_numpy(images)[:, None]
    return _read_all(lambda i: fit(Image.fromarray(images[i]), spec.size, spec.channels), len(images), spec)


def _folder(root: Path, split: Split, size: int | None, channels: int | None, check: Check) -> Dataset:
    parts = (root / "train", root / "test")
    if all(part.is_dir() for part in parts):
        files = {"train": _pictures_in(parts[0]), "test": _mixed(_pictures_in(parts[1]), root)}
    else:
        ranked = _mixed(_pictures_in(root), root)
        held_out = max(1, round(len(ranked) / HELD_OUT))
        files = {"train": sorted(ranked[held_out:]), "test": ranked[:held_out]}
        parts = (root, root)
    if not files["train"] or not files["test"]:
        raise DataError(
            f"{root}: expected at least 2 pictures, for training and for testing ({', '.join(sorted(SUFFIXES))}), "
            f"got {len(files['train'])} and {len(files['test'])}"
        )
    folders = {_class_of(p, parts[0]) for p in files["train"]} | {_class_of(p, parts[1]) for p in files["test"]}
    classes = tuple(sorted(folders)) if "" not in folders and len(folders) > 1 else ()
    chosen, part = (files["train"], parts[0]) if split == "train" else (files["test"], parts[1])
    if channels is None:
        channels = 3 if any(_is_colour(p, p) for p in _spread(files["train"])) else 1
    spec = DataSpec(_text(dataset_name(root.resolve())), channels, size or 32, classes)
    check(spec)
    images = _read_all(lambda i: _read(chosen[i], chosen[i], spec), len(chosen), spec)
    labels = torch.tensor([classes.index(_class_of(p, part)) for p in chosen]) if classes else None
    return Dataset(spec, images, labels, str(root))


def _pictures_in(root: Path) -> list[Path]:
    """Return the picture files below a folder, sorted; follows links to folders, each folder once; ignores hidden files."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror})") from error

    found = []
    visited = {os.path.realpath(root)}
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        unvisited = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(folder, name))
            if not name.startswith(".") and real not in visited:
                visited.add(real)
                unvisited.append(name)
        folders[:] = unvisited
        paths = [Path(folder, name) for name in names if not name.startswith(".")]
        # A broken link is included, so that reading it fails with its name.
        found += [p for p in paths if p.suffix.lower() in SUFFIXES and (p.is_file() or p.is_symlink())]
    return sorted(found)


def _mixed(files: list[Path], root: Path) -> list[Path]:
    """Return files in a fixed order that mixes the classes: by the hash of their path below `root`."""
    return sorted(files, key=lambda path: hashlib.sha256(os.fsencode(path.relative_to(root))).digest())


def _class_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts
    return _text(parts[0]) if len(parts) > 1 else ""


def _text(name: str) -> str:
    """Return a file's name as valid UTF-8, with replacement characters for bytes that are not."""
    return os.fsencode(name).decode("utf-8", "replace")


def _read_all(read: Callable[[int], Tensor], count: int, spec: DataSpec) -> Tensor:
    """Read pictures 0…count−1, (N C H W), in threads and with a progress bar; the first error is raised."""
    images = torch.empty((count, *spec.shape), dtype=torch.uint8)
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    bar = tqdm(desc=f"reading {spec.name}", total=count, unit="picture", disable=None)  # None: no bar where stderr is a file
    try:
        for first in range(0, count, 256):  # so that an error or an interrupt has few queued reads to cancel
            rows = range(first, min(first + 256, count))
            for i, picture in zip(rows, pool.map(read, rows), strict=True):
                images[i] = picture
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    return images


def _read(source: Path | io.BytesIO, name: object, spec: DataSpec) -> Tensor:
    with _opened(source, name, spec.size) as picture:
        return fit(picture, spec.size, spec.channels)


@contextlib.contextmanager
def _opened(source: Path | io.BytesIO, name: object, size: int) -> Iterator[Image.Image]:
    """Yield a picture, decoded at `size` or more pixels a side; any failure raises a DataError with its name."""
    try:
        with Image.open(source, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{name}: expected at most {MAX_PIXELS} pixels, got {picture.width}×{picture.height}")
            # JPEG only: decodes a large photograph at ½, ¼ or ⅛ of its size, several times faster.
            picture.draft(None, (2 * size, 2 * size))
            picture.load()
            yield picture
    except DataError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{name}: not a picture ({', '.join(FORMATS)}); mend or remove it") from error
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a readable picture ({error}); mend or remove it") from error


def _is_colour(source: Path | io.BytesIO, name: object) -> bool:
    """Return True if red, green and blue differ by more than 8 levels in any pixel of the picture at 32×32."""
    with _opened(source, name, 32) as picture:
        values = fit(picture, 32, 3).short()
    return bool((values.amax(dim=0) - values.amin(dim=0)).max() > 8)


def _spread(items: Any, count: int = 32) -> list[Any]:
    """Return at most `count` items, evenly spaced."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def _hub(hub_id: str, name: str, split: Split, size: int | None, channels: int | None, check: Check) -> Dataset:
    table = _hub_split(_hub_tables(hub_id), split, hub_id)
    import datasets

    column = next((k for k, v in table.features.items() if isinstance(v, datasets.Image)), None)
    if column is None:
        raise DataError(f"{hub_id}: expected a column of pictures, got columns {', '.join(table.features)}")
    label_column = next((k for k, v in table.features.items() if isinstance(v, datasets.ClassLabel)), None)
    classes = tuple(table.features[label_column].names) if label_column else ()
    files = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))

    def named(row: int) -> tuple[Path | io.BytesIO, str]:
        cell = files[row][column]
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise DataError(f"{hub_id}: expected a picture in every row, got none in row {row}")
        return Path(cell["path"]) if cell["bytes"] is None else io.BytesIO(cell["bytes"]), f"{hub_id}, row {row}"

    if size is None:
        with _opened(*named(0), size=MAX_SIZE) as first:
            size = first.width if first.width == first.height and first.width <= 64 else 32
    if channels is None:
        channels = 3 if any(_is_colour(*named(row)) for row in _spread(range(len(files)))) else 1
    spec = DataSpec(name, channels, size, classes)
    check(spec)
    order = list(range(len(files)))
    if split == "test" and hub_id not in {known for known, _ in KNOWN.values()}:
        order.sort(key=lambda row: hashlib.sha256(str(row).encode()).digest())
    images = _read_all(lambda i: _read(*named(order[i]), spec), len(files), spec)
    labels = torch.tensor([-1 if v is None else v for v in table[label_column]])[order] if label_column else None
    return Dataset(spec, images, labels, f"Hub: {hub_id}")


def _hub_tables(hub_id: str) -> Any:
    """Return all splits of a data set on the Hub, or in the local cache if the Hub cannot be reached.

    Raises:
        DataError: the data set cannot be read; the message has the reason in one line.
    """
    try:
        import datasets
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    except ImportError as error:
        raise DataError(f"{hub_id}: the package `datasets` is needed to read it (pip install datasets)") from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    online, reason = True, ""
    try:
        HfApi().dataset_info(hub_id, timeout=HUB_SECONDS)
    except GatedRepoError as error:
        raise DataError(f"{hub_id}: ask for access on its page on the Hub, then log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{hub_id}: no such data set on the Hub, or a private one: log in with `hf auth login`") from error
    except HFValidationError as error:
        raise DataError(f"{hub_id}: not a name on the Hub ({_one_line(error)})") from error
    except Exception as error:  # no connection, offline mode, a server in trouble: the HTTP client's own errors
        online, reason = False, f"the Hub did not answer ({_one_line(error)}), and the data set is not in the local cache"
    try:
        with contextlib.nullcontext() if online else _offline(datasets):
            return datasets.load_dataset(hub_id)
    except Exception as error:  # datasets raises whatever its many backends raise
        raise DataError(f"{hub_id}: {reason or _one_line(error)}") from error


@contextlib.contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Make `datasets` read its cache only: otherwise it retries the Hub for half a minute first."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _one_line(error: Exception, length: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else text[: length - 1] + "…"


def _hub_split(tables: Any, split: Split, hub_id: str) -> Any:
    """Return a split; without a test split, every tenth row of the training split is held out."""
    if "train" not in tables:
        raise DataError(f"{hub_id}: expected a split named train, got {', '.join(tables)}")
    table = tables["train"]
    test = next((tables[name] for name in ("test", "validation") if name in tables), None)
    if len(table) < (1 if test else 2):
        raise DataError(f"{hub_id}: expected pictures to train on and to test with, got {len(table)} in all")
    if test is not None:
        return test if split == "test" else table
    held_out = set(range(0, len(table), HELD_OUT))
    return table.select([i for i in range(len(table)) if (i in held_out) == (split == "test")])
