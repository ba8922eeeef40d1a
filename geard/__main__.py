"""The console script `geard`, and `python -m geard`.

Rule: nothing of weight is imported outside `main`, so that Ctrl-C ends a command quietly while it is still loading.
"""

import sys

from geard import exits


def main() -> None:
    """Run the command line."""
    try:
        from geard.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)


if __name__ == "__main__":
    main()
