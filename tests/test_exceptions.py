"""`exceptions: false`: whatever way a job fails, its client is told that it has, and nobody but the operator why."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from geard.config import load_config
from geard.protocol import Command
from tests.support.daemon import Daemon
from tests.support.documents import ROOT, blocks
from tests.support.pool import Caller
from tests.support.raw import Peer
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import eventually
from tests.test_job_server_tools import need_perl

OWN = '''
import os, time

HERE = os.path.dirname(__file__)


def raises(workload):
    raise ValueError("no route")


async def asynchronous(workload):
    raise ValueError("no route")


def generator(workload):
    yield "a piece"
    raise ValueError("no route")


async def async_generator(workload):
    yield "a piece"
    raise ValueError("no route")


def unencodable(workload):
    return object()


def late(workload):
    time.sleep(60)


async def late_coroutine(workload):
    import asyncio

    await asyncio.sleep(60)


def exits(workload):
    raise SystemExit("no route")


def own_words(job, workload):
    job.exception("no route")


def echo(workload):
    return workload


def turned_away(job, call):
    raise ValueError("no route")


def dies(workload):
    os._exit(0)


def dies_once(job, workload):
    """Kills its process, and the next time, with nothing else, ends as the workload says."""
    try:
        os.close(os.open(os.path.join(HERE, workload), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        if workload == "raises":
            raise ValueError("no route")
        job.exception("in its own words")
    else:
        os._exit(0)
'''
OFFERED: dict[str, Any] = {
    "raises": "own.raises",
    "thread": {"function": "own.raises", "thread": True},
    "asynchronous": "own.asynchronous",
    "generator": "own.generator",
    "async_generator": "own.async_generator",
    "unencodable": "own.unencodable",
    "late": {"function": "own.late", "timeout": "50ms"},
    "late_coroutine": {"function": "own.late_coroutine", "timeout": "50ms"},
    "exits": "own.exits",
    "own_words": "own.own_words",
    "not_json": {"function": "own.echo", "encoding": "json"},
    "turned_away": {"function": "own.echo", "middleware": ["own.turned_away"]},
    "retried": {"function": "own.raises", "retry": {"times": 1, "wait": "10ms..10ms"}, "dead_letter": True},
    "too_large": "own.echo",
}
REASONS = {
    "unencodable": "a result is str, not object",
    "late": "late ran longer than its timeout of 0.05 s",
    "late_coroutine": "late_coroutine ran longer than its timeout of 0.05 s",
    "not_json": "JSON is malformed",
    "too_large": "over the limit of 10240 (max_packet)",
}


def daemon_with(server: JobServerProcess, capabilities: dict[str, Any], **config: Any) -> Daemon:
    daemon = Daemon(server, **{"capabilities": capabilities, "exceptions": False} | config)
    (daemon.directory / "own.py").write_text(OWN)
    return daemon


def told_to_others(server: JobServerProcess, function: str, workload: bytes = b"") -> bytes:
    """What the job's end has behind its handle, for a client that did not ask for exceptions."""
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, function.encode(), b"", workload)
        handle = client.expect(Command.JOB_CREATED).handle
        return client.skip_to(Command.WORK_FAIL).handle.removeprefix(handle)


def wait_for_reason(daemon: Daemon, function: str, reason: str) -> None:
    """Until the last failure of a function has it, for `geard failures` and the dashboard."""

    def told() -> bool:
        last = json.loads(daemon.geard("failures", function, "-n", "1", "--json").stdout)
        return bool(last) and reason in last[0]["text"]

    eventually(told, what=f"{reason!r} with the last failure of {function}")


def test_whatever_way_a_job_fails_no_client_is_told_why(job_server: JobServerProcess) -> None:
    with daemon_with(job_server, OFFERED, max_packet="10K", logging={"repeats": "0s"}) as daemon:
        daemon.write_config(dead_letters=str(daemon.directory / "dead.sqlite"))
        daemon.start()
        with Caller(job_server.address) as caller:
            for function in OFFERED:
                workload = b"x" * 20_000 if function == "too_large" else b"x"
                assert (function, caller.run(function, workload)) == (function, ("WORK_FAIL", b""))
                assert (function, told_to_others(job_server, function, workload)) == (function, b"")
        assert daemon.stop() == 0
        for function in OFFERED:
            lines = [line for line in daemon.log.splitlines() if f" {function} H:" in line and "failed" in line]
            expected = REASONS.get(function, "no route")
            found = [line for line in lines if expected in line] or (function == "own_words" and not lines)
            assert found, (function, lines)


def test_the_operator_is_told_why_as_ever(embedded: JobServerProcess) -> None:
    offered = {name: OFFERED[name] for name in ("raises", "late", "own_words", "retried", "too_large")}
    with daemon_with(embedded, offered, max_packet="10K") as daemon:
        daemon.write_config(dead_letters=str(daemon.directory / "dead.sqlite"))
        daemon.start()
        for function in offered:
            told_to_others(embedded, function, b"x" * 20_000 if function == "too_large" else b"x")
        for function in offered:
            wait_for_reason(daemon, function, REASONS.get(function, "no route"))
        assert "ValueError: no route" in daemon.geard("dead", "list").stdout


def test_a_job_that_killed_its_process_fails_without_a_word_too(job_server: JobServerProcess) -> None:
    with daemon_with(job_server, {"dies": "own.dies", "once": "own.dies_once"}, poison_deaths=2) as daemon:
        daemon.start()
        assert told_to_others(job_server, "dies") == b""
        wait_for_reason(daemon, "dies", "dies was given up after 2 dead processes")
        assert told_to_others(job_server, "once", b"raises") == b""
        wait_for_reason(daemon, "once", "ValueError: no route")
        assert told_to_others(job_server, "once", b"says so") == b""
        wait_for_reason(daemon, "once", "in its own words")


def test_a_capabilitys_own_goes_before_the_configs_and_a_reload_changes_it(job_server: JobServerProcess) -> None:
    capabilities = {"plain": "own.raises", "told": {"function": "own.raises", "exceptions": True}}
    with daemon_with(job_server, capabilities) as daemon, Caller(job_server.address) as caller:
        daemon.start()
        assert caller.run("plain") == ("WORK_FAIL", b"")
        assert caller.run("told") == ("WORK_EXCEPTION", b"ValueError: no route")
        capabilities = {"plain": {"function": "own.raises", "exceptions": False}, "told": "own.raises"}
        daemon.write_config(capabilities=capabilities, exceptions=True)
        assert daemon.reload().returncode == 0
        assert caller.run("plain") == ("WORK_FAIL", b"")
        assert caller.run("told") == ("WORK_EXCEPTION", b"ValueError: no route")
        daemon.write_config(capabilities={"plain": "own.raises"})
        assert daemon.reload().returncode == 0
        assert caller.run("plain") == ("WORK_EXCEPTION", b"ValueError: no route")


def test_without_it_gearmand_leaves_a_nul_behind_the_handle() -> None:
    """What the key is for. When a gearmand no longer does, the documents can say so."""
    with Gearmand() as gearmand, daemon_with(gearmand, {"raises": "own.raises"}, exceptions=True) as daemon:
        daemon.start()
        assert told_to_others(gearmand, "raises") == b"\0"


PERL_CLIENT = """
use Gearman::Client; my ($port) = @ARGV;
my $client = Gearman::Client->new(job_servers => ["127.0.0.1:$port"]);
my $failed = $client->do_task("raises", "x");
print defined $failed ? "a result" : "failed", "|", ${$client->do_task("echo", "next")};
"""


def test_perls_client_outlives_a_job_that_fails(job_server: JobServerProcess) -> None:
    need_perl()
    with daemon_with(job_server, {"raises": "own.raises", "echo": "own.echo"}) as daemon:
        daemon.start()
        command = ["perl", "-e", PERL_CLIENT, str(job_server.port)]
        done = subprocess.run(command, capture_output=True, timeout=60)
        assert (done.stdout, done.returncode) == (b"failed|next", 0), done


def test_the_documents_show_it_to_those_who_move(tmp_path: Any) -> None:
    [shown] = [block.body for block in blocks(ROOT / "docs" / "from-pygearman.md") if "exceptions" in block.body]
    config = tmp_path / "geard.yaml"
    config.write_text(f"capabilities: {{f: own.f}}\n{shown}")
    assert load_config(str(config)).exceptions is False
