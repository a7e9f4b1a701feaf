"""Films: runs of the models that ship, which the page opens on without calling a model.

films/NAME.json has the SHA-256 of the weights that made a film and its `PlayerData`; films/NAME.png all its frames in one
picture; other pictures stand beside them. `python -m genlab.demo.make_films` makes them again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gradio.data_classes import FileData
from PIL import Image

from genlab.demo.components.player import PlayerData, new_run
from genlab.demo.served import Models
from genlab.serving.results import save_result

FOLDER = Path(__file__).parent / "films"


def film(models: Models, name: str, ids: Sequence[str]) -> PlayerData | None:
    """Return the film of that name, or None where the served models of these ids are not the ones that made it."""
    stored = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    if stored["weights"] != weights(models, ids):
        return None
    content = (FOLDER / f"{name}.png").read_bytes()
    path = save_result(content, f"{name}.png")
    sheet = FileData(path=path, orig_name=f"{name}.png", mime_type="image/png", size=len(content))
    return PlayerData.model_validate({**stored["player"], "run": new_run(), "sheet": sheet})


def weights(models: Models, ids: Sequence[str]) -> list[str]:
    """Return the SHA-256 of the weights of served models."""
    return [models[served].package.weights_sha256 for served in ids]


def store(models: Models, name: str, ids: Sequence[str], player: PlayerData) -> None:
    """Write a film that the models of these ids have made."""
    assert player.sheet is not None
    with Image.open(player.sheet.path) as sheet:
        sheet.save(FOLDER / f"{name}.png", optimize=True)
    stored = {"weights": weights(models, ids), "player": player.model_dump(exclude={"run", "sheet"})}
    (FOLDER / f"{name}.json").write_text(json.dumps(stored, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
