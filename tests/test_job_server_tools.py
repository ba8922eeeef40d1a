"""Other people's clients and workers on every job server there is: the gearman tools, PHP's and Perl's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import HOST, JobServerProcess, need, stop_process
from tests.support.waiting import eventually

PHP_WORKER = """
$worker = new GearmanWorker(); $worker->addServer('127.0.0.1', $argv[1]);
$worker->addFunction($argv[2], function ($job) {
    $job->sendStatus(1, 2); $job->sendData('part'); return strrev($job->workload());
});
while ($worker->work());
"""
PHP_CLIENT = """
$client = new GearmanClient(); $client->addServer('127.0.0.1', $argv[1]);
echo $client->doNormal($argv[2], $argv[3]), "|";
do { $result = $client->doHigh($argv[2], $argv[3], 'unique'); } while ($client->returnCode() != GEARMAN_SUCCESS);
echo $result, "|";
$handle = $client->doBackground($argv[2], $argv[3]);
do { $status = $client->jobStatus($handle); } while ($status[0]);
echo $client->returnCode() == GEARMAN_SUCCESS ? 'done' : 'failed';
"""
PERL_WORKER = """
use Gearman::Worker; my ($port, $function) = @ARGV;
my $worker = Gearman::Worker->new(job_servers => ["127.0.0.1:$port"]);
$worker->register_function($function => sub { scalar reverse $_[0]->arg });
$worker->work while 1;
"""
PERL_CLIENT = """
use Gearman::Client; my ($port, $function, $text) = @ARGV;
my $client = Gearman::Client->new(job_servers => ["127.0.0.1:$port"]);
print ${$client->do_task($function, $text)}, "|";
my $handle = $client->dispatch_background($function, $text);
my $status; do { $status = $client->get_status($handle) } while ($status && $status->known);
print "done";
"""


def missing(package: str) -> None:
    """Skip the test for want of this package; fail where CI is set."""
    report = pytest.fail if os.environ.get("CI") else pytest.skip
    report(f"not installed: {package}")


def run(*command: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, done
    return done.stdout


def need_php() -> None:
    """PHP with the gearman extension."""
    need("php")
    if b"gearman" not in run("php", "-m"):
        missing("php-gearman")


def need_perl() -> None:
    """Perl with Gearman::Client and Gearman::Worker."""
    need("perl")
    if subprocess.run(["perl", "-MGearman::Worker", "-e1"], capture_output=True).returncode:
        missing("libgearman-client-perl")


@contextmanager
def running(server: JobServerProcess, function: str, *command: str) -> Iterator[None]:
    """A worker process, from the moment it can do the function."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: server.status(function)[2] == 1, what=f"{command[0]} offering {function}")
            yield
        finally:
            stop_process(process)


@pytest.fixture
def tools(shared_job_server: JobServerProcess) -> list[str]:
    need("gearman", "gearadmin")
    return ["-h", HOST, "-p", str(shared_job_server.port)]


def test_the_gearman_tool_as_worker_and_client(shared_job_server: JobServerProcess, tools: list[str]) -> None:
    with running(shared_job_server, "wc", "gearman", *tools, "-w", "-f", "wc", "--", "wc", "-c"):
        assert run("gearman", *tools, "-f", "wc", stdin=b"hello").split() == [b"5"]
        assert run("gearman", *tools, "-f", "wc", "-n", stdin=b"a\nbb\n").split() == [b"2", b"3"]
        run("gearman", *tools, "-f", "wc", "-b", stdin=b"hello")
        eventually(lambda: shared_job_server.status("wc")[0] == 0)


def test_gearadmin(shared_job_server: JobServerProcess, tools: list[str]) -> None:
    run("gearman", *tools, "-f", "admin", "-b", "-u", "unique-of-admin", stdin=b"w")
    assert b"admin\t1\t0\t0" in run("gearadmin", *tools, "--status")
    assert b"admin\t0\t1\t0\t0" in run("gearadmin", *tools, "--priority-status")
    assert b"127.0.0.1 - :" in run("gearadmin", *tools, "--workers")
    assert b"unique-of-admin" in run("gearadmin", *tools, "--show-unique-jobs")
    rows = run("gearadmin", *tools, "--show-jobs").split(b"\n")
    handle = next(row for row in rows if row.startswith(b"H:")).split(b"\t")[0]
    assert run("gearadmin", *tools, "--getpid").split()[-1].isdigit()
    assert run("gearadmin", *tools, "--server-version").strip()
    assert run("gearadmin", *tools, "--server-verbose").strip()
    run("gearadmin", *tools, f"--cancel-job={handle.decode()}")
    with running(shared_job_server, "admin", "gearman", *tools, "-w", "-f", "admin", "true"):  # gearmand forgets it now
        eventually(lambda: shared_job_server.status("admin")[0] == 0)
    run("gearadmin", *tools, "--create-function=created")
    assert b"created\t0\t0\t0" in run("gearadmin", *tools, "--status")
    run("gearadmin", *tools, "--drop-function=created")
    assert b"created" not in run("gearadmin", *tools, "--status")


def test_php(shared_job_server: JobServerProcess, tmp_path: Path) -> None:
    need_php()
    worker, client = tmp_path / "worker.php", tmp_path / "client.php"
    worker.write_text(f"<?php {PHP_WORKER}")
    client.write_text(f"<?php {PHP_CLIENT}")
    port = str(shared_job_server.port)
    with running(shared_job_server, "php", "php", str(worker), port, "php"):
        got = run("php", str(client), port, "php", "hello")
    assert got.endswith(b"|done")
    assert b"olleh" in got


def test_perl(shared_job_server: JobServerProcess) -> None:
    need_perl()
    port = str(shared_job_server.port)
    with running(shared_job_server, "perl", "perl", "-e", PERL_WORKER, port, "perl"):
        assert run("perl", "-e", PERL_CLIENT, port, "perl", "hello") == b"olleh|done"
