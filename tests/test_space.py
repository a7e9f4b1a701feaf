"""From models on the Hub to a Space that serves them, and the Space itself as the Hub would start it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from hub_server import File, Hub, Repo, Token, connect, running
from PIL import Image
from test_hub import publish, write_model

from genlab import hub, space
from genlab.package import ModelError
from tests.small_page import wait_until
from tests.tiny import called

ROOT = Path(__file__).parents[1]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running(Hub({"hf_mine": Token("me"), "hf_pro": Token("pro")})) as server:
        server.pro.add("pro")
        connect(monkeypatch, server, tmp_path / "home", "hf_mine")
        publish(server, "me/model", write_model(tmp_path / "model"))
        yield server


def deploy(*models: str, name: str = "me/genlab", **options: object) -> list[str]:
    """Deploy, and return what is said on the way."""
    said: list[str] = []
    said.append(space.deploy(ROOT, name, models or ("me/model",), report=said.append, poll_seconds=0.01, **options))
    return said


def test_one_commit_of_an_allow_list_with_variables_and_hardware(server):
    said = deploy()
    repo = server.repos["spaces/me/genlab"]
    assert repo.titles == ["initial commit", f"Deploy genlab {hub.__version__}"]
    assert (repo.hardware, repo.variables) == ("zero-a10g", {"GENLAB_MODELS": "me/model"})
    assert said[0] == "hardware: zero-a10g, a free account may have it; --hardware chooses another"
    assert said[-1] == f"{server.url}/spaces/me/genlab"
    files = repo.commits[repo.branches["main"]]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    new = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert files.keys() - {".gitattributes"} <= {*tracked, *new}
    assert not [name for name in files if name.startswith(("tests/", "training/", "runs/", "benchmarks/"))]
    card = files["README.md"].content.decode()
    data = yaml.safe_load(card.split("---\n")[1])
    assert (data["sdk"], data["app_file"], data["models"]) == ("gradio", "app.py", ["me/model"])
    assert (ROOT / "Space.md").read_text().partition("\n# genlab")[2] in card
    assert files["requirements.txt"].content == (ROOT / "requirements.txt").read_bytes()  # ZeroGPU has a torch of its own


def test_again_it_updates_and_keeps_what_its_owner_changed(server, tmp_path):
    deploy()
    repo = server.repos["spaces/me/genlab"]
    assert "0 files sent, 0 removed" in deploy()[1]
    assert len(repo.titles) == 2
    files = dict(repo.commits[repo.branches["main"]])
    files["README.md"] = File(files["README.md"].content.replace(b"title: genlab", b"title: My cats"))
    files["genlab/gone.py"], files["mine.txt"] = File(b""), File(b"")
    repo.commit(files, "by hand")
    publish(server, "me/other", tmp_path / "model")
    deploy("me/model", "me/other")
    files = repo.commits[repo.branches["main"]]
    assert b"title: My cats" in files["README.md"].content
    assert ("genlab/gone.py" in files, "mine.txt" in files) == (False, True)
    assert repo.variables == {"GENLAB_MODELS": "me/model,me/other"}


def test_hardware_is_what_the_account_may_have(server, monkeypatch):
    with pytest.raises(ModelError, match=r"the Hub asks for a paid plan .*--hardware zero-a10g"):
        deploy(hardware="cpu-basic")
    assert server.repos.keys() == {"me/model"}
    monkeypatch.setenv("HF_TOKEN", "hf_pro")
    deploy(name="pro/genlab")
    repo = server.repos["spaces/pro/genlab"]
    assert repo.hardware == "cpu-basic"
    requirements = repo.commits[repo.branches["main"]]["requirements.txt"].content.decode()
    assert requirements == space.CPU_WHEELS + (ROOT / "requirements.txt").read_text()
    deploy(name="pro/genlab", hardware="t4-small")
    assert repo.hardware == "t4-small"


def test_what_stands_in_the_way_is_said_before_anything_is_sent(server):
    with pytest.raises(ModelError, match="no folder and no model me/missing on the Hub"):
        deploy("me/missing")
    with pytest.raises(ModelError, match="neither you nor an organisation of yours"):
        deploy(name="you/genlab")
    with pytest.raises(ModelError, match=r"hardware: expected one of cpu-basic, .*got 'toaster'"):
        deploy(hardware="toaster")
    assert server.repos.keys() == {"me/model"}
    server.repos["spaces/me/cats"] = cats = Repo("spaces/me/cats", hardware="zero-a10g")
    cats.commit({"app.py": File(b"print()")}, "cats")
    with pytest.raises(ModelError, match="me/cats is a Space of another app"):
        deploy(name="me/cats")
    with pytest.raises(ModelError, match="me/cats exists and is public"):
        deploy(name="me/cats", private=True)


def test_a_space_that_does_not_run_is_reported_with_its_log(server):
    server.repos["spaces/me/genlab"] = repo = Repo("spaces/me/genlab", hardware="zero-a10g", stages=["BUILDING", "BUILD_ERROR"])
    repo.commit({}, "initial commit")
    with pytest.raises(ModelError, match=r"does not run \(BUILD_ERROR\): its log is at .*/spaces/me/genlab\?logs=container"):
        deploy()


def test_a_private_model_needs_a_secret(server, tmp_path):
    publish(server, "me/secret", tmp_path / "model", private=True)
    assert "me/secret is private: add the secret HF_TOKEN" in deploy("me/secret")[0]


def test_the_command_says_how_it_ended(server, monkeypatch, capsys):
    from training import publish as command

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["publish.py", *arguments])
        status = command.main()
        told = capsys.readouterr()
        return status, told.out + told.err

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("huggingface_hub.hf_api.time.sleep", lambda seconds: None)
    status, text = run("--space", "me/genlab", "--models", "me/model", "--dry-run")
    assert (status, server.repos.keys()) == (0, {"me/model"})
    assert "  genlab/pretrained/ddpm-mnist/model.safetensors: " in text
    status, text = run("--space", "me/genlab", "--models", "me/model")
    assert status == 0, text
    assert f"runs: {server.url}/spaces/me/genlab\n" in text
    assert run("--space", "me/genlab", "--hardware", "cpu-basic")[0] == 3
    for wrong, message in ((["--models", "me/model"], "--models: expected --space"), ([], "expected either RUN_FOLDER")):
        with pytest.raises(SystemExit):
            run(*wrong)
        assert message in capsys.readouterr().err


def test_the_tree_imports_nothing_that_it_lacks():
    """Every module of genlab that the tree imports is in it, and so is every package's own file."""
    files = space.tree(ROOT, ["me/model"], space.CPU)
    wanted = set()
    for name, content in files.items():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(content)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("genlab", "training"):
                    wanted.add(str(node.module))
    paths = {name: (f"{name.replace('.', '/')}.py", f"{name.replace('.', '/')}/__init__.py") for name in wanted}
    assert not [name for name, places in paths.items() if not files.keys() & set(places)]
    assert not any(name.startswith("training") for name in wanted)


@contextmanager
def started(server: Hub, repo: Repo, out: Path) -> Iterator[httpx.Client]:
    """A client of the page of a Space: its tree, checked out, started as the Hub would, without a home, by another user where
    that may be. At the end nothing has failed, and nothing was written.
    """
    checkout = Path(tempfile.mkdtemp())
    checkout.chmod(0o755)
    files = {name: file.content for name, file in repo.commits[repo.branches["main"]].items()}
    for name, content in files.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes(content)
    script = (
        "import runpy, sys; sys.path.insert(0, '.'); sys.argv = ['app.py', '--port', '0']\n"
        "from genlab.demo import requested; requested.FOLLOW_SECONDS = 0.2\n"
        "runpy.run_path('app.py', run_name='__main__')"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "GENLAB_", "XDG_", "GRADIO_"))}
    here = {
        **clean, **repo.variables, "HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HOME": "/proc/nobody",
        "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "SPACE_ID": "me/genlab",
    }  # fmt: skip
    command = [sys.executable, "-c", script]
    with (
        open(out, "w") as log,
        subprocess.Popen(command, cwd=checkout, env=here, stdout=log, stderr=subprocess.STDOUT, **as_user_1000()) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or "genlab: open" in out.read_text(), 300)
            assert process.poll() is None, out.read_text()
            url = out.read_text().partition("genlab: open ")[2].split()[0]
            with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
                wait_until(lambda: client.get("/readyz").status_code == 200, 300)
                yield client
            assert process.poll() is None, out.read_text()
        finally:
            process.terminate()
    assert "Traceback" not in out.read_text(), out.read_text()
    assert {p.relative_to(checkout).as_posix() for p in checkout.rglob("*") if p.is_file()} == files.keys()
    shutil.rmtree(checkout)


def revisions(client: httpx.Client) -> list[str]:
    """The commits of the models that a page serves."""
    return [each["revision"] for each in called(client, "models", {})[1][0]]


def test_the_space_serves_its_models_without_a_place_to_write(server, tmp_path):
    """Main moves, and it follows; the Hub dies, and it serves on."""
    deploy()
    model = server.repos["me/model"]
    with started(server, server.repos["spaces/me/genlab"], tmp_path / "out") as client:
        wait_until(lambda: revisions(client) == [model.branches["main"]], 300)
        second = publish(server, "me/model", write_model(tmp_path / "second", seed=1)).branches["main"]
        wait_until(lambda: revisions(client) == [second], 300)
        server.shutdown()
        assert revisions(client) == [second]
        assert client.get("/readyz").status_code == 200


@pytest.mark.long
def test_from_a_clone_to_a_space_that_outlives_the_hub(server, tmp_path):
    """The commands of the README's way, in a clean clone: train, push, verify, deploy; then main moves, and the Hub dies."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "GENLAB_", "PYTHONPATH"))}
    here = {**clean, **server.environment(tmp_path / "home", "hf_mine"), "OMP_NUM_THREADS": "1", "GENLAB_BF16": "0"}

    def run(*command: object) -> str:
        done = subprocess.run([sys.executable, *map(str, command)], cwd=clone, env=here, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    random = np.random.default_rng(0)
    (tmp_path / "spots").mkdir()
    for i in range(40):
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "spots" / f"{i}.png")

    def train(seed: int) -> str:
        """Train and push; return the commit, whose model is the trained one to every client."""
        folder = tmp_path / f"run-{seed}"
        tiny = ["--size", 8, "--width", 8, "--T", 30, "--steps", 4, "--batch-size", 4, "--seed", seed]
        run("training/train_ddpm.py", "--dataset", tmp_path / "spots", "--run", folder, *tiny, "--push")
        commit = server.repos["me/genlab-ddpm-spots"].branches["main"]
        drawn = "import genlab, sys; print(genlab.sample(genlab.load(sys.argv[1]), 2, steps=3).tolist())"
        assert run("-c", drawn, "me/genlab-ddpm-spots") == run("-c", drawn, folder)
        return commit

    first = train(0)
    told = run("training/publish.py", "--space", "me/genlab", "--models", "me/genlab-ddpm-spots")
    assert f"runs: {server.url}/spaces/me/genlab\n" in told
    with started(server, server.repos["spaces/me/genlab"], tmp_path / "out") as client:
        wait_until(lambda: revisions(client) == [first], 300)
        second = train(1)
        assert second != first
        wait_until(lambda: revisions(client) == [second], 600)
        server.shutdown()
        event, drawn = called(client, "sample", {"count": 1, "steps": 3})
        assert event == "complete"
        assert client.get(drawn[0]["url"]).content.startswith(b"\x89PNG")
        assert (revisions(client), client.get("/readyz").status_code) == ([second], 200)


def as_user_1000() -> dict[str, int]:
    """What makes a process that of a Space's user, where this one may do that and Python is readable for all."""
    try:
        subprocess.run([sys.executable, "-c", ""], user=1000, check=True, cwd="/")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"user": 1000}
