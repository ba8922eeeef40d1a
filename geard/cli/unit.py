"""`geard unit`: a systemd unit for this installation and config.

Those under systemd/ are what this makes for /opt/geard/bin/geard and a config in /etc/geard: a test holds them equal.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from string import Template
from typing import Final

import click

from geard.cli.output import say, write_bytes
from geard.config import default_path, examine_config
from geard.config.model import Config

STOP_MARGIN_SECONDS: Final = 5
"""What systemd grants beyond shutdown_timeout: to hand jobs back, and to kill what is stuck."""

TEMPLATE: Final = Template("""\
[Unit]
Description=geard, the Gearman worker daemon$about
Documentation=https://gearman.org/protocol/
# Job servers on this machine should be up first; those elsewhere may come and go, geard reconnects.
Wants=network-online.target
After=network-online.target gearman-job-server.service
# A crash is restarted for ever, a broken config or what was told to stop never (RestartPreventExitStatus).
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=exec
ExecStart=$geard run -c $config
# Waits for the outcome: when the new config or code is refused, systemctl reload fails and the old goes on.
ExecReload=$geard reload --socket $socket
# TERM goes to the supervisor alone, which drains its worker processes within shutdown_timeout and extends this. Where
# the supervisor dies, they drain by themselves; reap waits for them, and kills what is left in the end.
KillMode=process
ExecStopPost=$geard reap -c $config
TimeoutStopSec=$stop_seconds
# Imports and on_start of the capabilities; geard extends this too.
TimeoutStartSec=90
Restart=on-failure
RestartSec=1
# 78: the config cannot run, and would not when started again. 79: it was told to stop, and left jobs to other workers.
RestartPreventExitStatus=78 79
SuccessExitStatus=79
# geard says so only while its worker processes make progress.
WatchdogSec=30

RuntimeDirectory=$runtime_directory
StateDirectory=$runtime_directory
LogsDirectory=$runtime_directory
WorkingDirectory=$working_directory
UMask=0027
${writable}LimitNOFILE=65536
OOMPolicy=continue
# Where capabilities find their settings: NAME=value lines, which the config sees as $${NAME}.
EnvironmentFile=-$environment_file

# What the service may do: connect to the network, write to its own directories, run programs. Loosen what a
# capability needs with `systemctl edit`, as in ReadWritePaths=/srv/images.
$user
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=$protect_home
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
# Not MemoryDenyWriteExecute: C extensions and ctypes, which capabilities may use, need such memory.

[Install]
WantedBy=multi-user.target
""")


@click.command()
@click.option("-c", "--config", "path", metavar="FILE", help="The config that the service runs.")
@click.option("--user", help="Run as this user rather than one that systemd makes up (DynamicUser).")
def unit(path: str | None, user: str | None) -> None:
    """Print a systemd unit for this installation and config.

    \b
    Example:
      geard unit -c /etc/geard.yaml > /etc/systemd/system/geard.service
      systemctl daemon-reload
      systemctl enable --now geard
    """
    file = os.path.abspath(path or default_path())
    source = examine_config(file)
    for problem in source.problems:  # the service may have an environment that this shell has not
        say(f"geard: note: {problem}")
    if not user:
        for path in (file, program()[0], sys.executable, *source.config.python_path):
            closed = closed_directory(path)
            if closed:
                say(f"geard: note: {closed} is closed to the service's user, who needs {path}: use /opt, or --user")
    write_bytes(render(source.config, quoted(file), command(), user=user).encode())


def program() -> tuple[str, ...]:
    """The geard that runs now, as a unit may name it: the words of its command."""
    beside = Path(sys.executable).with_name("geard")
    return (str(beside),) if beside.exists() else (sys.executable, "-m", "geard")


def command() -> str:
    """The same as a unit writes it."""
    return " ".join(map(quoted, program()))


def closed_directory(path: str) -> str:
    """The directory on the way to `path`, symbolic links followed, that another user may not enter; or ""."""
    parents = Path(os.path.realpath(path)).parents
    return next((str(parent) for parent in parents if parent.exists() and not parent.stat().st_mode & 0o001), "")


def quoted(path: str, *, in_command: bool = True) -> str:
    """A path as ExecStart, or a list of paths, takes it for one word that means itself."""
    if re.fullmatch(r"[\w@+=:,./-]+", path, re.ASCII):
        return path
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if in_command:
        escaped = escaped.replace("$", "$$")
    return f'"{escaped}"'


def render(
    config: Config,
    file: str,
    geard: str,
    *,
    user: str | None = None,
    name: str = "geard",
    about: str = "",
    working_directory: str = "",
) -> str:
    """The text of the unit. `file` is a word of ExecStart: `quoted`, or with `%i` in it; `geard` a `command`. `name`
    is that of its directories under /run, /var/lib and /var/log; without a `working_directory` it works in the one
    under /var/lib.
    Pure."""
    elsewhere = {os.path.dirname(path) for path in (config.control_socket, config.logging.file) if path}
    elsewhere -= {f"/run/{name}", f"/var/lib/{name}", f"/var/log/{name}"}
    writable = [quoted(path, in_command=False) for path in sorted(elsewhere)]
    in_home = any(path.lstrip('"').startswith(("/home/", "/root/")) for path in (file, geard, *config.python_path))
    return TEMPLATE.substitute(
        about=about,
        geard=geard,
        config=file,
        socket=quoted(config.control_socket) if config.control_socket else f"%t/{name}/geard.sock",
        stop_seconds=round(config.shutdown_timeout_seconds) + STOP_MARGIN_SECONDS,
        runtime_directory=name,
        working_directory=working_directory.replace("%", "%%") or f"%S/{name}",
        environment_file=f"/etc/default/{name}",
        writable=f"ReadWritePaths={' '.join(writable)}\n" if writable else "",
        user=f"User={user}" if user else "DynamicUser=yes",
        protect_home="read-only" if in_home else "yes",
    )
