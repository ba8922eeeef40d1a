"""Encodings: values to bytes and back, for worker and client alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.codec import ENCODING_ERRORS, codec_for
from geard.errors import InvalidRequest

DEEP: list[Any] = []
DEEP.append(DEEP)

numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary())
def test_bytes_pass_as_they_are(data: bytes) -> None:
    codec = codec_for("bytes")
    assert codec.decode(data) == codec.encode(data) == data


@given(st.text())
def test_text_comes_back(text: str) -> None:
    for name in ("utf-8", "utf-16", "utf-7"):
        codec = codec_for(name)
        assert codec.decode(codec.encode(text)) == text


@given(json_values)
def test_json_comes_back_and_is_json_to_others(value: Any) -> None:
    codec = codec_for("json")
    assert codec.decode(codec.encode(value)) == value
    assert json.loads(codec.encode(value)) == value


@given(st.binary())
def test_whatever_arrives_decodes_or_is_a_value_error(data: bytes) -> None:
    for name in ("utf-8", "json", "ascii", "utf-16"):
        try:
            codec_for(name).decode(data)
        except ENCODING_ERRORS:
            continue


@pytest.mark.parametrize(("name", "value"), [("json", object()), ("json", DEEP), ("ascii", "ü"), ("json", {(1,): 1})])
def test_what_cannot_be_encoded_is_one_of_the_errors_that_callers_expect(name: str, value: Any) -> None:
    with pytest.raises(ENCODING_ERRORS):
        codec_for(name).encode(value)


@pytest.mark.parametrize("result", [bytearray(b"ab"), memoryview(b"ab"), b"ab"])
def test_bytes_are_whatever_is_like_them(result: Any) -> None:
    encoded = codec_for("bytes").encode(result)
    assert type(encoded) is bytes
    assert encoded == b"ab"


@pytest.mark.parametrize("name", ["bytes", "utf-8", "latin-1"])
def test_none_is_no_data(name: str) -> None:
    assert codec_for(name).encode(None) == b""


def test_none_in_json_is_null() -> None:
    assert codec_for("json").encode(None) == b"null"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("utf-8", b"x", "with `encoding: utf-8` a result is str, not bytes (`json` is for other values)"),
        ("utf-8", 7, "with `encoding: utf-8` a result is str, not int (`json` is for other values)"),
        ("latin-1", [1], "with `encoding: latin-1` a result is str, not list (`json` is for other values)"),
        ("bytes", "x", "with `encoding: bytes` a result is bytes, not str"),
        ("json", b"x", "with `encoding: json` a result is what JSON can say, not bytes"),
        ("json", bytearray(b"x"), "with `encoding: json` a result is what JSON can say, not bytearray"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_which_type_the_encoding_takes(name: str, value: Any, text: str) -> None:
    with pytest.raises(TypeError) as raised:
        codec_for(name, "result").encode(value)
    assert str(raised.value) == text


@pytest.mark.parametrize("name", ["utf-9", "", "rot13", "zlib", "hex", "base64", "undefined"])
def test_an_encoding_that_is_no_text_codec_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"'{name}' is no encoding: expected bytes, json, or a text codec"):
        codec_for(name)
