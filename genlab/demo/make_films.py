"""Make the films that the page opens on: `GENLAB_BF16=0 python -m genlab.demo.make_films`; two minutes.

`python -m genlab.demo.make_films RUN` makes the one of a training, from a run with --replay. That which ships is of

    python training/train_ddpm.py --dataset mnist --replay 10 --multipliers 1 1 --steps 2500 --lr 0.001 --warmup 100 \
        --decay 0.5 --ema 0.998 --precision fp32
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from genlab import hub
from genlab.demo import films
from genlab.demo.limits import Pick
from genlab.demo.requested import Requested
from genlab.demo.served import Models
from genlab.demo.tabs.compare import compute as sides
from genlab.demo.tabs.compare import figure as sides_figure
from genlab.demo.tabs.compare.build import first_sides
from genlab.demo.tabs.compare.request import parse_compare
from genlab.demo.tabs.condition import compute as conditions
from genlab.demo.tabs.condition import figure as conditions_figure
from genlab.demo.tabs.condition.request import parse_repair
from genlab.demo.tabs.interpolate import compute as paths
from genlab.demo.tabs.interpolate import figure as paths_figure
from genlab.demo.tabs.interpolate.request import parse_interpolate
from genlab.demo.tabs.playground import figure as playground_figure
from genlab.demo.tabs.playground.compute import Run, play
from genlab.demo.tabs.playground.request import FIRST
from genlab.demo.tabs.process import compute as chain
from genlab.demo.tabs.process import figure as chain_figure
from genlab.demo.tabs.process.request import parse_process
from genlab.demo.tabs.score import figure as score_figure
from genlab.demo.tabs.score.compute import Nets
from genlab.demo.tabs.score.request import FIRST_DATA, LEVEL
from genlab.demo.tabs.training import compute as replays
from genlab.demo.turns import Runner
from genlab.measurements import to_json


def process(models: Models, runner: Runner) -> None:
    """Make the film of the Diffusion tab: the first test picture into noise and back, as its controls are at first."""
    offer = next(o for o in models.offers.values() if o.kind == "ddpm")
    request = parse_process(models.offers, offer.id, Pick("test picture"), 50, "ancestral", "any", "the noise reached", 0)
    animation = chain_figure.animation_of(models, request)
    for frame in chain.diffuse(models, runner, request):
        animation.add(frame.index, chain_figure.panes_of(frame), chain_figure.caption_of(frame, request))
    films.store(models, "process", [offer.id], animation.sheet(first=0, autoplay=True, loop=True))


def condition(models: Models, runner: Runner) -> None:
    """Make the film of the Condition tab: the first test digit, its upper half drawn anew, as its controls are at first."""
    offer = next(o for o in models.offers.values() if o.kind == "ddpm" and o.data.name == "mnist")
    cover = conditions_figure.first_cover(offer.data.size).astype(int).tolist()
    request = parse_repair(models.offers, offer.id, Pick("test picture"), cover, 0, "any", 4, 25, 0)
    animation = conditions_figure.animation_of(models, request)
    for frame in conditions.run_repair(models, runner, request):
        if frame.index % 4 == 0:
            animation.add(frame.index, conditions_figure.panes_of(frame), conditions_figure.caption_of(frame, request))
    films.store(models, "condition", [offer.id], animation.sheet(first=0, autoplay=True, loop=True))


def compare(models: Models, runner: Runner) -> None:
    """Make the film of the Compare tab, as its controls are at first."""
    a, b = first_sides(models)
    request = parse_compare(models.offers, a, b, 0)
    animation = sides_figure.animation_of(models, request)
    for frame in sides.compare(models, runner, request):
        if frame.index % 5 == 0:
            animation.add(frame.index, sides_figure.panes_of(frame), sides_figure.caption_of(models, frame, request))
    films.store(models, "compare", [a[0], b[0]], animation.sheet(first=0, autoplay=True, loop=True))


def interpolate(models: Models, runner: Runner) -> None:
    """Make the film and the strip of the Interpolate tab: from test picture 0 to 1, as its controls are at first."""
    data = paths_figure.first_data(models)
    request = parse_interpolate(models.offers, data, Pick("test picture", 0), Pick("test picture", 1), 11, 50)
    *_, last = paths.interpolate(models, runner, request)
    ids = [served.id for kind in ("vae", "ddpm") if (served := models.of_data(data, kind))]
    films.store(models, "interpolate", ids, paths_figure.path_animation(last).sheet(first=0, autoplay=True, loop=True))
    shutil.copyfile(paths_figure.strip(last, request, scale=1), films.FOLDER / "interpolate-strip.png")


def score() -> None:
    """Make the film of the Score tab: particles that walk at its first noise level, along a network that has learned."""
    nets, data = Nets(), FIRST_DATA
    for _ in nets.learn(data):
        pass
    film = score_figure.langevin_animation(data, int(LEVEL.default), *nets.get(data), 0, crowd=10)
    films.store_figure("score", film, every=2)


def playground() -> None:
    """Make the film of the Playground: what its controls ask for at first, from noise to points."""
    run = Run(FIRST)
    for record in play(FIRST, run):
        if isinstance(record, Run):
            playground_figure.live(run, crowd=100)
    films.store_figure("playground", playground_figure.animation(run, FIRST.seed, crowd=100), every=3)


def training(run: Path) -> None:
    """Make the film of the Training tab: the moments of a run that has ended."""
    package = hub.read(run)
    if package.film is None:
        raise SystemExit(f"{run}: expected a model that was trained with --replay, got one without moments")
    stored = {
        "command": package.metrics["command"],
        "data": asdict(package.model.data),
        "replay": to_json(package.film.replay),
    }
    text = json.dumps(stored, ensure_ascii=False, indent=1)
    replays.FILM.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    shutil.copyfile(package.folder / "replay.png", replays.FILM.with_suffix(".png"))


def main() -> None:
    """Make all films from the models that ship, or that of a training."""
    if len(sys.argv) > 1:
        training(Path(sys.argv[1]))
        return
    models = Requested([]).models()
    runner = Runner(deadline=3600)
    runner.started()
    process(models, runner)
    condition(models, runner)
    compare(models, runner)
    interpolate(models, runner)
    score()
    playground()


if __name__ == "__main__":
    main()
