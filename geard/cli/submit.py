"""`geard submit`: one job, a file of jobs, or the wait for a job that runs already.

Rules: workloads and results are bytes, passed on as they are. stdout carries results (or handles) only; progress,
warnings and failures go to stderr. A job is never submitted twice.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import IO, Any

import click

from geard.cli.job import run_job, start_job, wait_for_job
from geard.cli.lines import DEFAULT_CONCURRENCY, run_lines, start_lines
from geard.cli.options import parsed, time_option
from geard.cli.servers import complete_function, server_options
from geard.cli.times import moment
from geard.client.choice import CHOICES, Choose
from geard.config import JobServer


@click.command(short_help="Submit a job and print its result; or a file of jobs.")
@click.argument("function", required=False, shell_complete=complete_function)
@click.argument("workload", required=False)
@click.option("-b", "--background", is_flag=True, help="Print the job's handle, and do not wait for its result.")
@click.option("--high", "priority", flag_value="high", help="Before the function's normal jobs.")
@click.option("--low", "priority", flag_value="low", help="After the function's normal jobs.")
@click.option(
    "-u",
    "--unique",
    help="The job's unique id: jobs of a function that have the same one are run as one. The word `workload` makes it "
    "of function and workload. It is random unless given.",
)
@click.option(
    "--at",
    callback=parsed(moment),
    metavar="WHEN",
    help="Start the job then, in the background: after a delay (90, 10m, 1h30m), at a time of day (18:30) or at a date "
    "and time (2030-01-31T18:30).",
)
@click.option("-f", "--file", type=click.File("rb"), help="Read the workload from this file.")
@click.option("--lines", is_flag=True, help="Each line of the file (or of stdin, with -) is the workload of a job.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    help=f"With --lines: how many jobs at a time; {DEFAULT_CONCURRENCY} unless given.",
)
@click.option(
    "--choose",
    type=click.Choice(CHOICES),
    help="Which of several job servers a job goes to: the first that answers, unless given; spread: all share them; "
    "unique: all share them, and equal function and unique go to the same one.",
)
@click.option("--wait", "handle", metavar="HANDLE", help="Wait for a job that was started in the background.")
@time_option("--timeout", text="Give up after so long (30, 5m), over all; what was submitted may still run.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, one object a line.")
@server_options
def submit(
    function: str | None,
    workload: str | None,
    background: bool,
    priority: str | None,
    unique: str | None,
    at: datetime | None,
    file: IO[bytes] | None,
    lines: bool,
    concurrency: int | None,
    choose: Choose | None,
    handle: str | None,
    timeout: float | None,
    as_json: bool,
    servers: tuple[JobServer, ...],
) -> None:
    """Submit a job for FUNCTION and print its result as it is.

    WORKLOAD is the job's argument, empty unless given; - reads it from stdin. What the job sends while it runs (data)
    is printed as it comes; its progress is drawn as a bar where stderr is a terminal, its warnings go to stderr.

    With --lines, line N of the output is the result of line N of the input, and empty where the job failed; what
    failed is listed at the end.

    \b
    Examples:
      geard submit reverse hello
      tar c photos | geard submit archive - > photos.tar.gz
      geard submit --background --at 18:30 send_report daily
      geard submit resize --file names.txt --lines --concurrency 200 > results.txt
      geard submit --wait H:build1:42

    \b
    Exit codes: 0 done, 1 the job failed (with --lines: one of them did), 2 usage, 69 no job server
    reached or the connection lost, 75 timed out, 78 the config file cannot be used, 130 interrupted.
    """
    if handle is not None:
        others = (function, background, priority, unique, at, file, lines, concurrency, choose)
        _refuse(any(others), "--wait goes with --timeout and --json only")
        wait_for_job(servers, handle, timeout_seconds=timeout, as_json=as_json)
        return
    if function is None:
        raise click.UsageError("Missing argument 'FUNCTION'.")
    _refuse(workload is not None and file is not None, "give WORKLOAD or --file, not both")
    _refuse(concurrency is not None and (background or not lines), "--concurrency is for --lines in the foreground")
    _refuse(at is not None and priority is not None, "--at goes without --high and --low: no packet carries both")
    background = background or at is not None
    _refuse(background and timeout is not None, "--timeout bounds the wait for a result: not for the background")
    common: dict[str, Any] = {
        "priority": priority or "normal",
        "unique": unique,
        "as_json": as_json,
        "choose": choose or "first",
    }
    if lines:
        stream = sys.stdin.buffer if workload == "-" else file
        if stream is None:
            raise click.UsageError("--lines reads from --file, or from stdin where WORKLOAD is -")
        _refuse(unique not in (None, "workload"), "with --lines only --unique workload: the same id is the same job")
        if background:
            start_lines(servers, function, stream, at=at, **common)
        else:
            workers = concurrency or DEFAULT_CONCURRENCY
            run_lines(servers, function, stream, concurrency=workers, timeout_seconds=timeout, **common)
        return
    data = _workload(workload, file)
    if background:
        start_job(servers, function, data, at=at, **common)
    else:
        run_job(servers, function, data, timeout_seconds=timeout, **common)


def _refuse(condition: bool, message: str) -> None:
    if condition:
        raise click.UsageError(message)


def _workload(argument: str | None, file: IO[bytes] | None) -> bytes:
    if file is not None:
        return file.read()
    if argument == "-":
        return sys.stdin.buffer.read()
    return os.fsencode(argument or "")
