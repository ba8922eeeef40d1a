"""`geard init`: what it writes runs, and what was there before stays as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from geard import exits
from geard.cli.init.command import TEMPLATES, init
from geard.cli.unit import quoted, render
from geard.config.model import Config, Logging
from geard.errors import InvalidRequest
from tests.support.commands import GEARD, Running, environment, geard
from tests.support.servers import HOST, free_port, need
from tests.support.waiting import DEADLINE_SECONDS

WRITTEN = {"geard.yaml", "tasks.py", "test_tasks.py", "geard.service", "geard.schema.json", ".gitignore"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in a directory whose name has what shells and systemd have a meaning for."""
    directory = tmp_path_factory.mktemp("init") / "my 100% project"
    done = geard("init", str(directory))
    assert done.returncode == 0, done.stderr
    assert [line.split("  #")[0].strip() for line in done.stdout.decode().partition("Next:\n")[2].splitlines()] == [
        f"cd '{directory}'",
        "geard run --embedded",
        "geard submit --wait-server 5s shout hello",
        "python -m pytest",
    ]
    assert {path.name for path in directory.iterdir()} == WRITTEN
    return directory


def test_its_config_can_run_and_its_schema_is_beside_it(project: Path) -> None:
    checked = geard("check", cwd=project)
    assert checked.stdout.startswith(b"geard.yaml can run.\n"), checked.stderr
    text = (project / "geard.yaml").read_text()
    schema = json.loads((project / text.splitlines()[0].partition("$schema=")[2]).read_text())
    jsonschema.validate(yaml.safe_load(text), schema)


def test_its_daemon_runs_its_functions(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{HOST}:{free_port()}"
    variables = {"GEARMAN_SERVER": address, "XDG_RUNTIME_DIR": str(project.parent)}
    monkeypatch.chdir(project)
    with Running("run", "--embedded", variables=variables) as daemon:
        submitted = geard("submit", "--wait-server", "30s", "-s", address, "shout", "hello")
        assert submitted.stdout == b"HELLO!"
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.ends() == exits.DONE


def test_its_tests_pass(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(project)]
    variables = environment({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})  # those of our own tests take long to load
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=variables, timeout=DEADLINE_SECONDS)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_its_unit_runs_the_config_where_it_is(project: Path) -> None:
    text = (project / "geard.service").read_text()
    assert f"WorkingDirectory={project}\n".replace("%", "%%") in text
    assert f'run -c "{project}/geard.yaml"\n'.replace("%", "%%") in text
    need("systemd-analyze")
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(project / "geard.service")], capture_output=True, text=True
    )
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.parametrize("name", sorted(WRITTEN - {".gitignore"}))
def test_nothing_is_written_when_one_of_the_files_is_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).symlink_to(tmp_path.parent / "nowhere")  # a link into nothing is there, too
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(init, [])
    assert done.exit_code == exits.FAILED
    assert done.stderr == f"geard: nothing was written to .: {name} is there already\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not (tmp_path.parent / "nowhere").exists()


def test_a_gitignore_of_before_stays_and_a_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")
    done = CliRunner().invoke(init, [str(tmp_path)])
    assert done.exit_code == 0
    assert "; .gitignore stays as it is" in done.stdout
    assert (tmp_path / ".gitignore").read_text() == "mine\n"
    below_a_file = CliRunner().invoke(init, [str(tmp_path / "tasks.py")])
    assert str(below_a_file.exception) == f"cannot write {tmp_path}/tasks.py: file exists"
    unprintable = CliRunner().invoke(init, [f"{tmp_path}/a\nExecStartPre=b"])
    assert isinstance(unprintable.exception, InvalidRequest)
    assert not list(tmp_path.glob("a*"))


def test_a_file_that_cannot_be_written_takes_the_others_with_it(tmp_path: Path) -> None:
    # A file size limit of 5,000 bytes: the schema is larger.
    command = ["bash", "-c", 'trap "" XFSZ; ulimit -f 5; exec "$0" "$@"', *GEARD, "init", "new"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment({}))
    assert done.returncode == exits.FAILED, done.stderr
    assert "file too large" in done.stderr
    assert os.listdir(tmp_path / "new") == []


def test_the_templates_are_in_the_package() -> None:
    assert {*TEMPLATES} | {"geard.service", "geard.schema.json"} == WRITTEN


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/etc/geard/geard.yaml", "/etc/geard/geard.yaml"),
        ("/srv/100%i.yaml", '"/srv/100%%i.yaml"'),
        ("/srv/a b/$x.yaml", '"/srv/a b/$$x.yaml"'),
        ('/srv/100% "a"\\b', '"/srv/100%% \\"a\\"\\\\b"'),
    ],
)
def test_a_path_is_one_word_of_the_units_command(path: str, word: str) -> None:
    assert quoted(path) == word


def test_the_paths_of_a_config_are_words_of_the_unit(tmp_path: Path) -> None:
    need("systemd-analyze")
    home = tmp_path / "my app 100% $1"
    config = Config(control_socket=str(home / "geard.sock"), logging=Logging(file=str(home / "log" / "geard.log")))
    text = render(config, quoted(str(home / "geard.yaml")), sys.executable)
    escaped = str(home).replace("%", "%%")
    assert f'reload --socket "{escaped.replace("$", "$$")}/geard.sock"\n' in text
    assert f'ReadWritePaths="{escaped}" "{escaped}/log"\n' in text
    unit = tmp_path / "geard.service"
    unit.write_text(text)
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "ReadWritePaths" not in said.stderr
