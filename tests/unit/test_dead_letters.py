"""The file of dead letters, whatever happens to it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from geard.deadletters.letter import DeadLetter, DeadLettersUnusable
from geard.deadletters.store import ALL, DeadLetters, Filter, Group


def letter(number: int, function: str = "send", error: str = "OSError: gone", at: float = 0.0) -> DeadLetter:
    return DeadLetter(
        function, b"\0work %d" % number, f"u{number}", f"H:{number}", "a:1", 3, at, at + number, error, "Traceback …"
    )


@pytest.fixture
def letters(tmp_path: Path) -> DeadLetters:
    return DeadLetters(str(tmp_path / "sub" / "dead.sqlite"))


def test_what_was_added_is_found_the_latest_first(letters: DeadLetters) -> None:
    letters.add([letter(1), letter(3), letter(2)])
    with DeadLetters(letters.path, create=False) as others:
        found = others.find()
    assert [msgspec.structs.replace(each, id=0) for each in found] == [letter(3), letter(2), letter(1)]
    assert [each.id for each in found] == [2, 3, 1]


def test_letters_are_meant_by_id_function_error_and_age(letters: DeadLetters) -> None:
    letters.add([letter(1), letter(2, "other"), letter(3, error="ValueError: 50%_"), letter(4)])

    def ids(which: Filter) -> list[int]:
        return sorted(each.id for each in letters.find(which))

    assert ids(Filter(ids=(1, 4, 9))) == [1, 4]
    assert ids(Filter(function="send", error="gone")) == [1, 4]
    assert ids(Filter(error="%_")) == [3]
    assert ids(Filter(older_than=3.0)) == [1, 2]
    assert ids(Filter(newer_than=2.0, function="send")) == [3, 4]
    assert letters.drop(Filter(function="send")) == 3
    assert letters.count() == 1


def test_they_are_grouped_by_function_and_error(letters: DeadLetters) -> None:
    letters.add([letter(1), letter(2), letter(5, "other")])
    assert letters.groups() == [
        Group("other", "OSError: gone", 1, 0.0, 5.0),
        Group("send", "OSError: gone", 2, 0.0, 2.0),
    ]


def test_the_old_and_the_surplus_are_forgotten(letters: DeadLetters) -> None:
    letters.add([letter(number) for number in range(10)])
    assert letters.prune(keep_seconds=5.0, most=3, now=10.0) == 7
    assert [each.last_at for each in letters.find()] == [9.0, 8.0, 7.0]


def test_a_file_that_was_deleted_is_made_anew(letters: DeadLetters) -> None:
    letters.add([letter(1)])
    Path(letters.path).rename(letters.path + ".moved")
    letters.add([letter(2)])
    with DeadLetters(letters.path, create=False) as others:
        assert [each.unique for each in others.find()] == ["u2"]


def test_a_file_that_cannot_be_used_is_told_and_used_again_once_it_can(tmp_path: Path) -> None:
    path = tmp_path / "dead.sqlite"
    path.write_bytes(b"this is no database, and long enough to be taken for one" * 100)
    letters = DeadLetters(str(path))
    for _ in range(2):
        with pytest.raises(DeadLettersUnusable, match=r"dead\.sqlite"):
            letters.add([letter(1)])
    path.unlink()
    letters.add([letter(1)])
    assert letters.count(ALL) == 1


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(DeadLettersUnusable, match="there is no such file"):
        DeadLetters(str(tmp_path / "none"), create=False).find()
    assert not list(tmp_path.iterdir())


def test_all_or_none_of_them_are_kept(letters: DeadLetters) -> None:
    letters.add([letter(1)])
    broken = msgspec.structs.replace(letter(2), attempts=2**70)
    with pytest.raises(DeadLettersUnusable):
        letters.add([letter(3), broken])
    assert letters.count() == 1


def test_letters_of_one_error_are_told_from_those_whose_error_holds_it(letters: DeadLetters) -> None:
    letters.add([letter(1, error="Timeout: 5 s"), letter(2, error="Timeout: 5 s, and more"), letter(3, "other")])
    assert letters.counts() == {"send": 2, "other": 1}
    assert letters.drop(Filter(function="send", whole_error="Timeout: 5 s")) == 1
    (left,) = letters.find(Filter(function="send"), workloads=False)
    assert (left.error, left.workload) == ("Timeout: 5 s, and more", b"")
    assert letters.find(Filter((left.id,)))[0].workload == b"\0work 2"
