"""Pages that move: a stream of events (SSE) for each open page.

Each second a page's live part is rendered anew, once for all who look at the same, and sent to those for whom it has
changed. Rules:
- At most MAX_STREAMS streams. A slow reader gets the newest when it is ready for it, and nothing is kept for it; one
  that takes nothing for server.IO_SECONDS is hung up on.
- A page that waits for somebody holds up its own readers, and those of no other.
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
        self._views: dict[str, _View] = {}  # those that somebody looks at

    def stream(self, view: str) -> Iterator[bytes]:
        """The events of one page. Raises TooManyStreams."""
        if self._streams >= MAX_STREAMS:
            raise TooManyStreams
        return self._stream(view)

    def _stream(self, name: str) -> Iterator[bytes]:
        view = self._views.setdefault(name, _View())
        view.readers += 1
        self._streams += 1
        try:
            yield b"retry: %d\n\n" % RETRY_MILLISECONDS
            sent, version = b"", -1
            while True:
                with self._state.news:
                    if self._state.version == version:
                        self._state.news.wait(WAIT_SECONDS)
                version = self._state.version
                frame = self._frame(name, view)
                yield SAME if frame == sent else frame
                sent = frame
        finally:
            self._streams -= 1
            view.readers -= 1
            if not view.readers:
                del self._views[name]

    def _frame(self, name: str, view: _View) -> bytes:
        with view.rendering:
            if view.version != self._state.version:
                view.version, view.frame = self._state.version, self._make_frame(name)
            return view.frame

    def _make_frame(self, name: str) -> bytes:
        try:
            data = msgspec.json.encode({"html": self._render(name)})
        except Exception:
            log.exception("a bug in geard: a page cannot be rendered")
            return SAME
        return b"event: page\ndata: " + data + b"\n\n"


class _View:
    """A page that is looked at, as it was rendered last."""

    def __init__(self) -> None:
        self.readers = 0
        self.rendering = threading.Lock()
        self.version = -1  # of the state that `frame` shows
        self.frame = SAME
