"""Capabilities for the worker's tests, as users write them: well-behaved ones, and every kind of misbehaviour.

Each pool imports them by their dotted paths, in threads of the test process or in a worker process of its own.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

from geard.protocol import Command, request
from geard.worker import Job

STARTED = ""  # what on_start has done


def started() -> None:
    global STARTED
    STARTED = f"started in {os.getpid()}"


def fails_to_start() -> None:
    raise RuntimeError("no database")


def what_started(workload: str) -> str:
    return STARTED


# --- conventions --------------------------------------------------------------------------------------------------


def echo(workload: Any) -> Any:
    return workload


def reverse(workload: str) -> str:
    return workload[::-1]


def type_of(workload: Any) -> Any:
    """For any encoding: tells what it was given, in what the encoding gives."""
    name = f"{type(workload).__name__} {workload!r}"
    return name.encode() if isinstance(workload, bytes) else name


def nothing(workload: Any) -> None:
    return None


def a_number(workload: Any) -> Any:
    return 7


def a_bytearray(workload: Any) -> Any:
    return bytearray(b"\x00\xff")


def an_object(workload: Any) -> Any:
    return object()


def snowman(workload: Any) -> Any:
    return "☃"


def about(job: Job, workload: str) -> str:
    return f"{job.function} {job.handle} {job.unique} {job.server} {job.workload!r} {workload}"


def hands_on(job: Job, workload: str) -> str:
    job.status(1, 2)
    job.data("piece")
    job.warning("careful ☃")
    job.send(request(Command.WORK_STATUS, job.raw_handle, b"2", b"2"))
    return "done"


def part_done(job: Job, workload: str) -> str:
    """Tells how far it is in fractions, then waits for the gate."""
    job.status(0.5, 2.5)
    GATE.wait(60)
    return "done"


def answers_early(job: Job, workload: str) -> str:
    """Answers, then goes on until the gate is opened."""
    time.sleep(0.05)  # by now its channel has nothing to send
    job.complete("early")
    GATE.wait(60)
    return "ignored"


def answers_fail(job: Job, workload: str) -> None:
    job.fail()


def answers_exception(job: Job, workload: str) -> None:
    job.exception("in my own words ☃")


def answers_twice(job: Job, workload: str) -> None:
    job.complete("first")
    job.complete("second")


def raises_after_answering(job: Job, workload: str) -> None:
    job.complete("first")
    raise ValueError("raised after the answer")


def answers_what_cannot_be_encoded(job: Job, workload: str) -> str:
    try:
        job.complete(object())
    except TypeError:
        return "still to be answered"
    return "?"


def spoken(workload: str) -> Generator[str, None, str]:
    yield from workload.split()
    return "end"


def generator_raises(workload: str) -> Iterator[str]:
    yield "first"
    raise ValueError("in the middle")


def streams(job: Job, workload: str) -> Iterator[str]:
    """`count bytes`: a generator with a job, and much to say."""
    count, size = map(int, workload.split())
    job.status(0, count)
    for number in range(count):
        yield f"{number:08d}" * (size // 8)


def thread_name(job: Job, workload: str) -> str:
    """Which native thread it runs in, with status on the way."""
    job.status(3, 4)
    # A patched process has a greenlet's number behind threading.get_ident.
    if "gevent" in sys.modules:
        from gevent.monkey import get_original

        native = get_original("_thread", "get_ident")()
    else:
        native = threading.get_ident()
    return "main" if native == MAIN_THREAD else "other"


if "gevent" in sys.modules:
    from gevent.monkey import get_original

    MAIN_THREAD: int = get_original("_thread", "get_ident")()
else:
    MAIN_THREAD = threading.main_thread().ident or 0


# --- time ---------------------------------------------------------------------------------------------------------


def sleep(workload: str) -> str:
    """`name seconds` or `seconds`: yields for so long."""
    time.sleep(float(workload.split()[-1]))
    return workload


def spin(workload: str) -> str:
    """The same without yielding: CPU-bound."""
    end = time.perf_counter() + float(workload.split()[-1])
    while time.perf_counter() < end:
        pass
    return workload


def until_file(workload: str) -> str:
    """`waits PATH` until that file is there, yielding; `spins PATH`, holding the loop for seconds at most; or neither,
    at once. What it has come to."""
    how, _, path = workload.partition(" ")
    end = time.perf_counter() + (20 if how == "waits" else 5)
    while path and not os.path.exists(path):
        if time.perf_counter() > end:
            return f"{how} in vain"
        if how == "waits":
            time.sleep(0.01)
    return how


def process_id(workload: str) -> str:
    """CPU-bound for `workload` seconds."""
    spin(workload)
    return str(os.getpid())


def blocks_natively(workload: str) -> str:
    """Blocks its native thread as C code would, which gevent cannot see."""
    from gevent.monkey import get_original

    get_original("time", "sleep")(float(workload))
    return workload


TURNS = 0


def loop_turns(workload: str) -> str:
    """Holds the loop for `workload` seconds without CPU; tells how often the loop had gone round when it began."""
    import gevent
    from gevent.monkey import get_original

    global TURNS
    if not TURNS:
        TURNS = 1
        gevent.get_hub().loop.check().start(_count_turn)  # after each look at timers and sockets
    began = TURNS
    get_original("time", "sleep")(float(workload))
    return str(began)


def _count_turn() -> None:
    global TURNS
    TURNS += 1


# --- control ------------------------------------------------------------------------------------------------------

GATE = threading.Event()


def wait_for_gate(workload: str) -> str:
    """Runs until a job of open_gate has run in the same process."""
    GATE.wait(60)
    return workload


def open_gate(workload: str) -> str:
    GATE.set()
    return "open"


def close_gate(workload: str) -> str:
    GATE.clear()
    return "closed"


HOARD: list[bytearray] = []


def hoard(workload: str) -> str:
    """Keeps so many megabytes for good."""
    HOARD.append(bytearray(b"x" * 1_000_000 * int(workload)))
    return workload


def leave_memory(megabytes: float) -> None:
    """Let this process have no more than so much beside what it has."""
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + int(megabytes * 1_000_000), resource.RLIM_INFINITY))


def too_large_to_send(workload: bytes) -> bytes:
    """A result of so many megabytes, with no memory for another as large."""
    result = b"x" * 1_000_000 * int(workload)
    leave_memory(int(workload) / 2)
    return result


LARGE: list[int] = []


def together(workload: bytes) -> bytes:
    """`jobs megabytes`: a result of so many megabytes, at the same time as the others, with memory to hold them twice,
    one of them, and no more."""
    jobs, megabytes = map(int, workload.split())
    result = b"x" * 1_000_000 * megabytes
    LARGE.append(megabytes)
    if len(LARGE) == jobs:
        leave_memory(1.5 * megabytes)
        GATE.set()
    GATE.wait(60)
    return result


def memory(workload: str) -> str:
    """Resident bytes of the process that runs it, rubbish collected."""
    import gc

    gc.collect()
    with open("/proc/self/statm") as statm:
        return str(int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))


# --- misbehaviour -------------------------------------------------------------------------------------------------


def misbehave(job: Job, workload: str) -> Any:
    """The kind of misbehaviour that the workload names."""
    return KINDS[workload](job)


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class NamelessType(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class NamelessError(Exception, metaclass=NamelessType):
    pass


class ClasslessError(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class StubbornText(str):
    def encode(self, *arguments: Any, **keywords: Any) -> bytes:
        raise RuntimeError("no bytes")


class StubbornError(Exception):
    def __str__(self) -> str:
        return StubbornText("has a text")


def _raise(error: BaseException) -> Any:
    raise error


def _recurse(job: Job) -> Any:
    return _recurse(job)


def _exit_greenlet(job: Job) -> Any:
    from greenlet import GreenletExit

    raise GreenletExit


def _this_greenlet() -> Any:
    import gevent

    return gevent.getcurrent()


def _kill_self(job: Job) -> Any:
    _this_greenlet().kill()
    return "not reached"


def _kill_self_later(job: Job) -> Any:
    """The kill strikes wherever the greenlet next waits: in another job, or between jobs."""
    _this_greenlet().kill(block=False)
    return "answered before it was killed"


def _leave_timeout(job: Job) -> Any:
    import gevent

    gevent.Timeout.start_new(0.002)
    return "left a timeout running"


def _leave_timeout_and_wait(job: Job) -> Any:
    import gevent

    gevent.Timeout.start_new(0.001)
    time.sleep(1)
    return "not reached"


def _leave_greenlets(job: Job) -> Any:
    import gevent

    gevent.spawn(time.sleep, 0.05)
    gevent.spawn(_raise, SystemExit("of a spawned greenlet"))
    return "left greenlets running"


def _overrun(job: Job) -> Any:
    time.sleep(60)
    return "not reached"


def _complete_after_fail(job: Job) -> Any:
    job.fail()
    job.complete("too late")


ANYWHERE = {  # what can be done in plain threads too
    "raise": lambda job: _raise(ValueError("as it does")),
    "surrogate": lambda job: _raise(ValueError("half a pair: \ud800")),
    "unprintable": lambda job: _raise(UnprintableError()),
    "nameless": lambda job: _raise(NamelessError("all the same")),
    "classless": lambda job: _raise(ClasslessError("all the same")),
    "stubborn": lambda job: _raise(StubbornError()),
    "bytearray": lambda job: job.exception(bytearray(b"in bytes")),
    "wrong type": lambda job: 7,
    "not encodable": lambda job: "\ud800",
    "SystemExit": lambda job: sys.exit(3),
    "KeyboardInterrupt": lambda job: _raise(KeyboardInterrupt()),
    "BaseException": lambda job: _raise(BaseException("the root of it")),
    "recurse": _recurse,
    "answers twice": _complete_after_fail,
    "GeneratorExit": lambda job: _raise(GeneratorExit()),
    "fine": lambda job: "fine",
}
KINDS = ANYWHERE | {
    "GreenletExit": _exit_greenlet,
    "kill": _kill_self,
    "kill later": _kill_self_later,
    "leave timeout": _leave_timeout,
    "leave timeout and wait": _leave_timeout_and_wait,
    "leave greenlets": _leave_greenlets,
    "overrun": _overrun,
}
