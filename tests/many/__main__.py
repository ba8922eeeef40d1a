"""`make many`: twenty job servers, 100,000 jobs for each way to choose; three are killed and two added meanwhile.

Exit code 1 where a promise was broken: an acknowledged job that did not run or ran twice, or shares over 10 % apart.
"""

from __future__ import annotations

import argparse
import sys

from geard.client.choice import CHOICES
from tests.many.trial import trial

MOST_APART = 0.1


def main() -> int:
    """A trial of each way; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000, help="of each trial (%(default)s)")
    arguments = parser.parse_args()
    bad = 0
    for choose in CHOICES[1:]:
        report = trial(arguments.jobs, choose)
        print(report, flush=True)
        bad += bool(report.lost or report.doubled or report.wrong or report.spread > MOST_APART)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
