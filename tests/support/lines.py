"""What a client talks through, for tests that look at its connection."""

from __future__ import annotations

from geard import Client
from geard.client.line import Line


def line_of(client: Client) -> Line:
    """The line of a client that has one job server at a time."""
    line = client._conversation
    assert isinstance(line, Line)
    return line
