"""The blocking connection to one job server: dial, send, receive, close.

Rules:
- Every OSError and ssl.SSLError is translated here, and only here, into one of geard's own with the address in it.
- Plain blocking code. In a monkey-patched process it is cooperative; in an unpatched one it works in threads.
- One greenlet may receive while another sends. Two may not send at once, nor receive at once: the caller sees to that.
- Each has its own time: a send does not block in the system, nor by the receiver's timeout; it has its own deadline.
- An interrupted send (a gevent.Timeout, a KeyboardInterrupt) keeps what it could not send, and the next send goes on
  from there: no packet is ever half-written for good, nor written twice. An interrupted receive keeps what it read.
  Python handles signals after a call: so what the system call returns is stored by C code, within that same call.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import ssl
import threading
import time
from functools import partial
from typing import Any, Final

from geard.config.model import JobServer, Tls
from geard.errors import CannotConnect, ConnectionLost, ServerTimeout

CONNECT_TIMEOUT_SECONDS: Final = 5.0
SEND_TIMEOUT_SECONDS: Final = 30.0  # without a byte taken by the peer
TLS_SEND_BYTES: Final = 64 * 1024
READ_BYTES: Final = 64 * 1024  # for more, malloc may map pages anew for each read, and unmap them: 12 µs

_READ: Final = (READ_BYTES,)
_DONTWAIT: Final = (socket.MSG_DONTWAIT,)

_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (
        socket.IPPROTO_TCP,
        socket.TCP_NODELAY,
        1,
    ),  # packets are batched before they are sent; never wait for more
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    # In ms. Keepalive does not probe while data is unacknowledged or waits for a peer that does not read.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_TIMEOUT_SECONDS * 1000)),
)


class Connection:
    """An open connection. Made by `dial`; closed by `close`, or as a context manager."""

    def __init__(self, sock: socket.socket | _TlsSocket, server: JobServer) -> None:
        self._socket = sock
        self._sender = sock if isinstance(sock, _TlsSocket) else _sender(sock)
        self._send_some = self._sender.send
        self._receive_some = sock.recv
        self._timeout_seconds: float | None = -1.0  # the socket's: not known yet
        self._received: list[bytes] = []  # by a receive that was interrupted
        self.unsent = b""
        """What an interrupted send left; more may be added, for the next send."""
        self.server = server
        self.closed = False

    @classmethod
    def dial(cls, server: JobServer, *, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS) -> Connection:
        """Connect, each address of the name in turn, TLS included, within the timeout over all of it.

        Raises CannotConnect with each address and its reason."""
        deadline = time.monotonic() + timeout_seconds
        context = _tls_context(server) if server.tls else None
        reasons = []
        refused = True
        for family, address in _resolve(server, timeout_seconds):
            left = deadline - time.monotonic()
            if left <= 0:
                reasons.append(f"{address[0]}: no time left")
                refused = False
                break
            try:
                return cls(_open(family, address, server, context, left), server)
            except (OSError, ValueError) as error:  # SSLError is the first; the second, a server_name that is no name
                reasons.append(f"{address[0]}: {_reason(error, timeout_seconds)}")
                refused = refused and isinstance(error, ConnectionRefusedError)
        raise CannotConnect(f"cannot connect to {server}: {'; '.join(reasons)}", refused=refused)

    def __repr__(self) -> str:
        return f"<Connection {self.server}{' tls' if self.server.tls else ''}{' closed' if self.closed else ''}>"

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def descriptor(self) -> int:
        """The socket's file descriptor; -1 once it is closed."""
        return self._socket.fileno()

    def send(self, data: bytes, deadline: float | None = None) -> bool:
        """Send what an interrupted send left, then all of `data`. False if the deadline (time.monotonic()) came first.

        Raises ConnectionLost; ServerTimeout if the peer takes nothing for 30 s. However it ends, `unsent` is what the
        system has not taken."""
        if data:
            self.unsent += data
        rest: bytes | memoryview = self.unsent
        size, position, patience = len(rest), 0, 0.0
        taken: list[int] = []
        try:
            while position < size:
                try:
                    taken.extend(map(self._send_some, (rest,), _DONTWAIT))
                    position, patience = position + taken[0], 0.0
                    del taken[0]
                    if position < size:
                        rest = memoryview(self.unsent)[position:]
                except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError) as error:
                    now = time.monotonic()
                    if deadline is not None and now >= deadline:
                        return False
                    patience = patience or now + SEND_TIMEOUT_SECONDS
                    if now >= patience:
                        raise TimeoutError from error
                    self._await_turn(
                        error, min(patience if deadline is None else min(deadline, patience), now + 1) - now
                    )
            return True
        except OSError as error:
            raise self._lost(error) from error
        finally:
            if taken:  # interrupted just after the system call
                position += taken[0]
            self.unsent = self.unsent[position:]

    def _await_turn(self, error: OSError, seconds: float) -> None:
        """Wait until a send may go on. By a second at most: a socket that is closed meanwhile wakes nobody."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN if isinstance(error, ssl.SSLWantReadError) else select.POLLOUT)
        poll.poll(seconds * 1000)

    def receive(self, timeout_seconds: float | None = None) -> bytes | None:
        """What has arrived, at least a byte; None if nothing did within the timeout. Raises ConnectionLost."""
        received = self._received
        try:
            if not received:
                if timeout_seconds != self._timeout_seconds:  # a system call
                    self._socket.settimeout(timeout_seconds)
                    self._timeout_seconds = timeout_seconds
                received.extend(map(self._receive_some, _READ))
        except OSError as error:
            if isinstance(error, TimeoutError) and not error.errno:
                return None
            raise self._lost(error) from error
        return self._next_received()

    def receive_at_once(self) -> bytes | None:
        """As `receive`, without waiting: None if nothing has arrived. Always None over TLS, where nobody can tell."""
        if self._sender is self._socket:
            return None
        received = self._received
        try:
            if not received:
                received.extend(map(self._sender.recv, (READ_BYTES,)))
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._lost(error) from error
        return self._next_received()

    def _next_received(self) -> bytes:
        data = self._received[0]
        del self._received[0]
        if not data:
            raise ConnectionLost(f"{self.server} closed the connection")
        return data

    def interrupt(self) -> None:
        """Make a blocked receive or send end at once, from another greenlet or thread. Idempotent."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.closed = True  # already gone: they end by themselves

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.closed = True
        self._detach_sender()
        self._socket.close()

    def __del__(self) -> None:
        if "_sender" in self.__dict__:  # not one whose making failed
            self._detach_sender()

    def _detach_sender(self) -> None:
        """Both have the same descriptor, and only one may close it: closed once more, it may be another's by then."""
        if isinstance(self._sender, socket.socket):
            self._sender.detach()

    def leave(self) -> None:
        """In a forked child: let go of the parent's socket without a word on the wire."""
        self.closed = True
        _let_go(self.descriptor)

    def _lost(self, error: OSError) -> ConnectionLost:
        if isinstance(error, TimeoutError):
            silence = "does not answer" if error.errno else f"has taken no data for {SEND_TIMEOUT_SECONDS:g} s"
            return ServerTimeout(f"{self.server} {silence}")
        return ConnectionLost(f"lost {self.server}: {_reason(error)}")


class _TlsSocket:
    """An SSLSocket that one thread may read while another writes.

    Rule: OpenSSL allows one call at a time on a session, so each is made without blocking under a lock, and the
    waiting is done outside it."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.settimeout(0)
        self._socket = sock
        self._lock = threading.Lock()
        self._timeout: float | None = None
        self.shutdown = partial(socket.socket.shutdown, sock)  # SSLSocket's own goes on in plain text
        self.close = sock.close
        self.fileno = sock.fileno

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def recv(self, size: int) -> bytes:
        return self._retry(lambda: self._socket.recv(size), self._timeout)  # type: ignore[no-any-return]

    def handshake(self, timeout_seconds: float) -> None:
        self._retry(self._socket.do_handshake, timeout_seconds)

    def send(self, data: bytes | memoryview, flags: int) -> int:
        """Never waits: raises SSLWantWriteError or SSLWantReadError, whatever the flags.

        A piece at a time: OpenSSL does not tell how much of it the peer has taken until it has taken all."""
        with self._lock:
            sent = self._socket.send(memoryview(data)[:TLS_SEND_BYTES])
        if not sent:  # gevent's way to say that it would block
            raise ssl.SSLWantWriteError
        return sent

    def _retry(self, call: Any, timeout_seconds: float | None) -> Any:
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            try:
                with self._lock:
                    return call()
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            poll = select.poll()
            poll.register(self._socket, events)
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not poll.poll(None if left is None else left * 1000):
                raise TimeoutError


def _sender(sock: socket.socket) -> socket.socket:
    """The same socket once more, for sending: of two that share a descriptor each has a timeout of its own."""
    sender = socket.socket(sock.family, sock.type, sock.proto, sock.fileno())
    sender.settimeout(0)  # the receiver sets its own before each wait
    return sender


def _resolve(server: JobServer, timeout_seconds: float) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, server.host)
        except OSError:
            continue
        return [(family, (server.host, server.port))]
    # The system's resolver knows no deadline: it is asked in a thread, which may outlast this call.
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.put(error)

    threading.Thread(target=ask, name=f"resolve {server.host}", daemon=True).start()
    try:
        found = answer.get(timeout=timeout_seconds)
    except queue.Empty:
        found = TimeoutError()
    if isinstance(found, OSError | UnicodeError):
        reason = _reason(found, timeout_seconds)
        raise CannotConnect(f"cannot connect to {server}: cannot resolve the name: {reason}") from found
    return [(family, address) for family, _, _, _, address in found]


def _open(
    family: socket.AddressFamily,
    address: tuple[Any, ...],
    server: JobServer,
    context: ssl.SSLContext | None,
    timeout_seconds: float,
) -> socket.socket | _TlsSocket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    _dialling.add(sock)
    try:
        deadline = time.monotonic() + timeout_seconds
        sock.settimeout(timeout_seconds)
        sock.connect(address)
        for option in _KEEPALIVE:
            sock.setsockopt(*option)
        if context is None or server.tls is None:
            return sock
        name = server.tls.server_name or server.host
        wrapped = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
        _dialling.add(wrapped)
        try:
            secure = _TlsSocket(wrapped)
            secure.handshake(max(deadline - time.monotonic(), 0))
        except BaseException:
            wrapped.close()
            raise
        finally:
            _dialling.discard(wrapped)
        return secure
    except BaseException:
        sock.close()
        raise
    finally:
        _dialling.discard(sock)


_dialling: set[socket.socket] = set()


def _let_go_of_dialling() -> None:
    """In a forked child, where greenlets would go on with it: what the parent dials is the parent's."""
    for sock in tuple(_dialling):
        _let_go(sock.fileno())


os.register_at_fork(after_in_child=_let_go_of_dialling)


def _let_go(descriptor: int) -> None:
    """Not closed: the objects that know this number must not close somebody else's file one day."""
    if descriptor >= 0:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, descriptor, inheritable=False)
        os.close(null)


def _tls_context(server: JobServer) -> ssl.SSLContext:
    tls = server.tls or Tls()
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.check_hostname = tls.check_hostname
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        files = ", ".join(filter(None, (tls.ca, tls.certificate, tls.key)))
        raise CannotConnect(f"cannot connect to {server}: cannot use the TLS files ({files}): {error}") from error
    return context


def _reason(error: OSError | ValueError, timeout_seconds: float | None = None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_seconds:g} s" if timeout_seconds else "timed out"
    return ((isinstance(error, OSError) and error.strerror) or str(error)).lower()
