"""Files that are replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from geard import statefile


def test_it_is_made_with_its_directory_and_replaced_with_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "file.json"
    statefile.replace(str(path), b"first, and longer")
    statefile.replace(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_what_was_there_stays_where_it_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    statefile.replace(str(path), b"first")
    (tmp_path / "file.json.new").mkdir()
    with pytest.raises(OSError, match=r"file\.json\.new"):
        statefile.replace(str(path), b"second")
    assert path.read_bytes() == b"first"
