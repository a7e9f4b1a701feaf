"""The weights that ship are those that genlab/weights.json lists, and the loader checks it; they draw what seeds.npz shows.

`PYTHONPATH=. python tests/test_weights.py` lists the present ones, and draws them; do that after training one of them anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import genlab
from genlab import package
from genlab.package import ModelError

FOLDER = Path(genlab.__file__).parent
SEEDS = Path(__file__).with_name("seeds.npz")


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


def drawn() -> dict[str, np.ndarray]:
    """The pictures of the seeds 0 to 3 of every model that ships, by its name: (4 C H W) uint8."""
    return {folder.name: genlab.sample(folder.name, 4, seed=0).numpy() for folder in package.shipped_packages()}


def test_every_model_that_ships_draws_the_pictures_of_its_seeds():
    """On every processor, in fp32. Measured with AVX-512, AVX2 and neither: one grey level apart, in 0.03 % of the pixels."""
    with np.load(SEEDS) as stored:
        pictures = drawn()
        assert sorted(stored) == sorted(pictures)
        for name, found in pictures.items():
            apart = np.abs(found.astype(int) - stored[name])
            assert (apart.max() <= 1, (apart > 0).mean() < 0.01) == (True, True), name


if __name__ == "__main__":
    os.environ["GENLAB_BF16"] = "0"
    package.SHIPPED.write_text(json.dumps(listed(), indent=2) + "\n")
    np.savez_compressed(SEEDS, **drawn())
