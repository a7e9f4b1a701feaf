"""Measure a model on held-out pictures: `python training/evaluate.py --help`.

Writes metrics.json (see `genlab/measurements.py` for its schema), ledger.png, nearest.png and the model card to the model's
folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from genlab.config import EMOJI, KNOWN, Reading, Sampling, dataset_name, expanded, on_hub, published_dataset
from genlab.measurements import SCHEMA
from training.account import recorded
from training.config import out_of_memory, parse

if TYPE_CHECKING:
    from torch import Tensor

    from genlab.data import Dataset
    from genlab.models import Model
    from genlab.package import Package
    from training.partial import Partial
    from training.sample_quality import Reference

UNPUBLISHED = ("data_dir", "out", "run", "device", "cache")
"""Options without influence on the numbers, left out of the command in metrics.json."""


@dataclass(frozen=True)
class Evaluation(Reading):
    """Measure a model on held-out pictures and write the result into its metrics.json, plots and model card.

    A DDPM: every term of the variational bound for each Σ it supports, without labels, the bound in continuous time, and
    the likelihood by the probability-flow ODE. A VAE: the terms of its ELBO, the importance-weighted bound, and the distance
    of its reconstructions; with a fitted prior, the ELBO with that. All are in bits per dimension of 8-bit
    pictures, and so comparable. All models: samples compared with held-out and with training pictures, for a consistency
    function in 1, 2 and 4 evaluations.
    Stopped at any moment, the same command continues from there and gives the same numbers.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run folder, a model folder, the name of a model that ships, or user/name[@revision] on the Hub."""
    dataset: str | None = None
    """Data set whose held-out pictures to use; by default the one that the model was trained on, read as it was then."""
    data_dir: str | None = None
    """Folder with the IDX files of fashion-mnist or mnist; else GENLAB_DATA_DIR, Debian's package, the Hub, in this order."""
    images: int | None = None
    """Number of held-out pictures, the first ones; by default all, or 500 with --quick."""
    quick: bool = False
    """A first result in one to two minutes: smaller defaults for the numbers of pictures, steps and samples."""
    strata: int | None = None
    """DDPM: number of strata of the steps t; each picture is evaluated at one t in each (24; 8 with --quick); T: every t."""
    continuous_images: int | None = None
    """DDPM: pictures for the bound in continuous time, with --strata evaluations each (all; 0 with --quick); 0 skips it."""
    ode_images: int | None = None
    """DDPM: pictures for the likelihood by the ODE (256; 0 with --quick); 0 skips it."""
    ode_probes: int = 1
    """DDPM: random probes of the trace in the ODE for each picture; 0: the exact trace, one derivative for each dimension."""
    importance: int = 5000
    """VAE: draws of z in the tightest importance-weighted bound."""
    importance_images: int | None = None
    """VAE: pictures for that bound (100; 8 with --quick); 0 skips it."""
    samples: int | None = None
    """Samples to compare with held-out pictures (10,000; 500 with --quick); 0 skips them."""
    sample_steps: int | None = None
    """DDPM: steps of the sampler, DPM-Solver++ SDE (10)."""
    curve_samples: int | None = None
    """DDPM: samples for each number of steps of the curve of quality by steps (1,000; 0 with --quick); 0 skips it."""
    chain_samples: int | None = None
    """DDPM: samples of the ancestral chain with each Σ, in 50 steps (1,000; 0 with --quick); 0 skips them."""
    batch_size: int = 64
    """Pictures a batch."""
    seed: int = 0
    """Seed of all noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto: a GPU if there is one."""
    out: Path | None = None
    """Folder to write into; by default the model's own, runs/NAME for one on the Hub, runs/NAME-measured for one that ships."""

    def __post_init__(self) -> None:
        super().__post_init__()
        lowest = {
            "images": 2,
            "strata": 2,
            "continuous_images": 0,
            "ode_images": 0,
            "importance": 2,
            "importance_images": 0,
            "samples": 0,
        }
        lowest |= {"samples": 0, "ode_probes": 0, "sample_steps": 1, "curve_samples": 0, "chain_samples": 0, "batch_size": 1}
        for name, low in lowest.items():
            value = getattr(self, name)
            pictures = low == 0 and name != "ode_probes"  # a single one has no standard error
            if value is not None and (value < low or (pictures and value == 1)):
                expected = "0, or 2 or more" if pictures else f"{low} or more"
                raise ValueError(f"--{name.replace('_', '-')}: expected {expected}, got {value}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed: expected a whole number from 0 to {2**32 - 1}, got {self.seed}")

    def command(self) -> str:
        """Return the command that repeats this evaluation."""
        return command_of("training/evaluate.py", self)


def command_of(script: str, options: Any) -> str:
    """Return the command that repeats what a script did with a model, without the options in `UNPUBLISHED`.

    Args:
        options: a dataclass with a field `model`, which is given first; a local folder is given by its name.
    """
    import shlex

    words = [name_of(options.model)]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name != "model" and value != field.default and field.name not in UNPUBLISHED:
            words += [f"--{field.name.replace('_', '-')}"]
            words += [] if value is True else [published_dataset(value) if field.name == "dataset" else str(value)]
    return shlex.join(["python", script, *words])


@dataclass(frozen=True)
class Plan:
    """Numbers of pictures, draws, samples and steps of an evaluation, with all defaults resolved."""

    images: int
    strata: int
    continuous_images: int
    ode_images: int
    importance_draws: int
    importance_images: int
    samples: int
    sample_steps: int
    curve_samples: int
    chain_samples: int


CURVE = (4, 5, 6, 8, 10, 15, 25)
"""Numbers of steps of the curve of quality by steps."""
FEW = (1, 2, 4)
"""Numbers of evaluations of a consistency function to measure, besides that of the main samples."""
CHAIN_STEPS = 50
"""Steps of the ancestral chain with each Σ: with so few, the choice of Σ matters."""
FULL = {
    "strata": 24,
    "ode_images": 256,
    "draws": 50,
    "importance_images": 100,
    "samples": 10_000,
    "sample_steps": Sampling.steps,
    "curve_samples": 1000,
    "chain_samples": 1000,
}
"""Defaults: 23 minutes on two cores for 10,000 pictures of 28×28 and a DDPM that ships."""
QUICK = {
    "images": 500,
    "strata": 8,
    "continuous_images": 0,
    "ode_images": 0,
    "draws": 10,
    "importance_images": 8,
    "samples": 500,
    "sample_steps": Sampling.steps,
    "curve_samples": 0,
    "chain_samples": 0,
}
"""Defaults with --quick: one to two minutes on two cores."""


def make_plan(options: Evaluation, model: Model, test: Dataset) -> Plan:
    """Return the numbers given as options, with defaults that suit the model and the data set for the others.

    Raises:
        ValueError: the options ask for more pictures than are held out, or more strata than the chain has steps.
    """
    from genlab.draw import default_steps
    from genlab.models import Decoding
    from genlab.vae import VAE

    size, chosen = len(test), QUICK if options.quick else FULL
    T = 0 if isinstance(model, Decoding) else model.schedule.T
    bounded, pixels = "ddpm" in model.kind, model.kind == "ddpm"
    for name in ("images", "continuous_images", "ode_images", "importance_images"):
        if (getattr(options, name) or 0) > size:
            flag = name.replace("_", "-")
            raise ValueError(
                f"--{flag}: expected at most the {size} held-out pictures of {test.spec.name}, got {getattr(options, name)}"
            )
    if size < 2:
        raise ValueError(f"{test.spec.name}: expected 2 or more held-out pictures, for an error of the mean, got {size}")
    if options.strata and T and options.strata > T:
        raise ValueError(f"--strata: expected at most the {T} steps of the model, got {options.strata}")

    def pick(name: str, most: int) -> int:
        given = getattr(options, name)
        return min(chosen.get(name, most), most) if given is None else given

    def more(name: str) -> int:
        """Return the number of additional samples; by default none if there are no main samples."""
        return pick(name, size) if bounded and (options.samples != 0 or getattr(options, name) is not None) else 0

    images = pick("images", size)
    for name in ("ode_images", "importance_images"):
        if (getattr(options, name) or 0) > images:
            given = getattr(options, name)
            raise ValueError(f"--{name.replace('_', '-')}: expected at most the {images} of --images, got {given}")
    return Plan(
        images=images,
        strata=pick("strata", T) if bounded else 0,
        continuous_images=min(pick("continuous_images", images), images) if pixels else 0,
        ode_images=min(pick("ode_images", images), images) if pixels else 0,
        importance_draws=min(chosen["draws"], options.importance),
        importance_images=0 if not isinstance(model, VAE) else min(pick("importance_images", images), images),
        samples=pick("samples", size),
        sample_steps=min(options.sample_steps or default_steps(model), T),
        curve_samples=more("curve_samples"),
        chain_samples=more("chain_samples") if pixels else 0,
    )


def load_data(options: Evaluation, package: Package) -> tuple[Dataset, Dataset]:
    """Read the held-out and the training pictures in the size and channels of the model.

    Raises:
        DataError: the pictures are not found, do not have the model's shape and classes, or are not its training pictures.
    """
    from genlab import data
    from genlab.listing import DataError

    wanted, training = package.model.data, package.metrics.get("training", {})
    account = recorded(package.folder)
    name = options.dataset or account.get("dataset") or _trained_on(package)
    if options.dataset is None and not (name in KNOWN or name == EMOJI or expanded(name).exists() or on_hub(name)):
        raise DataError(f"{options.model}: its training pictures, {name}, are not known here; name them by --dataset")
    reading = _reading(options, account.get("reading") or training.get("options", {}))
    trained_on, named, local = training.get("data_sha256"), dataset_name(name) == wanted.name, expanded(name).exists()

    def read(size: int | None, channels: int | None) -> tuple[Dataset, Dataset]:
        return data.load_both(name, options.data_dir, size, channels, reading=reading)

    # The model's own pictures are known by their hash, whatever their name. Others are read in their own channels, and those of
    # a data set with a size in that, so that a mismatch is an error.
    train, test = read(wanted.size if named or local else None, wanted.channels if named or local else None)
    own = named or train.sha256 == trained_on
    if not own and local:
        train, test = read(wanted.size, None)
    for what in ("channels", "size", "classes"):
        expected, got = getattr(wanted, what), getattr(test.spec, what)
        if expected != got:
            expected, got = (", ".join(v) or "none" if isinstance(v, tuple) else v for v in (expected, got))
            raise DataError(f"--dataset: expected {what} {expected}, as the model was trained with, got {got} in {name}")
    if own and trained_on is not None and trained_on != train.sha256:
        raise DataError(
            f"{name}: expected the pictures that the model was trained on (SHA-256 {trained_on}), got others ({train.sha256}): "
            f"those that are held out here may be among those that it was trained on"
        )
    return test, train


def _reading(options: Evaluation, before: Any) -> Reading:
    """Return how to read the pictures: as the options say, else as they were read for the training."""
    given = options.reading
    if options.dataset is not None and dataset_name(options.dataset) in (*KNOWN, EMOJI):
        return given
    kept = {each.name: before.get(each.name) for each in fields(Reading) if isinstance(before, dict) and each.name != "cache"}
    types: dict[str, Any] = {"white": (int, float), "skip_broken": bool}
    known: dict[str, Any] = {name: value for name, value in kept.items() if isinstance(value, types.get(name, str))}
    return replace(given, **{name: value for name, value in known.items() if not getattr(given, name)})


def _trained_on(package: Package) -> str:
    """Return the training data set in the model's metrics: its id if it is on the Hub, else the name in its configuration."""
    recorded, name = str(package.metrics.get("dataset")), package.model.data.name
    return recorded if on_hub(recorded) and dataset_name(recorded) == name else name


def run(options: Evaluation) -> int:
    """Measure, write and print; return the exit status: 0 done, 1 an error that the message explains, 130 interrupted."""
    from genlab.package import ModelError

    try:
        return _run(options)
    except (ValueError, OSError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"error: out of memory ({error}); lower --batch-size or --samples, or free some memory", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        return 130


def _run(options: Evaluation) -> int:
    import time

    import torch

    from genlab import card, hub
    from genlab.package import refresh_card
    from training import sample_quality
    from training.likelihood import plot_ledger
    from training.partial import Partial

    start = time.monotonic()
    package = hub.read(options.model)
    model = package.model
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: expected a GPU for cuda, got none that torch can use")
    test, train = load_data(options, package)
    plan = make_plan(options, model, test)
    sampling = Sampling(steps=max(1, plan.sample_steps))
    reference = sample_quality.Reference(test, train)
    for name in ("samples", "curve_samples", "chain_samples"):
        if not getattr(plan, name):
            continue
        try:
            sample_quality.check(model, reference, getattr(plan, name), sampling)
        except ValueError as error:
            if getattr(options, name) is not None:
                raise
            plan = replace(plan, **{name: 0})
            print(f"{name.replace('_', ' ')} are not measured: {error}", file=sys.stderr)
    folder = folder_for(options, package)
    check_writable(folder)
    weights = package.weights_sha256
    facts = {
        "schema": SCHEMA,
        "model_sha256": weights,
        "data_sha256": test.sha256,
        "plan": vars(plan),
        "sampling": vars(sampling),
        "seed": options.seed,
        "batch_size": options.batch_size,
        "importance": options.importance,
        "ode_probes": options.ode_probes,
        "device": device,
        "versions": _versions(),
    }
    partial = Partial(folder, facts)
    model.to(device).requires_grad_(False)
    evaluation: dict[str, Any] = {
        "command": options.command(),
        "seed": options.seed,
        "device": device,
        "versions": _versions(),
        "model_sha256": weights,
        "data": {
            "name": test.spec.name,
            "split": "test",
            "images": len(test),
            "sha256": test.sha256,
            "training_sha256": train.sha256,
        },
    }
    evaluation |= _sections(options, plan, model, reference, sampling, partial, folder, device)
    evaluation["seconds"] = round(time.monotonic() - start)
    before = ("command", "seed", "dataset", "training", "loss", "times", "replay")
    training = {name: package.metrics[name] for name in before if name in package.metrics}
    metrics = {"schema": SCHEMA, **training, "evaluation": evaluation}
    if "likelihood" in evaluation and model.kind in card.LEDGER:
        plot_ledger(evaluation["likelihood"], folder / "ledger.png")
    write_metrics(folder / "metrics.json", metrics)
    refresh_card(folder)
    partial.remove()
    print("\n\n".join(card.measured_tables(metrics)))
    print(f"\nwritten to {folder}: metrics.json, README.md and pictures ({evaluation['seconds']} s)")
    return 0


def _sections(
    options: Evaluation,
    plan: Plan,
    model: Model,
    reference: Reference,
    sampling: Sampling,
    partial: Partial,
    folder: Path,
    device: str,
) -> dict[str, Any]:
    """Measure and return every section of `evaluation`, continuing from the sums of an interrupted run."""
    from genlab.consistency import Consistency
    from genlab.ddpm import DDPM
    from genlab.latent import LatentDDPM
    from genlab.mixture import MixtureVAE
    from genlab.models import Decoding
    from genlab.vae import VAE
    from training.likelihood import (
        CONTINUOUS_PARTS,
        continuous_bound,
        diffusion_bound,
        draw_samples,
        latent_bound,
        mixture_bound,
        ode_likelihood,
        ode_work,
        vae_bound,
        variances_of,
    )
    from training.partial import Progress
    from training.sample_quality import curve, measure, reconstructions

    pictures = reference.test.images[: plan.images]
    sections: dict[str, Any] = {}
    walks: list[Sampling] = []
    chains: list[Sampling] = []
    if isinstance(model, (DDPM, LatentDDPM)) and plan.curve_samples:
        walks = [replace(sampling, steps=steps) for steps in CURVE if steps <= model.schedule.T]
    if isinstance(model, DDPM) and plan.chain_samples:
        steps = min(CHAIN_STEPS, model.schedule.T)
        chains = [Sampling("ancestral", steps, variance=name) for name in variances_of(model)]
    others = [steps for steps in FEW if steps != plan.sample_steps]
    few = [
        replace(sampling, steps=steps)
        for steps in others
        if isinstance(model, Consistency) and steps <= len(model.config.times)
    ]
    work = plan.samples * (max(1, plan.sample_steps) + sum(walk.steps for walk in few))
    work += plan.curve_samples * sum(walk.steps for walk in walks) + plan.chain_samples * sum(chain.steps for chain in chains)
    work += (plan.images + plan.continuous_images) * plan.strata
    if isinstance(model, DDPM):
        work += ode_work(model, plan.ode_images, options.batch_size, options.ode_probes or None)
    if isinstance(model, VAE):
        work += plan.images * plan.importance_draws + plan.importance_images * options.importance
    progress = Progress(work, "decoding" if isinstance(model, Decoding) else "evaluation")
    shared = (options.seed, options.batch_size, partial, progress, device)

    def samples(count: int, how: Sampling) -> Tensor:
        return draw_samples(model, count, options.seed, options.batch_size, how, partial, progress)

    try:
        if isinstance(model, DDPM):
            sections["likelihood"] = diffusion_bound(model, pictures, plan.strata, *shared)
            if plan.continuous_images:
                fine, chosen = model.refined(CONTINUOUS_PARTS), pictures[: plan.continuous_images]
                sections["continuous"] = continuous_bound(fine, CONTINUOUS_PARTS, chosen, plan.strata, *shared)
            if plan.ode_images:
                sections["ode"] = ode_likelihood(model, pictures[: plan.ode_images], *shared, probes=options.ode_probes or None)
        elif isinstance(model, LatentDDPM):
            sections["likelihood"] = latent_bound(model, pictures, plan.strata, *shared)
        elif isinstance(model, MixtureVAE):
            sections["likelihood"] = mixture_bound(model, pictures, options.seed, options.batch_size, device)
        elif isinstance(model, VAE):
            least, many, some = plan.importance_draws, options.importance, plan.importance_images
            sections["likelihood"] = vae_bound(model, pictures, least, many, some, *shared)
        if plan.samples:
            drawn = samples(plan.samples, sampling)
            if isinstance(model, (VAE, MixtureVAE, LatentDDPM)):
                sections["reconstructions"] = reconstructions(model, reference, plan.samples, options.seed, options.batch_size)
        along = {walk.steps: samples(plan.curve_samples, walk) for walk in walks}
        by_chain = {chain: samples(plan.chain_samples, chain) for chain in chains}
        by_few = {walk: samples(plan.samples, walk) for walk in few if plan.samples}
    finally:
        progress.close()
    if plan.samples or along or by_chain:
        print("comparing the samples with held-out and training pictures", file=sys.stderr, flush=True)
    if plan.samples:
        sections["samples"], _ = measure(model, reference, plan.samples, options.seed, sampling, folder, pictures=drawn)
    if along:
        sections["steps"] = curve(reference, along, options.seed, sampling)
    if by_few:
        sections["few"] = {
            str(walk.steps): measure(model, reference, len(drawn), options.seed, walk, pictures=drawn)[0]
            for walk, drawn in by_few.items()
        }
    if by_chain:
        sections["chain"] = {
            chain.variance: measure(model, reference, len(drawn), options.seed, chain, pictures=drawn)[0]
            for chain, drawn in by_chain.items()
        }
    return sections


def folder_for(options: Evaluation, package: Package) -> Path:
    """Return the folder to write to: the model's own, or a copy of it in `--out` or, if it ships or is on the Hub, in runs/.

    The folder of a model that ships is written to only if `--out` names it.

    Raises:
        FileExistsError: the folder has other content.
    """
    import shutil

    from genlab.package import MAX_BYTES, find_package, ships

    found = find_package(options.model)
    if found is not None and ships(found):
        found = Path("runs") / f"{found.name}-measured"
    folder = options.out or found or Path("runs") / options.model.replace("/", "--")
    if folder.resolve() == package.folder.resolve():
        return folder
    weights = "model.safetensors"
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / weights).is_file() or _sha256(folder / weights) != package.weights_sha256:
            raise FileExistsError(
                f"{folder}: expected no folder, an empty one, or one with this model, got other content; give another --out"
            )
        return folder  # an earlier evaluation, complete or not, wrote here
    folder.mkdir(parents=True, exist_ok=True)
    for name in MAX_BYTES:
        if (package.folder / name).is_file():
            shutil.copyfile(package.folder / name, folder / name)
    return folder


def check_writable(folder: Path) -> None:
    """Raise OSError, before anything is measured, if files cannot be written to a folder."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{folder}: cannot be written ({error.strerror}); give another folder by --out") from error


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json with each list of numbers on one line."""
    import json
    import re

    from genlab.durable import put

    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    fresh = path.with_name(".metrics.json")
    fresh.write_text(text + "\n", encoding="utf-8")
    put(fresh, path)


def _versions() -> dict[str, str]:
    import numpy
    import torch

    from genlab import __version__

    return {"genlab": __version__, "torch": torch.__version__, "numpy": numpy.__version__}


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def name_of(text: str) -> str:
    """Return the last part of a local folder, so that no path of this machine is published; any other text unchanged."""
    path = expanded(text)
    return path.resolve().name if path.is_dir() or text.startswith(("/", "~", ".")) else text


def main() -> int:
    """Run the command line."""
    return run(parse(Evaluation))


if __name__ == "__main__":
    sys.exit(main())
