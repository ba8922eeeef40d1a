"""The man pages: current, without fault, and in the wheel; which is built of what the Dockerfile copies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from geard.cli import COMMANDS
from geard.reference import config_keys
from geard.reference.man import PAGES
from tests.support.servers import need

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_in_the_repository_are_what_the_code_makes(name: str) -> None:
    assert (ROOT / "docs" / "man" / name).read_text() == PAGES[name](), "make man"


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_warn_of_and_shows_every_name(name: str) -> None:
    need("groff")
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tutf8", "-P-cbou", "-rLL=200n"],
        input=PAGES[name](),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if name == "geard.1":
        missing = [command for command in COMMANDS if f"geard {command}" not in done.stdout]
        assert missing == ["reap"]  # for systemd alone
        assert re.search(r"^ +78 +the config cannot run", done.stdout, re.MULTILINE)
        assert "geard submit --background --at 18:30 send_report daily\n" in done.stdout
        assert 'zsh:   geard completion zsh > "${fpath[1]}/_geard"\n' in done.stdout  # as it is to be typed
    else:
        assert [key.name for key in config_keys() if f" {key.name}\n" not in done.stdout] == []


def test_the_wheel_of_what_the_dockerfile_copies_has_all_that_geard_reads(tmp_path: Path) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for each in copied for source in each.split() if (ROOT / source).exists()}
    for source in sorted(sources, key=len):
        path, target = ROOT / source, tmp_path / "src" / source
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        shared = {name.partition(".data/data/")[2]: name for name in names if ".data/data/" in name}
        assert set(shared) == {"share/man/man1/geard.1", "share/man/man5/geard.yaml.5"}
        assert archive.read(shared["share/man/man1/geard.1"]).decode() == PAGES["geard.1"]()
        assert archive.read("geard/reference/geard.yaml") == (ROOT / "etc" / "geard.yaml").read_bytes()
    package = ROOT / "geard"
    files = {str(path.relative_to(ROOT)) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert sorted(files - names) == []
