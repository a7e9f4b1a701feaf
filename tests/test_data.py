"""Finding and reading data sets: every source, every kind of picture, every kind of damage."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_idx
from PIL import Image

from genlab import data, tables
from genlab.config import Reading
from genlab.data import DataError, binarise, fit, grid, load, read_idx, to_model, to_pixels, ungrid
from training.config import VAETraining
from training.train_classifier import ClassifierTraining

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data set of Debian's, none named by the environment, and a Hub that does not answer."""
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "no-such-folder")
    monkeypatch.delenv("GENLAB_DATA_DIR", raising=False)

    def unreachable(hub_id: str, reading: object) -> None:
        raise DataError(f"{hub_id}: the Hub did not answer (refused)")

    monkeypatch.setattr(tables, "_on_hub", unreachable)


def save(folder: Path, name: str, picture: Image.Image, **options: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name, **options)
    return folder / name


def gray(value: int, size: tuple[int, int] = (10, 10)) -> Image.Image:
    return Image.new("L", size, value)


def read_whole(folder: Path) -> int:
    """Read both splits, whichever of them a picture falls into; returns the number of pictures."""
    return sum(len(load(str(folder), split, channels=1)) for split in ("train", "test"))


# Pixels


def test_pixels_survive_the_way_to_the_model_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_model(levels)
    assert x[0] == -1
    assert x[255] == 1
    assert x.dtype == torch.float32
    assert torch.equal(to_pixels(x), levels)


def test_pixels_outside_the_range_are_clipped_and_never_wrap():
    x = torch.tensor([-1.5, -1.0001, 1.0001, 99.0, float("nan"), float("inf"), float("-inf")])
    assert to_pixels(x).tolist() == [0, 0, 255, 255, 0, 255, 0]


def test_binarised_pictures_are_light_with_the_probability_of_their_gray():
    x = torch.tensor([-1.0, -0.5, 0.5, 1.0]).repeat(10_000, 1)
    share = (binarise(x, torch.Generator().manual_seed(0)) + 1) / 2
    assert set(share.unique().tolist()) == {0.0, 1.0}
    # Standard error of a mean of 10,000 draws of probability 1/4: 0.0043.
    torch.testing.assert_close(share.mean(dim=0), torch.tensor([0.0, 0.25, 0.75, 1.0]), atol=0.02, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_gives_its_pictures_back(channels: int):
    pictures = torch.randint(0, 256, (7, channels, 5, 5), dtype=torch.uint8)
    sheet = grid(pictures, columns=3)
    assert sheet.size == (3 * 7 + 2, 3 * 7 + 2)
    assert torch.equal(ungrid(sheet, 7, 5, 3), pictures)


# Known data sets


def test_an_idx_file_is_read_with_and_without_compression(tmp_path: Path):
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    for name in ("a-idx3-ubyte", "a-idx3-ubyte.gz"):
        write_idx(tmp_path / name, values)
        assert np.array_equal(read_idx(tmp_path / name), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an IDX file"),
        (b"<html>", "expected an IDX file"),
        (b"\0\0\x0d\1" + struct.pack(">I", 1) + b"\0" * 4, "expected an IDX file of unsigned bytes"),
        (b"\0\0\x08\3" + struct.pack(">I", 2), "expected"),
        (b"\0\0\x08\1" + struct.pack(">I", 5) + b"abcd", r"expected \(5,\) bytes after the header, got 4"),
        (b"\0\0\x08\1" + struct.pack(">I", 3) + b"abcd", r"expected \(3,\) bytes after the header, got 4"),
        (b"\0\0\x08\3" + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1), "got 0"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, message: str):
    for name, raw in (("x", content), ("x.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(DataError, match=message) as error:
            read_idx(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_a_compressed_file_cut_short_is_named(tmp_path: Path):
    write_idx(tmp_path / "x.gz", np.arange(200))
    whole = (tmp_path / "x.gz").read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x.gz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"x\.gz"):
            read_idx(tmp_path / "x.gz")


def test_known_data_set_below_the_data_dir_or_in_it(data_dir: Path):
    below = load("mnist", "train", str(data_dir))
    inside = load("mnist", "train", str(data_dir / "mnist"))
    assert below.images.shape == (40, 1, 8, 8)
    assert below.labels.tolist() == [i % 10 for i in range(40)]
    assert below.spec.classes == tuple("0123456789")
    assert (below.spec.name, below.spec.size, below.spec.channels) == ("mnist", 8, 1)
    assert torch.equal(below.images, inside.images)
    assert len(load("mnist", "test", str(data_dir))) == 20
    assert load("fashion-mnist", "train", str(data_dir)).spec.classes[9] == "Ankle boot"


@pytest.mark.usefixtures("nowhere")
def test_places_are_searched_in_order(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flag, variable, debian = (tmp_path / name for name in ("flag", "variable", "debian"))
    for number, root in enumerate((flag, variable, debian)):
        (root / "mnist").mkdir(parents=True)
        write_idx(root / "mnist" / "train-images-idx3-ubyte", np.full((1, 8, 8), number))
        write_idx(root / "mnist" / "train-labels-idx1-ubyte", np.zeros(1))
    monkeypatch.setenv("GENLAB_DATA_DIR", str(variable))
    monkeypatch.setattr(data, "DEBIAN", debian)
    assert load("mnist", data_dir=str(flag)).images.unique().tolist() == [0]
    assert load("mnist").images.unique().tolist() == [1]
    monkeypatch.delenv("GENLAB_DATA_DIR")
    assert load("mnist").images.unique().tolist() == [2]
    assert load("mnist").source == str(debian / "mnist")


def test_debians_package_is_looked_for_where_it_installs_its_files():
    # dpkg -L dataset-fashion-mnist
    installed = "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"
    assert str(data.DEBIAN / "fashion-mnist" / "train-images-idx3-ubyte.gz") == installed


@pytest.mark.usefixtures("nowhere")
def test_a_data_set_that_is_nowhere_lists_the_four_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GENLAB_DATA_DIR", str(tmp_path / "from-environment"))
    with pytest.raises(DataError) as error:
        load("fashion-mnist", data_dir=str(tmp_path / "from-flag"))
    message = str(error.value)
    places = [
        "1. --data-dir",
        "from-flag",
        "2. GENLAB_DATA_DIR",
        "from-environment",
        "3. Debian's package dataset-fashion-mnist",
    ]
    places += ["4. the Hub", "zalando-datasets/fashion_mnist"]
    positions = [message.index(place) for place in places]
    assert positions == sorted(positions)


@pytest.mark.usefixtures("nowhere")
def test_another_data_sets_folder_is_never_taken_for_this_one(data_dir: Path):
    # All IDX data sets share their file names: only the folder's name tells them apart.
    with pytest.raises(DataError, match="was not found"):
        load("mnist", data_dir=str(data_dir / "fashion-mnist"))


def test_pictures_and_labels_must_agree(tmp_path: Path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 8, 8)))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(2))
    with pytest.raises(DataError, match="as many pictures as labels"):
        load("mnist", data_dir=str(tmp_path))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([0, 9, 10]))
    with pytest.raises(DataError, match="labels below 10, got 10"):
        load("mnist", data_dir=str(tmp_path))


def test_known_data_set_in_another_size_and_in_rgb(data_dir: Path):
    plain, large = load("mnist", "test", str(data_dir)), load("mnist", "test", str(data_dir), size=16, channels=3)
    assert large.images.shape == (20, 3, 16, 16)
    assert torch.equal(large.images[:, 0], large.images[:, 2])
    means = large.images.float().mean(dim=(1, 2, 3)) - plain.images.float().mean(dim=(1, 2, 3))
    assert means.abs().max() < 1.5
    assert large.sha256 != plain.sha256


@pytest.mark.parametrize("name", ["nothing-here", "/no/such/folder", "./a/b", "a/b/c", "user/", ""])
def test_a_name_that_is_nothing_says_what_was_expected(name: str):
    with pytest.raises(DataError, match="--dataset: expected one of fashion-mnist, mnist"):
        load(name)


# Pictures of every kind


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16"]
)
def test_white_and_black_of_every_mode(mode: str, channels: int):
    for level in (0, 255):
        picture = {
            "I": lambda level: Image.fromarray(np.full((12, 9), level * 257, np.int32)),
            "I;16": lambda level: Image.fromarray(np.full((12, 9), level * 257, np.uint16)),
            "PA": lambda level: Image.new("L", (9, 12), level).convert("P").convert("PA"),
            "HSV": lambda level: Image.new("RGB", (9, 12), (level,) * 3).convert("HSV"),
            "RGBa": lambda level: Image.new("RGBA", (9, 12), (level,) * 3 + (255,)).convert("RGBa"),
        }.get(mode, lambda level: Image.new("RGB", (9, 12), (level,) * 3).convert(mode))(level)
        assert picture.mode == mode
        out = fit(picture, 8, channels)
        assert out.shape == (channels, 8, 8)
        assert out.dtype == torch.uint8
        assert out.unique().tolist() == [level]


def test_sixteen_bits_are_scaled_and_not_cut_off():
    values = np.array([[0, 257, 128 * 257, 65535]] * 4, np.uint16)
    assert fit(Image.fromarray(values), 4, 1)[0, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparent_pixels_become_white(mode: str):
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    if mode == "P":
        picture = Image.new("P", (8, 8), 0)
        picture.putpalette([10, 20, 30])
        picture.info["transparency"] = 0
    elif mode == "PA":
        picture = Image.new("PA", (8, 8), (0, 0))
        picture.putpalette([10, 20, 30])
    else:
        picture = clear.convert(mode)
    assert fit(picture, 4, 3).unique().tolist() == [255]


@pytest.mark.parametrize(
    ("suffix", "kind", "largest", "white"),
    [
        ("png", np.uint16, 4000, 4095),
        ("png", np.uint16, 200, 255),
        ("png", np.uint16, 60_000, 65_535),
        ("tif", np.int32, 255, 255),
        ("tif", np.int32, 100_000, 2**32 - 1),
        ("tif", np.float32, 0.9, 1),
        ("tif", np.float32, 250, 255),
    ],
)
def test_white_of_deep_pictures_is_one_for_all_and_stated(suffix: str, kind: Any, largest: float, white: float, tmp_path):
    """By the largest value of all pictures: dark ones stay dark, and no picture becomes black for the range it is stored in."""
    levels = [largest * share for share in (0, 0.25, 0.5, 1)]
    for i, level in enumerate(levels):
        save(tmp_path / "p", f"{i}.{suffix}", Image.fromarray(np.full((8, 8), level).astype(kind)))
    both = data.load_both(str(tmp_path / "p"))
    found = sorted(each for part in both for each in part.images[:, 0, 0, 0].tolist())
    assert found == pytest.approx([255 * level / white for level in levels], abs=1.1)
    assert any(f"white is {white:g} (--white decides)" in line for line in both[0].account.decisions)
    given = load(str(tmp_path / "p"), reading=Reading(white=float(largest)))
    assert max(given.images.max(), load(str(tmp_path / "p"), "test", reading=Reading(white=float(largest))).images.max()) == 255


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_a_turned_photograph_is_put_upright(suffix: str, tmp_path: Path):
    # Orientation 6 (EXIF 2.3): the first row of the file is the right-hand side of the picture.
    picture = gray(0, (16, 16))
    picture.paste(255, (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "p", f"a.{suffix}", picture, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    save(tmp_path / "p", f"b.{suffix}", picture, exif=exif)
    out = load(str(tmp_path / "p"), size=16).images[0, 0]
    assert out[:, 10:].min() > 200
    assert out[:, :6].max() < 50


def test_the_middle_square_is_kept():
    wide = Image.new("L", (30, 10), 0)
    wide.paste(255, (10, 0, 20, 10))
    assert fit(wide, 10, 1).unique().tolist() == [255]
    tall = Image.new("L", (1, 500), 77)
    assert fit(tall, 8, 1).unique().tolist() == [77]


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path):
    for i in range(2):
        frames = [gray(v) for v in (200, 10, 20)]
        save(tmp_path / "p", f"{i}.gif", frames[0], save_all=True, append_images=frames[1:])
    assert load(str(tmp_path / "p")).images.unique().tolist() == [200]


def test_a_large_photograph_keeps_its_picture_when_it_is_decoded_small(tmp_path: Path):
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 1200).astype(np.uint8), (1200, 1)))
    for i in range(2):
        save(tmp_path / "p", f"{i}.jpg", ramp, quality=95)
    out = load(str(tmp_path / "p"), size=16).images[0, 0].float()
    assert (out - fit(ramp, 16, 1)[0].float()).abs().max() <= 2


# Folders


def test_sub_folders_are_classes_and_colour_is_seen(picture_folder: Path):
    train, test = load(str(picture_folder)), load(str(picture_folder), "test")
    assert train.spec.classes == test.spec.classes == ("blue", "red")
    assert (train.spec.name, train.spec.size, train.spec.channels) == ("pictures", 32, 3)
    assert len(train) + len(test) == 24
    assert len(test) == 2
    for dataset in (train, test):
        redder = dataset.images[:, 0].float().mean(dim=(1, 2)) > dataset.images[:, 2].float().mean(dim=(1, 2))
        assert torch.equal(redder.long(), dataset.labels)


def test_held_out_pictures_do_not_depend_on_the_folders_place(picture_folder: Path, tmp_path: Path):
    before = load(str(picture_folder), "test").sha256
    moved = picture_folder.rename(tmp_path / "elsewhere")
    assert load(str(moved), "test").sha256 == before


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_the_first_held_out_pictures_of_a_folder_are_of_all_classes(tmp_path: Path, parts: tuple[str, ...]):
    for part in parts:
        for label in range(4):
            for i in range(120 // len(parts) ** 2):
                picture = gray(50 * label)
                picture.putpixel((5, 5), i)  # files of the same content stay together
                save(tmp_path / "p" / part / str(label), f"{i:03}.png", picture)
    train, test = load(str(tmp_path / "p")), load(str(tmp_path / "p"), "test")
    assert torch.equal(test.images[:, 0, 0, 0], 50 * test.labels)
    assert set(test.labels[: len(test) // 3].tolist()) == {0, 1, 2, 3}
    assert train.labels.tolist() == sorted(train.labels.tolist())
    assert load(str(tmp_path / "p"), "test").sha256 == test.sha256


def test_train_and_test_folders_are_splits_and_not_classes(tmp_path: Path):
    for split, levels in (("train", (10, 20, 30)), ("test", (40,))):
        for level in levels:
            save(tmp_path / "p" / split / f"class{level % 20}", f"{level}.png", gray(level))
    train, test = load(str(tmp_path / "p")), load(str(tmp_path / "p"), "test")
    assert sorted(train.images[:, 0, 0, 0].tolist()) == [10, 20, 30]
    assert test.images[:, 0, 0, 0].tolist() == [40]
    assert train.spec == test.spec
    assert train.spec.classes == ("class0", "class10")
    assert test.labels.tolist() == [0]


def test_gray_pictures_stored_as_rgb_are_gray(tmp_path: Path):
    for i in range(3):
        save(tmp_path / "p", f"{i}.png", gray(50 * i).convert("RGB"))
    dataset = load(str(tmp_path / "p"))
    assert dataset.spec.channels == 1
    assert dataset.labels is None
    assert load(str(tmp_path / "p"), channels=3).images.shape[1] == 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a picture",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"II*\0\x08\0\0\0",
        b"BM",
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes, suffix: str):
    for i in range(50):
        save(tmp_path / "p", f"{i:02}.png", gray(i))
    bad = tmp_path / "p" / f"bad{suffix}"
    bad.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_whole(tmp_path / "p")
    assert str(bad) in str(error.value)
    assert "0x" not in str(error.value)


def test_pictures_cut_short_are_named(tmp_path: Path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    save(tmp_path / "p", "good.png", noise)
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff"):
        bad = save(tmp_path / "p", f"bad.{suffix}", noise)
        bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
        with pytest.raises(DataError, match=f"bad.{suffix}"):
            read_whole(tmp_path / "p")
        bad.unlink()


def test_a_picture_that_unpacks_to_gigabytes_is_refused_before_it_is_decoded(tmp_path: Path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 7100, 7100, 8, 0, 0, 0, 0)
    for i in range(2):
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        (tmp_path / f"{i}.png").write_bytes(bomb)
    with pytest.raises(DataError, match="at most 50000000 pixels, got 7100×7100"):
        load(str(tmp_path))


def test_links_are_followed_once_and_hidden_files_are_not_pictures(tmp_path: Path):
    for i in range(4):
        save(tmp_path / "p" / "a", f"{i}.png", gray(i))
        save(tmp_path / "elsewhere", f"{i}.png", gray(100 + i))
    (tmp_path / "p" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "p" / "a" / "up").symlink_to(tmp_path / "p")
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "p" / "a" / "._0.png").write_bytes(b"not a picture")
    (tmp_path / "p" / ".trash").mkdir()
    (tmp_path / "p" / ".trash" / "x.png").write_bytes(b"not a picture")
    (tmp_path / "p" / "notes.txt").write_text("not a picture")
    dataset = load(str(tmp_path / "p"))
    assert dataset.spec.classes == ("a", "b")
    assert read_whole(tmp_path / "p") == 8


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path):
    for i in range(3):
        save(tmp_path / "p", f"{i}.png", gray(i))
    (tmp_path / "p" / "lost.png").symlink_to(tmp_path / "no-such-file.png")
    (tmp_path / "p" / "loop.png").symlink_to(tmp_path / "p" / "loop.png")
    with pytest.raises(DataError, match=r"(lost|loop)\.png"):
        read_whole(tmp_path / "p")


def test_the_home_of_nobody_is_no_data_set(nowhere):
    with pytest.raises(DataError, match=r"expected one of .*; got '~no-such-user/x'"):
        load("~no-such-user/x")
    with pytest.raises(DataError, match="--data-dir: ~no-such-user/x"):
        load("mnist", data_dir="~no-such-user/x")
    assert VAETraining(dataset="~no-such-user/x").run_folder == Path("runs/vae-x")
    assert ClassifierTraining(dataset="~no-such-user/x").options()["dataset"] == "~no-such-user/x"


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pictures(tmp_path: Path, count: int):
    for i in range(count):
        save(tmp_path, f"{i}.png", gray(i))
    with pytest.raises(DataError, match="expected at least 2 pictures"):
        load(str(tmp_path))


def test_names_that_are_not_utf8_become_text(tmp_path: Path):
    for name in (b"ok", b"caf\xe9"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/p/" + name))
        for i in range(2):
            save(folder, f"{i}.png", gray(i))
    classes = load(str(tmp_path / "p")).spec.classes
    assert classes == ("caf\ufffd", "ok")
    "".join(classes).encode()


def test_what_does_not_fit_is_refused_before_the_pictures_are_read(picture_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def never(*args: object) -> None:
        raise AssertionError("the pictures were read")

    def refuse(spec: object) -> None:
        raise ValueError(f"no {spec.size}")

    monkeypatch.setattr(data, "_read_all", never)
    with pytest.raises(ValueError, match="no 12"):
        load(str(picture_folder), size=12, check=refuse)


def test_an_interrupt_while_reading_leaves_no_work_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    read = []

    def stop_at_ten(index: int) -> torch.Tensor:
        read.append(index)
        if index == 10:
            raise KeyboardInterrupt
        return torch.zeros(1, 8, 8, dtype=torch.uint8)

    with pytest.raises(KeyboardInterrupt):
        data._read_all(stop_at_ten, 100_000, data.DataSpec(size=8))
    assert len(read) < 1000


# The Hub, through `datasets`


def hub_table(levels: list[int], names: list[str] | None = None, mode: str = "L") -> object:
    import datasets

    columns = {"picture": [gray(v, (8, 8)).convert(mode) for v in levels]}
    features = {"picture": datasets.Image()}
    if names:
        columns["kind"] = [i % len(names) for i in range(len(levels))]
        features["kind"] = datasets.ClassLabel(names=names)
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What `load_dataset` returns for each id."""
    datasets = pytest.importorskip("datasets")
    tables: dict[str, object] = {}
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, hub_id, timeout: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda hub_id, *config: datasets.DatasetDict(tables[hub_id]))
    return tables


def test_a_hub_data_set_with_test_split_and_classes(hub: dict[str, object]):
    hub["me/things"] = {"train": hub_table([10, 20, 30], ["x", "y"]), "test": hub_table([200, 210], ["x", "y"])}
    train, test = load("me/things"), load("me/things", "test")
    assert train.images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert sorted(zip(test.images[:, 0, 0, 0].tolist(), test.labels.tolist(), strict=True)) == [(200, 0), (210, 1)]
    assert train.labels.tolist() == [0, 1, 0]
    assert (train.spec.name, train.spec.channels, train.spec.size, train.spec.classes) == ("things", 1, 8, ("x", "y"))
    assert train.source == "Hub: me/things"


def test_a_hub_data_set_without_test_split_gives_every_tenth_row(hub: dict[str, object]):
    hub["me/things"] = {"train": hub_table(list(range(20)))}
    assert sorted(load("me/things", "test").images[:, 0, 0, 0].tolist()) == [0, 10]
    assert load("me/things").images[:, 0, 0, 0].tolist() == [v for v in range(20) if v % 10]


def test_test_rows_of_the_hub_are_mixed_unless_the_data_set_has_a_name_here(
    hub: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Rows 9, 8, 29, 13, …: the order of the SHA-256 of 0…29 in decimal, as `sha256sum` gives it."""
    monkeypatch.setattr(data, "DEBIAN", tmp_path)
    monkeypatch.delenv("GENLAB_DATA_DIR", raising=False)
    levels = list(range(30))
    table = hub_table(levels, ["even", "odd"])
    for hub_id in ("me/things", "ylecun/mnist"):
        hub[hub_id] = {"train": table, "test": table}
    test = load("me/things", "test")
    mixed = test.images[:, 0, 0, 0].tolist()
    assert sorted(mixed) == levels
    assert mixed[:4] == [9, 8, 29, 13]
    assert test.labels.tolist() == [level % 2 for level in mixed]
    assert load("me/things").images[:, 0, 0, 0].tolist() == levels
    for name in ("mnist", "ylecun/mnist"):
        assert load(name, "test").images[:, 0, 0, 0].tolist() == levels


def test_a_hub_data_set_in_colour_with_other_sizes(hub: dict[str, object]):
    import datasets

    pictures = [Image.new("RGB", (40, 30 + i), (200, 30, 10)) for i in range(3)]
    hub["me/things"] = {
        "train": datasets.Dataset.from_dict({"image": pictures}, datasets.Features({"image": datasets.Image()}))
    }
    assert load("me/things").images.shape == (2, 3, 32, 32)
    assert load("me/things", size=8, channels=1).images.shape == (2, 1, 8, 8)


def test_mnist_comes_from_the_hub_with_the_names_of_its_classes(
    hub: dict[str, object], nowhere, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.undo()  # of `nowhere` the places alone are wanted
    monkeypatch.setattr(data, "DEBIAN", Path("/no-such-folder"))
    import datasets

    monkeypatch.delenv("GENLAB_DATA_DIR", raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, hub_id, timeout: None)
    table = hub_table([1] * 10, [f"class {i}" for i in range(10)])
    monkeypatch.setattr(datasets, "load_dataset", lambda hub_id, *config: datasets.DatasetDict({"train": table, "test": table}))
    assert load("mnist").spec == data.DataSpec("mnist", 1, 8, tuple("0123456789"))


def test_a_hub_data_set_that_cannot_be_used_says_why(hub: dict[str, object]):
    import datasets

    hub["me/words"] = {"train": datasets.Dataset.from_dict({"text": ["a", "b"]})}
    with pytest.raises(DataError, match="expected a column of pictures, got columns text"):
        load("me/words")
    hub["me/tests"] = {"a": hub_table([1]), "b": hub_table([1])}
    with pytest.raises(DataError, match="expected a split named train, got a, b; --held-out names the one to test with"):
        load("me/tests")
    hub["me/one"] = {"train": hub_table([1])}
    with pytest.raises(DataError, match="got 1 in all"):
        load("me/one")
    raw = io.BytesIO()
    gray(9).save(raw, "PNG")
    rows = {"image": [{"bytes": raw.getvalue(), "path": None}, None, {"bytes": b"junk", "path": None}]}
    table = datasets.Dataset.from_dict(rows, datasets.Features({"image": datasets.Image()}))
    hub["me/holes"] = {"train": table, "test": table}
    with pytest.raises(DataError, match="got none in row 1"):
        load("me/holes")
    hub["me/junk"] = {"train": table.select([0, 2]), "test": table}
    with pytest.raises(DataError, match="me/junk, row 1"):
        load("me/junk")


def test_without_the_hub_the_cache_is_asked_and_nothing_is_retried(tmp_path: Path):
    """A whole process with a Hub that refuses connections: one readable line, no retries, no trace."""
    code = "from genlab import data\ntry:\n    data.load('me/things')\nexcept data.DataError as error:\n    print(error)\n"
    environment = os.environ | {
        "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "HF_TOKEN": "hf_canary",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("me/things: the Hub did not answer ("), done.stderr
    assert "not in the local cache" in done.stdout
    assert done.stdout.count("\n") == 1
    assert "Retry" not in done.stderr
    assert "canary" not in done.stdout + done.stderr
