"""Choose the times at which a consistency function is evaluated: `python training/choose_times.py --help`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from training.config import parse


@dataclass(frozen=True)
class TimesChoice:
    """Choose the times of a consistency function's second, third, … evaluation by the pictures that they lead to.

    One after another: the time that was trained and leaves the samples nearest to the training pictures, by the Fréchet
    distance. The weights stay as they are. The choice is written to the model's config.json and card; an evaluation in its
    metrics.json is removed, as it was made with other times.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Consistency function: a run, a folder, the name of a model that ships, or user/name on the Hub."""
    evaluations: int = 4
    """Most evaluations of a picture to choose times for."""
    samples: int = 2000
    """Samples for each walk that is tried."""
    dataset: str | None = None
    """Data set of the training pictures; by default the one that the teacher was trained on."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; else GENLAB_DATA_DIR, Debian's package, the Hub, in this order."""
    seed: int = 1
    """Seed of the samples; not 0, so that an evaluation draws others than those by which the times were chosen."""
    out: Path | None = None
    """Folder to write into; by default the model's own, runs/NAME for one on the Hub, runs/NAME-measured for one that ships."""

    def __post_init__(self) -> None:
        for name, low, high in (("evaluations", 2, 1000), ("samples", 2, 1_000_000), ("seed", 0, 2**32 - 1)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"--{name}: expected a whole number from {low} to {high}, got {getattr(self, name)}")

    def command(self) -> str:
        """Return the command that makes this choice."""
        from training.evaluate import command_of

        return command_of("training/choose_times.py", self)


def run(config: TimesChoice) -> int:
    """Choose, report and write; return the exit status: 0 done, 1 an error that the message explains."""
    from genlab.package import ModelError

    try:
        return _run(config)
    except (ValueError, OSError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(config: TimesChoice) -> int:
    import torch
    from tqdm import tqdm

    from genlab import hub, metrics
    from genlab.config import Sampling
    from genlab.consistency import Consistency, chosen_order
    from genlab.draw import draw
    from genlab.durable import put
    from genlab.package import ModelError, read_json, refresh_card, write_json
    from training.evaluate import Evaluation, check_writable, folder_for, load_data, write_metrics
    from training.sample_quality import SEEDS_APART, Reference, check

    package = hub.read(config.model)
    model = package.model
    if not isinstance(model, Consistency):
        raise ModelError(f"{config.model}: expected a consistency function, got a model of kind {model.kind}")
    times = model.config.times
    if config.evaluations > len(times):
        raise ValueError(f"--evaluations: expected at most {len(times)}, the times it was trained at, got {config.evaluations}")
    options = Evaluation(config.model, dataset=config.dataset, data_dir=config.data_dir, out=config.out)
    test, train = load_data(options, package)
    reference = Reference(test, train)
    check(model, reference, config.samples, Sampling(steps=1))
    folder = folder_for(options, package)
    check_writable(folder)
    found: dict[int, list[float]] = {}

    def distance(walk: list[int]) -> float:
        model.config = replace(model.config, times=(walk[0], *walk[1:-1], *(t for t in times if t not in walk)))
        sampling = Sampling(steps=len(walk) - 1)
        drawn = torch.cat(list(draw(model, config.samples, config.seed * SEEDS_APART, sampling)))
        value = metrics.frechet_distance(reference.feature_network.features(drawn), reference.trained)
        found.setdefault(len(walk) - 1, []).append(value)
        tqdm.write(f"{', '.join(map(str, walk[:-1]))}: Fréchet distance {value:.3f} to the training pictures")
        bar.update()
        return value

    walks = sum(len(times) - count + 1 for count in range(2, config.evaluations + 1))
    with torch.inference_mode(), tqdm(total=1 + walks, desc="walks", unit="walk", disable=None) as bar:
        distance([times[0], 0])
        order = chosen_order(times, config.evaluations, distance)
    model.config = replace(model.config, times=order)
    kept = {name: value for name, value in package.metrics.items() if name not in ("schema", "evaluation")}
    least = {str(count): min(values) for count, values in found.items()}
    choice = {"command": config.command(), "samples": config.samples, "seed": config.seed, "frechet_distance": least}
    write_metrics(folder / "metrics.json", {**kept, "times": choice})  # first: no evaluation may stand beside other times
    fresh = folder / ".config.json"
    write_json(fresh, {**read_json(folder / "config.json"), "model": asdict(model.config)})
    put(fresh, folder / "config.json")
    refresh_card(folder)
    for count, value in least.items():
        chosen = ", ".join(map(str, model.sampling_times(int(count))[:-1]))
        print(f"{count} evaluation{'s' if count != '1' else ''}, at {chosen}: {value:.3f}")
    print(f"written to {folder}; measure it by python training/evaluate.py {folder}")
    return 0


def main() -> int:
    """Run the command line."""
    return run(parse(TimesChoice))


if __name__ == "__main__":
    sys.exit(main())
