"""The benchmarks: what they reckon with against exact answers, and each of them once on the smallest sizes."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks import app, growth, guide, network, pictures, precision, sampling, shapes, solvers, timing, training
from genlab.config import DataSpec, DDPMConfig, Sampling, UNetConfig
from genlab.data import KNOWN, Dataset, load
from genlab.ddpm import DDPM
from genlab.features import Classifier, ClassifierConfig, FeatureNet
from genlab.nn import Attention, computes_bf16
from genlab.package import write_package
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny DDPM as a folder."""
    place = tmp_path_factory.mktemp("benchmarks") / "ddpm"
    model = tiny.ddpm(DataSpec("mnist", 1, 28, KNOWN["mnist"][1]))
    write_package(place, model, {"command": "python training/train_ddpm.py"}, tiny.dataset("mnist"))
    return str(place)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The narrowest peers and one small convolution: looking for the right ones takes longer than all the rest."""
    monkeypatch.setattr(network, "WIDEST", 9)
    monkeypatch.setattr(network, "CONVOLUTIONS", ((8, 4),))


@pytest.fixture
def quick_eye(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances on three features of an untrained classifier, for which a dozen pictures are enough."""

    def untrained(train: Dataset) -> Classifier:
        known = dataclasses.replace(train.spec, classes=("one", "other"))
        return Classifier(FeatureNet(ClassifierConfig(8, 3), known).eval(), "mnist", "0" * 64, 0.5)

    monkeypatch.setattr("genlab.features.classifier_for", untrained)


def test_runs_take_turns_in_either_order() -> None:
    calls: list[str] = []
    seconds = timing.alternate({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2)
    assert calls == ["a", "b", "a", "b", "b", "a"]  # to warm up, there, and back
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}


def test_a_ratio_compares_what_was_measured_side_by_side() -> None:
    slow_then_fast = [10.0, 1.0, 1.0]
    assert timing.ratio([2 * s for s in slow_then_fast], slow_then_fast) == 2


def test_a_convolution_costs_two_operations_a_weight_and_pixel() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    assert network.flops(Net(), torch.zeros(1, 3, 8, 8)) == 2 * 3 * 5 * 9 * 8 * 8


def test_the_nearest_network_is_found_on_either_side() -> None:
    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, width, 1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    def families():
        return [[(str(w), lambda w=w: Net(w)) for w in widths] for widths in ((2, 6, 9), (4, 8, 16))]

    for wanted, name in ((5.4, "6"), (4.2, "4"), (20, "16"), (8.9, "9")):
        found, net, cost = network.nearest(families(), channels=1, side=4, wanted=wanted * 2 * 16)
        assert (found, cost) == (name, int(name) * 2 * 16)
        assert net.conv.weight.device.type == "cpu"


def test_peers_see_the_picture_or_its_folds_and_say_as_much_as_ours() -> None:
    pytest.importorskip("diffusers")
    ours = tiny.ddpm(DataSpec("mnist", 1, 28, KNOWN["mnist"][1]))
    ours = type(ours)(DDPMConfig(T=10, variance="learned", unet=UNetConfig(width=8)), ours.data)
    found = [each for name, each in network.peers(ours).items() if name.startswith("diffusers")]
    assert [(channels, side) for _, _, channels, side in found] == [(1, 28), (4, 14)]
    for net, cost, channels, side in found:
        out = net(torch.zeros(2, channels, side, side), torch.ones(2, dtype=torch.long)).sample
        assert out.shape == (2, 2 * channels, side, side)  # the prediction and the place of Σ
        assert cost == network.flops(net, torch.zeros(1, channels, side, side))


def test_the_network_table_has_a_row_for_each_way(folder: str, capsys) -> None:
    network.run(network.Options(model=folder, batches=(1,), rounds=1))
    said = capsys.readouterr().out
    assert "GFLOP/s" in said
    rows = [line for line in said.splitlines() if line.startswith("| genlab")]
    assert len(rows) == 2 + computes_bf16()
    if "diffusers" in sys.modules:
        assert sum(line.startswith("| diffusers UNet2DModel") for line in said.splitlines()) == 2 * len(rows)


def test_the_profile_says_what_kind_of_work_takes_the_time() -> None:
    took = {
        "aten::mkldnn_convolution": 5.0,
        "aten::conv2d": 1.0,
        "aten::native_group_norm": 2.0,
        "aten::silu": 1.0,
        "aten::empty": 1.0,
    }
    found = network.by_kind(took)
    assert found == dict.fromkeys(network.KINDS, 0) | {"convolutions": 0.6, "normalisation and SiLU": 0.3, "the rest": 0.1}


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("convolutions", nn.Conv2d(8, 8, 3, padding=1)),
        ("linear layers", nn.Linear(8, 8)),
        ("normalisation and SiLU", nn.GroupNorm(2, 8)),
        ("normalisation and SiLU", nn.SiLU()),
    ],
)
def test_every_layer_of_the_network_has_a_kind_of_its_own(kind: str, layer: nn.Module) -> None:
    """Which layer takes most of a time is for the machine to say; that a layer is seen, and no other, is not."""
    found = network.shares("plain", lambda x, t: layer(x), torch.randn(4, 8, 8, 8), torch.ones(4), rounds=3)
    assert sum(found.values()) == pytest.approx(1)
    assert found[kind] > 0
    assert {kind for kind, share in found.items() if share > 0} <= {kind, "the rest"}


def test_what_no_operator_does_is_the_compiled_codes() -> None:
    found = network.shares("compiled", lambda x, t: time.sleep(0.01), torch.zeros(1), torch.ones(1), rounds=3)
    assert [share for kind, share in found.items() if kind.startswith("compiled code")] == [1]


def test_the_profile_has_a_column_for_each_number_of_pictures(folder: str, capsys) -> None:
    network.run(network.Options(model=folder, batches=(1, 2), rounds=1, profile=True))
    said = capsys.readouterr().out
    assert "| channels_last, batch 1 | channels_last, batch 2 |" in said
    assert all(f"| {kind} | " in said for kind in network.KINDS)


def test_diffusers_sees_our_network_as_it_is(folder: str) -> None:
    model = network.shipped_model(folder)
    x = torch.randn(3, 1, 28, 28)
    answer = sampling.our_network(model)(x, torch.tensor(6)).sample
    predicted = model.predict(x, torch.full((3,), 7), torch.arange(3), clip=False)
    torch.testing.assert_close(answer, predicted.eps_hat)  # the tiny model predicts ε


def test_the_whole_chain_is_on_the_line_through_short_ones(folder: str, monkeypatch) -> None:
    def exactly(runs, rounds):
        """Seconds of 3 + 2 a step."""
        return {name: [3.0 + 2 * int(name.split()[-2])] * rounds for name in runs}

    pytest.importorskip("diffusers")
    monkeypatch.setattr(timing, "alternate", exactly)
    options = sampling.Options(model=folder, count=1, chain=1000, ddim=50, dpm=20, rounds=2)
    found = sampling.measure(network.shipped_model(folder), options)
    for name, (steps, seconds, drawn) in found.items():
        assert seconds == pytest.approx([3 + 2 * steps] * 2)
        assert drawn == (steps == 1000), name
    assert len(found) >= 5


def test_the_sampling_table_is_of_whole_pipelines(folder: str, capsys) -> None:
    sampling.run(sampling.Options(model=folder, steps=2, dpm=2, ddim=2, chain=2, quick=True))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[2].startswith("| genlab DPM-Solver++ SDE, 2 steps | 1.0 |")
    assert [line.split(" | ")[0] for line in lines[4:7]] == [
        f"| genlab consistency-fashion-mnist, {few} steps" for few in (1, 2, 4)
    ]


def test_the_sampling_table_has_the_compiled_networks_beside_the_others(folder: str, monkeypatch) -> None:
    used: list[str] = []
    monkeypatch.setattr("genlab.compiled.compile_network", lambda model, package: used.append("written"))
    monkeypatch.setattr("genlab.compiled.use", lambda model, package: used.append("used"))
    monkeypatch.setattr(torch, "compile", lambda module: used.append("diffusers'") or module)
    options = sampling.Options(model=folder, count=1, steps=2, dpm=2, ddim=2, chain=2, rounds=1, compile=True)
    names = list(sampling.measure(network.shipped_model(folder), options))
    fast = ["genlab DPM-Solver++ SDE, 2 steps", "genlab UniPC, 6 steps"]
    assert names[:4] == [name + end for name in fast for end in ("", ", compiled")]
    assert used[:2] == ["written", "used"]
    if "diffusers" in sys.modules:
        assert used[2:] == ["diffusers'"]
        assert sum(name.endswith("`, compiled, 2 steps") for name in names) == 1


def test_ours_are_pictures(folder: str) -> None:
    pictures = sampling.ours(network.shipped_model(folder), 3, Sampling(steps=2))
    assert [(each.size, each.mode) for each in pictures] == [((28, 28), "L")] * 3


def test_the_solvers_are_compared_and_a_stopped_comparison_goes_on(folder: str, tmp_path: Path, capsys, monkeypatch) -> None:
    pytest.importorskip("diffusers")
    pictures, dims = tiny.dataset("mnist"), 3
    network = FeatureNet(ClassifierConfig(8, dims), pictures.spec).eval()
    monkeypatch.setattr("genlab.features.classifier_for", lambda data: Classifier(network, "mnist", "0" * 64, 0.5))
    monkeypatch.setattr("genlab.data.load", lambda *_: pictures)
    evaluations: list[int] = []
    predict = DDPM.predict
    monkeypatch.setattr(
        DDPM, "predict", lambda self, x, *given, **named: (evaluations.append(len(x)), predict(self, x, *given, **named))[1]
    )
    options = solvers.Options(model=folder, images=6, counts=(2, 3), chain=4, only=("UniPC, Karras",), out=tmp_path)
    solvers.run(options)
    table = capsys.readouterr().out
    assert sum(evaluations) == 6 * (2 + 3 + 4)
    solvers.run(dataclasses.replace(options, only=("UniPC, Karras", "DDIM", "diffusers DDIM")))
    more = capsys.readouterr().out
    assert sum(evaluations) == 6 * (2 + 3 + 4) + 2 * 6 * (2 + 3)
    (row,) = (line for line in table.splitlines() if line.startswith("| UniPC, Karras |"))
    assert row in more
    kept = json.loads((tmp_path / "solvers.json").read_text())
    ratio = kept["distances"]["UniPC, Karras"]["2"] / kept["chain_distance"]
    assert row.startswith(f"| UniPC, Karras | {ratio:.2f} |")
    evaluations.clear()
    solvers.run(dataclasses.replace(options, seed=1))
    assert sum(evaluations) == 6 * (2 + 3 + 4)


def test_the_exponent_of_a_power_is_found() -> None:
    assert growth.exponent([1, 4, 16], [3 * n**1.7 for n in (1, 4, 16)]) == pytest.approx(1.7)
    assert math.isnan(growth.exponent([1], [2.0]))


def test_the_guides_figures_are_measured(monkeypatch, capsys) -> None:
    """Of a picture that is noised further less comes back, and of its prediction more is there the later it is."""
    monkeypatch.setattr(guide, "SEEDS", 4)
    guide.run(guide.Options())
    lines = capsys.readouterr().out.splitlines()
    back, predicted = (
        [float(re.split("[:,]", line)[1]) for line in lines if line.startswith(beginning)]
        for beginning in ("  from t =", "  at t =")
    )
    assert len(back) == len(guide.REACHED)
    assert 0.99 < back[0] < 1
    assert back[:4] == sorted(back[:4], reverse=True)
    assert len(predicted) == len(guide.PREDICTED)
    assert predicted[2:] == sorted(predicted[2:])
    assert sum(int(part) for part in re.findall(r"(\d+) ×", lines[-1])) == 4


def test_the_growth_table_has_what_grows(folder: str, capsys) -> None:
    growth.run(growth.Options(model=folder, sizes=(28, 32), counts=(1, 2), steps=(1, 2), count=1, rounds=1))
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line[1] for line in lines[1:]] == ["28", "32", "1", "2", "1", "2"]
    assert [line[2] for line in lines[1:]] == ["1.0", "1.3", "1.0", "2.0", "1.0", "2.0"]


def test_every_visitor_asks_as_often_as_it_was_told(monkeypatch) -> None:
    asked: list[tuple[int, int, str]] = []

    def visitor(url: str, number: int) -> SimpleNamespace:
        return SimpleNamespace(ask=lambda name, seed: asked.append((number, seed, name)) or iter("ab"))

    monkeypatch.setattr(app, "Visitor", visitor)
    found = app.load("", clients=3, requests=2)
    assert sorted(asked) == [(n, s, "sample") for n, s in ((1, 0), (1, 1), (2, 1000), (2, 1001), (3, 2000), (3, 2001))]
    assert (found.clients, len(found.seconds)) == (3, 6)
    assert found.rate == 6 / found.wall


def test_a_stream_is_timed_at_its_first_and_last_frame(monkeypatch) -> None:
    moments = iter([10.0, 10.5, 11.0, 12.5, 13.0])
    monkeypatch.setattr(app.time, "perf_counter", lambda: next(moments))
    visitor = SimpleNamespace(ask=lambda name, seed: iter("abcc"))
    assert app.stream(visitor, seed=3) == (0.5, 3.0, 3)


@pytest.mark.long
def test_the_page_is_asked_as_its_visitors_ask(folder: str) -> None:
    with app.serving((folder,), app.ROOT) as server:
        assert 0 < server.config < server.sample
        visitor = app.Visitor(server.url, 0)
        first, last, frames = app.stream(visitor, seed=3)
        assert 0 < first <= last
        assert 1 <= frames <= 11  # a machine that takes more than 25 steps a second sends fewer
        assert app.by_client(server.url, 1) > 0
        found = app.load(server.url, clients=2, requests=2)
        assert len(found.seconds) == 4
        assert found.wall >= max(found.seconds)
        assert app.memory(server.pid) > 100
        with app.drawing(server.url):
            assert app.answer(app.Visitor(server.url, 5), "cross_entropy", 2) > 0


def test_the_endpoints_need_nothing_said() -> None:
    endpoints = json.loads((ROOT / "tests" / "api.json").read_text())
    for name in ("/sample", "/sample_stream", *(f"/{light}" for light in app.LIGHT)):
        assert all("default" in parameter for parameter in endpoints[name]["parameters"].values())


def test_percentiles_are_those_of_the_requests() -> None:
    found = app.Load(1, [float(n) for n in range(1, 21)], wall=10.0)
    assert (found.rate, found.percentile(50), found.percentile(95), found.percentile(100)) == (2.0, 10.0, 19.0, 20.0)


def test_the_page_table_sets_figures_beside_goals(monkeypatch, capsys) -> None:
    server = SimpleNamespace(url="", pid=1, config=4.0, sample=5.0)
    monkeypatch.setattr(app, "serving", lambda models, tree, compile=False: nullcontext(server))
    monkeypatch.setattr(app, "Visitor", lambda url, number: None)
    drawn: list[str] = []

    @contextmanager
    def drawing(url: str) -> Iterator[None]:
        drawn.append(url)
        yield

    monkeypatch.setattr(app, "by_client", lambda url, rounds: 1.5)
    monkeypatch.setattr(app, "drawing", drawing)
    monkeypatch.setattr(app, "answer", lambda visitor, name, rounds: 150.0 if drawn else 50.0)
    monkeypatch.setattr(app, "memory", lambda pid: 2048.0)
    monkeypatch.setattr(app, "stream", lambda client, seed: (0.5, 0.75, 26))
    seconds = iter([2.0, 32.0, 20.0, 240.0, 3.0, 60.0])  # the machine is slow in the second lap
    monkeypatch.setattr(app, "load", lambda url, clients, requests: app.Load(clients, [next(seconds)], 1.0))
    app.run(app.Options(clients=(1, 4)))
    said = capsys.readouterr().out
    assert "| start → first answer of /config | 0.50 | 4.00 s | < 8.00 s | yes |" in said
    assert "| request → first frame | 2.00 | 0.50 s | < 0.25 s | no |" in said
    assert "| 1 visitor at once: 95% of the answers within |  | 3.00 s |  |  |" in said
    assert "| 4 visitors at once: 95% of the answers within | 4.00 | 60.00 s | < 4 × half of one visitor's | no |" in said
    assert "| /bound → first answer, nobody else asks | 0.50 | 50 ms | < 100 ms | yes |" in said
    assert "| /bound → first answer, another visitor draws | 1.50 | 150 ms | < 100 ms | no |" in said
    assert "| memory once started | 2.00 | 2048 MiB | < 1024 MiB | no |" in said


def test_help_is_there_before_torch() -> None:
    """For each script: what it does, and no import of torch, which takes seconds."""
    check = (
        "import runpy, sys\n"
        "for name in 'network sampling training shapes precision growth guide pictures app load'.split():\n"
        "    sys.argv = [name, '--help']\n"
        "    try:\n"
        "        runpy.run_path(f'benchmarks/{name}.py', run_name='__main__')\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, end\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--quick") == 8


def test_pictures_are_read_with_the_cache_and_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures.run(pictures.Options(quick=True, uncached=True, folder=tmp_path))
    rows = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[1:] == ["| first start", "| second start", "| without the cache"]
    assert len(list((tmp_path / "cache").glob("*/pixels"))) == 1


def test_training_takes_steps_of_every_loop(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training.run(training.Options("mnist", str(data_dir), batch_size=4, quick=True))
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert rows[0][0] == "| genlab, training/train_ddpm.py"
    assert float(rows[0][1]) == 1
    assert any("diffusers" in row[0] for row in rows)
    assert all(float(row[1]) > 0 < float(row[2].strip(" |")) for row in rows)


def test_ours_is_compared_by_size_of_the_pictures(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(training, "SHOWN", 1)
    training.run(training.Options(batch_size=2, quick=True, sizes=(8, 48)))
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row[:2] for row in rows] == [
        [f"{size}×{size} {colour}", f"48 → {widest}"] for size, widest in ((8, 96), (48, 48)) for colour in ("gray", "RGB")
    ]
    for row in rows:
        assert all(float(figure) > 0 for figure in row[3:])
        assert (row[6:8] == ["1.00", "1.00"]) == (row[1] == "48 → 96")


def test_our_loop_is_timed_compiled_too(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    training.run(training.Options("mnist", str(data_dir), batch_size=4, quick=True, compile=True))
    assert compiled == ["UNet"]
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert rows[-1][0] == "| genlab, training/train_ddpm.py --compile on"
    assert float(rows[-1][1]) > 0


def test_loops_take_all_their_steps_and_none_runs_ahead() -> None:
    calls: list[str] = []
    steps = {"quick": 4 * training.TOGETHER, "slow": training.TOGETHER + 1}
    fake = {name: training.Loop(lambda name=name: calls.append(name), None) for name in steps}  # type: ignore[arg-type, misc]
    seconds = training.train(fake, steps)
    assert {name: calls.count(name) for name in steps} == steps
    assert seconds.keys() == steps.keys()
    for done in range(len(calls)):
        shares = [calls[:done].count(name) / count for name, count in steps.items()]
        assert abs(shares[0] - shares[1]) <= training.TOGETHER / min(steps.values())


def test_diffusers_denoises_as_its_scheduler_does(data_dir: Path, tmp_path: Path) -> None:
    scheduler = pytest.importorskip("diffusers").DDPMScheduler(num_train_timesteps=1000)
    pictures = training.unlabelled(load("mnist", "train", str(data_dir)))
    torch.manual_seed(0)
    model = training.diffusers(pictures, 4, 10, tmp_path)[1].model()
    x_t = torch.randn(1, *pictures.spec.shape)
    for t in (1, 7, 400, 1000):
        eps = model.unet(x_t, torch.tensor([t]), None)
        expected = scheduler.step(eps, t - 1, x_t).pred_original_sample
        with torch.no_grad():
            torch.testing.assert_close(model.predict(x_t, torch.tensor([t])).x0_hat, expected, rtol=0, atol=1e-5)


def test_lucidrains_denoises_as_it_does_itself(data_dir: Path, tmp_path: Path) -> None:
    network.mend_torchvision()
    package = pytest.importorskip("denoising_diffusion_pytorch")
    pictures = training.unlabelled(load("mnist", "train", str(data_dir)))
    torch.manual_seed(0)
    model = training.lucidrains(pictures, 4, 10, tmp_path)[1].model()
    itself = package.GaussianDiffusion(model.unet.network, image_size=pictures.spec.size, timesteps=1000)
    x_t = torch.randn(2, *pictures.spec.shape)
    for t in (1, 7, 400, 1000):
        at = torch.full((2,), t)
        with torch.no_grad():
            expected = itself.model_predictions(x_t, at - 1, clip_x_start=True).pred_x_start
            torch.testing.assert_close(model.predict(x_t, at).x0_hat, expected, rtol=0, atol=1e-4)


def test_what_was_trained_for_as_long_is_measured(data_dir: Path, tmp_path: Path, capsys, monkeypatch, quick_eye) -> None:
    monkeypatch.setattr(training, "DRAWN_BY", (Sampling(steps=2), Sampling("DDIM", 3, "uniform")))
    options = training.Options("mnist", str(data_dir), batch_size=4, quick=True, minutes=0.002, images=12, out=tmp_path / "out")
    training.run(options)
    said = capsys.readouterr()
    result = json.loads((tmp_path / "out" / "equal-time.json").read_text())
    assert "genlab, training/train_ddpm.py" in result["loops"]
    for name, found in result["loops"].items():
        bound, (ours, theirs) = found["bound_bits_per_dim"], found["distances"]
        assert f"| {name} | {found['minutes']:.1f} | {found['steps']:,} | {bound:.3f} ± " in said.out
        assert (ours["steps"], theirs["sampler"]) == (2, "DDIM")
        assert ours["frechet_interval_95"][0] <= ours["frechet_distance"] <= ours["frechet_interval_95"][1]
        assert found["steps"] >= 1
        assert found["variance"] in ("posterior", "beta", "learned")
    with Image.open(tmp_path / "out" / "equal-time.png") as sheet:
        assert sheet.height >= 8 * len(result["loops"])


def test_attention_is_where_a_shape_has_it() -> None:
    spec = DataSpec("mnist", 1, 28, ())
    unet = UNetConfig(width=8, multipliers=(1, 2))
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([3, 900])
    for attention, expected in (("none", 0), ("middle", 1), ("all", 1 + 2 + 4)):  # a block a level down, two a level up
        model = shapes.build(shapes.Shape(unet, attention), spec).eval()
        assert sum(isinstance(module, Attention) for module in model.modules()) == expected
        assert model.predict(x, t).x0_hat.shape == x.shape
    names = [shape.name for shape in shapes.SHAPES]
    assert len(set(names)) == len(names)
    assert names[0] == "patch 2, channels 48 → 96, 1 block"


def test_shapes_are_trained_for_the_same_time_whatever_a_step_takes(monkeypatch) -> None:
    now, order = [0.0], []

    def loop(name: str, seconds: float) -> training.Loop:
        def step() -> None:
            now[0] += seconds
            order.append(name)

        return training.Loop(step, lambda: None)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(shapes.time, "process_time", lambda: now[0])
    assert shapes.train({"quick": loop("quick", 1.0), "slow": loop("slow", 3.0)}, 60.0) == {"quick": 60, "slow": 20}
    assert order[: training.TOGETHER + 1] == ["quick"] * training.TOGETHER + ["slow"]


def test_every_shape_is_trained_for_as_long_and_measured(
    data_dir: Path, tmp_path: Path, capsys, monkeypatch, quick_eye
) -> None:
    unet = UNetConfig(width=8, multipliers=(1, 2))
    few = (shapes.Shape(unet), shapes.Shape(dataclasses.replace(unet, multipliers=(1,)), "all"))
    odd = shapes.Shape(dataclasses.replace(unet, patch=3))  # 8 is no multiple of its stride
    monkeypatch.setattr(shapes, "SHAPES", (*few, odd))
    options = shapes.Options("mnist", str(data_dir), minutes=0.002, images=12, batch_size=4, rounds=1, out=tmp_path)
    shapes.run(options)
    said, found = capsys.readouterr().out, json.loads((tmp_path / "shapes.json").read_text())["shapes"]
    assert list(found) == [shape.name for shape in few]
    for name, each in found.items():
        assert f"| {name} | " in said
        assert f" | {each['steps']:,} | {each['prediction_error']:.4f} | {each['bound_bits_per_dim']:.3f} ± " in said
        assert each["steps"] >= 1
    first, second = found.values()
    assert first["parameters"] > second["parameters"]
    assert first["unet"]["multipliers"] == [1, 2]
    monkeypatch.setattr(shapes, "LARGE_SHAPES", few)
    monkeypatch.setattr(shapes, "LARGE", 8)
    shapes.run(dataclasses.replace(options, distances=False, only=("channels 8 → 16",)))
    head, _, row = capsys.readouterr().out.splitlines()[2:]
    assert head.endswith(" | steps | prediction error | bound, bits/dim |")
    assert row.startswith(f"| {few[0].name} | ")
    for wrong in ({"minutes": 0}, {"minutes": math.nan}, {"images": 1}):
        with pytest.raises(ValueError, match=f"--{next(iter(wrong))}: expected"):
            shapes.Options(**wrong)


def test_pictures_in_bf16_are_held_against_those_in_fp32(folder: str, data_dir: Path, capsys, quick_eye) -> None:
    precision.run(precision.Options(folder, str(data_dir), images=8, batch_size=4))
    head, _, first, second = capsys.readouterr().out.splitlines()[2:]
    assert head.startswith("| arithmetic | Fréchet distance | 95% |")
    assert first.startswith("| fp32 | ")
    assert first.endswith(" | 0.00 | 0.00% |")
    cells = second.split(" | ")
    assert cells[0] == "| bf16"
    assert 0 < float(cells[3]) < 2  # gray levels: bf16 rounds, and does no more
