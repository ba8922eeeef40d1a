"""`geard check`: everything that is wrong with a config, or what it would run."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Final

import click
import msgspec

from geard import exits
from geard.cli.answers import aligned
from geard.cli.output import say
from geard.config import Capability, Config, default_path, examine_config, format_duration
from geard.errors import Problem
from geard.worker.findings import IMPORT_TIMEOUT_SECONDS, Findings, Served

COMMAND: Final = (sys.executable, "-P", "-m", "gevent.monkey", "--module", "geard.worker.check")
HEADER: Final[tuple[str, ...]] = (
    "CAPABILITY",
    "FUNCTION",
    "CALLED AS",
    "ENCODING",
    "TIMEOUT",
    "GREENLETS",
    "PROCESSES",
)


@click.command(short_help="Say what is wrong with a config, or what it would run.")
@click.option(
    "-c", "--config", "path", type=click.Path(), default=default_path, metavar="FILE", help="The config file."
)
def check(path: str) -> None:
    """Read the config, import its capabilities as a worker process would, and show what would run.

    Without -c it is $GEARD_CONFIG, or the first of geard.yaml, etc/geard.yaml, /etc/geard.yaml and
    /etc/geard/geard.yaml. Nothing is run, and no job server is asked.

    \b
    Exit codes: 0 the config can run, 78 it cannot, and stderr says why.
    Example:    geard check -c etc/geard.yaml
    """
    source = examine_config(path)
    findings, problems = import_capabilities(source.config)
    source = source.with_problems([*problems, *findings.problems])
    for problem in source.problems:
        say(str(problem))
    if findings.imported_early:
        say(
            "imported before geard could make them cooperative, so jobs that use them hold up all others: "
            + ", ".join(findings.imported_early)
        )
    if source.problems:
        say(f"{source.file} cannot run: {count(len(source.problems), 'problem')}")
        sys.exit(exits.CONFIG)
    click.echo("\n".join([f"{source.file} can run.", *plan(source.config, findings.served)]))


def import_capabilities(config: Config) -> tuple[Findings, list[Problem]]:
    """What a fresh interpreter finds when it imports what the config names, and what kept it from finishing."""
    nothing = Findings((), (), ())
    if not config.capabilities and not config.on_start:
        return nothing, []
    try:
        process = subprocess.run(
            COMMAND, input=msgspec.json.encode(config), stdout=subprocess.PIPE, timeout=IMPORT_TIMEOUT_SECONDS + 5
        )
    except subprocess.TimeoutExpired:
        message = f"importing them took longer than {IMPORT_TIMEOUT_SECONDS:.0f} s"
        return nothing, [Problem(message, key="capabilities", hint="the stack above shows where it hangs")]
    if process.returncode or not process.stdout:
        return nothing, [Problem(f"importing them {ending(process.returncode)}", key="capabilities")]
    return msgspec.json.decode(process.stdout, type=Findings), []


def ending(return_code: int) -> str:
    """How a process ended that should not have."""
    if return_code >= 0:
        return f"ended the process with exit code {return_code}"
    return f"ended the process with {signal.Signals(-return_code).name}"


def plan(config: Config, served: Iterable[Served]) -> list[str]:
    """What would run, line by line."""
    servers = ", ".join(f"{server}{' with TLS' if server.tls else ''}" for server in config.job_servers)
    at_a_time = config.processes * config.greenlets_per_server * len(config.job_servers)
    greenlets = f"{count(config.greenlets_per_server, 'greenlet')} per job server"
    lines = [
        f"Job servers: {servers}",
        f"Together: {count(config.processes, 'worker process')} with {greenlets}: {count(at_a_time, 'job')} at a time",
        "",
    ]
    if config.on_start:
        lines.insert(2, f"On start: {config.on_start}")
    rows = [row(config, one, config.capabilities[one.name]) for one in served]
    return lines + aligned([HEADER, *rows], [False] * len(HEADER))


def row(config: Config, served: Served, capability: Capability) -> tuple[str, ...]:
    """A capability in the table; what it shares with the others is in brackets."""
    timeout = capability.timeout_seconds
    return (
        served.name,
        capability.function,
        served.convention + (", in a thread" if capability.thread else ""),
        served.encoding,
        "-" if timeout is None else format_duration(timeout),
        str(capability.greenlets_per_server or f"({config.greenlets_per_server})"),
        str(capability.processes or f"({config.processes})"),
    )


def count(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`, `2 processes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
