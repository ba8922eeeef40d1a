"""`geard init`: the files of a first project, each of which runs as it is."""

from geard.cli.init.command import init

__all__ = ["init"]
