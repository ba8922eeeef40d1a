"""What capabilities count with prometheus_client themselves, summed over worker processes.

With PROMETHEUS_MULTIPROC_DIR set, as the supervisor does, prometheus_client keeps each process's counts in files of its
own there. Rules:
- Counters never fall: those of a process that has ended are added to files of ours, and its own are removed.
- A gauge belongs to its process and goes with it.
- Whatever is in those files harms nobody: one that cannot be read is left out.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any, Final

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

ADDED_UP: Final = ("counter", "histogram", "summary")
OURS: Final = "ended"
"""Stands for a pid in the names of our files."""

log = logging.getLogger("geard.monitor")


class UserMetrics:
    """The files of one directory; "" for none."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._ended: set[str] = set()  # pids seen without a process once

    def collect(self, alive: Collection[int] | None) -> Iterator[Metric]:
        """Every metric of user code. `alive` are the pids of the worker processes; None when nobody knows them."""
        if not self._directory or not os.path.isdir(self._directory):
            return
        if alive is not None:
            self._add_up_ended({str(pid) for pid in alive})
        files = [path for path in glob.glob(os.path.join(self._directory, "*.db")) if _is_readable(path)]
        try:
            metrics: list[Any] = list(MultiProcessCollector.merge(files, accumulate=True))  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever those files hold
            log.warning("the metrics of capabilities cannot be read: %r", error)
            return
        for metric in metrics:
            if not metric.name.startswith(("geard_", "gearman_")):  # those are ours to give
                yield metric

    def _add_up_ended(self, alive: set[str]) -> None:
        """A process that is only just starting has files and is not known yet: it counts as ended the second time."""
        paths = glob.glob(os.path.join(self._directory, "*_*.db"))
        owners = {path: os.path.basename(path).removesuffix(".db").rpartition("_")[2] for path in paths}
        gone = {pid for pid in owners.values() if pid != OURS and pid not in alive and not _is_there(pid)}
        for path, pid in owners.items():
            if pid in gone & self._ended:
                self._take_over(path)
        self._ended = gone

    def _take_over(self, path: str) -> None:
        kind = os.path.basename(path).partition("_")[0]
        try:
            if kind in ADDED_UP:
                _add(path, os.path.join(self._directory, f"{kind}_{OURS}.db"))
            os.unlink(path)
        except Exception as error:  # whatever that file holds
            log.warning("the metrics in %s cannot be added up and are dropped: %r", path, error)
            with suppress(OSError):
                os.unlink(path)


def _add(path: str, into: str) -> None:
    values = list(MmapedDict.read_all_values_from_file(path))  # type: ignore[no-untyped-call]
    totals = MmapedDict(into)  # type: ignore[no-untyped-call]
    try:
        for key, value, timestamp, _ in values:
            before, _ = totals.read_value(key)  # type: ignore[no-untyped-call]
            totals.write_value(key, before + value, timestamp)  # type: ignore[no-untyped-call]
    finally:
        totals.close()  # type: ignore[no-untyped-call]


def _is_readable(path: str) -> bool:
    try:
        list(MmapedDict.read_all_values_from_file(path))  # type: ignore[no-untyped-call]
    except Exception:  # cut short, or no such file any more
        return False
    return True


def _is_there(pid: str) -> bool:
    return not pid.isdecimal() or os.path.exists(f"/proc/{pid}")
