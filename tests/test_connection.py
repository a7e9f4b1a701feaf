"""One connection: its timeouts and its socket."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from genlab.serving import connection
from genlab.serving.connection import listen
from tests.tiny import running


def test_unfinished_heads_are_closed_and_disturb_nobody(site: SimpleNamespace) -> None:
    sockets = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(40)]
    try:
        for index, connection in enumerate(sockets):
            connection.settimeout(20)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" if index % 2 else b"")
        second = sockets[0]
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = b""
        while b'{"alive":true}' not in reply:
            reply += second.recv(65536)
        assert reply.startswith(b"HTTP/1.1 200")
        second.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert site.client.get("/healthz").status_code == 200
        for connection in sockets:
            with suppress(ConnectionResetError):
                assert connection.recv(65536) == b""
    finally:
        for connection in sockets:
            connection.close()


def test_who_reads_nothing_is_cut_off_and_who_reads_slowly_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 1.5)
    gone: list[str] = []

    async def endless(scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for answer_to in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{answer_to}.complete"})
            return

        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        leaving = asyncio.create_task(left())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not leaving.done():
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
            await asyncio.sleep(0)
        gone.append(scope["path"])

    def open_stream(port: int, path: str) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return connection

    with running(endless) as instance, open_stream(instance.port, "/slow") as slow, open_stream(instance.port, "/deaf"):
        deadline = time.monotonic() + 30
        while not gone and time.monotonic() < deadline:
            assert slow.recv(65536)
            time.sleep(0.02)
        assert gone == ["/deaf"]
        assert slow.recv(4096)


def test_connections_send_at_once() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_busy_port_names_the_port_and_the_flag() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"^port {port} is in use: .*--port$"):
            listen("127.0.0.1", port)
    with pytest.raises(SystemExit, match=r"^cannot listen on 203\.0\.113\.1:1 .*--port$"):
        listen("203.0.113.1", 1)
