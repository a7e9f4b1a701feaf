"""Result files: whole whenever they are read, one for equal results, and not swept while they are handed out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from genlab.demo.components.player import player_sheet
from genlab.serving import results
from genlab.serving.results import save_result
from genlab.serving.sweeper import Sweeper

CONTENT = os.urandom(400_000)
FRAMES = np.random.default_rng(0).integers(256, size=(4, 1, 100, 100), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server's own folder, empty."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def sheet() -> str:
    file = player_sheet("run", FRAMES, ["x_t"]).sheet
    assert file is not None
    return file.path


@pytest.mark.parametrize("write", [lambda: save_result(CONTENT, "a.png"), sheet], ids=["file", "sheet"])
def test_a_result_is_whole_whenever_it_is_read(write: Callable[[], str]):
    """Several visitors ask for the same result at once: each reads all of it while others write it, from the first one on."""

    def visit(_: int) -> int:
        return len(Path(write()).read_bytes())

    for _ in range(4):
        with ThreadPoolExecutor(16) as visitors:
            sizes = set(visitors.map(visit, range(100)))
        (path,) = {write() for _ in range(3)}
        assert sizes == {os.path.getsize(path)}
        os.remove(path)


def test_equal_results_share_a_file_and_leave_nothing_beside_it(folder: Path):
    one, same, renamed, other = (save_result(*given) for given in ((b"1", "a"), (b"1", "a"), (b"1", "b"), (b"2", "a")))
    assert one == same
    assert len({one, renamed, other}) == 3
    assert {str(path) for path in folder.rglob("*") if path.is_file()} == {one, renamed, other}
    assert [Path(path).read_bytes() for path in (one, renamed, other)] == [b"1", b"1", b"2"]


def test_the_name_of_a_result_leads_nowhere_else(folder: Path):
    assert Path(save_result(b"1", "../../a.png")).parent.parent == folder


def test_a_result_that_is_handed_out_again_is_not_swept(folder: Path):
    path = save_result(b"1", "a.png")
    forgotten = save_result(b"2", "a.png")
    for old in (path, forgotten):
        os.utime(old, (time.time() - 7200,) * 2)
    assert save_result(b"1", "a.png") == path
    Sweeper(str(folder), exempt=set, max_seconds=3600).sweep()
    assert (os.path.exists(path), os.path.exists(forgotten)) == (True, False)


def test_a_folder_that_is_swept_meanwhile_is_made_again(monkeypatch: pytest.MonkeyPatch):
    write, swept = results._write_beside, []

    def sweep_first(path: Path, content: bytes) -> None:
        if not swept:
            swept.append(path.parent.rmdir())
        write(path, content)

    monkeypatch.setattr(results, "_write_beside", sweep_first)
    assert Path(save_result(b"1", "a.png")).read_bytes() == b"1"
    assert swept


def test_a_result_that_cannot_be_written_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_result(b"1", "a.png")
    assert not [path for path in folder.rglob("*") if path.is_file()]
