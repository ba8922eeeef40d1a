"""The pure parts of the command line: times, tables, progress; and what holds for every command."""

from __future__ import annotations

import re
import shlex
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from geard import exits
from geard.cli import COMMANDS, cli, exit_code
from geard.cli.answers import Row, objects, tables
from geard.cli.bar import FileProgress, JobProgress
from geard.cli.output import Line, json_member
from geard.cli.servers import Answer, addresses_of
from geard.cli.times import moment, some_time
from geard.config import JobServer
from geard.errors import CannotConnect, InvalidRequest, JobException, QueueFull, ServerTimeout
from tests.support.commands import GEARD, environment, geard
from tests.support.waiting import DEADLINE_SECONDS

NOW = datetime(2030, 1, 31, 12, 0).astimezone()


def plain(renderable: object) -> str:
    """What a console of 80 columns shows."""
    terminal = Console(width=80, color_system=None)
    with terminal.capture() as capture:
        terminal.print(renderable, end="")
    return capture.get()


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("90", timedelta(seconds=90)),
        ("+10m", timedelta(minutes=10)),
        ("1h30m", timedelta(hours=1.5)),
        ("0", timedelta()),
        ("18:30", timedelta(hours=6.5)),
        ("9:00", timedelta(hours=21)),
        ("12:00", timedelta(days=1)),
        ("12:00:01", timedelta(seconds=1)),
        ("2030-02-01T12:00", timedelta(days=1)),
        ("2030-02-01 12:00:05", timedelta(days=1, seconds=5)),
    ],
)
def test_a_moment_is_a_delay_a_time_of_day_or_a_date(text: str, delay: timedelta) -> None:
    assert moment(text, NOW) - NOW == delay


def test_a_moment_may_name_its_time_zone() -> None:
    assert moment("2030-06-01T12:00+02:00", NOW).timestamp() == datetime.fromisoformat("2030-06-01T10:00Z").timestamp()


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "12:60", "-5", "2030-13-01", "2029-12-31", "9" * 40, "1893456000"]
)
def test_what_is_no_moment_in_the_future_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        moment(text, NOW)


@given(st.text(max_size=20))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    try:
        assert moment(text, NOW) >= NOW
    except InvalidRequest:
        return


def test_no_time_is_refused_as_a_limit() -> None:
    assert some_time("1m") == 60
    for text in ("0", "0s", "x"):
        with pytest.raises(InvalidRequest):
            some_time(text)


def test_addresses_may_be_listed_with_commas() -> None:
    assert addresses_of("a, b:1,,[::1]:2") == (JobServer("a"), JobServer("b", 1), JobServer("::1", 2))
    with pytest.raises(InvalidRequest):
        addresses_of("a,b c")


def test_a_table_is_aligned_and_a_job_server_that_is_down_keeps_its_place() -> None:
    up, down = JobServer("up"), JobServer("down", 1)
    answers: list[Answer[list[Row]]] = [
        Answer(down, error=CannotConnect("cannot connect to down:1: ::1: connection refused")),
        Answer(up, [Row(("a\nb", "1"), "red"), Row(("long name", "1000"))]),
        Answer(up, []),
    ]
    assert tables(answers, ("NAME", "N"), lambda rows: rows, note=lambda rows: f"{len(rows)} rows", numbers=("N",)) == [
        Line("down:1  down: ::1: connection refused", "bold red"),
        Line(""),
        Line("up:4730  2 rows", "bold"),
        Line("NAME          N", "dim"),
        Line("a\\nb          1", "red"),
        Line("long name  1000"),
        Line(""),
        Line("up:4730  0 rows", "bold"),
        Line("none", "dim"),
    ]
    assert objects(answers[:2], lambda rows: {"count": len(rows)}) == [
        {"server": "down:1", "error": "::1: connection refused"},
        {"server": "up:4730", "count": 2},
    ]


def test_bytes_in_json_are_text_where_they_can_be() -> None:
    assert json_member("result", "ä".encode()) == {"result": "ä"}
    assert json_member("result", b"\xff") == {"result_base64": "/w=="}


def test_a_job_has_no_bar_before_its_first_status_and_none_without_a_denominator() -> None:
    progress = JobProgress("resize")
    assert progress.render() is None
    progress.update(1, 4)
    assert re.fullmatch(r"resize  ━{30}   25%  1/4", plain(progress.render()))
    progress.update(7, 0)
    assert plain(progress.render()) == "resize  7/0"
    progress.update(9, 4)
    assert "100%  9/4" in plain(progress.render())


def test_a_file_tells_its_share_rate_and_time_left() -> None:
    clock = [100.0]
    progress = FileProgress("resize", 1000, clock=lambda: clock[0])
    assert re.fullmatch(r"resize  ━{30}    0%  0 jobs, 0.0/s", plain(progress.render()))
    clock[0] = 110.0
    for _ in range(250):
        progress.count(1, failed=False)
    progress.count(0, failed=True)
    assert re.fullmatch(r"resize  ━{30}   25%  251 jobs, 1 failed, 25/s, 30s left", plain(progress.render()))
    assert progress.summary() == "251 jobs, 1 failed, 25/s, in 10s"


def test_a_pipe_of_unknown_length_has_no_share_and_no_time_left() -> None:
    progress = FileProgress("resize", None, clock=lambda: 1.0)
    progress.count(10, failed=False)
    assert "left" not in plain(progress.render())
    assert "━" not in plain(progress.render())


def test_exit_codes_tell_whose_fault_it_was() -> None:
    assert exit_code(InvalidRequest("")) == 2
    assert exit_code(ServerTimeout("")) == 69
    assert exit_code(QueueFull("", "")) == 1
    assert exit_code(JobException("", "")) == 1


def every_command() -> dict[str, click.Command]:
    context = click.Context(cli)
    commands = {name: command for name in COMMANDS if (command := cli.get_command(context, name))}
    admin = commands["admin"]
    assert isinstance(admin, click.Group)
    return commands | {f"admin {name}": command for name, command in admin.commands.items()}


@pytest.mark.parametrize("name", every_command())
def test_help_has_an_example_that_is_a_valid_command_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("geard.yaml").touch()  # the default of some commands
    Path("names.txt").touch()  # an example reads it
    command = every_command()[name]
    examples = re.findall(r"(?<!xargs )geard [^|>;&)\n]*", (command.help or "").partition("Example")[2])
    assert examples
    for example in examples:
        parse(cli, shlex.split(example)[1:])


def parse(command: click.Command, arguments: list[str]) -> None:
    """Parse without running. Raises UsageError."""
    if not isinstance(command, click.Group):
        command.make_context("geard", arguments)
        return
    if not arguments and command.invoke_without_command:
        return
    inner = command.get_command(click.Context(command), arguments[0])
    assert inner, arguments
    parse(inner, arguments[1:])


@pytest.mark.parametrize("where", ["", "exec"])  # as a dataclass is made
def test_ctrl_c_while_a_command_still_loads_shows_no_traceback(tmp_path: Path, where: str) -> None:
    code = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"
    (tmp_path / "click.py").write_text(f"exec({code!r})" if where else code)
    done = geard("status", variables={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (exits.INTERRUPTED, b"", b"")


@pytest.mark.parametrize("command", ["--help", "--version", "top --help", "completion zsh", "check --schema", "unit"])
@pytest.mark.parametrize(
    ("stdout", "code", "said"),
    [("/dev/full", 1, "geard: cannot write the output: no space left on device\n"), ("&-", 0, "")],
    ids=["full", "closed"],
)
def test_a_stdout_that_takes_nothing_is_no_traceback(
    command: str, stdout: str, code: int, said: str, tmp_path: Path
) -> None:
    config = tmp_path / "geard.yaml"
    config.write_text("capabilities: {reverse: geard.examples.reverse}\n")
    words = [*GEARD, *command.split(), *(["-c", str(config)] if command == "unit" else [])]
    ran = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.join(words)} >{stdout}"],
        capture_output=True, text=True, timeout=DEADLINE_SECONDS, env=environment({}), check=False,
    )  # fmt: skip
    notes = [line for line in ran.stderr.splitlines(keepends=True) if not line.startswith("geard: note: ")]
    assert (ran.returncode, "".join(notes)) == (code, said)
