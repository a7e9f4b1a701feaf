"""Films of trainings: one that ships, and those of the served models that have one."""

from __future__ import annotations

import json
from pathlib import Path

from genlab.config import DataSpec
from genlab.demo import guide
from genlab.demo.served import Models
from genlab.package import Film, build, read_film

SHIPPED = "from scratch"
"""Name of the film that ships, of a small DDPM; `genlab.demo.make_films` takes it from a run folder."""
FILM = Path(__file__).parents[2] / "films" / "training"


def films(models: Models) -> dict[str, Film]:
    """Return the films by their names: that which ships, where the models of the guide are served, then those of the models."""
    shipped = {SHIPPED: shipped_film()} if guide.offered(models) else {}
    return shipped | {name: served.package.film for name, served in models.items() if served.package.film is not None}


def shipped_film() -> Film:
    """Return the film that ships."""
    stored = json.loads(FILM.with_suffix(".json").read_text(encoding="utf-8"))
    return read_film(FILM.with_suffix(".png"), stored, build(DataSpec, stored["data"], "data"))
