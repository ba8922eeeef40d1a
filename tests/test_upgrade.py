"""New code of geard under a supervisor of the old, and the old under new."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gevent
import msgspec
import pytest

from geard import __version__, exits, messages
from geard.cli.control import other_version
from geard.config.model import Capability, Config
from geard.messages import CannotStart, Start
from geard.stats.totals import Totals
from geard.supervisor import upgrade
from geard.supervisor.answers import Answer
from geard.supervisor.child import Child
from geard.supervisor.fleet import Fleet
from geard.supervisor.state import CARRIED, CannotUpgrade, ChildState, State, restore
from geard.supervisor.state import load as load_state
from geard.supervisor.upgrade import VARIABLE
from tests.support.daemon import Daemon, Load, submit
from tests.support.fake_fleet import FakeProcess, World, job
from tests.support.servers import Gearmand, free_port
from tests.support.waiting import eventually


def start_line(**changes: object) -> bytes:
    config = Config(capabilities={"reverse": Capability("geard.examples.reverse")})
    return messages.dump(Start(config, 1, 1, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [start_line(protocol=99, version="9.9"), b'{"type":"Begin","version":"9.9"}\n', b'{"number":1}\n', b"hello\n"],
)
def test_a_worker_process_that_does_not_understand_its_supervisor_says_so(line: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [
            sys.executable,
            "-P",
            "-m",
            "gevent.monkey",
            "--module",
            "geard.worker.process",
            str(theirs.fileno()),
        ]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
            ours.sendall(line)
            answer = messages.load_from_child(ours.makefile("rb").readline())
            assert process.wait(30) == exits.FAILED
    assert isinstance(answer, CannotStart)
    assert answer.incompatible
    assert f"this process is geard {__version__} and cannot work under a supervisor of" in answer.problems[0].message
    assert "restart" in answer.problems[0].hint


def test_a_start_of_a_version_that_only_says_more_is_understood() -> None:
    more = start_line().replace(b'"number":1', b'"number":1,"colour":"blue"')
    assert isinstance(messages.load_start(more), Start)


def test_the_commands_tell_a_supervisor_of_another_version() -> None:
    assert other_version(__version__) == other_version("") == ""
    assert other_version("0.0.1") == (
        f"the supervisor is geard 0.0.1 and this is geard {__version__}: run `geard upgrade`, or restart it"
    )
    with Daemon(None) as daemon:
        old = daemon.directory / "old"
        old.mkdir()
        code = "import geard; geard.__version__ = '0.0.1'; from geard.cli import main; main()"
        (old / "run").write_text(code)
        daemon.process = subprocess.Popen(
            [sys.executable, str(old / "run"), "run", "-c", str(daemon.config_path)],
            stdin=subprocess.DEVNULL,
            stdout=daemon.log_pipe.fileno(),
            stderr=daemon.log_pipe.fileno(),
            env=os.environ | {"PYTHONPATH": os.getcwd()},
        )
        daemon.wait_for("generation 1 serves")
        for command in ("ps", "reload"):
            said = daemon.geard(command)
            assert said.returncode == exits.DONE
            assert other_version("0.0.1") in said.stderr
        assert daemon.stop() == 0


def test_an_upgrade_keeps_pid_processes_jobs_and_counts_and_loses_none() -> None:
    with Gearmand() as server, Daemon(server, processes=2) as daemon, Load(server.address, per_second=200) as load:
        daemon.start()
        submit(server, "hold", "held 0")
        eventually(lambda: sum(daemon.runs.values()) > 50, what="the first jobs")
        assert daemon.process
        pid, workers = daemon.process.pid, sorted(daemon.children)
        for number in (1, 2):
            done = daemon.geard("upgrade")
            assert done.returncode == 0, done.stderr + daemon.log
            assert f"the supervisor (pid {pid}) is geard {__version__} now, and kept 2 worker processes" in done.stderr
            assert daemon.log.count("upgraded from geard") == number
        assert sorted(pid for pid in daemon.children if pid in workers) == workers
        overview = daemon.overview
        assert overview.pid == pid
        assert overview.done > 50
        assert [generation.number for generation in overview.generations] == [1]
        assert daemon.reload().stderr == "generation 2 serves\n"
        os.kill(daemon.processes[0].pid, signal.SIGKILL)  # one that the new code has started
        daemon.wait_for("is ready after", times=5)
        daemon.release()
        names = load.stop()
        eventually(lambda: set(daemon.runs) == names | {"held"}, what="the end of all jobs")
        assert max(daemon.runs.values()) == 1
        eventually(lambda: not set(workers) & set(daemon.children), what="the end of the old worker processes")
        assert "drained" in daemon.log
        assert daemon.stop() == 0


def test_a_worker_process_that_dies_during_an_upgrade_is_replaced_and_a_term_is_heard() -> None:
    with Gearmand() as server, Daemon(server, processes=2) as daemon:
        daemon.start()
        worker = daemon.processes[0].pid
        assert daemon.process
        with subprocess.Popen(daemon.command("upgrade"), stderr=subprocess.PIPE) as upgrade:
            daemon.wait_for("executing the installed geard")
            os.kill(worker, signal.SIGKILL)
            assert upgrade.wait(30) == 0
        daemon.wait_for("is ready after", times=3)
        with subprocess.Popen(daemon.command("upgrade"), stderr=subprocess.PIPE) as upgrade:
            daemon.wait_for("executing the installed geard", times=2)
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
            upgrade.wait(60)
        assert "stopped in" in daemon.log


def test_a_signal_that_another_thread_has_caught_is_heard_by_the_code_executed_in_our_place() -> None:
    code = """
import os, signal, sys, threading
import gevent
from geard.supervisor import signals

heard = []
handler = signals.Handler(signal.SIGTERM, lambda: heard.append(signal.SIGTERM))
if len(sys.argv) == 1:
    signals.block([signal.SIGTERM, signal.SIGHUP])
    def catch():
        signals.unblock([signal.SIGTERM])
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    thread = threading.Thread(target=catch)
    thread.start()
    thread.join()
    os.kill(os.getpid(), signal.SIGHUP)
    os.set_inheritable(signals.descriptor(), True)
    os.execv(sys.executable, [sys.executable, __file__, str(signals.descriptor())])
signals.Handler(signal.SIGHUP, lambda: heard.append(signal.SIGHUP))
signals.take_over(int(sys.argv[1]))
assert heard == [signal.SIGTERM], heard
signals.unblock([signal.SIGHUP])
gevent.sleep(0.01)
assert heard == [signal.SIGTERM, signal.SIGHUP], heard
handler.cancel()
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
"""
    with tempfile.TemporaryDirectory(prefix="geard-test-") as directory:
        script = Path(directory) / "upgraded.py"
        script.write_text(code)
        run = [sys.executable, str(script)]
        done = subprocess.run(
            run, capture_output=True, text=True, timeout=60, env=os.environ | {"PYTHONPATH": os.getcwd()}
        )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("option", ["--embedded", "--watch"])
def test_what_cannot_be_upgraded_is_refused_in_words_and_goes_on(option: str) -> None:
    with Daemon(None, job_servers=[f"127.0.0.1:{free_port()}"]) as daemon:
        daemon.start(option)
        done = daemon.geard("upgrade")
        assert done.returncode == exits.FAILED
        assert "not upgraded, all goes on as it was: " in done.stderr
        assert daemon.stop() == 0


def test_new_code_that_cannot_read_the_state_is_not_executed() -> None:
    with Daemon(None) as daemon:
        broken = daemon.directory / "site"
        broken.mkdir()
        (broken / "sitecustomize.py").write_text(
            f"import os, sys\nif os.path.exists('{daemon.directory}/broken'): sys.exit('no such code')\n"
        )
        daemon.start(env=os.environ | {"PYTHONPATH": str(broken)})
        (daemon.directory / "broken").touch()
        done = daemon.geard("upgrade")
        assert done.returncode == exits.FAILED
        assert "not upgraded, all goes on as it was: " in done.stderr
        assert daemon.overview.state == "running"
        assert daemon.stop() == 0


def test_an_upgrade_goes_on_though_the_log_file_cannot_be_opened_any_more() -> None:
    with Daemon(None) as daemon:
        log = daemon.directory / "log"
        daemon.write_config(logging={"file": str(log)})
        daemon.start(wait=False)
        eventually(lambda: log.exists() and "generation 1 serves" in log.read_text(), what="the start")
        log.rename(daemon.directory / "rotated")
        log.mkdir()
        done = daemon.geard("upgrade")
        assert done.returncode == exits.DONE, done.stderr
        assert "cannot open the log file" in daemon.log  # which is stderr
        assert daemon.stop() == 0


def fake_check(state: State, run: object) -> str:
    return ""


def failing_check(state: State, run: object) -> str:
    raise ValueError("odd")


@pytest.mark.parametrize(
    ("check", "stops", "code"),
    [(fake_check, True, exits.TIMED_OUT), (failing_check, True, exits.TIMED_OUT), (failing_check, False, exits.FAILED)],
    ids=["a stop comes", "both", "the check fails"],
)
def test_an_upgrade_that_cannot_be_any_more_is_refused_at_once(
    check: Callable[..., str], stops: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "check", check)
    supervisor = SimpleNamespace(capture=lambda: None, children=[], is_stopping=False, not_at_rest="")
    companions = SimpleNamespace(paused=True, resumed=0)
    companions.resume = lambda: setattr(companions, "resumed", companions.resumed + 1)
    upgrades = upgrade.Upgrades(
        cast("Any", supervisor),
        cast("Any", companions),
        impossible="",
        is_idle=lambda: False,
        with_descriptors=lambda state: state,
    )
    said: list[Answer] = []
    upgrades.asked(said.append)
    upgrades.tick()
    assert upgrades.are_under_way
    if stops:
        supervisor.is_stopping, supervisor.not_at_rest = True, "the daemon is stopping"
        upgrades.tick()
    gevent.sleep(0)  # the check comes to its end
    assert [answer.exit_code for answer in said] == [code]
    assert companions.resumed == 1
    assert not upgrades.are_under_way


def test_a_supervisor_that_cannot_read_what_was_left_to_it_starts_anew() -> None:
    state = os.memfd_create("state")
    os.write(state, b'{"format":99}')
    with Gearmand() as server, Daemon(server) as daemon:
        daemon.start(env=os.environ | {VARIABLE: str(state)}, pass_fds=[state])
        assert "cannot read the state of the supervisor" in daemon.log
        assert daemon.stop() == 0
    os.close(state)


def test_a_state_of_another_format_or_with_workers_of_another_protocol_is_not_taken_over() -> None:
    with pytest.raises(CannotUpgrade, match="cannot read the state"):
        load_state(b"{}")
    state = State(
        config_file="geard.yaml",
        started_at=0.0,
        refusal="",
        last_number=1,
        done_by_gone=0,
        failed_by_gone=0,
        generations=(),
        children=(),
        suspects=(),
        totals=pickle.dumps(Totals()),
    )
    assert load_state(msgspec.json.encode(state)).last_number == 1
    for change, words in (({"format": 99}, "does not know the state"), ({"protocol": 99}, "cannot talk to workers")):
        with pytest.raises(CannotUpgrade, match=words):
            load_state(msgspec.json.encode(msgspec.structs.replace(state, **change)))


def test_all_that_a_supervisor_knows_is_carried_over() -> None:
    """Whoever gives a Child, a Slot or a Generation something more to know says here, or in CARRIED, what becomes of it
    in an upgrade."""
    world = World(drain_timeout_seconds=60.0)
    world.ready(1, 2)
    world.beats(1, running=2, done=7, memory=5_000_000, jobs=[job(1), job(2)])
    world.signal(signal.SIGHUP)
    world.loaded()
    world.ready(3, 4)
    world.drains(2, finished=1)
    world.dies(3)
    world.passes(1.0)
    world.ready(5)
    world.beats(4, running=1, done=3, jobs=[job(3)])
    state = load_state(msgspec.json.encode(world.supervisor.capture()))
    assert not {"seat", "process", "group"} & set(CARRIED)
    fleet = Fleet(lambda child: None)
    restored = {}

    def adopt(child: Child, known: ChildState) -> None:
        restored[known.pid] = child
        child.process = FakeProcess(known.pid)

    restore(state, fleet, adopt)
    before = {child.process.pid: child for child in world.supervisor.children if child.process}
    assert sorted(before) == sorted(restored)
    new = {"process", "group", "seat", "problems", "exit_code", "incompatible", "blocked_by", "_stacks_asked"}
    for pid, child in before.items():
        ours, theirs = vars(child), vars(restored[pid])
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - new:
            assert ours[name] == theirs[name], name
        assert child.group == restored[pid].group
    assert list(map(repr, fleet.generations)) == [
        "<Generation 1 draining 1 processes>",
        "<Generation 2 current 2 processes>",
    ]
    assert fleet.current
    assert [slot.number for slot in fleet.current.slots] == [1, 2]
    assert fleet.counters[0] == 10
    assert fleet.begin(world.source(), frozenset(), world.now).number == 3


def test_of_two_upgrades_at_once_one_is_made_and_both_are_answered() -> None:
    with Daemon(None) as daemon:
        daemon.start()
        both = [subprocess.Popen(daemon.command("upgrade"), stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=60)[1] for process in both]
        assert any(f"is geard {__version__} now" in text for text in said)
        assert all("is geard" in text or "another upgrade is under way" in text for text in said)
        assert daemon.stop() == 0
