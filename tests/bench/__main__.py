"""`make bench`: geard beside libgearman's C worker, in turns, on the same gearmand.

    make bench ARGS='--rounds 5 --jobs 50000'

Where there is no compiler or no libgearman (Debian: gcc, libgearman-dev), geard is measured alone. On a noisy machine
trust the ratios, which compare within a round, and run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

from tests.bench import measures, workers
from tests.support.servers import Gearmand, JobServerProcess

Start = Callable[[JobServerProcess], workers.Running]
Results = dict[str, list[dict[str, float]]]


def measure_drain(start: Start, jobs: int, size: int) -> dict[str, float]:
    """Queue the jobs, then start the worker on them."""
    with Gearmand("-t", "4") as server:
        measures.submit(server, "echo", jobs, size)
        with start(server) as worker:
            return measures.drain(server, worker, "echo", jobs)


def measure_round_trip(start: Start, calls: int) -> dict[str, float]:
    """One client, one job at a time."""
    with Gearmand("-t", "4") as server, start(server):
        return measures.round_trip(server, calls)


def measure_sleepers() -> dict[str, float]:
    """1,000 greenlets, jobs of 100 ms: how much of the ideal 10,000 jobs/s is reached."""
    with Gearmand("-t", "4") as server:
        measures.submit(server, "sleep100", 20_000, 100)
        with workers.geard(server, 1000) as worker:
            figures = measures.drain(server, worker, "sleep100", 20_000)
    return {**figures, "% of ideal": figures["jobs/s"] / 100}


def in_turns(rounds: int, measure: Callable[[Start], dict[str, float]], starts: dict[str, Start]) -> Results:
    """A B A B …: so that what slows the machine for a while slows both."""
    results: Results = {name: [] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            results[name].append(measure(start))
    return results


def report(title: str, results: Results) -> None:
    """The medians, and the median of each round's ratio to the C worker."""
    print(f"\n{title}")
    for name, runs in results.items():
        figures = [f"{key} {statistics.median(run[key] for run in runs):,.1f}" for key in runs[0]]
        if name != "c" and "c" in results:
            pairs = list(zip(runs, results["c"], strict=True))
            figures += [
                f"{key} is {statistics.median(ours[key] / theirs[key] for ours, theirs in pairs):.2f} x c"
                for key in runs[0]
            ]
        print(f"  {name:<6} {'   '.join(figures)}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=50_000)
    arguments = parser.parse_args()
    starts: dict[str, Start] = {"geard": lambda server: workers.geard(server, 50)}
    c_worker = workers.CWorker()
    if c_worker.build():
        starts = {"c": c_worker.start, **starts}
    else:
        print("no compiler or no libgearman: geard alone")
    for size in (100, 10_000):
        jobs = arguments.jobs if size == 100 else arguments.jobs // 5
        results = in_turns(arguments.rounds, lambda start, j=jobs, s=size: measure_drain(start, j, s), starts)  # type: ignore[misc]
        report(f"drain, {jobs:,} jobs of {size:,} bytes, 50 greenlets", results)
    report("round trip, 100 bytes", in_turns(arguments.rounds, lambda start: measure_round_trip(start, 2000), starts))
    sleepers = in_turns(arguments.rounds, lambda _: measure_sleepers(), {"geard": starts["geard"]})
    report("1,000 greenlets, jobs of 100 ms", sleepers)


if __name__ == "__main__":
    main()
