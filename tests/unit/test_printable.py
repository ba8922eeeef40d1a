"""What of a text from outside may reach a line of a log or a terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("reverse", "reverse"),
        ("Grüße, 你好, שלום, 🙂", "Grüße, 你好, שלום, 🙂"),
        ("no\u00a0break, wide\u3000space", "no\u00a0break, wide\u3000space"),
        ("C:\\new", "C:\\new"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("one\r\ntwo\tthree\x0b\x0c\x85\u2028\u2029", r"one\r\ntwo\tthree\x0b\x0c\x85\u2028\u2029"),
        ("abc\u202ecba\u2066\u200f\u200d\ufeff", r"abc\u202ecba\u2066\u200f\u200d\ufeff"),
        ("\udc80 and \ud83d", r"\udc80 and \ud83d"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_steers_a_terminal_is_escaped_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_any_text_becomes_one_line_that_can_be_written(text: str) -> None:
    shown = printable(text)
    shown.encode()  # no lone surrogate
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in shown)
    assert printable(shown) == shown
