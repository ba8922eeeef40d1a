"""Reload with real worker processes and a real job server: no gap, no job lost or repeated, a way back always."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter

from geard import exits
from tests.support.daemon import CAPABILITIES, Daemon, Load, submit
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import DEADLINE_SECONDS, eventually

GREETING = '\n\ndef greet(workload):\n    record("hello")\n'


def test_reloads_under_load_run_every_job_once_and_there_is_always_a_worker(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, processes=2) as daemon:
        daemon.start()
        with Load(gearmand.address, per_second=1000) as load:
            for reloads in range(1, 4):
                daemon.signal(signal.SIGHUP)

                def served(reloads: int = reloads) -> bool:
                    assert gearmand.status("count")[2] >= 2, "fewer workers than there should be"
                    return f"generation {reloads + 1} serves" in daemon.log

                eventually(served)
            names = load.stop()
        eventually(lambda: set(daemon.runs) == names, what="a run of every job")
        assert max(daemon.runs.values()) == 1
        assert "other workers" not in daemon.log
        assert daemon.process
        assert daemon.process.poll() is None, "the pid stays"


def test_changed_code_and_capabilities_and_python_path_take_effect(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        elsewhere = daemon.directory / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "other.py").write_text("from caps import record\n\n\ndef f(workload):\n    record('other')\n")
        (daemon.directory / "caps.py").write_text(CAPABILITIES.replace("record(workload)", "record('new')") + GREETING)
        daemon.write_config(
            python_path=[str(daemon.directory), str(elsewhere)],
            capabilities={"count": "caps.count", "greet": "caps.greet", "other": "other.f"},
        )
        assert daemon.reload().returncode == 0
        for function in ("count", "greet", "other"):
            submit(gearmand, function, "old")
        eventually(lambda: daemon.runs == Counter(["new", "hello", "other"]))
        eventually(lambda: gearmand.status("sleep")[2] == 0, what="the end of a capability that was removed")


def test_added_and_removed_job_servers_take_effect(gearmand: JobServerProcess) -> None:
    with Gearmand() as second, Daemon(gearmand) as daemon:
        daemon.start()
        daemon.write_config(job_servers=[second.address])
        assert daemon.reload().returncode == 0
        submit(second, "count", "job")
        eventually(lambda: daemon.runs == Counter(["job"]))
        eventually(lambda: gearmand.status("count")[2] == 0)


def test_long_jobs_drain_over_several_generations_while_the_new_one_works(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        submit(gearmand, "hold", "first 0")
        daemon.wait_running(1)
        assert daemon.reload().returncode == 0
        submit(gearmand, "hold", "second 0")
        daemon.wait_running(2)
        assert daemon.reload().returncode == 0
        assert [generation.state for generation in daemon.overview.generations] == ["draining", "draining", "current"]
        submit(gearmand, "count", "now")
        eventually(lambda: daemon.runs["now"])
        daemon.release()
        eventually(lambda: len(daemon.overview.generations) == 1)
        assert daemon.runs == Counter(["first", "second", "now"])


def test_drain_timeout_hands_back_what_an_old_generation_has_not_finished(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand, drain_timeout="100ms") as daemon:
        daemon.start()
        submit(gearmand, "hold", "job 0")
        daemon.wait_running(1)
        assert daemon.reload().returncode == 0
        daemon.wait_for("left 1 job to other workers")
        daemon.release()
        eventually(lambda: daemon.runs == Counter(["job"]), what="its run by the new generation")


def test_a_broken_config_is_refused_with_every_problem_and_the_old_generation_is_untouched(
    gearmand: JobServerProcess,
) -> None:
    with Daemon(gearmand, processes=2) as daemon:
        daemon.start()
        before = daemon.children
        daemon.write_config(procesess=4, greenlets_per_server="many")
        refused = daemon.reload()
        assert refused.returncode == exits.CONFIG
        assert "procesess" in refused.stderr
        assert "greenlets_per_server" in refused.stderr
        assert f"{daemon.config_path}:" in refused.stderr
        assert daemon.children == before
        assert 'cannot be the text "many"' in daemon.overview.last_refusal
        assert "Traceback" not in daemon.log
        assert "reload refused" in daemon.geard("ps").stdout
        submit(gearmand, "count", "job")
        eventually(lambda: daemon.runs["job"])
        del daemon.config["procesess"]
        daemon.write_config(greenlets_per_server=20)
        assert daemon.reload().returncode == 0
        assert daemon.overview.last_refusal == ""
        assert daemon.overview.generations[-1].number == 2


def test_code_that_cannot_be_imported_is_refused_and_jobs_of_the_half_ready_generation_finish(
    gearmand: JobServerProcess,
) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        (daemon.directory / "broken.py").write_text("raise RuntimeError('out of order')\n")
        daemon.write_config(
            capabilities=daemon.config["capabilities"] | {"broken": {"function": "broken.f", "processes": 1}}
        )
        refused = daemon.reload()
        assert refused.returncode == exits.CONFIG
        assert "out of order" in refused.stderr
        eventually(lambda: [g.number for g in daemon.overview.generations] == [1])
        submit(gearmand, "count", "job")
        eventually(lambda: daemon.runs["job"])


def test_problems_of_the_config_and_of_the_code_are_told_together_and_jobs_go_on_meanwhile(
    gearmand: JobServerProcess,
) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        release = daemon.directory / "release"
        (daemon.directory / "broken.py").write_text(f"""\
import os, time
while not os.path.exists({str(release)!r}):
    time.sleep(0.05)
raise ValueError("odd")
""")
        capabilities = daemon.config["capabilities"] | {"broken": "broken.f", "typo": "caps.cuont"}
        daemon.write_config(procesess=4, capabilities=capabilities)
        with subprocess.Popen(daemon.command("reload"), stderr=subprocess.PIPE, text=True) as refused:
            eventually(lambda: daemon.overview.state == "reloading")
            submit(gearmand, "count", "job")
            eventually(lambda: daemon.runs["job"], what="a job run while the reload imports")
            daemon.release()
            _, said = refused.communicate(timeout=60)
        assert refused.returncode == exits.CONFIG
        assert "procesess: unknown key" in said
        assert "capabilities.typo: module 'caps' has no 'cuont'" in said
        assert "did you mean 'count'?" in said
        assert "capabilities.broken: importing 'broken' failed: ValueError: odd" in said


def test_a_stop_does_not_wait_for_the_imports_of_a_refused_reload_nor_leave_them_behind(
    gearmand: JobServerProcess,
) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        imports = daemon.directory / "imports"
        (daemon.directory / "hangs.py").write_text(
            f"import os, time\nopen({str(imports)!r}, 'w').write(str(os.getpid()))\ntime.sleep(1000)\n"
        )
        daemon.write_config(procesess=4, capabilities={"hangs": "hangs.f"})
        daemon.signal(signal.SIGHUP)
        eventually(lambda: imports.exists() and imports.read_text(), what="the import")
        assert daemon.stop() == exits.DONE
        eventually(lambda: not os.path.exists(f"/proc/{imports.read_text()}"), what="the end of the import")


def test_a_config_that_vanished_is_a_refused_reload(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        daemon.config_path.unlink()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("reload refused, generation 1 goes on")
        assert str(daemon.config_path) in daemon.overview.last_refusal
        assert len(daemon.processes) == 1


def test_a_hundred_hups_in_a_second_are_at_most_a_few_reloads(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        for _ in range(100):
            daemon.signal(signal.SIGHUP)
            time.sleep(0.002)
        daemon.wait_for("generation 2 serves")
        eventually(lambda: daemon.overview.state == "running")
        eventually(lambda: len(daemon.overview.generations) == 1)
        assert daemon.overview.generations[0].number <= 4
        submit(gearmand, "count", "job")
        eventually(lambda: daemon.runs["job"])


def test_term_in_the_middle_of_a_reload_stops_all_generations(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        submit(gearmand, "hold", "job 0")
        daemon.wait_running(1)
        (daemon.directory / "caps.py").write_text(CAPABILITIES + "\ntime.sleep(20)\n")
        daemon.signal(signal.SIGHUP)
        eventually(lambda: len(daemon.children) == 2)
        daemon.signal(signal.SIGTERM)
        daemon.release()
        assert daemon.wait() == exits.DONE
        assert daemon.runs == Counter(["job"])
        assert not daemon.left_behind()


def test_a_new_process_that_dies_on_import_is_a_refused_reload(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        (daemon.directory / "caps.py").write_text("import os\n\nos.kill(os.getpid(), 11)\n")
        refused = daemon.reload()
        assert refused.returncode == exits.CONFIG
        assert "was killed by SIGSEGV before it was ready" in refused.stderr
        assert len(daemon.processes) == 1


def test_a_reload_during_a_stop_is_refused(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        submit(gearmand, "hold", "job 0")
        daemon.wait_running(1)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("draining, jobs in flight: 1")
        refused = daemon.reload()
        daemon.release()
        assert refused.returncode == exits.FAILED
        assert "stopping" in refused.stderr
        assert daemon.wait() == exits.DONE
        assert daemon.runs == Counter(["job"])


def test_reload_finds_the_supervisor_of_a_config_that_is_no_yaml_any_more(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start()
        daemon.config_path.write_text(f"control_socket: {daemon.socket}\njob_servers: [\n")
        elsewhere = os.environ | {"XDG_RUNTIME_DIR": str(daemon.directory / "no-such-directory")}
        unnamed = subprocess.run(
            daemon.command("reload"), env=elsewhere, capture_output=True, text=True, timeout=DEADLINE_SECONDS
        )
        assert unnamed.returncode == exits.UNAVAILABLE
        assert "cannot say where its socket is; --socket PATH can" in unnamed.stderr
        assert f"{daemon.config_path}:3" in unnamed.stderr
        refused = daemon.geard("reload", "--socket", daemon.socket)
        assert refused.returncode == exits.CONFIG
        assert f"{daemon.config_path}:3" in refused.stderr


def test_watch_reloads_when_a_capability_or_the_config_changes(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start("--watch")
        (daemon.directory / "caps.py").write_text(CAPABILITIES.replace("record(workload)", "record('new')"))
        daemon.wait_for("generation 2 serves")
        submit(gearmand, "count", "old")
        eventually(lambda: daemon.runs == Counter(["new"]))
        daemon.write_config(processes=2)
        daemon.wait_for("generation 3 serves")
        (daemon.directory / "caps.py").write_text("syntax error\n")
        daemon.wait_for("reload refused, generation 3 goes on")
        (daemon.directory / "notes.txt").write_text("no reason to reload")
        os.utime(daemon.directory / "runs")
        assert "notes.txt" not in daemon.log
        assert "watchfiles" not in daemon.log, "each change is told once"
