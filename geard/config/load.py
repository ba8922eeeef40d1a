"""From a file, or from a program's plain data, to a validated Config.

Rule: all that is wrong is reported together, in the order of the file, each with its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from geard.config.document import Document
from geard.config.filled import NOTHING_FILLED, Filled
from geard.config.keys import config as parse_config
from geard.config.model import Config, JobServer
from geard.config.problems import UNUSABLE, At, Problems
from geard.errors import ConfigError, Problem, most

MAX_FILE_BYTES: Final = 1024 * 1024
SEARCH_PATH: Final = ("geard.yaml", "etc/geard.yaml", "/etc/geard.yaml", "/etc/geard/geard.yaml")


@dataclass(frozen=True)
class Source:
    """A config file as it was read. `config` holds what is right in it, with defaults for what is not; `problems` are
    the first hundred things wrong with it."""

    file: str
    config: Config
    problems: tuple[Problem, ...]
    places: Mapping[str, tuple[int, int]]
    filled: Filled = NOTHING_FILLED

    def locate(self, problem: Problem) -> Problem:
        """The problem with file, line and column: those of its key, or of the nearest key around it. The names of
        environment variables stand where it would show their values."""
        if not problem.line and problem.count == 1:
            line, column = _place(problem.key, self.places)
            problem = replace(problem, file=self.file, line=line, column=column)
        return self.filled.redact(problem)

    def with_problems(self, problems: Iterable[Problem]) -> Source:
        """This source with more found wrong, placed and in the order of the file."""
        found = (*self.problems, *map(self.locate, problems))
        return replace(self, problems=most(sorted(found, key=by_place)))

    def check(self) -> None:
        """Raise ConfigError if anything is wrong."""
        if self.problems:
            raise ConfigError(self.problems)


def load_config(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Config:
    """The config in a file. Raises ConfigError with everything that is wrong with it."""
    return read_config(path, environ).config


def read_config(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Source:
    """As load_config, with the places of its keys for what turns out to be wrong later."""
    source = examine_config(path, environ)
    source.check()
    return source


def examine_config(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Source:
    """A config file with what is right and what is wrong in it. Raises nothing for what the file holds."""
    file = os.fspath(path)
    try:
        document = Document(_read(file), file, environ)
    except ConfigError as error:
        return Source(file, Config(), error.problems, {})
    config, problems = _validate(document.data, document.filled)
    source = Source(file, config, (), document.places, document.filled)
    return source.with_problems([*document.problems, *problems])


def load_job_servers(path: str | os.PathLike[str]) -> tuple[JobServer, ...]:
    """The job servers of a config file, whatever else the daemon would find wrong in it: a secret in an environment
    variable of its unit, say, is not ours to have. Raises ConfigError."""
    source = examine_config(path)
    problems = source.problems
    if "job_servers" in source.places:
        problems = tuple(problem for problem in problems if problem.key.startswith("job_servers"))
    if problems:
        raise ConfigError(problems)
    return source.config.job_servers


def config_from(data: Mapping[str, Any]) -> Config:
    """The config in a program's own data, with the keys of the YAML file; capabilities may be callables.

    Raises ConfigError."""
    config, problems = _validate(data)
    found = tuple(problems)
    if found:
        raise ConfigError(found)
    return config


def default_path(environ: Mapping[str, str] = os.environ) -> str:
    """The config file when none is named: `$GEARD_CONFIG`, else the first of SEARCH_PATH that exists.

    Raises ConfigError when there is none."""
    named = environ.get("GEARD_CONFIG")
    if named:
        return named
    for path in SEARCH_PATH:
        if os.path.exists(path):
            return path
    looked = f"looked for {', '.join(SEARCH_PATH)}"
    raise ConfigError([Problem("there is no config file", expected="-c FILE, or $GEARD_CONFIG", hint=looked)])


def _validate(data: Any, filled: Filled = NOTHING_FILLED) -> tuple[Config, Problems]:
    problems = Problems()
    at = At(problems, _working_directory(data), filled)
    config = Config()
    with at.reporting():
        if data is not UNUSABLE:
            config = parse_config(data, at)
    return config, problems


def _working_directory(data: Any) -> str:
    """Where relative paths start: in the config's working_directory if that can be used, else in the current one."""
    given = data.get("working_directory") if isinstance(data, Mapping) else None
    return os.path.abspath(given) if isinstance(given, str) and os.path.isdir(given) else os.getcwd()


def _read(file: str) -> str:
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError([Problem(f"cannot be read: {reason}", file, expected="a YAML file")]) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([Problem("is over 1 MiB", file, expected="a config of geard")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        problem = Problem(f"the byte 0x{data[error.start]:02x} is not UTF-8", file, line, column, expected="UTF-8 text")
        raise ConfigError([problem]) from error


def by_place(problem: Problem) -> tuple[bool, int, int]:
    """Sorts problems in the order of the file, those without a place last."""
    return not problem.line, problem.line, problem.column


def _place(key: str, places: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    while key and key not in places:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return places.get(key, (0, 0))
