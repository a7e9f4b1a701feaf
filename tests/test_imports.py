"""Who may import whom, and names that must not appear (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(p for p in (*ROOT.glob("genlab/**/*.py"), *ROOT.glob("training/**/*.py"), ROOT / "app.py") if p.is_file())
GENLAB = [p for p in CODE if p.is_relative_to(ROOT / "genlab")]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, also within functions and for type checkers alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: expected absolute imports"
            module = node.module or ""
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def within_genlab(path: Path) -> set[str]:
    """The modules of genlab that a file imports, by their stems; a folder by its name."""
    stems = {p.stem for p in (ROOT / "genlab").glob("*.py")} | {"demo", "serving"}
    return {name.split(".")[1] for name in imports(path) if name.startswith("genlab.")} & stems


def test_there_is_code_to_look_at() -> None:
    assert {"schedule.py", "process.py", "vlb.py", "vae.py", "train_ddpm.py"} <= {p.name for p in CODE}


@pytest.mark.parametrize(
    ("stem", "may_import"),
    [
        ("config", set()),
        ("divergence", set()),
        ("schedule", {"config"}),
        ("process", {"config", "divergence", "schedule"}),
        ("likelihood", {"divergence"}),
        ("vlb", {"divergence", "likelihood", "process", "schedule"}),
        ("nn", set()),
        ("unet", {"config", "nn"}),
        ("vae", {"config", "divergence", "likelihood", "nn"}),
        ("ddpm", {"config", "divergence", "likelihood", "process", "schedule", "unet", "vlb"}),
        ("latent", {"config", "ddpm", "divergence", "process", "schedule", "vae", "vlb"}),
        ("mixture", {"config", "divergence", "vae"}),
        ("consistency", {"config", "ddpm", "divergence", "process", "sampler", "schedule"}),
        ("models", {"config", "consistency", "ddpm", "latent", "mixture", "vae"}),
        ("sampler", {"config", "process", "schedule"}),
        ("draw", {"config", "consistency", "data", "ddpm", "latent", "mixture", "models", "nn", "process", "sampler", "vae"}),
        ("score", {"divergence", "likelihood", "process", "sampler", "schedule", "vlb"}),
        ("flow", {"divergence", "process", "schedule", "score"}),
        ("condition", {"process", "sampler", "schedule"}),
        ("plane", {"config", "divergence", "flow", "nn", "oracle", "process", "sampler", "schedule", "score", "vae"}),
        ("oracle", {"divergence", "process", "schedule"}),
        ("emoji", set()),
        ("listing", {"config"}),
        ("folders", {"cache", "config", "listing"}),
        ("tables", {"config", "listing"}),
        ("cache", {"config", "listing"}),
        ("durable", set()),
        ("data", {"cache", "config", "emoji", "folders", "listing", "tables"}),
        ("measurements", {"config"}),
        ("card", {"config", "measurements"}),
        ("package", {"card", "config", "data", "durable", "measurements", "models", "unet"}),
        ("hub", {"card", "config", "package"}),
        ("features", {"config", "data", "durable", "package"}),
        ("metrics", set()),
    ],
)
def test_imports_go_one_way(stem: str, may_import: set[str]) -> None:
    """schedule ← process ← {vlb, sampler} ← score, divergence ← likelihood ← {vae, vlb}; package ← hub."""
    assert within_genlab(ROOT / "genlab" / f"{stem}.py") <= may_import


def test_there_is_no_circle() -> None:
    """Also not through what is imported within a function or for type checkers alone."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in CODE}
    graph = {name: (imports(path) & modules.keys()) - {name} for name, path in modules.items()}
    graph["genlab"] = set()  # `genlab.load` and `genlab.sample` import all that they need when they are called
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_nobody_uses_the_private_names_of_another_module(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    ours = [n for n in nodes if isinstance(n, ast.ImportFrom) and (n.module or "").split(".")[0] in ("genlab", "training")]
    names = {alias.asname or alias.name for node in ours for alias in node.names}
    used = {n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in names}
    private = {name for name in names | {node.attr for node in used} if re.match("_[a-z]", name)}
    assert not private


@pytest.mark.parametrize("path", GENLAB, ids=lambda p: str(p.relative_to(ROOT)))
def test_genlab_keeps_its_borders(path: Path) -> None:
    place = path.relative_to(ROOT / "genlab").parts[0]
    used = packages(path)
    assert "training" not in used
    assert "diffusers" not in used
    if place not in {"demo", "serving"}:
        assert not used & {"gradio", "gradio_client"}
        assert not within_genlab(path) & {"demo", "serving"}
    if place == "serving":
        assert within_genlab(path) <= {"serving"}


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_door_to_the_outside_is_in_one_file(path: Path) -> None:
    used, place = packages(path), str(path.relative_to(ROOT))
    assert "huggingface_hub" not in used or place in {
        "genlab/hub.py",
        "genlab/publish.py",
        "genlab/space.py",
        "genlab/tables.py",
    }
    assert "datasets" not in used or place == "genlab/tables.py"
    assert not used & {"gradio"} or place.startswith(("genlab/demo/", "genlab/serving/")) or place == "app.py"


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_have_names_that_say_what_is_in_them(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "common", "base", "misc"}


def forbidden(source: str) -> list[str]:
    """What in a source could run code from a file, or open a door of the demo."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            found += [name for name in (module, *(a.name for a in node.names)) if name.split(".")[0] in BANNED_MODULES]
            found += [f"{module}.{a.name}" for a in node.names if f"{module}.{a.name}" in BANNED_CALLS]
        elif isinstance(node, ast.Attribute):
            found += [name for name in (ast.unparse(node), node.attr) if name in BANNED_CALLS]
        elif isinstance(node, ast.Name):
            found += [node.id] if node.id in BANNED_CALLS else []
        elif isinstance(node, ast.keyword):
            found += [node.arg] if node.arg in BANNED_CALLS else []
            setting = f"{node.arg}={ast.unparse(node.value)}"
            found += [setting] if setting in BANNED_SETTINGS else []
    return found


BANNED_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
BANNED_CALLS = {
    "torch.load",
    "torch.save",
    "register_for_checkpointing",
    "trust_remote_code",
    "gr.load",
    "gradio.load",
    "allowed_paths",
    "set_static_paths",
}
BANNED_SETTINGS = {"weights_only=False", "allow_pickle=True", "share=True", "type='filepath'", "shell=True"}


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_forbidden_is_used(path: Path) -> None:
    assert forbidden(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch\ntorch.load('x')", "torch.load"),
        ("from torch import load", "torch.load"),
        ("import pickle", "pickle"),
        ("from joblib import load", "joblib"),
        ("f(weights_only=False)", "weights_only=False"),
        ("f(trust_remote_code=True)", "trust_remote_code"),
        ("accelerator.register_for_checkpointing(x)", "register_for_checkpointing"),
        ("import gradio as gr\ngr.load('x')", "gr.load"),
        ("demo.launch(allowed_paths=['/'])", "allowed_paths"),
        ("demo.launch(share=True)", "share=True"),
        ('gr.Image(type="filepath")', "type='filepath'"),
    ],
)
def test_what_is_forbidden_is_found(source: str, name: str) -> None:
    assert name in forbidden(source)


def loaded(code: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after running the code."""
    ending = "\nimport sys\nprint('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", code + ending]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_configurations_load_without_torch() -> None:
    used = loaded("import genlab, training.config, training.evaluate")
    assert not used & {"torch", "numpy", "accelerate", "gradio"}


@pytest.mark.parametrize("script", ["train_ddpm", "train_vae", "train_classifier"])
def test_help_loads_no_torch(script: str) -> None:
    code = f"""
import runpy, sys
sys.argv = ["training/{script}.py", "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
"""
    assert not loaded(code) & {"torch", "numpy", "accelerate", "gradio", "huggingface_hub"}


def test_models_load_without_the_demo_or_the_hub() -> None:
    used = loaded("import genlab.ddpm, genlab.vae, genlab.sampler, genlab.oracle")
    assert not used & {"gradio", "huggingface_hub", "datasets", "accelerate"}


def test_any_page_is_served_without_models() -> None:
    used = loaded("import genlab.serving.server")
    assert "gradio" in used
    assert not used & {"torch", "diffusers", "datasets"}
