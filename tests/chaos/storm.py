"""A storm: for some seconds, everything that can go wrong around two daemons and a job server goes wrong, and the
ledger tells what came of it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from geard.client import Client
from geard.errors import GeardError
from tests.chaos.ledger import Clients, Ledger
from tests.chaos.proxy import Proxy, Weather
from tests.chaos.vandals import RubbishServer, Vandals
from tests.support.daemon import Daemon
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually

BAD_WEATHER = Weather(delay_seconds=0.003, stall_chance=0.002, stall_seconds=1.0)
DRIZZLE = Weather(delay_seconds=0.001, piece_bytes=1, stall_chance=0.0002, stall_seconds=0.5)
"""One byte at a time: no header comes whole."""

HARMLESS = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2)
"""Signals to a supervisor that must not cost a job anything."""

SETTLE_SECONDS = 120.0

SPARE_DESCRIPTORS = 16
"""Connections that come and go while they are counted. A leak of one for each attack would be hundreds."""


@dataclass
class Report:
    """What a storm left behind. Memory in bytes and descriptors before and after, by process."""

    name: str
    rough: bool
    jobs: int
    in_doubt: int
    lost: set[str]
    doubled: set[str]
    wrong: list[str]
    signals: int
    kills: int
    resets: int
    attacks: int
    late_calls: list[float]
    worst_echo_seconds: float
    before: dict[str, tuple[int, int]]
    after: dict[str, tuple[int, int]]

    @property
    def broken_promises(self) -> list[str]:
        """In words, with names. A job may run twice only where its worker process or its connection was broken."""
        broken = [f"lost: {name}" for name in sorted(self.lost)]
        broken += [f"a wrong answer: {text}" for text in self.wrong]
        broken += [f"run twice: {name}" for name in sorted(self.doubled) if not self.rough]
        broken += [f"a call returned after {seconds:.1f} s" for seconds in self.late_calls]
        broken += ["the job server hung up on a peer that did nothing wrong"] * (
            self.worst_echo_seconds == float("inf")
        )
        return broken + [
            f"{process}: descriptors {count} -> {self.after[process][1]}"
            for process, (_, count) in self.before.items()
            if self.after[process][1] > count + SPARE_DESCRIPTORS
        ]

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.jobs:,} jobs, {len(self.lost)} lost, {len(self.doubled)} run twice",
            f"  {len(self.wrong)} wrong answers, {self.in_doubt:,} calls ended by an error",
            f"  {self.signals} signals, {self.kills} worker processes killed, {self.resets} connections reset",
            f"  {self.attacks} attacks, {len(self.late_calls)} calls far over their time limit",
            f"  worst echo of the job server: {self.worst_echo_seconds * 1000:.0f} ms",
        ]
        for process, (memory, descriptors) in self.before.items():
            after_memory, after_descriptors = self.after[process]
            lines.append(
                f"  {process}: {memory / 2**20:.1f} -> {after_memory / 2**20:.1f} MiB, "
                f"{descriptors} -> {after_descriptors} descriptors"
            )
        return "\n".join(lines)


def storm(server: JobServerProcess, *, seconds: float, rough: bool, vandals: bool, seed: int) -> Report:
    """Run one. `rough` kills worker processes and resets connections, which may run a job twice; without it nothing
    may. `vandals` attack the job server too."""
    rng = random.Random(seed)
    ledger = Ledger()
    name = f"{server.name}, {'rough' if rough else 'gentle'}, seed {seed}"
    with (
        RubbishServer(seed) as rubbish,
        Proxy(server.address, Weather(**vars(BAD_WEATHER)), seed) as worker_side,
        Proxy(server.address, Weather(**vars(DRIZZLE)), seed + 1) as client_side,
        Daemon(server, processes=2, shutdown_timeout="60s") as one,
        Daemon(server, processes=2, shutdown_timeout="60s") as two,
    ):
        daemons = (one, two)
        for daemon in daemons:
            daemon.write_config(job_servers=[worker_side.address, rubbish.address])
            daemon.start()
        before = _sizes(server, daemons)
        signals = kills = 0
        with (
            EchoProbe(server.address) as probe,
            Clients(client_side.address, ledger, "d", seed),
            Clients(server.address, ledger, "s", seed + 100),
            Vandals(server.address if vandals else rubbish.address, rubbish.address, seed) as bad_peers,
        ):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(rng.random() * 0.6)
                daemon = rng.choice(daemons)
                if not rough or rng.random() < 0.5:
                    daemon.signal(rng.choice(HARMLESS))
                    signals += 1
                elif rng.random() < 0.5 and daemon.children:
                    _kill(rng.choice(daemon.children))
                    kills += 1
                else:
                    rng.choice((worker_side, client_side)).reset()
        worker_side.weather = client_side.weather = Weather()
        eventually(lambda: _is_idle(server), within=SETTLE_SECONDS, what="the end of all jobs")
        for daemon in daemons:
            eventually(
                lambda d=daemon: d.overview.state == "running" and len(d.overview.generations) == 1,  # type: ignore[misc]
                within=SETTLE_SECONDS,
                what="the end of the last reload",
            )
        after = _sizes(server, daemons)
        for daemon in daemons:
            assert daemon.stop() == 0, daemon.log
        runs = sum((daemon.runs for daemon in daemons), Counter[str]())
    return Report(
        name=name,
        rough=rough,
        jobs=len(ledger.acknowledged) + len(ledger.answered),
        in_doubt=len(ledger.in_doubt),
        lost=ledger.lost(runs),
        doubled=ledger.doubled(runs),
        wrong=ledger.wrong,
        signals=signals,
        kills=kills,
        resets=worker_side.resets + client_side.resets,
        attacks=bad_peers.attacks,
        late_calls=bad_peers.late_calls,
        worst_echo_seconds=probe.worst_seconds,
        before=before,
        after=after,
    )


class EchoProbe:
    """Asks the job server for an echo all the time, on a connection of its own. A context manager."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._probe, daemon=True)
        self.worst_seconds = 0.0

    def __enter__(self) -> EchoProbe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _probe(self) -> None:
        with Client(self._address) as client:
            while not self._over.wait(0.02):
                begin = time.monotonic()
                try:
                    client.echo(b"there?")
                except GeardError:
                    self.worst_seconds = float("inf")
                    return
                self.worst_seconds = max(self.worst_seconds, time.monotonic() - begin)


def _is_idle(server: JobServerProcess) -> bool:
    return all(server.status(function)[0] == 0 for function in ("count", "sleep"))


def _sizes(server: JobServerProcess, daemons: tuple[Daemon, ...]) -> dict[str, tuple[int, int]]:
    """Resident memory and open descriptors of each process; of worker processes the largest."""
    assert server.process
    sizes = {server.name: _size(server.process.pid)}
    for number, daemon in enumerate(daemons, 1):
        assert daemon.process
        sizes[f"supervisor {number}"] = _size(daemon.process.pid)
        workers = [_size(process.pid) for process in daemon.processes]
        sizes[f"workers of {number}"] = (max(size for size, _ in workers), max(count for _, count in workers))
    return sizes


def _size(pid: int) -> tuple[int, int]:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it was leaving
