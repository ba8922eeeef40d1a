"""The trial: twenty job servers in three processes, one client, and a ledger of what was acknowledged and what ran."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, islice

from geard import Admin, Client, ConnectionLost, Handle, Job, WorkerPool, config_from
from geard.client.choice import Choose
from geard.errors import GeardError
from tests.support.servers import HOST, free_port, stop_process
from tests.support.waiting import eventually

STEADY, KILLED, LATE, NEW = 15, 3, 1, 1
"""How many job servers stay, are killed, come up later, and are added to the client's list: twenty together."""

LOT = 100
"""Jobs of one call that submits many."""


class Servers:
    """Job servers in one process. A context manager; `start` again serves the same addresses."""

    def __init__(self, directory: str, number: int) -> None:
        self._directory = directory
        self.ports = [free_port() for _ in range(number)]
        self.addresses = [f"{HOST}:{port}" for port in self.ports]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Servers:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.many.serve", self._directory, *map(str, self.ports)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def kill(self) -> None:
        """As a crash would."""
        assert self._process
        assert self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process and self._process.returncode is None:
            stop_process(self._process)
            assert self._process.stdout
            self._process.stdout.close()


@dataclass
class Report:
    """What came of it."""

    choose: Choose
    jobs: int
    seconds: float
    acknowledged: dict[str, str] = field(default_factory=dict)  # job -> the job server that has acknowledged it
    in_doubt: set[str] = field(default_factory=set)  # ended by an error
    wrong: list[str] = field(default_factory=list)  # answers that were not the job's own
    runs: Counter[str] = field(default_factory=Counter)
    shares: Counter[str] = field(default_factory=Counter)  # how many jobs each job server has given to a worker
    steady: Sequence[str] = ()
    killed: Sequence[str] = ()
    added: Sequence[str] = ()

    @property
    def lost(self) -> set[str]:
        """Acknowledged, and never run."""
        return {job for job in self.acknowledged if not self.runs[job]}

    @property
    def doubled(self) -> set[str]:
        """Run more than once, although nothing happened to its job server: one that is killed may not have kept that a
        job was done."""
        return {
            job
            for job, runs in self.runs.items()
            if runs > 1 and job not in self.in_doubt and self.acknowledged.get(job) not in self.killed
        }

    @property
    def spread(self) -> float:
        """How far the share of any that was up all the time is from their mean, as a part of it."""
        shares = [self.shares[address] for address in self.steady]
        mean = sum(shares) / len(shares)
        return max(abs(share - mean) for share in shares) / mean

    def __str__(self) -> str:
        shares = self.shares
        steady, killed, added = (
            ", ".join(str(shares[address]) for address in addresses)
            for addresses in (self.steady, self.killed, self.added)
        )
        outcome = f"{len(self.lost)} lost, {len(self.doubled)} run twice, {len(self.wrong)} wrong answers"
        return f"""\
{self.choose}: {self.jobs:,} jobs in {self.seconds:.1f} s, {self.jobs / self.seconds:,.0f}/s
  {len(self.acknowledged):,} acknowledged, {len(self.in_doubt):,} ended by an error, {outcome}
  up all the time: {steady}; at most {self.spread:.1%} from their mean
  killed: {killed}; added: {added}"""


def trial(jobs: int, choose: Choose) -> Report:
    """Submit so many jobs in four threads, each in its own way; kill, add, and look at what has run in the end."""
    with (
        tempfile.TemporaryDirectory(prefix="geard-test-") as directory,
        Servers(directory, STEADY).start() as steady,
        Servers(directory, KILLED).start() as killed,
        Servers(directory, LATE + NEW) as added,
    ):
        late, everybody = added.addresses[:LATE], steady.addresses + killed.addresses + added.addresses
        report = Report(choose, jobs, 0.0, steady=steady.addresses, killed=killed.addresses, added=added.addresses)
        with working(everybody, report), Client(steady.addresses + killed.addresses + late, choose=choose) as client:
            eventually(lambda: connected(client, STEADY + KILLED), what="connections to all that are up")
            submitter = Submitter(client, jobs, report)
            begin = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                ways = [submitter.one_by_one, submitter.one_by_one, submitter.many, submitter.mapped]
                threads = [pool.submit(way) for way in ways]
                submitter.wait_for(jobs // 3)
                killed.kill()
                submitter.wait_for(jobs // 2)
                added.start()
                client.set_servers(everybody)
                submitter.go_on.set()
                for thread in threads:
                    thread.result()
            report.seconds = time.monotonic() - begin
            killed.start()
            eventually(lambda: not report.lost, within=120, what="a run of every acknowledged job")
            # Whatever would run a second time has had its turn when nothing is left anywhere.
            eventually(lambda: all(map(is_empty, everybody)), within=120, what="empty queues")
    return report


def connected(client: Client, number: int) -> bool:
    """Whether it has so many connections; a unique is asked of all job servers, so all are dialled."""
    with suppress(ConnectionLost):  # one is not there yet
        client.status_unique("nobody's")
    return repr(client).startswith(f"<Client {number} of")


def is_empty(address: str) -> bool:
    """Whether no job is left there."""
    with Admin(address) as admin:
        return not any(row.total for row in admin.status())


class Submitter:
    """Takes the numbers of jobs, submits them in its ways, and writes down what is said of each."""

    def __init__(self, client: Client, jobs: int, report: Report) -> None:
        self._client = client
        self._report = report
        self._jobs = jobs
        self._numbers = count()
        self._taken = 0
        self.go_on = threading.Event()
        """The second half of the jobs waits for it, so that there is one however fast the first goes."""

    def wait_for(self, jobs: int) -> None:
        """Until so many are on their way."""
        eventually(lambda: self._taken >= jobs, within=600, what=f"{jobs} jobs on their way")

    def _names(self, most: int = sys.maxsize) -> Iterator[str]:
        for number in islice(self._numbers, most):
            self._taken = max(self._taken, number)
            if number >= self._jobs:
                return
            if number > self._jobs // 2:
                self.go_on.wait()
            yield f"job {number}"

    def one_by_one(self) -> None:
        for name in self._names():
            try:
                handle = self._client.submit_background("note", name, unique=name)
            except GeardError:
                self._report.in_doubt.add(name)
            else:
                self._acknowledge(name, handle)

    def many(self) -> None:
        while names := list(self._names(LOT)):
            handles = iter(self._client.submit_many_background("note", names, unique="workload"))
            for position, name in enumerate(names):
                try:
                    self._acknowledge(name, next(handles))
                except GeardError:
                    self._report.in_doubt.update(names[position:])
                    break

    def mapped(self) -> None:
        for name, outcome in self._client.map("note", self._names(), pairs=True, ordered=False, unique="workload"):
            if isinstance(outcome, GeardError):
                self._report.in_doubt.add(name)
            elif outcome != name:
                self._report.wrong.append(f"{name}: {outcome!r}")

    def _acknowledge(self, name: str, handle: str) -> None:
        assert isinstance(handle, Handle)
        self._report.acknowledged[name] = str(handle.server)


@contextmanager
def working(addresses: Sequence[str], report: Report) -> Iterator[None]:
    """A worker for all of them, in threads."""
    lock = threading.Lock()

    def note(job: Job, workload: str) -> str:
        with lock:
            report.runs[workload] += 1
            report.shares[job.server] += 1
        return workload

    config = config_from(
        {"job_servers": list(addresses), "greenlets_per_server": 1, "capabilities": {"note": {"function": note}}}
    )
    stop: Callable[[], object] = WorkerPool(config).start()
    try:
        yield
    finally:
        stop()
