"""`geard top`: what the daemon does now, live in a terminal."""

from geard.cli.top.command import top

__all__ = ["top"]
