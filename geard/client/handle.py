"""Handle: a job server's name for a job, together with the job server."""

from __future__ import annotations

from typing import Self

from geard.config import JobServer, parse_address


class Handle(str):
    """A str that remembers in `server` which job server gave it.

    Where only the text was kept, make one of it again: `Handle(text, "host:4730")`. Raises InvalidRequest for what is
    no address. An encoder that takes str alone, and none of its kinds, is given `str(handle)`."""

    __slots__ = ("server",)

    server: JobServer

    def __new__(cls, text: str, server: str | JobServer) -> Self:
        self = super().__new__(cls, text)
        self.server = parse_address(server) if isinstance(server, str) else server
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.server)
