"""Shell completion: the scripts of `geard completion`, in the real shells."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard.protocol import Command
from tests.support.commands import Running, environment, geard
from tests.support.raw import Peer
from tests.support.servers import Gearmand, free_port, need


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A job server that knows the function `resize_photo`."""
    with Gearmand() as server, Peer.connect(server.address) as worker:
        worker.send(Command.CAN_DO, b"resize_photo")
        worker.send(Command.ECHO_REQ, b"")
        worker.expect(Command.ECHO_RES)
        yield server.address


@pytest.fixture
def variables(address: str, tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has a `geard`, and whose home is empty."""
    program = tmp_path / "bin" / "geard"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m geard "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    python_path = os.fspath(Path(__file__).parent.parent)
    return {"PATH": path, "PYTHONPATH": python_path, "GEARMAN_SERVERS": address, "HOME": os.fspath(tmp_path)}


def script(shell: str) -> str:
    done = geard("completion", shell)
    assert done.returncode == 0
    return done.stdout.decode()


CASES = pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("geard sta", "status"),
        ("geard submit res", "resize_photo"),
        ("geard submit --conc", "--concurrency"),
        ("geard admin drop-function res", "resize_photo"),
        ("geard completion f", "fish"),
    ],
)


@CASES
def test_bash_completes(words: str, completed: str, variables: dict[str, str]) -> None:
    need("bash")
    *_, last = enumerate(words.split())
    asked = (
        f"{script('bash')}\nCOMP_WORDS=({words}); COMP_CWORD={last[0]}\n"
        '_geard_completion geard; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, env=environment(variables), check=True)
    assert done.stdout.decode().split() == [completed]
    assert done.stderr == b""


@pytest.mark.parametrize("name", ["pay$(touch owned)", "pay`id`", "pay*", "pay;id", "pay me", "pay\x1b[2K", "pay\n"])
def test_no_name_is_offered_that_a_shell_takes_for_more_than_a_word(
    name: str, address: str, variables: dict[str, str]
) -> None:
    asked = {"COMP_WORDS": "geard submit pay", "COMP_CWORD": "2", "_GEARD_COMPLETE": "bash_complete"}
    with Peer.connect(address) as worker:
        for known in (name, "pay-caf\xe9.now"):
            worker.send(Command.CAN_DO, known.encode())
        worker.send(Command.ECHO_REQ, b"")
        worker.expect(Command.ECHO_RES)
        done = geard(variables={**variables, **asked})
    assert done.stdout.decode() == "plain,pay-caf\xe9.now\n"


@CASES
def test_fish_completes(words: str, completed: str, variables: dict[str, str]) -> None:
    need("fish")
    asked = f"{script('fish')}\ncomplete -C {shlex.quote(words)}"
    done = subprocess.run(["fish", "-c", asked], capture_output=True, env=environment(variables), check=True)
    assert [line.split("\t")[0] for line in done.stdout.decode().splitlines()] == [completed]


def test_zsh_completes(variables: dict[str, str], tmp_path: Path) -> None:
    need("zsh")
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "_geard").write_text(script("zsh"))
    with Running("-f", "-i", program=["zsh"], terminal=True, variables={**variables, "PS1": "ready> "}) as zsh:
        zsh.sees("ready> ")
        zsh.press(f"fpath=({tmp_path}/functions $fpath); autoload -U compinit; compinit -u -D; echo lo''aded\n")
        zsh.sees("loaded")
        zsh.press("geard submit res\t")
        zsh.sees("geard submit resize_photo")


def test_a_job_server_that_is_down_completes_to_nothing_in_silence(variables: dict[str, str]) -> None:
    asked = {"COMP_WORDS": "geard submit res", "COMP_CWORD": "2", "_GEARD_COMPLETE": "bash_complete"}
    done = geard(variables={**variables, **asked, "GEARMAN_SERVERS": f"127.0.0.1:{free_port()}"})
    assert (done.stdout.strip(), done.stderr) == (b"", b"")


def test_an_unknown_shell_is_exit_2_and_names_those_there_are() -> None:
    done = geard("completion", "csh")
    assert done.returncode == 2
    assert b"'bash', 'zsh', 'fish'" in done.stderr
