"""The packet table, the encoder and the decoder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.errors import InvalidRequest, PacketTooLarge, ProtocolError
from geard.protocol import (
    FIELDS,
    REQUEST,
    RESPONSE,
    Command,
    Decoder,
    Oversized,
    Packet,
    begin,
    encode,
    request,
    response,
)
from geard.protocol.packets import HEADER

NAMED = [command for command in Command if command != Command.UNUSED]
MAGICS = [REQUEST, RESPONSE]


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    command = draw(st.sampled_from(NAMED))
    count = len(FIELDS[command])
    before = [draw(st.binary(max_size=40)).replace(b"\0", b"") for _ in range(count - 1)]
    return Packet(command, [*before, draw(st.binary(max_size=300))] if count else [])


assignments = st.builds(
    lambda handle, workload: Packet(Command.JOB_ASSIGN_UNIQ, [b"H:%d" % handle, b"f", b"", workload]),
    st.integers(1, 999),
    st.binary(max_size=250),
)


def told_by(decoder: Decoder) -> tuple[list[Packet], str]:
    """What iteration gives, and the error it ends with."""
    found: list[Packet] = []
    try:
        found.extend(decoder)
    except ProtocolError as error:
        return found, str(error)
    return found, ""


def decode(data: list[bytes], magic: bytes = RESPONSE, max_packet_bytes: int = 10**8) -> list[Packet]:
    decoder = Decoder(magic, max_packet_bytes=max_packet_bytes)
    found: list[Packet] = []
    for piece in data:
        decoder.feed(piece)
        found.extend(decoder)
    return found


def test_the_codes_are_one_to_forty_two_without_a_gap() -> None:
    assert [int(command) for command in Command] == list(range(1, 43))
    assert set(FIELDS) == set(Command)


@pytest.mark.parametrize(
    ("packet", "wire"),
    [
        (request(Command.CAN_DO, b"f"), b"\0REQ\0\0\0\x01\0\0\0\x01f"),
        (request(Command.GRAB_JOB_UNIQ), b"\0REQ\0\0\0\x1e\0\0\0\0"),
        (response(Command.NOOP), b"\0RES\0\0\0\x06\0\0\0\0"),
        (request(Command.SUBMIT_JOB, b"f", b"u", b"a\0b"), b"\0REQ\0\0\0\x07\0\0\0\x07f\0u\0a\0b"),
        (request(Command.WORK_COMPLETE, b"H:a:1", b""), b"\0REQ\0\0\0\x0d\0\0\0\x06H:a:1\0"),
    ],
)
def test_the_bytes_on_the_wire(packet: bytes, wire: bytes) -> None:
    assert packet == wire


@given(st.lists(packets(), max_size=5), st.sampled_from(MAGICS), st.integers(1, 60))
def test_what_is_encoded_is_decoded_however_it_is_cut(sent: list[Packet], magic: bytes, cut: int) -> None:
    wire = b"".join(encode(magic, packet.command, *packet.fields) for packet in sent)
    assert decode([wire], magic) == sent
    assert decode([wire[i : i + cut] for i in range(0, len(wire), cut)], magic) == sent
    assert decode([bytes([byte]) for byte in wire], magic) == sent


@given(packets())
def test_a_tail_is_kept_for_later(packet: Packet) -> None:
    wire = encode(RESPONSE, packet.command, *packet.fields)
    decoder = Decoder()
    decoder.feed(wire + wire[:-1])
    assert list(decoder) == [packet]
    assert decoder.in_packet
    decoder.feed(wire[-1:])
    assert list(decoder) == [packet]
    assert not decoder.in_packet


@given(packets(), st.sampled_from(MAGICS), st.binary(max_size=20))
def test_the_short_way_for_a_whole_packet_gives_the_same_and_takes_nothing_else(
    packet: Packet, magic: bytes, more: bytes
) -> None:
    wire = encode(magic, packet.command, *packet.fields)
    decoder = Decoder(magic)
    assert decoder.whole(wire) == (packet if packet.fields else None)
    for other in (wire + more, more + wire, wire[:-1], b""):
        assert other == wire or decoder.whole(other) is None
    assert Decoder(REQUEST if magic == RESPONSE else RESPONSE).whole(wire) is None
    assert Decoder(magic, max_packet_bytes=len(wire) - 1).whole(wire) is None
    decoder.feed(wire[:1])
    assert decoder.whole(wire) is None


@given(st.lists(st.one_of(assignments, packets()), max_size=8), st.integers(1, 60), st.binary(max_size=20))
def test_the_short_way_for_many_of_a_type_changes_neither_what_is_decoded_nor_its_order(
    sent: list[Packet], cut: int, rubbish: bytes
) -> None:
    wire = b"".join(encode(RESPONSE, packet.command, *packet.fields) for packet in sent) + rubbish
    for pieces in ([wire], [wire[i : i + cut] for i in range(0, len(wire), cut)]):
        found: list[Packet] = []
        short, long = Decoder(max_packet_bytes=200), Decoder(max_packet_bytes=200)
        for piece in pieces:
            for decoder in (short, long):
                decoder.feed(piece)
            taken: list[list[bytes]] = []
            short.take(Command.JOB_ASSIGN_UNIQ, taken)
            found = [Packet(Command.JOB_ASSIGN_UNIQ, fields) for fields in taken]
            told = [told_by(decoder) for decoder in (short, long)]
            assert (found + told[0][0], told[0][1]) == told[1]
            assert short.in_packet == long.in_packet


def test_the_short_way_takes_all_there_is_of_the_type() -> None:
    decoder = Decoder()
    decoder.feed(response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"f", b"u", b"a\0b") * 3 + response(Command.NOOP))
    taken: list[list[bytes]] = []
    decoder.take(Command.JOB_ASSIGN_UNIQ, taken)
    assert taken == [[b"H:1", b"f", b"u", b"a\0b"]] * 3
    assert [packet.command for packet in decoder] == [Command.NOOP]


def test_a_packet_that_was_begun_is_what_encode_makes() -> None:
    for start, rest in ((b"", b"u"), (b"u", b""), (b"u-", b"1")):
        finish = begin(REQUEST, Command.SUBMIT_JOB_BG, b"f", start)
        assert finish(rest, b"a\0b") == request(Command.SUBMIT_JOB_BG, b"f", start + rest, b"a\0b")
    with pytest.raises(InvalidRequest, match="the function must not hold a NUL byte"):
        begin(REQUEST, Command.SUBMIT_JOB_BG, b"f\0")
    with pytest.raises(InvalidRequest, match="takes 1 fields"):
        begin(REQUEST, Command.CAN_DO, b"f")


@given(st.binary(min_size=1, max_size=200))
def test_rubbish_is_refused_or_waited_for_but_never_becomes_a_packet(rubbish: bytes) -> None:
    decoder = Decoder()
    decoder.feed(rubbish)
    if RESPONSE.startswith(rubbish[:4]):
        return
    with pytest.raises(ProtocolError, match="expected a Gearman packet"):
        list(decoder)


def test_only_what_is_one_packet_and_nothing_else_is_taken_as_such() -> None:
    noop, no_job = response(Command.NOOP), response(Command.NO_JOB)
    decoder = Decoder()
    assert not decoder.take_only(noop)
    for held in (noop[:-1], noop + no_job, no_job + noop, no_job):
        decoder.feed(held)
        assert not decoder.take_only(noop)
        decoder.feed(noop[-1:] if held == noop[:-1] else b"")
        assert len(list(decoder)) == len(held + noop[-1:]) // len(noop)
    decoder.feed(noop)
    assert decoder.take_only(noop)
    assert not decoder.in_packet
    assert not list(decoder)
    decoder.feed(no_job)
    assert [packet.command for packet in decoder] == [Command.NO_JOB]


def test_what_is_within_a_packet_that_is_skipped_is_none() -> None:
    noop = response(Command.NOOP)
    decoder = Decoder(max_packet_bytes=100, skip=True)
    decoder.feed(response(Command.JOB_ASSIGN_UNIQ, b"H:x:1", b"f", b"u", b"x" * 200)[:-20])
    assert len(list(decoder)) == 1
    decoder.feed(noop)
    assert not decoder.take_only(noop)


def test_packets_before_the_rubbish_come_first_and_the_error_stays() -> None:
    decoder = Decoder()
    decoder.feed(response(Command.NOOP) + b"HTTP/1.1 400 Bad Request")
    stream = iter(decoder)
    assert next(stream).command == Command.NOOP
    with pytest.raises(ProtocolError):
        next(stream)
    decoder.feed(response(Command.NOOP))
    with pytest.raises(ProtocolError):
        list(decoder)


def test_a_packet_taken_is_not_seen_again_when_the_reader_stops_half_way() -> None:
    decoder = Decoder()
    decoder.feed(response(Command.NOOP) + response(Command.NO_JOB))
    stream = iter(decoder)
    assert next(stream).command == Command.NOOP
    del stream
    assert [packet.command for packet in decoder] == [Command.NO_JOB]


def test_the_limit_is_checked_from_the_header_alone() -> None:
    wire = response(Command.ECHO_RES, b"x" * 989)
    assert len(decode([wire], max_packet_bytes=len(wire))) == 1
    decoder = Decoder(max_packet_bytes=len(wire) - 1)
    decoder.feed(wire[:12])
    with pytest.raises(PacketTooLarge, match="ECHO_RES of 1001 bytes, over the limit of 1000"):
        list(decoder)


def oversized(size: int, *fields: bytes) -> bytes:
    """The head of a JOB_ASSIGN_UNIQ whose workload is so long."""
    head = b"".join(field + b"\0" for field in fields)
    return HEADER.pack(RESPONSE, int(Command.JOB_ASSIGN_UNIQ), len(head) + size) + head


@given(st.lists(packets(), max_size=3), st.integers(1, 60), st.integers(600, 5000))
def test_what_is_too_large_is_skipped_in_its_place_however_it_is_cut(sent: list[Packet], cut: int, size: int) -> None:
    wire = b"".join(response(packet.command, *packet.fields) for packet in sent)
    large = oversized(size, b"H:1", b"f", b"u") + b"\0" * size
    decoder = Decoder(max_packet_bytes=600, skip=True)
    found: list[Packet] = []
    for i in range(0, 2 * len(wire) + len(large), cut):
        decoder.feed((wire + large + wire)[i : i + cut])
        found.extend(decoder)
    skipped = found.pop(len(sent))
    assert found == sent * 2
    assert isinstance(skipped, Oversized)
    assert skipped == (Command.JOB_ASSIGN_UNIQ, [b"H:1", b"f", b"u"])
    assert skipped.text == f"JOB_ASSIGN_UNIQ of {len(large)} bytes, over the limit of 600"
    assert (skipped.handle, decoder.in_packet) == (b"H:1", False)


def test_of_what_is_skipped_nothing_is_held() -> None:
    decoder = Decoder(max_packet_bytes=1000, skip=True)
    decoder.feed(oversized(2**32 - 100, b"H:1", b"f", b"u"))
    assert [packet.command for packet in decoder] == [Command.JOB_ASSIGN_UNIQ]
    for _ in range(100):
        decoder.feed(b"x" * 65536)
        assert list(decoder) == []
        assert "holds 0 bytes" in repr(decoder)
    assert decoder.in_packet


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (oversized(10**6) + b"x" * 20_000, "JOB_ASSIGN_UNIQ takes 4 fields"),
        (response(Command.JOB_ASSIGN_UNIQ, b"", b"", b"", b"")[:8] + b"\0\0\x10\0" + b"x" * 4096, "takes 4 fields"),
        (response(Command.NOOP)[:8] + b"\0\0\x10\0", "NOOP takes 0 fields"),
    ],
)
def test_what_is_too_large_and_cannot_be_named_is_refused(wire: bytes, message: str) -> None:
    decoder = Decoder(max_packet_bytes=1000, skip=True)
    decoder.feed(wire)
    for _ in range(2):
        with pytest.raises(ProtocolError, match=message):
            list(decoder)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"\0RES\0\0\0\x05\0\0\0\0", "expected a Gearman packet"),
        (b"\0RES\0\0\0\x2b\0\0\0\0", "expected a Gearman packet"),
        (b"\0REQ\0\0\0\x06\0\0\0\0", "expected a Gearman packet"),
        (b"\0RES\0\0\0\x06\0\0\0\x01x", "NOOP takes 0 fields"),
        (b"\0RES\0\0\0\x1f\0\0\0\x05H:a:1", "JOB_ASSIGN_UNIQ takes 4 fields"),
    ],
)
def test_a_packet_that_is_not_in_the_table_is_refused(wire: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode([wire])


@pytest.mark.parametrize(
    ("command", "fields", "message"),
    [
        (Command.CAN_DO, (), r"CAN_DO takes 1 fields \(function\), not 0"),
        (Command.GRAB_JOB, (b"x",), r"GRAB_JOB takes 0 fields \(none\), not 1"),
        (Command.SUBMIT_JOB, (b"a\0b", b"", b""), "SUBMIT_JOB: the function must not hold a NUL byte"),
        (Command.SUBMIT_JOB, (b"a", b"\0", b"x"), "SUBMIT_JOB: the unique must not hold a NUL byte"),
    ],
)
def test_what_a_peer_could_not_read_back_is_not_encoded(
    command: Command, fields: tuple[bytes, ...], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        request(command, *fields)


def test_fields_have_the_names_of_the_table() -> None:
    [packet] = decode([response(Command.JOB_ASSIGN_UNIQ, b"H:a:1", b"f", b"u", b"w\0w")])
    assert (packet.handle, packet.function, packet.unique, packet.workload) == (b"H:a:1", b"f", b"u", b"w\0w")
    with pytest.raises(AttributeError, match="JOB_ASSIGN_UNIQ has no field 'reducer'"):
        _ = packet.reducer


@given(st.lists(packets(), max_size=3), st.integers(1, 40))
def test_admin_lines_stand_between_packets_however_they_are_cut(sent: list[Packet], cut: int) -> None:
    wire = b"status\n"
    for packet in sent:
        wire += encode(REQUEST, packet.command, *packet.fields) + b"show jobs\r\n" + b"\n"
    decoder = Decoder(REQUEST, text=True)
    found: list[Packet | bytes] = []
    for i in range(0, len(wire), cut):
        decoder.feed(wire[i : i + cut])
        while True:
            found.extend(decoder)
            line = decoder.take_line()
            if line is None:
                break
            found.append(line)
    assert found == [b"status", *(each for packet in sent for each in (packet, b"show jobs\r", b""))]
    assert not decoder.in_packet


def test_an_admin_line_without_an_end_is_refused() -> None:
    decoder = Decoder(REQUEST, text=True)
    decoder.feed(b"x" * 5000)
    assert list(decoder) == []
    assert decoder.take_line() is None
    decoder.feed(b"x" * 5000)
    assert list(decoder) == []
    with pytest.raises(ProtocolError, match="got 10000 bytes without a newline"):
        decoder.take_line()


@pytest.mark.parametrize("wire", [b"\0RES\0\0\0\x06\0\0\0\0", b"\0X", b"\0REQ\0\0\0\x2b\0\0\0\0"])
def test_what_begins_as_a_packet_is_never_taken_for_text(wire: bytes) -> None:
    decoder = Decoder(REQUEST, text=True)
    decoder.feed(wire)
    with pytest.raises(ProtocolError):
        list(decoder)
