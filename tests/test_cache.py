"""The cache of decoded pictures: written once, shared, bounded, never stale, never half."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from genlab import cache, data, folders
from genlab.config import Reading
from genlab.data import DataError, load_both


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that were opened in the test."""
    names: list[str] = []
    opened = data._opened
    monkeypatch.setattr(data, "_opened", lambda item, size: names.append(item.name) or opened(item, size))
    return names


def test_pictures_are_decoded_once_and_mapped(picture_folder: Path, tmp_path: Path, decoded: list[str]):
    reading = Reading(cache=str(tmp_path / "cache"))
    first = load_both(str(picture_folder), reading=reading)
    assert decoded
    decoded.clear()
    second = load_both(str(picture_folder), reading=reading)
    assert not decoded
    plain = load_both(str(picture_folder), reading=Reading(cache="off"))
    for one, other, in_memory in zip(first, second, plain, strict=True):
        assert one.spec == other.spec == in_memory.spec
        assert one.images.equal(other.images)
        assert one.images.equal(in_memory.images)
        assert one.labels.equal(other.labels)
        assert one.sha256 == other.sha256 == data.Dataset(one.spec, one.images, one.labels, "").sha256
        assert one.account == other.account
    assert second[0].account.stored == str(tmp_path / "cache")
    second[0].images.zero_()  # the mapping is private: nobody changes the file
    assert load_both(str(picture_folder), reading=reading)[0].images.equal(first[0].images)


def test_what_changes_the_pictures_decodes_them_again(picture_folder: Path, tmp_path: Path, decoded: list[str]):
    reading = Reading(cache=str(tmp_path / "cache"))
    before = load_both(str(picture_folder), reading=reading)
    changed = picture_folder / "red" / "00.png"
    os.utime(changed, ns=(1, 1))
    for act in (
        lambda: load_both(str(picture_folder), reading=reading),
        lambda: load_both(str(picture_folder), size=8, reading=reading),
        lambda: load_both(str(picture_folder), reading=Reading(cache=reading.cache, classes="none")),
    ):
        decoded.clear()
        after = act()
        assert decoded
    assert after[0].spec.classes == ()
    assert after[0].images.equal(before[0].images)


def test_a_damaged_or_unfinished_entry_is_written_again(picture_folder: Path, tmp_path: Path):
    root, reading = tmp_path / "cache", Reading(cache=str(tmp_path / "cache"))
    before = load_both(str(picture_folder), reading=reading)[0].sha256
    (entry,) = (path.parent for path in root.glob("*/facts.json"))
    (entry / "pixels").write_bytes(b"short")
    entry.with_name(f".{entry.name}").mkdir()
    assert load_both(str(picture_folder), reading=reading)[0].sha256 == before
    assert not entry.with_name(f".{entry.name}").exists()


def test_the_entries_used_least_recently_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def make(path: Path) -> dict[str, Any]:
        path.write_bytes(bytes(100))
        return {}

    monkeypatch.setattr(cache, "MAX_BYTES", 250)
    for i, name in enumerate("abc"):
        with cache.locked(tmp_path, name) as entry:
            cache.write(entry, make)
        os.utime(entry / "facts.json", (i, i))
        if name == "b":
            os.utime(tmp_path / "a" / "facts.json")
    assert sorted(path.parent.name for path in tmp_path.glob("*/facts.json")) == ["a", "c"]


def test_a_full_disk_or_a_folder_that_cannot_be_written_says_what_to_do(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(DataError, match=r"--cache /proc/x: cannot be written \(.*\); give another folder, or off"):
        load_both(str(picture_folder), reading=Reading(cache="/proc/x"))

    def full(path: Path) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"\(No space left on device\): give a folder with more room by --cache"):
        cache.write(tmp_path / "entry", full)
    assert not list(tmp_path.glob(".entry"))
    monkeypatch.delenv("GENLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/x")
    assert load_both(str(picture_folder))[0].account.stored == ""


def test_files_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Copies are found by reading files of the same size; the second time nothing is read but what has changed."""
    reading, root = Reading(cache=str(tmp_path / "cache")), tmp_path / "p"
    root.mkdir()
    for i in range(20):
        Image.new("L", (8, 8), 10 * (i // 2)).save(root / f"{i}.bmp")
    before = folders.listed(root, reading)
    read: list[str] = []
    content = folders.File.content
    monkeypatch.setattr(folders.File, "content", lambda self: read.append(str(self.path)) or content(self))
    assert folders.listed(root, reading).fingerprint == before.fingerprint
    assert not read
    os.utime(root / "3.bmp", ns=(1, 1))
    assert folders.listed(root, reading).decisions == before.decisions
    assert read == ["3.bmp"]
