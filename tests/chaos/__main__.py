"""`make chaos`: minutes of storms on both job servers, with a ledger.

    make chaos ARGS='--seconds 60 --rounds 2 --seed 7'

Prints jobs, lost, doubled, the worst echo, and memory and descriptors before and after. Exits with 1 if a
promise was broken: a job lost, or run twice in a storm that killed nobody.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.chaos.storm import storm
from tests.support.servers import Embedded, Gearmand


def main() -> int:
    """Storms in turns; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45.0, help="the length of each storm (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of all kinds of storm (%(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    bad = 0
    for number in range(arguments.rounds):
        for kind in (Gearmand, Embedded):
            for rough in (False, True):
                with kind() as server:
                    report = storm(
                        server,
                        seconds=arguments.seconds,
                        rough=rough,
                        vandals=kind is Embedded,  # gearmand is not ours to break
                        seed=arguments.seed + number,
                    )
                print(report, flush=True)
                for line in report.broken_promises:
                    print(f"  BROKEN: {line}", flush=True)
                bad += bool(report.broken_promises)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
