"""The systemd unit that runs a config, read from its files: what it grants the daemon.

Rule: of a setting that is given more than once, in the unit or in its drop-ins, the last counts, as for systemd.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from geard.errors import InvalidRequest

SEARCH_PATH: Final = (  # as systemd's; what is first hides a unit of the same name, and its drop-ins count last
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
DEFAULT_STOP_SECONDS: Final = 90.0
DEFAULT_DESCRIPTORS: Final = 1024
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
_UNITS: Final = {
    "us usec": 1e-6,
    "ms msec": 1e-3,
    " s sec second seconds": 1.0,
    "m min minute minutes": 60.0,
    "h hr hour hours": 3600.0,
    "d day days": 86400.0,
    "w week weeks": 604800.0,
}
_SECONDS: Final = {name: seconds for names, seconds in _UNITS.items() for name in names.split(" ")}


@dataclass(frozen=True)
class Service:
    """A unit of type service. `settings` are those of its [Service] section."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def stop_seconds(self) -> float:
        """TimeoutStopSec: after so long systemd kills what has not stopped."""
        text = self.settings.get("TimeoutStopSec") or self.settings.get("TimeoutSec") or ""
        seconds = span_seconds(text)
        return DEFAULT_STOP_SECONDS if seconds is None else seconds or math.inf

    @property
    def descriptors(self) -> float:
        """LimitNOFILE: how many file descriptors a process may have open."""
        soft = self.settings.get("LimitNOFILE", "").partition(":")[0]
        if soft == "infinity":
            return math.inf
        return int(soft) if soft.isdecimal() else DEFAULT_DESCRIPTORS

    def runs(self, config: str) -> bool:
        """Whether its ExecStart is `geard run` with this config file."""
        words = self.settings.get("ExecStart", "").split()
        instance = re.sub(r"%[iI]", Path(config).stem, " ".join(words)).split()
        named = [word.partition("=")[2] for word in instance if word.startswith("--config=")]
        named += [after for word, after in pairwise(instance) if word in ("-c", "--config")]
        return "run" in words and any(os.path.realpath(path) == os.path.realpath(config) for path in named)


def service_of(config: str, search_path: Sequence[str] = SEARCH_PATH) -> Service | None:
    """The first unit with `geard` in its name that runs this config file; None where there is none."""
    for directory in search_path:
        for file in sorted(Path(directory).glob("*geard*.service")):
            service = _read(file.name, search_path)
            if service is not None and service.runs(config):
                return service
    return None


def named_service(unit: str, search_path: Sequence[str] = SEARCH_PATH) -> Service:
    """The unit of that name, or in that file. Raises InvalidRequest when it cannot be read."""
    if "/" in unit:
        try:
            return Service(Path(unit).name, _settings([Path(unit)]))
        except OSError as error:
            raise InvalidRequest(f"{unit}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    name = unit if unit.endswith(".service") else f"{unit}.service"
    service = _read(name, search_path)
    if service is None:
        raise InvalidRequest(f"there is no unit {name}: looked in {', '.join(search_path)}")
    return service


def span_seconds(text: str) -> float | None:
    """A time span as systemd writes it: `90`, `1min 30s`, `infinity`. None for one that is none."""
    text = text.strip().lower()
    if text == "infinity":
        return math.inf
    if not re.fullmatch(f"(?:{_SPAN.pattern})+", text):
        return None
    parts = [(float(number), _SECONDS.get(unit)) for number, unit in _SPAN.findall(text)]
    return None if any(unit is None for _, unit in parts) else sum(number * (unit or 0) for number, unit in parts)


def _read(name: str, search_path: Sequence[str]) -> Service | None:
    template = re.sub(r"@.+\.service$", "@.service", name)
    for candidate in dict.fromkeys((name, template)):
        files = [Path(directory, candidate) for directory in search_path]
        unit = next((file for file in files if file.is_file()), None)
        if unit is None:
            continue
        drop_ins: dict[str, Path] = {}
        for directory in reversed(search_path):
            for owner in dict.fromkeys((template, candidate, name)):
                drop_ins |= {file.name: file for file in Path(directory, f"{owner}.d").glob("*.conf")}
        try:
            return Service(name, _settings([unit, *(drop_ins[key] for key in sorted(drop_ins))]))
        except OSError:
            return None
    return None


def _settings(files: Iterable[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        section = ""
        for line in file.read_text(errors="replace").replace("\\\n", " ").splitlines():
            line = line.strip()
            if line.startswith("["):
                section = line
            elif section == "[Service]" and "=" in line and line[0] not in "#;":
                name, _, value = line.partition("=")
                found[name.strip()] = value.strip()
                if name.strip() == "TimeoutSec":
                    found.pop("TimeoutStopSec", None)
    return found
