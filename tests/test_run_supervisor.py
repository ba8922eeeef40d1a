"""`geard run` with real worker processes and a real job server: start, stop, crash, stuck, signals, control socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from geard import exits
from geard.protocol import Command
from geard.supervisor.answers import Overview
from tests.support.daemon import CAPABILITIES, Daemon, Load, submit
from tests.support.raw import Peer
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import eventually

# --- stop ---------------------------------------------------------------------------------------------------------


def test_five_hundred_jobs_in_flight_all_finish_after_term_and_none_is_handed_back(gearmand: JobServerProcess) -> None:
    names = [f"job-{n}" for n in range(500)]
    with Daemon(gearmand, processes=2, greenlets_per_server=250) as daemon:
        daemon.start()
        submit(gearmand, "hold", *(f"{name} {1.5 * n / 500:.3f}" for n, name in enumerate(names)))
        daemon.wait_running(500)
        submit(gearmand, "hold", "later 0")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("draining, jobs in flight: 250", 2)
        daemon.release()
        assert daemon.wait() == exits.DONE
        assert daemon.runs == Counter(names)
        assert gearmand.status("hold") == (1, 0, 0), "the job that nobody had taken waits for another worker"
        assert "500 of 500 jobs in flight finished" in daemon.log


def test_an_idle_daemon_stops_with_0_and_leaves_no_process_and_no_socket(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, processes=3) as daemon:
        daemon.start()
        assert len(daemon.processes) == 3
        assert daemon.stop() == exits.DONE
        assert not daemon.left_behind()
        assert not os.path.exists(daemon.socket)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_hands_the_jobs_back_at_once(gearmand: JobServerProcess, second: signal.Signals) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        submit(gearmand, "sleep", "long 60")
        daemon.wait_running(1)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("draining, jobs in flight: 1")
        daemon.signal(second)
        assert daemon.wait() == exits.LEFT_JOBS
        assert gearmand.status("sleep") == (1, 0, 0)
        assert "left 1 job to other workers: sleep H:" in daemon.log


@pytest.mark.parametrize("late", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_in_the_last_moments_changes_nothing(late: signal.Signals, gearmand: JobServerProcess) -> None:
    schedules = {"often": {"function": "count", "every": "1h"}}
    with Daemon(gearmand, schedules=schedules) as daemon:
        daemon.start()
        (scheduler,) = re.findall(r"the scheduler runs, pid (\d+)", daemon.log)
        os.kill(int(scheduler), signal.SIGSTOP)  # so that the end takes two seconds
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("stopped in")
        daemon.signal(late)
        assert daemon.wait() == exits.DONE
        assert not os.path.exists(daemon.socket)


def test_after_shutdown_timeout_the_rest_is_handed_back_and_named(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, shutdown_timeout="1s") as daemon:
        daemon.start()
        submit(gearmand, "hold", "short 0")
        submit(gearmand, "sleep", "long 60")
        daemon.wait_running(2)
        daemon.signal(signal.SIGTERM)
        daemon.release()
        assert daemon.wait() == exits.LEFT_JOBS
        assert daemon.runs == Counter(["short"])
        assert gearmand.status("sleep") == (1, 0, 0)
        assert "1 of 2 jobs in flight finished, 1 left to other workers" in daemon.log


def test_a_terminals_interrupt_reaches_the_supervisor_alone(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start(start_new_session=True)
        submit(gearmand, "hold", "job 0")
        daemon.wait_running(1)
        assert daemon.process
        os.killpg(daemon.process.pid, signal.SIGINT)
        daemon.wait_for("SIGINT: drain")
        daemon.release()
        assert daemon.wait() == exits.DONE
        assert daemon.runs == Counter(["job"])


def test_worker_processes_finish_their_jobs_and_go_when_the_supervisor_is_killed(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, processes=2) as daemon:
        daemon.start()
        submit(gearmand, "hold", "a 0", "b 0")
        daemon.wait_running(2)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        eventually(lambda: daemon.log.count("the supervisor is gone: draining") == 2)
        daemon.release()
        eventually(lambda: not daemon.left_behind(), what="the end of the worker processes")
        eventually(lambda: gearmand.status("hold") == (0, 0, 0), what="the end of their connections")
        assert daemon.runs == Counter(["a", "b"])


def test_geard_stop_waits_for_the_jobs_and_says_how_it_went(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        submit(gearmand, "hold", "job 0")
        daemon.wait_running(1)
        with subprocess.Popen(daemon.command("stop"), stderr=subprocess.PIPE) as stop:
            daemon.wait_for("draining, jobs in flight: 1")
            daemon.release()
            assert "1 of 1 jobs in flight finished" in stop.communicate(timeout=30)[1].decode()
        assert stop.returncode == exits.DONE
        assert daemon.wait() == exits.DONE
        gone = daemon.geard("stop")
        assert gone.returncode == exits.UNAVAILABLE
        assert f"no supervisor answers on {daemon.socket}" in gone.stderr


# --- start --------------------------------------------------------------------------------------------------------


def test_a_config_that_cannot_run_is_78_with_every_problem_and_its_line() -> None:
    with Daemon(None, processes=2) as daemon:
        daemon.write_config(
            capabilities={
                "b": {"function": "no_such_module.f", "processes": 1},
                "count": "caps.count",
                "a": "caps.missing",
            },
            on_start="caps.mising",
        )
        daemon.start(wait=False)
        assert daemon.wait() == exits.CONFIG
        assert re.findall(rf"^ *{daemon.config_path}:\d+:\d+: ([^:]+)", daemon.log, re.MULTILINE) == [
            *("capabilities.a", "capabilities.b", "on_start")
        ], "together and in the order of the file"
        assert daemon.log.count("'caps' has no 'missing'") == 1, "though both processes found it"
        assert f"{daemon.config_path}:2:" in daemon.log
        assert "no_such_module" in daemon.log
        assert "Traceback" not in daemon.log


def test_problems_of_the_config_and_of_the_code_are_told_together_before_anything_starts() -> None:
    with Daemon(None, procesess=2) as daemon:
        daemon.write_config(capabilities={"typo": "caps.cuont"})
        daemon.start(wait=False)
        assert daemon.wait() == exits.CONFIG
        assert "procesess: unknown key" in daemon.log
        assert "capabilities.typo: module 'caps' has no 'cuont'" in daemon.log
        assert "Traceback" not in daemon.log
        assert "generation 1" not in daemon.log


def test_problems_reach_the_terminal_also_when_the_log_is_a_file() -> None:
    with Daemon(None, capabilities={"a": "no_such_module.f"}) as daemon:
        daemon.write_config(logging={"file": str(daemon.directory / "geard.log")})
        daemon.start(wait=False)
        assert daemon.wait() == exits.CONFIG
        assert "no_such_module" in daemon.log
        assert "no_such_module" in (daemon.directory / "geard.log").read_text()


def test_it_starts_without_a_job_server_and_takes_jobs_when_one_comes(gearmand: JobServerProcess) -> None:
    gearmand.kill()
    with Daemon(gearmand) as daemon:
        daemon.start()
        assert daemon.processes[0].disconnected == (gearmand.address,)
        gearmand.start()
        submit(gearmand, "count", "job")
        eventually(lambda: daemon.runs == Counter(["job"]))


def test_the_supervisor_stays_under_forty_mebibytes_after_a_reload(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, processes=4) as daemon:
        daemon.start()
        assert daemon.reload().returncode == 0
        assert daemon.overview.memory_bytes < 40 * 2**20


# --- crashes ------------------------------------------------------------------------------------------------------


def test_a_killed_worker_process_loses_no_job_and_only_its_own_run_twice(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, processes=3) as daemon:
        daemon.start()
        killed: set[int] = set()

        def runs_by_living() -> Counter[str]:
            lines = (daemon.directory / "runs").read_text().splitlines()
            return Counter(name for name, pid in map(str.split, lines) if int(pid) not in killed)

        with Load(gearmand.address) as load:
            for kills in range(1, 4):
                before = daemon.runs.total()
                eventually(lambda before=before: daemon.runs.total() > before + 100)  # type: ignore[misc]
                victim = daemon.processes[kills % len(daemon.processes)].pid
                killed.add(victim)
                os.kill(victim, signal.SIGKILL)
                daemon.wait_for("was killed by SIGKILL", kills)
            eventually(lambda: runs_by_living().total() > 100)
            names = load.stop()
        eventually(lambda: set(daemon.runs) == names, what="a run of every job")
        assert max(runs_by_living().values()) == 1, "a process that lives runs a job once"


def test_the_log_names_the_jobs_of_a_killed_process(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        submit(gearmand, "hold", "job 0")
        daemon.wait_running(1)
        os.kill(daemon.processes[0].pid, signal.SIGKILL)
        daemon.wait_for("left 1 job to other workers")
        assert ": hold H:" in daemon.log
        daemon.release()
        eventually(lambda: daemon.runs == Counter(["job"]), what="its second run")


def test_a_process_that_a_job_started_does_not_outlive_a_killed_worker(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        source = "\nimport subprocess\n\ndef shell(workload):\n    subprocess.run(['sleep', workload])\n"
        (daemon.directory / "caps.py").write_text(CAPABILITIES + source)
        daemon.write_config(capabilities={"shell": "caps.shell"})
        daemon.start()
        submit(gearmand, "shell", "987.125")
        eventually(lambda: _commands_with("987.125"))
        (daemon.directory / "caps.py").write_text(CAPABILITIES + "\n\ndef shell(workload):\n    record('again')\n")
        os.kill(daemon.processes[0].pid, signal.SIGKILL)
        eventually(lambda: not _commands_with("987.125"), what="the end of the program")


def test_stuck_processes_are_named_killed_and_replaced_and_the_others_go_on() -> None:
    """With one greenlet each: a process that has a job asks for no other, so it is known who gets which."""
    once = Gearmand("--job-retries=1")  # a job of a process that is killed is not given to the next
    stuck: dict[str, Any] = {"processes": 3, "greenlets_per_server": 1, "block_warning": "300ms", "hang_timeout": "2s"}
    with once as gearmand, Daemon(gearmand, **stuck) as daemon:
        daemon.start()
        submit(gearmand, "hold", "one 0", "another 0")
        daemon.wait_running(2)
        stopped, going_on = (process.pid for process in daemon.processes if process.jobs)
        spinning = next(process.pid for process in daemon.processes if not process.jobs)
        submit(gearmand, "spin", "stuck 600")
        daemon.wait_for("without yielding")
        assert "spin (H:" in daemon.log
        assert "in spin" in daemon.log, "the stack shows where"
        os.kill(stopped, signal.SIGSTOP)
        submit(gearmand, "count", "job")
        daemon.release()
        eventually(lambda: daemon.runs["job"] == 1)
        daemon.wait_for("its stacks follow", 2)
        daemon.wait_for("was killed by SIGKILL", 2)
        assert "it is stuck, held by spin H:" in daemon.log
        assert "most recent call first" in daemon.log, "faulthandler's stacks"
        assert not {spinning, stopped} & set(daemon.children)
        assert going_on in daemon.children
        assert daemon.runs.total() == 2, "what was held in the process that went on, and what it took after that"
        daemon.wait_for("is ready", 5)


def test_recycled_processes_lose_and_repeat_nothing(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, processes=2, max_jobs=300) as daemon:
        daemon.start()
        with Load(gearmand.address) as load:
            daemon.wait_for("(max_jobs)", 2)
            names = load.stop()
        eventually(lambda: set(daemon.runs) == names)
        assert max(daemon.runs.values()) == 1
        assert "other workers" not in daemon.log


# --- signals ------------------------------------------------------------------------------------------------------


def test_ttin_and_ttou_change_the_number_of_processes(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        daemon.signal(signal.SIGTTIN)
        eventually(lambda: gearmand.status("count")[2] == 2)
        daemon.signal(signal.SIGTTOU)
        eventually(lambda: gearmand.status("count")[2] == 1)


def test_usr1_reopens_a_rotated_log_in_every_process(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        log, rotated = daemon.directory / "geard.log", daemon.directory / "geard.log.1"
        daemon.write_config(logging={"file": str(log)})
        daemon.start(wait=False)
        eventually(lambda: log.exists() and "generation 1 serves" in log.read_text())
        log.rename(rotated)
        daemon.signal(signal.SIGUSR1)
        eventually(log.exists)
        daemon.signal(signal.SIGUSR2)
        eventually(lambda: "busy greenlets" in log.read_text(), what="the worker's line in the new file")
        assert "SIGUSR2" in log.read_text()
        assert "SIGUSR2" not in rotated.read_text()


def test_usr2_logs_every_running_job_with_its_stack(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        submit(gearmand, "hold", "here 0")
        daemon.wait_running(1)
        daemon.signal(signal.SIGUSR2)
        daemon.wait_for("busy greenlets: 1")
        daemon.wait_for("time.sleep(0.05)")
        daemon.release()
        assert "(unique here): running for" in daemon.log, "function, handle and unique"


def test_verbose_logs_each_job_and_a_failure_with_function_handle_unique_and_traceback(
    gearmand: JobServerProcess,
) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start("--verbose")
        submit(gearmand, "count", "good")
        daemon.wait_for(" (unique good): done in ")
        submit(gearmand, "sleep", "bad")
        daemon.wait_for(" (unique bad): failed in ")
        assert re.search(r" info .*: count H:[^ ]+ \(unique good\): done in [\d.]+ ms\n", daemon.log)
        failure = (
            r" error .*: sleep H:[^ ]+ \(unique bad\): job failed: ValueError: not enough values .*\n    Traceback "
        )
        assert re.search(failure, daemon.log)
        assert "caps.py" in daemon.log, "where it failed"


def test_a_full_disk_for_the_log_stops_no_job(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, logging={"file": "/dev/full"}) as daemon:
        daemon.start(wait=False)
        submit(gearmand, "count", "job")
        eventually(lambda: daemon.runs == Counter(["job"]))
        assert daemon.reload().returncode == 0
        assert daemon.stop() == exits.DONE


def test_a_worker_process_that_cannot_open_the_log_file_does_without_until_it_can(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        log = daemon.directory / "log"
        daemon.write_config(logging={"file": str(log)})
        daemon.start(wait=False)
        eventually(lambda: log.exists() and "generation 1 serves" in log.read_text(), what="the start")
        (first,) = daemon.processes
        log.rename(daemon.directory / "rotated")
        log.mkdir()
        os.kill(first.pid, signal.SIGKILL)
        submit(gearmand, "count", "job")
        eventually(lambda: daemon.runs == Counter(["job"]), what="the job in a new process")
        assert "cannot open the log file" in daemon.log  # which is stderr
        log.rmdir()
        daemon.signal(signal.SIGUSR1)
        eventually(log.exists, what="the log file anew")
        daemon.signal(signal.SIGUSR2)
        eventually(lambda: f"worker 1[{daemon.processes[0].pid}]: busy greenlets" in log.read_text())
        assert daemon.stop() == exits.DONE


# --- the control socket -------------------------------------------------------------------------------------------


def test_with_closed_standard_streams_the_log_is_written_into_nothing_else(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start(wait=False, preexec_fn=lambda: os.closerange(0, 3))
        eventually(lambda: daemon.geard("ps").returncode == exits.DONE, what="the control socket")
        assert daemon.process
        for pid in (daemon.process.pid, *daemon.children):
            assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
        assert daemon.reload().returncode == exits.DONE
        assert daemon.stop() == exits.DONE


def test_ps_shows_processes_and_the_jobs_they_run(gearmand: JobServerProcess) -> None:
    with Daemon(
        gearmand, capabilities={"hold": "caps.hold", "count": {"function": "caps.count", "processes": 2}}
    ) as daemon:
        daemon.start()
        submit(gearmand, "hold", "job 0")
        daemon.wait_running(1)
        shown = daemon.geard("ps").stdout
        assert shown.count("1 current") == 3
        assert shown.count(" count ") == 2
        assert "hold      H:" in shown
        overview = msgspec.json.decode(daemon.geard("ps", "--json").stdout, type=Overview)
        jobs = [job for process in overview.generations[0].processes for job in process.jobs]
        assert [job.function for job in jobs] == ["hold"]
        daemon.release()
        assert {process.pid for process in overview.generations[0].processes} == set(daemon.children)


def test_the_control_socket_is_its_owners_and_a_leftover_is_replaced(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o600
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        assert os.path.exists(daemon.socket)
        daemon.start(wait=False)
        daemon.wait_for("generation 1 serves", 2)
        assert daemon.processes


def test_a_second_supervisor_on_the_same_socket_is_refused_and_harms_nothing(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        second = daemon.geard("run")
        assert second.returncode == exits.CONFIG
        assert "another supervisor answers" in second.stderr
        assert daemon.processes


def test_health_goes_with_the_job_server_and_the_daemon(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        well = daemon.geard("health")
        assert (well.returncode, well.stderr) == (exits.DONE, "")
        assert "1 of 1 connected" in well.stdout
        assert daemon.geard("ps", "--check").returncode == exits.DONE
        gearmand.stop()
        eventually(lambda: daemon.geard("health").returncode == exits.UNAVAILABLE, what="the loss of the job server")
        checked = daemon.geard("ps", "--check")
        assert checked.returncode == exits.UNAVAILABLE
        assert f"not fit for work: job servers: 0 of 1 connected, not {gearmand.address}" in checked.stderr
        daemon.signal(signal.SIGSTOP)
        stuck = daemon.geard("health", "--timeout", "200ms", "--json")
        daemon.signal(signal.SIGCONT)
        assert stuck.returncode == exits.UNAVAILABLE
        assert "does not answer within 0.2 s" in msgspec.json.decode(stuck.stdout)["parts"]["daemon"]["reason"]
        daemon.stop()
        gone = daemon.geard("health", "--json")
        assert gone.returncode == exits.UNAVAILABLE
        assert not msgspec.json.decode(gone.stdout)["healthy"]


def test_what_is_in_the_place_of_the_control_socket_is_kept(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        path = Path(daemon.socket)
        path.write_text("precious")
        refused = daemon.geard("run")
        assert refused.returncode == exits.CONFIG
        assert "is there and is not a socket" in refused.stderr
        assert path.read_text() == "precious"
        path.unlink()
        (daemon.directory / "elsewhere").touch()
        path.symlink_to(daemon.directory / "elsewhere")
        assert daemon.geard("run").returncode == exits.CONFIG
        assert path.is_symlink()
        path.unlink()
        daemon.directory.chmod(0o777)
        assert "anybody may write to" in daemon.geard("run").stderr
        daemon.directory.chmod(0o700)


def test_rubbish_on_the_control_socket_is_answered_and_harms_nothing(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        for rubbish in (b"\n", b"{}\n", b"\xff\x00\n", b"GET / HTTP/1.0\n", b"x" * 10_000 + b"\n"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(daemon.socket)
                client.sendall(rubbish)
                assert b'"exit_code":2' in client.recv(65536)
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(daemon.socket)
            assert daemon.processes


def test_foreground_results_come_back_while_processes_are_replaced(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, processes=2) as daemon, Peer.connect(gearmand.address) as client:
        daemon.start()
        client.send(Command.SUBMIT_JOB, b"hold", b"", b"held 0")
        client.expect(Command.JOB_CREATED)
        daemon.wait_running(1)
        assert daemon.reload().returncode == 0
        daemon.release()
        assert client.expect(Command.WORK_COMPLETE).fields[1] == b"held"


def _commands_with(argument: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if argument.encode() in arguments:
            found.append(str(path))
    return found
