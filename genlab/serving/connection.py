"""One HTTP/1.1 connection: how long a visitor may take to send a request's head and to read a reply."""

from __future__ import annotations

import asyncio
import errno
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""How long the head of a request may take to arrive."""
UNREAD_SECONDS = 30.0
"""How long a visitor may leave a waiting reply unread."""
SEND_BUFFER_BYTES = 256 * 1024
"""Bytes that the system accepts for a visitor before they are read."""


class Connection(H11Protocol):
    """An HTTP/1.1 connection that is closed when a head takes longer than `HEAD_SECONDS`, or when none of the bytes that wait
    are read for `UNREAD_SECONDS`: a stream would fill the memory behind them.
    """

    head_timer: asyncio.TimerHandle | None = None
    unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_timer = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_head_timer()
        elif self.head_timer is None:
            self.head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_unread_timer()

    def resume_writing(self) -> None:
        self._stop_unread_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_unread_timer()
        super().connection_lost(exc)

    def _start_unread_timer(self) -> None:
        waiting = self.transport.get_write_buffer_size()

        def check() -> None:
            if self.transport.get_write_buffer_size() < waiting:
                self._start_unread_timer()
            else:
                self.transport.abort()

        self.unread_timer = self.loop.call_later(UNREAD_SECONDS, check)

    def _stop_unread_timer(self) -> None:
        if self.unread_timer is not None:
            self.unread_timer.cancel()
            self.unread_timer = None

    def _stop_head_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket whose connections send at once (TCP_NODELAY) and buffer at most `SEND_BUFFER_BYTES`.

    Without TCP_NODELAY a small message waits until the one before is acknowledged: 40 ms before a reply's first line, and often
    before a frame. asyncio sets it only for sockets that state their protocol, which `create_server` leaves at 0. With a larger
    buffer a slow reader could seem to read nothing, because what it reads from the system's buffer cannot be observed here.

    Raises:
        SystemExit: the port cannot be had; one line that names the port and what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SystemExit(f"port {port} is in use: stop the program that holds it, or choose another with --port") from error
        raise SystemExit(f"cannot listen on {host}:{port} ({error.strerror}): choose others with --host and --port") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return listener
