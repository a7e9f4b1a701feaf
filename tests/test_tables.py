"""What a table of pictures means: columns, splits, configurations, and tables on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from genlab import tables
from genlab.config import Reading
from genlab.data import DataError, load, load_both
from genlab.tables import listed

datasets = pytest.importorskip("datasets")
CLASS = datasets.ClassLabel(names=["x", "y"])


def table(count: int = 20, first: int = 0, **columns: Any) -> Any:
    """A table with a column `image` of distinct gray pictures, and others: name → (feature, values)."""
    pictures = [Image.new("L", (8, 8), first + i) for i in range(count)]
    features = {"image": datasets.Image()} | {name: feature for name, (feature, _) in columns.items()}
    content = {"image": pictures} | {name: values for name, (_, values) in columns.items()}
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The tables of `me/things` on the Hub by split."""
    splits: dict[str, Any] = {}
    monkeypatch.setattr(tables, "_on_hub", lambda hub_id, reading: splits)
    return splits


def labels(items: Any) -> list[int]:
    return [item.label for item in items]


def test_of_several_columns_of_pictures_one_must_be_named(hub: dict[str, Any]):
    hub["train"] = table(mask=(datasets.Image(), [Image.new("L", (8, 8), 200)] * 20))
    with pytest.raises(DataError, match="several columns have pictures; give --image-column image or mask"):
        listed("me/things", Reading())
    assert load("me/things", reading=Reading(image_column="mask")).images.unique().tolist() == [200]
    with pytest.raises(DataError, match="--image-column: expected one of image, mask, got other"):
        listed("me/things", Reading(image_column="other"))


def test_classes_are_the_only_column_that_tells_pictures_apart(hub: dict[str, Any]):
    rows = [i % 2 for i in range(20)]
    hub["train"] = table(constant=(CLASS, [0] * 20), kind=(CLASS, rows))
    found = listed("me/things", Reading())
    assert found.classes == ("x", "y")
    assert labels(found.train) == [i % 2 for i in range(20) if i % 10]
    assert "2 classes: the column kind (--classes decides)" in found.decisions
    hub["train"] = table(one=(CLASS, rows), two=(CLASS, rows[::-1]))
    with pytest.raises(DataError, match="several columns have classes; give --classes one or two, or none"):
        listed("me/things", Reading())
    assert labels(listed("me/things", Reading(classes="two")).train)[0] == 0
    assert listed("me/things", Reading(classes="none")).classes == ()


@pytest.mark.parametrize(
    ("values", "classes"),
    [([10, 9, 10, 9], ("9", "10")), (["b", "a", "b", "a"], ("a", "b")), ([True, False, True, False], ("False", "True"))],
)
def test_texts_or_numbers_become_classes_by_request(values: list[Any], classes: tuple[str, ...], hub: dict[str, Any]):
    kind = {int: "int64", str: "string", bool: "bool"}[type(values[0])]
    hub["train"] = table(label=(datasets.Value(kind), values * 5))
    found = listed("me/things", Reading())
    assert found.classes == ()
    assert "column label is not used (--classes label makes its values classes)" in found.decisions
    found = listed("me/things", Reading(classes="label"))
    assert found.classes == classes
    assert labels(found.train) == [classes.index(str(value)) for i, value in enumerate(values * 5) if i % 10]


def test_a_column_of_lists_is_no_column_of_classes_or_pictures(hub: dict[str, Any]):
    hub["train"] = table(boxes=(datasets.List(datasets.Value("int64")), [[1, 2]] * 20))
    with pytest.raises(DataError, match="--classes boxes: expected a column of classes, texts or whole numbers"):
        listed("me/things", Reading(classes="boxes"))
    hub["train"] = hub["train"].remove_columns("image")
    with pytest.raises(DataError, match="got columns boxes; a column of lists is not one"):
        listed("me/things", Reading())


def test_more_classes_than_a_model_may_have_have_a_way_on(hub: dict[str, Any]):
    hub["train"] = table(label=(datasets.ClassLabel(num_classes=1001), list(range(20))))
    with pytest.raises(DataError, match="at most 1000 classes, got 1001; give --classes none"):
        listed("me/things", Reading())
    assert listed("me/things", Reading(classes="none")).classes == ()


@pytest.mark.parametrize("name", ["val", "validation", "test", "Test", "dev"])
def test_splits_have_many_names(name: str, hub: dict[str, Any]):
    hub |= {"train": table(20), name: table(5, first=100), "extra": table(2)}
    found = listed("me/things", Reading())
    assert (len(found.train), len(found.test)) == (20, 5)
    assert found.decisions[:2] == (
        f"trained on the split train, held out: {name} (--held-out decides)",
        "splits not used: extra",
    )
    assert len(listed("me/things", Reading(held_out="extra")).test) == 2
    assert len(listed("me/things", Reading(held_out="0.2")).test) == 4


def test_one_split_of_any_name_is_divided(hub: dict[str, Any]):
    hub["everything"] = table(20)
    found = listed("me/things", Reading())
    assert (len(found.train), len(found.test)) == (18, 2)


def test_rows_with_the_same_file_are_on_one_side(hub: dict[str, Any]):
    hub["train"] = datasets.concatenate_datasets([table(20), table(20)])
    found = listed("me/things", Reading())
    assert len(found.test) == 4
    assert any("20 repeat another, and are on its side" in line for line in found.decisions)


def test_a_missing_configuration_names_its_flag(monkeypatch: pytest.MonkeyPatch):
    def load_dataset(hub_id: str, *config: str) -> Any:
        if config != ("large",):
            raise ValueError("Config name is missing. Please pick one among the available configs: ['small', 'large']")
        return {"train": table()}

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, hub_id, timeout: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"'small', 'large'\]; give --config-name"):
        listed("me/things", Reading())
    assert len(listed("me/things", Reading(config_name="large")).train) == 18


@pytest.mark.parametrize("form", ["one", "splits", "parquet", "parquet without types"])
def test_tables_on_disk_are_read(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    root, train = tmp_path / "things", table(kind=(CLASS, [i % 2 for i in range(20)]))
    if form == "one":
        train.save_to_disk(str(root))
    elif form == "splits":
        datasets.DatasetDict({"train": train, "test": table(5, kind=(CLASS, [0, 1, 0, 1, 0]))}).save_to_disk(str(root))
    else:
        (root / "data").mkdir(parents=True)
        if form == "parquet":
            train.to_parquet(root / "data" / "train-00000-of-00001.parquet")
        else:
            import pyarrow.parquet as pq

            plain = train.with_format("arrow")[:].replace_schema_metadata(None)
            pq.write_table(plain, root / "data" / "train-00000-of-00001.parquet")
    both = load_both(str(root))
    assert [len(part) for part in both] == ([20, 5] if form == "splits" else [18, 2])
    assert both[0].spec.name == "things"
    assert both[0].spec.classes == (() if form == "parquet without types" else ("x", "y"))
