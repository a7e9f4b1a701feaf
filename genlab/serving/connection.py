"""One HTTP/1.1 connection: how many there may be, and how long a visitor may take to send a request's head and to read a
reply.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from genlab.serving.refusal import HEADERS
from genlab.serving.visitor import network

CONNECTIONS = 512
"""Open connections; one more takes the place of that which has waited longest for the head of a request."""
OF_ADDRESS = 256
"""The same for those of one address, where no proxy stands in front."""
SPARE = 64
"""Connections beyond `CONNECTIONS` while requests are open on all of them: health has to be answered."""
HEAD_SECONDS = 10.0
"""How long the head of a request may take to arrive."""
UNREAD_SECONDS = 30.0
"""How long a visitor may leave a waiting reply unread."""
SEND_BUFFER_BYTES = 256 * 1024
"""Bytes that the system accepts for a visitor before they are read."""


class Connection(H11Protocol):
    """An HTTP/1.1 connection that is closed when a head takes longer than `HEAD_SECONDS`, when another needs its place before a
    head has come, or when none of the bytes that wait are read for `UNREAD_SECONDS`: a stream would fill the memory behind
    them.

    Args:
        options: of `H11Protocol`.
        proxied: all connections come from a proxy, whatever their visitor.
    """

    head_timer: asyncio.TimerHandle | None = None
    unread_timer: asyncio.TimerHandle | None = None

    def __init__(self, *, proxied: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.proxied = proxied

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        self.address, self.since = network(peer) or peer, self.loop.time()
        self._make_room()
        self.head_timer = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def _make_room(self) -> None:
        """Close a connection where there are too many: the one that has waited longest for a head, else this one."""
        all_open = [other for other in self.connections if isinstance(other, Connection) and not other.transport.is_closing()]
        of_address = [] if self.proxied else [other for other in all_open if other.address == self.address]
        for crowd, most, spare in ((of_address, OF_ADDRESS, 0), (all_open, CONNECTIONS, SPARE)):
            waiting = [other for other in crowd if other is not self and (other.cycle is None or other.cycle.response_complete)]
            if len(crowd) > most and waiting:
                min(waiting, key=lambda other: other.since).transport.abort()
            elif len(crowd) > most + spare:
                self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with the headers of every reply."""
        headers = {"content-type": "text/plain; charset=utf-8", "connection": "close", **HEADERS}
        head = h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request")
        for event in (head, h11.Data(data=msg.encode("ascii")), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

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
