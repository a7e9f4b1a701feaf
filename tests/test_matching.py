"""Distribution matching against Gaussians, whose divergence has a closed form, and its training."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genlab import hub
from genlab.config import ConsistencyConfig, DataSpec, DDPMConfig, UNetConfig
from genlab.consistency import Consistency
from genlab.ddpm import DDPM
from genlab.matching import LEAST, Matching, along, direction, losses
from genlab.oracle import GaussianData
from genlab.process import q_marginal
from genlab.schedule import cosine_schedule
from tests.test_consistency import distillation
from tests.test_training import assert_same_run, at_step, options, send, task_of
from training import distil
from training.loop import Trainer, make_accelerator
from training.run import main, starting_from

SCHEDULE = cosine_schedule(1000)
MEAN, VARIANCE = torch.tensor([0.5, -0.2], dtype=torch.float64), torch.tensor([0.3, 0.05], dtype=torch.float64)
COUNT = 400_000


@pytest.mark.parametrize("u", [100, 500, 900])
def test_the_difference_of_two_predictions_is_the_gradient_of_the_divergence(u: int) -> None:
    """Eq. 1, for a student a·x_T + b of Gaussian data: KL[N(√ᾱ b, ᾱ a² + 1 − ᾱ)‖N(√ᾱ m, ᾱ σ² + 1 − ᾱ)] by autograd."""
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.4, 0.4], [0.1, 0.3]))
    alpha_bar = SCHEDULE.alpha_bar[u]
    mine, teachers = alpha_bar * a**2 + 1 - alpha_bar, alpha_bar * VARIANCE + 1 - alpha_bar
    far = alpha_bar * (b - MEAN) ** 2
    divergence = (0.5 * ((mine + far) / teachers - 1 - (mine / teachers).log())).sum()
    exact = torch.autograd.grad(divergence, (a, b))

    generator = torch.Generator().manual_seed(0)
    x_T, noise = (torch.randn(COUNT, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    x, times = a * x_T + b, torch.full((COUNT,), u)
    x_u = q_marginal(SCHEDULE, x.detach(), times).sample(noise)
    student, teacher = (GaussianData(SCHEDULE, *each) for each in ((b.detach(), a.detach() ** 2), (MEAN, VARIANCE)))
    g = student.predict(x_u, times).x0_hat - teacher.predict(x_u, times).x0_hat
    estimate = torch.autograd.grad(2 * along(x, g).mean(), (a, b))  # along() divides by D = 2
    for found, true in zip(estimate, exact, strict=True):
        torch.testing.assert_close(alpha_bar / (1 - alpha_bar) * found, true, rtol=0.02, atol=0.002)


def test_the_direction_is_measured_by_how_far_the_teacher_is_from_the_picture() -> None:
    x = torch.zeros(2, 1, 2, 2)
    teachers = torch.stack([torch.full((1, 2, 2), 0.5), torch.zeros(1, 2, 2)])
    g = direction(x, teachers + 0.1, teachers)
    torch.testing.assert_close(g[0], torch.full((1, 2, 2), 0.1 / 0.5))
    torch.testing.assert_close(g[1], torch.full((1, 2, 2), 0.1 / LEAST))  # no distance: not infinite


def tiny() -> tuple[Matching, DDPM]:
    torch.manual_seed(0)
    config, data = DDPMConfig(T=20, schedule="cosine", unet=UNetConfig(width=8)), DataSpec(size=8, classes=("a", "b"))
    teacher, student = DDPM(config, data), Consistency(ConsistencyConfig(config, "teacher", (20, 12, 5, 1)), data)
    return Matching(student, teacher), teacher


def arguments(s: Tensor) -> tuple[Tensor, ...]:
    x_T, renoise, noise = torch.randn(3, len(s), 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return x_T, s, torch.arange(len(s)) % 2, renoise, torch.full((len(s),), 9), noise


def test_a_later_evaluation_is_trained_on_the_noised_picture_of_the_first() -> None:
    matching, _ = tiny()
    with torch.no_grad():
        for parameter in matching.parameters():  # the last convolution is zero at first
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        x_T, s, label, renoise, u, noise = arguments(torch.tensor([20, 5]))
        x, x_u, _ = matching(x_T, s, label, renoise, u, noise)
        first = matching.student.predict(x_T, torch.tensor([20, 20]), label).x0_hat
        x_s = q_marginal(matching.student.schedule, first, s).sample(renoise)
        wanted = matching.student.predict(torch.stack([x_T[0], x_s[1]]), s, label, clip=False).x0_hat
    torch.testing.assert_close(x, wanted)
    torch.testing.assert_close(x_u, q_marginal(matching.student.schedule, x, u).sample(noise))


def test_each_network_learns_from_its_own_loss_alone() -> None:
    matching, teacher = tiny()
    given = arguments(torch.tensor([20, 5, 20, 1]))
    x, x_u, own = matching(*given)
    with torch.no_grad():
        teachers = teacher.predict(x_u, given[4], given[2], clip=False).x0_hat + 0.1
    match, error = losses(teacher.schedule, x, given[4], own, teachers)
    match.sum().backward(retain_graph=True)
    assert any(p.grad is not None and bool(p.grad.any()) for p in matching.student.parameters())
    assert all(p.grad is None for p in matching.own.parameters())
    matching.zero_grad(set_to_none=True)
    error.sum().backward()
    assert all(p.grad is None for p in matching.student.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in matching.own.parameters())


def test_at_the_start_there_is_no_direction_as_both_models_are_the_teacher() -> None:
    matching, teacher = tiny()
    given = arguments(torch.tensor([20, 5]))
    with torch.no_grad():
        x, x_u, own = matching(*given)
        match, _ = losses(teacher.schedule, x, given[4], own, teacher.predict(x_u, given[4], given[2], clip=False).x0_hat)
    assert bool((match == 0).all())


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> tuple[Path, Path]:
    """Train a teacher and distil it, two steps each; return their run folders."""
    folder = tmp_path_factory.mktemp("students")
    config = options("ddpm", folder / "teacher", data_dir, steps=2)
    assert main(config, task_of(config)) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "SHARD", 16)
        patch.setattr(distil, "HELD_OUT", 4)
        first = distillation(folder / "teacher", folder / "student", steps=2)
        assert main(first, distil.task(first, hub.read(folder / "teacher"))) == 0
    return folder / "teacher", folder / "student"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_student_is_matched_and_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    students: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "SHARD", 16)
    monkeypatch.setattr(distil, "HELD_OUT", 4)
    teacher, student = students
    package, never = hub.read(teacher), {"sample_minutes": 0.0, "save_minutes": 0.0}
    config = json.loads((student / "model" / "config.json").read_text())
    first, *rest = config["model"]["times"]
    order = config["model"]["times"] = [first, *rest[::-1]]  # as choose_times.py may have put them
    (student / "model" / "config.json").write_text(json.dumps(config))
    changes = {"steps": 6, "log_every": 4, "sample_every": 3, "save_every": 5, **never}
    matched = {"objective": "distribution", "from_model": str(student), **changes}
    straight, stopped = (distillation(teacher, tmp_path / name, **matched) for name in ("straight", "stopped"))
    assert main(straight, distil.task(straight, package)) == 0
    assert main(stopped, at_step(distil.task(stopped, package), 3, send(signal.SIGTERM))) == 143
    again = replace(stopped, resume=True)
    assert main(again, distil.task(again, package)) == 0
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")
    written, before = hub.read(tmp_path / "stopped"), hub.read(student)
    assert isinstance(written.model, Consistency)
    assert list(written.model.config.times) == order
    assert written.metrics["training"]["from_sha256"] == before.weights_sha256
    assert {"teacher", "--from", "student", "--objective", "distribution"} <= {*written.metrics["command"].split()}
    moved = [not torch.equal(a, b) for a, b in zip(written.model.parameters(), before.model.parameters(), strict=True)]
    assert any(moved)
    assert "and then matched to its distribution" in (tmp_path / "stopped" / "model" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_student_learns_slower_than_the_model_of_its_pictures(
    students: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step of Adam moves a weight by the learning rate, whatever the gradient."""
    monkeypatch.setattr(distil, "SHARD", 16)
    monkeypatch.setattr(distil, "HELD_OUT", 4)
    config = distillation(students[0], tmp_path, objective="distribution", from_model=str(students[1]), warmup=0, decay=0.0)
    task = distil.task(config, hub.read(students[0]))
    assert task.data is not None
    trainer = Trainer(
        config,
        starting_from(hub.read(students[1]), task.build),
        task.loss,
        task.data().train,
        make_accelerator("fp32"),
        {},
        task.paces,
    )
    trained = trainer.model
    assert isinstance(trained, Matching)
    with torch.no_grad():  # two networks that differ, else there is no direction
        for parameter in trained.own.parameters():
            parameter.add_(0.01)
    for _ in range(2):  # at the first step the last convolution is zero, and all before it has no gradient
        before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
        trainer.take_step()
        moved = {name: float((tensor - before[name]).abs().max()) for name, tensor in trained.state_dict().items()}
    assert max(v for k, v in moved.items() if k.startswith("own.")) == pytest.approx(config.lr, rel=0.5)
    assert max(v for k, v in moved.items() if k.startswith("student.")) == pytest.approx(config.lr / 10, rel=0.5)


def test_half_the_pictures_are_of_one_evaluation_and_the_others_of_every_further_time(tmp_path: Path) -> None:
    matching, teacher = tiny()
    config = distillation(Path("teacher"), tmp_path, objective="distribution", from_model="student")
    seen: list[Tensor] = []

    def network(x_T: Tensor, s: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        seen.append(s)
        return matching(x_T, s, *rest)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    with torch.no_grad():
        distil._matched(config, teacher, (20, 12, 5, 1))(network, torch.randn(600, 4, 1, 8, 8), None)  # type: ignore[arg-type]
    share = torch.bincount(seen[0], minlength=21) / 600
    assert share.nonzero().flatten().tolist() == [1, 5, 12, 20]
    torch.testing.assert_close(share[[1, 5, 12, 20]], torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2]), atol=0.06, rtol=0)


def test_a_student_to_go_on_with_is_asked_for() -> None:
    with pytest.raises(ValueError, match="--objective distribution: expected --from with the student to go on with, got none"):
        distillation(Path("ddpm-mnist"), Path("run"), objective="distribution")
