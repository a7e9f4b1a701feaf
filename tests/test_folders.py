"""What a folder or an archive of pictures means: splits, classes, what is left out, and that every decision is stated."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from genlab import folders
from genlab.config import Reading
from genlab.data import DataError, load, load_both
from genlab.folders import listed

CLASSES = ("cat", "dog")


def picture(path: Path, level: int = 0, noise: int | None = None) -> Path:
    """Write a picture that no other has, or, with the same `noise`, one that others have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(abs(hash(str(path))) if noise is None else noise)
    Image.fromarray(np.clip(random.integers(0, 40, (8, 8)) + level, 0, 255).astype(np.uint8)).save(path)
    return path


def tree(root: Path, *inside: str, count: int = 4) -> Path:
    for folder in inside:
        for i in range(count):
            picture(root / folder / f"{i}.png")
    return root


def summary(root: Path, **reading: object) -> SimpleNamespace:
    found = listed(root, Reading(**reading))
    names = [{item.name.removeprefix(f"{root}/") for item in part} for part in (found.train, found.test)]
    said = " | ".join([*found.decisions, *found.doubts])
    return SimpleNamespace(train=names[0], test=names[1], classes=found.classes, said=said, left_out=found.left_out)


@pytest.mark.parametrize("training", ["train", "training", "Train", "TRAINING"])
@pytest.mark.parametrize("testing", ["test", "testing", "val", "valid", "validation", "Test", "dev"])
@pytest.mark.parametrize("wrapper", ["", "pets", "a/pets"])
def test_folders_with_the_names_of_splits_are_splits(training: str, testing: str, wrapper: str, tmp_path: Path):
    root = tree(tmp_path / "p", *(f"./{wrapper}/{split}/{c}" for split in (training, testing) for c in CLASSES))
    found = summary(root)
    assert found.classes == CLASSES
    assert {name.removeprefix(f"{wrapper}/").split("/")[0] for name in found.train} == {training}
    assert len(found.train) == len(found.test) == 8
    assert f"trained on {training}/, held out: {testing}/ (--held-out decides)" in found.said


def test_of_two_splits_to_test_with_one_is_held_out_and_the_other_is_left_out(tmp_path: Path):
    root = tree(tmp_path / "p", *(f"{split}/{c}" for split in ("train", "val", "test") for c in CLASSES))
    found = summary(root)
    assert {name.split("/")[0] for name in found.test} == {"test"}
    assert len(found.left_out["not in train/ and test/"]) == 8
    assert {name.split("/")[0] for name in summary(root, held_out="val").test} == {"val"}
    assert summary(root, held_out="val").classes == CLASSES
    pooled = summary(root, held_out="0.25")
    assert (len(pooled.train), len(pooled.test), pooled.classes) == (18, 6, CLASSES)


def test_a_split_without_another_is_a_doubt(tmp_path: Path):
    root = tree(tmp_path / "p", "val", "cat", "dog")
    assert "--held-out val holds it out" in summary(root).said
    found = summary(root, held_out="val")
    assert found.classes == CLASSES
    assert {name.split("/")[0] for name in found.test} == {"val"}


def test_train_alone_keeps_its_classes(tmp_path: Path):
    found = summary(tree(tmp_path / "p", "train/cat", "train/dog"))
    assert found.classes == CLASSES
    assert "all pictures are in train/" in found.said


def test_few_pictures_beside_the_classes_are_left_out_and_many_are_the_data(tmp_path: Path):
    root = tree(tmp_path / "p", "cat", "dog")
    picture(root / "stray.png")
    found = summary(root)
    assert found.classes == CLASSES
    assert found.left_out == {"beside the folders of the classes (--classes none uses them)": ["stray.png"]}
    assert len(summary(root, classes="none").train | summary(root, classes="none").test) == 9
    tree(root, "", count=20)
    found = summary(root)
    assert found.classes == ()
    assert len(found.train | found.test) == 29
    assert "--classes folders" in found.said
    assert summary(root, classes="folders").classes == CLASSES


def test_held_out_pictures_without_classes_are_a_doubt(tmp_path: Path):
    root = tree(tmp_path / "p", "train/cat", "train/dog", "test")
    found = listed(root, Reading())
    assert found.classes == CLASSES
    assert {item.label for item in found.test} == {-1}
    assert any("have no class" in line for line in found.doubts)


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path: Path):
    pytest.importorskip("pillow_heif", reason="pillow-heif is optional").register_heif_opener()
    for i in range(20):
        Image.new("RGB", (40, 48), (200, 10 * i, 30)).save(tmp_path / f"{i:02}.heic")
    train, test = load_both(str(tmp_path), size=8)
    assert len(train) + len(test) == 20
    assert train.spec.channels == 3
    assert (train.images[:, 0].float() - 200).abs().max() < 8


def test_everything_that_is_not_read_is_counted_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folders.features, "check", lambda name: False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    root = tree(tmp_path / "p", "")
    picture(root / "photo.jpg").rename(root / "photo.jfif")
    for name in ("a.heic", "b.avif", "notes.txt", "thumbs.db", "._0.png", "__MACOSX/x.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    found = summary(root)
    assert "photo.jfif" in found.train | found.test
    assert found.left_out == {
        "pictures that need pillow-heif": ["a.heic"],
        "pictures that need Pillow 11.3 or later": ["b.avif"],
        "not pictures by their names": ["notes.txt", "thumbs.db"],
    }


def test_avif_is_read_where_pillow_has_it(tmp_path: Path):
    if not folders.features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    for i in range(3):
        picture(tmp_path / "p" / f"{i}.png", 60 * i).rename(tmp_path / f"{i}.png")
        Image.open(tmp_path / f"{i}.png").save(tmp_path / "p" / f"{i}.avif")
    assert sum(map(len, load_both(str(tmp_path / "p")))) == 3


def test_files_of_the_same_content_are_on_one_side(tmp_path: Path):
    for i in range(40):
        picture(tmp_path / "p" / f"{i:02}.png", noise=i)
        picture(tmp_path / "p" / f"copy of {i:02}.png", noise=i)
    for share, said in ((None, "40 repeat another file"), ("0.5", "40 repeat another file")):
        found = summary(tmp_path / "p", held_out=share)
        originals = [{name.removeprefix("copy of ") for name in part} for part in (found.train, found.test)]
        assert not originals[0] & originals[1]
        assert len(found.test) == round(80 * float(share or 0.1))
        assert said in found.said


@pytest.mark.parametrize("archived", [False, True])
def test_metadata_is_read_as_imagefolder_reads_it(archived: bool, tmp_path: Path):
    root = tree(tmp_path / "p", "train", "test", count=6)
    for split in ("train", "test"):
        rows = [f"{i}.png,{'round' if i % 2 else 'flat'},{i}" for i in range(5)]
        (root / split / "metadata.csv").write_text("\n".join(["file_name,shape,number", *rows]) + "\n")
    if archived:
        with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
            for file in root.rglob("*.*"):
                archive.write(file, Path("p") / file.relative_to(root))
        root = tmp_path / "p.zip"
    assert "the columns number, shape (--classes number or shape or folders decides)" in summary(root).said
    found = listed(root, Reading(classes="shape"))
    assert found.classes == ("flat", "round")
    assert [item.label for item in found.train] == [0, 1, 0, 1, 0]
    assert [name.rpartition("/")[2] for name in found.left_out["without a row in metadata.csv"]] == ["5.png"] * 2
    with pytest.raises(DataError, match="--classes: expected one of none, folders, number, shape, got colour"):
        listed(root, Reading(classes="colour"))


def test_a_row_of_metadata_without_its_picture_is_named(tmp_path: Path):
    root = tree(tmp_path / "p", "")
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": "lost.png", "label": "a"}) + "\n")
    with pytest.raises(DataError, match=r"metadata\.jsonl: expected pictures that exist, got lost\.png"):
        listed(root, Reading())


def test_an_archive_holds_what_its_folder_holds(tmp_path: Path):
    root = tree(tmp_path / "pets", "cat", "dog")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for file in sorted(root.rglob("*.png")):
            archive.write(file, file.relative_to(root))
        archive.writestr("__MACOSX/._x.png", b"x")
    for split in ("train", "test"):
        folder, archived = load(str(root), split), load(str(tmp_path / "pets.zip"), split)
        assert archived.sha256 == folder.sha256
        assert archived.spec == folder.spec
    (tmp_path / "broken.zip").write_bytes((tmp_path / "pets.zip").read_bytes()[:200])
    with pytest.raises(DataError, match=r"broken\.zip: not a zip archive that can be read"):
        load(str(tmp_path / "broken.zip"))


def test_broken_pictures_are_skipped_by_request_and_named(tmp_path: Path):
    root = tree(tmp_path / "p", "cat", "dog", count=10)
    (root / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=r"broken\.png.*--skip-broken"):
        load_both(str(root))
    train, test = load_both(str(root), reading=Reading(skip_broken=True))
    assert len(train) + len(test) == 20
    assert train.account.left_out["broken"] == ["cat/broken.png"]
    assert len(train.labels) == len(train)
    for i in range(60):
        (root / "dog" / f"broken-{i}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"of \d+ pictures \((train|test)\) are broken"):
        load_both(str(root), reading=Reading(skip_broken=True))


def test_any_number_and_length_of_classes_has_a_way_on(tmp_path: Path):
    root = tree(tmp_path / "p", "a" * 150, "b" * 150, count=2)
    found = summary(root)
    assert [len(name) for name in found.classes] == [100, 100]
    assert "over 100 characters are cut" in found.said
    for i in range(1001):
        picture(tmp_path / "many" / str(i) / "x.png")
    with pytest.raises(DataError, match="at most 1000 classes, got 1001; give --classes none"):
        listed(tmp_path / "many", Reading())
    assert listed(tmp_path / "many", Reading(classes="none")).classes == ()


def test_held_out_pictures_may_be_anywhere(tmp_path: Path):
    root, other = tree(tmp_path / "p", "cat", "dog"), tree(tmp_path / "other", "cat", "dog", count=2)
    found = listed(root, Reading(held_out=str(other)))
    assert (len(found.train), len(found.test), found.classes) == (8, 4, CLASSES)
    with pytest.raises(DataError, match=r"--held-out: expected a share such as 0\.1, or a folder in .* got no-such-folder"):
        listed(root, Reading(held_out="no-such-folder"))
    with pytest.raises(DataError, match="--held-out: expected a share between 0 and 1"):
        listed(root, Reading(held_out="1.5"))
    assert len(listed(root, Reading(held_out="0.5")).test) == 4
