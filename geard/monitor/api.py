"""What programs read: metrics, health, and the API that the charts of the pages and the monitors of peers use as well.

Rules:
- What a peer's monitor asks (state, jobs, failures, history, stack) is about this machine's daemon alone: what this one
  told of its own peers would be counted twice.
- A load balancer knows no password: it is told whether all is well, and no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from flask import Response, g, request

from geard.monitor import chart, health, pages
from geard.monitor.metrics import Metrics
from geard.monitor.state import Ask, State
from geard.supervisor.answers import Request

MOST: Final = 10_000
"""Rows or points in one answer."""

T = TypeVar("T")


class Api:
    """What is at which address."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._metrics = Metrics(state)

    def routes(self) -> dict[str, Callable[..., Any]]:
        """What can be read."""
        return {
            "/metrics": self.metrics,
            "/health/live": self.health_live,
            "/health/ready": self.health_ready,
            "/api/state": self.api_state,
            "/api/problems": self.api_problems,
            "/api/functions": self.api_functions,
            "/api/jobs": self.api_jobs,
            "/api/failures": self.api_failures,
            "/api/history": self.api_history,
            "/api/stack": self.api_stack,
            "/api/chart": self.api_chart,
        }

    def metrics(self) -> Response:
        names = request.args.getlist("name[]")
        told, content_type = self._metrics.exposition(request.headers.get("Accept", ""), names)
        return Response(told, content_type=content_type)

    def health_live(self) -> Response:
        return self._health(health.live(self._state.own))

    def health_ready(self) -> Response:
        views = [watch.view() for watch in self._state.watches]
        return self._health(health.ready(self._state.own, views))

    def _health(self, found: health.Health) -> Response:
        return as_json(found if g.known else {"ok": found.ok}, 200 if found.ok else 503)

    def api_state(self) -> Response:
        return as_json(self._state.own_state())

    def api_problems(self) -> Response:
        return as_json(pages.found_problems(self._state))

    def api_functions(self) -> Response:
        return as_json({row.name: row for row in pages.function_rows(self._state)})

    def api_jobs(self) -> Response:
        asked = Request("", function=text("function"), limit=number("limit", 100), offset=number("offset"))
        return as_json(self._recall(lambda source: source.jobs, asked))

    def api_failures(self) -> Response:
        asked = Request("", function=text("function"), limit=number("limit", 100), after=number("after"))
        return as_json(self._recall(lambda source: source.failures, asked))

    def api_history(self) -> Response:
        minutes = bool(number("minutes"))
        asked = Request("", function=text("function"), limit=number("limit", 900), minutes=minutes)
        return as_json(self._recall(lambda source: source.history, asked))

    def api_stack(self) -> Response:
        asked = Request("", pid=number("pid"), handle=text("handle"))
        return as_json({"stack": self._recall(lambda source: source.stack, asked)})

    def _recall(self, ask: Ask[T], asked: Request) -> T:
        return self._state.recall(self._state.own, ask, asked)

    def api_chart(self) -> Response:
        return as_json(chart.columns(self._state, text("function"), text("span"), number("after"), time.time()))


def text(name: str) -> str:
    """What is asked for by this name; "" for nothing."""
    return request.args.get(name, "")


def number(name: str, default: int = 0) -> int:
    """The same as a number. What makes no sense is taken for the default, and what is too much for the most."""
    asked, most = request.values.get(name, ""), MOST if name in ("limit", "offset") else 2**40
    return min(int(asked), most) if asked.isdecimal() and len(asked) < 12 else default


def as_json(value: object, code: int = 200) -> Response:
    """An answer."""
    return Response(msgspec.json.encode(value), code, mimetype="application/json")
