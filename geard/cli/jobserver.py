"""`geard jobserver`: the embedded job server as a process of its own."""

from __future__ import annotations

from typing import Final

import click

from geard.config import parse_address
from geard.config.model import Logging
from geard.config.units import format_duration, format_size, parse_duration, parse_size
from geard.errors import InvalidRequest
from geard.jobserver.options import DEFAULT_LISTEN, Options

UNLIMITED: Final = "unlimited"
_DEFAULTS = Options()


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except InvalidRequest as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        return parse_size(value)
    except InvalidRequest as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _retries(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value == UNLIMITED:
        return None
    if not value.isascii() or not value.isdecimal() or len(value) > 9:
        raise click.BadParameter(f"{value!r} is not a number from 0 up, or {UNLIMITED}", ctx, param)
    return int(value)


@click.command()
@click.option("--listen", default=DEFAULT_LISTEN, show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--queue", metavar="FILE", help="Keep background jobs in this file, so that none is lost in a restart.")
@click.option(
    "--max-queue", type=click.IntRange(0), default=0, help="Jobs per function; more are refused. 0: no limit."
)
@click.option(
    "--max-packet",
    metavar="SIZE",
    callback=_size,
    default=format_size(_DEFAULTS.max_packet_bytes),
    show_default=True,
    help="The largest packet.",
)
@click.option("--max-connections", type=click.IntRange(1), default=_DEFAULTS.max_connections, show_default=True)
@click.option(
    "--job-retries",
    metavar="N",
    callback=_retries,
    default=UNLIMITED,
    show_default=True,
    help="Drop a job that lost its worker so often; with 0, or 1, the first time.",
)
@click.option(
    "--exceptions", is_flag=True, help="Send WORK_EXCEPTION to every client, not only to those that ask for it."
)
@click.option(
    "--stall-timeout",
    metavar="DURATION",
    callback=_duration,
    default=format_duration(_DEFAULTS.stall_timeout_seconds),
    show_default=True,
    help="Drop a connection that is silent in the middle of a packet, or does not read, for so long.",
)
@click.option("--tls-certificate", metavar="FILE", help="Speak TLS, with this certificate (PEM).")
@click.option("--tls-key", metavar="FILE", help="The key of the certificate, when it is in a file of its own.")
@click.option("--tls-ca", metavar="FILE", help="Ask clients and workers for a certificate that this authority signed.")
@click.option("--check-args", is_flag=True, help="Check the options, and exit.")
@click.option("-v", "--verbose", is_flag=True, help="Log each connection that ends, and why.")
def jobserver(
    listen: str,
    queue: str | None,
    max_queue: int,
    max_packet: int,
    max_connections: int,
    job_retries: int | None,
    exceptions: bool,
    stall_timeout: float,
    tls_certificate: str | None,
    tls_key: str | None,
    tls_ca: str | None,
    check_args: bool,
    verbose: bool,
) -> None:
    """Serve Gearman clients and workers: a job server for one machine, for tests and for the first day.

    Runs until TERM or INT. Without --queue, jobs are in memory only. Started by systemd with a socket, it serves
    that one and --listen is not used. --check-args looks at the options and at the files of TLS; it neither listens
    nor opens the queue file.

    \b
    Examples:
      geard jobserver --queue jobs.sqlite
      geard jobserver --listen 0.0.0.0:4730 --tls-certificate me.pem --tls-ca ca.pem

    Exit codes: 0 stopped, 69 it cannot listen there, 78 the queue file or a certificate cannot be used.
    """
    options = Options(
        queue=queue,
        max_queue=max_queue,
        max_packet_bytes=max_packet,
        max_connections=max_connections,
        job_retries=job_retries,
        exceptions=exceptions,
        stall_timeout_seconds=stall_timeout,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_ca=tls_ca,
    )
    if (tls_key or tls_ca) and not tls_certificate:
        raise InvalidRequest("--tls-key and --tls-ca need --tls-certificate")
    address = parse_address(listen)

    from geard import logs
    from geard.jobserver import listeners  # these import gevent, which a wrong option need not wait for
    from geard.jobserver.server import JobServer
    from geard.supervisor.sd_notify import READY, SdNotify

    if check_args:
        listeners.tls_context(options)
        return
    logs.configure(Logging(), verbose=verbose, process="job server")
    server = JobServer(listeners.passed() or listeners.listen(address), options)
    server.run(on_ready=lambda: SdNotify().send(READY))
