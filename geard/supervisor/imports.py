"""What is wrong with the capabilities of a config, found by importing them in a fresh interpreter, as a worker process
would.

`geard check` always asks. A start and a reload ask only when the config is refused anyhow, so that all that is wrong
is told at once: where nothing is, the worker processes themselves are the ones to import.

Rule: loads neither gevent nor anything of the worker.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any, Final

import msgspec

from geard import interpreter
from geard.config.load import Source
from geard.config.model import Config
from geard.errors import Problem
from geard.findings import IMPORT_TIMEOUT_SECONDS, Findings
from geard.messages import how_it_ended

GIVE_UP_SECONDS: Final = IMPORT_TIMEOUT_SECONDS + 5

Run = Callable[..., Any]
"""`subprocess.run`, or gevent's in a process with a loop that must not wait."""


def with_import_problems(source: Source, *, run: Run = subprocess.run) -> Source:
    """A source that is refused, with what its capabilities add to that; any other as it is, without a look at them."""
    if not source.problems:
        return source
    findings, problems = import_capabilities(source.config, run=run)
    return source.with_problems([*problems, *findings.problems])


def import_capabilities(config: Config, *, run: Run = subprocess.run) -> tuple[Findings, list[Problem]]:
    """What a fresh interpreter finds when it imports what the config names, and what kept it from finishing."""
    nothing = Findings((), (), ())
    if not config.capabilities and not config.on_start:
        return nothing, []
    try:
        process = run(
            interpreter.patched("geard.worker.check"),
            input=msgspec.json.encode(config),
            stdout=subprocess.PIPE,
            timeout=GIVE_UP_SECONDS,
            env=interpreter.environment(),
            start_new_session=True,  # a terminal's ^C reaches the one who waits, and that ends this
        )
    except subprocess.TimeoutExpired:
        message = f"importing them took longer than {IMPORT_TIMEOUT_SECONDS:.0f} s"
        return nothing, [Problem(message, key="capabilities", hint="the stack above shows where it hangs")]
    except OSError as error:
        return nothing, [Problem(f"cannot start a process to import them: {error}", key="capabilities")]
    if process.returncode or not process.stdout:
        message = f"the process that imports them {how_it_ended(process.returncode)}"
        return nothing, [Problem(message, key="capabilities")]
    return msgspec.json.decode(process.stdout, type=Findings), []
