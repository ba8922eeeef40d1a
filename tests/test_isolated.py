"""One capability in a process with nothing else: `geard.testing.call(..., isolated=True)`, and what it is made of."""

from __future__ import annotations

import os
import resource
import threading
from typing import Any

import pytest

from geard.config import Capability, Config, JobServer
from geard.config.model import Retry
from geard.errors import CapabilityError, ConfigError, InvalidRequest, JobException, ProcessKilled
from geard.messages import Start
from geard.protocol import Packet
from geard.testing import call
from geard.worker.isolation import CannotIsolate, Failed, IsolatedProcess, Isolation, assignment
from tests.support import poisons

SERVER = JobServer("127.0.0.1", 1)


def start(*names: str, **config: object) -> Start:
    capabilities = {name: Capability(f"tests.support.poisons.{name}") for name in names}
    return Start(Config(job_servers=(SERVER,), capabilities=capabilities, python_path=(os.getcwd(),), **config), 1, 1)  # type: ignore[arg-type]


def job(name: str, workload: str = "") -> bytes:
    return assignment(b"H:host:7", name.encode(), b"u-1", workload.encode())


def test_a_capability_runs_patched_in_a_process_of_its_own() -> None:
    outcome = call(poisons.talks, "☃", unique="u-1", isolated=True)
    assert outcome.result == "H:test:1 u-1 talks geard.testing:4730 ☃"
    assert (outcome.statuses, outcome.warnings) == ([(1, 2)], ["careful ☃"])
    outcome = call("tests.support.forks.pool", "fork", isolated=True)
    assert outcome.result == "328350"
    assert len(call(poisons.asynchronous, isolated=True).result) == 20 * 60_000


def test_a_capability_that_ends_its_process_fails_the_test_in_words() -> None:
    with pytest.raises(ProcessKilled, match=r"the process that dies ran in was killed by SIGSEGV; in a worker process"):
        call(poisons.dies, "segfault", isolated=True)


def test_what_cannot_be_run_in_another_process_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot be imported in another process"):
        call(lambda workload: workload, isolated=True)
    with pytest.raises(CapabilityError, match="has no 'nothing'"):
        call("tests.support.poisons.nothing", isolated=True)


def test_a_process_runs_one_job_after_another_until_one_ends_it() -> None:
    process = IsolatedProcess(start("dies"))
    packets: list[Packet] = []
    try:
        assert process.run(job("dies", "not at all"), packets.append) == ""
        assert process.run(job("dies", "no such death"), packets.append) == ""
        assert [packet.command.name for packet in packets] == ["WORK_COMPLETE", "WORK_EXCEPTION"]
        assert process.run(job("dies", "exit"), packets.append) == "exited with code 0"
        assert len(packets) == 2
    finally:
        process.close()


def test_a_child_that_a_job_forks_says_nothing() -> None:
    assert call(poisons.forks, isolated=True).result == "the parent's, after 0"


def test_a_process_whose_loop_stands_still_is_killed() -> None:
    process = IsolatedProcess(start("holds_the_loop", hang_timeout_seconds=1.5, block_warning_seconds=0.5))
    try:
        assert process.run(job("holds_the_loop", "60"), lambda _: None) == (
            "let nothing else run for 1.5 s (hang_timeout)"
        )
    finally:
        process.close()


def test_a_process_that_cannot_start_says_nothing_about_the_job() -> None:
    with pytest.raises(CannotIsolate, match="it exited with code 9 before it was ready"):
        IsolatedProcess(start("dies", on_start="tests.support.poisons.kills_at_import"))
    with pytest.raises(ConfigError, match="has no 'nothing'"):
        IsolatedProcess(start("nothing"))


def test_without_descriptors_nothing_is_known_about_the_job_either() -> None:
    config = Config(job_servers=(SERVER,), capabilities={"dies": Capability("tests.support.poisons.dies")})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = set(os.listdir("/proc/self/fd"))
    highest = max(map(int, open_files))
    kept = [os.dup(0) for _ in range(highest)]  # so that each number below the limit is taken
    try:
        for room in range(4):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(kept) + 1 + room, before[1]))
            with pytest.raises(CannotIsolate, match=r"cannot start a process: .*Too many open files"):
                IsolatedProcess(Start(config, 1, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in kept:
            os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == len(open_files)


def test_many_jobs_share_a_few_processes_and_a_fresh_one_is_fresh() -> None:
    isolation = Isolation(start("process_id"))
    pids: list[str] = []

    def run() -> None:
        packets: list[Packet] = []
        ending, *_ = isolation.run("process_id", str(SERVER), job("process_id"), packets.append, fresh=False)
        assert ending == ""
        pids.append(packets[0].fields[1].decode())

    try:
        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(pids) == 8
        assert len(set(pids)) <= 4
        packets: list[Packet] = []
        ending, alone, _ = isolation.run("process_id", str(SERVER), job("process_id"), packets.append, fresh=True)
        assert (ending, alone) == ("", True)
        assert packets[0].fields[1].decode() not in pids
    finally:
        isolation.close()


def test_a_failure_whose_text_cannot_be_encoded_is_told_all_the_same() -> None:
    config = Config(
        job_servers=(SERVER,),
        capabilities={"misbehave": Capability("tests.support.capabilities.misbehave", retry=Retry(3))},
        python_path=(os.getcwd(),),
    )
    isolation = Isolation(Start(config, 1, 1))
    try:
        packet = job("misbehave", "surrogate")
        ending, _, failed = isolation.run("misbehave", str(SERVER), packet, lambda answer: None, fresh=False)
        assert (ending, failed and failed.text) == ("", "ValueError: half a pair: ?")
    finally:
        isolation.close()


def test_a_job_that_takes_over_a_process_leaves_the_failure_of_the_one_before_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Config(
        job_servers=(SERVER,),
        capabilities={"dies": Capability("tests.support.poisons.dies", retry=Retry(3))},
        python_path=(os.getcwd(),),
    )
    isolation = Isolation(Start(config, 1, 1))
    keep, after = Isolation._keep, ["not at all"]

    def run(workload: str) -> Failed | None:
        ending, _, failed = isolation.run("dies", str(SERVER), job("dies", workload), lambda packet: None, fresh=False)
        assert ending == ""
        return failed

    def keep_and_switch(*arguments: Any) -> None:
        """Another greenlet has its turn as soon as the process is there to be had."""
        keep(*arguments)
        if after:
            assert run(after.pop()) is None

    monkeypatch.setattr(Isolation, "_keep", keep_and_switch)
    try:
        failed = run("no such death")
        assert failed is not None
        assert "no such death" in failed.text
    finally:
        isolation.close()


def test_the_exception_of_an_isolated_job_is_its_clients() -> None:
    with pytest.raises(JobException, match="ValueError: as ever"):
        _ = call(poisons.raises, "as ever", isolated=True).result
