"""Pages that move: a stream of events (SSE) for each open page.

Each second a page's live part is rendered anew, once for all who look at the same, and sent to those for whom it has
changed. Rules:
- At most MAX_STREAMS streams. A slow reader gets the newest when it is ready for it, and nothing is kept for it; one
  that takes nothing for server.IO_SECONDS is hung up on.
- Every second has an event, if only that nothing has changed, so that both sides notice when the other is gone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from geard.monitor.state import State

MAX_STREAMS: Final = 200
RETRY_MILLISECONDS: Final = 1000
SAME: Final = b"event: same\ndata: 1\n\n"
WAIT_SECONDS: Final = 5.0


log = logging.getLogger("geard.monitor")


class TooManyStreams(Exception):
    """As many pages are open as may be."""


class Live:
    """The streams of one monitor. `render` makes the live part of a page from its view: a path with its query."""

    def __init__(self, state: State, render: Callable[[str], str]) -> None:
        self._state = state
        self._render = render
        self._streams = 0
        self._frames: dict[str, bytes] = {}
        self._frames_version = -1
        self._rendering = threading.Lock()

    def stream(self, view: str) -> Iterator[bytes]:
        """The events of one page. Raises TooManyStreams."""
        if self._streams >= MAX_STREAMS:
            raise TooManyStreams
        return self._stream(view)

    def _stream(self, view: str) -> Iterator[bytes]:
        self._streams += 1
        try:
            yield b"retry: %d\n\n" % RETRY_MILLISECONDS
            sent, version = b"", -1
            while True:
                with self._state.news:
                    if self._state.version == version:
                        self._state.news.wait(WAIT_SECONDS)
                version = self._state.version
                frame = self._frame(view)
                yield SAME if frame == sent else frame
                sent = frame
        finally:
            self._streams -= 1

    def _frame(self, view: str) -> bytes:
        with self._rendering:
            if self._frames_version != self._state.version:
                self._frames, self._frames_version = {}, self._state.version
            if view not in self._frames:
                self._frames[view] = self._make_frame(view)
            return self._frames[view]

    def _make_frame(self, view: str) -> bytes:
        try:
            data = msgspec.json.encode({"html": self._render(view)})
        except Exception:
            log.exception("a bug in geard: a page cannot be rendered")
            return SAME
        return b"event: page\ndata: " + data + b"\n\n"
