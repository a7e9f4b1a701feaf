"""The weights that ship are those that genlab/weights.json lists, and the loader checks it.

`PYTHONPATH=. python tests/test_weights.py` lists the present ones; do that after training one of them anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import genlab
from genlab import package
from genlab.package import ModelError

FOLDER = Path(genlab.__file__).parent


def listed() -> dict[str, str]:
    """SHA-256 of every file of weights in the package, by its path."""
    files = sorted(FOLDER.glob("*/*/model.safetensors"))
    return {path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_file_of_weights_is_listed_with_its_hash():
    assert json.loads(package.SHIPPED.read_text()) == listed()


def test_weights_that_were_exchanged_are_refused(tmp_path, monkeypatch):
    """The others load as well: only the list knows."""
    for name in ("vae-mnist", "vae-fashion-mnist"):
        shutil.copytree(FOLDER / "pretrained" / name, tmp_path / "pretrained" / name)
    monkeypatch.setattr(package, "SHIPPED", tmp_path / "weights.json")
    package.SHIPPED.write_text(json.dumps(listed()))
    genlab.load(tmp_path / "pretrained" / "vae-mnist")
    shutil.copy(tmp_path / "pretrained" / "vae-fashion-mnist" / "model.safetensors", tmp_path / "pretrained" / "vae-mnist")
    with pytest.raises(ModelError, match=r"vae-mnist: model.safetensors: expected the weights that ship with genlab"):
        genlab.load(tmp_path / "pretrained" / "vae-mnist")


if __name__ == "__main__":
    package.SHIPPED.write_text(json.dumps(listed(), indent=2) + "\n")
