"""Checkpoints under kills, full disks and damage: the newest complete one always loads."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from training import checkpoint
from training.checkpoint import Checkpoint, RunError, load_checkpoint, run_lock, save_checkpoint


class Killed(BaseException):
    """Stands for SIGKILL: no handler for errors sees it."""


def state(step: int) -> Checkpoint:
    return Checkpoint(step, {"weight": torch.full((50, 50), float(step)), "count": torch.tensor(step)}, {"seconds": step / 3})


def assert_whole(found: Checkpoint | None, step: int) -> None:
    assert found is not None
    assert found.step == step
    assert torch.equal(found.tensors["weight"], torch.full((50, 50), float(step)))
    assert found.tensors["count"].item() == step
    assert found.facts == {"seconds": step / 3}


def test_the_newest_two_are_kept_and_the_newest_is_loaded(tmp_path: Path):
    assert load_checkpoint(tmp_path) is None
    for step in (1, 2, 3, 20):
        save_checkpoint(tmp_path, state(step))
        assert_whole(load_checkpoint(tmp_path), step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000020"]


def test_steps_are_ordered_as_numbers(tmp_path: Path):
    save_checkpoint(tmp_path, state(99_999_999))
    save_checkpoint(tmp_path, state(100_000_000))
    assert load_checkpoint(tmp_path).step == 100_000_000


def boundaries(monkeypatch: pytest.MonkeyPatch, at: int, before: bool) -> tuple[list[str], list[str]]:
    """Be killed before or after the `at`-th operation on files from now on; returns those begun and those done."""
    seen: list[str] = []
    done: list[str] = []

    def watch(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def operation(*args: object, **kwargs: object) -> object:
            seen.append(name)
            if before and len(seen) == at:
                raise Killed
            result = real(*args, **kwargs)
            done.append(name)
            if not before and len(seen) == at:
                raise Killed
            return result

        monkeypatch.setattr(owner, name, operation)

    watch(os, "fsync")
    watch(Path, "mkdir")
    watch(Path, "rename")
    watch(shutil, "rmtree")
    real_write = checkpoint.write_file

    def torn_write(path: Path, content: bytes) -> None:
        seen.append("write")
        if len(seen) == at:
            path.write_bytes(content[: len(content) // 2])
            raise Killed
        real_write(path, content)

    monkeypatch.setattr(checkpoint, "write_file", torn_write)
    return seen, done


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_at_any_point_of_a_save_leaves_a_complete_checkpoint(tmp_path: Path, before: bool):
    """The third save of a run, killed around each of its operations on files; then the run goes on and saves again."""
    at, finished = 0, False
    while not finished:
        at += 1
        root = tmp_path / str(at) / "checkpoints"
        for step in (1, 2):
            save_checkpoint(root, state(step))
        with pytest.MonkeyPatch.context() as patch:
            seen, done = boundaries(patch, at, before)
            try:
                save_checkpoint(root, state(3))
                finished = len(seen) < at
            except Killed:
                pass
        found = load_checkpoint(root)
        assert_whole(found, 3 if "rename" in done else 2)
        with run_lock(root.parent):
            assert not [*root.glob(".tmp-*"), *root.glob(".del-*")]
            save_checkpoint(root, state(4))
        assert_whole(load_checkpoint(root), 4)
        assert len(list(root.iterdir())) == 2
    assert at > 10


def test_files_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, seen = boundaries(monkeypatch, 0, True)
    save_checkpoint(tmp_path, state(1))
    # Three files, each flushed; the folder; then its final name; then the folder that holds the name.
    assert seen == ["mkdir", *["fsync"] * 3, "fsync", "rename", "fsync"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_sigkill_at_random_moments(tmp_path: Path):
    """A child that does nothing but save is killed eight times; each time its last finished save, or a later one, loads."""
    random = torch.Generator().manual_seed(0)
    reached = 0
    for _ in range(8):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for step in range(reached + 1, reached + 10_000):
                    save_checkpoint(tmp_path, state(step))
                    os.write(writing, step.to_bytes(4, "big"))
            finally:
                os._exit(1)
        os.close(writing)
        os.read(reading, 4)  # it has begun
        time.sleep(float(torch.rand(1, generator=random)) * 0.05)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        output = b""
        while chunk := os.read(reading, 65536):
            output += chunk
        os.close(reading)
        last = int.from_bytes(output[-4:], "big") if output else reached + 1
        found = load_checkpoint(tmp_path)
        assert_whole(found, found.step)
        assert found.step >= last
        reached = found.step


def test_a_full_disk_keeps_the_old_checkpoint_and_names_the_new_one(tmp_path: Path):
    root = tmp_path / "checkpoints"
    save_checkpoint(root, state(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, 5000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(RunError, match=r"step-00000002 \([0-9,]+ bytes\).*--resume"):
                save_checkpoint(root, state(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [p.name for p in root.iterdir()] == ["step-00000001"]
        assert_whole(load_checkpoint(root), 1)


def test_an_error_at_any_point_of_a_save_is_told_and_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for fail_at in range(1, 5):
        root = tmp_path / str(fail_at)
        save_checkpoint(root, state(1))
        calls = 0
        real = os.fsync

        def fsync(descriptor: int, fail_at: int = fail_at, real=real) -> None:
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(RunError, match="No space left on device"):
                save_checkpoint(root, state(2))
        assert_whole(load_checkpoint(root), 1)


@pytest.mark.parametrize("name", ["state.safetensors", "facts.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "longer"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, name: str, damage: str):
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    path = tmp_path / "step-00000002" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"empty": b"", "cut": content[:middle], "flipped": flipped, "longer": content + b"!"}[damage])
    passed_over: list[str] = []
    assert_whole(load_checkpoint(tmp_path, passed_over), 1)
    assert passed_over == ["step-00000002"]
    save_checkpoint(tmp_path, state(2))
    assert_whole(load_checkpoint(tmp_path), 2)


def test_new_checkpoints_are_never_the_ones_dropped(tmp_path: Path):
    for step in (8, 9):
        save_checkpoint(tmp_path, state(step))
        (tmp_path / f"step-{step:08d}" / "manifest.json").write_text("{}")
    for step in (5, 6):
        save_checkpoint(tmp_path, state(step))
        assert_whole(load_checkpoint(tmp_path), step)


def test_a_pickle_in_a_checkpoint_is_never_run(tmp_path: Path):
    class Canary:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "canary",)

    folder = tmp_path / "root" / "step-00000001"
    folder.mkdir(parents=True)
    evil = pickle.dumps(Canary())
    for name in ("state.safetensors", "facts.json", "optimizer.bin", "random_states_0.pkl"):
        (folder / name).write_bytes(evil)
    digest = {name: checkpoint.hashlib.sha256(evil).hexdigest() for name in ("state.safetensors", "facts.json")}
    (folder / "manifest.json").write_text(json.dumps({"step": 1, "sha256": digest}))
    assert load_checkpoint(tmp_path / "root") is None
    assert not (tmp_path / "canary").exists()


def test_a_run_folder_is_held_by_one_at_a_time(tmp_path: Path):
    # The lock belongs to the open file: a second opening is refused within one process too.
    message = rf"in use by process {os.getpid()} on .*--run"
    with run_lock(tmp_path / "run"), pytest.raises(RunError, match=message), run_lock(tmp_path / "run"):
        pass
    with run_lock(tmp_path / "run"):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with run_lock(tmp_path):
            os.write(writing, b"x")
            time.sleep(60)
        os._exit(1)
    os.read(reading, 1)
    with pytest.raises(RunError, match=f"process {child}"), run_lock(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with run_lock(tmp_path):
        pass
