"""Consistency functions against Gaussian data, whose map from noise to picture is known in closed form, and their training."""

from __future__ import annotations

import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import genlab
from genlab import draw, hub
from genlab.config import ConsistencyConfig, DataSpec, DDPMConfig, Sampling, UNetConfig
from genlab.consistency import HUBER, Consistency, chosen_order, pseudo_huber, renoising, spread
from genlab.oracle import GaussianData
from genlab.process import Denoised, eps_from_x0
from genlab.sampler import Noise, spaced, unipc, walk
from genlab.schedule import cosine_schedule
from tests.test_training import assert_same_run, at_step, options, send, task_of
from training import distil
from training.config import Distillation
from training.run import main

SCHEDULE = cosine_schedule(1000)
MEAN, VARIANCE = torch.tensor([0.5, -0.2], dtype=torch.float64), torch.tensor([0.3, 0.05], dtype=torch.float64)


def exact(x_t: Tensor, t: Tensor) -> Tensor:
    """Eq. 3 of `consistency`."""
    alpha_bar = SCHEDULE.alpha_bar[t][:, None]
    return MEAN + VARIANCE.sqrt() * (x_t - alpha_bar.sqrt() * MEAN) / (alpha_bar * VARIANCE + 1 - alpha_bar).sqrt()


def exact_predict(x_t: Tensor, t: Tensor) -> Denoised:
    x0_hat = exact(x_t, t)
    return Denoised(eps_from_x0(SCHEDULE, x_t, x0_hat, t), x0_hat, None)


def test_a_trajectory_of_gaussian_data_ends_where_the_closed_form_says() -> None:
    """Every point that the solver passes has the same end, and the solver gets there: fourfold nearer with twice the steps."""
    oracle = GaussianData(SCHEDULE, MEAN, VARIANCE)
    x_T = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    T, errors = torch.full((200,), 1000), []
    for count in (20, 40, 80):
        frames = list(walk(oracle.predict, unipc(SCHEDULE), x_T, spaced(SCHEDULE, count, "uniform")))
        errors.append(float((frames[-1].x_s - exact(x_T, T)).abs().max()))
        for frame in frames:
            t = torch.full((200,), frame.t)
            assert float((exact(frame.x_t, t) - exact(x_T, T)).abs().max()) < 0.1
    assert errors[-1] < 4e-3
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_with_the_exact_function_any_number_of_evaluations_samples_the_data(count: int) -> None:
    noise = Noise.from_seeds(list(range(20_000)), (2,))
    x_T = noise.draw().double()
    times = [*(1000, 700, 400, 100)[:count], 0]
    *_, last = walk(exact_predict, renoising(SCHEDULE, noise), x_T, times)
    torch.testing.assert_close(last.x_s.mean(dim=0), MEAN, atol=0.02, rtol=0)
    torch.testing.assert_close(last.x_s.var(dim=0), VARIANCE, atol=0, rtol=0.05)


def test_pseudo_huber_is_quadratic_near_0_and_linear_far_away() -> None:
    c = HUBER * math.sqrt(4)
    small, large = torch.full((1, 1, 2, 2), 1e-6, dtype=torch.float64), torch.full((1, 1, 2, 2), 10.0, dtype=torch.float64)
    assert float(pseudo_huber(small)) == pytest.approx(4e-12 / (2 * c), rel=1e-3)
    assert float(pseudo_huber(large)) == pytest.approx(20 - c, rel=1e-6)
    assert pseudo_huber(torch.randn(5, 1, 2, 2)).shape == (5,)


def tiny(times: tuple[int, ...] = (20, 5, 12, 1)) -> Consistency:
    torch.manual_seed(0)
    ddpm = DDPMConfig(T=20, schedule="cosine", unet=UNetConfig(width=8))
    return Consistency(ConsistencyConfig(ddpm, "teacher", times), DataSpec(size=8, classes=("a", "b"))).eval()


def test_the_loss_is_the_distance_of_the_prediction_from_the_end() -> None:
    model, points = tiny(), torch.randn(3, 5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    place, label = torch.tensor([0, 2, 3]), torch.tensor([0, 1, -1])
    with torch.no_grad():
        loss = model.loss(points, model.config.times, place, label)
        for i, t in enumerate((20, 12, 1)):
            x0_hat = model.predict(points[i : i + 1, place[i]], torch.tensor([t]), label[i : i + 1], clip=False).x0_hat
            torch.testing.assert_close(loss[i : i + 1], pseudo_huber(x0_hat - points[i : i + 1, -1]))


@pytest.mark.parametrize(("count", "times"), [(1, [20, 0]), (2, [20, 5, 0]), (4, [20, 12, 5, 1, 0])])
def test_the_times_of_few_evaluations_are_those_that_it_was_trained_at(count: int, times: list[int]) -> None:
    assert tiny().sampling_times(count) == times
    assert draw.sampling_times(tiny(), Sampling(steps=count)) == times


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 18])
def test_times_are_spread_before_they_are_chosen(count: int) -> None:
    """Each of them once; the first 1, 2, 4, … are evenly spaced among all."""
    order = spread(range(count))
    assert sorted(order) == list(range(count))
    for k in (1, 2, 4, 8):
        if k <= count:
            assert sorted(order[:k]) == [i * count // k for i in range(k)]


def test_each_further_time_is_the_best_beside_those_chosen() -> None:
    """12 is worse than 5 beside 20, and better than 1 beside 20 and 5."""
    costs = {(20, 12): 2.0, (20, 5): 1.0, (20, 1): 3.0, (20, 12, 5): 0.5, (20, 5, 1): 0.7}
    tried = []

    def distance(walk: list[int]) -> float:
        assert walk[-1] == 0
        tried.append(tuple(walk[:-1]))
        return costs[tried[-1]]

    assert chosen_order((20, 1, 5, 12), 2, distance) == (20, 5, 1, 12)
    assert chosen_order((20, 1, 5, 12), 3, distance) == (20, 5, 12, 1)
    assert set(tried) == set(costs)


def test_more_evaluations_than_trained_times_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 to 4 evaluations, got 5"):
        tiny().sampling_times(5)


@pytest.mark.parametrize("times", [(), (19, 5), (20, 5, 5), (20, 21)])
def test_times_that_do_not_begin_with_T_or_repeat_are_refused(times: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="times"):
        ConsistencyConfig(DDPMConfig(T=20, schedule="cosine"), "", times)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    config = options("ddpm", folder, data_dir, steps=2)
    assert main(config, task_of(config)) == 0
    return folder


def distillation(teacher: Path, folder: Path, **changes: object) -> Distillation:
    common = {"steps": 4, "batch_size": 8, "warmup": 1, "sample_every": 4, "save_every": 2, "precision": "fp32"}
    small = {"trajectories": 20, "points": 3, "dataset": "mnist", "run": folder}
    return Distillation(**{"teacher": str(teacher), **common, **small, **changes})  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_teacher_is_distilled_into_a_model_like_any_other(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "SHARD", 16)
    monkeypatch.setattr(distil, "HELD_OUT", 4)
    config = distillation(teacher, tmp_path / "run")
    package = hub.read(teacher)
    assert main(config, distil.task(config, package)) == 0
    written = hub.read(tmp_path / "run")
    assert isinstance(written.model, Consistency)
    assert written.model.config.teacher == "run"
    assert len(written.model.config.times) == 3
    assert written.metrics["command"].startswith("python training/distil.py run ")
    assert written.metrics["training"]["data_sha256"] == package.metrics["training"]["data_sha256"]
    assert torch.equal(written.examples, package.examples)
    assert genlab.sample(written.model, count=3).shape == (3, 1, 8, 8)
    assert "distilled from the DDPM `run`" in (tmp_path / "run" / "model" / "README.md").read_text()
    # Walked once: the files are used again, and a run that goes on ends like one that was never stopped.
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "trajectories").iterdir()}
    assert len(before) == 2
    again = replace(config, resume=True)
    assert main(again, distil.task(again, package)) == 0
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "trajectories").iterdir()}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_distillation_is_bit_for_bit_the_uninterrupted_one(
    accumulate: int, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "SHARD", 16)
    monkeypatch.setattr(distil, "HELD_OUT", 4)
    package, never = hub.read(teacher), {"sample_minutes": 0.0, "save_minutes": 0.0}
    changes = {"steps": 6, "accumulate": accumulate, "log_every": 4, "sample_every": 3, "save_every": 5, **never}
    straight, stopped = (distillation(teacher, tmp_path / name, **changes) for name in ("straight", "stopped"))
    assert main(straight, distil.task(straight, package)) == 0
    assert main(stopped, at_step(distil.task(stopped, package), 3 * accumulate, send(signal.SIGTERM))) == 143
    again = replace(stopped, resume=True)
    assert main(again, distil.task(again, package)) == 0
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


def test_a_damaged_file_of_trajectories_and_those_of_other_options_are_made_anew(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "SHARD", 8)
    monkeypatch.setattr(distil, "HELD_OUT", 0)
    model, config = hub.read(teacher).model, distillation(teacher, tmp_path / "run", trajectories=8)
    facts = {"times": spaced(model.schedule, 3, "Karras"), "seed": 0}
    points, labels = distil.trajectories(model, facts, config, tmp_path / "t")
    assert points.shape == (8, 4, 1, 8, 8)
    assert labels is not None
    (file,) = (tmp_path / "t").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    again, _ = distil.trajectories(model, facts, config, tmp_path / "t")
    assert torch.equal(points, again)
    other, _ = distil.trajectories(model, {**facts, "times": [25, 10, 0]}, config, tmp_path / "t")
    assert other.shape[1] == 3
    # The first point is the noise of the picture's seed, the last the teacher's own picture.
    torch.testing.assert_close(
        points[3, 0].float(), torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(3)), atol=2e-3, rtol=0
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_teacher_without_pictures_gives_a_student_without(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "SHARD", 16)
    monkeypatch.setattr(distil, "HELD_OUT", 4)
    shutil.copytree(teacher / "model", tmp_path / "bare")
    for name in ("examples.json", "examples.png"):
        (tmp_path / "bare" / name).unlink()
    config = distillation(tmp_path / "bare", tmp_path / "run", trajectories=12)
    assert main(config, distil.task(config, hub.read(tmp_path / "bare"))) == 0
    assert len(hub.read(tmp_path / "run").examples) == 0


def test_only_a_ddpm_is_distilled(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    config = options("vae", tmp_path / "vae", data_dir, steps=1)
    assert main(config, task_of(config)) == 0
    monkeypatch.setattr("sys.argv", ["distil.py", str(tmp_path / "vae")])
    assert distil.main() == 1
    assert "expected a DDPM to distil, got a model of kind vae" in capsys.readouterr().err
    assert json.loads((tmp_path / "vae" / "model" / "config.json").read_text())["kind"] == "vae"
