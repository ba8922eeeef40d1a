"""Handing lines over without waiting: a reader that stalls, goes away or returns, and a child that forks."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from geard import native
from geard.logs.destination import Descriptor
from geard.logs.writer import WAITING_BYTES, Writer
from tests.support.waiting import DEADLINE_SECONDS, eventually

LINE = b"%06d " + b"x" * 500 + b"\n"
MANY = WAITING_BYTES // 400  # more than may wait and the kernel keeps


class Reader:
    """The other end of a pipe or a socket, which reads when it is told to."""

    def __init__(self, kind: str) -> None:
        if kind == "pipe":
            self.descriptor, self.theirs = os.pipe()
        else:
            ours, theirs = socket.socketpair()
            self.descriptor, self.theirs = ours.detach(), theirs.detach()
        os.set_blocking(self.descriptor, False)
        self.text = b""

    def read(self) -> bytes:
        while True:
            try:
                data = os.read(self.descriptor, 65536)
            except BlockingIOError:
                return self.text
            if not data:
                return self.text
            self.text += data

    def close(self) -> None:
        for descriptor in (self.descriptor, self.theirs):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture(params=["pipe", "socket"])
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    reader = Reader(request.param)
    yield reader
    reader.close()


@pytest.fixture
def writer(reader: Reader) -> Writer:
    return Writer(Descriptor(reader.theirs, owned=False), lambda count: b"lost %d\n" % count)


def test_a_line_is_out_before_hand_returns_where_the_reader_reads(reader: Reader, writer: Writer) -> None:
    writer.hand(b"one\n")
    assert reader.read() == b"one\n"


def test_a_stalled_reader_holds_up_nobody_and_gets_whole_lines_and_the_count(reader: Reader, writer: Writer) -> None:
    for number in range(MANY):
        writer.hand(LINE % number)
    assert not writer.flush(0.05), "it waits no longer than it may"
    eventually(lambda: b"\nlost " in reader.read())
    assert writer.flush(30)
    lines = reader.read().splitlines()
    lost = [int(line.split()[1]) for line in lines if line.startswith(b"lost")]
    numbers = [int(line[:6]) for line in lines if not line.startswith(b"lost")]
    assert numbers == sorted(numbers)
    assert {len(line) for line in lines if not line.startswith(b"lost")} == {507}
    assert len(numbers) + sum(lost) == MANY
    writer.hand(b"on\n")
    assert reader.read().endswith(b"\non\n")


def test_a_record_longer_than_all_that_may_wait_arrives_whole(reader: Reader, writer: Writer) -> None:
    long = b"y" * (WAITING_BYTES + 1) + b"\n"
    writer.hand(long)
    eventually(lambda: len(reader.read()) == len(long))


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(reader: Reader, writer: Writer) -> None:
    os.close(reader.descriptor)
    reader.descriptor = -1
    for number in range(100):
        writer.hand(LINE % number)
    assert writer.flush(30)
    assert "100 lost" in repr(writer)


def test_lines_from_many_threads_are_each_whole(reader: Reader, writer: Writer) -> None:
    import threading

    def log(letter: bytes) -> None:
        for _ in range(200):
            writer.hand(letter * 300 + b"\n")

    threads = [threading.Thread(target=log, args=(bytes([letter]),)) for letter in b"abcd"]
    for thread in threads:
        thread.start()
    eventually(lambda: reader.read().count(b"\n") == 800)
    for thread in threads:
        thread.join()
    assert all(len(line) == 300 and len(set(line)) == 1 for line in reader.text.splitlines())


class CutDisk:
    """A destination that takes three bytes, then is full, until there is room."""

    stalls = False

    def __init__(self) -> None:
        self.text = b""
        self.room = 3

    def write_now(self, data: bytes) -> bytes:
        if not self.room:
            raise OSError("no space left")
        taken = data[: self.room]
        self.room -= len(taken)
        self.text += taken
        return data[len(taken) :]

    write = write_now

    def close(self) -> None:
        """There is nothing to close."""


def test_a_line_that_a_full_disk_cut_is_finished_before_the_next() -> None:
    disk = CutDisk()
    writer = Writer(disk, lambda count: b"lost %d\n" % count)
    writer.hand(b"first\n")
    writer.hand(b"second\n")
    assert disk.text == b"fir"
    disk.room = 1000
    writer.hand(b"third\n")
    assert disk.text == b"first\nlost 1\nthird\n"


def test_a_line_handed_over_while_a_line_is_written_waits_its_turn() -> None:
    class Reentrant(CutDisk):
        def write_now(self, data: bytes) -> bytes:
            if data == b"outer\n":
                writers[0].hand(b"inner\n")  # a finaliser that logs, say
            return super().write_now(data)

    disk = Reentrant()
    disk.room = 1000
    writers = [Writer(disk, lambda count: b"")]
    writers[0].hand(b"outer\n")
    assert disk.text == b"outer\ninner\n"


def test_a_forked_child_writes_what_it_can_and_never_waits(reader: Reader, writer: Writer) -> None:
    for number in range(1000):  # stalled: what waits is the parent's to write
        writer.hand(LINE % number)
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        for number in range(MANY):
            writer.hand(b"child %d\n" % number)
        os._exit(0 if writer.flush(0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert time.monotonic() - began < 30
    eventually(lambda: reader.read().count(b" x") == 1000)
    assert all(len(line) == 507 or line.startswith(b"child ") for line in reader.text.splitlines())


def test_a_forked_child_logs_to_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = Writer(Descriptor.at(str(path)), lambda count: b"")
    writer.hand(b"parent\n")
    assert writer.flush(30)
    pid = os.fork()
    if not pid:
        writer.hand(b"child\n")
        os._exit(0)
    os.waitpid(pid, 0)
    writer.close()
    assert path.read_text() == "parent\nchild\n"


def test_a_fifo_that_nobody_reads_is_an_error_and_no_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        Descriptor.at(str(tmp_path / "fifo"))


def test_the_thread_of_a_writer_that_is_closed_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def start(function: Callable[[], None], _: tuple[()]) -> None:
        def run() -> None:
            function()
            ended.set()

        threading.Thread(target=run, daemon=True).start()

    monkeypatch.setattr(native, "start_new_thread", start)
    writer = Writer(Descriptor.at(str(tmp_path / "log")), lambda count: b"")
    writer.hand(b"a line\n")
    assert writer.flush(DEADLINE_SECONDS)
    writer.close()
    assert ended.wait(DEADLINE_SECONDS)
