"""Distil a DDPM into a consistency function: `python training/distil.py --help`.

A solver walks from noise to pictures with the teacher's predictions; the points of these trajectories are the data. The student
starts with the teacher's weights and learns to predict the end of a trajectory from any of its points
(`genlab/consistency.py`). With --objective distribution a student goes on until its pictures are distributed as the teacher's
(`genlab/matching.py`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from training.config import Distillation, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from genlab.config import DataSpec
    from genlab.consistency import Consistency
    from genlab.ddpm import DDPM
    from genlab.matching import Matching
    from genlab.package import Package
    from training.draws import Draws
    from training.loop import LossFunction
    from training.run import Task

SHARD = 256
"""Trajectories in one file."""
HELD_OUT = 512
"""Trajectories held out to measure the loss."""
SLOWER = 0.1
"""Learning rate of a student, by that of the model of its pictures, which has to keep up (Yin et al. 2024b, section 4.2)."""
NOISED = (0.02, 0.98)
"""Times u to which pictures are noised to match their distribution, as shares of T (Yin et al. 2024a, section 3.2)."""


def trajectories(teacher: DDPM, facts: dict[str, Any], config: Distillation, folder: Path) -> tuple[Tensor, Tensor | None]:
    """Return trajectories of a teacher, computing those that an earlier call has not written to `folder`.

    Trajectory i starts from the noise of seed `config.seed` + i and has the class i modulo the number of classes; a share
    `config.no_label` has no class.

    Args:
        facts: everything that the trajectories depend on; files with other facts are computed again.

    Returns:
        points (N K+1 C H W) float16, x_T first and the picture last; labels (N), −1 for none, or None without classes.
    """
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file
    from tqdm import tqdm

    from genlab.config import Sampling
    from genlab.draw import predictor
    from genlab.sampler import Noise, unipc, walk

    folder.mkdir(parents=True, exist_ok=True)
    classes, times = len(teacher.data.classes), facts["times"]
    count = -(-(config.trajectories + HELD_OUT) // SHARD)
    labels = torch.full((count * SHARD,), -1)
    if classes:
        numbers = torch.arange(len(labels))
        hidden = torch.rand(len(labels), generator=torch.Generator().manual_seed(config.seed)) < config.no_label
        labels = torch.where(hidden, -1, numbers % classes)
    written, shards = json.dumps(facts, sort_keys=True), []
    device = next(teacher.parameters()).device
    for shard in tqdm(range(count), desc="trajectories", unit="file", disable=None):
        path, rows = folder / f"{shard:05}.safetensors", range(shard * SHARD, (shard + 1) * SHARD)
        try:
            with safe_open(path, "pt") as file:
                if file.metadata() == {"facts": written}:
                    shards.append(file.get_tensor("points"))
                    continue
        except (OSError, SafetensorError):
            pass
        label = labels[rows.start : rows.stop].to(device) if classes else None
        x = Noise.from_seeds([config.seed + i for i in rows], teacher.data.shape).draw().to(device)
        frames = walk(predictor(teacher, label, Sampling()), unipc(teacher.schedule), x, times)
        points = torch.stack([x, *(frame.x_s for frame in frames)], dim=1).half().cpu()
        temporary = path.with_suffix(".part")
        save_file({"points": points}, temporary, {"facts": written})
        temporary.replace(path)
        shards.append(points)
    return torch.cat(shards), labels if classes else None


def task(config: Distillation, package: Package) -> Task:
    """Return the task of distilling the DDPM of `package`.

    Raises:
        ModelError: the model is not a DDPM, or the one to start from cannot be read.
    """
    from accelerate import PartialState

    from genlab import hub
    from genlab.config import ConsistencyConfig
    from genlab.consistency import Consistency, spread
    from genlab.data import Dataset
    from genlab.ddpm import DDPM
    from genlab.matching import Matching
    from genlab.package import ModelError
    from genlab.sampler import spaced
    from training.draws import Draws
    from training.run import Task, TrainingData

    teacher = package.model
    if not isinstance(teacher, DDPM):
        raise ModelError(f"{config.teacher}: expected a DDPM to distil, got a model of kind {teacher.kind}")
    times = spaced(teacher.schedule, config.points, "Karras")
    order = spread(times[:-1])
    if config.from_model is not None:  # `starting_from` refuses a student of other times
        before = hub.read(config.from_model).model
        if isinstance(before, Consistency) and set(before.config.times) == set(order):
            order = before.config.times
    student = ConsistencyConfig(teacher.config, config.teacher_name, order)
    weights, matching = package.weights_sha256, config.objective == "distribution"

    def data() -> TrainingData:
        walked = times[:1] if matching else times
        facts = {"teacher": weights, "solver": "UniPC", "times": walked, "seed": config.seed, "no_label": config.no_label}
        state = PartialState()
        teacher.to(state.device)
        with state.main_process_first():
            points, labels = trajectories(teacher, facts, config, config.run_folder / "trajectories")
        if not matching:
            teacher.cpu()
        held_out, train = (
            Dataset(teacher.data, points[rows], None if labels is None else labels[rows], f"trajectories of {config.teacher}")
            for rows in (slice(HELD_OUT), slice(HELD_OUT, None))
        )
        examples = Dataset(teacher.data, package.examples, package.labels, package.source)
        learned = package.metrics.get("training", {}).get("data_sha256")
        return TrainingData(train, held_out, examples, {"teacher_sha256": weights, "data_sha256": learned})

    def build(data: DataSpec) -> Consistency | Matching:
        model = Consistency(student, data)
        model.denoiser.load_state_dict(teacher.state_dict())
        return Matching(model, teacher) if matching else model

    def loss(network: nn.Module, points: Tensor, label: Tensor | None, draws: Draws | None = None) -> dict[str, Tensor]:
        draws = draws or Draws(len(points))
        place = draws.randint(len(times) - 1, points.device)
        first = draws.rand(device=points.device) < config.from_noise
        return {"loss": network(points, times[:-1], place.masked_fill(first, 0), label)}

    return Task(build, _matched(config, teacher, times[:-1]) if matching else loss, data=data, paces=_paces)


def _paces(trained: nn.Module) -> list[tuple[nn.Module, float]]:
    """Return the networks that are trained, with their shares of the learning rate."""
    from genlab.matching import Matching

    return [(trained.student, SLOWER), (trained.own, 1.0)] if isinstance(trained, Matching) else [(trained, 1.0)]


def _matched(config: Distillation, teacher: DDPM, times: Sequence[int]) -> LossFunction:
    """Return the loss of matching a student to the distribution of its teacher.

    Args:
        times: T, and those of further evaluations.
    """
    import torch

    from genlab.ddpm import training_times
    from genlab.matching import losses
    from training.draws import Draws

    later = sorted(times[1:]) or [teacher.schedule.T]
    low, high = (round(share * teacher.schedule.T) for share in NOISED)

    def loss(network: nn.Module, points: Tensor, label: Tensor | None, draws: Draws | None = None) -> dict[str, Tensor]:
        draws = draws or Draws(len(points))
        x_T = points[:, 0].float()
        s = torch.tensor(later, device=x_T.device)[draws.randint(len(later), x_T.device)]
        s = s.masked_fill(draws.rand(device=x_T.device) < config.from_noise, teacher.schedule.T)
        u = draws.of(training_times(teacher.schedule.T, draws.count, draws.number())).clamp(low, high).to(x_T.device)
        renoise, noise = (draws.randn(*x_T.shape[1:], device=x_T.device) for _ in range(2))
        x, x_u, own = network(x_T, s, label, renoise, u, noise)
        with torch.no_grad():
            teachers = teacher.predict(x_u, u, label, clip=False).x0_hat
        matching, error = losses(teacher.schedule, x, u, own, teachers)
        return {"loss": matching + error, "matching": matching, "error": error}

    return loss


def main() -> int:
    """Run the command line."""
    config = parse(Distillation)
    from genlab import hub
    from genlab.package import ModelError
    from training.run import main as run

    try:
        package = hub.read(config.teacher)
        made = task(config, package)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return run(replace(config, dataset=package.model.data.name), made)


if __name__ == "__main__":
    sys.exit(main())
