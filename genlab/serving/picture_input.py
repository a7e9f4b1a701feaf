"""The only component that takes a picture from a visitor.

A value must name a file in the server's own upload folder; the file is opened only as PNG, JPEG or WebP, which its first bytes
say and not its name. Its size, its frames and its parts are counted before a pixel is decoded, so that the work is bounded.
Every refusal has the same message, so that it reveals nothing about the server's files. A call's pictures are decoded while it
waits (`gradio_patches.take_turns`), so that a large one holds no place that others wait for.
"""

from __future__ import annotations

import ctypes
import io
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder
from PIL import Image, ImageOps

from genlab.serving.language import both

FORMATS = ("PNG", "JPEG", "WEBP")
SIGNATURE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP", re.DOTALL)
"""Matches the first bytes of a PNG, a JPEG or a WebP."""
VECTOR = (".svg", ".svgz")
"""Suffixes of files that gradio hands on without decoding them."""
MAX_PIXELS = 16_000_000
MAX_SIDE = 10_000
MAX_SCANS = 32
"""Scans of a JPEG: each takes time for every pixel, whatever its size in the file. Encoders write some ten."""
MAX_PARTS = 5000
"""Chunks of a PNG and segments of a JPEG, each of which Pillow reads in Python; encoders write one for 8 KB."""
EXIF_BYTES = 64 * 1024
"""Largest Exif that is read for the orientation; a JPEG can have no larger one."""
LARGE_PIXELS = 1_000_000
"""Pictures with more pixels are decoded one at a time, which bounds the memory; smaller ones wait for nobody."""
REDUCED_SIDE = 512
"""Pictures with a longer side are reduced to it: the models work on fewer pixels, and the array stays under 0.8 MB."""
LATEST = 64
"""Decoded pictures that are kept, for calls that wait and for controls beside a picture, which use it anew: 50 MB at most."""
REFUSED = both(
    "Expected one still PNG, JPEG or WebP picture of at most {most} megapixels, uploaded on this page.",
    "请在本页上传一张静态的 PNG、JPEG 或 WebP 图片，不超过 {most} 百万像素。",
).format(most=MAX_PIXELS // 1_000_000)

_PAIR = re.compile(rb"\xff(.)", re.DOTALL)
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7])", re.DOTALL)
"""A marker within or after a scan of a JPEG, where a stuffed zero or a restart is none."""

_SEGMENTS = bytes([0xC0, 0xC1, 0xC2, 0xC4, 0xC9, 0xCA, 0xCC, 0xDA, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE])
"""Markers of a JPEG that are followed by a length, of the kinds that are decoded."""

_decoding = Lock()
_latest: OrderedDict[str, np.ndarray | None] = OrderedDict()
"""Path → the picture, None where it is refused; the latest decoded last."""
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
"""glibc's: without it the memory of large pictures stays with the process."""


class PictureInput(gr.Image):
    """An upload of one picture, passed to the function as (H W 3) uint8, upright, transparent pixels on white.

    For inputs only: results are shown with `gr.Image`. It starts empty, and `gr.update` changes it like any component.

    Args:
        required: whether an empty input is refused; where it is not, the function gets None.
        options: of `gr.Image`: label, alt_text, placeholder, height, …
    """

    is_template = True

    def __init__(self, *, required: bool = True, **options: Any) -> None:
        self.required = required
        fixed = {"format": "png", "type": "numpy", "image_mode": "RGB", "sources": ["upload"]}
        super().__init__(**{"interactive": True, "buttons": ["fullscreen"], **options, **fixed})

    def get_config(self, cls: type[gr.blocks.Block] | None = None) -> dict[str, Any]:
        return super().get_config(cls or gr.Image)

    def refuses(self, value: Any) -> bool:
        """Return whether a value, as it came over HTTP, cannot be a picture that was uploaded on this page."""
        if value is None:
            return self.required
        if not isinstance(value, dict):
            return True
        return _own_upload(value.get("path")) is None or _inline(value.get("url")) or _names_vector(value.get("orig_name"))

    def move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        return _checked_upload(url_or_file_path)

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        return _checked_upload(url_or_file_path)

    def preprocess(self, payload: ImageData | None) -> np.ndarray | None:
        if payload is None and not self.required:
            return None
        if payload is None or _inline(payload.url) or _names_vector(payload.orig_name):
            raise _refusal()
        return decode(_checked_upload(payload.path))


def uploads(components: Sequence[Any], values: Sequence[Any]) -> list[str]:
    """Return the files that values, as they came over HTTP, name for those of the components that take a picture."""
    given = zip(components, values, strict=False)
    named = [value.get("path") for each, value in given if isinstance(each, PictureInput) and isinstance(value, dict)]
    return [own for path in named if (own := _own_upload(path)) is not None]


def decode(path: str) -> np.ndarray:
    """Return the picture in a file as (H W 3) uint8, read-only; the path of an upload contains the hash of its content.

    Raises:
        gr.Error: with `REFUSED`, whatever is wrong with the file.
    """
    try:
        pixels = _latest[path]
    except KeyError:
        pixels = _latest[path] = _decoded(path)
        while len(_latest) > LATEST:
            _latest.popitem(last=False)
    if pixels is None:
        raise _refusal()
    return pixels


def decode_unless_large(path: str) -> bool:
    """Decode the picture in a file, unless it is large and was not decoded before; return whether it is decoded.

    Raises:
        gr.Error: as `decode`.
    """
    if path not in _latest:
        with suppress(Exception), _opened(path) as picture:
            if _large(picture):
                return False
    decode(path)
    return True


def _decoded(path: str) -> np.ndarray | None:
    """Decode the picture in a file, large ones one at a time; None where it is refused."""
    large = False
    try:
        with _opened(path) as picture:
            large = _large(picture)
            with _decoding if large else nullcontext():
                return _pixels(picture)
    except Exception:
        return None
    finally:
        if large and _trim is not None:
            _trim(0)


def _opened(path: str) -> Image.Image:
    """Open a picture that keeps to the limits, without decoding a pixel.

    Raises:
        Exception: of many kinds, where it does not.
    """
    content = Path(path).read_bytes()
    if not bounded(content):
        raise ValueError("too many parts")
    picture = Image.open(io.BytesIO(content), formats=FORMATS)
    still = picture.format == "MPO" or getattr(picture, "n_frames", 1) == 1  # a JPEG with several pictures counts as its first
    if picture.width * picture.height > MAX_PIXELS or max(picture.size) > MAX_SIDE or not still:
        raise ValueError("too large, or not still")
    return picture


def _large(picture: Image.Image) -> bool:
    """Return whether a picture is decoded while no other large one is."""
    return picture.width * picture.height > LARGE_PIXELS


def bounded(content: bytes) -> bool:
    """Return whether a file has at most `MAX_PARTS` parts and, as a JPEG, `MAX_SCANS` scans, so that decoding it takes a
    second at most.
    """
    if content.startswith(b"\xff\xd8"):
        return _bounded_jpeg(content)
    return not content.startswith(b"\x89PNG") or _bounded_png(content)


def _bounded_png(content: bytes) -> bool:
    """Return whether a PNG has at most `MAX_PARTS` chunks (PNG specification, 5.3)."""
    place = 8
    for _ in range(MAX_PARTS):
        if place >= len(content):
            return True
        place += 12 + int.from_bytes(content[place : place + 4], "big")
    return place >= len(content)


def _bounded_jpeg(content: bytes) -> bool:
    """Return whether a JPEG has at most `MAX_PARTS` markers, of which at most `MAX_SCANS` begin a scan (ITU T.81, B.1), and
    none that Pillow or libjpeg could read otherwise.
    """
    place, scans = 2, 0
    for _ in range(MAX_PARTS):
        found = _MARKER.search(content, place) if scans else _PAIR.match(content, place)
        if found is None:
            return scans > 0
        place, kind = found.end(), found[1]
        if kind == b"\xd9":  # the end of the picture; what follows is not decoded
            return True
        if kind == b"\xff":  # fills up; the marker follows
            place -= 1
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        scans += kind == b"\xda"
        if kind not in _SEGMENTS or length < 2 or scans > MAX_SCANS:
            return False
        place += length
    return False


def _pixels(picture: Image.Image) -> np.ndarray:
    """Decode an opened picture, reduced to `REDUCED_SIDE`: (H W 3) uint8."""
    picture.draft("RGB", (REDUCED_SIDE, REDUCED_SIDE))
    picture.load()
    if len(picture.info.get("exif", b"")) > EXIF_BYTES:
        del picture.info["exif"]
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):
        upright = Image.fromarray((np.asarray(upright, dtype=np.float32) / 257).clip(0, 255).astype(np.uint8))
    clear = upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info
    upright = upright.convert("RGBA" if clear else "RGB")
    upright.thumbnail((REDUCED_SIDE, REDUCED_SIDE), Image.Resampling.LANCZOS)
    if clear:
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    pixels = np.array(upright)
    pixels.flags.writeable = False
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise _refusal()
    return pixels


def _checked_upload(path: str | Path | None) -> str:
    """Return the real path of a file in the upload folder; refuse every other value."""
    own = _own_upload(path)
    if own is None:
        raise _refusal()
    return own


def _own_upload(path: Any) -> str | None:
    """Return the real path of a file in the upload folder that begins like a picture, None for every other value."""
    if not isinstance(path, (str, Path)) or "\0" in str(path) or _names_vector(str(path)):
        return None
    folder, real = os.path.realpath(get_upload_folder()), os.path.realpath(path)
    if not real.startswith(folder + os.sep):
        return None
    try:
        with open(real, "rb") as file:
            return real if SIGNATURE.match(file.read(12)) else None
    except OSError:
        return None


def _inline(url: Any) -> bool:
    """Return whether an address contains the content itself."""
    return isinstance(url, str) and url.lower().lstrip().startswith("data:")


def _names_vector(name: Any) -> bool:
    """Return whether a file's name has the suffix of a vector image."""
    return isinstance(name, str) and name.lower().endswith(VECTOR)


def _refusal() -> gr.Error:
    return gr.Error(REFUSED, print_exception=False)
