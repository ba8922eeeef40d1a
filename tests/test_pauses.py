"""`geard pause` and `geard resume`: no more of a function, while what runs is finished and the rest goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import msgspec
import pytest

from geard import exits
from geard.config.model import Capability
from geard.supervisor import answers
from geard.supervisor.answers import Request
from geard.supervisor.ask import ask
from geard.supervisor.fleet import Fleet
from geard.supervisor.state import load as load_state
from geard.supervisor.state import restore
from tests.support.daemon import Daemon
from tests.support.fake_fleet import World
from tests.support.pool import background
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually


@pytest.fixture
def daemon(gearmand: JobServerProcess) -> Iterator[Daemon]:
    with Daemon(gearmand) as daemon:
        daemon.write_config(state_directory=str(daemon.directory / "state"))
        daemon.start()
        yield daemon


def paused(daemon: Daemon) -> list[str]:
    return list(daemon.overview.paused)


def change(daemon: Daemon, command: str, *functions: str) -> answers.Answer:
    """As the command does, without the start of an interpreter."""
    return ask(daemon.socket, Request(command, functions=functions), timeout_seconds=60)


def test_running_jobs_run_once_over_a_pause_and_a_resume(job_server: JobServerProcess) -> None:
    with Daemon(job_server, greenlets_per_server=60) as daemon:
        daemon.start()
        background(job_server.address, "hold", *(f"job{number} 0" for number in range(50)))
        daemon.wait_running(50)
        done = daemon.geard("pause", "hold")
        assert done.returncode == exits.DONE, done.stderr
        assert "paused: hold; generation 2 serves" in done.stderr
        background(job_server.address, "hold", *(f"later{number} 0" for number in range(10)))
        background(job_server.address, "count", "other")
        eventually(lambda: daemon.runs["other"] == 1, what="another function goes on")
        assert "paused: hold" in daemon.geard("ps").stdout
        assert paused(daemon) == ["hold"]
        assert job_server.status("hold")[1] == 50, "those that run are still ours"
        daemon.release()
        eventually(lambda: len(daemon.runs) == 51, what="the end of those that run")
        eventually(lambda: len(daemon.overview.generations) == 1, what="the end of the old generation")
        assert job_server.status("hold") == (10, 0, 0), "what came later waits"
        resumed = daemon.geard("resume", "hold")
        assert resumed.returncode == exits.DONE, resumed.stderr
        eventually(lambda: len(daemon.runs) == 61, what="what has waited")
        assert set(daemon.runs.values()) == {1}
        assert paused(daemon) == []
        assert daemon.stop() == 0


def test_a_pause_holds_over_reload_and_restart(daemon: Daemon, gearmand: JobServerProcess) -> None:
    assert change(daemon, answers.PAUSE, "count", "spin").exit_code == exits.DONE
    eventually(lambda: len(daemon.overview.generations) == 1, what="the end of those that may grab one more")
    background(gearmand.address, "count", "waits")
    assert ask(daemon.socket, answers.RELOAD).exit_code == exits.DONE
    assert paused(daemon) == ["count", "spin"]
    daemon.write_config(capabilities={"sleep": "caps.sleep", "count": "caps.count"})
    assert ask(daemon.socket, answers.RELOAD).exit_code == exits.DONE
    assert paused(daemon) == ["count"]
    assert daemon.stop() == 0
    daemon.start(wait=False)
    daemon.wait_for("generation 1 serves", times=2)
    assert paused(daemon) == ["count"]
    assert "; paused: count" in daemon.log
    assert gearmand.status("count") == (1, 0, 0)
    assert change(daemon, answers.RESUME, "spin", "count").exit_code == exits.DONE
    eventually(lambda: daemon.runs["waits"] == 1)
    assert (daemon.directory / "state" / "paused.json").exists()


def test_what_cannot_be_is_refused_in_words(daemon: Daemon) -> None:
    before = daemon.children
    refused = daemon.geard("pause", "count", "cuont")
    assert (refused.returncode, refused.stdout) == (exits.USAGE, "")
    assert "no function cuont: this daemon has count, hold, sleep, spin" in refused.stderr
    assert change(daemon, answers.RESUME, "no\x1b[31m").message.startswith("no function no\\x1b[31m")
    assert change(daemon, answers.PAUSE).exit_code == exits.USAGE
    assert change(daemon, answers.RESUME, "count").message == "already resumed: count"
    assert daemon.children == before, "and no process is started for it"
    (daemon.directory / "caps.py").write_text("raise RuntimeError('out of order')\n")
    refused_start = change(daemon, answers.PAUSE, "count")
    assert refused_start.exit_code == exits.CONFIG
    assert refused_start.message.startswith("not paused: count; nothing paused or resumed, generation 1 goes on:")
    assert "out of order" in refused_start.message
    assert daemon.children == before
    assert paused(daemon) == []


def test_every_function_may_be_paused(daemon: Daemon, gearmand: JobServerProcess) -> None:
    assert change(daemon, answers.PAUSE, "count", "sleep", "hold", "spin").exit_code == exits.DONE
    eventually(lambda: not daemon.children, what="the end of the last worker process")
    assert daemon.geard("health").returncode == exits.DONE
    snapshot = ask(daemon.socket, answers.STATS).snapshot
    assert snapshot
    assert snapshot.paused == ["count", "hold", "sleep", "spin"]
    background(gearmand.address, "count", "job")
    assert daemon.stop() == 0
    daemon.start(wait=False)
    daemon.wait_for("generation 1 serves", times=2)
    assert change(daemon, answers.RESUME, "count").exit_code == exits.DONE
    eventually(lambda: daemon.runs["job"] == 1)


def test_all_of_a_great_many_functions_are_paused_by_one_command(gearmand: JobServerProcess) -> None:
    capabilities = {f"{'function' * 8}_{number}": "caps.count" for number in range(150)}
    with Daemon(gearmand, capabilities=capabilities) as daemon:
        daemon.start()
        done = daemon.geard("pause", *capabilities)
        assert done.returncode == exits.DONE, done.stderr
        assert daemon.overview.all_paused


def test_pauses_and_reloads_at_once_are_all_done(daemon: Daemon) -> None:
    found: list[answers.Answer] = []
    asked = [Request(answers.PAUSE, functions=("count",)), Request(answers.RELOAD)]
    asked += [Request(answers.PAUSE, functions=("spin",)), Request(answers.RESUME, functions=("count",))]
    threads = [
        threading.Thread(target=lambda each=each: found.append(ask(daemon.socket, each, timeout_seconds=60)))
        for each in asked
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.exit_code for answer in found] == [exits.DONE] * 4
    assert "spin" in paused(daemon)


def test_a_disk_that_fails_costs_only_the_memory(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        file = daemon.directory / "state"
        file.write_text("a file, no directory")
        daemon.write_config(state_directory=str(file))
        daemon.start()
        assert "cannot read" in daemon.log
        assert change(daemon, answers.PAUSE, "count").exit_code == exits.DONE
        daemon.wait_for("what is paused is forgotten at a restart")
        assert paused(daemon) == ["count"]
        assert daemon.stop() == 0
        os.unlink(file)
        file.mkdir()
        (file / "paused.json").write_text('{"not": "a list"}')
        daemon.start(wait=False)
        daemon.wait_for("generation 1 serves", times=2)
        assert paused(daemon) == []


def test_an_upgrade_carries_pauses_over() -> None:
    world = World(capabilities={name: Capability("app.f", processes=number) for number, name in enumerate("abc", 1)})
    world.ready(1, 2, 3, 4, 5, 6)
    world.asks(answers.PAUSE, functions=("b",))
    world.ready(7, 8, 9, 10)
    assert world.answers[-1].message == "paused: b; generation 2 serves"
    fleet = Fleet(lambda child: None)
    state = load_state(msgspec.json.encode(world.supervisor.capture()))
    restore(state, fleet, lambda child, known: None)
    assert fleet.current
    assert fleet.current.paused == {"b"}
    assert "b" in fleet.current.config.capabilities, "to be resumed"
    assert [slot.group.name for slot in fleet.current.slots] == ["a", "c", "c", "c"]


def test_no_upgrade_comes_before_a_slow_disk_has_the_pauses(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        (state := daemon.directory / "state").mkdir()
        daemon.write_config(state_directory=str(state))
        daemon.start()
        os.mkfifo(slow := state / "paused.json.new")  # whose writer waits for a reader
        assert change(daemon, answers.PAUSE, "count").exit_code == exits.DONE
        refused = daemon.geard("upgrade")
        assert refused.returncode == exits.TIMED_OUT, refused.stderr
        assert "it is too busy" in refused.stderr
        reader = os.open(slow, os.O_RDONLY)
        daemon.wait_for("cannot write")  # a FIFO is no disk
        os.close(reader)
        slow.unlink()
        assert daemon.geard("upgrade").returncode == exits.DONE
        assert daemon.stop() == exits.DONE


def test_what_is_asked_during_a_reload_is_done_after_it_whatever_becomes_of_it() -> None:
    world = World()
    world.ready(1, 2)
    world.signal(signal.SIGHUP)
    world.asks(answers.PAUSE, functions=("reverse",))
    world.loaded("no such key")
    assert world.loads == 1, "a pause needs no reading of the config"
    assert [answer.message for answer in world.answers] == ["paused: reverse; generation 2 serves"]
    assert world.picture == "1:draining 2:draining"
    world.asks(answers.STOP)
    world.asks(answers.RESUME, functions=("reverse",))
    assert world.answers[-1].message == "not resumed: reverse; the supervisor is stopping"


def test_a_stop_tells_each_who_waits_what_is_not_done() -> None:
    world = World()
    world.ready(1, 2)
    world.asks(answers.RELOAD)
    world.asks(answers.PAUSE, functions=("reverse",))
    world.asks(answers.STOP)
    world.asks(answers.RELOAD)
    assert [answer.message for answer in world.answers] == [
        "not reloaded: the supervisor is stopping",
        "not paused: reverse; the supervisor is stopping",
        "not reloaded: the supervisor is stopping",
    ]
