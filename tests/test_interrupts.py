"""Ctrl-C again and again, to the very end of a command, is an exit code and no death by the signal."""

from __future__ import annotations

import signal
import subprocess
import sys

from geard import exits
from tests.support.waiting import DEADLINE_SECONDS

PROGRAM = """
import signal, sys, types
from geard import __main__

def command_line():
    for number in range(3):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if number == 2:
                {end}

class Late:
    def __del__(self, strike=signal.raise_signal):  # when Python's own handlers are gone
        strike(2)

sys.modules["geard.cli"] = types.SimpleNamespace(main=command_line)
sys.late = Late()
__main__.main()
"""


def run(end: str) -> int:
    program = [sys.executable, "-c", PROGRAM.replace("{end}", end)]
    return subprocess.run(program, timeout=DEADLINE_SECONDS, check=False).returncode


def test_an_interrupt_on_the_way_out_changes_no_exit_code() -> None:
    assert run("sys.exit(7)") == 7
    assert run("raise") == exits.INTERRUPTED


def test_one_that_waited_until_it_may_interrupt_lets_no_other_follow() -> None:
    program = """
import signal
from geard.cli.interrupts import no_interrupts, one_interrupt
try:
    with one_interrupt():
        with no_interrupts():
            signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    signal.raise_signal(signal.SIGINT)
    print("cleaned up")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=DEADLINE_SECONDS, check=False)
    assert (done.returncode, done.stdout) == (0, b"cleaned up\n"), done.stderr
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
