"""Capabilities that start processes, each in its own way, and say what came of it."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from typing import Any

from gevent.monkey import get_original

from geard.worker import Job

native_sleep = get_original("time", "sleep")


def innocent(workload: str) -> str:
    """`directory name`: runs until the directory has a file `release`, and leaves its name in the file `runs`."""
    directory, name = workload.split()
    while not os.path.exists(f"{directory}/release"):
        time.sleep(0.02)
    with open(f"{directory}/runs", "a") as runs:
        runs.write(f"{name}\n")
    return name


def square(number: int) -> int:
    return number * number


def put_square(queue: Any, number: int) -> None:
    queue.put(square(number))


def fork(workload: str) -> str:
    """The child says its part through a pipe, ends by itself, and is waited for."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        time.sleep(0.01)  # waits, in a hub of its own
        os.write(theirs, workload[::-1].encode())
        os._exit(7)
    os.close(theirs)
    _, status = os.waitpid(pid, 0)
    answer = os.read(ours, 100).decode()
    os.close(ours)
    return f"{answer} {os.waitstatus_to_exitcode(status)}"


def to_the_end(workload: str) -> str:
    """Reads what the child says to the end of the pipe, without a look at what else goes on in its thread."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(theirs, workload[::-1].encode())
        os._exit(0)
    os.close(theirs)
    answer = b""
    while data := os.read(ours, 100):
        answer += data
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    return f"{answer.decode()} {os.waitstatus_to_exitcode(status)} to the end"


def process(workload: str) -> str:
    context: Any = multiprocessing.get_context(workload)
    queue = context.Queue()
    child = context.Process(target=put_square, args=(queue, 7))
    child.start()
    answer = queue.get()
    child.join()
    return f"{answer} {child.exitcode}"


def pool(workload: str) -> str:
    with multiprocessing.get_context(workload).Pool(2) as workers:
        return str(sum(workers.map(square, range(100))))


def executor(workload: str) -> str:
    context = multiprocessing.get_context(workload)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as workers:
        return str(sum(workers.map(square, range(100), chunksize=7)))


def program(workload: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"print({workload!r}[::-1])"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def child_returns(job: Job, workload: str) -> str:
    """The child goes on as if it were the job: with a word for the client, and with its return, exception or exit."""
    pid = os.fork()
    if not pid:
        job.status(66, 66)
        job.data("of the child")
        if workload == "raises":
            raise ValueError("in the child")
        if workload == "exits":
            sys.exit(5)
        return "the child's"
    _, status = os.waitpid(pid, 0)
    return str(os.waitstatus_to_exitcode(status))


def starts_with_a_fork() -> None:
    """on_start whose child returns: that must not become a second worker process."""
    if os.fork():
        os.wait()


def leaves_a_pool(workload: str) -> str:
    """A pool for all jobs, which nobody closes."""
    global POOL
    POOL = concurrent.futures.ProcessPoolExecutor(1)
    return str(POOL.submit(square, 3).result())


POOL: Any = None
LOCK = threading.Lock()
LOCKED: list[str] = []


def holds_a_lock(workload: str) -> str:
    """Gives it up only when others want it, without a look at what else goes on in its thread."""
    time.sleep(0)  # a thread that has waited once is another case than one that has not
    LOCK.acquire()
    LOCKED.append(workload)
    while len(LOCKED) < 3:
        native_sleep(0.01)
    native_sleep(0.1)
    LOCK.release()
    return workload


def wants_a_lock(workload: str) -> str:
    time.sleep(0)
    while not LOCKED:
        time.sleep(0.01)
    LOCKED.append(workload)
    with LOCK:
        return workload


def terminates(workload: str) -> str:
    """Ends children before they have had the time to begin."""
    children = [multiprocessing.get_context("fork").Process(target=native_sleep, args=(60,)) for _ in range(5)]
    for child in children:
        child.start()
        child.terminate()
    for child in children:
        child.join()
    return " ".join(str(child.exitcode) for child in children)


def child_outlives(workload: str) -> str:
    """Leaves a child behind that would live for a minute; its pid."""
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    return str(pid)
