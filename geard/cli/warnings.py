"""What `geard check` warns of: what runs, and will hurt. Pure.

Each is a Problem with the place of its key; the config can run all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from geard.cli.answers import count
from geard.cli.service import Service
from geard.cli.workforce import connections_per_server, per_server
from geard.config import Config, format_duration
from geard.errors import Problem
from geard.findings import Blocking
from geard.supervisor.decisions import process_groups

INSTEAD: Final = {  # what one can do about a library that blocks, besides `thread: true`
    "MySQLdb": "PyMySQL, which yields",
    "psycopg2": "psycopg 3, which yields, or psycogreen.gevent.patch_psycopg() in the module",
    "grpc": "grpc.experimental.gevent.init_gevent() in the module",
    "cx_Oracle": "oracledb in its thin mode, which yields",
    "oracledb": "its thin mode, without init_oracle_client(), which yields",
    "zmq": "zmq.green, which yields",
}
OTHER_DESCRIPTORS: Final = 30
"""What a worker process has open besides: its log, its supervisor, gevent's, shared memory."""


def warnings(
    config: Config, blocking: Sequence[Blocking], service: Service | None, descriptors: float
) -> Iterator[Problem]:
    """All of them. `descriptors` is how many a process may have open here; `service`, if there is one, knows how many
    it may have there."""
    for one in blocking:
        yield _blocking(one)
    if service is not None:
        yield from _stop_timeout(config, service)
    yield from _descriptors(config, service, descriptors)


def _blocking(found: Blocking) -> Problem:
    others = "coroutines" if found.asynchronous else "jobs"
    what = f"{found.library}, whose calls hold up all other {others} of the process while they wait"
    instead = f", or {INSTEAD[found.library]}" if found.library in INSTEAD else ""
    if not found.capability:
        return Problem(
            f"warning: something that they import has loaded {what}",
            key="capabilities",
            hint=f"`thread: true` for those that use it{instead}",
        )
    remedy = "call it with asyncio.to_thread" if found.asynchronous else f"add `thread: true`{instead}"
    return Problem(f"warning: its module imports {what}", key=f"capabilities.{found.capability}", hint=remedy)


def _stop_timeout(config: Config, service: Service) -> Iterator[Problem]:
    ours, theirs = config.shutdown_timeout_seconds, service.stop_seconds
    if ours > theirs:
        yield Problem(
            f"warning: {format_duration(ours)} is longer than TimeoutStopSec ({format_duration(theirs)}) of "
            f"{service.name}: unless systemd hears geard ask for more time, it kills what still runs then",
            key="shutdown_timeout",
            hint=f"TimeoutStopSec={round(ours) + 5} in the unit, as `geard unit` writes it",
        )


def _descriptors(config: Config, service: Service | None, descriptors: float) -> Iterator[Problem]:
    most = service.descriptors if service else descriptors
    whose = f"LimitNOFILE of {service.name}" if service else "ulimit -n"
    for group in process_groups(config):
        connections = len(config.job_servers) * connections_per_server(group.config)
        greenlets = len(config.job_servers) * per_server(group.config)[0]
        if connections + greenlets + OTHER_DESCRIPTORS <= most:
            continue
        which = f" of {group.name}" if group.name else ""
        has = f"{count(greenlets, 'greenlet')} and {count(connections, 'connection')} to job servers"
        raised = connections + 2 * greenlets + OTHER_DESCRIPTORS
        yield Problem(
            f"warning: a worker process{which} has {has}, and may have {most:,.0f} files and sockets open ({whose}): "
            "jobs that open one fail when all are in use",
            key=f"capabilities.{group.name}" if group.name else "greenlets_per_server",
            hint=f"raise it to {raised:,}, or have more `processes` of fewer greenlets",
        )
