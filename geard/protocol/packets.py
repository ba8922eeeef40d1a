"""The packets of the Gearman protocol, as one table.

Rule: the protocol is this table, and code is written once against it. A packet is a header of twelve bytes (magic,
code, size of the body), then its fields with a NUL byte between; the last field takes the rest of the body, NULs
included. Source: gearmand's PROTOCOL, "Binary Packet" and what follows it. Code 5 was never assigned.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

REQUEST: Final = b"\0REQ"
"""The magic of a packet for the job server."""
RESPONSE: Final = b"\0RES"
"""The magic of a packet from the job server."""

HEADER: Final = struct.Struct(">4sII")
HEADER_BYTES: Final = HEADER.size

MAX_UNIQUE_BYTES: Final = 64
"""gearmand refuses a longer unique with ERROR `ARGUMENT_TOO_LARGE`."""


class Command(enum.IntEnum):
    """The packet types by their names in PROTOCOL."""

    CAN_DO = 1
    CANT_DO = 2
    RESET_ABILITIES = 3
    PRE_SLEEP = 4
    UNUSED = 5
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    GRAB_JOB = 9
    NO_JOB = 10
    JOB_ASSIGN = 11
    WORK_STATUS = 12
    WORK_COMPLETE = 13
    WORK_FAIL = 14
    GET_STATUS = 15
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    STATUS_RES = 20
    SUBMIT_JOB_HIGH = 21
    SET_CLIENT_ID = 22
    CAN_DO_TIMEOUT = 23
    ALL_YOURS = 24
    WORK_EXCEPTION = 25
    OPTION_REQ = 26
    OPTION_RES = 27
    WORK_DATA = 28
    WORK_WARNING = 29
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW = 33
    SUBMIT_JOB_LOW_BG = 34
    SUBMIT_JOB_SCHED = 35
    SUBMIT_JOB_EPOCH = 36
    SUBMIT_REDUCE_JOB = 37
    SUBMIT_REDUCE_JOB_BACKGROUND = 38
    GRAB_JOB_ALL = 39
    JOB_ASSIGN_ALL = 40
    GET_STATUS_UNIQUE = 41
    STATUS_RES_UNIQUE = 42


_SUBMIT = ("function", "unique", "workload")
# PROTOCOL does not describe these two; gearmand and libgearman put an "aggregate" before the workload, always empty.
_REDUCE = ("function", "unique", "reducer", "aggregate", "workload")

FIELDS: Final[dict[Command, tuple[str, ...]]] = {
    Command.CAN_DO: ("function",),
    Command.CANT_DO: ("function",),
    Command.RESET_ABILITIES: (),
    Command.PRE_SLEEP: (),
    Command.UNUSED: (),
    Command.NOOP: (),
    Command.SUBMIT_JOB: _SUBMIT,
    Command.JOB_CREATED: ("handle",),
    Command.GRAB_JOB: (),
    Command.NO_JOB: (),
    Command.JOB_ASSIGN: ("handle", "function", "workload"),
    Command.WORK_STATUS: ("handle", "numerator", "denominator"),
    Command.WORK_COMPLETE: ("handle", "data"),
    Command.WORK_FAIL: ("handle",),
    Command.GET_STATUS: ("handle",),
    Command.ECHO_REQ: ("data",),
    Command.ECHO_RES: ("data",),
    Command.SUBMIT_JOB_BG: _SUBMIT,
    Command.ERROR: ("code", "text"),
    Command.STATUS_RES: ("handle", "known", "running", "numerator", "denominator"),
    Command.SUBMIT_JOB_HIGH: _SUBMIT,
    Command.SET_CLIENT_ID: ("client_id",),
    Command.CAN_DO_TIMEOUT: ("function", "timeout"),
    Command.ALL_YOURS: (),
    Command.WORK_EXCEPTION: ("handle", "data"),
    Command.OPTION_REQ: ("option",),
    Command.OPTION_RES: ("option",),
    Command.WORK_DATA: ("handle", "data"),
    Command.WORK_WARNING: ("handle", "data"),
    Command.GRAB_JOB_UNIQ: (),
    Command.JOB_ASSIGN_UNIQ: ("handle", "function", "unique", "workload"),
    Command.SUBMIT_JOB_HIGH_BG: _SUBMIT,
    Command.SUBMIT_JOB_LOW: _SUBMIT,
    Command.SUBMIT_JOB_LOW_BG: _SUBMIT,
    Command.SUBMIT_JOB_SCHED: ("function", "unique", "minute", "hour", "day", "month", "weekday", "workload"),
    Command.SUBMIT_JOB_EPOCH: ("function", "unique", "epoch", "workload"),
    Command.SUBMIT_REDUCE_JOB: _REDUCE,
    Command.SUBMIT_REDUCE_JOB_BACKGROUND: _REDUCE,
    Command.GRAB_JOB_ALL: (),
    Command.JOB_ASSIGN_ALL: ("handle", "function", "unique", "reducer", "workload"),
    Command.GET_STATUS_UNIQUE: ("unique",),
    Command.STATUS_RES_UNIQUE: ("unique", "known", "running", "numerator", "denominator", "clients"),
}
