"""The `monitor` key: where it listens, who may look, and what must not be open to everybody."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from geard.config.address import is_loopback, parse_address
from geard.config.kinds import kind
from geard.config.model import Listen, Monitor, Tls
from geard.config.problems import At, Problems, Refused
from geard.config.records import Check, Key, list_of, record
from geard.config.tls import check_tls_files
from geard.config.values import boolean, readable_file, refuse, socket_path, text
from geard.errors import ConfigError, InvalidRequest

LISTEN_EXPECTED: Final = "host:port such as 127.0.0.1:8733, [::1]:8733, or the path of a Unix socket"
BASE_PATH_EXPECTED: Final = "a path such as /geard"
PEER_EXPECTED: Final = "an address such as https://host2:8733"


@kind(LISTEN_EXPECTED, schema={"type": "string", "pattern": r"/|:[0-9]+$"})
def listen(value: Any, at: At) -> Listen:
    """An address, or the path of a Unix socket."""
    if isinstance(value, str) and "/" in value:
        return Listen("", 0, socket_path(value.removeprefix("unix:"), at))
    if not isinstance(value, str) or not re.search(r":\d+$", value):
        raise refuse(value, LISTEN_EXPECTED, at)
    try:
        server = parse_address(value)
    except InvalidRequest as error:
        raise Refused(str(error), expected=LISTEN_EXPECTED) from None
    return Listen(server.host, server.port)


@kind(BASE_PATH_EXPECTED, schema={"type": "string", "pattern": r"^/"})
def base_path(value: Any, at: At) -> str:
    """A path that begins with a slash and does not end with one; "/" is none."""
    path = text(BASE_PATH_EXPECTED)(value, at).rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise refuse(value, BASE_PATH_EXPECTED, at)
    return path


@kind(PEER_EXPECTED, schema={"type": "string", "pattern": "^[hH][tT][tT][pP][sS]?://."})
def peer(value: Any, at: At) -> str:
    """The address of another monitor."""
    url = text(PEER_EXPECTED)(value, at).rstrip("/")
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment or parts.username is not None:
        raise refuse(value, PEER_EXPECTED, at)
    return url


def with_listen(monitor: Monitor, address: str) -> Monitor:
    """The same elsewhere, for a command line. Raises ConfigError."""
    problems = Problems()
    at = At(problems, os.getcwd(), path="--listen")
    with at.reporting():
        monitor = msgspec.structs.replace(monitor, listen=listen(address, at))
        check_open(monitor, at)
    if found := list(problems):
        raise ConfigError(found)
    return monitor


def check_open(monitor: Monitor, at: At) -> None:
    """Whoever can connect from elsewhere must show that they may."""
    if not (is_local(monitor.listen) or monitor.password_file or monitor.token_file):
        at.report(
            f"listens on {monitor.listen}, which others can reach, without a password_file or token_file",
            hint="name one, or listen on 127.0.0.1, or on a Unix socket behind a reverse proxy",
        )


def check_files(monitor: Monitor, at: At) -> None:
    """A key belongs to a certificate, and OpenSSL can use the files."""
    if monitor.key and not monitor.certificate:
        raise Refused("has a `key` without a `certificate`", hint="name the PEM file of the key's certificate")
    if monitor.certificate:
        check_tls_files(Tls(certificate=monitor.certificate, key=monitor.key), at)


def is_local(listen: Listen) -> bool:
    """Whether only this machine can connect to it."""
    return bool(listen.path) or is_loopback(listen.host)


MONITOR_KEYS: Final = {
    "listen": Key(listen),
    "password_file": Key(readable_file),
    "token_file": Key(readable_file),
    "read_only": Key(boolean),
    "base_path": Key(base_path),
    "hosts": Key(list_of(text("a host name"), "a list of host names")),
    "certificate": Key(readable_file),
    "key": Key(readable_file),
    "peers": Key(list_of(peer, "a list, such as [https://host2:8733]")),
}
_monitor = record(
    Monitor,
    MONITOR_KEYS,
    Check(frozenset({"listen", "password_file", "token_file"}), check_open),
    Check(frozenset({"certificate", "key"}), check_files),
)


@kind("where to listen, or a mapping", either=(listen, _monitor))
def monitor(value: Any, at: At) -> Monitor:
    """Where to listen alone, or a mapping."""
    if isinstance(value, Mapping):
        return _monitor(value, at)
    made = Monitor(listen=listen(value, at))
    check_open(made, at)
    return made
