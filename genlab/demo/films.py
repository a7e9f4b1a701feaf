"""Films: runs of the models that ship, which the page opens on without calling a model.

films/NAME.json has the SHA-256 of the weights that made a film and its `PlayerData`; films/NAME.png all its frames in one
picture; other pictures stand beside them. Where points move, NAME.json is the whole `FigureData`. `python -m
genlab.demo.make_films` makes all of them again. training.json and training.png are moments of a training, in the form of a
model's folder (`tabs/training/compute.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gradio.data_classes import FileData
from PIL import Image

from genlab.demo.components.figure import FigureData
from genlab.demo.components.player import PlayerData, Segment, new_run
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


def figure(name: str) -> FigureData:
    """Return the film of moving points of that name."""
    return FigureData.model_validate_json((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def store_figure(name: str, film: FigureData, every: int) -> None:
    """Write every `every`-th frame of a film of moving points, the first of each segment, and the last."""
    last = len(film.frames) - 1
    starts = [segment.start for segment in film.segments]
    kept = sorted({*range(0, last + 1, every), *starts, last})
    frames = [film.frames[i] for i in kept]
    segments = [Segment(start=kept.index(segment.start), label=segment.label) for segment in film.segments]
    changes = {"frames": frames, "segments": segments, "first": 0, "fps": film.fps / every, "loop": True}
    text = film.model_copy(update=changes).model_dump_json()
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


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
