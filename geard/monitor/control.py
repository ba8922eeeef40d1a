"""Asking the supervisor over its control socket."""

from __future__ import annotations

import socket

import msgspec

from geard.errors import CannotConnect, ConnectionLost, GeardError
from geard.supervisor import answers
from geard.supervisor.answers import Answer, Request


def ask(path: str, request: Request, *, timeout_seconds: float) -> Answer:
    """The supervisor's answer. Raises CannotConnect, ConnectionLost, and GeardError for an answer that is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(path)
        except OSError as error:
            raise CannotConnect(f"no supervisor answers on {path}: {error.strerror or error}") from error
        try:
            connection.sendall(answers.dump(request))
            line = connection.makefile("rb").readline()
        except OSError as error:
            raise ConnectionLost(f"the supervisor on {path} does not answer: {error}") from error
    if not line:
        raise ConnectionLost(f"the supervisor on {path} ended without an answer")
    try:
        return answers.load_answer(line)
    except msgspec.DecodeError as error:
        raise GeardError(f"the supervisor on {path} is of another version of geard: restart it ({error})") from error
