"""Asking a supervisor over its control socket. Loads neither gevent nor anything of the supervisor.

Rule: nothing is sent to a socket that could be somebody else's (trust.py).
"""

from __future__ import annotations

import os
import socket

import msgspec

from geard.errors import CannotConnect, ConnectionLost, GeardError, ServerTimeout
from geard.supervisor import answers, trust
from geard.supervisor.answers import Answer, Request


def ask(path: str, what: str | Request, *, timeout_seconds: float | None = None) -> Answer:
    """The supervisor's answer to a request, or to a command alone; however long it takes, unless there is a timeout.

    Raises CannotConnect (Untrusted), ConnectionLost, ServerTimeout, and GeardError for an answer that is none."""
    with _socket(path) as connection:
        connection.settimeout(timeout_seconds)
        try:
            owners = trust.owners_of(path, os.geteuid())
            connection.connect(path)
            trust.check_listener(connection, path, owners)
        except (OSError, ValueError) as error:  # ValueError: a path that is none
            raise CannotConnect(f"no supervisor answers on {path}: {_reason(path, error)}") from error
        try:
            connection.sendall(answers.dump(Request(what) if isinstance(what, str) else what))
            line = connection.makefile("rb").readline()
        except TimeoutError as error:
            raise ServerTimeout(f"the supervisor on {path} does not answer within {timeout_seconds:g} s") from error
        except OSError as error:
            raise ConnectionLost(f"lost the supervisor on {path}: {error.strerror}") from error
    if not line:
        raise ConnectionLost(f"the supervisor on {path} ended without an answer")
    try:
        return answers.load_answer(line)
    except msgspec.DecodeError as error:
        raise GeardError(f"the supervisor on {path} is of another version of geard: restart it ({error})") from error


def _socket(path: str) -> socket.socket:
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:  # no descriptor is left
        raise CannotConnect(f"cannot ask the supervisor on {path}: {_reason(path, error)}") from error


def _reason(path: str, error: Exception) -> str:
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    if isinstance(error, PermissionError):
        try:
            return f"{reason}; it belongs to {trust.user_name(os.stat(path).st_uid)}"
        except OSError:
            return f"{reason}; it is another user's"
    return reason
