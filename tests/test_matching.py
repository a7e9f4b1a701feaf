"""Distribution matching against Gaussians, whose divergence has a closed form, and its training."""

from __future__ import annotations

import json
import math
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
from genlab.matching import LEAST, Matched, Matching, Real, along, direction, losses
from genlab.oracle import GaussianData
from genlab.package import ModelError
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


def test_the_discriminators_loss_is_least_at_the_log_ratio_of_the_densities_where_it_is_their_divergence() -> None:
    """Goodfellow et al. 2014, theorem 1: with d = log q/p it is 2 log 2 − 2 JS(p, q), by quadrature for two Gaussians."""
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    p, q = (torch.distributions.Normal(*each).log_prob(x) for each in ((-0.5, 1.0), (0.7, 0.8)))

    def expected(d: Tensor) -> float:
        none = torch.zeros(len(x), 1, 1, 1, dtype=torch.float64)
        times = torch.full((len(x),), 500)
        loss = losses(SCHEDULE, Matched(none, none, none, fooling=d, fake=d, real=torch.zeros_like(d)), times, none)
        other = losses(SCHEDULE, Matched(none, none, none, fooling=d, fake=torch.zeros_like(d), real=d), times, none)
        of_p, of_q = (each["telling"] - math.log(2) for each in (loss, other))  # log(1 + e^0), of the pictures left out
        return float(torch.trapezoid(p.exp() * of_p + q.exp() * of_q, x))

    mean = torch.logaddexp(p, q) - math.log(2)
    shannon = 0.5 * torch.trapezoid(p.exp() * (p - mean) + q.exp() * (q - mean), x)
    assert expected(q - p) == pytest.approx(2 * math.log(2) - 2 * float(shannon), rel=1e-7)
    for change in (0.1, 0.1 * x, -0.1 * x**2):
        assert expected(q - p + change) > expected(q - p)


def tiny(real: bool = False) -> tuple[Matching, DDPM]:
    torch.manual_seed(0)
    config, data = DDPMConfig(T=20, schedule="cosine", unet=UNetConfig(width=8)), DataSpec(size=8, classes=("a", "b"))
    teacher, student = DDPM(config, data), Consistency(ConsistencyConfig(config, "teacher", (20, 12, 5, 1)), data)
    return Matching(student, teacher, real), teacher


def arguments(s: Tensor) -> tuple[Tensor, ...]:
    x_T, renoise, noise = torch.randn(3, len(s), 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return x_T, s, torch.arange(len(s)) % 2, renoise, torch.full((len(s),), 9), noise


def test_a_later_evaluation_is_trained_on_the_noised_picture_of_the_first() -> None:
    matching, _ = tiny()
    with torch.no_grad():
        for parameter in matching.parameters():  # the last convolution is zero at first
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        x_T, s, label, renoise, u, noise = arguments(torch.tensor([20, 5]))
        x, x_u, *_ = matching(x_T, s, label, renoise, u, noise)
        first = matching.student.predict(x_T, torch.tensor([20, 20]), label).x0_hat
        x_s = q_marginal(matching.student.schedule, first, s).sample(renoise)
        wanted = matching.student.predict(torch.stack([x_T[0], x_s[1]]), s, label, clip=False).x0_hat
    torch.testing.assert_close(x, wanted)
    torch.testing.assert_close(x_u, q_marginal(matching.student.schedule, x, u).sample(noise))


def real_pictures() -> Real:
    y, noise = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return Real(y, torch.tensor([1, 0, -1, 1]), torch.tensor([3, 8, 14, 5]), noise)


LEARNS = {"matching": {"student"}, "error": {"own.model"}, "fooling": {"student"}, "telling": {"own.model", "own.head"}}


@pytest.mark.parametrize("name", LEARNS)
def test_each_network_learns_from_its_own_losses_alone(name: str) -> None:
    matching, teacher = tiny(real=True)
    with torch.no_grad():
        for parameter in matching.parameters():  # the last convolutions are zero at first
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    given = arguments(torch.tensor([20, 5, 20, 1]))
    matched = matching(*given, real_pictures())
    with torch.no_grad():
        teachers = teacher.predict(matched.x_u, given[4], given[2], clip=False).x0_hat + 0.1
    losses(teacher.schedule, matched, given[4], teachers)[name].sum().backward()
    learn = {key for key, p in matching.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert {part for part in ("student", "own.model", "own.head") if any(key.startswith(part) for key in learn)} == LEARNS[name]


def test_real_pictures_leave_the_other_losses_as_they_are() -> None:
    matching, teacher = tiny(real=True)
    given = arguments(torch.tensor([20, 5, 20, 1]))
    teachers = torch.zeros(4, 1, 8, 8)
    with torch.no_grad():
        without, beside = (
            losses(teacher.schedule, matching(*given, *real), given[4], teachers) for real in ((), (real_pictures(),))
        )
    assert list(without) == ["matching", "error"]
    torch.testing.assert_close({name: beside[name] for name in without}, without)
    y, label, v, noise = real_pictures()
    with torch.no_grad():
        fake, told = (
            matching.own(q_marginal(teacher.schedule, each, v).sample(noise), v, classes)
            for each, classes in ((matching(*given).x, given[2]), (y, label))
        )
    torch.testing.assert_close(beside["telling"], (1 + fake.exp()).log() + (1 + (-told).exp()).log())
    torch.testing.assert_close(beside["fooling"], (1 + (-fake).exp()).log())


def test_at_the_start_there_is_no_direction_as_both_models_are_the_teacher() -> None:
    matching, teacher = tiny()
    given = arguments(torch.tensor([20, 5]))
    with torch.no_grad():
        matched = matching(*given)
        teachers = teacher.predict(matched.x_u, given[4], given[2], clip=False).x0_hat
        assert bool((losses(teacher.schedule, matched, given[4], teachers)["matching"] == 0).all())


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


@pytest.mark.parametrize("real", [0.0, 1.0], ids=["teacher", "real pictures"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_student_is_matched_and_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    students: tuple[Path, Path], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: float
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
    given = {"real": real, "data_dir": str(data_dir)} if real else {}
    matched = {"objective": "distribution", "from_model": str(student), **given, **changes}
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
    how = "and then matched to its distribution and to real pictures" if real else "and then matched to its distribution ("
    assert how in (tmp_path / "stopped" / "model" / "README.md").read_text()
    assert ("telling" in (tmp_path / "stopped" / "log.csv").read_text()) == bool(real)


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


def test_a_student_to_go_on_with_is_asked_for() -> None:
    with pytest.raises(ValueError, match="--objective distribution: expected --from with the student to go on with, got none"):
        distillation(Path("ddpm-mnist"), Path("run"), objective="distribution")


def test_a_discriminator_needs_a_step_of_moderate_noise(
    students: tuple[Path, Path], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "SEEN", (0.1, 0.1))
    given = {"objective": "distribution", "from_model": str(students[1]), "real": 1.0, "data_dir": str(data_dir)}
    with pytest.raises(ModelError, match=r"--real: .* has no step with noise of 0.1 to 0.1 of the signal; leave it out"):
        distil.task(distillation(students[0], tmp_path, **given), hub.read(students[0]))
