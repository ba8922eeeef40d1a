"""The exit codes of every geard command, after sysexits(3)."""

from typing import Final

DONE: Final = 0  # the work was done; for the daemon: drained
FAILED: Final = 1  # the job failed; or a worker process of the daemon died at its start
USAGE: Final = 2  # the command line is wrong (click's own code for it)
UNAVAILABLE: Final = 69  # EX_UNAVAILABLE: no job server, or no supervisor, could be reached
SOFTWARE: Final = 70  # EX_SOFTWARE: a bug in geard; the log has the traceback
TIMED_OUT: Final = 75  # EX_TEMPFAIL: it took longer than was allowed
CONFIG: Final = 78  # EX_CONFIG: the config cannot run; restarting would not help
LEFT_JOBS: Final = 79  # the daemon stopped as it was told to, and left jobs to other workers; a service stays stopped
INTERRUPTED: Final = 130  # Ctrl-C: 128 + SIGINT, as a shell reports it
BROKEN_PIPE: Final = 141  # whoever read our output stopped reading: 128 + SIGPIPE
