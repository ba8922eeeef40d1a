"""geard.testing and the pytest plugin, used as a user's tests use them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from geard import (
    Client,
    Fail,
    InvalidRequest,
    InvalidResult,
    Job,
    JobException,
    JobFailed,
    Reject,
    Retry,
    WorkerPool,
)
from geard.errors import CapabilityError
from geard.protocol import Command, request
from geard.testing import EmbeddedJobServer, Gearmand, call
from tests.support import around
from tests.support.servers import GEARMAND, JobServerProcess, need
from tests.support.waiting import DEADLINE_SECONDS

pytest_plugins = ["pytester"]

# --- call ---------------------------------------------------------------------------------------------------------


def test_call_runs_a_capability_by_its_dotted_path() -> None:
    outcome = call("geard.examples.reverse", "hello")
    assert outcome.result == "olleh"
    assert (outcome.failed, outcome.exception, repr(outcome)) == (False, None, "<Outcome reverse complete>")


def test_call_shows_all_that_a_hands_on_capability_sent_on_the_way() -> None:
    def order(job: Job, workload: str) -> str:
        job.status(1, 2)
        job.data("héllo, ")
        job.warning("low on paper")
        job.status(2, 2)
        return f"{workload} of {job.function} {job.unique}"

    outcome = call(order, "7", unique="order-7", encoding="latin-1")
    assert outcome.statuses == [(1, 2), (2, 2)]
    assert outcome.data == ["héllo, "]
    assert outcome.warnings == ["low on paper"]
    assert outcome.result == "héllo, 7 of order order-7"
    kinds = [packet.command.name for packet in outcome.packets]
    assert kinds == ["WORK_STATUS", "WORK_DATA", "WORK_WARNING", "WORK_STATUS", "WORK_COMPLETE"]


def test_call_joins_the_pieces_of_a_generator_as_a_client_does() -> None:
    def words(workload: str) -> Generator[str, None, str]:
        yield from workload.split()
        return "!"

    outcome = call(words, "a b c")
    assert (outcome.data, outcome.result) == (["a", "b", "c"], "abc!")


@pytest.mark.parametrize(
    ("encoding", "workload", "result"),
    [("json", {"a": [1, None]}, {"a": [1, None]}), ("bytes", b"\0\xff", b"\0\xff"), ("utf-16", "é", "é")],
)
def test_call_takes_the_workload_as_a_client_would_give_it(encoding: str, workload: Any, result: Any) -> None:
    assert call(lambda same: same, workload, encoding=encoding).result == result


def test_call_refuses_a_workload_that_no_client_could_submit() -> None:
    with pytest.raises(InvalidRequest, match="with `encoding: utf-8` a workload is str, not dict"):
        call("geard.examples.reverse", {"a": 1})


def test_call_tries_bytes_that_cannot_be_decoded_on_a_capability() -> None:
    outcome = call("geard.examples.divide", b'{"dividend":', encoding="json")
    assert outcome.exception == "DecodeError: Input data was truncated"


def test_call_tells_what_a_client_is_told_when_the_capability_raises() -> None:
    outcome = call("geard.examples.fail", "the moon")
    assert outcome.failed
    assert outcome.exception == "ValueError: cannot do anything with 'the moon'"
    with pytest.raises(JobException, match="cannot do anything with 'the moon'"):
        assert outcome.result is None
    assert repr(outcome) == "<Outcome fail failed: ValueError: cannot do anything with 'the moon'>"


def test_call_tells_a_job_that_failed_without_a_word_from_one_that_raised() -> None:
    outcome = call(lambda job, workload: job.fail(), "")
    assert (outcome.failed, outcome.exception) == (True, None)
    with pytest.raises(JobFailed):
        assert outcome.result is None


@pytest.mark.parametrize("settings", [{}, {"timeout": 30}, {"retry": 1}, {"isolated": True}])
def test_call_keeps_the_reason_from_clients_as_a_worker_would(settings: Any) -> None:
    outcome = call("geard.examples.fail", "the moon", exceptions=False, **settings)
    assert (outcome.failed, outcome.exception) == (True, None)
    assert [packet.command.name for packet in outcome.packets] == ["WORK_FAIL"]
    with pytest.raises(JobFailed):
        assert outcome.result is None


def test_call_finds_a_result_of_the_wrong_type_as_a_worker_would() -> None:
    outcome = call(len, "abc")
    assert (
        outcome.exception == "TypeError: with `encoding: utf-8` a result is str, not int (`json` is for other values)"
    )


def test_call_shows_a_stream_that_no_client_could_read() -> None:
    def two_values(workload: Any) -> Iterator[int]:
        yield 1
        yield 2

    outcome = call(two_values, None, encoding="json")
    assert outcome.data == [1, 2]
    with pytest.raises(InvalidResult):
        assert outcome.result


def test_call_runs_coroutines_as_a_worker_does() -> None:
    async def later(job: Job, workload: str) -> str:
        await asyncio.sleep(0.01)
        job.status(1, 1)
        return workload.upper()

    async def pieces(workload: str) -> AsyncIterator[str]:
        for word in workload.split():
            await asyncio.sleep(0)
            yield word

    async def never(workload: str) -> None:
        await asyncio.sleep(60)

    outcome = call(later, "hello")
    assert (outcome.result, outcome.statuses) == ("HELLO", [(1, 1)])
    assert call(pieces, "one two").data == ["one", "two"]
    assert call(never, timeout=0.05).exception == "never ran longer than its timeout of 0.05 s"


def test_call_ends_in_time_when_the_capability_does_not() -> None:
    outcome = call(lambda workload: time.sleep(60), "", timeout=0.05)
    assert outcome.failed
    assert outcome.exception is not None
    assert "ran longer than its timeout of 0.05 s" in outcome.exception


def test_call_is_the_same_within_its_timeout() -> None:
    assert call("geard.examples.reverse", "hello", timeout=30).result == "olleh"


def test_call_refuses_what_no_worker_could_serve() -> None:
    with pytest.raises(CapabilityError, match="did you mean 'reverse'"):
        call("geard.examples.revers")


def test_call_shows_packets_of_the_capabilitys_own_making() -> None:
    def raw(job: Job, workload: str) -> None:
        job.send(request(Command.WORK_WARNING, job.raw_handle, b"by hand"))

    assert call(raw, "").warnings == ["by hand"]


class Flaky:
    """Raises these, one at each attempt, then tells which attempt it is."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)

    def __call__(self, job: Job, workload: str) -> str:
        job.client.submit_background("receipt", workload, unique=f"r-{job.attempt}")
        if self._errors:
            raise self._errors.pop(0)
        return f"{workload} at {job.attempt} of {job.unique}"


def test_call_runs_what_failed_again_at_once() -> None:
    outcome = call(Flaky(OSError(), Retry(after="1h")), "x", unique="u", retry={"times": 3, "wait": "1h..2h"})
    assert (outcome.attempts, outcome.result, outcome.dead_letter) == (3, "x at 3 of u", None)
    assert [(one.function, one.workload, one.unique) for one in outcome.submissions] == [
        ("receipt", "x", f"r-{attempt}") for attempt in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("error", "retry", "attempts", "is_kept"),
    [
        (OSError("down"), 1, 2, True),
        (OSError("down"), {"times": 5, "not_on": ["OSError"]}, 1, True),
        (Fail("no"), 5, 1, False),
        (Reject("never"), 5, 1, True),
        (OSError("down"), None, 1, True),
    ],
)
def test_call_shows_the_dead_letter_of_a_job_that_failed_for_good(
    error: Exception, retry: Any, attempts: int, is_kept: bool
) -> None:
    outcome = call(Flaky(error, error, error), "x", unique="u", retry=retry, dead_letter=True)
    assert (outcome.failed, outcome.attempts) == (True, attempts)
    letter = outcome.dead_letter
    assert (letter is not None) is is_kept
    if letter:
        assert (letter.workload, letter.unique, letter.attempts) == (b"x", "u", attempts)
        assert letter.error == f"{type(error).__name__}: {error}"


def test_the_letter_of_a_huge_error_is_small_and_has_the_begin_of_its_traceback() -> None:
    letter = call(Flaky(OSError("down" * 1_000_000)), "x", unique="u", dead_letter=True).dead_letter
    assert letter
    assert letter.error.startswith("OSError: downdown")
    assert len(letter.error) < 10_000
    assert letter.traceback.startswith("Traceback (most recent call last):\n")
    assert len(letter.traceback) < 10_000


@pytest.mark.parametrize("asynchronous", [False, True])
def test_call_takes_a_timeout_for_a_failure(asynchronous: bool) -> None:
    def slow(job: Job, workload: str) -> str:
        time.sleep(60 if job.attempt == 1 else 0)
        return "in time"

    async def slow_later(job: Job, workload: str) -> str:
        await asyncio.sleep(60 if job.attempt == 1 else 0)
        return "in time"

    outcome = call(slow_later if asynchronous else slow, timeout=0.2, retry={"times": 5, "on": ["geard.JobTimeout"]})
    assert outcome.attempts > 1
    assert outcome.result == "in time"


def test_call_does_not_run_again_what_a_client_has_data_of() -> None:
    def halfway(job: Job, workload: str) -> None:
        job.data("half")
        raise OSError("down")

    outcome = call(halfway, retry=5, dead_letter=True)
    assert (outcome.attempts, outcome.data, outcome.dead_letter is None) == (1, ["half"], False)


def test_call_runs_middleware() -> None:
    outcome = call(around.plain, "x", middleware=[around.outer, f"{around.__name__}.inner"])
    assert outcome.result == "outer(inner(x in inner of plain))"
    with pytest.raises(CapabilityError, match="cannot be called with a job and a call"):
        call(around.plain, "x", middleware=[around.no_call])


def test_call_runs_middleware_in_isolation() -> None:
    outcome = call(around.plain, "x", middleware=[around.outer], isolated=True)
    assert outcome.result == "outer(x in nothing)"
    with pytest.raises(InvalidRequest, match="without retry"):
        call(around.plain, "x", retry=1, isolated=True)


def test_what_call_has_no_job_server_for_is_told() -> None:
    def asks(job: Job, workload: str) -> str:
        handles = list(job.client.submit_many_background("f", ["a", "b"]))
        assert len(set(handles)) == 2
        return str(job.client.run("f", workload))

    outcome = call(asks, "x")
    assert "there is no job server in geard.testing.call" in (outcome.exception or "")
    assert [one.workload for one in outcome.submissions] == ["a", "b"]
    assert "a workload is str, not int" in (call(lambda job, _: job.client.submit_background("f", 1)).exception or "")


# --- the plugin ---------------------------------------------------------------------------------------------------

USERS_TESTS = """
import pytest
from geard import Admin, JobException

def shout(workload):
    return workload.upper() + "!"

def progress(job, workload):
    job.status(1, 1)
    return {"got": workload}

def test_round_trip(geard_worker, geard_client):
    pool = geard_worker({"shout": shout, "reverse": "geard.examples.reverse", "fail": "geard.examples.fail"})
    assert pool.greenlets == 4
    assert geard_client.run("shout", "hello", timeout=30) == "HELLO!"
    assert list(geard_client.map("reverse", ["ab", "cd"])) == ["ba", "dc"]
    with pytest.raises(JobException):
        geard_client.run("fail", "x", timeout=30)

def test_settings_of_the_config(geard_worker, geard_client, job_server):
    geard_worker({"progress": progress}, encoding="json", greenlets_per_server=2)
    geard_worker({"other": {"function": progress, "encoding": "json"}})
    assert geard_client.run("progress", [1], encoding="json", timeout=30) == {"got": [1]}
    assert geard_client.run("other", [2], encoding="json", timeout=30) == {"got": [2]}
    with Admin(job_server.address) as admin:
        assert {row.function for row in admin.status()} == {"progress", "other"}

def test_nothing_is_left_of_other_tests(job_server, request):
    with Admin(job_server.address) as admin:
        assert admin.status() == []
    expected = request.config.getoption("--job-server")
    assert type(job_server).__name__.lower().startswith(expected), job_server
"""


@pytest.mark.parametrize("server", ["embedded", "gearmand"])
def test_users_tests_run_on_the_job_server_they_ask_for(pytester: pytest.Pytester, server: str) -> None:
    if server == "gearmand":
        need(GEARMAND)
    pytester.makepyfile(USERS_TESTS)
    options = [] if server == "embedded" else ["--job-server=gearmand"]
    result = pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:cacheprovider", *options)
    result.assert_outcomes(passed=3)


def test_the_fixtures_use_a_job_server_fixture_of_the_projects_own(
    job_server: JobServerProcess, geard_worker: Callable[..., WorkerPool], geard_client: Client
) -> None:
    geard_worker({"reverse": "geard.examples.reverse"})
    assert geard_client.run("reverse", "hello", timeout=DEADLINE_SECONDS) == "olleh"
    assert job_server.status("reverse") == (0, 0, 1)


def test_a_bad_capability_fails_its_test_with_the_reason(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(geard_worker):
            geard_worker({"reverse": "geard.examples.revers"})
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ConfigError*has no 'revers'*"])


def test_the_plugin_costs_other_projects_no_import(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it(request):
            assert request.config.pluginmanager.hasplugin("geard")
            loaded = {name.split(".")[0] for name in sys.modules}
            assert not loaded & {"gevent", "msgspec", "yaml", "click"}
            assert {name for name in sys.modules if name.startswith("geard")} == {"geard", "geard.pytest_plugin"}
        """
    )
    pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:hypothesispytest").assert_outcomes(passed=1)


# --- the job servers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [EmbeddedJobServer, Gearmand])
def test_no_process_is_left_of_a_job_server_for_tests(kind: type[EmbeddedJobServer] | type[Gearmand]) -> None:
    if kind is Gearmand:
        need(GEARMAND)
    with kind() as server:
        pid = server.pid
        assert pid is not None
        assert Path(f"/proc/{pid}").exists()
    assert server.pid is None
    assert not Path(f"/proc/{pid}").exists()


def test_a_job_server_is_stopped_and_not_killed_though_a_fork_of_the_tests_goes_on() -> None:
    server = EmbeddedJobServer()
    with server:
        fork = os.fork()
        if fork == 0:
            signal.pause()
            os._exit(0)
    os.kill(fork, signal.SIGKILL)
    os.waitpid(fork, 0)
    assert server.wait() == 0
