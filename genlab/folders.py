"""List the pictures of a folder or a zip archive: which are for training, which are held out, and what their classes are.

- A folder that has one folder and no pictures is a wrapper: the layout is that of the folder in it.
- With a folder `train` or `training`, the folder `test` (`testing`, `val`, …) is held out; otherwise a tenth is, by the hash of
  the names, files of the same content together.
- Sub-folders are classes, or a column of `metadata.csv` is (as `ImageFolder` of the package datasets reads it).

What is decided so is written to the listing, with the option that decides otherwise.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import posixpath
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import features

from genlab import cache
from genlab.config import MAX_NAME, Reading, dataset_name, expanded
from genlab.listing import (
    HELD_OUT,
    TESTING,
    TRAINING,
    DataError,
    Item,
    Listing,
    as_text,
    class_names,
    digest,
    hold_out,
    share_of,
    some,
    split_named,
)

SUFFIXES = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".jp2",
}  # fmt: skip
"""Endings of files that are read as pictures."""
EXTRA = {".avif": "Pillow 11.3 or later", ".avifs": "Pillow 11.3 or later", ".heic": "pillow-heif", ".heif": "pillow-heif"}
"""Endings of pictures that Pillow reads in some installations only → what must be installed."""
DECIDES = " (--held-out decides)"
METADATA = ("metadata.csv", "metadata.jsonl")
MAX_FILE = 1_000_000_000
"""Largest file in an archive, unpacked, bytes."""


def readable_suffixes() -> set[str]:
    """Return the endings of files that are read as pictures in this installation."""
    return SUFFIXES | ({".avif", ".avifs"} if features.check("avif") else set()) | ({".heic", ".heif"} if heif() else set())


def heif() -> bool:
    """Return True if pillow-heif is installed, and let Pillow use it."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@dataclass(frozen=True)
class File:
    """A file by its path below the root of a tree."""

    path: PurePosixPath
    size: int
    stamp: str
    tree: Tree

    def open(self) -> Path | io.BytesIO:
        """Return the file, or its content if it lies in an archive."""
        return self.tree.open(self.path)

    def content(self) -> bytes:
        """Return the bytes of the file."""
        found = self.open()
        return found.read_bytes() if isinstance(found, Path) else found.getvalue()

    def item(self, label: int) -> Item:
        """Return the picture in this file."""
        return Item(f"{self.tree.root}/{as_text(str(self.path))}", self.open, label)


class Tree:
    """The files of a folder or a zip archive, hidden ones aside.

    Attributes:
        root: the folder or archive.
        files: sorted by path.

    Raises:
        DataError: the folder or archive cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._archive = _archive(root) if root.is_file() else None
        found = self._in_archive(self._archive) if self._archive else self._in_folder()
        self.files = sorted(found, key=lambda file: file.path)

    def open(self, path: PurePosixPath) -> Path | io.BytesIO:
        """Return a file of the tree, or its content if the tree is an archive.

        Raises:
            DataError: the archive is damaged or encrypted.
        """
        if self._archive is None:
            return self.root / path
        try:
            return io.BytesIO(self._archive.read(str(path)))
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"{self.root}/{path}: cannot be unpacked ({error})") from error

    def _in_archive(self, archive: zipfile.ZipFile) -> Iterator[File]:
        for info in archive.infolist():
            path = PurePosixPath(info.filename)
            if info.is_dir() or _hidden(path):
                continue
            if info.file_size > MAX_FILE:
                raise DataError(f"{self.root}/{path}: expected at most {MAX_FILE:,} bytes, got {info.file_size:,}")
            yield File(path, info.file_size, f"{info.CRC:08x}", self)

    def _in_folder(self) -> Iterator[File]:
        """Yield the files below the folder; follows links to folders, each folder once."""

        def refuse(error: OSError) -> None:
            raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror})") from error

        visited = {os.path.realpath(self.root)}
        for folder, folders, names in os.walk(self.root, followlinks=True, onerror=refuse):
            unvisited = []
            for name in sorted(folders):
                real = os.path.realpath(os.path.join(folder, name))
                if not _hidden(PurePosixPath(name)) and real not in visited:
                    visited.add(real)
                    unvisited.append(name)
            folders[:] = unvisited
            for name in names:
                if _hidden(PurePosixPath(name)):
                    continue
                path = Path(folder, name)
                relative = PurePosixPath(path.relative_to(self.root).as_posix())
                try:
                    status = path.stat()
                except OSError:  # a link that leads nowhere is listed, so that reading it fails with its name
                    yield File(relative, -1, "", self)
                    continue
                if path.is_file():
                    yield File(relative, status.st_size, str(status.st_mtime_ns), self)


def _hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a zip archive that can be read ({error})") from error


@dataclass
class Notes:
    """What is decided while a folder is listed; see `Listing`."""

    decisions: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, files: Sequence[File]) -> None:
        """Note files that are not used."""
        if files:
            self.left_out.setdefault(reason, []).extend(as_text(str(file.path)) for file in files)


Folder = dict[File, str]
"""Picture → the name of the sub-folder of its split that it is in, "" for none."""


def listed(root: Path, reading: Reading) -> Listing:
    """List the pictures of a folder or a zip archive.

    Raises:
        DataError: it cannot be read, has fewer than two pictures, or `reading` asks for something that is not there.
    """
    tree, notes = Tree(root), Notes()
    pictures = _pictures(tree, notes)
    with cache.table(cache.folder(reading.cache), str(root.resolve())) as digests:
        train, test = _splits(tree, pictures, _top(pictures, notes), reading, notes, digests)
    labels, classes = _classes(train, test, _metadata(tree), reading, notes)
    parts = [[file for file in part if file in labels] for part in (train, test)]
    if not all(parts):
        endings = ", ".join(sorted(readable_suffixes()))
        lost = [f"; {len(names)} left out, {reason}: {some(names)}" for reason, names in notes.left_out.items()]
        raise DataError(
            f"{root}: expected at least 2 pictures, one to train on and another to hold out ({endings}), got {len(parts[0])} "
            f"and {len(parts[1])}{''.join(lost)}"
        )
    stamps = hashlib.sha256()
    for part in parts:
        for file in part:
            stamps.update(json.dumps([str(root), str(file.path), file.size, file.stamp, labels[file]]).encode())
        stamps.update(b"|")
    return Listing(
        as_text(dataset_name(root.resolve()))[:MAX_NAME],
        str(root),
        [file.item(labels[file]) for file in parts[0]],
        [file.item(labels[file]) for file in parts[1]],
        classes,
        stamps.hexdigest(),
        decisions=tuple(notes.decisions),
        doubts=tuple(notes.doubts),
        left_out=notes.left_out,
    )


def _pictures(tree: Tree, notes: Notes) -> list[File]:
    """Return the files that are pictures by their name, and note the others."""
    suffixes, found, others = readable_suffixes(), [], []
    for file in tree.files:
        suffix = file.path.suffix.lower()
        if suffix in suffixes:
            found.append(file)
        elif suffix in EXTRA:
            notes.leave_out(f"pictures that need {EXTRA[suffix]}", [file])
        elif file.path.name not in METADATA:
            others.append(file)
    notes.leave_out("not pictures by their names", others)
    return found


def _top(files: list[File], notes: Notes) -> PurePosixPath:
    """Return the innermost folder that has all pictures, in sub-folders or as a split."""
    top = PurePosixPath(posixpath.commonpath([file.path.parent for file in files])) if files else PurePosixPath()
    if top.parts and top.name.lower() not in (*TRAINING, *TESTING) and all(file.path.parent == top for file in files):
        top = top.parent
    if top.parts:
        notes.decisions.append(f"all pictures are in {as_text(str(top))}/: its sub-folders count")
    return top


def _within(files: list[File], top: PurePosixPath) -> Folder:
    """Return the pictures below a folder, each with the sub-folder that it is in."""
    parts = {file: file.path.relative_to(top).parts for file in files if file.path.is_relative_to(top)}
    return {file: as_text(names[0]) if len(names) > 1 else "" for file, names in parts.items()}


def _splits(
    tree: Tree, files: list[File], top: PurePosixPath, reading: Reading, notes: Notes, digests: dict[str, str]
) -> tuple[Folder, Folder]:
    """Return the pictures for training and the held-out ones."""
    share = share_of(reading.held_out)
    if reading.held_out is not None and share is None:
        return _given(tree, files, top, reading.held_out, notes)
    below = [file.path.relative_to(top).parts for file in files]
    folders = sorted({names[0] for names in below if len(names) > 1})
    training, testing = split_named(folders, TRAINING), split_named(folders, TESTING)
    every = _within(files, top)
    if training and testing:
        splits = [training, testing] if share is None else [name for name in folders if name.lower() in (*TRAINING, *TESTING)]
        parts = [_within(files, top / name) for name in splits]
        every = {file: folder for part in parts for file, folder in part.items()}
        named = " and ".join(f"{as_text(name)}/" for name in splits)
        notes.leave_out(f"not in {named}", [file for file in files if file not in every])
        if share is None:
            notes.decisions.append(f"trained on {as_text(training)}/, held out: {as_text(testing)}/ (--held-out decides)")
            return parts[0], _mixed(parts[1])
        notes.decisions.append(f"{named} are taken as one, as --held-out is a share")
    elif training or testing:
        name = as_text(training or testing or "")
        notes.doubts.append(
            f"the folder {name}/ has the name of a split but no other beside it: it counts as any other folder; "
            f"--held-out {name} holds it out"
        )
    held_out, duplicates = hold_out([*_mixed(every)], _Content([*every], digests), share or 1 / HELD_OUT)
    together = f"; {duplicates} repeat another file, and are on its side" if duplicates else ""
    notes.decisions.append(
        f"held out: {len(held_out)} of {len(every)} files, by the hash of their names{together} (--held-out decides)"
    )
    chosen = {file: every[file] for file in held_out}
    return {file: folder for file, folder in every.items() if file not in chosen}, chosen


def _given(tree: Tree, files: list[File], top: PurePosixPath, given: str, notes: Notes) -> tuple[Folder, Folder]:
    """Return the splits of `--held-out FOLDER`: a folder below the root, or any other folder or archive."""
    for base in dict.fromkeys((top, PurePosixPath())):
        inside = PurePosixPath(posixpath.normpath(base / given))
        held_out = _within(files, inside) if inside.parts and not inside.is_absolute() else {}
        if not held_out:
            continue
        beside = {file.path.relative_to(inside.parent).parts[0] for file in files if file.path.is_relative_to(inside.parent)}
        training = split_named(sorted(beside), TRAINING)
        own = inside.parent / training if training else top
        rest = [file for file in files if file not in held_out]
        notes.leave_out(f"not in {as_text(str(own))}/", [file for file in rest if not file.path.is_relative_to(own)])
        notes.decisions.append(f"held out: {as_text(str(inside))}/, as --held-out says")
        return _within(rest, own), _mixed(held_out)
    other = expanded(given)
    if not other.exists():
        raise DataError(f"--held-out: expected a share such as 0.1, or a folder in {tree.root} or elsewhere, got {given}")
    found = _pictures(Tree(other), notes)
    notes.decisions.append(f"held out: all pictures of {other}, as --held-out says")
    return _within(files, top), _mixed(_within(found, _top(found, notes)))


def _mixed(files: Folder) -> Folder:
    """Return pictures in a fixed order that mixes the classes: by the hash of their path."""
    order = sorted(files, key=lambda file: hashlib.sha256(os.fsencode(str(file.path))).digest())
    return {file: files[file] for file in order}


class _Content:
    """Returns a key of a file that is the same for files of the same content.

    Files of the same size are read for it, unless their hash is in `digests`, to which it is added.
    """

    def __init__(self, files: list[File], digests: dict[str, str]) -> None:
        self._digests = digests
        self._sizes: dict[int, int] = {}
        for file in files:
            self._sizes[file.size] = self._sizes.get(file.size, 0) + 1

    def __call__(self, file: File) -> str:
        name = f"{file.path}|{file.size}|{file.stamp}"
        if self._sizes[file.size] == 1 or file.size < 0:
            return name
        if name not in self._digests:
            try:
                self._digests[name] = digest(file.content()).hex()
            except OSError:  # reading it again, to decode it, reports it
                return name
        return self._digests[name]


def _metadata(tree: Tree) -> dict[PurePosixPath, dict[str, str]] | None:
    """Return the rows of all metadata files by the path of their picture, or None if there is no such file.

    Raises:
        DataError: such a file cannot be read, has no column file_name, or names a picture that is not there.
    """
    tables = [file for file in tree.files if file.path.name in METADATA]
    if not tables:
        return None
    known = {file.path for file in tree.files}
    rows: dict[PurePosixPath, dict[str, str]] = {}
    for table in tables:
        where = f"{tree.root}/{table.path}"
        try:
            lines = table.content().decode("utf-8-sig").splitlines()
            found = list(csv.DictReader(lines)) if table.path.suffix == ".csv" else [json.loads(each) for each in lines if each]
        except (ValueError, csv.Error) as error:
            raise DataError(f"{where}: cannot be read ({error})") from error
        for row in found:
            if not isinstance(row, dict) or not row.get("file_name"):
                raise DataError(f"{where}: expected a column file_name with the path of a picture in every row, got {row}")
            path = PurePosixPath(posixpath.normpath(table.path.parent / str(row["file_name"])))
            if path not in known:
                raise DataError(f"{where}: expected pictures that exist, got {row['file_name']}; mend or remove its row")
            rows[path] = {key: "" if value is None else str(value) for key, value in row.items() if key != "file_name"}
    return rows


def _classes(
    train: Folder, test: Folder, rows: dict[PurePosixPath, dict[str, str]] | None, reading: Reading, notes: Notes
) -> tuple[dict[File, int], tuple[str, ...]]:
    """Return the label of every picture that is used, −1 for none, and the names of the classes."""
    every = [*train, *test]
    columns = sorted({name for row in (rows or {}).values() for name in row})
    wanted = reading.classes
    if wanted is None and rows is not None:
        wanted = "label" if "label" in columns else None
        hint = f"--classes {' or '.join(columns)} or folders" if columns else "--classes folders"
        notes.decisions.append(f"metadata.csv has the columns {', '.join(columns) or 'file_name alone'} ({hint} decides)")
    if wanted == "none":
        notes.decisions.append("no classes, as --classes says")
        return dict.fromkeys(every, -1), ()
    if wanted in (None, "folders"):
        return _by_folder(train, test, wanted is not None, notes)
    if wanted not in columns:
        ways = ", ".join(["none", "folders", *columns])
        raise DataError(f"--classes: expected one of {ways}, got {wanted}; a column is one of metadata.csv beside the pictures")
    values = {file: as_text(rows[file.path].get(wanted, "")) for file in every if rows and file.path in rows}
    notes.leave_out("without a row in metadata.csv", [file for file in every if file not in values])
    found = sorted(set(values.values()) - {""})
    names, cut = class_names(found, "metadata.csv")
    notes.decisions += [f"{len(names)} classes: the column {wanted} of metadata.csv (--classes decides)", *cut]
    return {file: found.index(value) if value else -1 for file, value in values.items()}, names


def _by_folder(train: Folder, test: Folder, asked: bool, notes: Notes) -> tuple[dict[File, int], tuple[str, ...]]:
    """Return labels and classes by the sub-folders of each split."""
    folder = {**train, **test}
    names = sorted(set(folder.values()) - {""})
    beside = [file for file, name in folder.items() if not name]
    if asked and not names:
        raise DataError("--classes folders: expected pictures in sub-folders, got none; give --classes none")
    if not asked and len(names) < 2:
        if names:
            notes.decisions.append(f"no classes: there is one folder, {names[0]}/ (--classes folders makes it a class)")
        else:
            notes.decisions.append("no classes: there are no sub-folders")
        return dict.fromkeys(folder, -1), ()
    unlabelled = not any(folder[file] for file in test)
    if unlabelled:
        notes.doubts.append("the held-out pictures are in no sub-folders: they have no class")
        beside = [file for file in train if not folder[file]]
    if not asked and len(beside) > len(folder) / 2:
        notes.doubts.append(
            f"no classes: {len(beside)} of {len(folder)} pictures are beside the folders {some(names)}; "
            "--classes folders uses those in the folders alone"
        )
        return dict.fromkeys(folder, -1), ()
    notes.leave_out("beside the folders of the classes (--classes none uses them)", beside)
    classes, cut = class_names(names, "folders")
    notes.decisions += [f"{len(classes)} classes: the sub-folders (--classes decides)", *cut]
    only = sorted({folder[file] for file in test} - {folder[file] for file in train} - {""})
    if only:
        notes.doubts.append(f"classes without a picture to train on: {some(only)}")
    used = [file for file in folder if folder[file] or (unlabelled and file not in beside)]
    return {file: names.index(folder[file]) if folder[file] else -1 for file in used}, classes
