"""The exit codes of every geard command, after sysexits(3)."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2  # click's own code for it
UNAVAILABLE: Final = 69  # EX_UNAVAILABLE
SOFTWARE: Final = 70  # EX_SOFTWARE
TIMED_OUT: Final = 75  # EX_TEMPFAIL
CONFIG: Final = 78  # EX_CONFIG
LEFT_JOBS: Final = 79
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE

MEANINGS: Final = {  # for people: the man page and the reference
    DONE: "done; of the daemon: drained",
    FAILED: "the job failed; of the daemon: it could not start",
    USAGE: "the command line is wrong",
    UNAVAILABLE: "no job server, or no daemon, could be reached",
    SOFTWARE: "a bug in geard: the log has the traceback",
    TIMED_OUT: "it took longer than was allowed",
    CONFIG: "the config cannot run; restarting would not help",
    LEFT_JOBS: "the daemon was told to stop and did, and left jobs to other workers; a service stays stopped",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "whoever read our output stopped reading",
}
