"""What a config says, as frozen data, with every default and unit in one place.

Nothing here reads a file or the environment. These are also the objects that a program hands to WorkerPool and Client.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from msgspec import Struct, field

DEFAULT_PORT: Final = 4730
"""Gearman's port, as registered with IANA."""

Encoding = str
"""`bytes`, `json`, or the name of a text codec such as `utf-8`."""


class Tls(Struct, frozen=True, kw_only=True):
    """How to speak TLS with a job server. Paths are of PEM files."""

    ca: str | None = None  # who signs the server's certificate; None: whom the system trusts
    certificate: str | None = None  # ours, for a server that asks who we are
    key: str | None = None  # of our certificate; None: it is in the certificate's file
    check_hostname: bool = True
    server_name: str | None = None  # the name to expect in the certificate; None: the host


class JobServer(Struct, frozen=True):
    """The address of one job server."""

    host: str
    port: int = DEFAULT_PORT
    tls: Tls | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Wait(NamedTuple):
    """How long a retry waits: at random, from the least to a bound that doubles with each try, up to the most."""

    least_seconds: float
    most_seconds: float


class Rate(NamedTuple):
    """How many jobs are taken in a period, by all worker processes of the daemon together."""

    jobs: int
    period_seconds: int
    burst: int = 0  # so many more at once, after a time in which fewer came

    @property
    def per_second(self) -> float:
        """Jobs a second."""
        return self.jobs / self.period_seconds


class Retry(Struct, frozen=True):
    """When a job that failed runs again. `on` and `not_on` are dotted paths of exceptions, built-in ones by their
    names; not_on wins."""

    times: int  # again, after the first
    wait: Wait = Wait(2.0, 3600.0)
    on: tuple[str, ...] = ()  # empty: whatever the function raises
    not_on: tuple[str, ...] = ()


class Capability(Struct, frozen=True):
    """A function on offer: the callable that serves it and the limits it runs under.

    `function` is a dotted path (`module.attr` or `module:attr`); in a program it may be the callable itself."""

    function: Any
    encoding: Encoding | None = None  # None: the config's
    timeout_seconds: float | None = None  # None: as long as it takes
    greenlets_per_server: int | None = None  # None: it shares the others' greenlets; else a channel of its own
    processes: int | None = None  # None: it runs in the common worker processes; else in so many of its own
    thread: bool = False  # run in a native thread: for C code that blocks without yielding
    rate: Rate | None = None  # None: as fast as they can be run; else on a channel of its own
    retry: Retry | None = None  # None: a job that failed has failed
    dead_letter: bool = False  # one that failed for good is kept in the file of dead letters
    exceptions: bool | None = None  # None: the config's
    middleware: tuple[Any, ...] = ()  # dotted paths (in a program, callables) of code around it, within the config's

    @property
    def has_own_channel(self) -> bool:
        """Whether it shares no connections and greenlets with others."""
        return self.greenlets_per_server is not None or self.rate is not None


class Schedule(Struct, frozen=True, kw_only=True):
    """A job that is submitted at its times. Exactly one of `cron` and `every_seconds` is given."""

    function: str
    workload: Any = ""
    cron: str | None = None
    every_seconds: int | None = None  # counted from the Unix epoch
    timezone: str = "UTC"  # of the cron expression
    encoding: Encoding | None = None  # of the workload; None: the config's
    unique: str | None = None  # schedules of one unique are one, on however many machines; None: the schedule's name
    catch_up: str = "none"  # or "last": of the times missed while every scheduler was down, the last is made up for


class DeadLetterFile(Struct, frozen=True, kw_only=True):
    """Where jobs that failed for good are kept."""

    file: str  # SQLite
    keep_seconds: float | None = None  # None: for ever
    most: int | None = 100_000  # the oldest go first


class Logging(Struct, frozen=True, kw_only=True):
    """Where and how the log is written."""

    level: str = "info"
    format: str = "text"  # or "json": one object a line
    file: str | None = None  # None: stderr
    repeats_seconds: float = 10.0  # the same failure is written whole once, then counted for so long; 0: never counted


class Listen(Struct, frozen=True):
    """Where the monitor listens: a TCP address, or a Unix socket when there is a `path`."""

    host: str = "127.0.0.1"
    port: int = 8733
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Monitor(Struct, frozen=True, kw_only=True):
    """The monitor: metrics, health, the dashboard and its API, in a process of its own."""

    listen: Listen = Listen()
    password_file: str | None = None  # a browser is asked for what is in it; any user name goes
    token_file: str | None = None  # what a scraper or a peer shows as `Authorization: Bearer`
    read_only: bool = False  # no reload, no replacing, no dropping
    base_path: str = ""  # where a reverse proxy has put it, such as /geard
    hosts: tuple[str, ...] = ()  # further names that it is reached by
    certificate: str | None = None  # PEM file; with it, HTTPS
    key: str | None = None  # of the certificate; None: it is in the certificate's file
    peers: tuple[str, ...] = ()  # monitors of other daemons, to be shown together with this one


class Config(Struct, frozen=True, kw_only=True):
    """A whole config, validated. `load_config` makes one from YAML; a program may make its own."""

    job_servers: tuple[JobServer, ...] = (JobServer("localhost"),)
    capabilities: Mapping[str, Capability] = field(default_factory=dict)
    greenlets_per_server: int = 50
    encoding: Encoding = "utf-8"
    exceptions: bool = True  # the reason of a failure goes to clients that asked for it; False: to none
    python_path: tuple[str, ...] = ()
    working_directory: str | None = None
    on_start: str | None = None  # dotted path, called once in each worker process before it takes jobs
    on_stop: str | None = None  # dotted path, called once in each worker process after its last job
    middleware: tuple[Any, ...] = ()  # dotted paths (in a program, callables) of code around all jobs, outermost first
    client_id: str | None = None  # None: host-pid-name
    max_packet_bytes: int = 64 * 1024 * 1024
    dead_letters: DeadLetterFile | None = None
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    state_directory: str | None = None  # what outlives a restart is kept there; None: $STATE_DIRECTORY, else nowhere
    logging: Logging = Logging()
    # the supervisor's
    processes: int = 1
    shutdown_timeout_seconds: float = 25.0  # a TERM's drain; under the 30 s that most service managers grant
    drain_timeout_seconds: float | None = None  # an old generation's drain after a reload; None: as long as it takes
    max_jobs: int | None = None  # a worker process is replaced after so many jobs
    max_memory_bytes: int | None = None  # ... when its resident memory is over this
    max_memory_hard_bytes: int | None = None  # ... and takes no more jobs, at once, when it is over this
    max_age_seconds: float | None = None  # ... when it is older than this
    block_warning_seconds: float = 1.0  # a capability that does not yield for so long is named in the log
    poison_deaths: int = 3  # a job whose process has died so often fails
    hang_timeout_seconds: float = 60.0  # a worker process whose loop one job holds for so long is killed
    keep_workloads: bool = False  # of failed jobs, cut at 4 KiB, for `geard failures` and the monitor
    control_socket: str | None = None  # None: see default_control_socket
    monitor: Monitor | None = None  # None: there is none


SOCKET_NAME: Final = "geard.sock"


def runtime_socket(directories: str) -> str:
    """The control socket in the first of these directories (with colons between, as systemd has it); "" for none."""
    first = directories.split(":")[0]
    return os.path.join(first, SOCKET_NAME) if first else ""


def default_control_socket(environ: Mapping[str, str] = os.environ) -> str:
    """Where the supervisor listens when the config does not say. geard/supervisor/find.py looks here too."""
    runtime = runtime_socket(environ.get("RUNTIME_DIRECTORY", "")) or runtime_socket(environ.get("XDG_RUNTIME_DIR", ""))
    if runtime:
        return runtime
    return f"/run/geard/{SOCKET_NAME}" if os.geteuid() == 0 else f"/tmp/geard-{os.geteuid()}.sock"  # noqa: S108


def state_directory(config: Config) -> str | None:
    """Where what outlives a restart is kept; None where nobody named a place."""
    return config.state_directory or os.environ.get("STATE_DIRECTORY", "").split(":")[0] or None
