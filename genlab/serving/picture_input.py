"""The only component that takes a picture from a visitor.

A value must name a file in the server's own upload folder; the file is opened only as PNG, JPEG or WebP; its size and number
of frames are read from its header before a pixel is decoded. Every refusal has the same message, so that it reveals nothing
about the server's files.
"""

from __future__ import annotations

import os
from functools import lru_cache
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
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 16_000_000
MAX_SIDE = 10_000
REDUCED_SIDE = 1024
"""Pictures with a longer side are reduced to it: the models work on far fewer pixels, and the array stays under 4 MB."""
TEXT = {
    "refused": both(
        "Expected one still PNG, JPEG or WebP picture of at most {most} megapixels, uploaded on this page.",
        "请在本页上传一张静态的 PNG、JPEG 或 WebP 图片，不超过 {most} 百万像素。",
    )
}
REFUSED = TEXT["refused"].format(most=MAX_PIXELS // 1_000_000)

_decoding = Lock()


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
        return _own_upload(value.get("path")) is None or _inline(value.get("url")) or not _named_as_picture(value)

    def move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        return _checked_upload(url_or_file_path)

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        return _checked_upload(url_or_file_path)

    def preprocess(self, payload: ImageData | None) -> np.ndarray | None:
        if payload is None and not self.required:
            return None
        if payload is None or _inline(payload.url) or not _named_as_picture(payload.model_dump()):
            raise _refusal()
        return decode(_checked_upload(payload.path))


@lru_cache(maxsize=8)
def decode(path: str) -> np.ndarray:
    """Return the picture in a file as (H W 3) uint8, read-only.

    The path of an upload contains the hash of its content. The last pictures are cached: controls beside a picture use it anew
    at every movement.

    Raises:
        gr.Error: with `REFUSED`, whatever is wrong with the file.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            still = (
                picture.format == "MPO" or getattr(picture, "n_frames", 1) == 1
            )  # a JPEG with several pictures counts as its first
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE or not still:
                raise _refusal()
            with _decoding:
                return _pixels(picture)
    except gr.Error:
        raise
    except Exception as error:
        raise _refusal() from error


def _pixels(picture: Image.Image) -> np.ndarray:
    """Decode an opened picture, reduced to `REDUCED_SIDE`: (H W 3) uint8."""
    picture.draft("RGB", (REDUCED_SIDE, REDUCED_SIDE))
    picture.load()
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
    """Return the real path of a file in the upload folder with the suffix of a picture, None for every other value."""
    if not isinstance(path, (str, Path)) or "\0" in str(path):
        return None
    folder, real = os.path.realpath(get_upload_folder()), os.path.realpath(path)
    inside = real.startswith(folder + os.sep) and real.lower().endswith(SUFFIXES)
    return real if inside else None


def _inline(url: Any) -> bool:
    """Return whether an address contains the content itself."""
    return isinstance(url, str) and url.lower().lstrip().startswith("data:")


def _named_as_picture(value: dict[str, Any]) -> bool:
    """Return whether the visitor's name for the file, if any, has the suffix of a picture."""
    name = value.get("orig_name")
    return name is None or (isinstance(name, str) and name.lower().endswith(SUFFIXES))


def _refusal() -> gr.Error:
    return gr.Error(REFUSED, print_exception=False)
