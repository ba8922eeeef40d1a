"""`geard demo`: a job server, the daemon and some jobs, all on this machine; then nothing of it is left."""

from geard.cli.demo.command import demo

__all__ = ["demo"]
