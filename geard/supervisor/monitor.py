"""The monitor's process as the daemon keeps it: there while the config has a `monitor`, replaced when it hangs.

Rule: nothing here can harm the work. Whatever the monitor does, the supervisor does no more than start another.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import time
from functools import partial
from typing import Final

import gevent

from geard import interpreter
from geard.config.model import Config
from geard.supervisor.beside import Beside
from geard.supervisor.monitor_start import Start, dump, start_of

HUNG_SECONDS: Final = 30.0
CHECK_SECONDS: Final = 5.0
HANDOVER_SECONDS: Final = 1.0
"""How much longer an old monitor runs: it may have to tell a browser the outcome of the reload that ends it."""
METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
METRICS_PREFIX: Final = "geard-metrics-"

log = logging.getLogger(__name__)


class MonitorKeeper:
    """See the module. `configure` it with each config that takes effect; `close` it at the end."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._start: Start | None = None
        self._process: Beside | None = None
        self._heard_at = 0.0
        self._own_directory = ""
        self._watch = gevent.spawn(self._replace_hung)

    def __repr__(self) -> str:
        return f"<MonitorKeeper {self._process}>"

    def configure(self, config: Config) -> None:
        """Run a monitor for this config, or none. Worker processes that start after this share their own metrics."""
        start = None
        if config.monitor:
            start = start_of(config, metrics_directory=self._metrics_directory(), verbose=self._verbose)
        if start == self._start:
            return
        if self._process:
            gevent.spawn_later(HANDOVER_SECONDS, self._process.stop)
        self._process, self._start = None, start
        if start:
            self._heard_at = time.monotonic()
            command = partial(interpreter.patched, "geard.monitor.process")
            self._process = Beside("monitor", command, first_line=lambda: dump(start), on_line=self._heard)
            self._process.start()

    def close(self) -> None:
        """No monitor any more."""
        self._watch.kill()
        if self._process:
            self._process.stop()
        if self._own_directory:
            os.environ.pop(METRICS_VARIABLE, None)
            shutil.rmtree(self._own_directory, ignore_errors=True)

    def _heard(self, _line: bytes) -> None:
        self._heard_at = time.monotonic()

    def _replace_hung(self) -> None:
        while True:
            gevent.sleep(CHECK_SECONDS)
            silent_seconds = time.monotonic() - self._heard_at
            if self._process and self._process.pid and silent_seconds > HUNG_SECONDS:
                log.error("killing the monitor (pid %d): silent for %.0f s", self._process.pid, silent_seconds)
                self._heard_at = time.monotonic()
                self._process.signal(signal.SIGKILL)

    def _metrics_directory(self) -> str:
        """Where worker processes keep their own metrics: the operator's choice, or a directory of ours."""
        if METRICS_VARIABLE not in os.environ:
            try:
                self._own_directory = tempfile.mkdtemp(prefix=METRICS_PREFIX)
            except OSError as error:
                log.warning("what capabilities count with prometheus_client stays unseen: %s", error)
                return ""
            os.environ[METRICS_VARIABLE] = self._own_directory
        elif os.path.basename(os.environ[METRICS_VARIABLE]).startswith(METRICS_PREFIX):
            self._own_directory = os.environ[METRICS_VARIABLE]  # of this daemon before an upgrade
        return os.environ[METRICS_VARIABLE]
