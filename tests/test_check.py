"""`geard check`, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geard import exits
from tests.support.waiting import eventually

EXAMPLE = Path(__file__).parents[1] / "etc" / "geard.yaml"

APP = """
import os, threading, time
print("printed while imported")
os.write(1, b"written while imported\\n")
threading.Thread(target=time.sleep, args=(1000,)).start()
def reverse(workload): return workload[::-1]
def progress(job, workload): yield workload
def start(): raise RuntimeError("on_start is for worker processes")
def three(a, b, c): pass
async def later(workload): pass
async def pieces(job, workload): yield workload
LIMIT = 5
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEARD_CONFIG", raising=False)
    return tmp_path


def check(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`geard check` from the current directory."""
    command = [sys.executable, "-m", "geard", "check", *arguments]
    return subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60)


def test_a_good_config_shows_what_would_run(here: Path) -> None:
    Path("app.py").write_text(APP)
    Path("geard.yaml").write_text("""
job_servers: [one.example.com, {host: two.example.com, port: 4731, tls: true}]
greenlets_per_server: 20
processes: 2
on_start: app.start
capabilities:
  reverse: app.reverse
  backwards: {function: "app:reverse", encoding: bytes, timeout: 90, greenlets_per_server: 4, processes: 3}
  progress: {function: app.progress, encoding: json, thread: true}
  later: app.later
  pieces: {function: app.pieces, rate: 50/s+200}
""")
    done = check()
    assert done.returncode == exits.DONE, done.stderr
    assert (
        done.stdout
        == """\
geard.yaml can run.
Job servers: one.example.com:4730, two.example.com:4731 with TLS
In common: 2 worker processes with 40 greenlets per job server: 160 jobs at a time
backwards: 3 worker processes with 4 greenlets per job server: 24 jobs at a time
Together: 5 worker processes: 184 jobs at a time, 80 of them in native threads
On start: app.start

CAPABILITY  FUNCTION      CALLED AS                                          ENCODING  TIMEOUT  RATE      GREENLETS  PROCESSES
reverse     app.reverse   function(workload)                                 utf-8     -        -         (20)       (2)
backwards   app:reverse   function(workload)                                 bytes     1m30s    -         4          3
progress    app.progress  function(job, workload), a generator, in a thread  json      -        -         (20)       (2)
later       app.later     async function(workload)                           utf-8     -        -         (20)       (2)
pieces      app.pieces    async function(job, workload), a generator         utf-8     -        50/s+200  20         (2)
"""  # noqa: E501
    )
    assert done.stderr == "printed while imported\nwritten while imported\n"


def test_the_example_config_can_run() -> None:
    done = check("-c", str(EXAMPLE))
    assert (done.returncode, done.stderr) == (exits.DONE, "")


def test_all_that_is_wrong_is_told_together_in_the_order_of_the_file(here: Path) -> None:
    Path("app.py").write_text(APP)
    Path("needs.py").write_text("import nothing_by_this_name\n")
    Path("broken.py").write_text("def f(:\n")
    Path("leaves.py").write_text("raise SystemExit(0)\n")
    Path("geard.yaml").write_text("""\
greenlets_per_servr: 20
capabilities:
  good: app.reverse
  three: app.three
  later: {function: app.later, thread: true}
  limit: app.LIMIT
  typo: app.revers
  none: no_such_module.f
  needs: needs.f
  broken: broken.f
  leaves: leaves.f
  number: 5
on_start: app.reverse
""")
    done = check()
    assert done.returncode == exits.CONFIG
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith("geard.yaml")]
    assert [line.split(": ")[:2] for line in said] == [
        ["geard.yaml:1:1", "greenlets_per_servr"],
        ["geard.yaml:4:3", "capabilities.three"],
        ["geard.yaml:5:3", "capabilities.later"],
        ["geard.yaml:6:3", "capabilities.limit"],
        ["geard.yaml:7:3", "capabilities.typo"],
        ["geard.yaml:8:3", "capabilities.none"],
        ["geard.yaml:9:3", "capabilities.needs"],
        ["geard.yaml:10:3", "capabilities.broken"],
        ["geard.yaml:11:3", "capabilities.leaves"],
        ["geard.yaml:12:3", "capabilities.number"],
        ["geard.yaml:13:1", "on_start"],
        ["geard.yaml cannot run", "11 problems"],
    ]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "ending"),
    [
        ("import os; os._exit(0)", "exited with code 0"),
        ("import os; os._exit(3)", "exited with code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 6)", "was killed by signal 40"),
    ],
)
def test_a_module_that_ends_the_interpreter_is_reported(module: str, ending: str, here: Path) -> None:
    Path("app.py").write_text(module)
    Path("geard.yaml").write_text("capabilities: {f: app.f}\n")
    done = check()
    assert done.returncode == exits.CONFIG
    assert f"geard.yaml:1:1: capabilities: the process that imports them {ending}\n" in done.stderr


@pytest.mark.parametrize(
    "start",
    [
        "from multiprocessing import Manager\nstarted = Manager()\npid = started._process.pid",
        "from multiprocessing import Pool\nstarted = Pool(1)\npid = started._pool[0].pid",
        "import os, time\npid = os.fork()\nif not pid:\n    time.sleep(600)",
    ],
    ids=["a manager", "a pool", "a fork"],
)
def test_processes_that_a_module_starts_run_and_end_with_the_check(start: str, here: Path) -> None:
    Path("app.py").write_text(f"{start}\nopen('pid', 'w').write(str(pid))\ndef f(workload): pass\n")
    Path("geard.yaml").write_text("capabilities: {f: app.f}\n")
    done = check()  # which does not wait for it
    assert done.returncode == exits.DONE, done.stderr
    command = Path("/proc", Path("pid").read_text(), "cmdline")
    eventually(lambda: not command.exists() or not command.read_bytes(), what="the end of what was started")


def test_an_import_that_fails_is_told_whatever_its_error_and_its_directory_are(here: Path) -> None:
    os.mkdir(b"not-utf-8-\xff")
    os.chdir(b"not-utf-8-\xff")
    Path("half.py").write_text("raise RuntimeError('half a pair: \\ud800')")
    Path("mute.py").write_text("class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute")
    Path("geard.yaml").write_text("""
job_servers: [one.example.com]
capabilities:
  half: half.f
  mute: mute.f
  picky: {function: os.path.basename, retry: {times: 1, on: [mute.Mute]}}
""")
    done = check()
    assert done.returncode == exits.CONFIG
    assert "importing 'half' failed: RuntimeError: half a pair: \\ud800" in done.stderr
    assert "importing 'mute' failed: Mute: its __str__ raised ValueError" in done.stderr
    assert "capabilities.picky: there is no exception mute.Mute" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_name_steers_no_terminal(here: Path) -> None:
    Path("odd\x1b]0;title\x07.yaml").write_text("capabilities: {reverse: geard.examples.reverse}\n")
    done = check("-c", "odd\x1b]0;title\x07.yaml")
    assert done.stdout.startswith("odd\\x1b]0;title\\x07.yaml can run.\n")


def test_modules_are_found_as_a_worker_process_finds_them(here: Path) -> None:
    (here / "site/lib").mkdir(parents=True)
    Path("site/lib/app.py").write_text("import os\nassert os.getcwd().endswith('site')\ndef f(workload): pass\n")
    Path("geard.yaml").write_text("working_directory: site\npython_path: [lib]\ncapabilities: {f: app.f}\n")
    done = check()
    assert done.returncode == exits.DONE, done.stderr


def test_capabilities_are_imported_after_the_patch_and_what_was_before_is_named(here: Path) -> None:
    Path("sitecustomize.py").write_text("import too_early\n")
    Path("too_early.py").write_text("from time import sleep\n")
    Path("app.py").write_text(
        "import time, gevent.hub\nassert time.sleep is gevent.hub.sleep\nfrom time import sleep\ndef f(w): pass\n"
    )
    Path("geard.yaml").write_text("capabilities: {f: app.f}\n")
    done = check(PYTHONPATH=str(here))
    assert done.returncode == exits.DONE, done.stderr
    assert done.stderr.endswith("so jobs that use them hold up all others: too_early\n")


def test_a_missing_config_is_a_config_error() -> None:
    done = check()
    assert (done.returncode, done.stdout) == (exits.CONFIG, "")
    assert done.stderr.startswith("geard: there is no config file\n")
    done = check("-c", "none.yaml")
    assert done.returncode == exits.CONFIG
    assert done.stderr.startswith("none.yaml: cannot be read: no such file or directory\n")


def test_what_a_variable_holds_is_not_told_by_an_import_that_fails(here: Path) -> None:
    Path("geard.yaml").write_text("capabilities: {reverse: '${MODULE}.reverse', b: '${MODULE}'}\n")
    done = check(MODULE="s3cretmodule.s3cretname")
    assert done.returncode == exits.CONFIG
    assert "s3cret" not in done.stderr
    assert "${MODULE}" in done.stderr


def test_of_a_great_many_problems_the_first_hundred_are_told_and_all_are_counted(here: Path) -> None:
    keys = "".join(f"key{number}: 1\n" for number in range(3000))
    Path("geard.yaml").write_text(f"{keys}capabilities: {{reverse: geard.examples.reverse}}\n")
    done = check()
    assert done.returncode == exits.CONFIG
    assert done.stderr.count("unknown key") == 100
    assert done.stderr.endswith("… and 2,900 more\ngeard.yaml cannot run: 3,000 problems\n")
