"""Pictures from outside: what is decoded to what, and what is refused, on a page as it is really mounted."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageFile

from genlab.serving import picture_input, server
from genlab.serving.picture_input import (
    MAX_PARTS,
    MAX_PIXELS,
    MAX_SIDE,
    REDUCED_SIDE,
    REFUSED,
    PictureInput,
    decode,
    decode_unless_large,
)

import gradio as gr  # isort: skip

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
MARK = {"_type": "gradio.FileData"}
CANARY = b"canary-7c41d0"


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG of one colour: small in the file, whatever its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor = zlib.compressobj(9)
    row = bytes(1 + width // 8)
    rows = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def frames(n: int, format: str) -> bytes:
    pictures = [Image.new("RGB", (8, 8), (index % 256, 0, 0)) for index in range(n)]
    return encoded(pictures[0], format, save_all=True, append_images=pictures[1:], duration=10)


def chunks(kind: bytes, count: int) -> bytes:
    """A small PNG with so many empty chunks of a kind."""
    content = encoded(Image.fromarray(PIXELS))
    return content[:33] + (bytes(4) + kind + struct.pack(">I", zlib.crc32(kind))) * count + content[33:]


def scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan is repeated so often."""
    content = encoded(Image.new("RGB", (side, side), "teal"), "JPEG", progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * count + content[-2:]


def before_the_scan(piece: bytes, count: int) -> bytes:
    """A JPEG with a piece so many times after its first marker."""
    content = encoded(Image.fromarray(PIXELS), "JPEG")
    return content[:2] + piece * count + content[2:]


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[[bytes], np.ndarray]:
    def decode_bytes(content: bytes) -> np.ndarray:
        (tmp_path / "picture").write_bytes(content)
        picture_input._latest.clear()
        return decode(str(tmp_path / "picture"))

    return decode_bytes


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_rgb_is_exact(decoded: Callable, format: str, options: dict) -> None:
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(PIXELS), format, **options)), PIXELS)


def test_jpeg_is_what_pillow_decodes(decoded: Callable) -> None:
    content = encoded(Image.fromarray(PIXELS), "JPEG", quality=90)
    np.testing.assert_array_equal(decoded(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def test_of_a_jpeg_with_more_pictures_in_it_the_first_is_taken(decoded: Callable) -> None:
    """As phones write them: Pillow opens such a file as MPO."""
    first = Image.fromarray(PIXELS)
    content = encoded(first, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")], quality=90)
    assert Image.open(io.BytesIO(content)).n_frames == 2
    np.testing.assert_array_equal(decoded(content), decoded(encoded(first, "JPEG", quality=90)))


def test_gray_palette_and_one_bit_become_three_equal_or_right_channels(decoded: Callable) -> None:
    gray = Image.fromarray(PIXELS[..., 0])
    np.testing.assert_array_equal(decoded(encoded(gray)), np.repeat(PIXELS[..., :1], 3, axis=2))
    bits = Image.fromarray(PIXELS[..., 0] > 127)
    np.testing.assert_array_equal(decoded(encoded(bits)), np.repeat(np.where(PIXELS[..., :1] > 127, 255, 0), 3, axis=2))
    few = Image.fromarray(PIXELS // 128 * 200)
    np.testing.assert_array_equal(decoded(encoded(few.quantize(8))), np.asarray(few.quantize(8).convert("RGB")))


def test_sixteen_bits_keep_the_upper_eight(decoded: Callable) -> None:
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(decoded(encoded(deep)), np.repeat(PIXELS[..., :1], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_laid_on_white(decoded: Callable, mode: str) -> None:
    if mode == "P":
        picture = Image.new("P", (4, 4), 0)
        picture.putpalette([10, 20, 30, 40, 50, 60])
        picture.putpixel((0, 0), 1)
        content, opaque = encoded(picture, transparency=0), [40, 50, 60]
    else:
        black = Image.new(mode, (4, 4), 0)
        black.putpixel((0, 0), (0, 0, 0, 255) if mode == "RGBA" else (0, 255))
        content, opaque = encoded(black), [0, 0, 0]
    pixels = decoded(content)
    assert pixels[0, 0].tolist() == opaque
    assert (pixels[1:] == 255).all()


def test_cmyk_jpeg_is_rgb(decoded: Callable) -> None:
    content = encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")
    red, green, blue = decoded(content).reshape(-1, 3).mean(axis=0)
    assert red < 30
    assert green > 150
    assert blue > 150


def test_exif_orientation_is_applied(decoded: Callable) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(PIXELS), exif=exif)
    np.testing.assert_array_equal(decoded(content), np.rot90(PIXELS, -1))


def test_large_picture_is_reduced_and_keeps_its_shape(decoded: Callable) -> None:
    assert decoded(png(3000, 1500)).shape == (REDUCED_SIDE // 2, REDUCED_SIDE, 3)
    tall = encoded(Image.new("RGB", (1000, 4000), "red"), "JPEG")
    assert decoded(tall).shape[0] == REDUCED_SIDE


def test_smallest_picture(decoded: Callable) -> None:
    assert decoded(encoded(Image.new("RGB", (1, 1), "red"))).tolist() == [[[255, 0, 0]]]


REFUSED_CONTENT = {
    "empty": b"",
    "text": b"hello",
    "truncated PNG": encoded(Image.fromarray(PIXELS))[:-400],
    "truncated JPEG": encoded(Image.fromarray(PIXELS), "JPEG")[:200],
    "PNG head only": encoded(Image.fromarray(PIXELS))[:40],
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "GIF": encoded(Image.fromarray(PIXELS), "GIF"),
    "BMP": encoded(Image.fromarray(PIXELS), "BMP"),
    "TIFF": encoded(Image.fromarray(PIXELS), "TIFF"),
    "ICO": encoded(Image.fromarray(PIXELS), "ICO"),
    "PPM": encoded(Image.fromarray(PIXELS), "PPM"),
    "APNG": frames(2, "PNG"),
    "animated WebP": frames(200, "WEBP"),
    "too wide": png(MAX_SIDE + 1, 1),
    "too tall": png(1, 60_000),
    "too many pixels": png(4001, 4000),
    "13000×13000": png(13_000, 13_000),
    "20000×20000": png(20_000, 20_000),
    "2000 scans": scans(2000, 4000),
    "scans behind a marker of two meanings": before_the_scan(b"\xff\xf0\xff\xfe\xff\xff", 1),
    "scans behind a segment without a length": before_the_scan(b"\xff\xfe\0\0", 1),
    "many chunks": chunks(b"abCd", MAX_PARTS + 1),
    "many segments": before_the_scan(b"\xff\xfe\0\2", MAX_PARTS + 1),
    "many fill bytes": before_the_scan(b"\xff", MAX_PARTS + 1),
    "many stuffed zeros": before_the_scan(b"\xff\0", MAX_PARTS + 1),
}


@pytest.mark.parametrize("name", REFUSED_CONTENT)
def test_content_that_is_refused(decoded: Callable, name: str) -> None:
    with pytest.raises(gr.Error) as refusal:
        decoded(REFUSED_CONTENT[name])
    assert refusal.value.message == REFUSED
    assert refusal.value.print_exception is False


@pytest.mark.parametrize(
    "name", ["APNG", "animated WebP", "too wide", "too tall", "too many pixels", "13000×13000", "20000×20000"]
)
def test_size_and_frames_are_refused_from_the_header(decoded: Callable, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", loaded.append)
    with pytest.raises(gr.Error):
        decoded(REFUSED_CONTENT[name])
    assert loaded == []


PARTS = [name for name in REFUSED_CONTENT if "scans" in name or name.startswith("many")]


@pytest.mark.parametrize("name", PARTS)
def test_too_many_parts_are_refused_before_pillow_reads_one(
    decoded: Callable, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(gr.Error, match="Expected one still PNG"):
        decoded(REFUSED_CONTENT[name])


def test_as_many_parts_as_encoders_write_are_taken(decoded: Callable) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    for content in (
        encoded(Image.fromarray(noise)),
        encoded(Image.fromarray(noise), "JPEG", progressive=True, quality=95),
        encoded(Image.fromarray(noise), "JPEG", quality=95, restart_marker_rows=1),
        scans(20),
        before_the_scan(b"\xff\xe1\0\x0a" + b"\xff\xda" * 4, 60),  # a preview within a segment is not decoded
        encoded(Image.fromarray(PIXELS), "JPEG") + b"\xff\xda" * 100,  # nor what follows the picture
    ):
        assert decoded(content).shape[2] == 3


def test_an_orientation_in_an_exif_of_megabytes_is_not_looked_for(decoded: Callable) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 100_000
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(PIXELS), exif=exif)), PIXELS)


def test_a_large_picture_is_left_for_its_turn_until_it_has_been_decoded(tmp_path: Path) -> None:
    for name, content in {"small": png(1000, 1000), "large": png(1008, 1000)}.items():
        (tmp_path / name).write_bytes(content)
    small, large = (str(tmp_path / name) for name in ("small", "large"))
    assert (decode_unless_large(small), decode_unless_large(large)) == (True, False)
    assert decode(large).shape == (508, REDUCED_SIDE, 3)
    assert decode_unless_large(large)


def test_a_large_picture_that_is_refused_waits_for_nobody(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(REFUSED_CONTENT["too many pixels"])
    with pytest.raises(gr.Error, match="Expected one still PNG"):
        decode_unless_large(str(tmp_path / "picture"))


def test_a_picture_that_fails_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(picture_input, "_pixels", tried.append)
    (tmp_path / "picture").write_bytes(REFUSED_CONTENT["truncated PNG"])
    for _ in range(2):
        with pytest.raises(gr.Error, match="Expected one still PNG"):
            decode(str(tmp_path / "picture"))
    assert len(tried) == 1


MEMORY = """
import sys
from concurrent.futures import ThreadPoolExecutor
from genlab.serving.gradio_patches import import_gradio
import_gradio()
from genlab.serving.picture_input import _decoded
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
_decoded(sys.argv[1])
before = resident()
with ThreadPoolExecutor(8) as visitors:
    list(visitors.map(_decoded, sys.argv[1:] * 16))
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_large_pictures_leave_no_memory_behind(tmp_path: Path) -> None:
    """Sixteen of 9 megapixels, eight visitors at a time: each takes 36 MB while it is decoded."""
    (tmp_path / "picture.png").write_bytes(encoded(Image.new("RGBA", (3000, 3000)), compress_level=1))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "picture.png")]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert float(ended.stdout) < 100


def test_largest_allowed_picture_is_taken(decoded: Callable) -> None:
    assert MAX_PIXELS == 4000 * 4000
    assert decoded(png(4000, 4000)).shape == (REDUCED_SIDE, REDUCED_SIDE, 3)


def test_component_is_an_image_to_the_page() -> None:
    with gr.Blocks():
        component = PictureInput(label="mine", alt_text="a picture")
    config = component.get_config()
    assert component.get_block_name() == "image"
    assert (config["label"], config["alt_text"], config["sources"], config["type"]) == (
        "mine",
        "a picture",
        ["upload"],
        "numpy",
    )
    with pytest.raises(TypeError, match="labell"):
        PictureInput(labell="typing error")
    assert PictureInput(type="filepath", render=False).type == "numpy"


# The page as it is mounted, without the guard, so that what is tested is the component and the settings of the server.


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("site")
    uploads = folder / "genlab-uploads"
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(uploads))
    seen: list[Any] = []
    downloads: list[Any] = []

    async def download(*arguments: Any, **_: Any) -> str:
        downloads.append(arguments)
        raise ValueError("no network here")

    patch.setattr("gradio.processing_utils.async_ssrf_protected_download", download)
    patch.setattr("gradio.processing_utils.save_url_to_cache", download)

    def size(picture: Any) -> str:
        seen.append(picture)
        return "none" if picture is None else str(picture.shape)

    def name_of(path: str) -> str:
        seen.append(path)
        return os.path.basename(path)

    with gr.Blocks() as demo:
        shape = gr.Textbox(label="shape")
        gr.Button().click(size, PictureInput(label="picture"), shape, api_name="size")
        gr.Button().click(size, PictureInput(label="optional", required=False), shape, api_name="optional")
        gr.Button().click(name_of, gr.Image(type="filepath", label="image"), shape, api_name="image")
        gr.Button().click(name_of, gr.File(label="file"), shape, api_name="file")
    app = server.build(demo, ready=lambda: True)
    app.user_middleware.clear()
    running = server.Server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=running.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.02)
    with httpx.Client(base_url=running.url, timeout=60, trust_env=False) as client:
        yield SimpleNamespace(client=client, uploads=uploads, folder=folder, seen=seen, downloads=downloads)
    running.should_exit = True
    thread.join(30)
    patch.undo()


def upload(site: SimpleNamespace, content: bytes, name: str = "picture.png") -> str:
    reply = site.client.post("/gradio_api/upload", files={"files": (name, content)})
    assert reply.status_code == 200, reply.text
    return reply.json()[0]


def call(site: SimpleNamespace, value: Any, endpoint: str = "size") -> tuple[str, Any]:
    """The last event of a call and its data."""
    joined = site.client.post(f"/gradio_api/call/{endpoint}", json={"data": [value]})
    assert joined.status_code == 200, joined.text
    stream = site.client.get(f"/gradio_api/call/{endpoint}/{joined.json()['event_id']}").text.strip().split("\n\n")
    event, data = stream[-1].split("\n", 1)
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@pytest.mark.parametrize("name", ["picture.png", "PHOTO.JPG", "图片.webp", "photo.jfif", "blob", "x"])
def test_genuine_upload_is_accepted_whatever_its_name(site: SimpleNamespace, name: str) -> None:
    path = upload(site, encoded(Image.fromarray(PIXELS)), name)
    assert call(site, {"path": path, "orig_name": name, "meta": MARK}) == ("complete", ["(20, 30, 3)"])
    np.testing.assert_array_equal(site.seen[-1], PIXELS)


def test_empty_input(site: SimpleNamespace) -> None:
    assert call(site, None) == ("error", {"error": REFUSED, **call(site, None)[1]})
    assert call(site, None, "optional") == ("complete", ["none"])


@pytest.fixture
def values(site: SimpleNamespace) -> dict[str, Any]:
    """Values that name something else than a picture that this page has uploaded."""
    content = encoded(Image.fromarray(PIXELS)) + CANARY
    outside = site.folder / "outside.png"
    outside.write_bytes(content)
    neighbour = site.folder / "genlab-uploads-else"
    neighbour.mkdir(exist_ok=True)
    (neighbour / "x.png").write_bytes(content)
    link = site.uploads / "link.png"
    site.uploads.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    inside = upload(site, encoded(Image.fromarray(PIXELS)))
    text = upload(site, b"hello, no picture")
    vector = upload(site, b'<svg xmlns="http://www.w3.org/2000/svg"/>', "x.svg")
    inline = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    elsewhere = {
        "outside": str(outside),
        "relative": os.path.relpath(outside),
        "above": f"{site.uploads}/../outside.png",
        "neighbour": str(neighbour / "x.png"),
        "system": "/etc/hostname",
        "symlink": str(link),
        "folder": str(site.uploads),
        "empty": "",
        "missing": f"{site.uploads}/missing.png",
        "NUL": f"{site.uploads}/x\0.png",
        "file URL": f"file://{outside}",
        "vector": vector,
        "text": text,
        "remote": "http://203.0.113.7/x.png",
        "remote TLS": "https://example.org/x.png",
        "inline path": inline,
    }
    optional = {"url": elsewhere["remote"], "orig_name": "x.png", "is_stream": True, "meta": MARK}
    forms: dict[str, Any] = {}
    for name, path in elsewhere.items():
        forms[f"{name}, bare"] = path
        forms[f"{name}, as the page sends it"] = {"path": path, "meta": MARK}
        for field in optional:
            if name in ("outside", "symlink", "remote"):
                forms[f"{name}, only {field}"] = {"path": path, field: optional[field]}
                forms[f"{name}, all but {field}"] = {"path": path, **optional} | {field: None}
        forms[f"{name}, path only"] = {"path": path}
    forms["inline address"] = {"path": inside, "url": inline}
    forms["inline address only"] = {"path": None, "url": inline, "meta": MARK}
    forms["named as a vector image"] = {"path": inside, "orig_name": "x.svg", "meta": MARK}
    forms |= {"list": [inside], "nested": {"path": {"path": inside}}, "number": 5, "true": True, "object": {}}
    return forms


def test_every_other_value_is_refused(site: SimpleNamespace, values: dict[str, Any]) -> None:
    before = len(site.seen)
    for name, value in values.items():
        event, data = call(site, value)
        assert event == "error", (name, data)
        assert data["error"] in (None, REFUSED), (name, data)
    assert len(site.seen) == before
    assert site.downloads == []
    copies = [
        path for path in site.uploads.rglob("*") if path.is_file() and not path.is_symlink() and CANARY in path.read_bytes()
    ]
    assert copies == []


def test_every_other_value_is_recognised_before_it_is_queued(values: dict[str, Any]) -> None:
    component = PictureInput(render=False)
    assert {name.split(",")[0] for name, value in values.items() if not component.refuses(value)} == set()


@pytest.mark.filterwarnings("ignore:unclosed file <_io.BufferedReader name='.*genlab-uploads:ResourceWarning")  # gr.Image's
@pytest.mark.parametrize("endpoint", ["image", "file"])
def test_other_components_take_no_path_from_outside(site: SimpleNamespace, values: dict[str, Any], endpoint: str) -> None:
    before = len(site.seen)
    for name in ("outside", "above", "neighbour", "system"):
        event, data = call(site, values[f"{name}, as the page sends it"], endpoint)
        assert (event, data["error"]) == ("error", None), name
    assert len(site.seen) == before
    path = upload(site, encoded(Image.fromarray(PIXELS)))
    assert call(site, {"path": path, "meta": MARK}, endpoint)[0] == "complete"


@pytest.mark.parametrize("name", ["truncated PNG", "GIF", "APNG", "13000×13000", "EPS", "2000 scans"])
def test_bad_content_is_refused_with_the_same_message(site: SimpleNamespace, name: str) -> None:
    path = upload(site, REFUSED_CONTENT[name])
    event, data = call(site, {"path": path, "meta": MARK})
    assert (event, data["error"]) == ("error", REFUSED)
