"""Durations, sizes and addresses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.config import JobServer, format_duration, format_size, parse_address, parse_duration, parse_size
from geard.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("250ms", 0.25),
        ("1m0.5s", 60.5),
        ("0", 0),
        ("2.5", 2.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "5 m", "30m1h", "1h1h", "-1s", "1M", "1e3", "5ms1s", "٣s", "1s\n", "inf", "nan"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_duration_is_read_back_as_it_is_shown(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("0", 0), ("1K", 1024), ("64M", 2**26), ("64MiB", 2**26), ("1.5G", 3 * 2**29), ("7", 7)]
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "K", "64m", "64MB", "-1", "1 K", "1T", "1e3", "٣", "1K\n"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**63))
def test_a_size_is_read_back_as_it_is_shown(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.text())
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_address):
        with suppress(InvalidRequest):
            parse(text)


HOSTS = st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{2,5}){0,3}", fullmatch=True)
ADDRESSES = HOSTS | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)


@given(ADDRESSES, st.integers(min_value=1, max_value=65535))
def test_an_address_is_read_back_as_it_is_shown(host: str, port: int) -> None:
    server = JobServer(host, port)
    assert parse_address(str(server)) == server


@given(ADDRESSES)
def test_the_port_is_gearmans_unless_given(host: str) -> None:
    assert parse_address(f"[{host}]" if ":" in host else host) == JobServer(host, 4730)
