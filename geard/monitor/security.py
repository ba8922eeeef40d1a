"""Who may look, who may act, and what a browser may do with what it gets.

Rules:
- On a loopback address or a Unix socket everybody who can connect may look; with a password or token only who has it.
- Requests by a name that is not ours are refused: a page elsewhere could have made its own name point here (rebinding).
- Actions are POSTs with a token that only our own pages know, or that carry `Authorization: Bearer`, which no browser
  sends by itself. `read_only` refuses all.
- Pages run no script and style but ours, and can be put in nobody's frame.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Response, abort, g, request

from geard.config.model import Monitor
from geard.monitor.daemons import read_secret

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
OPEN_TO_ALL: Final = frozenset({"health_live", "health_ready"})
"""Endpoints that a load balancer asks without a password; they say less then."""


class Security:
    """Guards every request of an app. Raises OSError when a secret's file cannot be read."""

    def __init__(self, app: Flask, monitor: Monitor) -> None:
        self.form_token = secrets.token_urlsafe(32)
        self.read_only = monitor.read_only
        self._password = read_secret(monitor.password_file)
        self._token = read_secret(monitor.token_file)
        for path, secret in ((monitor.password_file, self._password), (monitor.token_file, self._token)):
            if path and not secret:
                raise OSError(f"{path} is empty")
        self._any_host = bool(monitor.listen.path)  # no browser connects to a Unix socket: a reverse proxy does
        own_names = {"localhost", monitor.listen.host, os.uname().nodename, *monitor.hosts}
        self._hosts = {name.lower() for name in own_names}
        app.before_request(self._check)
        app.after_request(_add_headers)

    def _check(self) -> None:
        if not (self._any_host or self._is_ours(request.host)):
            abort(421, "this monitor is not known by that name: add it to monitor.hosts")
        g.known = self._is_known()
        if not g.known and request.endpoint not in OPEN_TO_ALL:
            challenge = {"WWW-Authenticate": 'Basic realm="geard", charset="UTF-8"'} if self._password else {}
            abort(Response("who are you?\n", 401, challenge, mimetype="text/plain"))
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            self._check_action()

    def _check_action(self) -> None:
        if self.read_only:
            abort(403, "this monitor is read_only")
        if self._bearer_is_right():
            return
        origin = request.headers.get("Origin", "")
        if origin and origin.partition("://")[2] != request.host:  # of one that is `null`, nothing is left
            abort(403, "the request comes from another site")
        given = request.form.get("token", "") or request.headers.get("X-Geard-Token", "")
        if not _same(given, self.form_token):
            abort(403, "the page is of an earlier monitor: load it again")

    def _is_ours(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ip_address(name)
        except ValueError:
            return name.lower() in self._hosts
        return True  # no name, so nobody's to point elsewhere

    def _is_known(self) -> bool:
        if not (self._password or self._token):
            return True
        return self._bearer_is_right() or self._password_is_right()

    def _bearer_is_right(self) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        return bool(self._token) and kind.lower() == "bearer" and _same(given.strip(), self._token)

    def _password_is_right(self) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if not self._password or kind.lower() != "basic":
            return False
        try:
            password = base64.b64decode(given).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
        return _same(password, self._password)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode(errors="replace"))


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    return response
