"""The command: what is measured on what, and how the figures are shown."""

from __future__ import annotations

import os

import click
from click.core import ParameterSource

from geard.cli.bench import measure, plan
from geard.cli.bench.report import lines
from geard.cli.interrupts import one_interrupt
from geard.cli.options import parsed
from geard.cli.output import write_json, write_lines
from geard.config import JobServer, parse_address, parse_size
from geard.errors import ConfigError
from geard.supervisor.imports import import_capabilities


@click.command(short_help="Measure how fast a function's jobs go through, and what each costs.")
@click.argument("function", shell_complete=lambda ctx, param, incomplete: plan.names(ctx.params, incomplete))
@click.option("-n", "--jobs", type=click.IntRange(1), default=100_000, show_default=True, help="How many are queued.")
@click.option("--size", callback=parsed(parse_size), default="100", show_default=True, help="Bytes of each workload.")
@click.option("--workload", help="The workload of each job, where the function cannot take any text.")
@click.option("--concurrency", type=click.IntRange(1), default=50, show_default=True, help="Foreground jobs at a time.")
@click.option("--processes", type=click.IntRange(1), help="Worker processes; those of the config unless given.")
@click.option("--greenlets", type=click.IntRange(1), help="Greenlets of each; those of the config unless given.")
@click.option(
    "-s",
    "--server",
    callback=parsed(parse_address),
    metavar="HOST[:PORT]",
    help="Measure on this job server; on one of its own unless given.",
)
@click.option(
    "-c", "--config", "config_path", type=click.Path(), metavar="FILE", help="Where FUNCTION is a capability."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON, in seconds and bytes.")
def bench(
    function: str,
    jobs: int,
    size: int,
    workload: str | None,
    concurrency: int,
    processes: int | None,
    greenlets: int | None,
    server: JobServer | None,
    config_path: str | None,
    as_json: bool,
) -> None:
    """Measure how fast jobs of FUNCTION go through on this machine: submitted, drained from a full queue, and there and
    back; and what each costs the client, the worker and the job server, in CPU and memory.

    FUNCTION is a capability of the config, a dotted path, or one of geard's examples (reverse). It is called for each
    job, on a daemon that is started for that. The job server, also that of -s, knows it by a name that is made up:
    no worker but this one gets its jobs, and what is left of them is removed at the end, and after Ctrl-C. Only jobs
    that the function itself submits are real ones.

    \b
    Examples:
      geard bench reverse
      geard bench resize -c /etc/geard.yaml --workload photo.jpg --jobs 1000 --processes 4
      geard bench tasks.shout -s localhost --json | jq .drained

    Exit codes: 0 done, 1 the function fails, 69 no job server reached, 78 the config cannot be used.
    """
    sized = click.get_current_context().get_parameter_source("size") is not ParameterSource.DEFAULT
    if workload is not None and sized:
        raise click.UsageError("give --workload or --size, not both")
    planned = plan.make(
        function,
        config_path,
        workload=None if workload is None else os.fsencode(workload),
        size=size,
        jobs=jobs,
        concurrency=concurrency,
        processes=processes,
        greenlets=greenlets,
    )
    findings, problems = import_capabilities(planned.under_its_own_name)
    problems += findings.problems
    if problems:
        raise ConfigError(problems)
    with one_interrupt():
        report = measure.run(planned, server and planned.known(server))
    if as_json:
        write_json(report)
    else:
        write_lines(lines(report))
