"""The way to the Hub: who may push, what arrives, and what is left when a push is interrupted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import Fault, File, Hub, Repo, Token, connect, running
from PIL import Image
from test_hub import METRICS, edit, make_examples, make_film, make_model, write_model

import genlab
from genlab import hub, publish
from genlab.ddpm import DDPM
from genlab.package import ModelError, without_pictures, write_package
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
ORGS = {"lab": {"me": "write"}, "school": {"me": "read"}, "guild": {"me": "no_access"}, "club": {"you": "admin"}}


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
    assert publish.authorise("ddpm", "my cats", repo_id) == expected
    assert writes(server) == []


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        (None, None, "not logged in to the Hub: run `hf auth login`"),
        ("hf_wrong", None, "does not accept your token: run `hf auth login`"),
        ("hf_readonly", None, "token cannot push to me/genlab-ddpm-cats, it may only read"),
        ("hf_fine_read", None, "token cannot push to me/genlab-ddpm-cats, it may only read"),
        ("hf_fine_one", "me/two", "token cannot push to me/two, it may only read"),
        ("hf_mine", "you/model", r"you is neither you nor an organisation of yours \(me, lab, school, guild\)"),
        ("hf_mine", "club/model", "club is neither you nor"),
        ("hf_mine", "school/model", "your role in school is read; ask for the right to write"),
        ("hf_mine", "guild/model", "your role in guild is no_access"),
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
        publish.authorise("ddpm", "cats", repo_id)
    assert token is None or token not in str(raised.value)
    assert writes(server) == []


def test_no_hub_no_push(server, monkeypatch, folder):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for ask in (lambda: publish.authorise("ddpm", "cats"), lambda: publish.push(folder, "me/model")):
        with pytest.raises(ModelError, match=r"^the Hub at http://127\.0\.0\.1:9 cannot be reached: check the connection$"):
            ask()


# What is there already


def test_what_the_repository_does_not_allow_is_known_before_training(server, folder):
    publish.push(folder, "me/model")
    with pytest.raises(ModelError, match="me/model exists and is public"):
        publish.authorise("ddpm", "cats", "me/model", private=True)
    server.repos["me/bert"] = bert = Repo("me/bert")
    bert.commit({"config.json": File(b'{"model_type": "bert"}'), "model.safetensors": File(b"theirs", lfs=True)}, "bert")
    refusal = r"me/bert holds files of another format \(config.json, model.safetensors\): push to another repository"
    for ask in (lambda: publish.authorise("ddpm", "cats", "me/bert"), lambda: publish.push(folder, "me/bert")):
        with pytest.raises(ModelError, match=refusal):
            ask()
    assert publish.authorise("ddpm", "cats", "me/bert", overwrite=True) == "me/bert"
    publish.push(folder, "me/bert", overwrite=True)
    assert hub.read("me/bert").model.kind == "ddpm"


def test_a_push_keeps_what_the_owner_wrote_in_the_card(server, folder):
    publish.push(folder, "me/model")
    repo = server.repos["me/model"]
    files = repo.commits[repo.branches["main"]]
    card = files["README.md"].content.decode()
    edited = card.replace("license: apache-2.0", "license: mit\nlanguage: zh").replace("- genlab\n", "- genlab\n- cats\n")
    edited = edited.replace("## Architecture", "## Architektur") + "\n## My cats\n\nThey sleep.\n"
    repo.commit({**files, "README.md": File(edited.encode())}, "by hand")
    publish.push(write_model(folder.parent / "second", seed=1), "me/model")
    pushed = repo.commits[repo.branches["main"]]["README.md"].content.decode()
    data = yaml.safe_load(pushed.split("---\n")[1])
    assert (data["license"], data["language"], data["tags"]) == ("mit", "zh", ["genlab", "ddpm", "diffusion", "cats"])
    assert pushed.endswith("\n## My cats\n\nThey sleep.\n")
    assert "## Architecture" in pushed
    assert "Architektur" not in pushed
    publish.push(write_model(folder.parent / "third", seed=2), "me/model", license="cc0-1.0")
    pushed = repo.commits[repo.branches["main"]]["README.md"].content.decode()
    assert yaml.safe_load(pushed.split("---\n")[1])["license"] == "cc0-1.0"
    with pytest.raises(ModelError, match="--license: expected the Hub's name of a licence"):
        publish.push(folder, "me/model", license="All rights\nreserved")


@pytest.mark.parametrize(
    "theirs", ["# Cats\n\nMine.\n", "---\nlicense: mit\n---\n\n# Cats\n\nMine.\n", "---\n[broken\n---\nMine.\n"]
)
def test_a_card_that_genlab_did_not_write_stays_below_its_own(server, folder, theirs):
    server.repos["me/model"] = repo = Repo("me/model")
    repo.commit({"README.md": File(theirs.encode())}, "a card")
    for _ in range(2):
        publish.push(folder, "me/model")
        card = repo.commits[repo.branches["main"]]["README.md"].content.decode()
        assert card.count("## Use") == 1
        assert card.endswith("Mine.\n")
    assert len(repo.titles) == 2


def test_a_dry_run_shows_what_would_be_sent(server, folder, monkeypatch, capsys):
    from training import publish as command

    def shown() -> str:
        monkeypatch.setattr(sys, "argv", ["publish.py", str(folder), "--dry-run"])
        assert command.main() == 0
        return capsys.readouterr().out

    monkeypatch.setattr(sys, "path", list(sys.path))
    assert "me/genlab-ddpm-blobs (is created, public)\n  config.json: new, " in shown()
    assert server.repos == {}
    publish.push(folder, "me/genlab-ddpm-blobs")
    edit(folder, "metrics.json", seed=8)
    assert "  metrics.json: changed, " in shown()
    (folder / "metrics.json").unlink()
    text = shown()
    assert "me/genlab-ddpm-blobs (exists, public)\n  config.json: unchanged, " in text
    assert "  metrics.json: removed\n" in text
    assert len(server.repos["me/genlab-ddpm-blobs"].titles) == 2


@pytest.mark.long  # installs from an index what builds genlab
def test_the_card_is_all_that_a_stranger_needs(server, folder, tmp_path, monkeypatch):
    """What stands in its two blocks, as it stands there, in an empty folder: install, load, draw, save."""
    monkeypatch.setenv("GENLAB_SOURCE", f"file://{ROOT}")
    publish.push(folder, "me/model")
    repo = server.repos["me/model"]
    card = repo.commits[repo.branches["main"]]["README.md"].content.decode()
    install, use = (re.search(rf"```{kind}\n(.*?)```", card, re.DOTALL)[1] for kind in ("bash", "python"))
    (tmp_path / "empty").mkdir()
    venv.create(tmp_path / "venv", with_pip=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "here.pth").write_text(sysconfig.get_path("purelib"))  # what genlab needs is installed here
    here = {
        **os.environ, **server.environment(tmp_path / "stranger"), "PIP_NO_DEPS": "1",
        "PATH": f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}",
    }  # fmt: skip
    subprocess.run(["bash", "-euc", install], check=True, cwd=tmp_path / "empty", env=here)
    subprocess.run(["python", "-c", use], check=True, cwd=tmp_path / "empty", env=here)
    with Image.open(tmp_path / "empty" / "samples.png") as sheet:
        assert sheet.size == (4 * 10 + 2, 4 * 10 + 2)
    assert (site / "genlab").is_dir()


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://you:secret@example.org/you/genlab.git", "https://example.org/you/genlab.git"),
        ("git@example.org:you/genlab.git", "https://example.org/you/genlab.git"),
        ("/home/jane/genlab", None),
        (None, None),
    ],
)
def test_a_card_names_the_place_of_genlab_if_others_can_reach_it(tmp_path, monkeypatch, origin, expected):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    if origin:
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", origin], check=True)
    monkeypatch.setattr(publish, "__file__", str(tmp_path / "publish.py"))
    monkeypatch.delenv("GENLAB_SOURCE", raising=False)
    assert publish.source_address() == expected


# What arrives


@pytest.mark.parametrize(("kind", "cls"), [("ddpm", DDPM), ("vae", VAE)])
def test_a_push_is_one_commit_with_a_tag_and_comes_back_bit_for_bit(server, tmp_path, kind, cls):
    folder = write_model(tmp_path / kind, kind)
    url = publish.push(folder, "me/model")
    repo = server.repos["me/model"]
    commit = repo.branches["main"]
    assert repo.titles == ["initial commit", f"Push {kind} with genlab {genlab.__version__}"]
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


def test_a_film_of_the_training_travels_with_a_push_also_without_the_pictures_of_the_data(server, folder):
    film = make_film()
    write_package(folder, make_model(), METRICS, make_examples(), film=film)
    with without_pictures(folder) as public:
        publish.push(public, "me/model")
    package = hub.read("me/model")
    assert len(package.examples) == 0
    assert package.film.replay == film.replay
    assert torch.equal(package.film.pictures, film.pictures)


def test_the_same_push_again_adds_nothing(server, folder):
    (folder / "README.md").unlink()
    first = publish.push(folder, "me/model")
    server.requests.clear()
    assert publish.push(folder, "me/model") == first
    assert writes(server) == ["POST /api/repos/create"]
    assert list(server.repos["me/model"].tags) == ["v1"]


def test_another_push_moves_main_and_leaves_the_tag(server, folder):
    Image.new("L", (4, 4)).save(folder / "loss.png")
    publish.push(folder, "me/model")
    repo = server.repos["me/model"]
    repo.commit({**repo.commits[repo.branches["main"]], "notes.txt": File(b"mine")}, "by hand")
    (folder / "loss.png").unlink()
    write_package(folder, make_model(seed=1), METRICS, make_examples())
    publish.push(folder, "me/model")
    assert list(repo.tags) == ["v1", "v2"]
    assert repo.tags["v2"] == repo.branches["main"] != repo.tags["v1"]
    files = repo.commits[repo.branches["main"]]
    assert "notes.txt" in files
    assert "loss.png" not in files
    for revision, seed in (("v1", 0), ("v2", 1), ("main", 1)):
        bias = genlab.load("me/model", revision).unet.enter.bias
        assert torch.equal(bias, make_model(seed=seed).unet.enter.bias), revision


def test_a_tag_name_that_is_taken_is_left_alone(server, folder):
    publish.push(folder, "me/model")
    repo = server.repos["me/model"]
    repo.tags = {"v2": repo.tags["v1"], "best": repo.tags["v1"]}
    publish.push(write_model(folder.parent / "second", seed=1), "me/model")
    assert repo.tags["v1"] == repo.branches["main"]


def test_private_stays_private(server, folder, monkeypatch):
    publish.push(folder, "me/secret", private=True)
    assert server.repos["me/secret"].private
    publish.push(folder, "me/open")
    with pytest.raises(ModelError, match="me/open exists and is public"):
        publish.push(folder, "me/open", private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_yours")
    with pytest.raises(ModelError, match="no model me/secret on the Hub, or it is private"):
        hub.read("me/secret")


# What does not arrive


def test_an_unsound_model_is_not_sent(server, folder):
    edit(folder, model__T=1)
    with pytest.raises(ModelError, match="T: expected a whole number"):
        publish.push(folder, "me/model")
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
        publish.push(folder, repo_id)
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
        publish.push(folder, "me/model")
    if "me/model" in server.repos:
        repo = server.repos["me/model"]
        assert len(repo.commits[repo.branches["main"]]) in (1, 7)
    server.faults.clear()
    publish.push(folder, "me/model")
    repo = server.repos["me/model"]
    assert len(repo.titles) == 2
    assert repo.tags == {"v1": repo.branches["main"]}
    hub.read("me/model@v1")


def test_a_branch_that_moves_meanwhile_is_not_overwritten(server, folder):
    publish.push(folder, "me/model")
    repo = server.repos["me/model"]
    server.faults.append(Fault("/commit/", lambda: repo.commit({"theirs.txt": File(b"theirs")}, "theirs"), times=1))
    with pytest.raises(ModelError, match="changed by somebody else at the same moment: push again"):
        publish.push(write_model(folder.parent / "second", seed=1), "me/model")
    assert repo.commits[repo.branches["main"]].keys() == {"theirs.txt"}


def test_content_that_arrives_changed_is_noticed(server, folder):
    class Lossy(dict):
        def __getitem__(self, key):
            return super().__getitem__(key)[:-1] + b"\0"

    server.lfs = Lossy()
    with pytest.raises(ModelError, match="holds other content than was sent"):
        publish.push(folder, "me/model")
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
