"""The shared memory that tells which jobs a dead worker process had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from geard.presence import EXCUSED, REST_SECONDS, SEATS, Presence, Seat, Seats, record_of, records_of
from tests.support.waiting import eventually

SERVER = "127.0.0.1:4730"
PRESENCE = Presence()


def note(seat: Seat, handles: list[bytes], in_flight: list[bytes]) -> None:
    """As the owner does it."""
    if not seat.add(record_of(SERVER.encode(), handles)):
        seat.begin(records_of(SERVER.encode(), in_flight))


handle = st.binary(min_size=1, max_size=40).map(lambda data: data.replace(b"\0", b"x"))


@given(st.lists(st.tuples(st.lists(handle, min_size=1, max_size=60), st.integers(0, 60)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_all_jobs_in_flight_are_there_however_many_have_ended(batches: list[tuple[list[bytes], int]]) -> None:
    seat = PRESENCE.seat(3)
    seat.clear()
    in_flight: list[bytes] = []
    for handles, ended in batches:
        in_flight += handles
        note(seat, handles, in_flight)
        assert {(SERVER, handle) for handle in in_flight} <= seat.jobs()
        del in_flight[:ended]


def test_what_has_ended_is_forgotten_in_time() -> None:
    seat = PRESENCE.seat(0)
    seat.clear()
    for number in range(100_000):
        note(seat, [b"H:host:%d" % number], [b"H:host:%d" % number])
    assert (SERVER, b"H:host:99999") in seat.jobs()
    assert len(seat.jobs()) < 2000


def test_more_than_there_is_room_for_is_left_out_and_harms_nobody() -> None:
    seat, neighbour = PRESENCE.seat(0), PRESENCE.seat(1)
    seat.clear()
    neighbour.clear()
    note(neighbour, [b"mine"], [])
    many = [b"H:%060d" % number for number in range(50_000)]
    note(seat, many, many)
    assert 5_000 < len(seat.jobs()) < 50_000
    assert neighbour.jobs() == {(SERVER, b"mine")}


OWNER = """
import os, sys, time
from geard.presence import Presence, record_of
seat = Presence(int(sys.argv[1])).seat(int(sys.argv[2]))
seat.occupy()
seat.add(record_of(b"127.0.0.1:4730", [b"H:host:1", b"H:host:2"]))
if sys.argv[3] == "leaves":
    seat.excuse()
    os._exit(0)
print("sits", flush=True)
time.sleep(60)
"""


def owner(presence: Presence, seat: Seat, what: str) -> subprocess.Popen[str]:
    arguments = (str(presence.descriptor), str(seat.number), what)
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, *arguments], pass_fds=[presence.descriptor], stdout=subprocess.PIPE, text=True
    )


def test_a_death_is_seen_by_all_with_the_jobs_and_a_leave_is_none() -> None:
    presence = Presence()
    seats = Seats(presence)
    first, second = seats.take(0.0), seats.take(0.0)
    assert first
    assert second
    before = presence.header(presence.used)
    with owner(presence, first, "stays") as dies, owner(presence, second, "leaves") as leaves:
        assert dies.stdout
        assert dies.stdout.readline() == "sits\n"
        assert leaves.wait(30) == 0
        assert presence.died() == []
        assert presence.header(presence.used) != before
        sitting = presence.header(presence.used)
        dies.send_signal(signal.SIGKILL)
        eventually(lambda: presence.header(presence.used) != sitting, what="the mark of the kernel")
    assert [seat.number for seat in presence.died()] == [first.number]
    assert first.jobs() == {(SERVER, b"H:host:1"), (SERVER, b"H:host:2")}
    assert second.state == EXCUSED


def test_a_seat_rests_after_its_owner_so_that_all_see_its_end() -> None:
    seats = Seats(Presence())
    taken = [seats.take(0.0) for _ in range(SEATS)]
    assert all(taken)
    assert seats.take(0.0) is None
    seat = taken[7]
    assert seat
    epoch = seat.epoch
    seats.free(seat, 100.0)
    assert seats.take(100.0 + REST_SECONDS / 2) is None
    again = seats.take(100.0 + REST_SECONDS)
    assert again
    assert (again.number, again.jobs()) == (7, set())
    assert again.epoch != epoch


def test_the_memory_is_of_no_use_to_a_program_that_is_executed() -> None:
    assert not os.get_inheritable(PRESENCE.descriptor)
