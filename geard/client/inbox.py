"""Inbox: what has come over an exchange, on its way to whom it belongs. Pure: no socket, and no lock.

    inbox.chunks += (data,)
    inbox.deliver(bells)

Rules:
- Answers come in the order of the requests. What a worker sends is matched by its handle; a job server sends one copy
  to each submission: two with the same function and unique have the same handle and take the copies in turn.
- One at a time delivers, and may be interrupted anywhere. What was received waits here, and the next goes on from
  there: the steps that belong together have no call between them (see Exchange).
- A packet over the limit is an error of him alone whose it is.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from geard.client.reply import Bell, Reply, Submission
from geard.errors import GeardError, PacketTooLarge, ProtocolError, QueueFull, ResultTooLarge, ServerError
from geard.protocol import RESPONSE, Command, Decoder, Oversized, Packet

# Enum members are looked up slowly; these are compared for every packet.
JOB_CREATED: Final = Command.JOB_CREATED
ERROR: Final = Command.ERROR
WORK_DATA: Final = Command.WORK_DATA
WORK_COMPLETE: Final = Command.WORK_COMPLETE
ANSWERS: Final = (
    JOB_CREATED,
    ERROR,
    Command.ECHO_RES,
    Command.OPTION_RES,
    Command.STATUS_RES,
    Command.STATUS_RES_UNIQUE,
)
ENDS: Final = (WORK_COMPLETE, Command.WORK_FAIL, Command.WORK_EXCEPTION)
WORK: Final = (*ENDS, WORK_DATA, Command.WORK_STATUS, Command.WORK_WARNING)


class Inbox:
    """What is owed to the callers of one exchange, and what has come for them."""

    def __init__(self, *, max_packet_bytes: int) -> None:
        self.owed: deque[Reply] = deque()
        """Sent, not yet answered."""
        self.running: dict[bytes, tuple[Submission, ...]] = {}
        """The foreground jobs by their handles; who gets the next copy stands first."""
        self.chunks: list[bytes] = []
        """Received: put here one at a time, when the inbox is empty."""
        self._decoder = Decoder(RESPONSE, max_packet_bytes=max_packet_bytes, skip=True)
        self._undecoded = False  # whether the decoder holds a chunk that it was not asked about
        # Most of what comes is a run of one type, and then a run of the other.
        self._created: deque[list[bytes]] = deque()  # the fields of JOB_CREATED packets
        self._completed: deque[list[bytes]] = deque()  # of WORK_COMPLETE packets, which came after those
        self._packets: deque[Packet] = deque()  # which came after both

    def __repr__(self) -> str:
        return f"<Inbox {len(self.owed)} owed, {len(self.running)} running{'' if self.is_empty else ', not delivered'}>"

    @property
    def is_empty(self) -> bool:
        """Whether all that was received is delivered, as far as it is whole."""
        return not (self._undecoded or self.chunks or self._created or self._completed or self._packets)

    def deliver(self, bells: list[Bell]) -> None:
        """Give what has come to whom it belongs, and add the bells of those to `bells`.

        Raises ProtocolError for what is no packet or belongs to nobody."""
        chunks = self.chunks
        if chunks:
            found = self._decoder.whole(chunks[0])
            if found is None:
                self._decoder.feed(chunks[0])
                # At once:
                del chunks[0]
                self._undecoded = True
            elif found[0] is JOB_CREATED:
                # At once:
                del chunks[0]
                self._created += (found[1],)
            elif found[0] is WORK_COMPLETE:
                # At once:
                del chunks[0]
                self._completed += (found[1],)
            else:
                packet = Packet(*found)
                # At once:
                del chunks[0]
                self._packets += (packet,)
        self._hand_out(bells)
        if self._undecoded:
            decoder = self._decoder
            try:
                decoder.take(JOB_CREATED, self._created)
                decoder.take(WORK_COMPLETE, self._completed)
                self._packets.extend(decoder)
                self._undecoded = False
            finally:
                self._hand_out(bells)

    def _hand_out(self, bells: list[Bell]) -> None:
        created, completed, packets = self._created, self._completed, self._packets
        owed, running = self.owed, self.running
        while True:
            while created:
                reply, fields = owed[0] if owed else None, created[0]
                if type(reply) is Submission:
                    handle = fields[0]
                    # At once:
                    running[handle] = (*running[handle], reply) if handle in running else (reply,)
                    reply.fields = fields
                    del owed[0], created[0]
                elif reply is not None and reply.expected is JOB_CREATED:
                    # At once:
                    reply.fields = fields
                    del owed[0], created[0]
                else:
                    raise _unexpected(JOB_CREATED, owed)
                if reply.bell:
                    bells.append(reply.bell)
            while completed:
                handle, data = completed[0]
                mates = running.get(handle)
                if mates is None:
                    raise _nobodys(WORK_COMPLETE, handle)
                submission, alone = mates[0], len(mates) == 1
                # At once:
                if alone:
                    del running[handle]
                else:
                    running[handle] = mates[1:]
                submission.result = data
                if submission.finished is not None:
                    submission.finished += (submission,)
                del completed[0]
                if submission.bell:
                    bells.append(submission.bell)
            if not packets:
                return
            packet = packets[0]
            command, fields = packet
            if type(packet) is not Oversized and (command is JOB_CREATED or command is WORK_COMPLETE):
                same = created if command is JOB_CREATED else completed
                # At once:
                same += (fields,)
                del packets[0]
            elif command in ANSWERS:
                self._hand_out_answer(packet, bells)
            else:
                self._hand_out_work(packet, bells)

    def _hand_out_answer(self, packet: Packet, bells: list[Bell]) -> None:
        command, fields = packet
        packets, owed = self._packets, self.owed
        if not owed or (command is not owed[0].expected and command is not ERROR):
            raise _unexpected(command, owed)
        reply = owed[0]
        if command is ERROR or type(packet) is Oversized:
            error: GeardError = too_large(packet) if type(packet) is Oversized else server_error(fields)
            submission = reply if isinstance(reply, Submission) else None
            # At once:
            reply.error = error
            if submission is not None and submission.finished is not None:
                submission.finished += (submission,)
            del owed[0], packets[0]
        else:
            # At once:
            reply.fields = fields
            del owed[0], packets[0]
        if reply.bell:
            bells.append(reply.bell)

    def _hand_out_work(self, packet: Packet, bells: list[Bell]) -> None:
        command, fields = packet
        packets, running = self._packets, self.running
        handle = fields[0] if fields else b""
        if command is Command.WORK_FAIL:
            handle = handle.rstrip(b"\0")  # gearmand leaves one when it makes it of a WORK_EXCEPTION
        mates = running.get(handle, ())
        if not mates or command not in WORK:
            raise _nobodys(command, handle)
        submission, others = mates[0], mates[1:]
        if command in ENDS:
            # At once:
            if others:
                running[handle] = others
            else:
                del running[handle]
            submission.end = packet
            if submission.finished is not None:
                submission.finished += (submission,)
            del packets[0]
        else:
            # At once:
            if others:
                running[handle] = (*others, submission)
            if (command is WORK_DATA or submission.wants_all) and not submission.abandoned:
                submission.news += (packet,)
            del packets[0]
        if submission.bell:
            bells.append(submission.bell)


def too_large(packet: Oversized) -> ResultTooLarge:
    """What came instead of an answer."""
    if packet.command is JOB_CREATED:
        raise PacketTooLarge(packet.text)  # what comes for the job could not be told from what comes for nobody
    return ResultTooLarge(f"the answer is too large for this client: {packet.text} (max_packet_bytes)")


def server_error(fields: list[bytes]) -> ServerError:
    """What an ERROR packet says. A full queue has an error of its own."""
    code, text = (field.decode(errors="backslashreplace") for field in fields)
    full = code == "JOB_QUEUE_FULL" or (code == "QUEUE_ERROR" and "full" in text)  # gearmand 1.1 says the latter
    return (QueueFull if full else ServerError)(code, text)


def _unexpected(command: Command, owed: deque[Reply]) -> ProtocolError:
    return ProtocolError(f"{command.name} came, but {owed[0].expected.name if owed else 'nothing'} is next")


def _nobodys(command: Command, handle: bytes) -> ProtocolError:
    return ProtocolError(f"{command.name} came for {handle!r}, which is no job of this client")
