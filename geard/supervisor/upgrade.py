"""`geard upgrade`: execute the installed geard in this process, which goes on with its worker processes.

Rules:
- The new code is asked first, in a process of its own, whether it can read our state. Only then is it executed in
  place. A refusal harms nothing.
- Only a daemon at rest is upgraded: one that serves, in which no worker process is starting, and that has done all that
  it was told.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
import gevent.subprocess
import msgspec

from geard import exits, interpreter, logs
from geard.supervisor import signals
from geard.supervisor.answers import Answer, Reply
from geard.supervisor.companions import Companions
from geard.supervisor.process import WorkerProcess
from geard.supervisor.state import REFUSED, State, load
from geard.supervisor.supervisor import SIGNALS, Supervisor

VARIABLE: Final = "GEARD_UPGRADE"
"""Names the inherited descriptor of the state in the environment of the new supervisor."""
CHECK_SECONDS: Final = 20.0
AT_REST_SECONDS: Final = 10.0
"""How long an upgrade waits for a moment in which nothing is under way."""

log = logging.getLogger(__name__)


class Upgrades:
    """The upgrades that are asked for. At most one is under way."""

    def __init__(
        self,
        supervisor: Supervisor,
        companions: Companions,
        *,
        impossible: str,
        is_idle: Callable[[], bool],
        with_descriptors: Callable[[State], State],
    ) -> None:
        """`impossible` is why this daemon can never be upgraded, or ""; `is_idle` tells whether no event waits;
        `with_descriptors` adds to a state what the daemon has open."""
        self._supervisor = supervisor
        self._companions = companions
        self._impossible = impossible
        self._is_idle = is_idle
        self._with_descriptors = with_descriptors
        self._reply: Reply | None = None  # of who asked for the one under way
        self._deadline: float | None = None  # for the daemon to be at rest, once the installed code could go on

    @property
    def are_under_way(self) -> bool:
        """Whether one is being checked, or waits for the daemon to be at rest."""
        return self._reply is not None

    def asked(self, reply: Reply) -> None:
        """Begin one; `reply` hears when it is refused."""
        if self._impossible:
            reply(Answer(exits.FAILED, f"{REFUSED}: {self._impossible}"))
        elif self.are_under_way:
            reply(Answer(exits.TIMED_OUT, f"{REFUSED}: another upgrade is under way"))
        else:
            self._reply = reply
            gevent.spawn(self._check)

    def tick(self) -> None:
        """After each turn of the daemon's loop: go on with what was asked for."""
        if self._reply and self._supervisor.is_stopping:
            self._refuse(exits.TIMED_OUT, self._supervisor.not_at_rest)
        elif self._deadline is not None:
            self._upgrade_when_at_rest(self._deadline)

    def _check(self) -> None:
        try:
            why_not = check(self._supervisor.capture(), run=gevent.subprocess.run)
        except Exception as error:
            log.exception("a bug in geard: its state cannot be handed on")
            why_not = repr(error)
        if not self._reply:
            return  # the daemon stops
        if why_not:
            log.error("%s: %s", REFUSED, why_not)
            self._refuse(exits.FAILED, why_not)
        else:
            self._deadline = time.monotonic() + AT_REST_SECONDS

    def _refuse(self, exit_code: int, why_not: str) -> None:
        reply, self._reply, self._deadline = self._reply, None, None
        self._companions.resume()
        if reply:
            reply(Answer(exit_code, f"{REFUSED}: {why_not}"))

    def _upgrade_when_at_rest(self, deadline: float) -> None:
        processes = [child.process for child in self._supervisor.children if isinstance(child.process, WorkerProcess)]
        why_not = self._supervisor.not_at_rest
        if why_not or not self._is_idle() or not all(process.is_at_rest for process in processes):
            if time.monotonic() > deadline:
                self._refuse(exits.TIMED_OUT, f"{why_not or 'it is too busy'}; try again")
        elif not self._companions.paused:
            self._companions.pause()  # meanwhile something may have happened
        else:
            self._execute(processes)

    def _execute(self, processes: list[WorkerProcess]) -> None:
        self._supervisor.upgrading()
        for process in processes:
            process.pause()
        state = self._with_descriptors(self._supervisor.capture())
        state = msgspec.structs.replace(state, signals=signals.descriptor())
        try:
            signals.block(SIGNALS)  # they wait for the new code
            execute(state, sys.argv[1:])
        except OSError as error:
            signals.unblock(SIGNALS)
            for process in processes:
                process.resume()
            log.error("%s: %s", REFUSED, error)
            self._supervisor.not_upgraded()
            self._refuse(exits.FAILED, str(error))


def inherited() -> State | None:
    """The state that the supervisor before us in this process has left; None for a process that begins anew.

    Raises CannotUpgrade."""
    descriptor = os.environ.pop(VARIABLE, None)
    if descriptor is None:
        return None
    with open(int(descriptor), "rb") as memory:
        memory.seek(0)
        return load(memory.read())


def check(state: State, run: Callable[..., Any]) -> str:
    """Ask the code that is installed now whether it can go on from this state; why not, or "". `run` is
    subprocess.run, or gevent's."""
    try:
        done = run(
            interpreter.plain("geard.supervisor.check_state"),
            input=msgspec.json.encode(state),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CHECK_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"cannot run {sys.executable}: {error}"
    lines = done.stdout.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    return "" if done.returncode == 0 else lines[-1]


def execute(state: State, arguments: list[str]) -> None:
    """Execute the installed geard in this process, which gives it the state and the descriptors that this names.

    Comes back only by raising OSError, with all as it was."""
    memory = os.memfd_create("geard-upgrade")
    handed_on = [memory, *(child.descriptor for child in state.children)]
    handed_on += [
        descriptor for descriptor in (state.listener, state.presence, state.signals) if descriptor is not None
    ]
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(msgspec.json.encode(state))
        for descriptor in handed_on:
            os.set_inheritable(descriptor, True)
        os.environ[VARIABLE] = str(memory)
        logs.flush()
        program, *_ = whole = interpreter.plain("geard", *arguments)
        os.execv(program, whole)  # noqa: S606 - that is what it is for
    except OSError:
        os.environ.pop(VARIABLE, None)
        for descriptor in handed_on:
            os.set_inheritable(descriptor, False)
        os.close(memory)
        raise
