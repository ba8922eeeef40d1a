"""The keys of the config, as tables. Validation, suggestions for unknown keys and etc/geard.yaml follow them.

A key's default is that of its field in geard/config/model.py. A new key is a field there, a line here and a paragraph
in etc/geard.yaml; a test holds the three together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from geard.config.address import ADDRESS_EXPECTED, ADDRESS_PATTERN, parse_address
from geard.config.kinds import kind, kind_of
from geard.config.model import (
    DEFAULT_PORT,
    Capability,
    Config,
    DeadLetterFile,
    JobServer,
    Logging,
    Retry,
    Schedule,
    Tls,
)
from geard.config.monitor import monitor
from geard.config.policies import check_dead_letters, check_retry, exceptions, rate, wait
from geard.config.problems import At, Refused, describe
from geard.config.records import Check, Key, list_of, record, usable
from geard.config.schedules import check_when, check_workloads, cron, every, timezone
from geard.config.tls import check_tls_files
from geard.config.units import format_duration
from geard.config.values import (
    DOTTED_PATH_EXPECTED,
    boolean,
    choice,
    client_id,
    dotted_path,
    duration,
    encoding,
    import_location,
    log_file,
    path,
    processes,
    readable_file,
    refuse,
    size,
    socket_path,
    text,
    whole_number,
    working_directory,
)
from geard.errors import InvalidRequest

MAX_PACKET_BYTES: Final = 2**32 - 1  # what the size in a packet's header can say

greenlets = whole_number(1, 100_000)
retry_times = whole_number(1, 1000)


# --- job servers -------------------------------------------------------------------------------------------------


@kind(ADDRESS_EXPECTED, schema={"type": "string", "pattern": ADDRESS_PATTERN})
def address(value: Any, at: At) -> JobServer:
    """A job server written as text."""
    if not isinstance(value, str):
        raise refuse(value, f"{ADDRESS_EXPECTED}, or a mapping with host, port and tls", at)
    try:
        return parse_address(value)
    except InvalidRequest as error:
        if at.filled.holds(at.path):
            raise Refused(f"{at.shown(value)} is not an address", expected=ADDRESS_EXPECTED) from None
        raise Refused(str(error)) from None


@kind("a host name or an IP address", schema={"type": "string", "minLength": 1})
def host(value: Any, at: At) -> str:
    """A host alone: a name, an IPv4 or an IPv6 address."""
    name = text("a host name or an IP address")(value, at)
    bare = name.count(":") > 1 and not name.startswith("[")
    server = address(f"[{name}]" if bare else name, at)
    if name not in (server.host, f"[{server.host}]"):
        raise Refused("holds a port", expected="the host alone", hint=f"write `port: {server.port}` beside it")
    return server.host


def check_certificate(tls: Tls, at: At) -> None:
    """A key belongs to a certificate, and OpenSSL can use the files."""
    if tls.key and not tls.certificate:
        raise Refused("has a `key` without a `certificate`", hint="name the PEM file of the key's certificate")
    check_tls_files(tls, at)


TLS_KEYS: Final = {
    "ca": Key(readable_file),
    "certificate": Key(readable_file),
    "key": Key(readable_file),
    "check_hostname": Key(boolean),
    "server_name": Key(text("the name to expect in the server's certificate")),
}
_tls = record(Tls, TLS_KEYS, Check(frozenset({"ca", "certificate", "key"}), check_certificate))


@kind("true or false, or a mapping", either=(boolean, _tls))
def tls(value: Any, at: At) -> Tls | None:
    """`true` for TLS with the system's authorities, or a mapping."""
    if isinstance(value, bool):
        return Tls() if value else None
    return _tls(value, at)


JOB_SERVER_KEYS: Final = {
    "host": Key(host),
    "port": Key(whole_number(1, 65535)),
    "tls": Key(tls),
}
_job_server = record(JobServer, JOB_SERVER_KEYS)


@kind(f"{ADDRESS_EXPECTED}, or a mapping", either=(address, _job_server))
def job_server(value: Any, at: At) -> JobServer:
    """A job server as text or as a mapping."""
    return _job_server(value, at) if isinstance(value, Mapping) else address(value, at)


_job_servers = list_of(
    job_server,
    f"a list, such as [localhost:{DEFAULT_PORT}]",
    identity=lambda server: (server.host.lower(), server.port),
)


@kind("a list of job servers, one at least", items=job_server, schema={"minItems": 1})
def job_servers(value: Any, at: At) -> tuple[JobServer, ...]:
    """The list of job servers: one at least, none of them twice."""
    if value == []:
        raise refuse(value, f"at least one job server, such as [localhost:{DEFAULT_PORT}]", at)
    return _job_servers(value, at)


# --- capabilities ------------------------------------------------------------------------------------------------


@kind(DOTTED_PATH_EXPECTED, schema=kind_of(dotted_path).schema)
def function(value: Any, at: At) -> Any:
    """A dotted path; in a program, the callable itself."""
    return value if callable(value) else dotted_path(value, at)


middleware = list_of(function, "a list of dotted paths, such as [mypackage.with_database]")


RETRY_KEYS: Final = {
    "times": Key(retry_times),
    "wait": Key(wait),
    "on": Key(exceptions),
    "not_on": Key(exceptions),
}
_retry = record(Retry, RETRY_KEYS, Check(frozenset({"on", "not_on"}), check_retry))


@kind("a number, or a mapping", either=(retry_times, _retry))
def retry(value: Any, at: At) -> Retry:
    """How often a job runs again, alone or in a mapping."""
    return _retry(value, at) if isinstance(value, Mapping) else Retry(retry_times(value, at))


CAPABILITY_KEYS: Final = {
    "function": Key(function),
    "encoding": Key(encoding),
    "timeout": Key(duration(least_seconds=0.001), "timeout_seconds"),
    "greenlets_per_server": Key(greenlets),
    "processes": Key(processes),
    "thread": Key(boolean),
    "rate": Key(rate),
    "retry": Key(retry),
    "dead_letter": Key(boolean),
    "exceptions": Key(boolean),
    "middleware": Key(middleware),
}
_capability = record(Capability, CAPABILITY_KEYS)


@kind(f"{DOTTED_PATH_EXPECTED}, or a mapping", either=(function, _capability))
def capability(value: Any, at: At) -> Capability:
    """A function alone, or a mapping with its limits."""
    if isinstance(value, Mapping):
        return _capability(value, at)
    if isinstance(value, str) or callable(value):
        return Capability(function(value, at))
    raise refuse(value, f"{DOTTED_PATH_EXPECTED}, or a mapping with the keys {', '.join(CAPABILITY_KEYS)}", at)


@kind("function names, one at least, each with its function", values=capability, schema={"minProperties": 1})
def capabilities(value: Any, at: At) -> dict[str, Capability]:
    """The functions on offer, by the names that clients call."""
    expected = "function names with their dotted paths, such as {reverse: geard.examples.reverse}"
    if not isinstance(value, Mapping) or not value:
        raise refuse(value, expected, at)
    found = {}
    for name, item in value.items():
        here = at.key(name)
        with here.reporting():
            if not isinstance(name, str) or not name or "\0" in name:
                raise Refused(f"a function's name cannot be {describe(name)}", expected="text without NUL, not empty")
            found[name] = capability(usable(item), here)
    return found


# --- schedules -----------------------------------------------------------------------------------------------------


@kind("what its encoding can say: text, or with `json` any value")
def workload(value: Any, at: At) -> Any:
    """Whether it can be encoded is for check_workloads to say."""
    return value


SCHEDULE_KEYS: Final = {
    "function": Key(text("the function name that clients would submit")),
    "workload": Key(workload),
    "cron": Key(cron),
    "every": Key(every, "every_seconds"),
    "timezone": Key(timezone),
    "encoding": Key(encoding),
    "unique": Key(text("text")),
    "catch_up": Key(choice("none", "last")),
}
_schedule = record(Schedule, SCHEDULE_KEYS, Check(frozenset({"cron", "every_seconds", "timezone"}), check_when))


@kind("names, each with a schedule", values=_schedule)
def schedules(value: Any, at: At) -> dict[str, Schedule]:
    """Jobs that are submitted at their times, by name."""
    if not isinstance(value, Mapping):
        raise refuse(value, "names with schedules, such as {nightly: {function: report, cron: '@daily'}}", at)
    found = {}
    for name, item in value.items():
        here = at.key(name)
        with here.reporting():
            if not isinstance(name, str) or not name.isprintable() or not name:
                raise Refused(f"a schedule's name cannot be {describe(name)}", expected="text on one line")
            found[name] = _schedule(usable(item), here)
    return found


# --- the config --------------------------------------------------------------------------------------------------


def check_patience(config: Config, at: At) -> None:
    """A process is named in the log before it is killed."""
    warning, hang = config.block_warning_seconds, config.hang_timeout_seconds
    if hang <= warning:
        key = "block_warning" if hang == Config().hang_timeout_seconds else "hang_timeout"
        at.key(key).report(
            f"hang_timeout ({at.key('hang_timeout').shown(format_duration(hang))}) is not longer than "
            f"block_warning ({at.key('block_warning').shown(format_duration(warning))})"
        )


def check_memory(config: Config, at: At) -> None:
    """A process is replaced without a gap before it stops taking jobs."""
    soft, hard = config.max_memory_bytes, config.max_memory_hard_bytes
    if soft is not None and hard is not None and hard <= soft:
        at.key("max_memory_hard").report("max_memory_hard is not more than max_memory")


LOGGING_KEYS: Final = {
    "level": Key(choice("debug", "info", "warning", "error", "critical")),
    "format": Key(choice("text", "json")),
    "file": Key(log_file),
    "repeats": Key(duration(), "repeats_seconds"),
}

DEAD_LETTER_KEYS: Final = {
    "file": Key(path),
    "keep": Key(duration(least_seconds=1), "keep_seconds"),
    "most": Key(whole_number(1)),
}
_dead_letters = record(DeadLetterFile, DEAD_LETTER_KEYS)


@kind("a path, or a mapping", either=(path, _dead_letters))
def dead_letters(value: Any, at: At) -> DeadLetterFile:
    """The file alone, or a mapping."""
    return _dead_letters(value, at) if isinstance(value, Mapping) else DeadLetterFile(file=path(value, at))


CONFIG_KEYS: Final = {
    "job_servers": Key(job_servers),
    "greenlets_per_server": Key(greenlets),
    "encoding": Key(encoding),
    "exceptions": Key(boolean),
    "capabilities": Key(capabilities),
    "python_path": Key(list_of(import_location, "a list of directories")),
    "working_directory": Key(working_directory),
    "on_start": Key(dotted_path),
    "on_stop": Key(dotted_path),
    "middleware": Key(middleware),
    "client_id": Key(client_id),
    "max_packet": Key(size(1024, MAX_PACKET_BYTES), "max_packet_bytes"),
    "dead_letters": Key(dead_letters),
    "schedules": Key(schedules),
    "state_directory": Key(path),
    "logging": Key(record(Logging, LOGGING_KEYS)),
    "processes": Key(processes),
    "shutdown_timeout": Key(duration(), "shutdown_timeout_seconds"),
    "drain_timeout": Key(duration(), "drain_timeout_seconds"),
    "max_jobs": Key(whole_number(1)),
    "max_memory": Key(size(1024**2), "max_memory_bytes"),
    "max_memory_hard": Key(size(1024**2), "max_memory_hard_bytes"),
    "max_age": Key(duration(least_seconds=1), "max_age_seconds"),
    "block_warning": Key(duration(least_seconds=0.01), "block_warning_seconds"),
    "hang_timeout": Key(duration(least_seconds=2), "hang_timeout_seconds"),  # it misses two heartbeats at least
    "poison_deaths": Key(whole_number(2)),
    "keep_workloads": Key(boolean),
    "control_socket": Key(socket_path),
    "monitor": Key(monitor),
}
_config = record(
    Config,
    CONFIG_KEYS,
    Check(frozenset({"block_warning_seconds", "hang_timeout_seconds"}), check_patience),
    Check(frozenset({"max_memory_bytes", "max_memory_hard_bytes"}), check_memory),
    Check(frozenset({"schedules", "encoding"}), check_workloads),
    Check(frozenset({"capabilities", "dead_letters"}), check_dead_letters),
)


@kind("a mapping", either=(_config,))
def config(value: Any, at: At) -> Config:
    """The whole config."""
    if not isinstance(value, Mapping):
        raise Refused(f"a config cannot be {at.describe(value)}", expected="keys with values, such as `processes: 1`")
    if "capabilities" not in value:
        at.report("`capabilities` is missing", expected="a function at least: {reverse: geard.examples.reverse}")
    return _config(value, at)
