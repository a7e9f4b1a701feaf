"""List the pictures of a table: a data set on the Hub, one written by `save_to_disk`, or a folder of parquet files.

A column of pictures and one of classes are taken where there is only one that can be meant; where there are several, the error
names them and the option that chooses.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genlab.config import MAX_NAME, Reading, dataset_name
from genlab.listing import (
    HELD_OUT,
    TESTING,
    TRAINING,
    DataError,
    Item,
    Listing,
    class_names,
    digest,
    share_of,
    split_named,
)

HUB_SECONDS = 10.0
"""Timeout of the first request to the Hub."""


def is_table(root: Path) -> bool:
    """Return True if a folder was written by `save_to_disk` or has parquet files."""
    saved = any((root / name).is_file() for name in ("dataset_dict.json", "state.json"))
    return root.is_dir() and (saved or any(True for _ in _parquet(root)))


def _parquet(root: Path) -> Iterator[Path]:
    yield from root.glob("*.parquet")
    yield from root.glob("data/*.parquet")


def listed(where: str, reading: Reading, as_stored: bool = False) -> Listing:
    """List the pictures of a table.

    Args:
        where: `user/name` on the Hub, or the path of a folder.
        as_stored: keep the held-out rows in the order of the table; otherwise they are mixed, so that the first few are of all
            classes.

    Raises:
        DataError: it cannot be read, or it is not clear which split, column or configuration is meant.
    """
    local = Path(where).is_dir()
    tables = _on_disk(Path(where), reading) if local else _on_hub(where, reading)
    decisions: list[str] = []
    train, test = _splits(where, tables, reading, decisions)
    column = _image_column(where, train, reading)
    labels, classes = _classes(where, train, test, reading, decisions)
    files = [_files(table, column) for table in (train, train if test is None else test)]
    if test is None:
        kept, held_out = _held_out(files[0], column, share_of(reading.held_out), decisions)
    else:
        kept, held_out = [*range(len(train))], [*range(len(test))]
    if not as_stored:
        held_out.sort(key=lambda row: hashlib.sha256(str(row).encode()).digest())
    if not kept or not held_out:
        raise DataError(f"{where}: expected pictures to train on and to test with, got {len(kept) + len(held_out)} in all")
    items = [
        [Item(f"{where}, row {row}", _opener(table, column, row, where), of[row]) for row in rows]
        for table, rows, of in zip(files, (kept, held_out), labels, strict=True)
    ]
    prints = [where, column, *(getattr(table, "_fingerprint", "") for table in files), kept, held_out, labels]
    return Listing(
        dataset_name(Path(where) if local else where)[:MAX_NAME],
        where if local else f"Hub: {where}",
        items[0],
        items[1],
        classes,
        hashlib.sha256(repr(prints).encode()).hexdigest(),
        small=True,
        decisions=tuple(decisions),
    )


def _splits(where: str, tables: Any, reading: Reading, decisions: list[str]) -> tuple[Any, Any]:
    """Return the table to train on and the held-out one, or None for a share of the first."""
    names, given = [*tables], reading.held_out
    share = share_of(given)
    testing = split_named(names, TESTING) if given is None else given if share is None else None
    if testing is not None and testing not in tables:
        raise DataError(
            f"{where}: --held-out: expected a share such as 0.1 or one of the splits {', '.join(names)}, got {given}"
        )
    others = [name for name in names if name != testing]
    training = split_named(names, TRAINING) or (others[0] if len(others) == 1 else None)
    if training is None or training == testing:
        if len(names) == 1 and given is None:
            training, testing = names[0], None
        else:
            raise DataError(
                f"{where}: expected a split named train, got {', '.join(names)}; --held-out names the one to test with"
            )
    decisions.append(f"trained on the split {training}" + (f", held out: {testing} (--held-out decides)" if testing else ""))
    unused = [name for name in names if name not in (training, testing)]
    if unused:
        decisions.append(f"splits not used: {', '.join(unused)}")
    return tables[training], None if testing is None else tables[testing]


def _held_out(table: Any, column: str, share: float | None, decisions: list[str]) -> tuple[list[int], list[int]]:
    """Return the rows to train on and the held-out ones: every tenth, with all rows that have the same file."""
    every = max(2, round(1 / share)) if share else HELD_OUT
    first: dict[bytes, int] = {}
    leaders = []
    for row, cell in enumerate(table[column]):
        content = (cell or {}).get("bytes")
        key = digest(content) if content else str(row).encode()
        leaders.append(first.setdefault(key, row))
    if len(first) == 1:  # all rows are the same
        leaders = [*range(len(table))]
    train, test = ([row for row, leader in enumerate(leaders) if bool(leader % every) == kept] for kept in (True, False))
    repeated = len(table) - len(first)
    together = f"; {repeated} repeat another, and are on its side" if repeated else ""
    decisions.append(f"held out: {len(test)} of {len(table)} rows, every {every}th{together} (--held-out decides)")
    return train, test


def _is_image(feature: Any) -> bool:
    """Return True for a column of pictures, also where a parquet file does not say so: of their bytes and paths."""
    import datasets

    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and {"bytes", "path"} == feature.keys())


def _image_column(where: str, table: Any, reading: Reading) -> str:
    found, given = [name for name, feature in table.features.items() if _is_image(feature)], reading.image_column
    if given is not None and given not in found:
        raise DataError(f"{where}: --image-column: expected one of {', '.join(found) or 'none'}, got {given}")
    if not found:
        raise DataError(
            f"{where}: expected a column of pictures, got columns {', '.join(table.features)}; a column of lists is not one: "
            "write one picture in each row"
        )
    if given is None and len(found) > 1:
        raise DataError(f"{where}: several columns have pictures; give --image-column {' or '.join(found)}")
    return given or found[0]


def _classes(
    where: str, train: Any, test: Any, reading: Reading, decisions: list[str]
) -> tuple[list[list[int]], tuple[str, ...]]:
    """Return the labels of the rows of both tables (twice of the first if it is alone), and the names of the classes."""
    import datasets

    tables, wanted = (train, train if test is None else test), reading.classes
    if wanted == "folders":
        raise DataError(f"{where}: --classes: expected none or a column of the table, got folders")
    if wanted is None:
        named = [name for name, feature in train.features.items() if isinstance(feature, datasets.ClassLabel)]
        able = [name for name in named if len(set(train[name])) > 1]
        if len(able) > 1:
            raise DataError(f"{where}: several columns have classes; give --classes {' or '.join(able)}, or none")
        plain = [name for name in train.features if name.lower() in ("label", "labels", "class") and name not in named]
        wanted = able[0] if able else "none"
        decisions += [f"column {name} has one class only" for name in named if name not in able]
        decisions += [f"column {name} is not used (--classes {name} makes its values classes)" for name in plain]
    if wanted == "none":
        decisions.append("no classes (--classes decides)")
        return [[-1] * len(table) for table in tables], ()
    if any(wanted not in table.features for table in tables):
        raise DataError(f"{where}: --classes: expected none or one of {', '.join(train.features)}, got {wanted}")
    feature = train.features[wanted]
    values: list[list[Any]] = [list(table[wanted]) for table in tables]
    if isinstance(feature, datasets.ClassLabel):
        given = list(feature.names)
        labels = [[-1 if value is None else value for value in part] for part in values]
    else:
        every = [value for part in values for value in part if value is not None]
        if not all(isinstance(value, (str, int)) for value in every):
            raise DataError(f"{where}: --classes {wanted}: expected a column of classes, texts or whole numbers, got {feature}")
        order = sorted(set(every), key=None if all(isinstance(value, int) for value in every) else str)
        places, given = {value: i for i, value in enumerate(order)}, list(map(str, order))
        labels = [[places.get(value, -1) for value in part] for part in values]
    names, cut = class_names(given, f"{where}: column {wanted}")
    decisions += [f"{len(names)} classes: the column {wanted} (--classes decides)", *cut]
    return labels, names


def _files(table: Any, column: str) -> Any:
    """Return the table with the column of pictures as they are stored, not decoded."""
    import datasets

    return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _opener(table: Any, column: str, row: int, where: str) -> Any:
    def opened() -> Path | io.BytesIO:
        cell = table[row][column]
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise DataError(f"{where}: expected a picture in every row, got none in row {row}")
        return Path(cell["path"]) if cell["bytes"] is None else io.BytesIO(cell["bytes"])

    return opened


def _on_disk(root: Path, reading: Reading) -> Any:
    """Return the tables of a folder by split."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{root}: the package `datasets` is needed to read it (pip install datasets)") from error
    try:
        if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
            tables = datasets.load_from_disk(str(root))
        else:
            tables = datasets.load_dataset(str(root), reading.config_name)
    except Exception as error:  # datasets raises whatever its many backends raise
        raise DataError(f"{root}: {_one_line(error)}") from error
    return tables if isinstance(tables, dict) else {"train": tables}


def _on_hub(hub_id: str, reading: Reading) -> Any:
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
            return datasets.load_dataset(hub_id, *([reading.config_name] if reading.config_name else []))
    except Exception as error:  # datasets raises whatever its many backends raise
        way = "; give --config-name" if "onfig" in str(error) and online else ""
        raise DataError(f"{hub_id}: {reason or _one_line(error)}{way}") from error


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
