"""Job server addresses as people write them: `host`, `host:port`, `[v6]:port`."""

from __future__ import annotations

import re

from geard.config.filled import cut
from geard.config.model import DEFAULT_PORT, JobServer, Tls
from geard.errors import InvalidRequest

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[^\[\]:\s/]+))(?::(?P<port>\d+))?")

ADDRESS_EXPECTED = "host, host:port or [v6]:port"
ADDRESS_PATTERN = r"^(\[[0-9A-Fa-f:.]+(%[0-9A-Za-z_]+)?\]|[^\[\]:\s/]+)(:[0-9]+)?$"


def parse_address(text: str, tls: Tls | None = None) -> JobServer:
    """The job server that `text` names. Raises InvalidRequest, saying what is wrong with it."""
    if text.count(":") > 1 and not text.startswith("["):
        raise InvalidRequest(f"{cut(text)!r}: an IPv6 address goes in brackets, as in [::1]:{DEFAULT_PORT}")
    match = _ADDRESS.fullmatch(text)
    if not match:
        raise InvalidRequest(f"{cut(text)!r} is not an address: expected {ADDRESS_EXPECTED}")
    port = int(match["port"] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise InvalidRequest(f"{cut(text)!r}: port {port} is not between 1 and 65535")
    return JobServer(match["v6"] or match["host"], port, tls)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to it."""
    from ipaddress import ip_address  # most who read an address need not know

    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False
