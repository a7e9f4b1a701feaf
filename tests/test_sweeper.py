"""The folder of uploads and results stays small."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from genlab.serving.sweeper import Sweeper
from tests.small_page import MARK, call, wait_until


def test_aborted_uploads_are_swept(site: SimpleNamespace, picture: bytes) -> None:
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n' + bytes(20_000)
    before = set(site.uploads.glob("tmp*"))
    for index in range(60):
        if index % 2:
            site.client.post("/gradio_api/upload", files={"files": (f"{index}.png", picture + bytes(20_000) + bytes([index]))})
        else:
            with socket.create_connection(("127.0.0.1", site.port)) as connection:
                connection.sendall(head + part)
                wait_until(lambda: not set(site.uploads.glob("tmp*")) <= before)
            wait_until(lambda: set(site.uploads.glob("tmp*")) <= before)
    (site.uploads / "tmporphan").write_bytes(bytes(20_000))
    sweeper = Sweeper(str(site.uploads), exempt=set, max_bytes=300_000)
    sweeper.sweep()
    left = [path for path in site.uploads.rglob("*") if path.is_file()]
    assert 0 < sum(-(-path.stat().st_size // 4096) * 4096 for path in left) <= 300_000
    Sweeper(str(site.uploads), exempt=set, max_seconds=-1).sweep()
    assert [path for path in site.uploads.rglob("*") if path.is_file()] == []
    path = site.client.post("/gradio_api/upload", files={"files": ("a.png", picture)}).json()[0]
    assert call(site.client, "size", {"path": path, "meta": MARK}) == ("complete", ["(5, 7, 3)"])


def test_sweeper_takes_the_oldest_and_leaves_what_is_kept(tmp_path: Path) -> None:
    now = time.time()
    for index in range(6):
        (tmp_path / f"d{index}").mkdir()
        path = tmp_path / f"d{index}" / "file"
        path.write_bytes(bytes(4096))
        os.utime(path, (now - 100 + index, now - 100 + index))
    (tmp_path / "old").write_bytes(b"x")
    os.utime(tmp_path / "old", (now - 9000, now - 9000))
    (tmp_path / "empty").mkdir()
    os.utime(tmp_path / "empty", (now - 90, now - 90))
    kept = {str(tmp_path / "d0" / "file")}
    Sweeper(str(tmp_path), exempt=lambda: kept, max_bytes=3 * 4096).sweep()
    assert sorted(path.parent.name for path in tmp_path.rglob("file")) == ["d0", "d4", "d5"]
    assert not (tmp_path / "old").exists()
    assert not (tmp_path / "empty").exists()


def test_sweeping_goes_on_in_its_thread(tmp_path: Path) -> None:
    sweeper = Sweeper(str(tmp_path), exempt=set, max_bytes=0)
    with sweeper.running(interval=0.01):
        for _ in range(2):
            (tmp_path / "file").write_bytes(b"x")
            wait_until(lambda: not (tmp_path / "file").exists())
    assert not any(thread.name == "sweeper" and thread.daemon and not thread.is_alive() for thread in threading.enumerate())
