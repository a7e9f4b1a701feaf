"""The command line: every option explained, instant help, errors in a sentence, and commands that can be run again."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genlab.config import DDPMConfig, UNetConfig, VAEConfig
from training import train_ddpm, train_vae
from training.config import DDPMTraining, Distillation, Training, VAETraining, flag, leaves

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS: dict[str, tuple[Any, type[Training]]] = {"ddpm": (train_ddpm, DDPMTraining), "vae": (train_vae, VAETraining)}


def parse(kind: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Training:
    """The options that the script's own `main` would train with."""
    found: list[Training] = []
    monkeypatch.setattr("sys.argv", [f"training/train_{kind}.py", *arguments])
    monkeypatch.setattr(SCRIPTS[kind][0], "task", lambda config: None)
    monkeypatch.setattr("training.run.main", lambda config, task: found.append(config) or 0)
    assert SCRIPTS[kind][0].main() == 0
    return found[0]


@pytest.mark.parametrize("kind", SCRIPTS)
def test_help_needs_no_torch_and_shows_every_option(kind: str):
    """Run as a script, from another folder, as a person does; what was imported is listed at the end."""
    script = ROOT / "training" / f"train_{kind}.py"
    code = f"""
import atexit, runpy, sys
heavy = ("torch", "numpy", "PIL", "accelerate", "datasets", "huggingface_hub", "matplotlib")
atexit.register(lambda: print("imported:", [name for name in heavy if name in sys.modules]))
sys.argv = [{str(script)!r}, "--help"]
sys.path[0] = {str(script.parent)!r}
runpy.run_path({str(script)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("imported: []")
    for name in leaves(dataclasses.asdict(SCRIPTS[kind][1]())).keys() - ({"augment"} if kind == "vae" else set()):
        assert re.search(rf"│ {'--no-examples' if name == 'examples' else flag(name)}\b", done.stdout), name
    assert "--model" not in done.stdout
    assert "--no-" not in done.stdout.replace("--no-examples", "")


def test_help_ends_quietly_when_nobody_reads_on():
    """As in `--help | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    script = ROOT / "training" / "train_ddpm.py"
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run([sys.executable, str(script), "--help"], stdout=out, stderr=subprocess.PIPE, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("cls", [DDPMTraining, VAETraining, DDPMConfig, UNetConfig, VAEConfig])
def test_every_option_has_its_sentence(cls: type):
    sources = "".join((ROOT / name).read_text() for name in ("training/config.py", "genlab/config.py"))
    for field in dataclasses.fields(cls):
        if field.name == "unet":  # no flag: its fields are, and its class has the sentence
            continue
        found = re.findall(rf'\n    {field.name}: [^\n]+\n    """(.+?)"""', sources, re.DOTALL)
        assert found, field.name
        assert all(text.endswith(".") for text in found), found


def test_a_sentence_of_an_option_is_one_line():
    """`--help` would break where the source does."""
    for script in [ROOT / "genlab" / "config.py", *(ROOT / "training").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for name, text in re.findall(r'\n    (\w+): [^\n]+\n    """([^"]+)"""', script.read_text()):
            assert "\n" not in text, (script.name, name)


@pytest.mark.parametrize("kind", SCRIPTS)
def test_flags_are_unique(kind: str):
    def names(options: dict[str, Any]) -> list[str]:
        return [n for k, v in options.items() for n in (names(v) if isinstance(v, dict) else [k])]

    found = names(dataclasses.asdict(SCRIPTS[kind][1]()))
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("ddpm", ["--steps", "0"], ["--steps", "from 1 to", "got 0"]),
        ("ddpm", ["--lr", "nan"], ["--lr", "got nan"]),
        ("ddpm", ["--lr", "fast"], ["--lr", "fast"]),
        ("ddpm", ["--decay", "1.5"], ["--decay", "from 0 to 1", "got 1.5"]),
        ("ddpm", ["--ema", "1"], ["--ema", "got 1"]),
        ("ddpm", ["--channels", "2"], ["--channels", "expected 1 or 3", "got 2"]),
        ("ddpm", ["--size", "1000"], ["--size", "4 to 256", "got 1000"]),
        ("ddpm", ["--label-dropout", "2"], ["--label-dropout", "got 2"]),
        ("ddpm", ["--schedule", "square"], ["--schedule", "square"]),
        ("ddpm", ["--width", "12"], ["width", "a multiple of 8", "got 12"]),
        ("ddpm", ["--T", "1"], ["T: expected", "got 1"]),
        ("ddpm", ["--multipliers", *"1111111"], ["multipliers", "1 to 6 levels"]),
        ("vae", ["--latent", "0"], ["latent", "got 0"]),
        ("vae", ["--repo-id", "me/x"], ["--repo-id", "expected --push"]),
        ("vae", ["--lables", "1"], ["--lables"]),
        ("vae", ["extra"], ["extra"]),
    ],
)
def test_a_bad_option_is_named_with_its_value(
    kind: str, arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stopped:
        parse(kind, arguments, monkeypatch)
    assert stopped.value.code == 2
    out = capsys.readouterr()
    text = " ".join((out.out + out.err).replace("│", " ").split())
    assert all(word in text for word in words), text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("ddpm", []),
        ("vae", ["--seed", "7", "--likelihood", "bernoulli", "--lr", "0.0005", "--store", "fp32"]),
        ("ddpm", ["--dataset", "me/cats", "--T", "50", "--multipliers", "1", "2", "4", "--dropout", "0.1", "--width", "64"]),
    ],
)
def test_the_recorded_command_gives_the_same_options_again(kind: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch):
    config = parse(kind, arguments, monkeypatch)
    command = shlex.split(config.command())
    assert command[:2] == ["python", f"training/train_{kind}.py"]
    assert command[2:] == arguments or sorted(command[2:]) == sorted(arguments)
    assert parse(kind, command[2:], monkeypatch).published() == config.published()


def test_the_recorded_command_says_nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "home" / "cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    local = ["--data-dir", str(tmp_path), "--run", str(tmp_path / "run"), "--push", "--repo-id", "me/secret", "--private"]
    for dataset in (str(tmp_path / "home" / "cats"), "cats", "./cats", "../home/cats", "/gone/cats", "~/gone/cats"):
        config = parse("vae", ["--dataset", dataset, *local], monkeypatch)
        assert config.command() == "python training/train_vae.py --dataset cats"
        assert config.published()["dataset"] == "cats"
        assert config.dataset_name == "cats"


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("mnist", "runs/vae-mnist"),
        ("ylecun/mnist", "runs/vae-mnist"),
        ("./mnist", "runs/vae-mnist-folder"),
        ("mnist/", "runs/vae-mnist-folder"),
        ("/some/fashion-mnist", "runs/vae-fashion-mnist-folder"),
        ("me/mnist", "runs/vae-me-mnist"),
        ("./emoji", "runs/vae-emoji-folder"),
        ("me/emoji", "runs/vae-me-emoji"),
        ("me/cats", "runs/vae-cats"),
        ("/some/where/", "runs/vae-where"),
        (".", "runs/vae-here"),
    ],
)
def test_the_run_folder_is_named_after_the_model_and_the_data(
    dataset: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert VAETraining(dataset=dataset).run_folder == Path(folder)
    assert VAETraining(dataset=dataset, run=Path("x")).run_folder == Path("x")


def test_options_that_only_say_where_how_often_and_how_stored_may_change_on_the_way():
    names = {field.name for field in dataclasses.fields(DDPMTraining)} - DDPMTraining().fixed().keys()
    free = {
        "data_dir",
        "run",
        "resume",
        "compile",
        "log_every",
        "sample_every",
        "save_every",
        "store",
        "push",
        "repo_id",
        "private",
        "cache",
        "examples",
        "sample_minutes",
        "save_minutes",
        "track",
        "replay",
        "license",
    }
    assert names == free


def test_importing_a_script_leaves_the_search_path_alone():
    code = f"import sys; sys.path[:0] = ['first', {str(ROOT)!r}]; import training.train_ddpm; print(sys.path[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "first\n", done.stderr


@pytest.mark.parametrize("given", ["runs/mine", "runs/mine/model", "ddpm-mnist", "user/name"])
def test_a_model_in_a_local_folder_is_published_by_its_name(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine" / "model").mkdir(parents=True)
    name = "mine" if given.startswith("runs") else given
    assert f"--vae {name}" in DDPMTraining(vae=given).command()
    assert f"--from {name}" in DDPMTraining(from_model=given).command()
    assert Distillation(teacher=given).command() == f"python training/distil.py {name}"
