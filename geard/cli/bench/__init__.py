"""`geard bench`: how fast a function's jobs go through on this machine, and what each of them costs."""

from geard.cli.bench.command import bench

__all__ = ["bench"]
