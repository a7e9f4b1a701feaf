"""Find and read data sets of pictures, and convert between 8-bit pixels and the models' [−1, 1].

A data set is a name that genlab knows (`fashion-mnist`, `mnist`), a folder or zip archive of pictures, or a table, on disk
or on the Hub (`user/name`).
Reading gives one tensor of 8-bit pixels. Pictures of files are decoded once into a cache on disk (see `cache`), which is mapped
into memory. A picture that cannot be read raises an error with its name, unless it is to be skipped; what is left out is listed
in the account of the data set.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import math
import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps, features
from torch import Tensor
from tqdm import tqdm

from genlab import cache, emoji, folders, tables
from genlab.config import EMOJI, KNOWN, MAX_SIZE, DataSpec, Reading, expanded, on_hub
from genlab.listing import DataError, Item, Listing

S = TypeVar("S")
T = TypeVar("T")
Split = Literal["train", "test"]
Check = Callable[[DataSpec], None]
"""Called with the specification of the data before the pictures are read; raises ValueError if a model cannot use them."""

FONTS = {".ttf", ".otf", ".ttc"}
DEBIAN = Path("/usr/share/datasets")
MAX_PIXELS = 50_000_000
"""Largest picture that is decoded, since a file of a few kilobytes can expand to billions of pixels."""
BITS = (8, 10, 12, 14, 16, 32)
"""Numbers of bits that pictures of 16 or 32 bits may use."""
AS_FOUND = Reading()
ENCODING = 1
"""Number to raise when pictures are decoded in another way, so that cached ones are decoded again."""


def formats() -> tuple[str, ...]:
    """Return the formats of pictures that are read in this installation, by Pillow's names."""
    more = [name for name, there in (("AVIF", features.check("avif")), ("HEIF", folders.heif())) if there]
    return ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", *more)


@dataclass(frozen=True)
class Account:
    """What was found and decided when a data set was read; see `Listing`.

    Attributes:
        sizes, modes: of the files → their number.
        stored: folder of the cache of decoded pictures, or "" if they are in memory.
    """

    decisions: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    left_out: dict[str, list[str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    stored: str = ""


@dataclass(frozen=True)
class Dataset:
    """Pictures in memory, or mapped into it.

    Attributes:
        spec: name, channels, size, classes.
        images: (N C H W) uint8.
        labels: (N) int64, or None.
        source: where they came from, for messages.
        account: what was decided when they were read.
        known_sha256: hash of pixels and labels if it is known, else "".
    """

    spec: DataSpec
    images: Tensor
    labels: Tensor | None
    source: str
    account: Account = field(default_factory=Account)
    known_sha256: str = ""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def identity(self) -> str:
        """Return the hash that identifies the pictures, whatever their name; see `identity`."""
        return identity(self.spec, self.sha256)

    @cached_property
    def sha256(self) -> str:
        """Return the hash of the pixels and labels."""
        if self.known_sha256:
            return self.known_sha256
        digest = hashlib.sha256()
        for part in self.images.split(4096):  # no second copy of all pictures
            digest.update(part.contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()


def identity(data: DataSpec, sha256: str) -> str:
    """Return the hash that identifies pictures: of their shape, their classes, and the hash of their pixels and labels."""
    return hashlib.sha256(json.dumps([data.shape, data.classes, sha256]).encode()).hexdigest()


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


def is_deep(mode: str) -> bool:
    """Return True for a mode of Pillow with 16 or 32 bits a pixel, which does not say what value is white."""
    return mode == "F" or mode.startswith("I")


def fit(picture: Image.Image, size: int, channels: int, white: float = 65535) -> Tensor:
    """Return a picture of any mode and size as (C size size) uint8: turned upright, cropped to its middle square, resampled.

    Transparent pixels are composited on white. Of an animation, the current frame is used.

    Args:
        white: the value of white in a picture of 16 or 32 bits; 0 is black.
    """
    picture = ImageOps.exif_transpose(picture)
    if is_deep(picture.mode):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64), nan=0.0)
        picture = Image.fromarray((values * (255 / white)).round().clip(0, 255).astype(np.uint8))
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
    reading: Reading = AS_FOUND,
) -> Dataset:
    """Read one split of a data set; see `load_both`."""
    return _load(name, (split,), data_dir, size, channels, check, reading)[0]


def load_both(
    name: str,
    data_dir: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    check: Check = lambda spec: None,
    reading: Reading = AS_FOUND,
) -> tuple[Dataset, Dataset]:
    """Read the pictures of a data set for training, and the held-out ones.

    Args:
        name: `fashion-mnist`, `mnist`, `emoji`, a folder or zip archive of pictures (see `folders`), the file of an emoji font
            (see `emoji`), a folder of tables, or `user/name` on the Hub (see `tables`).
        data_dir: first folder to search for a data set in `KNOWN`.
        size, channels: to convert the pictures to. By default those of the data set; 32 pixels for a folder, and for pictures
            of a table that are not small squares; RGB if any of 32 pictures spread over the data set has colour.
        check: called with the specification of the pictures before they are read.
        reading: what to read where the default is not meant; a data set with a name, or a font, has nothing of it to choose.

    Raises:
        DataError: the data set is not found, or cannot be read.
        ValueError: from `check`.
    """
    train, test = _load(name, ("train", "test"), data_dir, size, channels, check, reading)
    return train, test


def _load(
    name: str,
    splits: tuple[Split, ...],
    data_dir: str | None,
    size: int | None,
    channels: int | None,
    check: Check,
    reading: Reading,
) -> list[Dataset]:
    given, fixed = expanded(name), [flag for flag, value in vars(reading).items() if value and flag != "cache"]
    is_font = given.suffix.lower() in FONTS and given.is_file()
    if fixed and (name in KNOWN or name == EMOJI or is_font):
        flags = ", ".join("--" + flag.replace("_", "-") for flag in fixed)
        raise DataError(f"{flags}: expected a folder, an archive or a table of pictures to choose in, got {name}")
    if name in KNOWN:
        return [_known(name, split, data_dir, size, channels, check) for split in splits]
    if name == EMOJI or is_font:
        return _emoji(emoji.FONT if name == EMOJI else given, splits, size, channels, check)
    if name and tables.is_table(given):
        return _decoded(tables.listed(str(given), reading), splits, size, channels, check, reading)
    if name and (given.is_dir() or (given.suffix.lower() == ".zip" and given.is_file())):
        return _decoded(folders.listed(given, reading), splits, size, channels, check, reading)
    if on_hub(name):
        as_stored = name in {known for known, _ in KNOWN.values()}
        return _decoded(tables.listed(name, reading, as_stored), splits, size, channels, check, reading)
    ways = ", ".join([*KNOWN, EMOJI, "an existing folder or zip archive of pictures", "a font of emoji"])
    raise DataError(f"--dataset: expected one of {ways}, user/name of a data set on the Hub; got {name!r}")


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
        stored = replace(tables.listed(hub_id, Reading(), as_stored=True), name=name)
        dataset = _decoded(stored, (split,), size, channels, check, Reading())[0]
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


def _emoji(font: Path, splits: tuple[Split, ...], size: int | None, channels: int | None, check: Check) -> list[Dataset]:
    spec = DataSpec(EMOJI, channels or 3, size or 32, emoji.listed()[1])
    check(spec)
    try:
        rendered = emoji.draw(font)
    except emoji.FontError as error:
        raise DataError(f"--dataset {font if font != emoji.FONT else EMOJI}: {error}") from error
    datasets = []
    for split in splits:
        drawn = [(each, picture) for each, picture in rendered if each.held_out == (split == "test")]
        if split == "test":  # shuffled, so that the first few are of all groups
            drawn.sort(key=lambda one: hashlib.sha256(one[0].name.encode()).digest())
        images = torch.stack([fit(picture, spec.size, spec.channels) for _, picture in drawn])
        datasets.append(Dataset(spec, images, torch.tensor([each.group for each, _ in drawn]), str(font)))
    return datasets


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


def _read_all(read: Callable[[int], Tensor], count: int, spec: DataSpec) -> Tensor:
    """Read pictures 0…count−1, (N C H W), in threads and with a progress bar; the first error is raised."""
    images = torch.empty((count, *spec.shape), dtype=torch.uint8)
    for i, picture in enumerate(_in_threads(read, range(count), f"reading {spec.name}")):
        images[i] = picture
    return images


def _in_threads(read: Callable[[S], T], items: Sequence[S], what: str) -> Iterator[T]:
    """Yield `read(item)` of every item in order, computed in threads, with a progress bar; the first error is raised."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    bar = tqdm(desc=what, total=len(items), unit="picture", disable=None)  # None: no bar where stderr is a file
    try:
        for first in range(0, len(items), 256):  # so that an error or an interrupt has few queued reads to cancel
            for found in pool.map(read, items[first : first + 256]):
                yield found
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()


@contextlib.contextmanager
def _opened(item: Item, size: int) -> Iterator[Image.Image]:
    """Yield a picture, decoded at `size` or more pixels a side; any failure raises a DataError with its name."""
    name = item.name
    try:
        with Image.open(item.open(), formats=formats()) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{name}: expected at most {MAX_PIXELS} pixels, got {picture.width}×{picture.height}")
            # JPEG only: decodes a large photograph at ½, ¼ or ⅛ of its size, several times faster.
            picture.draft(None, (2 * size, 2 * size))
            picture.load()
            yield picture
    except DataError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{name}: not a picture ({', '.join(formats())}); mend or remove it, or give --skip-broken") from error
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a readable picture ({error}); mend or remove it, or give --skip-broken") from error


@dataclass(frozen=True)
class Header:
    """What a picture's file states before it is decoded: size and mode; of 16 or 32 bits, also the largest value."""

    size: str
    mode: str
    largest: float = 0.0


def _header(item: Item) -> Header | None:
    """Read the header of a picture; None for a broken one, which is reported when it is decoded."""
    try:
        with Image.open(item.open(), formats=formats()) as picture:
            header = Header(f"{picture.width}×{picture.height}", picture.mode)
        if is_deep(header.mode):
            with _opened(item, MAX_SIZE) as picture:
                header = replace(header, largest=float(np.nan_to_num(np.asarray(picture, dtype=np.float64)).max()))
    except (DataError, OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return None
    return header


def _white(headers: list[Header], given: float | None, decisions: list[str]) -> float:
    """Return the value of white in pictures of 16 or 32 bits: by default the least usual one that none exceeds."""
    deep = [header.largest for header in headers if is_deep(header.mode)]
    if not deep:
        return 65535
    usual = [1.0] if any(header.mode == "F" for header in headers) else []
    white = given or next((each for each in (*usual, *(2.0**n - 1 for n in BITS)) if max(deep) <= each), max(deep))
    decisions.append(
        f"pictures of 16 or 32 bits: {len(deep)}, with values up to {max(deep):g}; white is {white:g} (--white decides)"
    )
    return white


def _is_colour(item: Item, skip_broken: bool) -> bool:
    """Return True if red, green and blue differ by more than 8 levels in any pixel of the picture at 32×32."""
    try:
        with _opened(item, 32) as picture:
            values = fit(picture, 32, 3).short()
    except DataError:
        if skip_broken:
            return False
        raise
    return bool((values.amax(dim=0) - values.amin(dim=0)).max() > 8)


def _spread(items: Sequence[T], count: int = 32) -> list[T]:
    """Return at most `count` items, evenly spaced."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def _decoded(
    listing: Listing, splits: tuple[Split, ...], size: int | None, channels: int | None, check: Check, reading: Reading
) -> list[Dataset]:
    """Return splits of a listing: decoded now, or from the cache of decoded pictures."""

    def decode(only: tuple[Split, ...], to: Path | None = None) -> tuple[dict[str, Any], Tensor]:
        return _decode(listing, only, size, channels, check, reading, to)

    root = cache.folder(reading.cache)
    if root is None:
        facts, pixels = decode(splits)
        return _datasets(listing, splits, facts, pixels, "")
    depends = [listing.name, listing.fingerprint, listing.classes, size, channels, reading.white, reading.skip_broken, ENCODING]
    with cache.locked(root, hashlib.sha256(json.dumps(depends).encode()).hexdigest()) as entry:
        if cache.read(entry) is None:
            cache.write(entry, lambda to: decode(("train", "test"), to)[0])
        found = cache.read(entry)
    assert found is not None
    datasets = _datasets(listing, splits, *found, str(root))
    check(datasets[0].spec)
    return datasets


def _decode(
    listing: Listing,
    splits: tuple[Split, ...],
    size: int | None,
    channels: int | None,
    check: Check,
    reading: Reading,
    to: Path | None,
) -> tuple[dict[str, Any], Tensor]:
    """Decode splits of a listing into memory or a file; return facts for `_datasets`, and the pixels if they are in memory."""
    every, decisions = [*listing.train, *listing.test], list[str]()
    headers = [each for each in _in_threads(_header, every, f"looking at {listing.name}") if each]
    white = _white(headers, reading.white, decisions)
    if size is None and listing.small and headers:
        side = headers[0].size.split("×")
        size = int(side[0]) if side[0] == side[1] and int(side[0]) <= 64 else 32
    if channels is None:
        channels = 3 if any(_is_colour(item, reading.skip_broken) for item in _spread(listing.train)) else 1
        decisions.append(f"{'RGB' if channels == 3 else 'gray'}, by a sample of 32 pictures (--channels decides)")
    spec = DataSpec(listing.name, channels, size or 32, listing.classes)
    check(spec)

    def read(item: Item) -> Tensor | None:
        try:
            with _opened(item, spec.size) as picture:
                return fit(picture, spec.size, spec.channels, white)
        except DataError:
            if reading.skip_broken:
                return None
            raise

    facts: dict[str, Any] = {"channels": spec.channels, "size": spec.size, "decisions": decisions, "broken": []}
    facts["sizes"], facts["modes"] = (dict(Counter(getattr(each, name) for each in headers)) for name in ("size", "mode"))
    count = sum(len(getattr(listing, split)) for split in splits)
    pixels, place = torch.empty((0 if to else count) * spec.dims, dtype=torch.uint8), 0
    with open(to, "wb") if to else contextlib.nullcontext() as file:
        for split in splits:
            items: Sequence[Item] = getattr(listing, split)
            found, labels = hashlib.sha256(), []
            decoded = _in_threads(read, items, f"reading {spec.name}")
            for item, picture in zip(items, decoded, strict=True):
                if picture is None:
                    facts["broken"].append(item.name)
                    continue
                labels.append(item.label)
                found.update(picture.numpy().data)
                if file is None:
                    pixels[place : place + spec.dims] = picture.flatten()
                else:
                    file.write(picture.numpy().data)
                place += spec.dims
            if 2 * len(labels) < len(items) or not labels:
                raise DataError(f"{listing.source}: {len(items) - len(labels)} of {len(items)} pictures ({split}) are broken")
            if spec.classes:
                found.update(np.array(labels, np.int64).data)
            facts[split] = {"labels": labels, "sha256": found.hexdigest()}
    return facts, pixels[:place]


def _datasets(listing: Listing, splits: tuple[Split, ...], facts: dict[str, Any], pixels: Tensor, stored: str) -> list[Dataset]:
    """Return the splits that `_decode` has decoded; `stored` is the folder of the cache."""
    spec = DataSpec(listing.name, facts["channels"], facts["size"], listing.classes)
    broken = [name.removeprefix(f"{listing.source}/") for name in facts["broken"]]
    left_out = {**listing.left_out, **({"broken": broken} if broken else {})}
    decisions = (*listing.decisions, *facts["decisions"])
    account = Account(decisions, listing.doubts, left_out, facts["sizes"], facts["modes"], stored)
    rows, first = pixels.reshape(-1, *spec.shape), dict[str, int]()
    for each in [each for each in ("train", "test") if each in facts]:
        first[each] = sum(len(facts[other]["labels"]) for other in first)
    datasets = []
    for split in splits:
        labels, sha256 = facts[split]["labels"], facts[split]["sha256"]
        images = rows[first[split] : first[split] + len(labels)]
        datasets.append(Dataset(spec, images, torch.tensor(labels) if spec.classes else None, listing.source, account, sha256))
    return datasets
