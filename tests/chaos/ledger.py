"""What was promised and what came of it: every job by its name, and how often it ran."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from geard.client import Client
from geard.errors import GeardError


@dataclass
class Ledger:
    """Jobs by name. A name is used once, so a run that nobody promised can be told too."""

    acknowledged: set[str] = field(default_factory=set)  # background jobs whose JOB_CREATED came
    answered: set[str] = field(default_factory=set)  # foreground jobs whose result came
    in_doubt: set[str] = field(default_factory=set)  # ended by an error: may have run or not
    wrong: list[str] = field(default_factory=list)  # answers that were not the job's own

    def lost(self, runs: Counter[str]) -> set[str]:
        """Promised, and never run to the end."""
        return {name for name in self.acknowledged | self.answered if not runs[name]}

    def doubled(self, runs: Counter[str]) -> set[str]:
        """Run more than once."""
        return {name for name in self.acknowledged | self.answered | self.in_doubt if runs[name] > 1}


class Clients:
    """Threads that submit jobs over one job server address and keep the ledger. A context manager."""

    def __init__(self, address: str, ledger: Ledger, prefix: str, seed: int) -> None:
        self._address = address
        self._ledger = ledger
        self._prefix = prefix
        self._seed = seed
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=kind, args=(number,), daemon=True)
            for number, kind in enumerate((self._background, self._background, self._foreground, self._foreground))
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client's call does not return"

    def _background(self, number: int) -> None:
        rng = random.Random(self._seed + number)
        with Client(self._address) as client:
            for index in self._pace():
                name = f"{self._prefix}-b{number}-{index}"
                function, workload = _job(rng, name)
                try:
                    client.submit_background(function, workload, unique=name)
                    self._ledger.acknowledged.add(name)
                except GeardError:
                    self._ledger.in_doubt.add(name)

    def _foreground(self, number: int) -> None:
        rng = random.Random(self._seed + number)
        with Client(self._address) as client:
            for index in self._pace():
                name = f"{self._prefix}-f{number}-{index}"
                function, workload = _job(rng, name)
                try:
                    result = client.run(function, workload, unique=name, timeout=60)
                except GeardError:
                    self._ledger.in_doubt.add(name)
                    continue
                self._ledger.answered.add(name)
                if result != name:
                    self._ledger.wrong.append(f"{name}: {result!r}")

    def _pace(self) -> Iterator[int]:
        index = 0
        while not self._over.wait(0.001):
            yield index
            index += 1


def _job(rng: random.Random, name: str) -> tuple[str, str]:
    """The function and the workload of a job: mostly quick ones, some that wait."""
    if rng.random() < 0.8:
        return "count", name
    return "sleep", f"{name} {rng.random() * 0.2:.3f}"
