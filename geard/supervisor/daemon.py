"""`geard run` for real: the supervisor with its queue, signals, worker processes, control socket and service manager.

Rule: this process is not monkey-patched; what must not block the loop uses gevent's own API or its thread pool.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import gevent
import msgspec
from gevent.queue import Empty, SimpleQueue

from geard import __version__, exits, logs
from geard.config.load import Source, examine_config
from geard.config.model import Config, default_control_socket
from geard.errors import ConfigError, InvalidRequest, Problem
from geard.messages import FromChild, Start
from geard.presence import Presence, Seats
from geard.supervisor import signals
from geard.supervisor.answers import Identity
from geard.supervisor.child import Child
from geard.supervisor.companions import Companions
from geard.supervisor.control import ControlServer, SocketInUse
from geard.supervisor.events import Event, Exited, Loaded, Received, Scheduled, Signalled, SourcesChanged
from geard.supervisor.loader import Loader
from geard.supervisor.monitor import MonitorKeeper
from geard.supervisor.pauses import Pauses, PausesFile
from geard.supervisor.process import WorkerProcess
from geard.supervisor.sd_notify import SdNotify
from geard.supervisor.state import ChildState, State
from geard.supervisor.supervisor import SIGNALS, TURN_SECONDS, Supervisor
from geard.supervisor.trust import Untrusted
from geard.supervisor.upgrade import Upgrades

if TYPE_CHECKING:
    from geard.supervisor.watch import Watcher

REMEMBER_SECONDS: Final = 2.0
"""How long the end waits for a slow disk."""

log = logging.getLogger(__name__)


class Daemon:
    """Everything real around a Supervisor. `run` it once."""

    def __init__(
        self,
        source: Source,
        *,
        verbose: bool = False,
        watch: bool = False,
        read: Callable[[str], Source] = examine_config,
        beside: AbstractContextManager[object] | None = None,
        state: State | None = None,
    ) -> None:
        """`read` reads the config again for a reload, with what is wrong in it; `beside` is entered before the first
        worker process starts, and left after the last has ended; `state` is what the supervisor before us in this
        process has left. Raises ConfigError when the log file or the control
        socket cannot be used, InvalidRequest when `watch` needs what is not installed."""
        self._source = source
        self._beside = beside or nullcontext()
        self._state = state
        self._verbose = verbose
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._loader = Loader(source.file, read, lambda outcome: self._events.put(Loaded(outcome)))
        self._watcher = _watcher(source, self._events.put) if watch else None
        try:
            _configure_log(source.config, verbose, can_do_without=state is not None)
            self._control = _control_server(source, self._events.put, state)
        except ConfigError as error:
            raise ConfigError(list(map(source.locate, error.problems))) from error
        self._serves = False
        self._companions = Companions(
            source.config,
            scheduled=lambda states: self._events.put(Scheduled(states)),
            verbose=verbose,
            dead_letters_address=state.dead_letters_address if state else "",
        )
        self._monitor = MonitorKeeper(verbose=verbose)
        self._seats = _seats(state)
        self._pauses = PausesFile.of(source.config)
        self._remembering: gevent.Greenlet[..., None] | None = None
        self._supervisor = Supervisor(
            source,
            spawn=self._spawn,
            load=self._loader.begin,
            notify=SdNotify(),
            configured=self._configured,
            upgraded=lambda reply: self._upgrades.asked(reply),
            paused=self._pauses.read(),
            remember=self._remember,
        )
        self._upgrades = Upgrades(
            self._supervisor,
            self._companions,
            impossible=self._impossible_upgrade,
            is_idle=lambda: self._events.empty() and not self._remembering,  # false once it is through
            with_descriptors=self._with_descriptors,
        )

    @property
    def start_problems(self) -> tuple[Problem, ...]:
        """Why the daemon could not start, when that is why it ended."""
        return self._supervisor.start_problems

    def run(self) -> int:
        """Run until the last worker process is gone; the exit code. Raises what entering `beside` raises."""
        log.info("geard %s, pid %d, config %s", __version__, os.getpid(), self._source.file)
        for number in SIGNALS:  # to the end of the process: none that comes late ends it in another way
            signals.Handler(number, partial(self._events.put, Signalled(number)))
        signals.unblock(SIGNALS)  # a supervisor before us in this process has blocked them
        if self._state and self._state.signals is not None:
            signals.take_over(self._state.signals)
        try:
            with self._beside:
                return self._supervise()
        finally:
            self._companions.close()
            if self._remembering:
                self._remembering.join(REMEMBER_SECONDS)
            self._loader.close()
            if self._watcher:
                self._watcher.close()
            self._monitor.close()
            if self._control:
                self._control.close()

    def _supervise(self) -> int:
        try:
            self._monitor.configure(self._source.config)
            if self._state:
                for generation in self._state.generations:
                    self._companions.needed_by(generation.config)
                self._supervisor.resume(self._state, self._adopt)
                os.kill(os.getpid(), signal.SIGCHLD)  # to hear of those that ended while nobody listened
            else:
                self._supervisor.start()
            while self._supervisor.exit_code is None:
                with suppress(Empty):  # when nothing happened, time has passed
                    self._supervisor.handle(self._events.get(timeout=self._turn_seconds))
                self._supervisor.tick()
                self._upgrades.tick()
            return self._supervisor.exit_code
        except Exception:
            log.critical("a bug in geard; the worker processes drain by themselves", exc_info=True)
            return exits.SOFTWARE

    @property
    def _turn_seconds(self) -> float:
        return TURN_SECONDS if self._upgrades.are_under_way else self._supervisor.turn_seconds

    @property
    def _impossible_upgrade(self) -> str:
        if not isinstance(self._beside, nullcontext):
            return "the embedded job server is part of this daemon; restart it"
        return "it runs with --watch; restart it" if self._watcher else ""

    def _with_descriptors(self, state: State) -> State:
        return msgspec.structs.replace(
            state,
            listener=self._control.descriptor if self._control else None,
            socket_path=self._control.path if self._control else "",
            presence=self._seats.presence.descriptor if self._seats else None,
            dead_letters_address=self._companions.dead_letters_address,
        )

    def _heard(self, child: Child) -> Callable[[FromChild], None]:
        return lambda message: self._events.put(Received(child, message))

    def _ended(self, child: Child) -> Callable[[int], None]:
        def ended(status: int) -> None:
            self._events.put(Exited(child, status))
            self._free_seat(child)

        return ended

    def _adopt(self, child: Child, state: ChildState) -> None:
        if self._seats and state.seat is not None:
            child.seat = self._seats.presence.seat(state.seat)
        carried = state.descriptor, state.received
        child.process = WorkerProcess.adopt(state.pid, carried, self._heard(child), self._ended(child))

    # --- worker processes -----------------------------------------------------------------------------------------

    def _spawn(self, child: Child) -> None:
        config = child.group.config
        self._companions.needed_by(config)
        child.seat = self._seats.take(time.monotonic()) if self._seats else None
        start = Start(
            config,
            child.number,
            child.generation,
            self._verbose,
            presence=self._seats.presence.descriptor if self._seats and child.seat else None,
            seat=child.seat.number if child.seat else None,
            suspects=tuple(self._supervisor.suspects),
            dead_letters=self._companions.dead_letters_address if config.dead_letters else "",
            sharers=child.sharers,
        )
        try:
            child.process = WorkerProcess(start, self._heard(child), self._ended(child))
        except OSError:
            self._free_seat(child)
            raise

    def _free_seat(self, child: Child) -> None:
        if child.seat and self._seats:
            self._seats.free(child.seat, time.monotonic())

    def _remember(self, paused: Pauses) -> None:
        self._pauses.set(paused)
        self._remembering = gevent.spawn(gevent.get_hub().threadpool.apply, self._pauses.write)

    def _configured(self, config: Config) -> None:
        if self._serves:
            self._reconfigure(config)
        self._serves, self._source = True, replace(self._source, config=config)
        self._companions.configured(config)

    def _reconfigure(self, config: Config) -> None:
        if _socket_path(config) != _socket_path(self._source.config):
            log.warning("control_socket changes when the daemon is restarted, not by a reload")
        _configure_log(config, self._verbose, can_do_without=True)
        self._monitor.configure(config)
        if self._watcher:
            self._watcher.configured(config)


def _seats(state: State | None) -> Seats | None:
    try:
        if state is None or state.presence is None:
            return Seats(Presence())
        os.set_inheritable(state.presence, False)
        taken = [child.seat for child in state.children if child.seat is not None]
        return Seats(Presence(state.presence), taken=taken, now=time.monotonic())
    except (AttributeError, OSError) as error:
        log.warning("which jobs a worker process had when it dies is known from its heartbeats only: %s", error)
        return None


def _configure_log(config: Config, verbose: bool, *, can_do_without: bool) -> None:
    try:
        logs.configure(config.logging, verbose=verbose, can_do_without=can_do_without)
    except OSError as error:
        problem = Problem(f"cannot be opened: {(error.strerror or str(error)).lower()}", key="logging.file")
        raise ConfigError([problem]) from error


def _watcher(source: Source, tell: Callable[[Event], None]) -> Watcher:
    try:
        from geard.supervisor.watch import Watcher  # imports watchfiles, which only --watch needs
    except ImportError as error:
        raise InvalidRequest("--watch needs the package watchfiles: pip install 'geard[watch]'") from error
    watcher = Watcher(source.file, lambda paths: tell(SourcesChanged(paths)))
    watcher.configured(source.config)
    return watcher


def _socket_path(config: Config) -> str:
    return config.control_socket or default_control_socket()


def _control_server(source: Source, ask: Callable[[Event], None], state: State | None) -> ControlServer | None:
    """The control server; None, with a warning, where nobody asked for one and the usual place cannot be had."""
    listener = state.listener if state else None
    path = state.socket_path if state and listener is not None else _socket_path(source.config)
    identity = Identity(os.getpid(), __version__, os.path.abspath(source.file))
    try:
        return ControlServer(path, ask, identity, listener=listener)
    except (SocketInUse, Untrusted, OSError) as error:
        if source.config.control_socket:
            raise ConfigError([Problem(f"cannot listen on {path}: {error}", key="control_socket")]) from error
        log.warning("no control socket, so no geard ps, reload or stop: cannot listen on %s: %s", path, error)
        return None
