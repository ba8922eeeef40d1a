"""`geard bench` as a user runs it, and what it must not leave in anybody's job server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard import Client, exits
from geard.cli.bench import leftovers, plan
from geard.cli.bench.measure import Bench, Progress
from geard.cli.bench.report import Figures, Memory, Reading, Report, RoundTrip, Sample, lines, stretch
from geard.config import Capability, JobServer, Tls, parse_address
from geard.errors import ConfigError, GeardError, InvalidRequest, JobException
from geard.protocol import Command
from tests.support.commands import Running, geard
from tests.support.left_behind import nothing_left
from tests.support.raw import Peer
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def gearmand() -> Iterator[JobServerProcess]:
    with Gearmand() as server:
        yield server


SLOW_WHEN_DRAINED = """
import os, pathlib, time
marks = pathlib.Path(__file__).parent
(marks / f"mark{os.getpid()}").touch()
drains = len(list(marks.glob("mark*"))) > 2  # `geard bench` has imported it, then the first daemon
def nap(workload):
    time.sleep(60 if drains else 0)
"""


def planned(function: str, config: str | None = None, **others: object) -> plan.Plan:
    usual = {"workload": None, "size": 100, "jobs": 10, "concurrency": 5, "processes": None, "greenlets": None}
    return plan.make(function, config, **{**usual, **others})  # type: ignore[arg-type]


# --- the command -----------------------------------------------------------------------------------------------------


def test_it_measures_each_part_on_a_job_server_of_its_own_and_leaves_nothing() -> None:
    with nothing_left() as variables:
        done = geard("bench", "reverse", "-n", "200", "--size", "1K", "--json", variables=variables)
    assert (done.returncode, done.stderr) == (exits.DONE, b"")
    report = json.loads(done.stdout)
    assert (report["function"], report["own_server"], report["jobs"]) == ("reverse", True, 200)
    assert report["workload_bytes"] == 1024
    for phase, parts in {
        "submitted": {"client", "job_server"},
        "drained": {"worker", "job_server"},
        "foreground": {"client", "worker", "job_server"},
        "one_at_a_time": {"client", "worker", "job_server"},
    }.items():
        assert report[phase]["jobs_per_second"] > 0
        assert report[phase]["failed"] == 0
        used = {part for part in ("client", "worker", "job_server") if report[phase][f"{part}_cpu_seconds"] is not None}
        assert used == parts, phase
    assert report["submitted"]["jobs"] == report["drained"]["jobs"] == report["foreground"]["jobs"] == 200
    assert 0 < report["round_trip"]["p50_seconds"] <= report["round_trip"]["p99_seconds"]
    assert report["memory"]["worker_process_bytes"] > 2**20
    assert report["memory"]["job_server_bytes"] > 2**20


def test_ctrl_c_takes_its_jobs_out_of_the_job_server_again(gearmand: JobServerProcess, tmp_path: Path) -> None:
    tmp_path.joinpath("slow.py").write_text(SLOW_WHEN_DRAINED)
    config = tmp_path / "geard.yaml"
    config.write_text(f"capabilities: {{nap: slow.nap}}\npython_path: ['{tmp_path}']\ngreenlets_per_server: 4\n")
    with nothing_left() as variables:
        arguments = ("bench", "nap", "-s", gearmand.address, "-c", str(config), "-n", "300")
        with Running(*arguments, terminal=True, variables=variables) as running:
            running.sees(r"draining +━* *0%")
            eventually(lambda: gearmand.text("status")[0].endswith("\t300\t4\t1"))
            (name,) = {line.split("\t")[0] for line in gearmand.text("status")}
            assert name.startswith(f"geard-bench-{running.process.pid}-")
            assert name.endswith("-nap")
            running.interrupt()
            assert running.ends() == exits.INTERRUPTED, running.text
            assert "geard: interrupted" in running.text
            assert "Traceback" not in running.text
    assert gearmand.text("status") == []


# --- its parts -------------------------------------------------------------------------------------------------------


def test_what_is_left_is_taken_out_of_any_job_server(job_server: JobServerProcess) -> None:
    server = parse_address(job_server.address)
    with Client(server, encoding="bytes") as client, Peer.connect(job_server.address) as worker:
        list(client.submit_many_background("left", [b"x" * 300] * 250))
        client.submit_background("other", b"")
        worker.send(Command.CAN_DO, b"left")
        worker.send(Command.GRAB_JOB)
        worker.expect(Command.JOB_ASSIGN)
        with pytest.raises(GeardError, match=r"\d jobs of left are left in"):  # a worker has it still
            leftovers.remove(server, "left", 0.2)
    leftovers.remove(server, "left")
    leftovers.remove(server, "left")  # again, with nothing to be found
    assert [line.split("\t")[:2] for line in job_server.text("status")] == [["other", "1"]]


def test_a_job_server_that_is_gone_is_said_to_hold_jobs_perhaps() -> None:
    with pytest.raises(GeardError, match=r"jobs of left may be left in 127\.0\.0\.1:1: cannot connect"):
        leftovers.remove(JobServer("127.0.0.1", 1), "left")


def test_a_function_that_fails_is_told_before_anything_is_measured() -> None:
    class Failing(Client):
        def run(self, *_: object, **__: object) -> object:
            raise JobException(f"{bench._plan.function}: ValueError: no\x1b[2J", "no")

    server = JobServer("127.0.0.1", 1)
    bench = Bench(planned("fail"), server, None, Failing(server), Progress(), own_server=True)
    with pytest.raises(
        GeardError, match=r"fails on this workload: fail: ValueError: no\\x1b\[2J\n    --workload gives it another"
    ):
        bench._first_job()


def test_a_function_is_one_of_the_config_a_dotted_path_or_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEARD_CONFIG", raising=False)
    with pytest.raises(InvalidRequest, match=r"no function 'resize': geard\.examples has reverse, "):
        planned("resize")
    config = tmp_path / "geard.yaml"
    config.write_text("""
job_servers: [{host: localhost, port: 4731, tls: true}]
capabilities:
  resize: {function: images.resize, processes: 3, greenlets_per_server: 7, encoding: json, retry: 5, rate: 50/s}
  "two words": images.two
greenlets_per_server: 9
schedules: {nightly: {function: resize, cron: "@daily"}}
monitor: 127.0.0.1:8733
""")
    plans = [planned("resize"), planned("resize", "geard.yaml")]
    for found in plans:
        (capability,) = found.config.capabilities.values()
        assert (capability.function, capability.encoding, capability.retry) == ("images.resize", "json", None)
        assert capability.rate is not None
        assert (found.config.processes, found.config.greenlets_per_server) == (3, 7)
        assert (found.config.schedules, found.config.monitor, found.config.dead_letters) == ({}, None, None)
        assert list(found.under_its_own_name.capabilities) == ["resize"]
        assert json.loads(found.workload) == "x" * 98
    assert plans[0].function != plans[1].function  # though it is the same process
    assert plans[0].known(JobServer("localhost", 4731)).tls == Tls()
    assert plans[0].known(JobServer("localhost", 4730)).tls is None
    found = planned("two words", "geard.yaml", processes=2, greenlets=4, workload=b"4")
    assert (found.config.processes, found.config.greenlets_per_server, found.workload) == (2, 4, b"4")
    assert found.function.endswith("-two_words")
    assert planned("images.other", "geard.yaml").config.greenlets_per_server == 9
    assert next(iter(planned("tasks.shout").config.capabilities.values())) == Capability("tasks.shout")
    assert planned("tasks.shout").config.python_path == (str(tmp_path),)
    assert planned("reverse").config.greenlets_per_server == 50  # the example, whatever the default config has
    with pytest.raises(InvalidRequest, match=r"no function 'reverse': geard\.yaml has resize, two words"):
        planned("reverse", "geard.yaml")
    with pytest.raises(ConfigError):
        planned("reverse", "none.yaml")
    assert plan.names({"config_path": None}, "re") == ["resize", "reverse"]
    assert plan.names({"config_path": "geard.yaml"}, "re") == ["resize"]


def test_a_drain_is_measured_in_its_middle_or_as_a_whole() -> None:
    def samples(*left: int) -> list[Sample]:
        return [Sample(count, Reading(float(n), None, None, None)) for n, count in enumerate(left)]

    first, last = stretch(samples(1000, 1000, 950, 800, 500, 150, 50, 0), 1000)
    assert (first.left, last.left) == (800, 150)
    first, last = stretch(samples(1000, 1000, 700, 650, 0), 1000)  # little of it was seen
    assert (first.left, last.left, first.reading.time) == (1000, 0, 1.0)
    first, last = stretch(samples(0), 1000)  # it was over before the first look
    assert first is last


def test_the_table_says_what_each_job_costs_and_what_failed() -> None:
    first, last = Reading(1.0, 0.5, None, 2.0, {7: 1.0, 8: 1.0}), Reading(3.0, 0.6, 9.0, 2.5, {7: 1.4, 8: 1.1})
    figures = Figures.between(first, last, 20_000, failed=7)
    none = Figures(0, 0.0, 0.0)
    trip = RoundTrip.of([0.001] * 98 + [0.002, 0.5])
    memory = Memory(33 * 2**20, 28 * 2**20, 700.4)
    report = Report("re\x1bverse", "here:4730", True, 20_000, 100, 2, 50, 8, figures, none, none, none, trip, memory)
    assert [line.text for line in lines(report)] == [
        "re\\x1bverse: 20,000 jobs of 100 bytes",
        "2 worker processes with 50 greenlets, on a job server of its own, here:4730",
        "",
        "                             JOBS/S  CPU A JOB:  CLIENT  WORKER  JOB SERVER  ITS BUSIEST THREAD",
        "submitted in the background  10,000              5.0 µs       -     25.0 µs             20.0 µs",
        "drained                         0.0                   -       -           -                   -",
        "foreground, 8 at a time         0.0                   -       -           -                   -",
        "foreground, one at a time       0.0                   -       -           -                   -",
        "",
        "round trip  p50 1.00 ms, p99 500.00 ms",
        "memory      worker process 33.0 MiB, job server 28.0 MiB, and 700 bytes for each job in its queue",
    ]
