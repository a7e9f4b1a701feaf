"""The way to the Hub: who may push, what arrives, and what is left when a push is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import Fault, File, Hub, Token, connect, running
from PIL import Image
from test_hub import METRICS, edit, make_examples, make_model, write_model

import genlab
from genlab import hub
from genlab.ddpm import DDPM
from genlab.package import ModelError, write_package
from genlab.vae import VAE

ROOT = Path(__file__).parents[1]


def scope(kind: str, name: str, *permissions: str) -> dict[str, object]:
    return {"entity": {"_id": "0", "type": kind, "name": name}, "permissions": list(permissions)}


TOKENS = {
    "hf_mine": Token("me"),
    "hf_yours": Token("you"),
    "hf_readonly": Token("me", "read"),
    "hf_fine": Token("me", "fineGrained", (scope("user", "me", "repo.content.read", "repo.write"),)),
    "hf_fine_one": Token("me", "fineGrained", (scope("model", "me/one", "repo.write"),)),
    "hf_fine_read": Token("me", "fineGrained", (scope("user", "me", "repo.content.read"),)),
}
ORGS = {"lab": {"me": "write"}, "school": {"me": "read"}, "club": {"you": "admin"}}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with running(Hub(TOKENS, ORGS)) as server:
        connect(monkeypatch, server, tmp_path / "home", "hf_mine")
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def writes(server: Hub) -> list[str]:
    return [f"{r.method} {r.path}" for r in server.requests if r.method != "GET" and r.method != "HEAD"]


# Who may push


@pytest.mark.parametrize(
    ("token", "repo_id", "expected"),
    [
        ("hf_mine", None, "me/genlab-ddpm-my-cats"),
        ("hf_mine", "me/other", "me/other"),
        ("hf_mine", "lab/model", "lab/model"),
        ("hf_fine", None, "me/genlab-ddpm-my-cats"),
        ("hf_fine_one", "me/one", "me/one"),
    ],
)
def test_those_who_may_push_learn_where_to(server, monkeypatch, token, repo_id, expected):
    monkeypatch.setenv("HF_TOKEN", token)
    assert hub.authorise("ddpm", "my cats", repo_id) == expected
    assert writes(server) == []


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        (None, None, "not logged in to the Hub: run `hf auth login`"),
        ("hf_wrong", None, "does not accept your token: run `hf auth login`"),
        ("hf_readonly", None, "token cannot push to me/genlab-ddpm-cats, it may only read"),
        ("hf_fine_read", None, "token cannot push to me/genlab-ddpm-cats, it may only read"),
        ("hf_fine_one", "me/two", "token cannot push to me/two, it may only read"),
        ("hf_mine", "you/model", r"you is neither you nor an organisation of yours \(me, lab, school\)"),
        ("hf_mine", "club/model", "club is neither you nor"),
        ("hf_mine", "school/model", "you may only read in school"),
        (
            "hf_mine",
            "model",
            "--repo-id: expected you/name .* got 'model'",
        ),
        ("hf_mine", "me/a--b", "--repo-id: expected you/name"),
        ("hf_mine", "me/model@v1", "--repo-id: expected you/name"),
        ("hf_mine", "../model", "--repo-id: expected you/name"),
    ],
)
def test_those_who_may_not_are_told_what_to_do(server, monkeypatch, token, repo_id, message):
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ModelError, match=message) as raised:
        hub.authorise("ddpm", "cats", repo_id)
    assert token is None or token not in str(raised.value)
    assert writes(server) == []


def test_no_hub_no_push(server, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"the Hub at http://127\.0\.0\.1:9 cannot be reached"):
        hub.authorise("ddpm", "cats")


# What arrives


@pytest.mark.parametrize(("kind", "cls"), [("ddpm", DDPM), ("vae", VAE)])
def test_a_push_is_one_commit_with_a_tag_and_comes_back_bit_for_bit(server, tmp_path, kind, cls):
    folder = write_model(tmp_path / kind, kind)
    url = hub.push(folder, "me/model")
    repo = server.repos["me/model"]
    commit = repo.branches["main"]
    assert repo.titles == ["initial commit", f"Push {kind} with genlab {hub.__version__}"]
    assert repo.tags == {"v1": commit}
    assert url == f"{server.url}/me/model/commit/{commit}"
    files = repo.commits[commit]
    assert files.keys() == {".gitattributes", *(p.name for p in folder.iterdir())}
    assert [name for name, file in files.items() if file.lfs] == ["model.safetensors"]
    assert [r.status for r in server.requests if r.method == "PUT"] == [200]
    assert [r.status for r in server.requests if r.path.endswith("/lfs/verify")] == [200]
    card = files["README.md"].content.decode()
    assert 'genlab.load("me/model")' in card
    assert "YOU/NAME" not in card
    for revision in (None, "v1", commit):
        model = genlab.load("me/model", revision)
        for name, tensor in make_model(kind).state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name


def test_the_same_push_again_adds_nothing(server, folder):
    (folder / "README.md").unlink()
    first = hub.push(folder, "me/model")
    server.requests.clear()
    assert hub.push(folder, "me/model") == first
    assert writes(server) == ["POST /api/repos/create"]
    assert list(server.repos["me/model"].tags) == ["v1"]


def test_another_push_moves_main_and_leaves_the_tag(server, folder):
    Image.new("L", (4, 4)).save(folder / "loss.png")
    hub.push(folder, "me/model")
    repo = server.repos["me/model"]
    repo.commit({**repo.commits[repo.branches["main"]], "notes.txt": File(b"mine")}, "by hand")
    (folder / "loss.png").unlink()
    write_package(folder, make_model(seed=1), METRICS, make_examples())
    hub.push(folder, "me/model")
    assert list(repo.tags) == ["v1", "v2"]
    assert repo.tags["v2"] == repo.branches["main"] != repo.tags["v1"]
    files = repo.commits[repo.branches["main"]]
    assert "notes.txt" in files
    assert "loss.png" not in files
    for revision, seed in (("v1", 0), ("v2", 1), ("main", 1)):
        bias = genlab.load("me/model", revision).unet.enter.bias
        assert torch.equal(bias, make_model(seed=seed).unet.enter.bias), revision


def test_a_tag_name_that_is_taken_is_left_alone(server, folder):
    hub.push(folder, "me/model")
    repo = server.repos["me/model"]
    repo.tags = {"v2": repo.tags["v1"], "best": repo.tags["v1"]}
    hub.push(write_model(folder.parent / "second", seed=1), "me/model")
    assert repo.tags["v1"] == repo.branches["main"]


def test_private_stays_private(server, folder, monkeypatch):
    hub.push(folder, "me/secret", private=True)
    assert server.repos["me/secret"].private
    hub.push(folder, "me/open")
    with pytest.raises(ModelError, match="me/open exists and is public"):
        hub.push(folder, "me/open", private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_yours")
    with pytest.raises(ModelError, match="no model me/secret on the Hub, or it is private"):
        hub.read("me/secret")


# What does not arrive


def test_an_unsound_model_is_not_sent(server, folder):
    edit(folder, model__T=1)
    with pytest.raises(ModelError, match="T: expected a whole number"):
        hub.push(folder, "me/model")
    assert server.requests == []


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        ("hf_readonly", "me/model", "does not allow this for me/model"),
        ("hf_mine", "you/model", "does not allow this for you/model"),
        ("hf_wrong", "me/model", "does not accept your token"),
    ],
)
def test_a_push_that_is_not_allowed_says_so(server, folder, monkeypatch, token, repo_id, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelError, match=message) as raised:
        hub.push(folder, repo_id)
    assert token not in str(raised.value)
    assert server.repos == {}


@pytest.mark.parametrize(
    "where",
    ["/repos/create", "GET /api/models/me/model$", "/preupload/", "/objects/batch", "PUT /storage", "/lfs/verify", "/commit/",
     "/revision/", "/refs", "/tag/"],
)  # fmt: skip
def test_an_interrupted_push_leaves_main_whole_and_the_next_one_completes_it(server, folder, where):
    server.faults.append(Fault(where, 500))
    with pytest.raises(ModelError, match="answered with error 500"):
        hub.push(folder, "me/model")
    if "me/model" in server.repos:
        repo = server.repos["me/model"]
        assert len(repo.commits[repo.branches["main"]]) in (1, 7)
    server.faults.clear()
    hub.push(folder, "me/model")
    repo = server.repos["me/model"]
    assert len(repo.titles) == 2
    assert repo.tags == {"v1": repo.branches["main"]}
    hub.read("me/model@v1")


def test_a_branch_that_moves_meanwhile_is_not_overwritten(server, folder, monkeypatch):
    same = hub._same

    def meanwhile(info, content):
        server.repos["me/model"].commit({"theirs.txt": File(b"theirs")}, "theirs")
        return same(info, content)

    monkeypatch.setattr(hub, "_same", meanwhile)
    with pytest.raises(ModelError, match="changed by somebody else at the same moment: push again"):
        hub.push(folder, "me/model")
    repo = server.repos["me/model"]
    assert repo.commits[repo.branches["main"]].keys() == {"theirs.txt"}


def test_content_that_arrives_changed_is_noticed(server, folder):
    class Lossy(dict):
        def __getitem__(self, key):
            return super().__getitem__(key)[:-1] + b"\0"

    server.lfs = Lossy()
    with pytest.raises(ModelError, match="holds other content than was sent"):
        hub.push(folder, "me/model")
    assert server.repos["me/model"].tags == {}


# The commands


def run(server: Hub, home: Path, token: str, *command: object) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**clean, **server.environment(home, token), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_train_and_push_and_push_again(server, tmp_path):
    generator = torch.Generator().manual_seed(0)
    pictures = tmp_path / "spots"
    pictures.mkdir()
    for i, values in enumerate(torch.randint(0, 256, (40, 8, 8), dtype=torch.uint8, generator=generator)):
        Image.fromarray(values.numpy()).save(pictures / f"{i}.png")
    train = [
        "training/train_ddpm.py", "--push", "--dataset", pictures, "--size", 8, "--run", tmp_path / "run", "--width", 8,
        "--T", 30, "--steps", 4, "--batch-size", 4, "--precision", "fp32",
    ]  # fmt: skip

    refused = run(server, tmp_path / "home", "hf_readonly", *train)
    assert refused.returncode == 1
    assert "token cannot push to me/genlab-ddpm-spots" in refused.stderr
    assert not (tmp_path / "run").exists()

    server.requests.clear()
    server.faults.append(Fault("/commit/", 500, times=1))
    trained = run(server, tmp_path / "home", "hf_mine", *train)
    assert trained.returncode == 3, trained.stderr
    assert "trained, but not pushed: the Hub at" in trained.stderr
    assert f"python training/publish.py {tmp_path / 'run'}" in trained.stderr
    assert next(r.path for r in server.requests if r.token) == "/api/whoami-v2"

    pushed = run(server, tmp_path / "home", "hf_mine", "training/publish.py", tmp_path / "run")
    assert pushed.returncode == 0, pushed.stderr
    repo = server.repos["me/genlab-ddpm-spots"]
    assert f"pushed: {server.url}/me/genlab-ddpm-spots/commit/{repo.branches['main']}" in pushed.stdout
    assert repo.tags == {"v1": repo.branches["main"]}
    files = repo.commits[repo.branches["main"]]
    assert {"samples.png", "loss.png"} <= files.keys()
    assert b"](samples.png)" in files["README.md"].content
    for content in (file.content for name, file in files.items() if not name.endswith((".png", ".safetensors"))):
        assert str(tmp_path).encode() not in content
    pulled = hub.read("me/genlab-ddpm-spots@v1")
    for name, tensor in genlab.load(tmp_path / "run" / "model").state_dict().items():
        assert torch.equal(pulled.model.state_dict()[name], tensor), name
    for output in (refused, trained, pushed):
        assert not [token for token in TOKENS if token in output.stdout + output.stderr]


def test_publish_says_how_it_ended(server, folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", list(sys.path))
    from training import publish

    def publish_with(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["publish.py", *map(str, arguments)])
        return publish.main()

    assert publish_with(folder.parent / "nothing") == 1
    assert "expected a run folder with a finished model" in capsys.readouterr().err
    assert publish_with(folder, "--repo-id", "you/model") == 1
    server.faults.append(Fault("/commit/", 500, times=1))
    assert publish_with(folder, "--private") == 3
    assert "error: not pushed: the Hub at" in capsys.readouterr().err
    assert publish_with(folder, "--private") == 0
    assert server.repos["me/genlab-ddpm-blobs"].private
    assert publish_with(folder.parent) == 0


def test_server_is_a_command(tmp_path):
    command = [sys.executable, str(ROOT / "tests" / "hub_server.py"), "--user", "ada", "--token", "hf_ada"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = dict(process.stdout.readline().removeprefix("export ").strip().split("=", 1) for _ in range(4))
        code = "from huggingface_hub import whoami; print(whoami()['name'])"
        asked = subprocess.run([sys.executable, "-c", code], env={**os.environ, **told}, capture_output=True, text=True)
        process.terminate()
    assert asked.stdout.strip() == "ada", asked.stderr
