"""What is measured: a capability, under a function name of its own, and the workload of its jobs.

Rule: no job server is ever given jobs of a function's real name, which real workers would run: the name is made up, and
nobody else's.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from geard.config import Capability, Config, JobServer, default_path, examine_config, read_config
from geard.errors import ConfigError, InvalidRequest

EXAMPLES: Final = {  # those of geard.examples by their names
    **{name: Capability(f"geard.examples.{name}") for name in ("reverse", "count_slowly", "upper_lines", "fail")},
    "divide": Capability("geard.examples.divide", encoding="json"),
}
SHOWN_CHARACTERS: Final = 100
"""Of a function's name in the name that is made up: an admin command must take it."""


@dataclass(frozen=True)
class Plan:
    """A benchmark. `config` has one capability, by the name `function`; its job servers are the user's, and not those
    that it runs on."""

    shown: str  # the function, as the user calls it
    function: str
    config: Config
    workload: bytes
    jobs: int
    concurrency: int  # foreground jobs that a client has outstanding

    @property
    def under_its_own_name(self) -> Config:
        """The config with the name that the user knows, for what is wrong with it."""
        (capability,) = self.config.capabilities.values()
        return msgspec.structs.replace(self.config, capabilities={self.shown: capability})

    def known(self, server: JobServer) -> JobServer:
        """The job server, with the TLS that the config has for it."""
        same = (one for one in self.config.job_servers if (one.host, one.port) == (server.host, server.port))
        return next(same, server)


def find(function: str, config_path: str | None) -> tuple[Config, Capability]:
    """The capability that FUNCTION names, and the config that it belongs to: one of the config file's; else the
    callable of a dotted path; else one of geard.examples; else, where no file was named, one of the default config's.

    Raises ConfigError for a config that cannot be used, InvalidRequest for a function that is not to be found."""
    if config_path is not None:
        config = read_config(config_path).config
        if function in config.capabilities:
            return config, config.capabilities[function]
        if not _is_dotted(function):
            raise _unknown(function, f"{config_path} has {', '.join(config.capabilities)}")
        return config, Capability(function)
    if _is_dotted(function):
        return Config(python_path=(os.getcwd(),)), Capability(function)
    if function in EXAMPLES:
        return Config(), EXAMPLES[function]
    try:
        config = read_config(default_path()).config
    except ConfigError as error:
        raise _unknown(function, f"geard.examples has {', '.join(EXAMPLES)}") from error
    if function not in config.capabilities:
        raise _unknown(function, f"{default_path()} has {', '.join(config.capabilities)}")
    return config, config.capabilities[function]


def make(
    function: str,
    config_path: str | None,
    *,
    workload: bytes | None,
    size: int,
    jobs: int,
    concurrency: int,
    processes: int | None,
    greenlets: int | None,
) -> Plan:
    """The plan that the command line asks for. Without a workload it is text of `size` bytes. Raises as `find` does."""
    whole, capability = find(function, config_path)
    processes = processes or capability.processes or whole.processes
    greenlets = greenlets or capability.greenlets_per_server or whole.greenlets_per_server
    name = made_up(function)
    if workload is None:
        workload = example(size, capability.encoding or whole.encoding)
    config = msgspec.structs.replace(
        whole,
        # A job that fails is to be seen to fail, and leaves nothing in a job server that comes due later.
        capabilities={
            name: msgspec.structs.replace(
                capability, processes=None, greenlets_per_server=None, retry=None, dead_letter=False
            )
        },
        processes=processes,
        greenlets_per_server=greenlets,
        dead_letters=None,
        schedules={},
        monitor=None,
        client_id=None,
        state_directory=None,
        shutdown_timeout_seconds=0.0,  # what is in flight at the end nobody waits for
    )
    return Plan(function, name, config, workload, jobs, concurrency)


def made_up(function: str, token: Callable[[], str] = lambda: secrets.token_hex(4)) -> str:
    """A function name that nobody else has, made of printable ASCII that the admin protocol takes."""
    shown = re.sub(r"[^\w.:-]", "_", function, flags=re.ASCII)[:SHOWN_CHARACTERS]
    return f"geard-bench-{os.getpid()}-{token()}-{shown}"


def example(size: int, encoding: str) -> bytes:
    """A workload of `size` bytes that any function of this encoding gets to see: text; in JSON, a string."""
    return json.dumps("x" * max(size - 2, 0)).encode() if encoding == "json" else b"x" * size


def names(params: Mapping[str, Any], incomplete: str) -> list[str]:
    """Functions for the shell: those of the config and the examples."""
    path = params.get("config_path")
    found: set[str] = set() if path else set(EXAMPLES)
    with suppress(ConfigError):
        found |= set(examine_config(path or default_path()).config.capabilities)
    return sorted(name for name in found if name.startswith(incomplete))


def _is_dotted(function: str) -> bool:
    return "." in function or ":" in function


def _unknown(function: str, known: str) -> InvalidRequest:
    return InvalidRequest(f"there is no function {function!r}: {known}; any other by its dotted path, module.function")
