"""Other people's clients with geard's worker, and geard's client with other people's workers, on every job server."""

from __future__ import annotations

from pathlib import Path

import pytest

from geard import Client
from tests.support.pool import start_pool
from tests.support.servers import JobServerProcess
from tests.test_job_server_tools import (
    PERL_CLIENT,
    PERL_WORKER,
    PHP_CLIENT,
    PHP_WORKER,
    need_perl,
    need_php,
    run,
    running,
    tools,
)

__all__ = ["tools"]  # a fixture


def test_the_gearman_tool_gets_results_from_geards_worker(
    shared_job_server: JobServerProcess, tools: list[str]
) -> None:
    with start_pool("process", shared_job_server.address, {"cli-reverse": "reverse"}):
        assert run("gearman", *tools, "-f", "cli-reverse", stdin=b"hello") == b"olleh"
        assert (
            run("gearman", *tools, "-f", "cli-reverse", "-n", stdin=b"ab\ncd\n") == b"\nba\ndc"
        )  # it submits the newlines too


def test_the_php_client_gets_results_from_geards_worker(shared_job_server: JobServerProcess, tmp_path: Path) -> None:
    need_php()
    script = tmp_path / "client.php"
    script.write_text(f"<?php {PHP_CLIENT}")
    with start_pool("process", shared_job_server.address, {"php-reverse": "reverse"}):
        got = run("php", str(script), str(shared_job_server.port), "php-reverse", "hello")
    assert got == b"olleh|olleh|done"


def test_the_perl_client_gets_results_from_geards_worker(shared_job_server: JobServerProcess) -> None:
    need_perl()
    with start_pool("process", shared_job_server.address, {"perl-reverse": "reverse"}):
        got = run("perl", "-e", PERL_CLIENT, str(shared_job_server.port), "perl-reverse", "hello")
    assert got == b"olleh|done"


@pytest.mark.parametrize("language", ["php", "perl", "gearman"])
def test_geards_client_gets_results_from_their_workers(
    shared_job_server: JobServerProcess, tmp_path: Path, tools: list[str], language: str
) -> None:
    if language == "php":
        need_php()
    elif language == "perl":
        need_perl()
    function, port = f"{language}-worker", str(shared_job_server.port)
    script = tmp_path / "worker.php"
    script.write_text(f"<?php {PHP_WORKER}")
    commands = {
        "php": ("php", str(script), port, function),
        "perl": ("perl", "-e", PERL_WORKER, port, function),
        "gearman": ("gearman", *tools, "-w", "-f", function, "cat"),
    }
    with running(shared_job_server, function, *commands[language]), Client(shared_job_server.address) as client:
        results = list(client.map(function, ["hello", "world"], concurrency=2))
    due = {
        "php": ["partolleh", "partdlrow"],  # its worker sends `part` as data, which belongs to the result
        "perl": ["olleh", "dlrow"],
        "gearman": ["hello", "world"],
    }
    assert results == due[language]
