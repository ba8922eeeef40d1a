"""Which worker process has which jobs in flight, in memory that all processes of a daemon share and that outlives each.

It answers two questions about a worker process that died without a word: that it did, at once and to all its siblings;
and which jobs it had, to the last one that it was assigned.

Rules:
- A seat belongs to one worker process at a time. Only that process writes into it; the supervisor takes, excuses and
  frees it.
- The owner holds a robust mutex in its seat. When a process ends, the kernel marks such a mutex before it closes the
  process's sockets (exit_robust_list before exit_files). So whoever is assigned a job that a dead process had, can
  already see that it is dead: no message could come in time.
- What is written per read of a connection is one record: a few hundred nanoseconds, whatever the number of jobs. A
  record is counted once it is whole, so the end of the process in the middle of one leaves the ones before it readable.
- A seat's jobs are all that are in flight, and some that have ended: no harm, since a job that was answered is never
  assigned again. When an area is full the owner goes on in the other one, from a new list of those in flight.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterable
from typing import Final

SEATS: Final = 256
"""So many worker processes can have a seat at a time; what a further one had is known from its heartbeats only."""
SEAT_BYTES: Final = 1024 * 1024
"""Enough for the handles of 10,000 jobs in flight, twice over. Memory that nobody has written to costs nothing."""
REST_SECONDS: Final = 10.0
"""A seat is kept as it is for so long after the end of its owner, so that all siblings see it."""

FREE: Final = 0
TAKEN: Final = 1
EXCUSED: Final = 2
"""Its owner ends, or is ended, on purpose: what it has in flight is under no suspicion."""

_ENTRY_BYTES: Final = (
    64  # in the header: the mutex (40 or 48 bytes, its futex first), then state and epoch, as it was the n-th take
)
_HEADER_BYTES: Final = (1 + SEATS) * _ENTRY_BYTES  # the first entry counts how often a seat was taken
_BYTES: Final = _HEADER_BYTES + SEATS * SEAT_BYTES
_STATE: Final = 48
_EPOCH: Final = 52
_AREAS: Final = 64  # offset in a seat's body; before it: which area counts, and how much of each does
_AREA_BYTES: Final = (SEAT_BYTES - _AREAS) // 2
_LEAST_TURN_BYTES: Final = 8 * 1024
_CHUNK: Final = 500  # handles in a record of a new list
_FUTEX_OWNER_DIED: Final = 0x40000000
_u32: Final = struct.Struct("<I")

JobKey = tuple[str, bytes]
"""A job: the address of its job server, and its handle."""


class Presence:
    """The shared memory. `descriptor` is what a child inherits."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Make it, or map the inherited one. Raises OSError."""
        if descriptor is None:
            descriptor = os.memfd_create("geard-presence")
            os.ftruncate(descriptor, _BYTES)
        self.descriptor = descriptor
        self.memory = mmap.mmap(descriptor, _BYTES)  # keeps a descriptor of its own

    def header(self, seats: int) -> bytes:
        """What changes whenever a seat is taken, and when the owner of one of the first so many ends or is excused."""
        return self.memory[: (1 + seats) * _ENTRY_BYTES]

    @property
    def used(self) -> int:
        """How many seats, from the first, have been taken ever."""
        states = self.memory[_ENTRY_BYTES + _STATE : _HEADER_BYTES : _ENTRY_BYTES]
        return len(states.rstrip(b"\0"))

    def seat(self, number: int) -> Seat:
        """One of the SEATS."""
        return Seat(self.memory, number)

    def died(self) -> list[Seat]:
        """The seats whose owners have ended though nobody wanted them to."""
        seats = map(self.seat, range(self.used))
        return [seat for seat in seats if seat.state == TAKEN and seat.owner_died]


class Seats:
    """The supervisor's side: which seats are free."""

    def __init__(self, presence: Presence, *, taken: Iterable[int] = (), now: float = 0.0) -> None:
        """`taken` are seats of processes that are there already; the others of before rest."""
        self.presence = presence
        self._free_at = dict.fromkeys(range(SEATS), 0.0)
        self._free_at.update(dict.fromkeys(range(presence.used), now + REST_SECONDS))
        self._free_at.update(dict.fromkeys(taken, float("inf")))

    def take(self, now: float) -> Seat | None:
        """A seat for a new process; None when there is none."""
        for number, free_at in self._free_at.items():
            if free_at <= now:
                self._free_at[number] = float("inf")
                seat = self.presence.seat(number)
                seat.clear()
                return seat
        return None

    def free(self, seat: Seat, now: float) -> None:
        """Its owner has ended."""
        self._free_at[seat.number] = now + REST_SECONDS


class Seat:
    """One worker process's part of the shared memory."""

    def __init__(self, memory: mmap.mmap, number: int) -> None:
        self.number = number
        self._memory = memory
        self._entry = (1 + number) * _ENTRY_BYTES
        self._body = _HEADER_BYTES + number * SEAT_BYTES
        self._area = 0
        self._end = self._start = self._body + _AREAS  # of what is written into the current area
        self._turn_at = self._start + _LEAST_TURN_BYTES

    def __repr__(self) -> str:
        return f"<Seat {self.number} epoch={self.epoch} state={self.state}>"

    @property
    def state(self) -> int:
        """FREE, TAKEN or EXCUSED."""
        return self._read(self._entry + _STATE)

    @property
    def epoch(self) -> int:
        """Tells one owner from the next."""
        return self._read(self._entry + _EPOCH)

    @property
    def owner_died(self) -> bool:
        """Whether the process that sat here has ended, in any way."""
        return bool(self._read(self._entry) & _FUTEX_OWNER_DIED)

    def clear(self) -> None:
        """Make ready for a new owner."""
        epoch = self._read(0) + 1 & 0x7FFFFFFF
        self._memory[self._body : self._body + _AREAS] = bytes(_AREAS)
        self._memory[self._entry : self._entry + _ENTRY_BYTES] = bytes(_ENTRY_BYTES)
        self._write(self._entry + _EPOCH, epoch)
        self._write(self._entry + _STATE, TAKEN)
        self._write(0, epoch)

    def excuse(self) -> None:
        """Its owner is about to end on purpose."""
        self._write(self._entry + _STATE, EXCUSED)

    # --- the owner's ----------------------------------------------------------------------------------------------

    def occupy(self) -> None:
        """Have the kernel mark this seat when the calling thread ends: for the main thread, when the process does.

        Raises OSError where the C library has no robust mutexes."""
        libc = ctypes.CDLL(None)
        attributes = ctypes.create_string_buffer(_ENTRY_BYTES)
        mutex = (ctypes.c_char * _STATE).from_buffer(self._memory, self._entry)
        try:
            for error in (
                libc.pthread_mutexattr_init(attributes),
                libc.pthread_mutexattr_setpshared(attributes, 1),
                libc.pthread_mutexattr_setrobust(attributes, 1),
                libc.pthread_mutex_init(mutex, attributes),
                libc.pthread_mutex_lock(mutex),
            ):
                if error:
                    raise OSError(error, os.strerror(error))
        except AttributeError as error:
            raise OSError(str(error)) from error

    def add(self, record: bytes) -> bool:
        """Note the jobs of a record, see `record_of`. False when there is no room: `begin` anew with all there are."""
        end = self._end + len(record)
        if end > self._turn_at:
            return False
        self._memory[self._end : end] = record
        self._end = end
        _u32.pack_into(self._memory, self._body + 4 + 4 * self._area, end - self._start)
        return True

    def begin(self, records: Iterable[bytes]) -> None:
        """Go on in the other area, with these jobs. Those for which there is no room are left out."""
        area = 1 - self._area
        start = end = self._body + _AREAS + area * _AREA_BYTES
        for record in records:
            if end + len(record) > start + _AREA_BYTES:
                break
            self._memory[end : end + len(record)] = record
            end += len(record)
        self._write(self._body + 4 + 4 * area, end - start)
        self._write(self._body, area)
        self._area, self._start, self._end = area, start, end
        self._turn_at = min(end + max(end - start, _LEAST_TURN_BYTES), start + _AREA_BYTES)

    # --- everybody's ----------------------------------------------------------------------------------------------

    def jobs(self) -> set[JobKey]:
        """All jobs that its owner had in flight when it ended, and some that it had answered."""
        area = self._read(self._body) & 1
        start = self._body + _AREAS + area * _AREA_BYTES
        data = self._memory[start : start + min(self._read(self._body + 4 + 4 * area), _AREA_BYTES)]
        found: set[JobKey] = set()
        position = 0
        while position + 4 <= len(data):
            (size,) = _u32.unpack_from(data, position)
            address, *handles = data[position + 4 : position + 4 + size].split(b"\0")
            found.update((address.decode(errors="replace"), handle) for handle in handles)
            position += 4 + size
        return found

    def _read(self, offset: int) -> int:
        number: int = _u32.unpack_from(self._memory, offset)[0]
        return number

    def _write(self, offset: int, value: int) -> None:
        _u32.pack_into(self._memory, offset, value)


def record_of(address: bytes, handles: list[bytes]) -> bytes:
    """What `Seat.add` takes: jobs of one job server."""
    body = b"\0".join([address, *handles])
    return _u32.pack(len(body)) + body


def records_of(address: bytes, handles: list[bytes]) -> list[bytes]:
    """The same for any number of jobs, in several records."""
    return [record_of(address, handles[first : first + _CHUNK]) for first in range(0, len(handles), _CHUNK)]
