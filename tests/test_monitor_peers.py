"""A monitor among peers that are mute, or say a byte now and then: nobody who looks waits for them."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from geard.config.model import Monitor
from geard.monitor.daemons import Daemon
from geard.monitor.live import Live
from geard.monitor.state import State
from geard.stats.history import History
from geard.stats.snapshot import Snapshot
from geard.supervisor.answers import Request
from geard.supervisor.monitor_start import Start
from tests.support.fake_supervisor import FakeSupervisor
from tests.support.monitor import MonitorProcess
from tests.support.servers import HOST
from tests.support.waiting import DEADLINE_SECONDS, eventually

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


@contextmanager
def peer(*, drips: bool) -> Iterator[str]:
    """The address of one that takes every question and answers none; with `drips`, a byte of an answer at a time."""
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            if drips:
                connection.sendall(HEAD)
            while not over.wait(0.2):
                connection.sendall(b" " if drips else b"")

    def serve() -> None:
        with suppress(OSError):
            while not over.is_set():
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://{HOST}:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)


def test_no_page_waits_for_peers_that_are_mute_or_drip(tmp_path: Path) -> None:
    with (
        peer(drips=False) as mute,
        peer(drips=True) as dripping,
        FakeSupervisor(str(tmp_path / "s.sock")) as supervisor,
        MonitorProcess(supervisor.path, [f"{HOST}:1"], peers=[mute, dripping]) as monitor,
    ):
        supervisor.fail("resize", "no such image")
        supervisor.run_jobs(3)

        def silent() -> list[str]:
            said = [finding["hint"] for finding in monitor.json("/api/problems") if finding["kind"] == "daemon"]
            return said if len(said) == 2 and not any("not asked yet" in hint for hint in said) else []

        assert f"{dripping.removeprefix('http://')} does not answer within 3 s" in eventually(silent, what="silence")
        for path in ("/failures", "/running", "/function?name=resize", "/api/chart?function=resize&span=15m"):
            for _ in range(20):  # were each to wait for a peer, that would take minutes
                assert monitor.get(path)[0] == 200
        assert "no such image" in monitor.get("/failures")[1]
        assert "does not answer" in monitor.get("/running")[1]


def test_a_page_that_waits_holds_up_no_other() -> None:
    state: Any = SimpleNamespace(version=1, news=threading.Condition())
    asks, may_answer = threading.Event(), threading.Event()

    def render(view: str) -> str:
        if view == "/running":
            asks.set()
            assert may_answer.wait(DEADLINE_SECONDS)
        return view

    live, frames = Live(state, render), queue.Queue[tuple[str, bytes]]()

    def read(view: str) -> None:
        stream = live.stream(view)
        next(stream)  # how soon to connect again
        frames.put((view, next(stream)))
        stream.close()  # type: ignore[attr-defined]

    threads = [threading.Thread(target=read, args=(view,), daemon=True) for view in ("/running", "/")]
    threads[0].start()
    assert asks.wait(DEADLINE_SECONDS)
    threads[1].start()
    assert frames.get(timeout=DEADLINE_SECONDS) == ("/", b'event: page\ndata: {"html":"/"}\n\n')
    may_answer.set()
    assert frames.get(timeout=DEADLINE_SECONDS)[0] == "/running"
    for thread in threads:
        thread.join(DEADLINE_SECONDS)


class Forgetful:
    """A source that says how it is, and keeps one waiting for what was."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def state(self) -> Snapshot:
        return self._snapshot

    def history(self, request: Request) -> History | None:
        self.asked.set()
        assert self.may_answer.wait(DEADLINE_SECONDS)
        return None


def test_the_past_is_asked_for_beside_the_present() -> None:
    with_functions = FakeSupervisor("")
    with_functions.count("resize", done=1)
    source = Forgetful(with_functions.snapshot())
    state = State(Start(Monitor(), (), "/nowhere"))
    state.daemons = [Daemon("here", source)]  # type: ignore[arg-type]
    state.daemons[0].poll()
    ticks = threading.Thread(target=state.tick, daemon=True)
    ticks.start()
    assert source.asked.wait(DEADLINE_SECONDS)
    ticks.join(DEADLINE_SECONDS / 2)  # before the source gives in
    over = not ticks.is_alive()
    source.may_answer.set()
    assert over
    assert state.version == 1
