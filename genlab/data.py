"""Pictures: finding a data set, reading it, and the way between 8-bit pixels and the model's [−1, 1].

A data set is a name that genlab knows (`fashion-mnist`, `mnist`), a folder of pictures, or a data set on the Hub (`user/name`).
Reading gives one tensor of 8-bit pixels that stays in memory: 60,000 pictures of 28×28 are 47 MB.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from genlab.config import DataSpec

Split = Literal["train", "test"]

KNOWN = {
    "fashion-mnist": (
        "zalando-datasets/fashion_mnist",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "mnist": ("ylecun/mnist", tuple("0123456789")),
}
DEBIAN = Path("/usr/share/datasets")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
MAX_PIXELS = 50_000_000
HELD_OUT = 0.1
"""Share of a folder of pictures that is held out for testing."""


class DataError(ValueError):
    """A data set is missing or unusable; the message says what to do."""


@dataclass(frozen=True)
class Dataset:
    """Pictures in memory.

    Attributes:
        spec: name, channels, size, classes.
        images: (N C H W) uint8.
        labels: (N) int64, or None.
        source: where they came from, for people.
    """

    spec: DataSpec
    images: Tensor
    labels: Tensor | None
    source: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """Hash of the pixels and labels."""
        digest = hashlib.sha256(self.images.numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()


def to_model(pixels: Tensor) -> Tensor:
    """8-bit pixels 0…255 → float32 in [−1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """[−1, 1] → 8-bit pixels, rounded, values outside clipped; not a number becomes 0."""
    return ((x.float().nan_to_num(-1.0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def binarise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Dynamic binarisation: each pixel of x in [−1, 1] becomes 1 with probability (x + 1)/2, else −1."""
    return torch.bernoulli((x + 1) / 2, generator=generator) * 2 - 1


def grid(pixels: Tensor, columns: int | None = None, gap: int = 2, background: int = 255) -> Image.Image:
    """Pictures (N C H W) uint8 in rows of `columns` (the square root of N where none is given), as one picture."""
    count, _, height, width = pixels.shape
    columns = columns or max(1, round(count**0.5))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, pixels.shape[1]), background, np.uint8)
    for i, picture in enumerate(rearrange(pixels, "n c h w -> n h w c").numpy()):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return Image.fromarray(sheet.squeeze(-1) if sheet.shape[-1] == 1 else sheet)


def ungrid(sheet: Image.Image, count: int, size: int, columns: int, gap: int = 2) -> Tensor:
    """The pictures (N C H W) uint8 of a sheet made by `grid`."""
    values = np.asarray(sheet)
    values = values[..., None] if values.ndim == 2 else values
    corners = [(gap + i // columns * (size + gap), gap + i % columns * (size + gap)) for i in range(count)]
    pictures = [values[y : y + size, x : x + size] for y, x in corners]
    return torch.from_numpy(rearrange(np.stack(pictures), "n h w c -> n c h w").copy())


def fit(picture: Image.Image, size: int, channels: int) -> Tensor:
    """A picture of any mode and size as (C size size) uint8: turned upright, its middle square, resampled.

    Transparent pixels are laid on white.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = Image.fromarray((np.asarray(picture, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    picture = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (size, size), Image.Resampling.LANCZOS)
    values = np.array(picture)
    return torch.from_numpy(values[None] if channels == 1 else rearrange(values, "h w c -> c h w").copy())


def load(
    name: str, split: Split = "train", data_dir: str | None = None, size: int | None = None, channels: int | None = None
) -> Dataset:
    """Read a data set.

    Args:
        name: `fashion-mnist`, `mnist`, a folder of pictures, or `user/name` on the Hub.
        split: a folder of pictures has no test split of its own: a tenth of it, chosen by the file names, is held out.
        data_dir: folder to look in first for a known data set.
        size, channels: what to bring the pictures to; the data set's own where none is given (32 pixels for folders).

    Raises:
        DataError: the data set is not found, or not usable.
    """
    if name in KNOWN:
        return _known(name, split, data_dir, size, channels)
    if Path(name).expanduser().is_dir():
        return _folder(Path(name).expanduser(), split, size, channels)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _hub(name, name.split("/")[1], split, size, channels)
    raise DataError(
        f"no data set {name!r}: expected {', '.join(KNOWN)}, an existing folder of pictures, or user/name of a data set on the Hub"
    )


def _known(name: str, split: Split, data_dir: str | None, size: int | None, channels: int | None) -> Dataset:
    hub_id, classes = KNOWN[name]
    looked = [
        ("--data-dir", data_dir),
        ("GENLAB_DATA_DIR", os.environ.get("GENLAB_DATA_DIR")),
        ("Debian's package dataset-fashion-mnist", str(DEBIAN)),
    ]
    for _, root in looked:
        for folder in (Path(root) / name, Path(root)) if root else ():
            stem = "train" if split == "train" else "t10k"
            images = _first(folder, f"{stem}-images-idx3-ubyte")
            labels = _first(folder, f"{stem}-labels-idx1-ubyte")
            if images and labels:
                pixels, marks = read_idx(images), read_idx(labels)
                if pixels.ndim != 3 or marks.ndim != 1 or len(pixels) != len(marks) or not len(pixels):
                    raise DataError(f"{images.name}: expected as many pictures as labels, got {pixels.shape} and {marks.shape}")
                if int(marks.max()) >= len(classes):
                    raise DataError(f"{labels.name}: expected labels below {len(classes)}, got {int(marks.max())}")
                return _finish(name, classes, torch.from_numpy(pixels)[:, None], torch.from_numpy(marks).long(), str(folder), size, channels)
    try:
        return _hub(hub_id, name, split, size, channels)
    except DataError as error:
        ways = [f"  {i}. {way}: {root or 'not given'}" for i, (way, root) in enumerate(looked, 1)]
        raise DataError(
            f"data set {name} was not found. It was looked for in\n"
            + "\n".join(ways)
            + f"\n  4. the Hub, as {hub_id}: {error}\n"
            + "Put its IDX files (train-images-idx3-ubyte.gz, …) into a folder and name it with --data-dir or GENLAB_DATA_DIR, "
            + "install Debian's dataset-fashion-mnist (Fashion-MNIST only), or connect to the Hub with `pip install datasets`."
        ) from error


def _first(folder: Path, stem: str) -> Path | None:
    return next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file of unsigned bytes, gzip-compressed or not (LeCun's format).

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
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank]) if len(raw) >= 4 + 4 * rank else (-1,)
    body = raw[4 + 4 * rank :]
    if int(np.prod(shape, dtype=object)) != len(body):
        raise DataError(f"{path}: expected {shape} bytes after the header, got {len(body)}; fetch it again")
    return np.frombuffer(body, np.uint8).reshape(shape).copy()


def _folder(root: Path, split: Split, size: int | None, channels: int | None) -> Dataset:
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if len(files) < 2:
        raise DataError(f"{root}: expected at least 2 pictures ({', '.join(sorted(SUFFIXES))}), got {len(files)}")
    size = size or 32
    folders = {p.relative_to(root).parts[0] if len(p.relative_to(root).parts) > 1 else "" for p in files}
    classes = tuple(sorted(folders)) if "" not in folders and len(folders) > 1 else ()
    ranked = sorted(files, key=lambda p: hashlib.sha256(str(p.relative_to(root)).encode()).digest())
    held_out = max(1, round(len(files) * HELD_OUT))
    chosen = sorted(ranked[:held_out] if split == "test" else ranked[held_out:])
    channels = channels or (3 if any(_is_colour(p) for p in files[:: max(1, len(files) // 16)]) else 1)
    images = torch.stack([fit(_open(p), size, channels) for p in chosen])
    labels = torch.tensor([classes.index(p.relative_to(root).parts[0]) for p in chosen]) if classes else None
    return Dataset(DataSpec(root.resolve().name, channels, size, classes), images, labels, str(root))


def _open(path: Path) -> Image.Image:
    """A picture from disk, or a DataError that names it."""
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: expected at most {MAX_PIXELS} pixels, got {picture.width}×{picture.height}")
            picture.load()
            return picture.copy()
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable picture ({error}); mend or remove it") from error


def _is_colour(path: Path) -> bool:
    """Whether the picture has a pixel whose red, green and blue differ noticeably."""
    values = np.asarray(ImageOps.fit(_open(path).convert("RGB"), (32, 32)), dtype=np.int16)
    return bool((values.max(axis=2) - values.min(axis=2)).max() > 8)


def _hub(hub_id: str, name: str, split: Split, size: int | None, channels: int | None) -> Dataset:
    try:
        import datasets
    except ImportError as error:
        raise DataError("the package `datasets` is not installed: pip install datasets") from error
    try:
        table = _hub_split(lambda s: datasets.load_dataset(hub_id, split=s), split)
    except Exception as error:  # datasets raises whatever its many backends raise
        raise DataError(f"{hub_id} could not be read from the Hub ({type(error).__name__}: {error})") from error
    picture_column = next((k for k, v in table.features.items() if isinstance(v, datasets.Image)), None)
    if picture_column is None:
        raise DataError(f"{hub_id}: expected a column of pictures, got columns {', '.join(table.features)}")
    label_column = next((k for k, v in table.features.items() if isinstance(v, datasets.ClassLabel)), None)
    classes = tuple(table.features[label_column].names) if label_column else ()
    first = table[0][picture_column]
    channels = channels or (1 if first.mode in ("1", "L", "I;16") else 3)
    size = size or (first.width if first.width == first.height and first.width <= 64 else 32)
    images = torch.stack([fit(row[picture_column], size, channels) for row in table])
    labels = torch.tensor(table[label_column]) if label_column else None
    return Dataset(DataSpec(name, channels, size, classes), images, labels, f"Hub: {hub_id}")


def _hub_split(read: Callable[[str], Any], split: Split) -> Any:
    """The split of that name; where the data set has no test split, the last tenth of its training split."""
    if split == "train":
        try:
            read("test[:1]")
        except ValueError:
            return read("train[:90%]")
        return read("train")
    try:
        return read("test")
    except ValueError:
        return read("train[90%:]")


def _finish(
    name: str, classes: tuple[str, ...], images: Tensor, labels: Tensor, source: str, size: int | None, channels: int | None
) -> Dataset:
    """Bring gray pictures to the size and channels that were asked for."""
    size, channels = size or images.shape[-1], channels or images.shape[1]
    if images.shape[1:] != (channels, size, size):
        images = torch.stack([fit(Image.fromarray(i[0].numpy()), size, channels) for i in images])
    return Dataset(DataSpec(name, channels, size, classes), images, labels, source)
