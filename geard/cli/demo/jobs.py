"""The jobs of the demo, and how far each has come.

Rule: a row is changed by the thread that runs its job, and read by the one that draws. Each change is one assignment.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from geard.client import Client, Data, Event, Status
from geard.errors import GeardError, JobException

JOB_TIMEOUT_SECONDS: Final = 60.0
MANY: Final = 20_000


class Row:
    """One job: what was asked, how far it is, what came of it."""

    def __init__(self, function: str, workload: Any, *, encoding: str = "utf-8", raises: bool = False) -> None:
        self.function = function
        self.workload = workload
        self.encoding = encoding
        self.raises = raises  # whether it is there to fail
        self.progress: Status | None = None
        self.text: Any = ""  # its result as far as it is known, or why it failed
        self.seconds: float | None = None  # that it took; None until its end
        self.failed = False

    def __repr__(self) -> str:
        state = "running" if self.seconds is None else "failed" if self.failed else "done"
        return f"<Row {self.function} {state} {self.text!r}>"

    @property
    def is_as_expected(self) -> bool:
        """Whether it has ended as this demo means it to."""
        return self.seconds is not None and self.failed == self.raises

    @property
    def asked(self) -> str:
        """The workload on one line."""
        return one_line(self.workload)

    @property
    def answer(self) -> str:
        """The result, as far as it has come, or why it failed; on one line."""
        return one_line(self.text)

    def run(self, client: Client) -> None:
        """Run the job to its end."""
        start = time.monotonic()
        try:
            self._run(client)
        except JobException as error:
            self.text, self.failed = error.text, True
        except GeardError as error:
            self.text, self.failed, self.raises = str(error), True, False
        self.seconds = time.monotonic() - start

    def _run(self, client: Client) -> None:
        self.text = client.run(
            self.function,
            self.workload,
            encoding=self.encoding,
            timeout=JOB_TIMEOUT_SECONDS,
            on_event=self._hear,
        )

    def _hear(self, event: Event) -> None:
        if isinstance(event, Status):
            self.progress = event
        elif isinstance(event, Data):
            self.text += event.data


class ManyRow(Row):
    """Many small jobs at a time."""

    def __init__(self, function: str, count: int) -> None:
        super().__init__(function, "")
        self.count = count

    @property
    def asked(self) -> str:
        return f"{self.count:,} jobs"

    def _run(self, client: Client) -> None:
        words = [f"job {number}" for number in range(self.count)]
        start = time.monotonic()
        for number, result in enumerate(client.map(self.function, words, concurrency=200)):
            if result != words[number][::-1]:
                raise GeardError(f"{words[number]!r} came back as {result!r}")
            self.progress = Status(number + 1, self.count)
        self.text = f"{self.count / (time.monotonic() - start):,.0f} jobs a second, there and back"


def one_line(value: Any) -> str:
    """A workload or result on one line: text with its lines joined, anything else as JSON."""
    return " / ".join(value.splitlines()) if isinstance(value, str) else json.dumps(value)


POEM: Final = "so much\ndepends upon\na red wheel\nbarrow\n"


def acts() -> Sequence[Sequence[Row]]:
    """The rows: those of an act run at once, one act after another."""
    return (
        (
            Row("reverse", "draeg morf olleh"),
            Row("divide", {"dividend": 22, "divisor": 7}, encoding="json"),
            Row("upper_lines", POEM),
            Row("count_slowly", "6"),
            Row("count_slowly", "12"),
            Row("fail", "on purpose", raises=True),
        ),
        (ManyRow("reverse", MANY),),
    )


def run_act(client: Client, rows: Sequence[Row], started: Callable[[Row], None], ended: Callable[[Row], None]) -> None:
    """Run the rows at once, each in a thread, all on the one client. Returns at the end of the last."""
    interrupted = threading.Event()

    def run(row: Row) -> None:
        row.run(client)
        if not interrupted.is_set():
            ended(row)

    threads = [threading.Thread(target=run, args=(row,), daemon=True) for row in rows]
    try:
        for row, thread in zip(rows, threads, strict=True):
            started(row)
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        interrupted.set()
        raise
