"""Every request of the protocol, as a table: what a packet from a client or worker asks of the rules.

The fields are those of `geard.protocol.FIELDS`; the answers, also to what is wrong, are gearmand's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from geard.jobserver import answers
from geard.jobserver.rules import Rules
from geard.jobserver.state import Job, Peer, Priority
from geard.protocol import Command

Handler = Callable[[Rules, Peer, list[bytes], float], None]
"""Called with the rules, who asks, the fields of the packet, and the time in seconds since the epoch."""

MIN_TIMEOUT_SECONDS: Final = 1.0
"""CAN_DO_TIMEOUT counts in milliseconds, and less than this is taken for this."""

_LEADING_INTEGER = re.compile(rb"\s*([+-]?\d{1,18})")


def _integer(text: bytes) -> int:
    """As C's atoi: what is no number is 0."""
    match = _LEADING_INTEGER.match(text)
    return int(match[1]) if match else 0


# --- clients ------------------------------------------------------------------------------------------------------


def _submit(priority: Priority, background: bool) -> Handler:
    def handle(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
        name, unique, workload = fields
        rules.submit(peer, name, unique, workload, priority=priority, background=background)

    return handle


def _submit_epoch(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    name, unique, epoch, workload = fields
    rules.submit(peer, name, unique, workload, background=True, due=_integer(epoch), now=now)


def _submit_reduce(background: bool) -> Handler:
    def handle(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
        name, unique, reducer, _, workload = fields
        rules.submit(peer, name, unique, workload, background=background, reducer=reducer)

    return handle


def _status(job: Job | None) -> tuple[bytes, ...]:
    if job is None:
        return b"0", b"0", b"0", b"0"
    return b"1", b"1" if job.worker else b"0", b"%d" % job.numerator, b"%d" % job.denominator


def _get_status(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    handle = fields[0]
    rules.send(peer, answers.answer(Command.STATUS_RES, handle, *_status(rules.jobs.get(handle))))


def _get_status_unique(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    unique = fields[0]
    job = rules.find_unique(unique)
    waiting = b"%d" % (sum(job.clients.values()) if job and job.clients else 0)
    rules.send(peer, answers.answer(Command.STATUS_RES_UNIQUE, unique, *_status(job), waiting))


def _option(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    if fields[0].lower() == b"exceptions":
        peer.exceptions = True
        rules.send(peer, answers.answer(Command.OPTION_RES, fields[0]))
    else:
        rules.send(peer, answers.UNKNOWN_OPTION)


def _echo(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    rules.send(peer, answers.answer(Command.ECHO_RES, fields[0]))


def _not_expected(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    rules.send(peer, answers.NOT_EXPECTED)


# --- workers ------------------------------------------------------------------------------------------------------


def _can_do(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    rules.can_do(peer, fields[0])


def _can_do_timeout(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    milliseconds = _integer(fields[1])
    rules.can_do(peer, fields[0], max(milliseconds / 1000, MIN_TIMEOUT_SECONDS) if milliseconds > 0 else 0.0)


def _cant_do(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    rules.cant_do(peer, fields[0])


def _reset_abilities(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    rules.reset_abilities(peer)


def _set_client_id(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    if rules.accepts(peer, fields[0]):
        peer.client_id = fields[0]


def _pre_sleep(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    rules.sleep(peer)


def _grab_job(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    job = rules.grab(peer, now)
    if job is None:
        rules.send(peer, answers.NO_JOB)
    else:
        rules.send(peer, answers.answer(Command.JOB_ASSIGN, job.handle, job.function.name, job.workload))


def _grab_job_uniq(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    job = rules.grab(peer, now)
    if not peer.outbox:
        rules.unsent.append(peer)
    packet = answers.NO_JOB if job is None else answers.job_assign_uniq(job)
    peer.outbox.append(packet)
    rules.spent += len(packet)


def _grab_job_all(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    job = rules.grab(peer, now)
    if job is None:
        rules.send(peer, answers.NO_JOB)
    elif job.reducer:
        fields = [job.handle, job.function.name, job.unique, job.reducer, job.workload]
        rules.send(peer, answers.answer(Command.JOB_ASSIGN_ALL, *fields))
    else:
        rules.send(peer, answers.job_assign_uniq(job))


def _work_status(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
    job = rules.report(peer, Command.WORK_STATUS, fields, answers.RESULT_NOT_FOUND)
    if job is not None:
        job.numerator, job.denominator = _integer(fields[1]), _integer(fields[2])


def _report(command: Command) -> Handler:
    def handle(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
        rules.report(peer, command, fields, answers.DATA_NOT_FOUND)

    return handle


def _finish(command: Command, missing: bytes = answers.RESULT_NOT_FOUND) -> Handler:
    def handle(rules: Rules, peer: Peer, fields: list[bytes], now: float) -> None:
        rules.finish(peer, command, fields, missing)

    return handle


HANDLERS: Final[dict[Command, Handler]] = dict.fromkeys(Command, _not_expected) | {
    Command.SUBMIT_JOB: _submit(Priority.NORMAL, background=False),
    Command.SUBMIT_JOB_HIGH: _submit(Priority.HIGH, background=False),
    Command.SUBMIT_JOB_LOW: _submit(Priority.LOW, background=False),
    Command.SUBMIT_JOB_BG: _submit(Priority.NORMAL, background=True),
    Command.SUBMIT_JOB_HIGH_BG: _submit(Priority.HIGH, background=True),
    Command.SUBMIT_JOB_LOW_BG: _submit(Priority.LOW, background=True),
    Command.SUBMIT_JOB_EPOCH: _submit_epoch,
    Command.SUBMIT_REDUCE_JOB: _submit_reduce(background=False),
    Command.SUBMIT_REDUCE_JOB_BACKGROUND: _submit_reduce(background=True),
    Command.GET_STATUS: _get_status,
    Command.GET_STATUS_UNIQUE: _get_status_unique,
    Command.OPTION_REQ: _option,
    Command.ECHO_REQ: _echo,
    Command.CAN_DO: _can_do,
    Command.CAN_DO_TIMEOUT: _can_do_timeout,
    Command.CANT_DO: _cant_do,
    Command.RESET_ABILITIES: _reset_abilities,
    Command.SET_CLIENT_ID: _set_client_id,
    Command.PRE_SLEEP: _pre_sleep,
    Command.GRAB_JOB: _grab_job,
    Command.GRAB_JOB_UNIQ: _grab_job_uniq,
    Command.GRAB_JOB_ALL: _grab_job_all,
    Command.WORK_STATUS: _work_status,
    Command.WORK_DATA: _report(Command.WORK_DATA),
    Command.WORK_WARNING: _report(Command.WORK_WARNING),
    Command.WORK_COMPLETE: _finish(Command.WORK_COMPLETE),
    Command.WORK_FAIL: _finish(Command.WORK_FAIL),
    Command.WORK_EXCEPTION: _finish(Command.WORK_EXCEPTION, answers.EXCEPTION_NOT_FOUND),
}
"""The answer to every packet; SUBMIT_JOB_SCHED and ALL_YOURS are refused, as gearmand refuses them."""
