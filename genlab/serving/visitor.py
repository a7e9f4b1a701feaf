"""Who a request comes from, and for whom the code that runs now works."""

from __future__ import annotations

import ipaddress
import re
from contextvars import ContextVar
from fnmatch import fnmatchcase

current: ContextVar[str] = ContextVar("visitor", default="")
"""The visitor for whom the job that runs now was started, as `network` names one; "" outside a job."""
WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")
"""Matches an address with a port, or in brackets, as some proxies write them into X-Forwarded-For."""


def names_host(header: str, hosts: tuple[str, ...]) -> bool:
    """Return whether a Host header names an address, localhost, or one of `hosts`; "*.example.org" has all below it.

    A page of another site can have its own name lead to this machine (DNS rebinding); it cannot send another Host.
    """
    name = re.sub(r":\d*$", "", header.strip().lower()).strip("[]").rstrip(".")
    return network(name) is not None or any(fnmatchcase(name, host.lower()) for host in ("localhost", "*.localhost", *hosts))


def network(address: str) -> str | None:
    """Return what the requests of an address are counted under: the address itself, for IPv6 its /64 network; None where it is
    no address.
    """
    found = WITH_PORT.fullmatch(address)
    try:
        parsed = ipaddress.ip_address((found[1] or found[2] or "") if found else address)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
