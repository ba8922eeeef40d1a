"""The control socket: where `geard ps`, `reload` and `stop` ask the supervisor (see answers.py for the words).

Rules:
- Mode 0600: whoever may connect may stop the daemon.
- A socket that nobody answers on is a leftover and is replaced; one that another supervisor answers on never is, nor
  one that is somebody else's, nor what is no socket (trust.py).
- Each connection has a greenlet, which reads one request, waits for its answer and writes it. The loop never waits.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec
from gevent import socket
from gevent.pool import Pool
from gevent.queue import Queue
from gevent.server import StreamServer

from geard import exits
from geard.errors import GeardError
from geard.supervisor import answers, trust
from geard.supervisor.answers import Answer, Identity
from geard.supervisor.events import Asked

REQUEST_SECONDS: Final = 5.0
MAX_CONNECTIONS: Final = 64
_MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
"""The names of all functions that a config may have, to be paused, are less."""

log = logging.getLogger(__name__)


class SocketInUse(GeardError):
    """Another supervisor answers on this control socket. Stop it, or give this one its own `control_socket`."""


class ControlServer:
    """Listens on a Unix socket and hands each request to `ask`; who we are it says itself."""

    def __init__(
        self, path: str, ask: Callable[[Asked], None], identity: Identity, *, listener: int | None = None
    ) -> None:
        """Start to listen, on an inherited `listener` if there is one.

        Raises SocketInUse, Untrusted, or OSError when the socket cannot be made."""
        self.path = path
        self._ask = ask
        self._identity = identity
        listening = _listen(path) if listener is None else socket.socket(fileno=listener)
        self._made = _file(path)
        self._server = StreamServer(listening, self._serve, spawn=Pool(MAX_CONNECTIONS))
        self._server.start()

    @property
    def descriptor(self) -> int:
        """Of the socket that listens."""
        number: int = self._server.socket.fileno()
        return number

    def close(self) -> None:
        """Stop listening, once the answers that are due have been written; remove the socket if it is still ours."""
        self._server.stop(timeout=1.0)
        with suppress(OSError):
            if _file(self.path) == self._made:
                os.unlink(self.path)

    def _serve(self, connection: socket.socket, _address: object) -> None:
        with connection, suppress(OSError):
            answered: Queue[Answer] = Queue()
            connection.settimeout(REQUEST_SECONDS)
            line = connection.makefile("rb").readline(_MAX_REQUEST_BYTES)
            try:
                request = answers.load_request(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                connection.sendall(answers.dump(Answer(exits.USAGE, f"not a request: {error}")))
                return
            if request.command == answers.WHO:
                connection.sendall(answers.dump(Answer(exits.DONE, identity=self._identity)))
                return
            self._ask(Asked(request, answered.put))
            connection.sendall(answers.dump(msgspec.structs.replace(answered.get(), version=self._identity.version)))


def _listen(path: str) -> socket.socket:
    with _umask(0o022):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    trust.check_directory(path)
    if os.path.lexists(path):
        _remove_leftover(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _umask(0o177):
            listener.bind(path)
    except OSError:
        listener.close()
        raise
    listener.listen(16)
    return listener


def _remove_leftover(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise trust.Untrusted(f"{path} is there and is not a socket: remove it, or set another control_socket")
    trust.owners_of(path, os.geteuid())
    if _answers(path):
        raise SocketInUse(f"another supervisor answers on {path}: stop it, or set another control_socket for this one")
    with suppress(FileNotFoundError):
        os.unlink(path)


def _file(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except TimeoutError:
            return True  # somebody has it and is too busy to say so
        except OSError:
            return False
        return True
