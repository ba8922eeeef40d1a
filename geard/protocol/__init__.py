"""The Gearman protocol as pure code: bytes in, values out.

Nothing here touches a socket, a clock, a log or gevent, so it serves worker, client and job server alike.
The source for every number and field is the PROTOCOL document of gearmand.
"""

from geard.protocol.decoder import DEFAULT_MAX_PACKET_BYTES, Decoder, Oversized, Packet
from geard.protocol.encode import begin, encode, request, response
from geard.protocol.packets import FIELDS, REQUEST, RESPONSE, Command

__all__ = [
    "DEFAULT_MAX_PACKET_BYTES",
    "FIELDS",
    "REQUEST",
    "RESPONSE",
    "Command",
    "Decoder",
    "Oversized",
    "Packet",
    "begin",
    "encode",
    "request",
    "response",
]
