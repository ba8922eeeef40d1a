"""`geard reap`: the ExecStopPost of the units, which lets worker processes drain that lost their supervisor."""

from __future__ import annotations

import os
from functools import partial

import click

from geard.cli.output import say
from geard.config import default_path, examine_config
from geard.config.units import format_duration
from geard.supervisor import reap as leftovers
from geard.supervisor.report import EXTEND_SECONDS
from geard.supervisor.sd_notify import SdNotify, extend_timeout


@click.command(hidden=True)
@click.option("-c", "--config", "path", metavar="FILE", default=default_path, help="The config of the service.")
def reap(path: str) -> None:
    """Let the worker processes that a dead supervisor left behind finish their jobs, within shutdown_timeout, then kill
    what is left in the service's control group.

    This is for systemd, which runs it as ExecStopPost of the unit, and refuses to run elsewhere.

    Example: geard reap -c /etc/geard/geard.yaml

    Exit codes: 0 nothing is left, 2 it was not systemd that started it.
    """
    by_choice = leftovers.ended_by_choice(os.environ)
    look = partial(leftovers.others_in, leftovers.control_group())
    if not by_choice and look():
        seconds = examine_config(path).config.shutdown_timeout_seconds + leftovers.GRACE_SECONDS
        within = format_duration(seconds)
        say(f"geard: the supervisor is gone; its worker processes may finish their jobs within {within}")
        notify = SdNotify()
        leftovers.wait_for_workers(look, seconds, lambda: notify.send(extend_timeout(EXTEND_SECONDS)))
    killed = leftovers.kill_all(look)
    if killed:
        say(f"geard: killed what was left of the service: {killed} {'process' if killed == 1 else 'processes'}")
