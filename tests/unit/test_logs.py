"""The log: a line a person can read, JSON for a machine, priorities for the journal, and never a reason to fail."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geard import logs
from geard.config import Logging
from geard.logs import formats

log = logging.getLogger("geard.worker")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging as it was."""
    root, ours = logging.getLogger(), logging.getLogger("geard")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def to_file(path: Path, **logging_config: Any) -> Logging:
    return Logging(file=str(path), **logging_config)


def written(path: Path) -> str:
    """What is in the file once all is written."""
    assert logs.flush(30)
    return path.read_text()


def raise_and_log() -> None:
    try:
        raise ValueError("no such\nimage")
    except ValueError:
        log.exception("%s failed", "resize", extra={"function": "resize", "handle": "H:host:1"})


def test_a_text_line_has_time_level_and_process(path: Path) -> None:
    logs.configure(to_file(path), process="worker 2")
    log.warning("lost %s", "localhost:4730")
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} warning worker 2\[\d+\]: lost localhost:4730\n"
    assert re.fullmatch(pattern, written(path))


def test_a_line_of_user_code_names_its_logger(path: Path) -> None:
    logs.configure(to_file(path))
    logging.getLogger("images.resize").info("scaled")
    assert written(path).endswith(": images.resize: scaled\n")


def test_a_traceback_follows_its_line(path: Path) -> None:
    logs.configure(to_file(path))
    raise_and_log()
    text = written(path)
    assert "resize failed\n    Traceback" in text
    assert "    ValueError: no such\n    image\n" in text


def test_json_is_one_object_a_line_with_what_the_caller_added(path: Path) -> None:
    logs.configure(to_file(path, format="json"), process="worker 2")
    raise_and_log()
    log.info("path %s", {"extra": 1}, extra={"unique": Path("/x")})
    first, second = map(json.loads, written(path).splitlines())
    assert first["level"] == "error"
    assert first["message"] == "resize failed"
    assert first["function"] == "resize"
    assert first["handle"] == "H:host:1"
    assert "ValueError" in first["traceback"]
    assert first["process"] == f"worker 2[{os.getpid()}]"
    assert second["unique"] == "/x"


def test_verbose_shows_geards_debug_lines_and_not_those_of_libraries(path: Path) -> None:
    logs.configure(to_file(path), verbose=True)
    log.debug("each job")
    logging.getLogger("library").debug("noise")
    assert "each job" in written(path)
    assert "noise" not in written(path)


def test_the_level_of_the_config_holds(path: Path) -> None:
    logs.configure(to_file(path, level="warning"))
    log.info("quiet")
    log.warning("loud")
    assert "quiet" not in written(path)
    assert "loud" in written(path)


def test_lines_that_a_full_disk_swallowed_are_counted(path: Path) -> None:
    path.symlink_to("/dev/full")
    logs.configure(to_file(path))
    for _ in range(3):
        log.info("lost")
    path.unlink()  # the disk has room again
    logs.reopen()
    log.info("back")
    first, second = written(path).splitlines()
    assert first.endswith(": (3 log lines could not be written)")
    assert second.endswith(": back")


def test_a_record_that_cannot_be_formatted_is_named_and_raises_nothing(path: Path) -> None:
    logs.configure(to_file(path))
    log.info("%d jobs", "many")
    assert "cannot format a log record from geard.worker" in written(path)


def test_reopen_follows_the_name_and_keeps_the_old_file_when_it_cannot(path: Path) -> None:
    logs.configure(to_file(path))
    path.rename(path.with_name("rotated"))
    logs.reopen()
    log.info("new")
    assert "new" in written(path)
    path.unlink()
    path.mkdir()
    logs.reopen()
    log.info("on")
    path.rmdir()


def test_characters_that_are_no_text_do_not_lose_the_line(path: Path) -> None:
    logs.configure(to_file(path))
    log.info("unique %s", b"\xff".decode(errors="surrogateescape"))
    assert "unique \\udcff" in written(path)


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2), (35, 4)],
)
def test_levels_become_syslog_priorities(level: int, priority: int) -> None:
    assert formats.priority(level) == priority


def test_each_line_for_the_journal_carries_its_priority_and_no_time() -> None:
    record = logging.makeLogRecord({"name": "geard", "msg": "one\ntwo", "levelno": logging.ERROR})
    expected = f"<3>supervisor[{os.getpid()}]: one\n<3>    two\n"
    assert formats.JournalLines("supervisor")(record) == expected.encode()


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        logs.configure(to_file(tmp_path / "missing" / "log"))
