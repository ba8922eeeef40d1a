"""`geard check`: everything that is wrong with a config, or what it would run."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from typing import Final

import click

from geard import exits
from geard.cli.answers import aligned, count
from geard.cli.output import say, write_bytes
from geard.cli.schedules import upcoming
from geard.cli.service import named_service, service_of
from geard.cli.warnings import warnings
from geard.cli.workforce import per_server
from geard.config import Capability, Config, default_path, examine_config, format_duration
from geard.config.units import format_rate
from geard.findings import Served
from geard.printable import printable
from geard.reference import schema_text
from geard.supervisor.decisions import process_groups
from geard.supervisor.imports import import_capabilities

HEADER: Final[tuple[str, ...]] = (
    "CAPABILITY",
    "FUNCTION",
    "CALLED AS",
    "ENCODING",
    "TIMEOUT",
    "RATE",
    "GREENLETS",
    "PROCESSES",
)


@click.command(short_help="Say what is wrong with a config, or what it would run.")
@click.option("-c", "--config", "path", type=click.Path(), metavar="FILE", help="The config file.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a config, for editors, and look at none.")
@click.option(
    "--unit",
    metavar="NAME",
    help="The systemd unit that runs it, or its file; found by the config's path unless given.",
)
def check(path: str | None, schema: bool, unit: str | None) -> None:
    """Read the config, import its capabilities as a worker process would, and show what would run.

    Warnings are of what runs and will hurt: capabilities whose modules import libraries that block, without `thread:
    true`; more greenlets than a process may open files; a shutdown_timeout longer than the unit's TimeoutStopSec.

    Without -c it is $GEARD_CONFIG, or the first of geard.yaml, etc/geard.yaml, /etc/geard.yaml and
    /etc/geard/geard.yaml. Nothing is run, and no job server is asked.

    \b
    Exit codes: 0 the config can run, 78 it cannot, and stderr says why.
    Examples:
      geard check -c etc/geard.yaml
      geard check --schema > geard.schema.json
    """
    if schema:
        write_bytes(schema_text().encode())
        return
    source = examine_config(path or default_path())
    service = named_service(unit) if unit else service_of(source.file)
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
        found = count(sum(problem.count for problem in source.problems), "problem")
        say(f"{printable(source.file)} cannot run: {found}")
        sys.exit(exits.CONFIG)
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for warning in warnings(source.config, findings.blocking, service, descriptors):
        say(str(source.locate(warning)))
    click.echo("\n".join([f"{printable(source.file)} can run.", *plan(source.config, findings.served)]))


def plan(config: Config, served: Iterable[Served]) -> list[str]:
    """What would run, line by line."""
    servers = ", ".join(f"{server}{' with TLS' if server.tls else ''}" for server in config.job_servers)
    lines = [f"Job servers: {servers}", *workforce(config)]
    if config.on_start:
        lines.append(f"On start: {config.on_start}")
    if config.on_stop:
        lines.append(f"On stop: {config.on_stop}")
    if config.middleware:
        lines.append(f"Around all jobs: {', '.join(config.middleware)}")
    lines.append("")
    rows = [row(config, one, config.capabilities[one.name]) for one in served]
    return lines + aligned([HEADER, *rows], [False] * len(HEADER)) + upcoming(config)


def workforce(config: Config) -> list[str]:
    """The worker processes that the daemon would start, and how many jobs they run at a time: a line for each group of
    them, where there are several, and one for all together."""
    lines, total_processes, total_jobs, total_threads = [], 0, 0, 0
    groups = process_groups(config)
    for group in groups:
        greenlets, threads = per_server(group.config)
        jobs = group.processes * greenlets * len(config.job_servers)
        total_processes += group.processes
        total_jobs += jobs
        total_threads += group.processes * threads * len(config.job_servers)
        has = f"{count(group.processes, 'worker process')} with {count(greenlets, 'greenlet')} per job server"
        lines.append(f"{group.name or 'In common'}: {has}: {count(jobs, 'job')} at a time")
    if len(groups) == 1:
        lines = [f"Together: {lines[0].partition(': ')[2]}"]
    else:
        lines.append(f"Together: {count(total_processes, 'worker process')}: {count(total_jobs, 'job')} at a time")
    if total_threads:
        lines[-1] += f", {total_threads:,} of them in native threads"
    return lines


def row(config: Config, served: Served, capability: Capability) -> tuple[str, ...]:
    """A capability in the table; what it shares with the others is in brackets."""
    timeout, greenlets = capability.timeout_seconds, capability.greenlets_per_server or config.greenlets_per_server
    return (
        served.name,
        capability.function,
        served.convention + (", in a thread" if capability.thread else ""),
        served.encoding,
        "-" if timeout is None else format_duration(timeout),
        "-" if capability.rate is None else format_rate(capability.rate),
        str(greenlets) if capability.has_own_channel else f"({greenlets})",
        str(capability.processes or f"({config.processes})"),
    )
